//! A center as control plane: what stands in its directory is what proxies do, our own, a stock Envoy, and a client that
//! somebody else wrote.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{fs, net::SocketAddr, process::Command};

use common::{
    Origin, Proxy,
    center::{Center, Folder},
    client::get,
    control_plane::{World, cluster, endpoints, envoy, listener, listening, routes, to},
    eventually,
    peer::{self, Server},
    proxy::Setup,
    resources::{Resources, Stranger, node, wait_in_step},
};
use serde_json::{Value, json};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A proxy `id` that gets all but its own name from the center.
fn proxy(center: &Center, id: &str, protocol: &str) -> Proxy {
    let setup = Setup {
        shards: Some(1),
        ..Setup::default()
    };
    let address = center.listen;
    Proxy::start_with(
        &setup,
        format!(
            "node: {{ id: {id}, app: edge, zone: hz-a }}\nxds: {{ addresses: [\"{address}\"], protocol: {protocol} }}\n"
        ),
    )
}

/// A listener `web`, whose routes lead to the cluster `name` with this endpoint.
fn world(name: &str, endpoint: SocketAddr) -> World {
    world_on(ANYWHERE, name, endpoint)
}

fn world_on(bind: SocketAddr, name: &str, endpoint: SocketAddr) -> World {
    World::default()
        .with("cluster", 1, cluster(name))
        .with("endpoint", 1, endpoints(name, &[endpoint]))
        .with("listener", 1, listener("web", bind, "r"))
        .with("route", 1, routes("r", to(name)))
}

