//! Fault injection and copies of requests in the configuration: where each key lands, and what is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::time::Duration;

use tidegate_core::config::{self, model::*};

/// Goal: every key lands in its field. Method: the file with all of them.
#[test]
fn every_key_of_faults_lands_in_its_field() {
    let text = include_str!("config/everything.yaml");
    let (config, _) = config::parse("test.yaml", text).unwrap();
    let Protocol::Http(edge) = &config.listeners["edge"].protocol else {
        panic!("it speaks HTTP")
    };
    let chance = Chance::of_share;
    let some = Fault {
        delay: Some(FaultDelay {
            fixed: Some(Duration::from_millis(100)),
            chance: chance(2_500),
        }),
        abort: Some(FaultAbort {
            with: AbortWith::Grpc(14),
            chance: chance(50),
        }),
        headers: vec![("x-chaos".into(), ValuePattern::Exact("1".into()))],
        active_max: Some(10),
    };
    let all = Fault {
        abort: Some(FaultAbort {
            with: AbortWith::Http(500),
            chance: chance(10_000),
        }),
        ..Fault::default()
    };
    let asked = Fault {
        delay: Some(FaultDelay {
            fixed: None,
            chance: chance(10_000),
        }),
        abort: Some(FaultAbort {
            with: AbortWith::Header,
            chance: chance(10_000),
        }),
        ..Fault::default()
    };
    for (at, expected) in [(7, some), (9, all), (10, asked)] {
        assert_eq!(edge.routes[at].fault.as_deref(), Some(&expected));
    }
    assert_eq!(edge.routes[6].fault, None);
    let RouteAction::Forward(forward) = &edge.routes[8].action else {
        panic!("it forwards")
    };
    let mirror = |cluster: &str, share, host_suffix| Mirror {
        cluster: cluster.into(),
        chance: chance(share),
        host_suffix,
    };
    assert_eq!(
        forward.mirrors,
        [mirror("pay", 1_000, true), mirror("spread", 10_000, false)]
    );
}

/// Goal: copies go to clusters that are there, and a cluster that only gets copies is used. Method: a mirror to nobody,
/// one of a route that answers by itself, and one that is as it should be.
#[test]
fn mistakes_of_mirrors_are_found() {
    for (route, codes) in [
        ("to: app, mirror: [ { to: gone } ]", &["TG-C027"][..]),
        ("to: app, mirror: []", &["TG-C041"]),
        (
            "respond: { status: 200 }, mirror: [ { to: app } ]",
            &["TG-C022"],
        ),
        ("to: app, mirror: [ { to: shadow } ]", &[]),
    ] {
        let text = format!(
            "version: 1\nlisteners: {{ web: {{ bind: 127.0.0.1:80, routes: [ {{ {route} }} ] }} }}\n\
             clusters: {{ app: {{ endpoints: {{ static: [10.0.0.1:80] }} }}, shadow: {{ endpoints: {{ static: [10.0.0.2:80] }} }} }}\n"
        );
        let found = match config::parse("test.yaml", &text) {
            Ok((_, warnings)) => warnings,
            Err(errors) => errors,
        };
        let mut found: Vec<_> = found.iter().map(|one| one.code).collect();
        found.sort_unstable();
        assert_eq!(found, codes, "{route}");
    }
}

/// Goal: what cannot be meant is refused. Method: a table of mistakes.
#[test]
fn mistakes_of_faults_are_found() {
    for (fault, code) in [
        ("{}", "TG-C021"),
        ("{ delay: {} }", "TG-C021"),
        ("{ delay: { fixed: 1s, by_header: true } }", "TG-C020"),
        ("{ delay: { by_header: false } }", "TG-C013"),
        ("{ delay: { fixed: 10m } }", "TG-C017"),
        ("{ abort: { status: 99 } }", "TG-C017"),
        ("{ abort: { status: 503, grpc_status: 14 } }", "TG-C020"),
        ("{ abort: { status: 503, share: 101% } }", "TG-C017"),
        (
            "{ abort: { status: 503 }, header: { \"a b\": x } }",
            "TG-C034",
        ),
    ] {
        let text = format!(
            "version: 1\nlisteners: {{ web: {{ bind: 127.0.0.1:80, routes: [ {{ respond: {{ status: 200 }}, fault: {fault} }} ] }} }}\n"
        );
        let found = config::parse("test.yaml", &text).unwrap_err();
        let codes: Vec<_> = found.iter().map(|one| one.code).collect();
        assert_eq!(codes, [code], "{fault}");
    }
}
