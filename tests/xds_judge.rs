//! A stock Envoy as the judge: it gets the same resources from the same control plane, and generated requests go to
//! the same clusters in both.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{
    Client, Origin, Proxy,
    control_plane::{ControlPlane, World, cluster, endpoints, envoy, listener, listening},
    peer,
    peer::Server,
    proxy::Setup,
};
use serde_json::{Value, json};

/// Requests of a run.
const REQUESTS: usize = 10_000;

/// Clusters, and so origins.
const CLUSTERS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// xorshift: the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Virtual hosts with every kind of match and action that both have.
fn routes() -> Value {
    let to = |cluster: &str| json!({ "cluster": cluster });
    let matching = |path: Value, cluster: &str| json!({ "match": path, "route": to(cluster) });
    let header = |name: &str, condition: Value| {
        let mut header = condition;
        header["name"] = name.into();
        json!({ "prefix": "/", "headers": [header] })
    };
    json!({ "name": "r", "ignore_port_in_host_matching": true, "virtual_hosts": [
        { "name": "paths", "domains": ["paths.example"], "routes": [
            matching(json!({ "path": "/exact" }), "a"),
            matching(json!({ "path": "/Case", "case_sensitive": false }), "b"),
            matching(json!({ "path_separated_prefix": "/seg" }), "c"),
            matching(json!({ "prefix": "/pre" }), "d"),
            matching(json!({ "safe_regex": { "regex": "/v[0-9]+/x" } }), "e"),
            { "match": { "prefix": "/cut/" }, "route": { "cluster": "a", "prefix_rewrite": "/" } },
            { "match": { "prefix": "/wide" }, "route": { "cluster": "b", "prefix_rewrite": "/new" } },
            { "match": { "safe_regex": { "regex": "/re/([a-z]+)/(.*)" } }, "route": { "cluster": "c",
                "regex_rewrite": { "pattern": { "regex": "/re/([a-z]+)/(.*)" }, "substitution": "/\\2/\\1" } } },
            { "match": { "path": "/host" }, "route": { "cluster": "d", "host_rewrite_literal": "inner.example" } },
            { "match": { "prefix": "/away" }, "redirect": { "https_redirect": true, "path_redirect": "/there", "response_code": "FOUND" } },
            { "match": { "prefix": "/here" }, "direct_response": { "status": 299, "body": { "inline_string": "direct" } } },
        ] },
        { "name": "headers", "domains": ["*.headers.example", "headers.example"], "routes": [
            matching(header("x-e", json!({ "string_match": { "exact": "v" } })), "a"),
            matching(header("x-p", json!({ "string_match": { "prefix": "pre" } })), "b"),
            matching(header("x-s", json!({ "string_match": { "suffix": "suf", "ignore_case": true } })), "c"),
            matching(header("x-r", json!({ "string_match": { "safe_regex": { "regex": "[0-9]{2,3}" } } })), "d"),
            matching(header("x-absent", json!({ "present_match": true, "invert_match": true })), "e"),
            matching(header(":method", json!({ "string_match": { "exact": "POST" } })), "b"),
            matching(json!({ "prefix": "/", "query_parameters": [{ "name": "q", "string_match": { "exact": "1" } }] }), "a"),
            matching(json!({ "prefix": "/", "query_parameters": [{ "name": "p", "present_match": true }] }), "c"),
        ] },
        { "name": "edits", "domains": ["edits.*"],
          "request_headers_to_add": [{ "header": { "key": "x-added", "value": "host" } }],
          "routes": [ { "match": { "prefix": "/" }, "route": to("e"), "request_headers_to_remove": ["x-secret"],
            "request_headers_to_add": [{ "header": { "key": "x-set", "value": "100%%" }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }] } ] },
        { "name": "empty", "domains": ["empty.example"] },
        { "name": "rest", "domains": ["*"], "routes": [ matching(json!({ "prefix": "/" }), "d") ] },
    ] })
}

/// A request that may meet any of the routes.
fn request(random: &mut Random) -> String {
    let host = random.one(&[
        "paths.example",
        "paths.example",
        "PATHS.example",
        "paths.example:8080",
        "headers.example",
        "headers.example",
        "x.headers.example",
        "y.x.headers.example",
        "edits.example",
        "edits.org",
        "empty.example",
        "other.example",
    ]);
    let path = random.one(&[
        "/",
        "/exact",
        "/exact/",
        "/exactly",
        "/case",
        "/CASE",
        "/Case?x=1",
        "/seg",
        "/seg/",
        "/seg/a",
        "/segment",
        "/pre",
        "/prefix",
        "/pre/a",
        "/v1/x",
        "/v12/x",
        "/v/x",
        "/v1/x/y",
        "/cut/",
        "/cut/a/b",
        "/cut",
        "/wide",
        "/wider/a",
        "/re/abc/d/e?q=1",
        "/re/ABC/d",
        "/host",
        "/away",
        "/away/x?y=1",
        "/here",
        "/?q=1",
        "/a?p",
        "/a?q=2&p=3",
        "/a?q=1&p=",
    ]);
    let method = random.one(&["GET", "GET", "POST", "DELETE"]);
    let mut headers = String::new();
    for (name, values) in [
        ("x-e", &["v", "V", "vv", ""][..]),
        ("x-p", &["prefix", "pre", "Pre"]),
        ("x-s", &["SUF", "a-suf", "suffix"]),
        ("X-R", &["12", "123", "1", "1234", "12a"]),
        ("x-absent", &["1", "1", "1", "1", "1", "1"]),
        ("x-secret", &["s"]),
        ("x-set", &["client"]),
    ] {
        if random.below(3) == 0 || (name == "x-absent" && random.below(6) != 0) {
            headers += &format!("{name}: {}\r\n", random.one(values));
        }
    }
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: 0\r\n\r\n")
}

