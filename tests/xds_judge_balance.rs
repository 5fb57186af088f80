//! A stock Envoy as the judge of load balancing: it gets the same clusters from the same control plane, and requests go to
//! the same endpoints in the same shares, within what drawing allows: priorities, panic, localities, subsets, splits.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::net::SocketAddr;

use common::{
    Client, Origin, Proxy,
    control_plane::{ControlPlane, World, cluster, endpoints, envoy, listener, listening, routes},
    peer::{self, Server},
    proxy::Setup,
};
use serde_json::{Value, json};

/// Requests to each proxy in each case.
const REQUESTS: usize = 2_000;

/// Endpoints that say their number.
const ORIGINS: usize = 6;

/// A cluster, what a route to it says besides its name, and where requests are to go.
#[derive(Clone)]
struct Case {
    name: &'static str,
    /// Merged into the cluster.
    cluster: Value,
    /// Merged into its assignment.
    assignment: Value,
    /// Localities of the assignment.
    localities: Vec<Locality>,
    /// Merged into the route's action.
    route: Value,
    /// What the route says of faults.
    fault: Option<Value>,
    /// Shares of the endpoints by number; what is left is refused with 503.
    shares: &'static [(usize, f64)],
}

/// Endpoints by number, with what is said of them.
#[derive(Clone)]
struct Locality {
    zone: &'static str,
    priority: u32,
    weight: Option<u32>,
    endpoints: Vec<(usize, Value)>,
}

fn healthy(number: usize) -> (usize, Value) {
    (number, json!({}))
}

fn sick(number: usize) -> (usize, Value) {
    (number, json!({ "health_status": "UNHEALTHY" }))
}

fn heavy(number: usize, weight: u32) -> (usize, Value) {
    (number, json!({ "load_balancing_weight": weight }))
}

fn labelled(number: usize, labels: Value) -> (usize, Value) {
    (
        number,
        json!({ "metadata": { "filter_metadata": { "envoy.lb": labels } } }),
    )
}

fn level(priority: u32, endpoints: Vec<(usize, Value)>) -> Locality {
    Locality {
        zone: "z",
        priority,
        weight: None,
        endpoints,
    }
}

fn zone(zone: &'static str, weight: u32, endpoints: Vec<(usize, Value)>) -> Locality {
    Locality {
        zone,
        priority: 0,
        weight: Some(weight),
        endpoints,
    }
}

fn case(name: &'static str, localities: Vec<Locality>, shares: &'static [(usize, f64)]) -> Case {
    Case {
        name,
        cluster: json!({}),
        assignment: json!({}),
        localities,
        route: json!({ "cluster": name }),
        fault: None,
        shares,
    }
}

/// What a route asks of subsets.
fn asks(labels: Value) -> Value {
    json!({ "filter_metadata": { "envoy.lb": labels } })
}

/// Priorities with overprovisioning and panic.
fn priorities() -> Vec<Case> {
    let threshold = |percent: u32| json!({ "common_lb_config": { "healthy_panic_threshold": { "value": percent } } });
    let none_of_two = || vec![level(0, vec![sick(0), sick(1)])];
    vec![
        case(
            "all-well",
            vec![
                level(0, vec![healthy(0), heavy(1, 3)]),
                level(1, vec![healthy(2)]),
            ],
            &[(0, 0.25), (1, 0.75)],
        ),
        case(
            "spill",
            vec![
                level(0, vec![healthy(0), sick(1), healthy(2), sick(3)]),
                level(1, vec![healthy(4)]),
            ],
            &[(0, 0.35), (2, 0.35), (4, 0.3)],
        ),
        case(
            "failover",
            vec![
                level(0, vec![sick(0), sick(1)]),
                level(1, vec![sick(2)]),
                level(2, vec![healthy(3)]),
            ],
            &[(3, 1.0)],
        ),
        case(
            "gap",
            vec![
                level(1, vec![healthy(0), sick(1)]),
                level(4, vec![healthy(2)]),
            ],
            &[(0, 0.7), (2, 0.3)],
        ),
        Case {
            assignment: json!({ "policy": { "overprovisioning_factor": 100 } }),
            ..case(
                "no-overprovisioning",
                vec![
                    level(0, vec![healthy(0), healthy(1), healthy(2), sick(3)]),
                    level(1, vec![healthy(4)]),
                ],
                &[(0, 0.25), (1, 0.25), (2, 0.25), (4, 0.25)],
            )
        },
        case(
            "panic",
            vec![level(0, vec![healthy(0), sick(1), sick(2)])],
            &[(0, 1.0 / 3.0), (1, 1.0 / 3.0), (2, 1.0 / 3.0)],
        ),
        case(
            "total-panic",
            vec![
                level(0, vec![sick(0), sick(1), sick(2)]),
                level(1, vec![sick(3)]),
            ],
            &[(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)],
        ),
        case(
            "one-panics",
            // 1.4 × 1/3 is 46 %, and 1.4 × 1/2 is 70 %: together more than enough.
            vec![
                level(0, vec![healthy(0), sick(1), sick(2)]),
                level(1, vec![healthy(3), sick(4)]),
            ],
            &[(0, 0.46), (3, 0.54)],
        ),
        Case {
            cluster: threshold(30),
            ..case(
                "low-threshold",
                vec![level(0, vec![healthy(0), sick(1), sick(2)])],
                &[(0, 1.0)],
            )
        },
        Case {
            cluster: threshold(0),
            ..case("no-panic", none_of_two(), &[])
        },
        case(
            "one-of-two",
            vec![level(0, vec![healthy(0), sick(1)])],
            &[(0, 1.0)],
        ),
    ]
}

