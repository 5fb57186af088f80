//! The model back in words of the file: for `/config_dump`, and for [`diff`](super::diff()).
//!
//! The result has the shape of a file, defaults written out, and JSON is YAML: reading it again gives the
//! same model (but for origins, and for values that were redacted).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    model::{
        AccessLog, AccessLogFormat, AdaptiveLimit, Center, Cluster, Config, Descriptor,
        DescriptorValue, Endpoints, Forward, HashOn, HeaderEdits, Heal, HealthCheck, Hook,
        HostPattern, Http, Http2Limits, Listener, PathPattern, PathRewrite, Probe, Protocol,
        ProxyProtocolIn, ProxyProtocolOut, RateLimit, RateLimitService, Redirect, Route,
        RouteAction, RouteMatch, Scope, StaticEndpoint, Tcp, ValuePattern, WeightedCluster,
        XForwarded,
    },
    quantity::{format_duration, format_share, format_size},
};
use crate::limiter::{Priority, watermark::Signal};

mod balance;
mod fault;
mod heal;
mod health;
mod limit;
mod retry;
mod steering;
mod tls;
mod xds;

/// Stands in place of a value that may be a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// The configuration as a file would say it, defaults written out. Header values that may be secrets
/// are redacted.
pub fn to_json(config: &Config) -> Value {
    file(config, Secrets::Redact)
}

/// The same with everything that it says: the text of a file, not to be shown.
pub fn to_document(config: &Config) -> Value {
    file(config, Secrets::Reveal)
}

/// A steering rule, in words of the file.
pub fn rule_to_json(rule: &super::model::steering::Rule) -> Value {
    steering::rule(rule)
}

/// Where each route stands: `{"<listener>": {"<route>": "edge.yaml:12:9"}}`.
pub fn origins(config: &Config) -> Value {
    let listeners = config.listeners.iter().filter_map(|(name, listener)| {
        let Protocol::Http(http) = &listener.protocol else {
            return None;
        };
        let routes = http.routes.iter();
        let routes = routes.map(|route| (route.name.to_string(), json!(*route.origin)));
        Some((name.to_string(), Value::Object(routes.collect())))
    });
    Value::Object(listeners.collect())
}

/// Whether values that may be secrets are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    Redact,
    /// For comparing; never for showing.
    Reveal,
}

/// The whole file.
pub(super) fn file(config: &Config, secrets: Secrets) -> Value {
    let mut file = Object::default();
    file.put("version", 1);
    let node = &config.node;
    let mut identity = Object::default();
    for (key, value) in [("id", &node.id), ("app", &node.app), ("zone", &node.zone)] {
        identity.put_opt(key, (!value.is_empty()).then_some(value.as_str()));
    }
    identity.put_filled("labels", tls::labels(&node.labels));
    file.put("node", identity);
    file.put("shards", shards(config));
    file.put(
        "admin",
        or_off(config.admin.map(|address| address.to_string())),
    );
    file.put(
        "access_log",
        or_off(config.access_log.as_ref().map(access_log)),
    );
    file.put(
        "limits",
        json!({
            "connections": config.limits.connections,
            "buffers": format_size(config.limits.buffers),
            "connection_buffer": format_size(config.limits.connection_buffer.into()),
        }),
    );
    file.put("drain_timeout", duration(config.drain_timeout));
    file.put("upgrade_timeout", duration(config.upgrade_timeout));
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|(name, one)| (name.to_string(), listener(one, secrets)));
    file.put("listeners", Value::Object(listeners.collect()));
    let clusters = config.clusters.iter();
    let clusters = clusters.map(|(name, one)| (name.to_string(), cluster(one)));
    file.put("clusters", Value::Object(clusters.collect()));
    let secrets = config.secrets.iter();
    let secrets = secrets.map(|(name, one)| (name.to_string(), tls::secret(one)));
    file.put_filled("secrets", Object(secrets.collect()));
    file.put_opt("center", config.center.as_deref().map(center));
    let service = config.rate_limit_service.as_deref();
    file.put_opt("rate_limit_service", service.map(limit::rate_limit_service));
    file.put_opt("xds", config.xds.as_deref().map(xds::xds));
    let program = config.steering.as_deref();
    file.put_opt("steering", program.map(steering::steering));
    file.into()
}

/// A map in the order of its keys' appearance in the code.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn put_opt(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Leaves out what is empty.
    fn put_filled(&mut self, key: &str, value: Object) {
        if !value.0.is_empty() {
            self.put(key, value);
        }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object.0)
    }
}