#[track_caller]
fn reload(center: &Center) {
    let answer = center.ask("POST", "/control/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Waits until a request to `web` is answered by `name`, without an error on the way.
#[track_caller]
fn wait_answered(web: SocketAddr, name: &str) {
    eventually(&format!("an answer by {name}"), || {
        let answer = get(web, "/");
        assert_eq!(answer.status, 200);
        (answer.text() == name).then_some(())
    });
}

fn ctl(center: &Center, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["ctl", "--admin", &center.admin.to_string(), "center"])
        .args(words)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Goal: what stands in the directory is served, by both variants, and followed without a failed request when it
/// changes; what is known of each node is shown. Method: a file is replaced, so that routes move to another cluster.
#[test]
fn our_proxies_follow_the_directory() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    for protocol in ["delta", "state_of_the_world"] {
        let folder = Folder::new();
        let resources = Resources::new(&folder, &world("a", a.address));
        let center = resources.center(&folder, &[]);
        let proxy = proxy(&center, "gw-1", protocol);
        let web = listening(&proxy, "web");
        wait_answered(web, "a");
        let known = wait_in_step(&center, "gw-1");
        assert_eq!(known["protocol"], protocol);
        assert_eq!(
            (&known["cluster"], &known["zone"]),
            (&json!("edge"), &json!("hz-a"))
        );
        assert!(known["agent"].as_str().unwrap().starts_with("tidegate "));
        // Nobody asks for it: the directory is watched.
        resources.write(&world("b", b.address));
        wait_answered(web, "b");
        let after = wait_in_step(&center, "gw-1");
        assert_ne!(after["served"], known["served"]);
        let (is_done, text) = ctl(&center, &[]);
        assert!(
            is_done && text.contains("node       gw-1 (tidegate "),
            "{text}"
        );
        assert_eq!(center.metric("tidegate_center_xds_streams"), 1);
        assert_eq!(center.metric("tidegate_center_xds_streams_behind"), 0);
        assert_eq!(center.metric("tidegate_center_xds_resources"), 4);
        assert_eq!(center.metric("tidegate_center_xds_refused_total"), 0);
        assert!(center.metric("tidegate_center_xds_acknowledged_total") >= 7);
    }
}

/// Goal: a directory with something wrong in it changes nothing, and what is wrong is told with its place; a center does
/// not start with one. Method: a field that does not exist, the same name twice, and a text that is none.
#[test]
fn bad_files_change_nothing() {
    let folder = Folder::new();
    let origin = Origin::named("a");
    let resources = Resources::new(&folder, &world("a", origin.address));
    let center = resources.center(&folder, &[]);
    let version = center.json("/control")["stable"]["version"].clone();
    let typed = "'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster";
    for (text, place) in [
        (
            format!("[{{ {typed}, name: x }}, {{ {typed}, name: two, nam: z }}]"),
            "more.yaml: resource 2 `two`: ",
        ),
        (
            format!("{{ {typed}, name: a }}"),
            "more.yaml: cluster `a` stands in all.yaml, too",
        ),
        ("a: [".to_owned(), "more.yaml: "),
    ] {
        resources.file("more.yaml", &text);
        let answer = center.ask("POST", "/control/reload", "");
        assert_eq!(answer.status, 409);
        assert!(answer.text().contains(place), "{}", answer.text());
        let view = center.json("/control");
        assert_eq!(view["stable"]["version"], version);
        let problems = view["source"]["problems"].as_array().unwrap();
        assert!(problems[0].as_str().unwrap().starts_with(place));
        let (is_done, text) = ctl(&center, &["reload"]);
        assert!(!is_done && text.contains(place), "{text}");
    }
    assert!(center.metric("tidegate_center_xds_loads_refused_total") >= 6);
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args([
            "center",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--resources",
        ])
        .arg(resources.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("more.yaml: "));
    resources.remove("more.yaml");
    reload(&center);
    let view = center.json("/control");
    assert_eq!(view["source"]["problems"], json!([]));
    assert_eq!(view["stable"]["version"], version);
}

/// Goal: a stock Envoy is served by both variants, follows a change without a failed request, and what it refuses is told
/// with its own reason, while what came with it is taken. Method: its routes move to another cluster; then a cluster with
/// a time-out that is negative comes beside a good one.
#[test]
fn envoy_follows_the_directory() {
    let Some(program) = peer::envoy() else {
        return;
    };
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    for api in ["DELTA_GRPC", "GRPC"] {
        let folder = Folder::new();
        let resources = Resources::new(&folder, &World::default());
        let center = resources.center(&folder, &[]);
        let server = Server::start(|its, address| {
            resources.write(&world_on(address, "a", a.address));
            reload(&center);
            envoy(center.listen, api, &program, its)
        });
        wait_answered(server.address, "a");
        let known = wait_in_step(&center, "judge");
        assert!(
            known["agent"].as_str().unwrap().starts_with("envoy"),
            "{known}"
        );
        let moved = world_on(server.address, "b", b.address);
        resources.write(&moved);
        reload(&center);
        wait_answered(server.address, "b");
        wait_in_step(&center, "judge");
        let mut bad = cluster("bad");
        bad["connect_timeout"] = "-1s".into();
        let world = moved
            .with("cluster", 1, bad)
            .with("cluster", 1, cluster("good"));
        resources.write(&world.with("endpoint", 1, endpoints("good", &[a.address])));
        reload(&center);
        let error = eventually("a refusal by Envoy", || {
            let node = node(&center, "judge");
            let types = node["types"].as_array().unwrap().iter();
            let clusters = types.clone().find(|one| one["type"] == "cluster")?.clone();
            let is_settled = clusters["unanswered"] == 0;
            let is_alone = api == "GRPC" || clusters["refused"][0]["name"] == "bad";
            (is_settled && is_alone).then(|| clusters["error"].as_str().map(str::to_owned))?
        });
        assert!(error.contains("Expected positive duration"), "{error}");
        if api == "DELTA_GRPC" {
            // All but the bad one: it is asked for the endpoints of the good one alone.
            eventually("the endpoints of the good one", || {
                let node = node(&center, "judge");
                let types = node["types"].as_array().unwrap().iter();
                let endpoints = types.clone().find(|one| one["type"] == "endpoint")?;
                (endpoints["names"] == 2 && endpoints["settled"] == true).then_some(())
            });
        }
        wait_answered(server.address, "b");
    }
}

/// Goal: a client by another's gRPC and another's messages gets what the protocol promises. Method: all, some by name,
/// what changes, what is no more, a refusal; both variants.
#[test]
fn strangers_are_served() {
    let here: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let folder = Folder::new();
    let first = world("a", here).with("cluster", 1, cluster("b"));
    let resources = Resources::new(&folder, &first);
    let center = resources.center(&folder, &[]);
    let Some(mut delta) = Stranger::start(&center, "delta", &["d"]) else {
        return;
    };
    let mut all = Stranger::start(&center, "state_of_the_world", &["s"]).unwrap();
    delta.ask(json!({ "kind": "cluster" }));
    all.ask(json!({ "kind": "cluster" }));
    let (of_delta, of_all) = (delta.next(), all.next());
    assert_eq!(
        (&of_delta["names"], &of_all["names"]),
        (&json!(["a", "b"]), &json!(["a", "b"]))
    );
    delta.ask(json!({ "kind": "endpoint", "resource_names_subscribe": ["a", "none"] }));
    let endpoint = delta.next();
    assert_eq!(
        (&endpoint["names"], &endpoint["removed"]),
        (&json!(["a"]), &json!(["none"]))
    );
    all.ask(json!({ "kind": "endpoint", "resource_names": ["a"] }));
    assert_eq!(all.next()["names"], json!(["a"]));
    // `b` changes, `c` comes and is bad, `a` goes.
    let mut refused = cluster("c");
    refused["alt_stat_name"] = "refuse".into();
    let mut changed = cluster("b");
    changed["connect_timeout"] = "2s".into();
    resources.write(
        &World::default()
            .with("cluster", 1, changed)
            .with("cluster", 1, refused),
    );
    reload(&center);
    let mut told: Vec<Value> = (0..4).map(|_| delta.next()).collect();
    assert_eq!(told[0]["names"], json!(["b", "c"]));
    told.sort_by_key(|one| (one["removed"].to_string(), one["names"].to_string()));
    let told: Vec<Value> = told
        .iter()
        .map(|one| json!([one["names"], one["removed"], one["refused"]]))
        .collect();
    let expected = [
        json!([[], ["a"], false]),
        json!([["b", "c"], [], true]),
        json!([["b"], [], false]),
        json!([["c"], [], true]),
    ];
    assert_eq!(told, expected);
    let whole = all.next();
    assert_eq!(
        (&whole["names"], &whole["refused"]),
        (&json!(["a", "b", "c"]), &json!(true))
    );
    let status = eventually("the refusal of c", || {
        let types = node(&center, "d")["types"].clone();
        let clusters = types
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["type"] == "cluster")?
            .clone();
        (clusters["refused"][0]["name"] == "c").then_some(clusters)
    });
    assert_eq!(status["refused"][0]["error"], "refused by the test");
    let (_, text) = ctl(&center, &[]);
    assert!(
        text.contains("  refused  cluster `c`: refused by the test"),
        "{text}"
    );
    assert!(center.metric("tidegate_center_xds_refused_total") >= 3);
    assert_eq!(center.metric("tidegate_center_xds_streams_behind"), 2);
}

