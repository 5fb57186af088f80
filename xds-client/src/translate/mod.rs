//! From resources of the Envoy API to the model of `tidegate-core`: what a control plane says, in the words of our
//! own configuration.
//!
//! A resource is read in two steps. [`support`] goes through all that is set in it: a field that is not in its
//! table is refused by name, with its path, and one that may be ignored is told as a warning. Then the file of its
//! type makes the model of it, checking values as strictly as those of a file. What comes out can be compiled; a
//! resource that is refused says everything that is wrong with it, not the first thing.
//!
//! In reading order: `node` (a message with its path, and the faults), [`support`], `cluster`, `endpoint`, `listener`,
//! `route` (virtual hosts), `matching`, `action`.

mod action;
mod balance;
mod cluster;
mod endpoint;
mod fault;
mod listener;
mod matching;
mod node;
mod own;
mod route;
pub mod support;
mod template;
mod tls;

pub use own::EXTENSIONS;

use std::{fmt, sync::Arc};

use tidegate_core::config::model;

use crate::{
    pb::message::{self, Message, Value},
    source::FileSource,
    subscription::ResourceType,
};

pub use self::fault::FaultFilter;

use self::node::{Faults, Node};

/// Bytes of a resource's name. Control planes compose long ones; they become labels of metrics.
pub const NAME_MAX: usize = 256;

/// Bytes of a path: those of the kernel (PATH_MAX).
pub const PATH_MAX: usize = 4095;

/// Faults and warnings of one resource that are told.
pub const FAULTS_MAX: usize = 16;

/// Something about a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `virtual_hosts[0].routes[2].route.cluster_header`; empty for the resource as a whole.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.reason),
            false => write!(f, "{}: {}", self.path, self.reason),
        }
    }
}

/// A resource, in our words.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A cluster.
    Cluster(Box<Cluster>),
    /// The endpoints of a cluster.
    Assignment(Assignment),
    /// A listener.
    Listener(Box<Listener>),
    /// The routes of listeners.
    Routes(Vec<model::Route>),
}

/// The endpoints of a cluster, and what is said of them together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// The endpoints.
    pub endpoints: Vec<model::StaticEndpoint>,
    /// What a priority can take beyond its load, in percent, if it says so.
    pub overprovisioning: Option<u32>,
}

impl Assignment {
    /// Gives the cluster its endpoints.
    pub fn fill(self, config: &mut model::Cluster) {
        config.endpoints = model::Endpoints::Static(self.endpoints);
        if let Some(overprovisioning) = self.overprovisioning {
            config.failover.overprovisioning = overprovisioning;
        }
    }
}

/// A cluster, and where its endpoints come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// With its endpoints, unless they come from elsewhere.
    pub config: model::Cluster,
    /// The assignment that brings them; by its [key](FileSource::key) if a file does.
    pub assignment: Option<Arc<str>>,
    /// The file that the assignment is in; the stream's if there is none.
    pub file: Option<FileSource>,
}

/// A listener, and where its routes come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// With its routes, unless they come from elsewhere.
    pub config: model::Listener,
    /// The route configuration that brings them; by its [key](FileSource::key) if a file does.
    pub routes: Option<Arc<str>>,
    /// The file that the route configuration is in; the stream's if there is none.
    pub file: Option<FileSource>,
    /// What it does about faults of its routes.
    pub faults: FaultFilter,
}

/// What became of a resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// Its name; empty if not even that could be read.
    pub name: String,
    /// The resource, or everything that is wrong with it.
    pub resource: Result<Resource, Vec<Fault>>,
    /// What is ignored in it.
    pub warnings: Vec<Fault>,
}

impl Translated {
    /// One of which nothing can be said but this.
    pub(crate) fn refused(reason: String) -> Translated {
        let path = String::new();
        Translated {
            name: String::new(),
            resource: Err(vec![Fault { path, reason }]),
            warnings: Vec::new(),
        }
    }
}

/// Reads a resource of a type from its bytes.
pub fn translate(resource_type: ResourceType, url: &str, bytes: &[u8]) -> Translated {
    if url != resource_type.url() {
        return Translated::refused(format!(
            "is a {}, not a {}",
            message::type_name(url),
            resource_type.word()
        ));
    }
    match message::decode(url, bytes) {
        Ok(message) => read(resource_type, &message),
        Err(why) => Translated::refused(format!("cannot be decoded: {why}")),
    }
}

/// A resource in JSON, with its `@type`: the type and the bytes that [`translate`] takes.
///
/// # Errors
///
/// It is no resource of a type that is asked for.
pub fn from_json(json: &serde_json::Value) -> Result<(ResourceType, Vec<u8>), String> {
    let (url, bytes) = message::from_json(json)?;
    let resource_type = ResourceType::of_url(&url).ok_or_else(|| {
        let name = message::type_name(&url).to_owned();
        format!("a {name} is no resource that is taken")
    })?;
    Ok((resource_type, bytes))
}

