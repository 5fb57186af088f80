//! Priorities, zones and subsets in the configuration: where each key lands, what is refused and what is doubted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;

use tidegate_core::config::{self, model::*};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

/// Goal: every key lands in its field. Method: the file with all of them.
#[test]
fn every_key_of_balancing_lands_in_its_field() {
    let text = include_str!("config/everything.yaml");
    let (config, _) = config::parse("test.yaml", text).unwrap();
    let spread = &config.clusters["spread"];
    let failover = Failover {
        overprovisioning: 120,
        panic_threshold: 30,
        by_locality: true,
    };
    assert_eq!(spread.failover, failover);
    let Endpoints::Static(endpoints) = &spread.endpoints else {
        panic!("{:?}", spread.endpoints)
    };
    let place = |e: &StaticEndpoint| (e.priority, e.locality.number, e.locality.weight);
    let places: Vec<_> = endpoints.iter().map(place).collect();
    assert_eq!(places, [(0, 0, 3), (0, 1, 1), (1, 0, 3)]);
    let selector = |keys: &[&str], fallback| SubsetSelector {
        keys: keys.iter().map(|key| Arc::from(*key)).collect(),
        fallback,
    };
    let subsets = Subsets {
        selectors: vec![
            selector(&["version"], None),
            selector(&["stage", "version"], Some(Fallback::AnyEndpoint)),
        ],
        fallback: Fallback::Default,
        default: labels(&[("version", "stable")]),
        by_locality: true,
    };
    assert_eq!(spread.subsets.as_deref(), Some(&subsets));
    let Protocol::Http(edge) = &config.listeners["edge"].protocol else {
        panic!("it speaks HTTP")
    };
    let RouteAction::Forward(forward) = &edge.routes[11].action else {
        panic!("it forwards")
    };
    let part = |share, subset| WeightedCluster {
        cluster: "spread".into(),
        share,
        subset,
    };
    // What a part says goes before what the route says.
    let parts = [
        part(9000, labels(&[("version", "stable")])),
        part(1000, labels(&[("stage", "prod"), ("version", "canary")])),
    ];
    assert_eq!(forward.to, parts);
}

/// The codes of what is found in a file with these clusters and this route.
fn codes(route: &str, cluster: &str) -> Vec<&'static str> {
    let text = format!(
        "version: 1\nlisteners: {{ web: {{ bind: 127.0.0.1:80, routes: [ {{ {route} }} ] }} }}\n\
         clusters: {{ app: {{ endpoints: {{ static: [ {{ address: 10.0.0.1:80, zone: z1 }}, 10.0.0.2:80 ] }}{cluster} }} }}\n"
    );
    let found = match config::parse("test.yaml", &text) {
        Ok((_, warnings)) => warnings,
        Err(errors) => errors,
    };
    found.iter().map(|one| one.code).collect()
}

/// Goal: what cannot be meant is refused, and what is doubtful is said. Method: a table of mistakes.
#[test]
fn mistakes_of_balancing_are_found() {
    for (route, cluster, expected) in [
        ("to: app", "", &[][..]),
        (
            "to: app",
            ", failover: { panic_percent: 101 }",
            &["TG-C017"],
        ),
        (
            "to: app",
            ", failover: { overprovisioning_percent: 99 }",
            &["TG-C017"],
        ),
        (
            "to: app",
            ", zone_weights: { z1: 0 }",
            &["TG-C103", "TG-C017"],
        ),
        // The second endpoint is in no zone.
        ("to: app", ", zone_weights: { z1: 2 }", &["TG-C103"]),
        ("to: app", ", subsets: { selectors: [] }", &["TG-C041"]),
        (
            "to: app",
            ", subsets: { selectors: [ { keys: [] } ] }",
            &["TG-C041"],
        ),
        (
            "to: app",
            ", subsets: { selectors: [ { keys: [a] } ], default: { a: b } }",
            &["TG-C022"],
        ),
        (
            "to: app",
            ", subsets: { selectors: [ { keys: [a] } ], fallback: first }",
            &["TG-C013"],
        ),
        (
            "split: [ { to: app, share: 50% }, { to: app, share: 50%, subset: { a: b } } ]",
            "",
            &[],
        ),
        ("split: [ { to: app, share: 50% } ]", "", &["TG-C028"]),
        ("split: [ { to: gone, share: 100% } ]", "", &["TG-C027"]),
        ("split: [ { to: app } ]", "", &["TG-C011"]),
        (
            "respond: { status: 200 }, subset: { a: b }",
            "",
            &["TG-C022"],
        ),
    ] {
        let found = codes(route, cluster);
        let relevant: Vec<_> = found
            .into_iter()
            .filter(|code| *code != "TG-C102")
            .collect();
        assert_eq!(relevant, expected, "{route}{cluster}");
    }
}
