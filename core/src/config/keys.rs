//! The keys of the format: names, types, bounds, defaults with their reasons, and meanings.
//!
//! Defaults are what users of HAProxy and Envoy expect, where they agree with being safe.

use super::shape::{Field, Kind, Section};

mod balance;
mod cluster;
mod fault;
mod global;
mod listener;
mod mirror;
mod outlier;
mod retry;
mod route;
mod steering;
mod tls;
mod top;

pub(super) use balance::*;
pub(super) use cluster::*;
pub(super) use fault::*;
pub(super) use global::*;
pub(super) use listener::*;
pub(super) use mirror::*;
pub(super) use outlier::*;
pub(super) use retry::*;
pub(super) use route::*;
pub(super) use steering::*;
pub(super) use tls::*;
pub(super) use top::*;

pub use mirror::MIRRORS_MAX;
pub use tls::{
    ALPN_NAME_MAX, CERTIFICATES_MAX, LABEL_MAX, LABELS_MAX, SECRETS_MAX, SUBJECT_ALT_NAME_MAX,
    SUBJECT_ALT_NAMES_MAX, TLS_LIST_MAX,
};

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
/// Rate limits of a route: each costs a lookup for every request, and memory for its buckets.
pub const RATE_LIMITS_MAX: usize = 4;
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
    &RATE_LIMIT_SERVICE,
    &CENTER,
    &RESTART,
    &XDS,
    &XDS_FILES,
    &XDS_TLS,
    &STEERING,
    &STEERED_APPLICATION,
    &STEERED_GROUP,
    &STEERING_MARKS,
    &STEERING_RULE,
    &STEERING_MATCH,
    &SHIFT,
    &DIVERT,
    &STEERING_CAP,
    &RAMP,
    &RAMP_STOP,
    &SECRET,
    &LISTENER,
    &LISTENER_TLS,
    &CLIENT_CERTIFICATE,
    &SUBJECT_ALT_NAME,
    &HTTP_TIMEOUTS,
    &HTTP_LIMITS,
    &HTTP2_LIMITS,
    &FORWARDED,
    &TCP_TIMEOUTS,
    &ROUTE,
    &MATCH,
    &VALUE_MATCH,
    &MIRROR,
    &FAULT,
    &FAULT_DELAY,
    &FAULT_ABORT,
    &RATE_LIMIT,
    &GLOBAL_RATE_LIMIT,
    &DESCRIPTOR_ENTRY,
    &REDIRECT,
    &RESPOND,
    &RETRY,
    &HEDGE,
    &HASH,
    &REWRITE,
    &HEADER_EDITS,
    &DESTINATION,
    &CLUSTER,
    &FAILOVER,
    &SUBSETS,
    &SUBSET_SELECTOR,
    &CLUSTER_TLS,
    &ROLLOUT,
    &ENDPOINTS,
    &ENDPOINT,
    &ENDPOINT_TLS,
    &CIRCUIT,
    &ADAPTIVE_LIMIT,
    &CANARY,
    &TARGETS,
    &HEAL,
    &OUTLIER_DETECTION,
    &HEALTH,
    &TCP_PROBE,
    &HTTP_PROBE,
    &GRPC_PROBE,
];