/// Localities by weight.
fn localities() -> Vec<Case> {
    let by_locality = || json!({ "common_lb_config": { "locality_weighted_lb_config": {} } });
    let zones = |first| vec![zone("a", 1, first), zone("b", 3, vec![healthy(3)])];
    let with = |name, localities, shares| Case {
        cluster: by_locality(),
        ..case(name, localities, shares)
    };
    vec![
        with(
            "zones",
            zones(vec![healthy(0), healthy(1)]),
            &[(0, 0.125), (1, 0.125), (3, 0.75)],
        ),
        // Half of it is out: 0.7 / 3.7.
        with(
            "sick-zone",
            zones(vec![healthy(0), sick(1)]),
            &[(0, 0.7 / 3.7), (3, 3.0 / 3.7)],
        ),
        with("dead-zone", zones(vec![sick(0)]), &[(3, 1.0)]),
        case(
            "weights-unused",
            zones(vec![healthy(0), healthy(1), healthy(2)]),
            &[(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)],
        ),
        with(
            "zones-without-weights",
            vec![
                level(0, vec![healthy(0)]),
                Locality {
                    zone: "b",
                    ..level(0, vec![healthy(1)])
                },
            ],
            &[(0, 0.5), (1, 0.5)],
        ),
    ]
}

/// Subsets by metadata.
fn subsets() -> Vec<Case> {
    let selectors = json!([{ "keys": ["version"] }, { "keys": ["version", "stage"], "fallback_policy": "ANY_ENDPOINT" }]);
    let config = move |fallback: &str| {
        json!({ "lb_subset_config": { "fallback_policy": fallback, "default_subset": { "version": "v2" },
            "subset_selectors": selectors } })
    };
    let endpoints = || {
        let labels = |version: &str, stage: &str| json!({ "version": version, "stage": stage });
        vec![level(
            0,
            vec![
                labelled(0, labels("v1", "prod")),
                labelled(1, labels("v1", "dev")),
                labelled(2, labels("v2", "prod")),
                labelled(3, json!({})),
            ],
        )]
    };
    let with = |name: &'static str, fallback: &str, asked: Value, shares| Case {
        cluster: config(fallback),
        route: json!({ "cluster": name, "metadata_match": asks(asked) }),
        ..case(name, endpoints(), shares)
    };
    let gone = || json!({ "version": "v3" });
    let all: &[(usize, f64)] = &[(0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25)];
    let part = |labels: Value, weight: u32| json!({ "name": "canary", "weight": weight, "metadata_match": asks(labels) });
    vec![
        with(
            "v1",
            "NO_FALLBACK",
            json!({ "version": "v1" }),
            &[(0, 0.5), (1, 0.5)],
        ),
        with(
            "v1-prod",
            "NO_FALLBACK",
            json!({ "stage": "prod", "version": "v1" }),
            &[(0, 1.0)],
        ),
        with("refused", "NO_FALLBACK", gone(), &[]),
        with("any", "ANY_ENDPOINT", gone(), all),
        with("default", "DEFAULT_SUBSET", gone(), &[(2, 1.0)]),
        with(
            "unknown-keys",
            "DEFAULT_SUBSET",
            json!({ "stage": "prod" }),
            &[(2, 1.0)],
        ),
        with(
            "of-the-selector",
            "NO_FALLBACK",
            json!({ "stage": "qa", "version": "v1" }),
            all,
        ),
        Case {
            route: json!({ "cluster": "unasked" }),
            ..with("unasked", "NO_FALLBACK", gone(), &[])
        },
        Case {
            route: json!({ "metadata_match": asks(json!({ "stage": "prod" })), "weighted_clusters": { "clusters": [
                part(json!({ "version": "v1" }), 9), part(json!({ "version": "v2" }), 1) ] } }),
            ..with("canary", "NO_FALLBACK", gone(), &[(0, 0.9), (2, 0.1)])
        },
    ]
}