/// A cluster without endpoints.
pub fn empty_cluster() -> model::Cluster {
    model::Cluster {
        endpoints: model::Endpoints::Static(Vec::new()),
        ..template::cluster()
    }
}

fn read(resource_type: ResourceType, message: &Message) -> Translated {
    let faults = Faults::default();
    support::review(message, &faults);
    let node = Node::root(message, &faults);
    let name = match resource_type {
        ResourceType::Endpoint => node.text("cluster_name"),
        _ => node.text("name"),
    };
    let name = name.to_owned();
    if let Err(why) = check_name(&name) {
        node.refuse(
            if resource_type == ResourceType::Endpoint {
                "cluster_name"
            } else {
                "name"
            },
            why,
        );
    }
    let resource = match resource_type {
        ResourceType::Cluster => Resource::Cluster(Box::new(cluster::cluster(&node))),
        ResourceType::Endpoint => Resource::Assignment(endpoint::assignment(&node)),
        ResourceType::Listener => Resource::Listener(Box::new(listener::listener(&node))),
        ResourceType::Route => Resource::Routes(route::configuration(&node)),
    };
    let (errors, warnings) = faults.finish();
    Translated {
        name,
        resource: if errors.is_empty() {
            Ok(resource)
        } else {
            Err(errors)
        },
        warnings,
    }
}

/// Names become labels of metrics and parts of views.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name.len() > NAME_MAX {
        return Err(format!("is longer than {NAME_MAX} bytes"));
    }
    match name
        .bytes()
        .all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'\\')
    {
        true => Ok(()),
        false => Err("holds something else than visible ASCII".into()),
    }
}

/// The name of a resource that another one refers to.
fn reference(node: &Node<'_>, field: &str) -> Option<Arc<str>> {
    let name = node.text(field);
    node.checked(field, check_name(name).map(|()| name.into()))
}

/// A resource that another one refers to, and the file that it is in, unless the stream that this one came by brings it.
#[derive(Debug, Default)]
struct Referred {
    name: Option<Arc<str>>,
    file: Option<FileSource>,
}

impl Referred {
    /// The resource of this name, from the source that stands in a field.
    fn new(node: &Node<'_>, field: &str, name: Option<Arc<str>>) -> Referred {
        let file = source(node, field);
        let name = match (&file, name) {
            (Some(file), Some(name)) => Some(file.key(&name)),
            (_, name) => name,
        };
        Referred { name, file }
    }
}

/// The file that a source of resources is, if it is one; nothing for the stream.
fn source(node: &Node<'_>, field: &str) -> Option<FileSource> {
    let source = node.node(field);
    if let Some(source) = &source
        && (source.has("path") || source.has("path_config_source"))
    {
        return file(source);
    }
    if !source.is_some_and(|source| source.has("ads") || source.has("self")) {
        node.refuse(
            field,
            "is none of `ads`, `self` and `path_config_source`: resources come by the stream, or from a file",
        );
    }
    None
}

fn file(source: &Node<'_>) -> Option<FileSource> {
    let (node, watched_directory) = match source.node("path_config_source") {
        Some(file) => {
            let directory = file.node("watched_directory");
            let directory = directory.and_then(|one| path(&one, "path"));
            (file, directory)
        }
        None => (source.clone(), None),
    };
    Some(FileSource {
        path: path(&node, "path")?,
        watched_directory,
    })
}

/// A path of the file system.
fn path(node: &Node<'_>, field: &str) -> Option<Arc<str>> {
    let text = node.text(field);
    let why = match text.len() {
        0 => Some("is empty".to_owned()),
        1..=PATH_MAX if text.contains(['\0', '\n']) => Some("holds a line break or a zero".into()),
        1..=PATH_MAX if text.ends_with(".pb_text") => {
            Some("is protobuf in text, which is not supported: write YAML, JSON or `.pb`".into())
        }
        1..=PATH_MAX => None,
        _ => Some(format!("is longer than {PATH_MAX} bytes")),
    };
    node.checked(field, why.map_or(Ok(text.into()), Err))
}

/// What stands in an `Any`: a message of a known type, or the name of the type.
enum Typed<'a> {
    Known(Node<'a>),
    Unknown(&'a str),
    Absent,
}

fn typed<'a>(node: &Node<'a>, field: &str) -> Typed<'a> {
    match node.value(field) {
        Some(Value::Message(_)) => node.node(field).map_or(Typed::Absent, Typed::Known),
        Some(Value::Opaque(name)) => Typed::Unknown(name),
        _ => Typed::Absent,
    }
}

#[cfg(test)]
mod tests;