/// What Envoy, HAProxy, nginx and Traefik call the same thing.
const SYNONYMS: &[(&str, &str)] = &[
    ("address", "bind"),
    ("listen", "bind"),
    ("port", "bind"),
    ("outlier", "outlier_detection"),
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
    ("request_mirror_policies", "mirror"),
    ("shadow", "mirror"),
    ("lb_subset_config", "subsets"),
    ("subset_selectors", "selectors"),
    ("fallback_policy", "fallback"),
    ("default_subset", "default"),
    ("metadata_match", "subset"),
    ("metadata", "labels"),
    ("backup", "priority"),
    ("overprovisioning_factor", "overprovisioning_percent"),
    ("healthy_panic_threshold", "panic_percent"),
    ("locality_weights", "zone_weights"),
    ("locality", "zone"),
    ("priorities", "failover"),
    ("direct_response", "respond"),
    ("response", "respond"),
    ("return", "respond"),
    ("retries", "retry"),
    ("retry_policy", "retry"),
    ("num_retries", "times"),
    ("attempts", "times"),
    ("retry_on", "on"),
    ("hedging", "hedge"),
    ("hedge_policy", "hedge"),
    ("hedging_delay", "delay"),
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
    ("http2", "protocol"),
    ("h2", "protocol"),
    ("http2_protocol_options", "protocol"),
    ("proto", "protocol"),
    ("max_idle", "idle_connections"),
    ("rate_limit", "rate_limits"),
    ("ratelimit", "rate_limits"),
    ("local_rate_limit", "rate_limits"),
    ("limit_req", "rate_limits"),
    ("max_tokens", "burst"),
    ("tokens_per_fill", "requests"),
    ("fill_interval", "per"),
    ("rate", "requests"),
    ("period", "per"),
    ("average", "requests"),
    ("key", "by"),
    ("sourceCriterion", "by"),
    ("warmup", "slow_start"),
    ("slowstart", "slow_start"),
    ("certs", "secrets"),
    ("tls_certificates", "secrets"),
    ("cert", "certificate"),
    ("cert", "certificates"),
    ("crt", "certificate"),
    ("crt", "certificates"),
    ("crt", "tls"),
    ("cert_file", "certificate"),
    ("certificate_chain", "certificate"),
    ("client_cert", "certificate"),
    ("tls_certificate", "certificate"),
    ("tls_certificates", "certificates"),
    ("default_certificate", "certificates"),
    ("secret", "certificates"),
    ("secret", "certificate"),
    ("secrets", "certificates"),
    ("certificate", "certificates"),
    ("ssl_certificate", "certificate"),
    ("ssl_certificate", "certificates"),
    ("ssl_certificate", "tls"),
    ("proxy_ssl_certificate", "certificate"),
    ("proxy_ssl_certificate", "tls"),
    ("key", "private_key"),
    ("key_file", "private_key"),
    ("certificate_key", "private_key"),
    ("ssl_certificate_key", "private_key"),
    ("ca", "trusted_ca"),
    ("ca_file", "trusted_ca"),
    ("ca-file", "trusted_ca"),
    ("cafile", "trusted_ca"),
    ("root_ca", "trusted_ca"),
    ("trust_pool", "trusted_ca"),
    ("trusted_roots", "trusted_ca"),
    ("validation_context", "trusted_ca"),
    ("ssl_client_certificate", "trusted_ca"),
    ("ssl_client_certificate", "client_certificate"),
    ("ssl_trusted_certificate", "trusted_ca"),
    ("proxy_ssl_trusted_certificate", "trusted_ca"),
    ("verify", "client_certificate"),
    ("verify", "trusted_ca"),
    ("insecure_skip_verify", "trusted_ca"),
    ("tls_insecure_skip_verify", "trusted_ca"),
    ("proxy_ssl_verify", "trusted_ca"),
    ("ssl_verify_client", "client_certificate"),
    ("client_auth", "client_certificate"),
    ("client_authentication", "client_certificate"),
    ("mtls", "client_certificate"),
    ("require_client_certificate", "client_certificate"),
    ("crl_file", "crl"),
    ("crl-file", "crl"),
    ("ssl_crl", "crl"),
    ("san", "subject_alt_names"),
    ("sans", "subject_alt_names"),
    ("verifyhost", "server_name"),
    ("match_subject_alt_names", "subject_alt_names"),
    ("match_typed_subject_alt_names", "subject_alt_names"),
    ("spiffe", "uri"),
    ("spiffe_id", "uri"),
    ("ssl", "tls"),
    ("https", "tls"),
    ("transport_socket", "tls"),
    ("tls_context", "tls"),
    ("downstream_tls_context", "tls"),
    ("upstream_tls_context", "tls"),
    ("transport_socket_match", "tls"),
    ("sni", "server_name"),
    ("tls_server_name", "server_name"),
    ("proxy_ssl_name", "server_name"),
    ("proxy_ssl_server_name", "server_name"),
    ("alpn_protocols", "alpn"),
    ("ciphers", "cipher_suites"),
    ("ciphersuites", "cipher_suites"),
    ("ssl_ciphers", "cipher_suites"),
    ("curves", "groups"),
    ("ecdhe", "groups"),
    ("ecdh_curves", "groups"),
    ("ssl_ecdh_curve", "groups"),
    ("protocols", "min_version"),
    ("ssl_protocols", "min_version"),
    ("ssl-min-ver", "min_version"),
    ("tls_minimum_protocol_version", "min_version"),
    ("ssl-max-ver", "max_version"),
    ("tls_maximum_protocol_version", "max_version"),
    ("tickets", "session_tickets"),
    ("ssl_session_tickets", "session_tickets"),
    ("session_reuse", "resumption"),
    ("proxy_ssl_session_reuse", "resumption"),
    ("percent", "share"),
    ("percentage", "share"),
    ("basis_points", "share"),
    ("max_age", "max_connection_age"),
    ("max_connection_duration", "max_connection_age"),
    ("ads_config", "xds"),
    ("dynamic_resources", "xds"),
    ("control_plane", "xds"),
    ("api_type", "protocol"),
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
