//! Where resources come from beside the stream: files, watched as Envoy watches them.

use std::{ffi::OsStr, path::Path, sync::Arc};

use crate::subscription::ResourceType;

/// Files of one client. Each cluster may name one of its own, and each is looked at several times a second.
pub const FILES_MAX: usize = 1024;

/// A file with a `DiscoveryResponse`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileSource {
    /// The file.
    pub path: Arc<str>,
    /// A directory whose change means that the file is to be read again; the file's own if there is none.
    pub watched_directory: Option<Arc<str>>,
}

impl FileSource {
    /// What a resource of this file is called beside those of others: a name has no blank, so that no two are alike.
    pub fn key(&self, name: &str) -> Arc<str> {
        format!("{name} in {}", self.path).into()
    }

    /// The name in a [key](Self::key) of this file.
    pub(crate) fn name<'a>(&self, key: &'a str) -> &'a str {
        key.split_once(' ').map_or(key, |(name, _)| name)
    }

    /// Whether the file holds protobuf, not text: by the end of its name, as with Envoy.
    pub(crate) fn is_binary(&self) -> bool {
        Path::new(&*self.path).extension() == Some(OsStr::new("pb"))
    }

    /// What is watched.
    pub(crate) fn watched(&self) -> &Path {
        Path::new(self.watched_directory.as_deref().unwrap_or(&self.path))
    }
}

/// Resources of one type in one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfFile {
    /// The type.
    pub resource_type: ResourceType,
    /// The file.
    pub file: FileSource,
}

impl OfFile {
    /// What a resource is called: endpoints and routes by their file, too, since another one may have the name as well.
    /// All clusters and all listeners come from one place.
    pub(crate) fn key(&self, name: String) -> String {
        match self.resource_type {
            ResourceType::Cluster | ResourceType::Listener => name,
            ResourceType::Endpoint | ResourceType::Route if name.is_empty() => name,
            ResourceType::Endpoint | ResourceType::Route => (*self.file.key(&name)).to_owned(),
        }
    }
}