/// Refusals and delays on purpose.
fn faults() -> Vec<Case> {
    let with = |name, fault: Value, shares| Case {
        fault: Some(fault),
        ..case(name, vec![level(0, vec![healthy(0)])], shares)
    };
    let abort = |share: Value| json!({ "http_status": 503, "percentage": share });
    let percent = |numerator: u32| json!({ "numerator": numerator });
    let delay = json!({ "fixed_delay": "0.001s", "percentage": percent(50) });
    let in_ten_thousand = json!({ "numerator": 250, "denominator": "TEN_THOUSAND" });
    let header = |value: &str| json!([{ "name": "x-none", "string_match": { "exact": value } }]);
    vec![
        with(
            "a-third",
            json!({ "abort": abort(percent(33)) }),
            &[(0, 0.67)],
        ),
        with(
            "fine",
            json!({ "delay": delay, "abort": abort(in_ten_thousand) }),
            &[(0, 0.975)],
        ),
        with(
            "nobody",
            json!({ "abort": { "http_status": 503 } }),
            &[(0, 1.0)],
        ),
        with(
            "spared",
            json!({ "abort": abort(percent(100)), "headers": header("1") }),
            &[(0, 1.0)],
        ),
        with(
            "full",
            json!({ "abort": abort(percent(100)), "max_active_faults": 0 }),
            &[(0, 1.0)],
        ),
    ]
}

/// A listener that has the filter of faults.
fn with_faults(mut listener: Value) -> Value {
    let hcm = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let filter = json!({ "name": FAULT, "typed_config": { "@type": FAULT_TYPE } });
    hcm["http_filters"]
        .as_array_mut()
        .unwrap()
        .insert(0, filter);
    listener
}

const FAULT: &str = "envoy.filters.http.fault";
const FAULT_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";

/// Merges the keys of a map into another.
fn merged(mut into: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    into.as_object_mut().unwrap().extend(more);
    into
}

fn assignment(case: &Case, origins: &[Origin]) -> Value {
    let endpoint = |(number, said): &(usize, Value)| {
        let address = origins[*number].address;
        let socket = json!({ "address": address.ip().to_string(), "port_value": address.port() });
        merged(
            json!({ "endpoint": { "address": { "socket_address": socket } } }),
            said,
        )
    };
    let localities = case.localities.iter().map(|locality| {
        let weight = locality
            .weight
            .map(|weight| json!({ "load_balancing_weight": weight }));
        let endpoints: Vec<Value> = locality.endpoints.iter().map(endpoint).collect();
        let plain = json!({ "locality": { "zone": locality.zone }, "priority": locality.priority,
            "lb_endpoints": endpoints });
        merged(plain, &weight.unwrap_or_else(|| json!({})))
    });
    let localities: Vec<Value> = localities.collect();
    merged(
        json!({ "cluster_name": case.name, "endpoints": localities }),
        &case.assignment,
    )
}

/// Everything that both proxies are told.
fn world(cases: &[Case], origins: &[Origin], judge: SocketAddr) -> World {
    let of_cases = cases.iter().map(|case| {
        let path = format!("/{}", case.name);
        let mut route = json!({ "match": { "path": path }, "route": case.route });
        if let Some(fault) = &case.fault {
            let fault = merged(json!({ "@type": FAULT_TYPE }), fault);
            route["typed_per_filter_config"] = json!({ FAULT: fault });
        }
        route
    });
    let ours = listener("web", "127.0.0.1:0".parse().unwrap(), "r");
    let mut world = World::default()
        .with("listener", 1, with_faults(listener("judge", judge, "r")))
        .with("listener", 1, with_faults(ours))
        .with("route", 1, routes("r", of_cases.collect()));
    for case in cases {
        let described = cluster(case.name);
        world = world
            .with("cluster", 1, merged(described, &case.cluster))
            .with("endpoint", 1, assignment(case, origins));
    }
    world
}

/// Where requests went, by number of the endpoint; the last one counts those that were refused.
fn counts(client: &mut Client, case: &Case) -> [usize; ORIGINS + 1] {
    let mut counts = [0; ORIGINS + 1];
    for _ in 0..REQUESTS {
        let response = client.get(&format!("/{}", case.name));
        match response.status {
            200 => counts[response.text().parse::<usize>().unwrap()] += 1,
            503 => counts[ORIGINS] += 1,
            other => panic!("{}: {other}", case.name),
        }
    }
    counts
}