fn duration(duration: Duration) -> Value {
    format_duration(duration).into()
}

fn or_off(value: Option<impl Into<Value>>) -> Value {
    value.map_or_else(|| "off".into(), Into::into)
}

fn shards(config: &Config) -> Object {
    let mut shards = Object::default();
    let cpus = &config.shards.cpus;
    shards.put_opt("cpus", (!cpus.is_empty()).then(|| json!(cpus)));
    shards.put_opt("count", config.shards.count);
    let ring = &config.shards.ring;
    shards.put(
        "ring",
        json!({
            "submission_entries": ring.submission_entries,
            "completion_entries": ring.completion_entries,
            "head_buffers": ring.head_buffers,
            "head_buffer_bytes": format_size(ring.head_buffer_bytes.into()),
            "body_buffers": ring.body_buffers,
            "body_buffer_bytes": format_size(ring.body_buffer_bytes.into()),
            "busy_poll": format_duration(ring.busy_poll),
        }),
    );
    shards
}

fn access_log(log: &AccessLog) -> Object {
    let mut object = Object::default();
    object.put_opt("path", log.path.as_deref());
    let format = match log.format {
        AccessLogFormat::Short => "short",
        AccessLogFormat::Json => "json",
    };
    object.put("format", format);
    object
}

fn listener(listener: &Listener, secrets: Secrets) -> Value {
    let mut object = Object::default();
    object.put("bind", listener.bind.to_string());
    let proxy_protocol = match listener.proxy_protocol {
        ProxyProtocolIn::Off => "off",
        ProxyProtocolIn::Require => "require",
    };
    object.put("proxy_protocol", proxy_protocol);
    object.put_opt("tls", listener.tls.as_deref().map(tls::listener));
    match &listener.protocol {
        Protocol::Http(listener) => http(&mut object, listener, secrets),
        Protocol::Tcp(listener) => tcp(&mut object, listener),
    }
    object.into()
}

fn tcp(object: &mut Object, tcp: &Tcp) {
    object.put("protocol", "tcp");
    balance::put_destinations(object, &tcp.to);
    let max_age = or_off(tcp.max_age.map(format_duration));
    object.put(
        "timeouts",
        json!({ "idle": format_duration(tcp.idle_timeout), "max_age": max_age }),
    );
}

fn http(object: &mut Object, http: &Http, secrets: Secrets) {
    object.put("protocol", "http");
    object.put(
        "timeouts",
        json!({
            "header": format_duration(http.timeouts.header),
            "keep_alive": format_duration(http.timeouts.keep_alive),
            "idle": format_duration(http.timeouts.idle),
        }),
    );
    object.put(
        "limits",
        json!({
            "header_list": format_size(http.limits.header_list.into()),
            "header_fields": http.limits.header_fields,
            "target": format_size(http.limits.target.into()),
            "body": or_off(http.limits.body.map(format_size)),
            "requests_per_connection": or_off(http.limits.requests_per_connection),
            "http2": http2_limits(&http.limits.http2),
        }),
    );
    let mut forwarded = Object::default();
    let x_forwarded = match http.forwarded.x_forwarded {
        XForwarded::Append => "append",
        XForwarded::Replace => "replace",
        XForwarded::Preserve => "preserve",
    };
    forwarded.put("x_forwarded", x_forwarded);
    forwarded.put_opt("via", http.forwarded.via.as_deref());
    object.put("forwarded", forwarded);
    let routes = http.routes.iter().map(|one| route(one, secrets));
    object.put("routes", Value::Array(routes.collect()));
}

fn http2_limits(limits: &Http2Limits) -> Value {
    json!({
        "streams": limits.streams,
        "stream_window": format_size(limits.stream_window.into()),
        "connection_window": format_size(limits.connection_window.into()),
        "resets": limits.resets,
        "stream_errors": limits.stream_errors,
        "settings": limits.settings,
        "pings": limits.pings,
        "empty_frames": limits.empty_frames,
        "idle_frames": limits.idle_frames,
        "window_updates": limits.window_updates,
        "tiny_frames": limits.tiny_frames,
    })
}

