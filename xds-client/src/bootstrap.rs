//! A bootstrap of Envoy as a configuration of our own: what stands in it fixed, by the translation of resources, and where
//! the rest comes from. What is not supported is named with its path, as it stands in the bootstrap.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use tidegate_core::config::{
    self, Severity,
    model::{Cluster, Config, Endpoints},
};

use crate::{
    graph::Graph,
    subscription::{ResourceType, Update},
    translate::{self, Fault, Resource, Translated},
};

/// What became of a bootstrap.
#[derive(Debug, Default)]
pub struct Converted {
    /// The configuration, as its file says it, without what is not supported.
    pub document: Value,
    /// What is not supported.
    pub faults: Vec<Fault>,
    /// What is ignored.
    pub warnings: Vec<Fault>,
}

/// Parts of a bootstrap that only concern Envoy itself.
const IGNORED: &[&str] = &[
    "layered_runtime",
    "overload_manager",
    "stats_config",
    "stats_flush_interval",
    "watchdogs",
];

/// Converts the text of one, YAML or JSON.
///
/// # Errors
///
/// It is none.
pub fn convert(text: &str) -> Result<Converted, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    let Value::Object(bootstrap) = value else {
        return Err("it is no map".into());
    };
    let mut conversion = Conversion::default();
    for (key, value) in &bootstrap {
        match key.as_str() {
            "static_resources" => conversion.fixed(value),
            "node" => conversion.node(value),
            "admin" => conversion.admin(value),
            // Refers to clusters, so that it comes after them.
            "dynamic_resources" => {}
            ignored if IGNORED.contains(&ignored) => {
                conversion.warn(key, "is ignored: it concerns Envoy itself");
            }
            _ => conversion.refuse(key, "is not supported"),
        }
    }
    if let Some(value) = bootstrap.get("dynamic_resources") {
        conversion.dynamic(value);
    }
    Ok(conversion.finish())
}

