//! From a configuration to a snapshot, and from one snapshot to the next.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tidegate_core::{
    config::model::{
        Balance, Circuit, Cluster, Config, Endpoints, Forward, Forwarded, HeaderEdits, Http,
        HttpLimits, HttpTimeouts, Limits, Listener, Node, Protocol, ProxyProtocolIn, Ring, Route,
        RouteAction, RouteMatch, Shards, StaticEndpoint, Tcp, WeightedCluster,
    },
    encryption::{census::Report, rollout::LinkKind},
    id::{ClusterId, Epoch, ShardId},
    snapshot::{self, Resolution, Snapshot},
};

const SECOND: Duration = Duration::from_secs(1);

/// Goal: names become ids, and ids lead back. Method: two listeners and two clusters, looked up each way.
#[test]
fn names_become_ids() {
    let mut config = config();
    let tcp = Tcp {
        to: split(&[("b", 10_000)]),
        idle_timeout: SECOND,
        max_age: None,
    };
    add_listener(&mut config, "raw", "127.0.0.1:2", Protocol::Tcp(tcp));
    let snapshot = compile(&config, None, 1);
    assert_eq!(snapshot.epoch, Epoch(7));
    let http = snapshot.listener_by_bind(address("127.0.0.1:1")).unwrap();
    assert_eq!(&*http.name, "edge");
    let raw = snapshot.listener_by_bind(address("127.0.0.1:2")).unwrap();
    assert_eq!(raw.id, snapshot.listener_by_name("raw").unwrap().id);
    assert!(snapshot.listener_by_bind(address("127.0.0.1:3")).is_none());
    assert!(snapshot.listener_by_name("none").is_none());
    for (i, listener) in snapshot.listeners.iter().enumerate() {
        assert_eq!(listener.id.index(), i);
    }
    let b = snapshot.cluster_by_name("b").unwrap();
    assert_eq!(&*snapshot.cluster(b.id).unwrap().name, "b");
    assert!(snapshot.cluster_by_name("c").is_none());
    assert!(snapshot.cluster(ClusterId(9)).is_none());
    let snapshot::Protocol::Tcp(tcp) = &raw.protocol else {
        panic!("not TCP");
    };
    assert_eq!(tcp.split.pick(1), Some(b.id));
}

/// Goal: the census of a listener goes on while its address stays, whatever it is called: connections outlive
/// its name. Method: rename one listener, move another.
#[test]
fn census_is_carried_over_by_address() {
    let mut config = config();
    let tcp = || {
        Protocol::Tcp(Tcp {
            to: split(&[("b", 10_000)]),
            idle_timeout: SECOND,
            max_age: None,
        })
    };
    add_listener(&mut config, "raw", "127.0.0.1:2", tcp());
    let before = compile(&config, None, 2);
    for listener in &before.listeners {
        let shard = listener.census.get(ShardId(1)).unwrap();
        shard.opened(LinkKind::Plaintext, 1_000);
    }
    let mut changed = config.clone();
    let renamed = changed.listeners.remove("edge").unwrap();
    changed.listeners.insert("gate".into(), renamed);
    changed.listeners.get_mut("raw").unwrap().bind = address("127.0.0.1:3");
    let after = compile(&changed, Some(&before), 2);
    let open = |name: &str| {
        let census = &after.listener_by_name(name).unwrap().census;
        Report::of(census).total.plaintext.connections_open
    };
    assert_eq!((open("gate"), open("raw")), (1, 0));
}

/// Goal: counters go on over a change, by the names and addresses they count for. Method: count on one
/// snapshot, change everything around, read on the next.
#[test]
fn counters_are_carried_over() {
    let before = compile(&config(), None, 2);
    count(&before);

    let mut changed = config();
    changed
        .clusters
        .insert("0".into(), cluster(&["10.0.0.9:1"]));
    let a = cluster(&["10.0.0.7:1", "10.0.0.2:1"]);
    changed.clusters.insert("a".into(), a);
    let Protocol::Http(http) = &mut changed.listeners.get_mut("edge").unwrap().protocol else {
        panic!("not HTTP");
    };
    http.routes.insert(0, route("new", &[("0", 10_000)]));
    let after = compile(&changed, Some(&before), 2);

    let snapshot::Protocol::Http(http) = &after.listeners[0].protocol else {
        panic!("not HTTP");
    };
    let requests: Vec<u64> = http
        .routes
        .iter()
        .map(|route| route.counters.sum(|c| c.requests.get()))
        .collect();
    assert_eq!(requests, [0, 1, 2]);
    let a = after.cluster_by_name("a").unwrap();
    let sums = a
        .endpoints
        .iter()
        .map(|e| e.counters.sum(|c| c.requests.get()));
    assert_eq!(sums.collect::<Vec<_>>(), [0, 2]);
    // The shards changed in number: slots would not fit.
    let other = compile(&changed, Some(&before), 3);
    let a = other.cluster_by_name("a").unwrap();
    assert_eq!(a.endpoints[1].counters.sum(|c| c.requests.get()), 0);
    assert!(a.endpoints[1].counters.get(ShardId(2)).is_some());
}