/// `to` for one cluster, `split` for several.
fn route(route: &Route, secrets: Secrets) -> Value {
    let mut object = Object::default();
    object.put("name", &*route.name);
    object.put_filled("match", matches(&route.matches));
    object.put_opt("fault", route.fault.as_deref().map(fault::fault));
    let limits: Vec<Value> = route.rate_limits.iter().map(limit::rate_limit).collect();
    object.put_opt("rate_limits", (!limits.is_empty()).then_some(limits));
    let asked: Vec<Value> = route
        .global_rate_limits
        .iter()
        .map(limit::descriptor)
        .collect();
    object.put_opt("global_rate_limits", (!asked.is_empty()).then_some(asked));
    match &route.action {
        RouteAction::Forward(one) => forward(&mut object, one),
        RouteAction::Redirect(one) => object.put("redirect", redirect(one)),
        RouteAction::Respond(one) => object.put(
            "respond",
            json!({ "status": one.status, "body": &*one.body, "content_type": &*one.content_type }),
        ),
    }
    object.put_filled(
        "request_headers",
        header_edits(&route.request_headers, secrets),
    );
    object.put_filled(
        "response_headers",
        header_edits(&route.response_headers, secrets),
    );
    object.into()
}

fn matches(matches: &RouteMatch) -> Object {
    let mut object = Object::default();
    let hosts: Vec<String> = matches.hosts.iter().map(host).collect();
    object.put_opt("host", one_or_list(hosts));
    object.put_opt("path", path(&matches.path));
    object.put_opt(
        "method",
        one_or_list(matches.methods.iter().map(|m| m.to_string()).collect()),
    );
    object.put_filled("header", values(&matches.headers));
    object.put_filled("query", values(&matches.query));
    object
}

fn one_or_list(mut words: Vec<String>) -> Option<Value> {
    match words.len() {
        0 => None,
        1 => words.pop().map(Value::String),
        _ => Some(json!(words)),
    }
}

