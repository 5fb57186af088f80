//! Whatever bytes a control plane sends as a resource, it is taken or refused: nothing panics, and what is taken can be
//! compiled.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tidegate_core::{config, id::Epoch, snapshot::Snapshot};
use tidegate_xds::{
    graph::{CLUSTER_WAIT, Graph, Part},
    subscription::{ResourceType, Update},
    translate,
};

/// Mutated resources of a run.
const ROUNDS: usize = 10_000;

/// xorshift: the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn socket(port: u16) -> Value {
    json!({ "socket_address": { "address": "10.0.0.1", "port_value": port } })
}

/// Good resources of every type, with most of what is taken in them.
fn corpus() -> Vec<(ResourceType, Vec<u8>)> {
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "s", "via": "gw", "max_request_headers_kb": 16, "stream_idle_timeout": "3s",
        "rds": { "route_config_name": "r", "config_source": { "ads": {} } },
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }] });
    let tcp = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "s",
        "weighted_clusters": { "clusters": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 2 }] } });
    let listener = |name: &str, port: u16, filter: Value| json!({ "name": name, "address": socket(port), "filter_chains": [{ "filters": [{ "name": "f", "typed_config": filter }] }] });
    let routes = json!([
        { "match": { "prefix": "/a", "case_sensitive": false, "headers": [
            { "name": "x", "string_match": { "contains": "c", "ignore_case": true } }, { "name": ":method", "string_match": { "exact": "GET" } } ] },
          "route": { "cluster": "a", "prefix_rewrite": "/b", "timeout": "1s", "hash_policy": [{ "header": { "header_name": "x" } }],
            "retry_policy": { "retry_on": "5xx,connect-failure", "num_retries": 3, "per_try_timeout": "0.1s" } } },
        { "match": { "safe_regex": { "regex": "/c/(.*)" } }, "route": { "weighted_clusters": { "clusters": [
            { "name": "a", "weight": 7 }, { "name": "b", "weight": 3 } ] },
            "regex_rewrite": { "pattern": { "regex": "/c/(.*)" }, "substitution": "/d/\\1" } },
          "request_headers_to_add": [{ "header": { "key": "x-a", "value": "1" } }] },
        { "match": { "path": "/d" }, "redirect": { "https_redirect": true, "host_redirect": "h.example", "port_redirect": 8443 } },
        { "match": { "path_separated_prefix": "/e" }, "direct_response": { "status": 200, "body": { "inline_string": "x" } } },
    ]);
    let resources = [
        (
            ResourceType::Cluster,
            json!({ "name": "a", "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } },
            "connect_timeout": "1s", "lb_policy": "MAGLEV", "circuit_breakers": { "thresholds": [{ "max_requests": 9 }] },
            "outlier_detection": { "base_ejection_time": "3s" },
            "health_checks": [{ "timeout": "1s", "interval": "2s", "healthy_threshold": 1, "unhealthy_threshold": 1,
                "http_health_check": { "path": "/", "expected_statuses": [{ "start": 200, "end": 300 }] } }] }),
        ),
        (
            ResourceType::Cluster,
            json!({ "name": "b", "type": "STRICT_DNS", "load_assignment": { "cluster_name": "b",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": {
                "address": "pay.internal", "port_value": 80 } } } }] }] } }),
        ),
        (
            ResourceType::Endpoint,
            json!({ "cluster_name": "a", "endpoints": [{ "locality": { "zone": "z" }, "lb_endpoints": [
            { "endpoint": { "address": socket(1) }, "load_balancing_weight": 300,
              "metadata": { "filter_metadata": { "envoy.lb": { "v": "1" } } } },
            { "endpoint": { "address": socket(2) }, "health_status": "HEALTHY" } ] }] }),
        ),
        (ResourceType::Listener, listener("web", 80, hcm)),
        (ResourceType::Listener, listener("db", 81, tcp)),
        (
            ResourceType::Route,
            json!({ "name": "r", "virtual_hosts": [
            { "name": "v", "domains": ["a.example", "*.b.example"], "routes": routes }, { "name": "w", "domains": ["*"] } ] }),
        ),
    ];
    let packed = resources.into_iter().map(|(resource_type, mut json)| {
        json["@type"] = resource_type.url().into();
        translate::from_json(&json).unwrap()
    });
    packed.collect()
}

fn mutate(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if random.below(2) == 0 {
        // What stands in for a letter keeps the lengths, and meets the checks of values.
        let letters: Vec<usize> = (0..bytes.len())
            .filter(|at| bytes[*at].is_ascii_graphic())
            .collect();
        for _ in 0..=random.below(2) {
            let with = b"/*.~^$(){}[]%\\-+?|:0aZ \x00\x01\x7f";
            bytes[letters[random.below(letters.len())]] = with[random.below(with.len())];
        }
        return bytes;
    }
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.below(256) as u8,
            2 => bytes.insert(at, random.below(256) as u8),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let from = random.below(other.len());
                let piece = &other[from..from + random.below(other.len() - from + 1)];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// What a part would be used as.
fn compile(part: Part) {
    let (mut config, _) = config::parse("test", "version: 1\nadmin: off\n").unwrap();
    config.listeners = part.listeners;
    config.clusters = part.clusters;
    let snapshot = Snapshot::compile(Arc::new(config), &Default::default(), None, 1, Epoch(1));
    assert!(!snapshot.clusters.is_empty());
}

/// Goal: no bytes bring the client down, and what is taken can be used (design: no panic on the config path). Method:
/// ten thousand resources, each mutated from a good one in up to four places; those that are taken join the good ones
/// in a graph, and the part is compiled.
#[test]
fn mutated_resources_are_taken_or_refused() {
    let corpus = corpus();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let (resource_type, bytes) = &corpus[round % corpus.len()];
        let (_, other) = &corpus[random.below(corpus.len())];
        let mutated = mutate(bytes, other, &mut random);
        let made = translate::translate(*resource_type, resource_type.url(), &mutated);
        let Ok(value) = made.resource else {
            refused += 1;
            continue;
        };
        taken += 1;
        let mut graph = Graph::default();
        for (resource_type, bytes) in &corpus {
            let good = translate::translate(*resource_type, resource_type.url(), bytes);
            let (name, value) = (good.name, good.resource.unwrap());
            graph.apply(*resource_type, Update::Set { name, value });
        }
        let name = made.name;
        graph.apply(*resource_type, Update::Set { name, value });
        graph.poll(Duration::ZERO, &BTreeSet::new());
        graph.poll(CLUSTER_WAIT, &BTreeSet::new());
        compile(graph.active().clone());
    }
    println!("{taken} taken, {refused} refused");
    assert!(
        taken > 500 && refused > 500,
        "{taken} taken, {refused} refused"
    );
}