/// Goal: load goes over priorities, localities and subsets, and faults hit, as in Envoy, and both as is worked out by hand (S3, and the
/// floor of steering). Method: one control plane, both proxies, two thousand requests in each case; each share is within
/// five standard deviations of what is expected, and nobody else gets anything.
#[test]
fn envoy_agrees_about_endpoints() {
    let Some(program) = peer::envoy() else { return };
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let origins: Vec<Origin> = (0..ORIGINS)
        .map(|n| Origin::named(&n.to_string()))
        .collect();
    let cases = [priorities(), localities(), subsets(), faults()].concat();
    let judge = Server::start(|folder, address| {
        plane.serve(&world(&cases, &origins, address));
        envoy(plane.address, "DELTA_GRPC", &program, folder)
    });
    let setup = Setup {
        unlogged: true,
        ..Setup::default()
    };
    let config = format!("xds: {{ addresses: [\"{}\"] }}\n", plane.address);
    let proxy = Proxy::start_with(&setup, config);
    let web = listening(&proxy, "web");
    assert_eq!(plane.errors(), Vec::<String>::new());
    for case in &cases {
        for (who, address) in [("tidegate", web), ("envoy", judge.address)] {
            let counts = counts(&mut Client::connect(address), case);
            let mut expected = [0.0; ORIGINS + 1];
            case.shares
                .iter()
                .for_each(|(number, share)| expected[*number] = *share);
            // Thirds do not sum to one in binary.
            let refused = 1.0 - expected.iter().sum::<f64>();
            expected[ORIGINS] = (refused * 1e9).round() / 1e9;
            for (count, share) in counts.iter().zip(expected) {
                let n = REQUESTS as f64;
                let deviation = (n * share * (1.0 - share)).sqrt();
                let off = (*count as f64 - n * share).abs();
                assert!(
                    off <= 5.0 * deviation,
                    "{} by {who}: {counts:?}, not {expected:?}",
                    case.name
                );
            }
        }
    }
}

/// Goal: copies are what Envoy's are: how many, to which host, with which body. Method: one control plane, both proxies, a
/// route that is rewritten and mirrored in full, and one that is mirrored for nobody; the origin that gets copies tells.
#[test]
fn envoy_agrees_about_copies() {
    const COPIES: usize = 50;
    let Some(program) = peer::envoy() else { return };
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let (main, shadow) = (Origin::named("main"), Origin::named("shadow"));
    let mirrored = |path: &str, share: u32| {
        json!({ "match": { "prefix": path }, "route": { "cluster": "main", "prefix_rewrite": "/new",
            "request_mirror_policies": [{ "cluster": "shadow",
                "runtime_fraction": { "default_value": { "numerator": share } } }] } })
    };
    let judge = Server::start(|folder, address| {
        let ours = listener("web", "127.0.0.1:0".parse().unwrap(), "r");
        let of_routes = json!([mirrored("/all", 100), mirrored("/none", 0)]);
        let mut world = World::default()
            .with("listener", 1, listener("judge", address, "r"))
            .with("listener", 1, ours)
            .with("route", 1, routes("r", of_routes));
        for (name, origin) in [("main", &main), ("shadow", &shadow)] {
            let assignment = endpoints(name, &[origin.address]);
            world = world
                .with("cluster", 1, cluster(name))
                .with("endpoint", 1, assignment);
        }
        plane.serve(&world);
        envoy(plane.address, "DELTA_GRPC", &program, folder)
    });
    let proxy = Proxy::start(format!("xds: {{ addresses: [\"{}\"] }}\n", plane.address));
    let web = listening(&proxy, "web");
    assert_eq!(plane.errors(), Vec::<String>::new());
    let mut seen = Vec::new();
    for address in [web, judge.address] {
        let before = shadow.requests().len();
        let mut client = Client::connect(address);
        for number in 0..COPIES {
            let request = |path: &str| {
                let body = format!("body {number}");
                let length = body.len();
                format!(
                    "POST {path}/x HTTP/1.1\r\nHost: pay.example:80\r\nContent-Length: {length}\r\n\r\n{body}"
                )
            };
            assert_eq!(client.exchange(request("/none")).text(), "main");
            assert_eq!(client.exchange(request("/all")).text(), "main");
        }
        shadow.wait_for_requests(before + COPIES);
        let copies = shadow.requests().split_off(before);
        let copies = copies.into_iter().map(|copy| {
            let host = copy.head.get("host").unwrap().to_owned();
            let body = String::from_utf8(copy.body.clone()).unwrap();
            (copy.head.target().to_owned(), host, body)
        });
        let mut copies: Vec<_> = copies.collect();
        copies.sort();
        seen.push(copies);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(
        (seen[0].len(), &*seen[0][0].1),
        (COPIES, "pay.example-shadow:80")
    );
}
