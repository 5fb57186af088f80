//! A directory of resources before a center, and a client of its control plane that somebody else wrote.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    center::{Center, Folder},
    control_plane::World,
    eventually, peer,
};

fn url(kind: &str) -> &'static str {
    match kind {
        "cluster" => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "endpoint" => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "listener" => "type.googleapis.com/envoy.config.listener.v3.Listener",
        _ => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    }
}

/// A directory of a test.
pub struct Resources(PathBuf);

impl Resources {
    /// With `world` in it.
    pub fn new(folder: &Folder, world: &World) -> Resources {
        let resources = Resources(folder.file("resources"));
        fs::create_dir_all(&resources.0).unwrap();
        resources.write(world);
        resources
    }

    pub fn path(&self) -> String {
        self.0.display().to_string()
    }

    /// Puts `world` in place of what was there, in one file: its parts belong together.
    pub fn write(&self, world: &World) {
        let resources = world.0.iter().flat_map(|(kind, all)| {
            let all = all.as_object().unwrap().values();
            all.map(|one| {
                let mut resource = one["resource"].clone();
                resource["@type"] = url(kind).into();
                resource
            })
        });
        let resources: Vec<Value> = resources.collect();
        self.file("all.yaml", &json!(resources).to_string());
    }

    /// A file, all or nothing.
    pub fn file(&self, name: &str, text: &str) {
        let new = self.0.join(".new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.0.join(name)).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }

    /// A center that serves it.
    #[track_caller]
    pub fn center(&self, folder: &Folder, arguments: &[&str]) -> Center {
        let path = self.path();
        let arguments = [&["--resources", &path], arguments].concat();
        Center::anywhere(folder, &arguments)
    }
}

/// What a center says of a node, once it has a stream.
#[track_caller]
pub fn node(center: &Center, id: &str) -> Value {
    eventually(&format!("a stream of {id}"), || {
        let view = center.json("/control");
        let nodes = view["nodes"].as_array().unwrap().iter();
        nodes.rev().find(|node| node["id"] == id).cloned()
    })
}

/// Waits until a node has all that the center has for it, in this version if one is named.
#[track_caller]
pub fn wait_in_step(center: &Center, id: &str) -> Value {
    eventually(&format!("{id} in step: {}", node(center, id)), || {
        let node = node(center, id);
        let has_all = node["types"].as_array().unwrap().len() == 4;
        (node["in_step"] == true && has_all).then_some(node)
    })
}

/// A client by grpcio, killed when dropped.
pub struct Stranger {
    child: Child,
    commands: ChildStdin,
    heard: Arc<Mutex<Vec<Value>>>,
    taken: usize,
}

impl Stranger {
    /// Nothing if there is no Python with what it takes.
    #[track_caller]
    pub fn start(center: &Center, variant: &str, arguments: &[&str]) -> Option<Stranger> {
        let python = peer::python("grpc, envoy.service.discovery.v3.ads_pb2_grpc")?;
        let mut child = Command::new(python)
            .arg(peer::script("xds_client.py"))
            .args([&center.listen.to_string(), variant])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let heard = peer::hear(&mut child);
        Some(Stranger {
            commands: child.stdin.take().unwrap(),
            child,
            heard,
            taken: 0,
        })
    }

    /// Sends a request with these fields.
    pub fn ask(&mut self, request: Value) {
        writeln!(self.commands, "{request}").unwrap();
        self.commands.flush().unwrap();
    }

    /// What the server says next.
    #[track_caller]
    pub fn next(&mut self) -> Value {
        let next = eventually("an answer to the stranger", || {
            self.heard.lock().unwrap().get(self.taken).cloned()
        });
        self.taken += 1;
        next
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