/// Goal: who does not say who he is, or does not know the token, gets nothing, and is told why (L1). Method: clients
/// without a name, without the token, and with both.
#[test]
fn strangers_without_names_or_tokens_are_refused() {
    let here: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let folder = Folder::new();
    let resources = Resources::new(&folder, &world("a", here));
    let token = folder.file("token");
    fs::write(&token, "secret\n").unwrap();
    let center = resources.center(&folder, &["--token-file", token.to_str().unwrap()]);
    for (arguments, ended) in [
        (&["d", "wrong"][..], "UNAUTHENTICATED"),
        (&["d"], "UNAUTHENTICATED"),
        (&["", "secret"], "INVALID_ARGUMENT"),
        (&["d", "secret"], ""),
    ] {
        let Some(mut stranger) = Stranger::start(&center, "delta", arguments) else {
            return;
        };
        stranger.ask(json!({ "kind": "cluster" }));
        let answer = stranger.next();
        match ended {
            "" => assert_eq!(answer["names"], json!(["a"])),
            ended => assert_eq!(answer["ended"], ended, "{answer}"),
        }
    }
}

/// Goal: a change is tried by some nodes, then served to all, or taken back; what was before comes back. Method: two
/// proxies, one of them the canary.
#[test]
fn canary_is_promoted_and_rolled_back() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let folder = Folder::new();
    let resources = Resources::new(&folder, &world("a", a.address));
    let center = resources.center(&folder, &["--canary", "id=canary"]);
    let proxies = ["canary", "other"].map(|id| proxy(&center, id, "delta"));
    let web = proxies.each_ref().map(|proxy| listening(proxy, "web"));
    resources.write(&world("b", b.address));
    reload(&center);
    wait_answered(web[0], "b");
    wait_answered(web[1], "a");
    assert_eq!(center.metric("tidegate_center_xds_canary"), 1);
    assert_eq!(ctl(&center, &["promote"]), (true, "promoted\n".to_owned()));
    wait_answered(web[1], "b");
    let (is_done, text) = ctl(&center, &["promote"]);
    assert!(!is_done && text.contains("there is no canary"), "{text}");
    assert_eq!(
        ctl(&center, &["rollback"]),
        (true, "rolled back\n".to_owned())
    );
    web.iter().for_each(|web| wait_answered(*web, "a"));
    // The directory still has what was taken back, and does not bring it again.
    reload(&center);
    let view = center.json("/control");
    assert!(
        view["canary"].is_null() && view["withdrawn"].is_string(),
        "{view}"
    );
    wait_in_step(&center, "other");
    wait_answered(web[0], "a");
}