#[derive(Default)]
struct Conversion {
    graph: Graph,
    /// Static clusters with their paths, for whatever refers to one.
    clusters: BTreeMap<String, (String, Cluster)>,
    /// Those that lead to a control plane, and to nothing else.
    planes: Vec<String>,
    secrets: Map<String, Value>,
    node: Map<String, Value>,
    admin: Option<String>,
    xds: Map<String, Value>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Conversion {
    fn refuse(&mut self, path: &str, reason: impl Into<String>) {
        let (path, reason) = (path.to_owned(), reason.into());
        self.faults.push(Fault { path, reason });
    }

    fn warn(&mut self, path: &str, reason: impl Into<String>) {
        let (path, reason) = (path.to_owned(), reason.into());
        self.warnings.push(Fault { path, reason });
    }

    fn node(&mut self, node: &Value) {
        for (key, value) in fields(node) {
            match (key.as_str(), value) {
                ("id", Value::String(_)) => drop(self.node.insert("id".into(), value.clone())),
                ("cluster", Value::String(_)) => {
                    self.node.insert("app".into(), value.clone());
                }
                ("locality", locality) => {
                    if let Some(zone) = locality.get("zone") {
                        self.node.insert("zone".into(), zone.clone());
                    }
                }
                _ => self.warn(
                    &format!("node.{key}"),
                    "is ignored: a control plane is not told",
                ),
            }
        }
    }

    fn admin(&mut self, admin: &Value) {
        for (key, value) in fields(admin) {
            if key != "address" {
                self.warn(&format!("admin.{key}"), "is ignored");
                continue;
            }
            match address(value) {
                Some(address) => self.admin = Some(address),
                None => self.refuse("admin.address", "is no address and port"),
            }
        }
    }

    fn fixed(&mut self, fixed: &Value) {
        for (key, value) in fields(fixed) {
            let path = format!("static_resources.{key}");
            let Value::Array(all) = value else {
                self.refuse(&path, "is no list");
                continue;
            };
            for (index, one) in all.iter().enumerate() {
                let path = format!("{path}[{index}]");
                match key.as_str() {
                    "listeners" => self.resource(ResourceType::Listener, one, &path, index),
                    "clusters" => self.resource(ResourceType::Cluster, one, &path, index),
                    "secrets" => self.secret(one, &path),
                    _ => self.refuse(&path, "is not supported"),
                }
            }
        }
    }

    fn resource(&mut self, resource_type: ResourceType, one: &Value, path: &str, index: usize) {
        let mut one = one.clone();
        if let Value::Object(map) = &mut one {
            map.insert("@type".into(), json!(resource_type.url()));
            // Envoy gives one that has none a name of its own.
            map.entry("name")
                .or_insert_with(|| json!(format!("{}_{index}", resource_type.word())));
        }
        let Translated {
            name,
            resource,
            warnings,
        } = match translate::from_json(&one) {
            Ok((_, bytes)) => translate::translate(resource_type, resource_type.url(), &bytes),
            Err(why) => Translated::refused(why),
        };
        let placed = |fault: Fault| Fault {
            path: match fault.path.is_empty() {
                true => path.to_owned(),
                false => format!("{path}.{}", fault.path),
            },
            ..fault
        };
        self.warnings.extend(warnings.into_iter().map(placed));
        let value = match resource {
            Ok(value) => value,
            Err(faults) => return self.faults.extend(faults.into_iter().map(placed)),
        };
        match &value {
            Resource::Cluster(cluster) if cluster.assignment.is_some() => {
                let why = "endpoints of a fixed cluster cannot come from elsewhere: let the control plane bring it whole";
                return self.refuse(&format!("{path}.eds_cluster_config"), why);
            }
            Resource::Listener(listener) if listener.routes.is_some() => {
                let why = "routes of a fixed listener cannot come from elsewhere: let the control plane bring it whole";
                return self.refuse(&format!("{path}.filter_chains"), why);
            }
            Resource::Cluster(cluster) => {
                let found = (path.to_owned(), cluster.config.clone());
                self.clusters.insert(name.clone(), found);
            }
            _ => {}
        }
        self.graph.apply(resource_type, Update::Set { name, value });
    }

    /// A secret in files.
    fn secret(&mut self, secret: &Value, path: &str) {
        let name = text(secret, &["name"]);
        let file = |names: &[&str]| {
            let names = [names, &["filename"]].concat();
            text(secret, &names)
        };
        let section = match (
            file(&["tls_certificate", "certificate_chain"]),
            file(&["tls_certificate", "private_key"]),
            file(&["validation_context", "trusted_ca"]),
        ) {
            (Some(chain), Some(key), _) => json!({ "certificate": chain, "private_key": key }),
            (_, _, Some(trusted)) => {
                let mut section = json!({ "trusted_ca": trusted });
                if let Some(crl) = file(&["validation_context", "crl"]) {
                    object(&mut section).insert("crl".into(), json!(crl));
                }
                section
            }
            _ => {
                return self.refuse(
                    path,
                    "is no certificate with its key, nor authorities, in files",
                );
            }
        };
        match name {
            Some(name) => drop(self.secrets.insert(name.to_owned(), section)),
            None => self.refuse(path, "has no name"),
        }
    }

    fn dynamic(&mut self, dynamic: &Value) {
        for (key, value) in fields(dynamic) {
            let path = format!("dynamic_resources.{key}");
            match key.as_str() {
                "ads_config" => self.ads(value, &path),
                "cds_config" => self.source(value, "clusters", &path),
                "lds_config" => self.source(value, "listeners", &path),
                _ => self.refuse(&path, "is not supported"),
            }
        }
    }

    /// An aggregated stream.
    fn ads(&mut self, ads: &Value, path: &str) {
        let protocol = match text(ads, &["api_type"]) {
            Some("GRPC" | "AGGREGATED_GRPC") => "state_of_the_world",
            Some("DELTA_GRPC" | "AGGREGATED_DELTA_GRPC") => "delta",
            _ => return self.refuse(&format!("{path}.api_type"), "is not supported"),
        };
        let services = ads.get("grpc_services").and_then(Value::as_array);
        let names = services.into_iter().flatten();
        let names = names.map(|one| text(one, &["envoy_grpc", "cluster_name"]).map(str::to_owned));
        match names.collect::<Option<Vec<String>>>() {
            Some(names) if !names.is_empty() => self.plane(&names, protocol, path),
            _ => self.refuse(
                &format!("{path}.grpc_services"),
                "only `envoy_grpc` with a `cluster_name` is supported",
            ),
        }
    }

    /// Where all of a type comes from.
    fn source(&mut self, source: &Value, what: &str, path: &str) {
        if source.get("ads").is_some() {
            return;
        }
        let of_file = [&["path_config_source", "path"][..], &["path"]];
        if let Some(file) = of_file.iter().find_map(|names| text(source, names)) {
            let directory = ["path_config_source", "watched_directory", "path"];
            let directory = text(source, &directory).map(str::to_owned);
            let files = self.xds.entry("files").or_insert_with(|| json!({}));
            object(files).insert(what.to_owned(), json!(file));
            if let Some(directory) = directory {
                object(files).insert("watched_directory".into(), json!(directory));
            }
            return;
        }
        let Some(api) = source.get("api_config_source") else {
            return self.refuse(path, "is none of `ads`, a path, and `api_config_source`");
        };
        let path = format!("{path}.api_config_source");
        if text(api, &["api_type"]) != Some("REST") {
            let why = "only REST is supported beside the aggregated stream (`ads`)";
            return self.refuse(&format!("{path}.api_type"), why);
        }
        for key in ["refresh_delay", "request_timeout"] {
            match text(api, &[key]).map(duration) {
                Some(Some(given)) => drop(self.xds.insert(key.into(), json!(given))),
                Some(None) => self.refuse(&format!("{path}.{key}"), "is no duration"),
                None => {}
            }
        }
        let names = api.get("cluster_names").and_then(Value::as_array);
        let names = names.into_iter().flatten();
        let names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
        self.plane(&names, "rest", &path);
    }

    /// Control planes by clusters of these names.
    fn plane(&mut self, names: &[String], protocol: &str, path: &str) {
        let mut addresses = Vec::new();
        for name in names {
            let Some((at, cluster)) = self.clusters.get(name) else {
                let why = format!("names cluster `{name}`, which is not here");
                return self.refuse(path, why);
            };
            if cluster.tls.is_some() {
                let at = format!("{at}.transport_socket");
                return self.refuse(&at, "TLS to a control plane: write `xds.tls` by hand");
            }
            match &cluster.endpoints {
                Endpoints::Dns { host, port, .. } => addresses.push(format!("{host}:{port}")),
                Endpoints::Static(all) => {
                    addresses.extend(all.iter().map(|one| one.address.to_string()));
                }
            }
        }
        self.planes.extend(names.iter().cloned());
        let before = self.xds.insert("addresses".into(), json!(addresses));
        if before.is_some_and(|before| before != json!(addresses)) {
            self.refuse(path, "names another control plane than the rest");
        }
        self.xds.insert("protocol".into(), json!(protocol));
    }

    fn finish(mut self) -> Converted {
        self.graph.poll(Duration::ZERO, &Default::default());
        self.graph
            .poll(crate::graph::CLUSTER_WAIT, &Default::default());
        for name in self.graph.placeholders().clone() {
            let why = "is named by a route or a listener, and not here";
            self.refuse(&format!("static_resources.clusters: `{name}`"), why);
        }
        let mut rest = json!({
            "version": 1,
            "node": self.node,
            "admin": self.admin.as_deref().unwrap_or("off"),
            "secrets": self.secrets,
        });
        if !self.xds.is_empty() {
            let xds = Value::Object(std::mem::take(&mut self.xds));
            object(&mut rest).insert("xds".into(), xds);
        }
        let Some(mut config) = self.parsed(&rest) else {
            return self.unfinished();
        };
        let part = self.graph.active().clone();
        config.clusters = part.clusters;
        for plane in &self.planes {
            let mut listeners = part.listeners.values();
            let is_named = listeners.any(|one| crate::graph::clusters_of(one).contains(&**plane));
            if !is_named {
                config.clusters.remove(&**plane);
            }
        }
        config.listeners = part.listeners;
        let document = config::to_document(&config);
        let Some(again) = self.parsed(&document) else {
            return self.unfinished();
        };
        let short = shortened(&document);
        let document = match config::parse("short", &short.to_string()) {
            Ok((parsed, _)) if is_same(&parsed, &again) => short,
            _ => document,
        };
        Converted {
            document,
            faults: self.faults,
            warnings: self.warnings,
        }
    }

    fn unfinished(self) -> Converted {
        Converted {
            document: Value::Null,
            faults: self.faults,
            warnings: self.warnings,
        }
    }

    /// The configuration of a document; what is wrong with it is told.
    fn parsed(&mut self, document: &Value) -> Option<Config> {
        match config::parse("converted", &document.to_string()) {
            Ok((config, _)) => Some(config),
            Err(faults) => {
                let errors = faults.into_iter();
                let errors = errors.filter(|one| one.severity == Severity::Error);
                for error in errors {
                    self.refuse("", error.message);
                }
                None
            }
        }
    }
}

/// Whether two configurations say the same, wherever it stands.
fn is_same(a: &Config, b: &Config) -> bool {
    config::to_document(a) == config::to_document(b)
}

/// The document without what is the default of a file in any case.
fn shortened(document: &Value) -> Value {
    let of = |routes: &str| {
        let text = format!(
            "version: 1\nlisteners: {{ l: {{ bind: '0.0.0.0:0', {routes} }} }}\n\
             clusters: {{ c: {{ endpoints: {{ static: ['192.0.2.1:9'] }} }} }}\n"
        );
        let parsed = config::parse("defaults", &text).ok();
        parsed.map_or(Value::Null, |(config, _)| config::to_document(&config))
    };
    let (http, tcp) = (of("routes: [{ to: c }]"), of("protocol: tcp, to: c"));
    let mut short = document.clone();
    for (key, value) in object(&mut short) {
        match (key.as_str(), value) {
            ("listeners", Value::Object(listeners)) => {
                for listener in listeners.values_mut() {
                    let is_tcp = listener.get("protocol") == Some(&json!("tcp"));
                    let defaults = if is_tcp { &tcp } else { &http };
                    let defaults = at(defaults, "/listeners/l");
                    for route in listener
                        .get_mut("routes")
                        .and_then(Value::as_array_mut)
                        .into_iter()
                        .flatten()
                    {
                        prune(route, at(defaults, "/routes/0"));
                    }
                    prune(listener, defaults);
                }
            }
            ("clusters", Value::Object(clusters)) => {
                for cluster in clusters.values_mut() {
                    prune(cluster, at(&http, "/clusters/c"));
                }
            }
            _ => {}
        }
    }
    let mut top = http;
    for kept in ["version", "listeners", "clusters"] {
        object(&mut top).remove(kept);
    }
    prune(&mut short, &top);
    short
}

/// Leaves out what is the same in both.
fn prune(value: &mut Value, defaults: &Value) {
    let (Value::Object(map), Value::Object(defaults)) = (value, defaults) else {
        return;
    };
    map.retain(|key, value| {
        let Some(default) = defaults.get(key) else {
            return true;
        };
        let is_default = value == default;
        prune(value, default);
        !is_default
    });
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made one"),
    }
}