/// Goal: a DNS cluster has the endpoints that were looked up, with ids that do not depend on the order
/// of the answer, and none before. Method: rotated and repeated answers.
#[test]
fn resolved_addresses_become_endpoints() {
    let mut config = config();
    config.clusters.get_mut("a").unwrap().endpoints = Endpoints::Dns {
        host: "a.test".into(),
        port: 80,
        refresh: SECOND,
    };
    let addresses = |answer: &[&str]| {
        let answer = answer.iter().map(|a| address(a)).collect();
        let resolution = Resolution::from([("a".into(), answer)]);
        let config = Arc::new(config.clone());
        let snapshot = Snapshot::compile(config, &resolution, None, 1, Epoch(1));
        let endpoints = &snapshot.cluster_by_name("a").unwrap().endpoints;
        assert!(
            endpoints
                .iter()
                .enumerate()
                .all(|(i, e)| e.id.index() == i && e.weight == 1)
        );
        endpoints
            .iter()
            .map(|e| e.address.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&[]), [""; 0]);
    assert_eq!(
        addresses(&["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"]),
        ["10.0.0.1:80", "10.0.0.2:80"]
    );
}

/// Goal: compiling never panics, even on what validation keeps out. Method: a split over clusters that
/// are not there, shares that do not sum up, expressions that do not parse.
#[test]
fn compiling_never_fails() {
    let mut config = config();
    let Protocol::Http(http) = &mut config.listeners.get_mut("edge").unwrap().protocol else {
        panic!("not HTTP");
    };
    http.routes.push(route("lost", &[("gone", 10_000)]));
    http.routes.push(route("short", &[("a", 1), ("b", 2)]));
    http.routes
        .push(route("long", &[("a", u32::MAX), ("b", u32::MAX)]));
    let mut bad = route("bad", &[]);
    bad.matches.path = tidegate_core::config::model::PathPattern::Regex("(".into());
    http.routes.push(bad);
    let snapshot = compile(&config, None, 0);
    let snapshot::Protocol::Http(http) = &snapshot.listeners[0].protocol else {
        panic!("not HTTP");
    };
    let picks = http.routes.iter().map(|route| match &route.action {
        snapshot::Action::Forward(forward) => forward.split.pick(u64::MAX).is_some(),
        _ => false,
    });
    assert_eq!(
        picks.collect::<Vec<_>>(),
        [true, true, false, true, true, false]
    );
}

/// One request on each route, by its position, and on each endpoint of `a`.
fn count(snapshot: &Snapshot) {
    let snapshot::Protocol::Http(http) = &snapshot.listeners[0].protocol else {
        panic!("not HTTP");
    };
    for (n, route) in (1..).zip(&http.routes) {
        route.counters.get(ShardId(1)).unwrap().requests.add(n);
    }
    for (n, endpoint) in (1..).zip(&snapshot.cluster_by_name("a").unwrap().endpoints) {
        endpoint.counters.get(ShardId(0)).unwrap().requests.add(n);
    }
}

fn compile(config: &Config, previous: Option<&Snapshot>, shards: usize) -> Snapshot {
    let none = Resolution::new();
    Snapshot::compile(Arc::new(config.clone()), &none, previous, shards, Epoch(7))
}

fn config() -> Config {
    let mut config = Config {
        node: Node::default(),
        shards: Shards {
            cpus: Vec::new(),
            count: None,
            ring: Ring::default(),
        },
        admin: None,
        access_log: None,
        limits: Limits::default(),
        drain_timeout: SECOND,
        upgrade_timeout: SECOND,
        listeners: BTreeMap::new(),
        clusters: BTreeMap::from([
            ("a".into(), cluster(&["10.0.0.1:1", "10.0.0.2:1"])),
            ("b".into(), cluster(&[])),
        ]),
        secrets: BTreeMap::new(),
        center: None,
        rate_limit_service: None,
        xds: None,
        steering: None,
    };
    let http = Http {
        routes: vec![
            route("one", &[("a", 10_000)]),
            route("two", &[("a", 5000), ("b", 5000)]),
        ],
        timeouts: HttpTimeouts::default(),
        limits: HttpLimits::default(),
        forwarded: Forwarded::default(),
    };
    add_listener(&mut config, "edge", "127.0.0.1:1", Protocol::Http(http));
    config
}

fn add_listener(config: &mut Config, name: &str, bind: &str, protocol: Protocol) {
    let listener = Listener {
        bind: address(bind),
        proxy_protocol: ProxyProtocolIn::Off,
        tls: None,
        protocol,
    };
    config.listeners.insert(name.into(), listener);
}

fn route(name: &str, to: &[(&str, u32)]) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch::default(),
        rate_limits: Vec::new(),
        global_rate_limits: Vec::new(),
        fault: None,
        action: RouteAction::Forward(Forward {
            to: split(to),
            hash: None,
            path_rewrite: None,
            host_rewrite: None,
            timeout: None,
            retry: None,
            mirrors: Vec::new(),
            hedge: None,
            grpc_statistics: false,
            priority: Some(tidegate_core::limiter::Priority::Normal),
        }),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        origin: "".into(),
    }
}

fn split(to: &[(&str, u32)]) -> Vec<WeightedCluster> {
    let weighted = to.iter().map(|(cluster, share)| WeightedCluster {
        cluster: (*cluster).into(),
        share: *share,
        subset: Default::default(),
    });
    weighted.collect()
}

fn cluster(addresses: &[&str]) -> Cluster {
    let endpoints = addresses.iter().map(|a| StaticEndpoint::new(address(a), 1));
    Cluster {
        endpoints: Endpoints::Static(endpoints.collect()),
        balance: Balance::default(),
        failover: Default::default(),
        subsets: None,
        slow_start: Duration::ZERO,
        connect_timeout: SECOND,
        idle_timeout: SECOND,
        idle_connections: 1,
        requests_per_connection: None,
        protocol: Default::default(),
        circuit: Circuit::default(),
        health: None,
        proxy_protocol: None,
        tls: None,
        max_connection_age: None,
        heal: None,
        adaptive_limit: None,
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