/// What came of a request: the status, and where it went as what; headers that each proxy adds of its own are left out.
fn outcome(client: &mut Client, request: &str) -> String {
    let response = client.exchange(request);
    let location = response.head.get("location").unwrap_or("");
    let body = response.text();
    let own = [
        "x-request-id",
        "x-forwarded-proto",
        "x-envoy-",
        "x-forwarded-for",
        "connection",
        "via",
    ];
    let mut lines: Vec<String> = body
        .lines()
        .map(str::to_ascii_lowercase)
        .filter(|line| !line.is_empty() && !own.iter().any(|own| line.starts_with(own)))
        .collect();
    // The order of fields of different names means nothing.
    if let Some((_, fields)) = lines.split_first_mut() {
        fields.sort();
    }
    // A body of Envoy's own for an answer that it gives itself is its own business.
    if response.status >= 400 {
        lines.clear();
    }
    format!("{} {location} {}", response.status, lines.join("|"))
}

/// Goal: the same resources mean the same to Envoy and here: cluster, rewritten path, host and headers, or the answer.
/// Method: one control plane, both proxies, ten thousand generated requests one by one; origins say who they are and
/// what they got.
#[test]
fn envoy_agrees_where_requests_go() {
    let Some(program) = peer::envoy() else { return };
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let origins = CLUSTERS.map(|name| {
        Origin::start(move |peer| {
            while let Some(request) = peer.next_request()? {
                let got = format!("{name} {}", request.head.raw);
                peer.wire.send(format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{got}",
                    got.len()
                ))?;
            }
            Ok(())
        })
    });
    let judge = Server::start(|folder, address| {
        let mut world = World::default()
            .with("listener", 1, listener("judge", address, "r"))
            .with(
                "listener",
                1,
                listener("web", "127.0.0.1:0".parse().unwrap(), "r"),
            )
            .with("route", 1, routes());
        for (name, origin) in CLUSTERS.iter().zip(&origins) {
            world = world.with("cluster", 1, cluster(name)).with(
                "endpoint",
                1,
                endpoints(name, &[origin.address]),
            );
        }
        plane.serve(&world);
        envoy(plane.address, "DELTA_GRPC", &program, folder)
    });
    let setup = Setup {
        unlogged: true,
        ..Setup::default()
    };
    let proxy = Proxy::start_with(
        &setup,
        format!("xds: {{ addresses: [\"{}\"] }}\n", plane.address),
    );
    let web = listening(&proxy, "web");
    assert_eq!(plane.errors(), Vec::<String>::new());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut ours, mut theirs) = (Client::connect(web), Client::connect(judge.address));
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for number in 0..REQUESTS {
        let request = request(&mut random);
        let (got, expected) = (outcome(&mut ours, &request), outcome(&mut theirs, &request));
        assert_eq!(got, expected, "request {number}:\n{request}");
        let kind: String = got
            .split('|')
            .next()
            .unwrap()
            .split(' ')
            .take(3)
            .collect::<Vec<_>>()
            .join(" ");
        *seen.entry(kind).or_default() += 1;
    }
    println!("{seen:?}");
    for cluster in CLUSTERS {
        assert!(
            seen.keys()
                .any(|kind| kind.starts_with(&format!("200  {cluster}"))),
            "{seen:?}"
        );
    }
    for status in ["299", "302", "404"] {
        assert!(seen.keys().any(|kind| kind.starts_with(status)), "{seen:?}");
    }
}

/// Goal: weights mean the same shares. Method: four thousand requests to each over a split of three; both are within
/// five standard deviations of what was said.
#[test]
fn envoy_agrees_about_splits() {
    let Some(program) = peer::envoy() else { return };
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let origins = ["a", "b", "c"].map(Origin::named);
    let split = json!([{ "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": [
        { "name": "a", "weight": 1 }, { "name": "b", "weight": 2 }, { "name": "c", "weight": 5 } ] } } }]);
    let judge = Server::start(|folder, address| {
        let mut world = World::default()
            .with("listener", 1, listener("judge", address, "r"))
            .with(
                "listener",
                1,
                listener("web", "127.0.0.1:0".parse().unwrap(), "r"),
            )
            .with("route", 1, common::control_plane::routes("r", split));
        for (name, origin) in ["a", "b", "c"].iter().zip(&origins) {
            world = world.with("cluster", 1, cluster(name)).with(
                "endpoint",
                1,
                endpoints(name, &[origin.address]),
            );
        }
        plane.serve(&world);
        envoy(plane.address, "DELTA_GRPC", &program, folder)
    });
    let proxy = Proxy::start(format!("xds: {{ addresses: [\"{}\"] }}\n", plane.address));
    let web = listening(&proxy, "web");
    const DRAWN: usize = 4_000;
    for address in [web, judge.address] {
        let mut client = Client::connect(address);
        let mut counts = [0_usize; 3];
        for _ in 0..DRAWN {
            let who = client.get("/").text();
            counts["abc".find(&who).unwrap()] += 1;
        }
        for (count, share) in counts.iter().zip([0.125, 0.25, 0.625]) {
            let expected = DRAWN as f64 * share;
            let deviation = (expected * (1.0 - share)).sqrt();
            assert!(
                (*count as f64 - expected).abs() < 5.0 * deviation,
                "{address}: {counts:?}"
            );
        }
    }
}
