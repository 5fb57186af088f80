//! A control plane by grpcio, in a process of its own: the test says what the world is, and hears what clients say.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value, json};

use super::{Proxy, eventually, peer};

/// Kinds of resources, as the server calls them.
pub const KINDS: [&str; 4] = ["cluster", "endpoint", "listener", "route"];

/// A running control plane, killed when dropped.
pub struct ControlPlane {
    child: Child,
    commands: ChildStdin,
    heard: Arc<Mutex<Vec<Value>>>,
    pub address: SocketAddr,
}

/// What a control plane serves: each resource by kind and name, with a version of its own.
#[derive(Clone, Debug, Default)]
pub struct World(pub Map<String, Value>);

impl World {
    /// With a resource in it, in the protocol's JSON.
    #[must_use]
    pub fn with(mut self, kind: &str, version: u32, resource: Value) -> World {
        let name = resource.get("cluster_name").or(resource.get("name"));
        let name = name.unwrap().as_str().unwrap().to_owned();
        let one = json!({ "version": version.to_string(), "resource": resource });
        let kind = self.0.entry(kind).or_insert_with(|| json!({}));
        kind.as_object_mut().unwrap().insert(name, one);
        self
    }
}

impl ControlPlane {
    /// Starts one on a free port; nothing if there is no Python with what it takes.
    #[track_caller]
    pub fn start() -> Option<ControlPlane> {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    #[track_caller]
    pub fn on(address: SocketAddr) -> Option<ControlPlane> {
        Self::with(address, &[])
    }

    /// One that speaks TLS: a certificate, its key, and the authorities of clients.
    #[track_caller]
    pub fn encrypted(files: [&Path; 3]) -> Option<ControlPlane> {
        Self::with(SocketAddr::from(([127, 0, 0, 1], 0)), &files)
    }

    #[track_caller]
    fn with(address: SocketAddr, files: &[&Path]) -> Option<ControlPlane> {
        let python = peer::python("grpc, envoy.service.discovery.v3.ads_pb2_grpc")?;
        let mut child = Command::new(python)
            .arg(peer::script("xds_server.py"))
            .arg(address.to_string())
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let heard = peer::hear(&mut child);
        let commands = child.stdin.take().unwrap();
        let mut plane = ControlPlane {
            child,
            commands,
            heard,
            address,
        };
        let port = eventually("the control plane's port", || {
            plane
                .heard()
                .first()
                .map(|first| first["port"].as_u64().unwrap())
        });
        plane.address.set_port(port as u16);
        Some(plane)
    }

    /// Makes `world` what it serves, from now on.
    pub fn serve(&mut self, world: &World) {
        let mut whole = Map::from_iter(KINDS.map(|kind| (kind.to_owned(), json!({}))));
        whole.extend(world.0.clone());
        writeln!(self.commands, "{}", Value::Object(whole)).unwrap();
        self.commands.flush().unwrap();
    }

    /// All that clients have said so far.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    /// The errors of all NACKs so far, with the kind of resources.
    pub fn errors(&self) -> Vec<String> {
        let heard = self.heard();
        let nacks = heard
            .iter()
            .filter(|one| one["error"].as_str().is_some_and(|error| !error.is_empty()));
        nacks
            .map(|one| {
                format!(
                    "{}: {}",
                    one["kind"].as_str().unwrap(),
                    one["error"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends it without a word to anybody.
    pub fn kill(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cluster whose endpoints come by the stream.
pub fn cluster(name: &str) -> Value {
    json!({ "name": name, "type": "EDS", "connect_timeout": "1s",
        "eds_cluster_config": { "eds_config": { "ads": {}, "resource_api_version": "V3" } } })
}

/// The endpoints of a cluster.
pub fn endpoints(name: &str, addresses: &[SocketAddr]) -> Value {
    let one = |address: &SocketAddr| {
        let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
        json!({ "endpoint": { "address": { "socket_address": socket } } })
    };
    json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": addresses.iter().map(one).collect::<Vec<_>>() }] })
}

/// A listener with HTTP, whose routes come by the stream under `routes`.
pub fn listener(name: &str, bind: SocketAddr, routes: &str) -> Value {
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": { "route_config_name": routes, "config_source": { "ads": {}, "resource_api_version": "V3" } },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
    });
    json!({ "name": name,
        "address": { "socket_address": { "address": bind.ip().to_string(), "port_value": bind.port() } },
        "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": hcm }] }] })
}

/// Routes of one virtual host for every host.
pub fn routes(name: &str, routes: Value) -> Value {
    json!({ "name": name, "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] })
}

/// Everything to one cluster.
pub fn to(cluster: &str) -> Value {
    json!([{ "match": { "prefix": "/" }, "route": { "cluster": cluster } }])
}

/// Waits until the proxy listens, and says where.
pub fn listening(proxy: &Proxy, name: &str) -> SocketAddr {
    eventually("the listener of the control plane", || {
        let listeners: Value = serde_json::from_str(&proxy.admin_get("/listeners").text()).unwrap();
        let all = listeners.as_array().unwrap().clone();
        let found = all.into_iter().find(|one| one["name"] == name)?;
        found["address"].as_str().unwrap().parse().ok()
    })
}

/// An Envoy `judge` whose resources come from `plane`, by this kind of API.
pub fn envoy(plane: SocketAddr, api: &str, program: &Path, folder: &Path) -> Command {
    let config = format!(
        r#"
node: {{ id: judge, cluster: edge }}
dynamic_resources:
  ads_config: {{ api_type: {api}, transport_api_version: V3, grpc_services: [{{ envoy_grpc: {{ cluster_name: plane }} }}] }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: plane
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: plane
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}]
"#,
        plane.ip(),
        plane.port()
    );
    peer::envoy_command(program, folder, &config)
}