fn host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
        HostPattern::Prefix(prefix) => format!("{prefix}*"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn path(path: &PathPattern) -> Option<String> {
    match path {
        PathPattern::Any => None,
        PathPattern::Exact(text) | PathPattern::Template(text) => Some(text.to_string()),
        PathPattern::Prefix(prefix) => Some(format!("{prefix}/**")),
        PathPattern::Regex(pattern) => Some(format!("~{pattern}")),
    }
}

fn values(conditions: &[(Arc<str>, ValuePattern)]) -> Object {
    let value = |pattern: &ValuePattern| match pattern {
        ValuePattern::Present => json!({ "present": true }),
        ValuePattern::Absent => json!({ "absent": true }),
        ValuePattern::Exact(text) => json!(**text),
        ValuePattern::Prefix(text) => json!({ "prefix": **text }),
        ValuePattern::Suffix(text) => json!({ "suffix": **text }),
        ValuePattern::Contains(text) => json!({ "contains": **text }),
        ValuePattern::Regex(text) => json!({ "regex": **text }),
    };
    let values = conditions.iter();
    Object(
        values
            .map(|(name, pattern)| (name.to_string(), value(pattern)))
            .collect(),
    )
}

fn forward(object: &mut Object, forward: &Forward) {
    balance::put_destinations(object, &forward.to);
    object.put("timeout", or_off(forward.timeout.map(format_duration)));
    object.put_opt("retry", forward.retry.as_ref().map(retry::retry));
    object.put_opt("hedge", forward.hedge.as_ref().map(retry::hedge));
    object.put("grpc_statistics", forward.grpc_statistics);
    object.put(
        "priority",
        forward.priority.map_or("exempt", Priority::word),
    );
    object.put_opt("mirror", fault::mirrors(&forward.mirrors));
    object.put_opt("hash", forward.hash.as_ref().map(hash));
    let mut rewrite = Object::default();
    match &forward.path_rewrite {
        None => {}
        Some(PathRewrite::Full(path)) => rewrite.put("path", &**path),
        Some(PathRewrite::Prefix(prefix)) => rewrite.put("prefix", &**prefix),
        Some(PathRewrite::Regex {
            pattern,
            replacement,
        }) => {
            rewrite.put("regex", &**pattern);
            rewrite.put("replacement", &**replacement);
        }
    }
    rewrite.put_opt("host", forward.host_rewrite.as_deref());
    object.put_filled("rewrite", rewrite);
}

fn hash(hash: &HashOn) -> Value {
    match hash {
        HashOn::Header(name) => json!({ "header": **name }),
        HashOn::Cookie(name) => json!({ "cookie": **name }),
        HashOn::Query(name) => json!({ "query": **name }),
        HashOn::ClientIp => "client_ip".into(),
    }
}

fn redirect(redirect: &Redirect) -> Object {
    let mut object = Object::default();
    object.put("status", redirect.status);
    object.put_opt("scheme", redirect.scheme.as_deref());
    object.put_opt("host", redirect.host.as_deref());
    object.put_opt("path", redirect.path.as_deref());
    object.put("strip_query", redirect.strip_query);
    object
}

fn header_edits(edits: &HeaderEdits, secrets: Secrets) -> Object {
    let mut object = Object::default();
    let remove = (!edits.remove.is_empty())
        .then(|| Value::Array(edits.remove.iter().map(|name| json!(**name)).collect()));
    object.put_opt("remove", remove);
    for (key, lines) in [("set", &edits.set), ("append", &edits.append)] {
        let lines = lines.iter().map(|(name, value)| {
            let hide = secrets == Secrets::Redact && is_secret(name);
            (name.to_string(), json!(if hide { REDACTED } else { value }))
        });
        object.put_filled(key, Object(lines.collect()));
    }
    object
}

/// Whether the values of a header are likely to be secrets.
pub(super) fn is_secret(header: &str) -> bool {
    const PARTS: [&str; 8] = [
        "auth",
        "cookie",
        "token",
        "secret",
        "key",
        "password",
        "credential",
        "session",
    ];
    PARTS.iter().any(|part| header.contains(part))
}

fn cluster(cluster: &Cluster) -> Value {
    let mut object = Object::default();
    object.put("endpoints", endpoints(&cluster.endpoints));
    object.put("balance", cluster.balance.word());
    object.put("protocol", cluster.protocol.word());
    balance::put(&mut object, cluster);
    object.put("slow_start", duration(cluster.slow_start));
    object.put("connect_timeout", duration(cluster.connect_timeout));
    object.put("idle_timeout", duration(cluster.idle_timeout));
    object.put("idle_connections", cluster.idle_connections);
    object.put(
        "requests_per_connection",
        or_off(cluster.requests_per_connection),
    );
    let circuit = &cluster.circuit;
    object.put(
        "circuit",
        json!({ "connections": circuit.connections, "requests": circuit.requests }),
    );
    object.put_opt("health", cluster.health.as_ref().map(health::health));
    let proxy_protocol = cluster.proxy_protocol.map(|version| match version {
        ProxyProtocolOut::V1 => "v1",
        ProxyProtocolOut::V2 => "v2",
    });
    object.put_opt("proxy_protocol", proxy_protocol);
    object.put_opt("tls", cluster.tls.as_deref().map(tls::cluster));
    let max_age = cluster.max_connection_age.map(format_duration);
    object.put("max_connection_age", or_off(max_age));
    if let Some(heal) = &cluster.heal {
        heal::put_heal(&mut object, heal);
    }
    let limit = cluster.adaptive_limit.as_deref().map(limit::adaptive_limit);
    object.put_opt("adaptive_limit", limit);
    object.into()
}

fn texts(texts: &[Arc<str>]) -> Vec<Value> {
    texts.iter().map(|text| json!(**text)).collect()
}

fn center(center: &Center) -> Object {
    let mut object = Object::default();
    object.put("addresses", texts(&center.addresses));
    object.put_opt("token_file", center.token_file.as_deref());
    if !center.fronts.is_empty() {
        let fronts = center.fronts.iter().map(|front| json!(front.to_string()));
        object.put("fronts", fronts.collect::<Vec<_>>());
    }
    if let Some(restart) = &center.restart {
        let mut hook = Object::default();
        match &restart.hook {
            Hook::Command(words) => hook.put("command", texts(words)),
            Hook::Http(address, path) => {
                hook.put("http", address.to_string());
                hook.put("path", &**path);
            }
            Hook::Unix(socket, path) => {
                hook.put("unix", &**socket);
                hook.put("path", &**path);
            }
        }
        hook.put("timeout", duration(restart.timeout));
        object.put("restart", hook);
    }
    object
}

fn endpoints(endpoints: &Endpoints) -> Value {
    match endpoints {
        Endpoints::Static(endpoints) => {
            let endpoints = endpoints.iter().map(endpoint);
            json!({ "static": endpoints.collect::<Vec<_>>() })
        }
        Endpoints::Dns {
            host,
            port,
            refresh,
        } => {
            json!({ "dns": format!("{host}:{port}"), "refresh": format_duration(*refresh) })
        }
    }
}

fn endpoint(endpoint: &StaticEndpoint) -> Value {
    let mut object = Object::default();
    object.put("address", endpoint.address.to_string());
    object.put("weight", endpoint.weight);
    object.put("priority", endpoint.priority);
    let zone = &*endpoint.zone;
    object.put_opt("zone", (!zone.is_empty()).then_some(zone));
    object.put_filled("labels", tls::labels(&endpoint.labels));
    object.put("tls", tls::capability(&endpoint.capability));
    object.into()
}
