//! What a proxy holds of a control plane, asked by the protocol (CSDS): gRPC's own client asks the admin server.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{net::SocketAddr, process::Command};

use common::{
    Origin, Proxy,
    control_plane::{ControlPlane, World, cluster, endpoints, listener, listening, routes, to},
    eventually, peer,
};
use serde_json::{Value, json};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What gRPC's client is told.
fn ask(python: &std::path::Path, proxy: &Proxy, how: &str) -> Value {
    let mut command = Command::new(python);
    command
        .arg(peer::script("client_status.py"))
        .arg(proxy.admin().to_string())
        .arg(how);
    serde_json::from_str(&peer::run(&mut command)).unwrap()
}

/// One resource of the answer.
fn resource(answer: &Value, name: &str, kind: &str) -> Value {
    let all = answer["config"][0]["generic_xds_configs"]
        .as_array()
        .unwrap();
    let is_it =
        |one: &&Value| one["name"] == name && one["type_url"].as_str().unwrap().ends_with(kind);
    all.iter().find(is_it).cloned().unwrap_or(Value::Null)
}

/// Goal: each resource is told with its version, what became of it, and its content; a refused one with why, beside the
/// good version before it. Method: grpcio serves good resources, then a bad version of one, and one that does not exist;
/// grpcio asks, by each method.
#[test]
fn what_is_held_is_told() {
    let Some(python) = peer::python("grpc, envoy.service.status.v3.csds_pb2_grpc") else {
        return;
    };
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let origin = Origin::named("a");
    let world = World::default()
        .with("cluster", 1, cluster("a"))
        .with("cluster", 1, cluster("b"))
        .with("endpoint", 1, endpoints("a", &[origin.address]))
        .with("listener", 1, listener("web", ANYWHERE, "r"))
        .with("route", 1, routes("r", to("a")));
    plane.serve(&world);
    let proxy = Proxy::start(format!(
        "node: {{ id: gw-1, app: edge, zone: z1 }}\nxds: {{ addresses: [\"{}\"] }}\n",
        plane.address
    ));
    listening(&proxy, "web");
    let answer = ask(&python, &proxy, "whole");
    let node = &answer["config"][0]["node"];
    assert_eq!(
        (&node["id"], &node["cluster"], &node["locality"]["zone"]),
        (&json!("gw-1"), &json!("edge"), &json!("z1"))
    );
    for (name, kind) in [
        ("a", "Cluster"),
        ("a", "ClusterLoadAssignment"),
        ("web", "Listener"),
        ("r", "RouteConfiguration"),
    ] {
        let one = resource(&answer, name, kind);
        assert_eq!(
            (
                &one["client_status"],
                &one["version_info"],
                &one["error_state"]
            ),
            (&json!("ACKED"), &json!("1"), &Value::Null),
            "{name}: {one}"
        );
        assert!(one["last_updated"].is_string(), "{one}");
    }
    let content = &resource(&answer, "a", "Cluster")["xds_config"];
    assert_eq!(
        (&content["name"], &content["type"]),
        (&json!("a"), &json!("EDS"))
    );
    assert_eq!(
        resource(&answer, "b", "ClusterLoadAssignment")["client_status"],
        "REQUESTED"
    );

    let mut bad = cluster("a");
    bad["protocol_selection"] = json!("USE_DOWNSTREAM_PROTOCOL");
    plane.serve(&world.with("cluster", 2, bad));
    proxy.wait_for_metric("tidegate_xds_rejected_total", |refused| refused >= 1.0);
    let one = eventually("the refusal", || {
        let one = resource(&ask(&python, &proxy, "stream"), "a", "v3.Cluster");
        (one["client_status"] == "NACKED").then_some(one)
    });
    assert_eq!(one["version_info"], "1");
    assert_eq!(one["error_state"]["version_info"], "2");
    let why = one["error_state"]["details"].as_str().unwrap();
    assert!(why.contains("protocol_selection"), "{why}");
    assert!(one["error_state"]["last_update_attempt"].is_string());
    assert_eq!(
        one["xds_config"]["protocol_selection"],
        Value::Null,
        "the good one"
    );

    let bare = ask(&python, &proxy, "bare");
    assert_eq!(
        resource(&bare, "a", "v3.Cluster")["xds_config"],
        Value::Null
    );
    assert_eq!(
        ask(&python, &proxy, "matching")["refused"],
        "INVALID_ARGUMENT"
    );
    let without = Proxy::before(&origin);
    assert_eq!(ask(&python, &without, "whole"), json!({}));
}
