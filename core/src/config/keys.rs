//! The keys of the format: names, types, bounds, defaults with their reasons, and meanings.
//!
//! Defaults are what users of HAProxy and Envoy expect, where they agree with being safe.

use super::shape::{Field, Kind, Section};

mod cluster;
mod listener;
mod route;
mod top;

pub(super) use cluster::*;
pub(super) use listener::*;
pub(super) use route::*;
pub(super) use top::*;

/// Shards of a process; also one more than the highest CPU number (the largest machines have so many).
pub const SHARDS_MAX: usize = 1024;
/// Listeners of a configuration: each costs a socket per shard.
pub const LISTENERS_MAX: usize = 256;
/// Clusters of a configuration.
pub const CLUSTERS_MAX: usize = 16_384;
/// Routes of a listener.
pub const ROUTES_MAX: usize = 100_000;
/// Endpoints of a static cluster.
pub const ENDPOINTS_MAX: usize = 16_384;
/// Clusters of a split, and hosts, methods, conditions or header edits of one route.
pub const ROUTE_LIST_MAX: usize = 256;
/// Bytes of a name: it becomes a label of metrics.
pub const NAME_MAX: usize = 128;
/// Bytes of a host, a path, a header value or another text of a route.
pub const TEXT_MAX: usize = 4096;
/// Bytes of a body that the proxy answers with by itself: it has to fit one send buffer.
pub const BODY_MAX: usize = 32 << 10;

const NAME: Kind = Kind::Text("a name", NAME_MAX);
const TEXT: Kind = Kind::Text("text", TEXT_MAX);
/// A static endpoint.
pub(super) const ENDPOINT_ITEM: Kind =
    Kind::Any(&[Kind::Text("an address", 64), Kind::Section(&ENDPOINT)]);
/// A condition on a header or a parameter.
pub(super) const VALUE: Kind = Kind::Any(&[TEXT, Kind::Section(&VALUE_MATCH)]);
const CLUSTER_NAME: Kind = Kind::Text("the name of a cluster", NAME_MAX);

const fn seconds(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> std::time::Duration {
    std::time::Duration::from_millis(millis)
}

/// The longest duration that is believed to be meant.
const DAY: std::time::Duration = seconds(86_400);
/// The shortest time-out that is believed to be meant.
const TICK: std::time::Duration = millis(1);

/// A time-out.
const TIMEOUT: Kind = Kind::Duration(TICK, DAY);
/// A time-out that can be switched off.
const TIMEOUT_OR_OFF: Kind = Kind::Any(&[TIMEOUT, Kind::Off]);

/// Every section of the format.
pub(super) static SECTIONS: &[&Section] = &[
    &ROOT,
    &NODE,
    &SHARDS,
    &RING,
    &ACCESS_LOG,
    &LIMITS,
    &LISTENER,
    &HTTP_TIMEOUTS,
    &HTTP_LIMITS,
    &FORWARDED,
    &TCP_TIMEOUTS,
    &ROUTE,
    &MATCH,
    &VALUE_MATCH,
    &REDIRECT,
    &RESPOND,
    &RETRY,
    &HASH,
    &REWRITE,
    &HEADER_EDITS,
    &CLUSTER,
    &ENDPOINTS,
    &ENDPOINT,
    &CIRCUIT,
    &HEALTH,
    &TCP_PROBE,
    &HTTP_PROBE,
];

/// What Envoy, HAProxy, nginx and Traefik call the same thing.
const SYNONYMS: &[(&str, &str)] = &[
    ("address", "bind"),
    ("listen", "bind"),
    ("port", "bind"),
    ("lb", "balance"),
    ("lb_policy", "balance"),
    ("load_balancing", "balance"),
    ("algorithm", "balance"),
    ("upstreams", "clusters"),
    ("backends", "clusters"),
    ("services", "clusters"),
    ("frontends", "listeners"),
    ("servers", "endpoints"),
    ("servers", "listeners"),
    ("hosts", "endpoints"),
    ("load_assignment", "endpoints"),
    ("targets", "endpoints"),
    ("cluster", "to"),
    ("backend", "to"),
    ("upstream", "to"),
    ("proxy_pass", "to"),
    ("service", "to"),
    ("weighted_clusters", "split"),
    ("weights", "split"),
    ("direct_response", "respond"),
    ("response", "respond"),
    ("return", "respond"),
    ("retries", "retry"),
    ("retry_policy", "retry"),
    ("num_retries", "times"),
    ("attempts", "times"),
    ("retry_on", "on"),
    ("conditions", "on"),
    ("domains", "host"),
    ("domain", "host"),
    ("authority", "host"),
    ("hosts", "host"),
    ("server_name", "host"),
    ("prefix", "path"),
    ("uri", "path"),
    ("url", "path"),
    ("location", "path"),
    ("headers", "header"),
    ("params", "query"),
    ("query_parameters", "query"),
    ("methods", "method"),
    ("cookies", "cookie"),
    ("when", "match"),
    ("rule", "match"),
    ("matches", "match"),
    ("sticky", "hash"),
    ("hash_policy", "hash"),
    ("affinity", "hash"),
    ("circuit_breakers", "circuit"),
    ("circuit_breaker", "circuit"),
    ("max_connections", "connections"),
    ("maxconn", "connections"),
    ("max_requests", "requests"),
    ("health_check", "health"),
    ("health_checks", "health"),
    ("healthcheck", "health"),
    ("rise", "healthy_after"),
    ("healthy_threshold", "healthy_after"),
    ("fall", "unhealthy_after"),
    ("unhealthy_threshold", "unhealthy_after"),
    ("inter", "interval"),
    ("expected_statuses", "expect"),
    ("codes", "status"),
    ("code", "status"),
    ("hostname", "dns"),
    ("strict_dns", "dns"),
    ("logical_dns", "dns"),
    ("addresses", "static"),
    ("threads", "shards"),
    ("concurrency", "shards"),
    ("workers", "shards"),
    ("nbthread", "shards"),
    ("accesslog", "access_log"),
    ("log", "access_log"),
    ("x_forwarded_for", "x_forwarded"),
    ("xff", "x_forwarded"),
    ("add", "append"),
    ("client_header_timeout", "header"),
    ("keepalive", "keep_alive"),
    ("keepalive_timeout", "keep_alive"),
    ("graceful_timeout", "drain_timeout"),
    ("shutdown_timeout", "drain_timeout"),
    ("substitution", "replacement"),
    ("equals", "exact"),
    ("value", "exact"),
    ("keepalive_requests", "requests_per_connection"),
    ("max_idle", "idle_connections"),
    ("warmup", "slow_start"),
    ("slowstart", "slow_start"),
];

/// The key of `section` that others call `word`.
pub(super) fn synonym(word: &str, section: &Section) -> Option<&'static str> {
    let mut known = SYNONYMS
        .iter()
        .filter(|(foreign, _)| foreign.eq_ignore_ascii_case(word));
    known
        .find_map(|(_, key)| section.field(key))
        .map(|field| field.key)
}

/// Where `key` belongs, if it is a key of exactly one other section.
pub(super) fn home_of(key: &str, but: &Section) -> Option<&'static str> {
    let mut homes = SECTIONS
        .iter()
        .filter(|section| section.name != but.name && section.field(key).is_some());
    let home = homes.next()?;
    match (homes.next(), home.place) {
        (Some(_), _) => None,
        (None, "") => Some("the top of the file"),
        (None, place) => Some(place),
    }
}