/// What is there, or nothing.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The text below these names.
fn text<'a>(value: &'a Value, names: &[&str]) -> Option<&'a str> {
    let found = names.iter().try_fold(value, |value, name| value.get(name));
    found.and_then(Value::as_str)
}

/// `IP:PORT` of an `Address`.
fn address(value: &Value) -> Option<String> {
    let socket = value.get("socket_address")?;
    let ip: std::net::IpAddr = text(socket, &["address"])?.parse().ok()?;
    let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
    Some(std::net::SocketAddr::new(ip, port).to_string())
}

/// A duration of protobuf's JSON (`1.5s`) in words of a file.
fn duration(text: &str) -> Option<String> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    (0.0..=1e9)
        .contains(&seconds)
        .then(|| format!("{}ms", (seconds * 1e3).round() as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const PLANE: &str = "
static_resources:
  clusters:
  - name: plane
    type: STRICT_DNS
    load_assignment: { cluster_name: plane, endpoints: [{ lb_endpoints: [{ endpoint: { address: {
      socket_address: { address: plane.internal, port_value: 15010 } } } }] }] }
";

    fn converted(text: &str) -> Converted {
        let converted = convert(text).unwrap();
        assert_eq!(converted.faults, [], "{:?}", converted.document);
        converted
    }

    /// Goal: where the rest comes from is said in our words, and the cluster of a control plane is none of ours. Method: a
    /// stream, REST, files, and who asks.
    #[test]
    fn sources_are_converted() {
        let grpc = "grpc_services: [{ envoy_grpc: { cluster_name: plane } }]";
        let ads = converted(&format!(
            "{PLANE}node: {{ id: gw, cluster: edge, locality: {{ zone: z }} }}
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9901 }} }} }}
dynamic_resources: {{ ads_config: {{ api_type: GRPC, {grpc} }}, cds_config: {{ ads: {{}} }}, lds_config: {{ ads: {{}} }} }}"
        ));
        assert_eq!(
            ads.document["xds"],
            json!({ "addresses": ["plane.internal:15010"], "protocol": "state_of_the_world" })
        );
        assert_eq!(
            ads.document["node"],
            json!({ "id": "gw", "app": "edge", "zone": "z" })
        );
        assert_eq!(ads.document["clusters"], json!({}));
        let rest = converted(&format!(
            "{PLANE}dynamic_resources: {{ cds_config: {{ api_config_source: {{ api_type: REST, cluster_names: [plane],
                refresh_delay: 0.5s }} }}, lds_config: {{ path_config_source: {{ path: /lds.yaml }} }} }}"
        ));
        assert_eq!(
            rest.document["xds"],
            json!({ "addresses": ["plane.internal:15010"], "protocol": "rest", "refresh_delay": "500ms",
                "request_timeout": "1s", "files": { "listeners": "/lds.yaml" } })
        );
    }

    /// Goal: what is not supported is named with its path, and the rest is converted. Method: one of each kind.
    #[test]
    fn what_is_not_supported_is_named() {
        let text = format!(
            "{PLANE}  - {{ name: b, protocol_selection: USE_DOWNSTREAM_PROTOCOL }}
  - {{ name: c, type: EDS, eds_cluster_config: {{ eds_config: {{ ads: {{}} }} }} }}
  secrets: [{{ name: s, session_ticket_keys: {{}} }}]
tracing: {{}}
stats_flush_interval: 1s
dynamic_resources: {{ ads_config: {{ api_type: DELTA_GRPC, grpc_services: [{{ google_grpc: {{}} }}] }} }}"
        );
        let converted = convert(&text).unwrap();
        let paths: Vec<&str> = converted.faults.iter().map(|one| &*one.path).collect();
        assert_eq!(
            paths,
            [
                "static_resources.clusters[1].protocol_selection",
                "static_resources.clusters[2].eds_cluster_config",
                "static_resources.secrets[0]",
                "tracing",
                "dynamic_resources.ads_config.grpc_services",
            ]
        );
        assert_eq!(converted.warnings.len(), 1);
        let clusters = converted.document["clusters"].as_object().unwrap();
        assert_eq!(clusters.keys().collect::<Vec<_>>(), ["plane"]);
        assert!(convert("[]").is_err());
        assert!(convert("a: [").is_err());
    }
}
