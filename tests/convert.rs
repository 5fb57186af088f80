//! A bootstrap of Envoy, converted: the file passes `check`, and sends the same requests to the same clusters as the Envoy
//! does that it was made from.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use common::{
    Client, Origin, Proxy,
    center::Folder,
    control_plane::{endpoints, listener, routes},
    peer,
    peer::Server,
};
use serde_json::{Value, json};

const REQUESTS: usize = 2_000;

fn tidegate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .output()
        .unwrap()
}

/// xorshift: the same run each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Routes of several hosts, by path, header and parameter, with rewrites, redirects and answers.
fn drawn(random: &mut Random) -> Value {
    let mut all = Vec::new();
    for number in 0..20 {
        let mut condition = match random.below(4) {
            0 => json!({ "prefix": format!("/p{number}") }),
            1 => json!({ "path": format!("/p{number}") }),
            2 => json!({ "path_separated_prefix": format!("/p{number}") }),
            _ => json!({ "safe_regex": { "regex": format!("/p{}[0-9]*", random.below(10)) } }),
        };
        if random.below(3) == 0 {
            let value = random.below(3).to_string();
            condition["headers"] = json!([{ "name": "x", "string_match": { "exact": value } }]);
        }
        let cluster = ["a", "b"][random.below(2)];
        let mut route = match random.below(4) {
            0 => json!({ "redirect": { "path_redirect": "/there" } }),
            1 => {
                json!({ "direct_response": { "status": 210, "body": { "inline_string": format!("n {number}") } } })
            }
            _ => json!({ "route": { "cluster": cluster, "timeout": "7s" } }),
        };
        route["match"] = condition;
        all.push(route);
    }
    all.push(json!({ "match": { "prefix": "/" }, "route": { "cluster": "a" } }));
    Value::Array(all)
}

/// Goal: what is converted is a good configuration, short enough to be read, and does the same. Method: a bootstrap with
/// generated routes, as YAML and as JSON; Envoy by the bootstrap beside a proxy by the result; generated requests.
#[test]
fn envoy_agrees_about_what_is_converted() {
    let Some(program) = peer::envoy() else { return };
    let folder = Folder::new();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let origins = ["a", "b"].map(|name| (name, Origin::named(name)));
    let mut file = folder.file("envoy.yaml");
    let judge = Server::start(|own, address| {
        let mut web = listener("web", address, "r");
        let hcm = &mut web["filter_chains"][0]["filters"][0]["typed_config"];
        hcm.as_object_mut().unwrap().remove("rds");
        hcm["route_config"] = routes("r", drawn(&mut random));
        let clusters = origins.iter().map(|(name, origin)| {
            let mut fixed = json!({ "name": name, "type": "STATIC", "connect_timeout": "2s" });
            fixed["load_assignment"] = endpoints(name, &[origin.address]);
            fixed
        });
        let bootstrap = json!({
            "node": { "id": "judge", "cluster": "edge" },
            "static_resources": { "listeners": [web], "clusters": clusters.collect::<Vec<_>>() },
        });
        file = own.join("envoy.yaml");
        peer::envoy_command(&program, own, &bootstrap.to_string())
    });
    let file = file.display().to_string();
    let as_json = tidegate(&["convert", "--format", "json", &file]);
    assert!(as_json.status.success(), "{as_json:?}");
    let converted: Value = serde_json::from_slice(&as_json.stdout).unwrap();
    assert_eq!(converted["node"], json!({ "id": "judge", "app": "edge" }));
    assert_eq!(converted["clusters"]["a"]["connect_timeout"], "2s");
    assert_eq!(converted["shards"], Value::Null, "a default");

    let as_yaml = tidegate(&["convert", &file]);
    assert!(as_yaml.status.success(), "{as_yaml:?}");
    let path = folder.file("tidegate.yaml");
    fs::write(&path, &as_yaml.stdout).unwrap();
    let check = tidegate(&["check", &path.display().to_string()]);
    assert!(
        check.status.success(),
        "{check:?}\n{}",
        String::from_utf8_lossy(&as_yaml.stdout)
    );

    let mut listeners = converted["listeners"].clone();
    listeners["web"]["bind"] = json!("127.0.0.1:0");
    let proxy = Proxy::start(format!(
        "listeners: {listeners}\nclusters: {}\n",
        converted["clusters"]
    ));
    let (mut ours, mut theirs) = (proxy.client(), Client::connect(judge.address));
    let mut met = std::collections::BTreeSet::new();
    for number in 0..REQUESTS {
        let (path, header) = (random.below(40), random.below(4));
        let tail = ["", "/", "/x", "?q=1"][random.below(4)];
        let request = format!("GET /p{path}{tail} HTTP/1.1\r\nHost: h\r\nX: {header}\r\n\r\n");
        let (got, expected) = (ours.exchange(&request), theirs.exchange(&request));
        let seen = |one: &common::Response| {
            (
                one.status,
                one.text(),
                one.head.get("location").map(str::to_owned),
            )
        };
        assert_eq!(seen(&got), seen(&expected), "request {number}: {request}");
        met.insert(got.status);
    }
    assert!(met.len() > 2, "{met:?}");
}

/// Goal: what cannot be converted is named with its path and nothing is written, unless a part of it is asked for.
/// Method: a bootstrap with one field that is not supported.
#[test]
fn what_is_left_out_is_named() {
    let folder = Folder::new();
    let file = folder.file("envoy.yaml");
    fs::write(
        &file,
        "static_resources: { clusters: [{ name: a, type: STRICT_DNS, load_assignment: { endpoints: [{ lb_endpoints: [
           { endpoint: { address: { socket_address: { address: a.internal, port_value: 80 } } } }] }] } },
           { name: b, upstream_bind_config: {} }] }\n",
    )
    .unwrap();
    let run = |more: &[&str], file: &Path| {
        let file = file.display().to_string();
        tidegate(&[&["convert"], more, &[&file]].concat())
    };
    let nothing = run(&[], &file);
    assert_eq!(nothing.status.code(), Some(3));
    assert!(nothing.stdout.is_empty());
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert!(
        said.contains("not converted: static_resources.clusters[1].upstream_bind_config: "),
        "{said}"
    );
    let partial = run(&["--partial"], &file);
    assert_eq!(partial.status.code(), Some(5));
    let written = String::from_utf8(partial.stdout).unwrap();
    assert!(
        written.contains("\n  a:\n") && !written.contains("  b:"),
        "{written}"
    );
    assert_eq!(run(&[], &folder.file("none")).status.code(), Some(3));
}