/// Goal: a canary that is refused ends by itself: its nodes go back, nobody else ever had it. Method: the canary is
/// changed to something that our proxies refuse; then the directory is mended.
#[test]
fn refused_canary_is_halted() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let folder = Folder::new();
    let resources = Resources::new(&folder, &world("a", a.address));
    let center = resources.center(&folder, &["--canary", "id=canary"]);
    let proxies = ["canary", "other"].map(|id| proxy(&center, id, "delta"));
    let web = proxies.each_ref().map(|proxy| listening(proxy, "web"));
    let mut bad = cluster("b");
    bad["protocol_selection"] = "USE_DOWNSTREAM_PROTOCOL".into();
    resources.write(&world("a", a.address).with("cluster", 1, bad));
    reload(&center);
    let halted = eventually("the end of the canary", || {
        let view = center.json("/control");
        view["canary"]["halted"].as_object().cloned()
    });
    assert_eq!(halted["node"], "canary");
    assert!(
        halted["error"]
            .as_str()
            .unwrap()
            .contains("protocol_selection")
    );
    let (_, text) = ctl(&center, &[]);
    assert!(text.contains("  halted   canary: "), "{text}");
    let (is_done, text) = ctl(&center, &["promote"]);
    assert!(!is_done && text.contains("halted by a refusal"), "{text}");
    wait_in_step(&center, "canary");
    wait_in_step(&center, "other");
    assert_eq!(
        center.metric("tidegate_center_xds_canaries_halted_total"),
        1
    );
    web.iter().for_each(|web| wait_answered(*web, "a"));
    resources.write(&world("b", b.address));
    reload(&center);
    wait_answered(web[0], "b");
    wait_answered(web[1], "a");
}

/// Goal: what is served, tried and withdrawn outlives the center, and with it the way back; a directory that went bad
/// meanwhile does not keep it from starting. Method: three pushes, a way back, a canary; kill the center and start it with
/// its store, at last with a bad directory.
#[test]
fn pushes_outlive_the_center() {
    let here: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let folder = Folder::new();
    let resources = Resources::new(&folder, &world("a", here));
    let store = folder.file("center.redb").display().to_string();
    let arguments = ["--store", &store, "--canary", "id=canary"];
    let standing = |center: &Center| {
        let view = center.json("/control");
        ["stable", "canary", "history", "withdrawn"].map(|part| view[part].clone())
    };
    let center = resources.center(&folder, &arguments);
    for name in ["b", "c"] {
        resources.write(&world(name, here));
        reload(&center);
        assert!(ctl(&center, &["promote"]).0);
    }
    assert!(ctl(&center, &["rollback"]).0);
    let before = standing(&center);
    assert_eq!(
        (&before[0]["push"], &before[2][0]["push"]),
        (&json!(2), &json!(1))
    );
    center.kill();
    // The directory still has what was withdrawn.
    let center = resources.center(&folder, &arguments);
    assert_eq!(standing(&center), before);
    resources.write(&world("d", here));
    reload(&center);
    let tried = eventually("the canary", || {
        let standing = standing(&center);
        (standing[1]["push"] == 4).then_some(standing)
    });
    assert!(ctl(&center, &["promote"]).0);
    let all = standing(&center);
    assert_eq!(all[0]["version"], tried[1]["version"]);
    center.kill();
    resources.file("all.yaml", "a: [");
    let center = resources.center(&folder, &arguments);
    assert_eq!(standing(&center), all);
    let problems = center.json("/control")["source"]["problems"].clone();
    assert!(
        problems[0].as_str().unwrap().starts_with("all.yaml: "),
        "{problems}"
    );
    assert!(ctl(&center, &["rollback"]).0);
    assert_eq!(standing(&center)[0], before[0]);
}

/// Goal: without a directory nothing is served, and it is said how it would be. Method: a center without one.
#[test]
fn without_resources_nothing_is_served() {
    let folder = Folder::new();
    let center = Center::anywhere(&folder, &[]);
    let answer = center.get("/control");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--resources DIR"));
    assert!(
        !center
            .get("/metrics")
            .text()
            .contains("tidegate_center_xds_")
    );
    let Some(mut stranger) = Stranger::start(&center, "delta", &["d"]) else {
        return;
    };
    stranger.ask(json!({ "kind": "cluster" }));
    assert_eq!(stranger.next()["ended"], "UNIMPLEMENTED");
}
