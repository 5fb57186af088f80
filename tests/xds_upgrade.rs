//! Hot upgrades of a proxy whose resources come from a control plane: the new process begins with what the old one has,
//! whether the control plane is there or not.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;
mod tls_ledger;

use std::{fs, net::SocketAddr};

use common::{
    Origin, Proxy,
    center::Folder,
    client::get,
    control_plane::{ControlPlane, World, cluster, endpoints, listener, listening, routes, to},
    eventually,
    proxy::Setup,
};
use serde_json::{Value, json};
use tls_ledger::{Ledger, Load, Plan};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn upgrades() -> usize {
    match std::env::var_os("TIDEGATE_TEST_LONG") {
        Some(_) => 50,
        None => 3,
    }
}

/// `web`, whose routes send everything to cluster `a`, with these endpoints in this version.
fn world(version: u32, a: &Origin) -> World {
    World::default()
        .with("cluster", 1, cluster("a"))
        .with("endpoint", version, endpoints("a", &[a.address]))
        .with("listener", 1, listener("web", ANYWHERE, "r"))
        .with("route", 1, routes("r", to("a")))
}

fn start(config: &str) -> Proxy {
    let setup = Setup {
        shards: Some(2),
        unlogged: true,
        ..Setup::default()
    };
    Proxy::start_with(&setup, config)
}

fn generation(proxy: &Proxy) -> Value {
    let info = proxy.admin_get("/server_info").text();
    serde_json::from_str::<Value>(&info).unwrap()["generation"].clone()
}

/// Goal: no request fails over upgrades, with a control plane, without one, and when it is back; its listener keeps its
/// port, and each new process tells it what it holds. Method: a ledger of numbered requests; grpcio, killed and started
/// again on the same port with other endpoints.
#[test]
fn upgrades_keep_what_a_control_plane_brought() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let ledger = Ledger::new();
    let (first, second) = (ledger.origin(), ledger.origin());
    plane.serve(&world(1, &first));
    let address = plane.address;
    let mut proxy = start(&format!("xds: {{ addresses: [\"{address}\"] }}\n"));
    let web = listening(&proxy, "web");
    let plan = Plan {
        quick: 8,
        slow: 2,
        requests_per_s: 200.0,
    };
    let load = Load::start(&ledger, web, plan);
    load.pass(50);
    for number in 1..=upgrades() {
        ledger.doing(format!("upgrade {number}"));
        proxy.upgrade();
        assert_eq!(generation(&proxy), number + 1);
        assert_eq!(listening(&proxy, "web"), web);
        load.pass(50);
    }
    let begins_with = |plane: &ControlPlane| {
        let heard = plane.heard();
        let holds = |one: &&Value| one["kind"] == "endpoint" && one["held"] == json!({ "a": "1" });
        heard.iter().filter(holds).count()
    };
    eventually("that each new process said what it holds", || {
        (begins_with(&plane) == upgrades()).then_some(())
    });

    ledger.doing("upgrade without a control plane");
    plane.kill();
    proxy.upgrade();
    load.pass(50);
    ledger.doing("the control plane is back");
    let Some(mut plane) = ControlPlane::on(address) else {
        return;
    };
    assert_eq!(second.connections(), 0);
    plane.serve(&world(2, &second));
    eventually("a connection to the new endpoint", || {
        (second.connections() > 0).then_some(())
    });
    load.pass(50);
    load.stop();
    ledger.assert_whole();
    assert_eq!(plane.errors(), Vec::<String>::new());
}

/// Goal: what files bring is there from the first moment of a new process, too, and of any process. Method: a proxy of
/// files alone, its announcement, an upgrade, and a change after it.
#[test]
fn files_are_there_from_the_start() {
    let folder = Folder::new();
    let origins = ["a", "b"].map(Origin::named);
    let put = |kind: &str, resources: Value| {
        let new = folder.file(".new");
        fs::write(&new, json!({ "resources": resources }).to_string()).unwrap();
        fs::rename(new, folder.file(kind)).unwrap();
    };
    let url = |name: &str| format!("type.googleapis.com/envoy.config.{name}");
    let clusters = |origin: &Origin| {
        let mut fixed =
            json!({ "@type": url("cluster.v3.Cluster"), "name": "a", "type": "STATIC" });
        fixed["load_assignment"] = endpoints("a", &[origin.address]);
        json!([fixed])
    };
    put("cds.yaml", clusters(&origins[0]));
    let mut web = listener("web", ANYWHERE, "r");
    web["@type"] = url("listener.v3.Listener").into();
    let hcm = &mut web["filter_chains"][0]["filters"][0]["typed_config"];
    hcm.as_object_mut().unwrap().remove("rds");
    hcm["route_config"] = routes("r", to("a"));
    put("lds.yaml", json!([web]));
    let path = |name: &str| folder.file(name).display().to_string();
    let mut proxy = start(&format!(
        "xds: {{ files: {{ clusters: {}, listeners: {} }} }}\n",
        path("cds.yaml"),
        path("lds.yaml")
    ));
    // Announced when the process was ready.
    let web = proxy.web();
    assert_eq!(get(web, "/").text(), "a");
    proxy.upgrade();
    assert_eq!(generation(&proxy), 2);
    assert_eq!(get(web, "/").text(), "a");
    put("cds.yaml", clusters(&origins[1]));
    eventually("the changed file", || {
        (get(web, "/").text() == "b").then_some(())
    });
}
