//! A stranger's control plane: a gRPC server by grpcio, with the messages of the API as PyPI has them, serves listeners,
//! routes, clusters and endpoints, and requests go where it says.
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
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use common::{
    Client, Origin, Proxy,
    center::Folder,
    client::get,
    control_plane::{ControlPlane, World, cluster, endpoints, listener, listening, routes, to},
    eventually, pause,
    proxy::Setup,
    tls::{Authority, Leaf},
};
use serde_json::{Value, json};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A proxy whose file names the control plane and nothing else.
fn proxy(plane: &ControlPlane, protocol: &str) -> Proxy {
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    Proxy::start_with(
        &setup,
        format!(
            "node: {{ id: gw-1, app: edge }}\nxds: {{ addresses: [\"{}\"], protocol: {protocol} }}\n",
            plane.address
        ),
    )
}

/// `web`, whose routes `r` send everything to cluster `a`.
fn world(a: &[SocketAddr]) -> World {
    World::default()
        .with("cluster", 1, cluster("a"))
        .with("endpoint", 1, endpoints("a", a))
        .with("listener", 1, listener("web", ANYWHERE, "r"))
        .with("route", 1, routes("r", to("a")))
}

fn view(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/xds").text()).unwrap()
}

/// What `/xds` says of one resource.
fn resource(view: &Value, kind: &str, name: &str) -> Value {
    let types = view["types"].as_array().unwrap();
    let of_kind = types.iter().find(|one| one["type"] == kind).unwrap();
    let all = of_kind["resources"].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == name)
        .cloned()
        .unwrap_or(Value::Null)
}

/// Who answers a request now.
fn answered(address: SocketAddr) -> String {
    get(address, "/").text()
}

/// Goal: what a control plane serves is served, by both variants of the protocol, and everything is acknowledged.
/// Method: one listener, its routes, a cluster and its endpoints; requests, views and metrics.
#[test]
fn resources_are_served() {
    for protocol in ["delta", "state_of_the_world"] {
        let Some(mut plane) = ControlPlane::start() else {
            return;
        };
        let origin = Origin::named("a");
        plane.serve(&world(&[origin.address]));
        let proxy = proxy(&plane, protocol);
        let web = listening(&proxy, "web");
        assert_eq!(answered(web), "a");
        let heard = eventually("an answer of each kind", || {
            let heard = plane.heard();
            let is_answered = |kind: &str| {
                heard.iter().any(|one| {
                    one["kind"] == kind && one["nonce"].as_str().is_some_and(|n| !n.is_empty())
                })
            };
            ["cluster", "endpoint", "listener", "route"]
                .into_iter()
                .all(is_answered)
                .then_some(heard.clone())
        });
        let first = &heard[1];
        assert_eq!(first["variant"], protocol);
        assert_eq!(
            (&first["node"], &first["cluster"]),
            (&json!("gw-1"), &json!("edge"))
        );
        assert_eq!(plane.errors(), Vec::<String>::new());

        let shown = view(&proxy);
        assert_eq!(shown["connected_to"], plane.address.to_string());
        for (kind, name) in [
            ("cluster", "a"),
            ("endpoint", "a"),
            ("listener", "web"),
            ("route", "r"),
        ] {
            let one = resource(&shown, kind, name);
            assert_eq!(
                (&one["state"], &one["version"]),
                (&json!("active"), &json!("1")),
                "{kind}"
            );
        }
        proxy.wait_for_metric("tidegate_xds_applied_total", |applied| applied >= 1.0);
        assert_eq!(proxy.metric("tidegate_xds_connected"), 1.0);
        assert_eq!(proxy.metric("tidegate_xds_updates_total"), 4.0);
        assert_eq!(proxy.metric("tidegate_xds_rejected_total"), 0.0);
        assert!(proxy.metric("tidegate_xds_applied_total") >= 1.0);
        assert!(proxy.metric("tidegate_xds_apply_seconds") > 0.0);
        let text = proxy.admin_get("/xds?format=text").text();
        assert!(text.contains("  active    web\n"), "{text}");
        let log = &proxy.access_log(1)[0];
        assert!(log.to_string().contains("\"a\""), "{log}");
    }
}

/// Goal: a control plane is spoken to by TLS on both sides. Method: grpcio with certificates that it asks for, and a
/// proxy with one; then a server of a name that its certificate has not.
#[test]
fn a_control_plane_is_spoken_to_by_tls() {
    let authority = Authority::new();
    let (theirs, ours) = (
        authority.issue(&Leaf::server("plane.example").only(&["plane.example"])),
        authority.issue(&Leaf::client("spiffe://mesh.example/gw")),
    );
    let files = [
        &*theirs.certificate,
        &*theirs.private_key,
        &*authority.pem(),
    ];
    let Some(mut plane) = ControlPlane::encrypted(files) else {
        return;
    };
    let origin = Origin::named("a");
    plane.serve(&world(&[origin.address]));
    let config = |tls: &str| {
        format!(
            "xds: {{ addresses: [\"{}\"], tls: {{ trusted_ca: ca, {tls} }} }}\nsecrets:\n  {}\n  {}\n",
            plane.address,
            authority.secret("ca"),
            ours.secret("gw"),
        )
    };
    let right = Proxy::start(config("certificate: gw, server_name: plane.example"));
    assert_eq!(answered(listening(&right, "web")), "a");
    let wrong = Proxy::start(config("certificate: gw"));
    let error = eventually("why there is no stream", || {
        view(&wrong)["last_error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(wrong.metric("tidegate_xds_connected"), 0.0);
}

/// Goal: a cluster none of whose endpoints answers is asked for again, though the control plane has no news. Method: an
/// endpoint that is gone; requests that fail; what the control plane hears.
#[test]
fn what_fails_is_asked_for_again() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    plane.serve(&world(&[gone]));
    let proxy = proxy(&plane, "delta");
    let web = listening(&proxy, "web");
    let asked = |plane: &ControlPlane| {
        let asks = |one: &&Value| one["kind"] == "endpoint" && one["subscribed"] == json!(["a"]);
        plane.heard().iter().filter(asks).count()
    };
    assert_eq!(asked(&plane), 1);
    eventually("that it is asked for again", || {
        get(web, "/");
        (asked(&plane) > 1).then_some(())
    });
    assert!(proxy.stderr().contains("no endpoint of cluster a answers"));
}

/// Requests on kept and on new connections until told to stop; how many, and what went wrong.
fn load(web: SocketAddr, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<(usize, Vec<String>)>> {
    let work = |kept: bool| {
        let stop = stop.clone();
        thread::spawn(move || {
            let (mut count, mut wrong) = (0, Vec::new());
            let mut client = Client::connect(web);
            while !stop.load(Ordering::Relaxed) {
                if !kept {
                    client = Client::connect(web);
                }
                let response = client.get("/");
                count += 1;
                if response.status != 200 {
                    wrong.push(format!("{} {}", response.status, response.text()));
                }
            }
            (count, wrong)
        })
    };
    vec![work(true), work(true), work(false)]
}

/// Goal: routes, weights and endpoints change under traffic, and no request fails (make before break, whatever the
/// order in which things come). Method: two hundred changes while requests go on: endpoints move to and fro, routes
/// split and move to a cluster that comes in the same breath, and clusters go.
#[test]
fn changes_arrive_under_traffic() {
    for protocol in ["delta", "state_of_the_world"] {
        let Some(mut plane) = ControlPlane::start() else {
            return;
        };
        let [a, b] = ["a", "b"].map(Origin::named);
        plane.serve(&world(&[a.address]));
        let proxy = proxy(&plane, protocol);
        let web = listening(&proxy, "web");
        let stop = Arc::new(AtomicBool::new(false));
        let workers = load(web, &stop);
        for round in 0..50 {
            let serve = |plane: &mut ControlPlane, world: &World| {
                plane.serve(world);
                // So that most of them are changes of their own.
                pause(5);
            };
            let version = 4 * round + 2;
            let base = world(&[a.address]);
            // Endpoints: another one beside, then alone.
            serve(
                &mut plane,
                &base
                    .clone()
                    .with("endpoint", version, endpoints("a", &[a.address, b.address])),
            );
            serve(
                &mut plane,
                &base
                    .clone()
                    .with("endpoint", version + 1, endpoints("a", &[b.address])),
            );
            // A cluster and the routes that need it, in the same breath.
            let split = json!([{ "match": { "prefix": "/" }, "route": { "weighted_clusters": { "clusters": [
                { "name": "a", "weight": 1 }, { "name": "b", "weight": 3 } ] } } }]);
            let both = base
                .with("endpoint", version + 2, endpoints("a", &[a.address]))
                .with("cluster", 1, cluster("b"))
                .with("endpoint", 1, endpoints("b", &[b.address]));
            serve(
                &mut plane,
                &both.clone().with("route", version + 2, routes("r", split)),
            );
            // All of it, and back to the beginning: `b` goes.
            serve(
                &mut plane,
                &both.with("route", version + 3, routes("r", to("b"))),
            );
        }
        let last = World::default()
            .with("cluster", 1, cluster("b"))
            .with("endpoint", 1, endpoints("b", &[b.address]))
            .with("listener", 1, listener("web", ANYWHERE, "r"))
            .with("route", 999, routes("r", to("b")));
        plane.serve(&last);
        eventually("the last change", || {
            let shown = view(&proxy);
            let gone = resource(&shown, "cluster", "a") == Value::Null;
            (gone && resource(&shown, "route", "r")["version"] == "999").then_some(())
        });
        eventually("the last cluster alone", || {
            (answered(web) == "b").then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            let (count, wrong) = worker.join().unwrap();
            assert!(count > 0);
            assert_eq!(
                wrong,
                Vec::<String>::new(),
                "{protocol}: {count} requests\n{}",
                proxy.stderr()
            );
        }
        assert_eq!(plane.errors(), Vec::<String>::new());
        let applied = proxy.metric("tidegate_xds_applied_total");
        // The control plane and the proxy take several at once, a busy machine most of them.
        assert!(applied >= 5.0, "{applied} of 200 changes");
        let clusters = proxy.admin_get("/clusters").text();
        assert!(!clusters.contains("\"a\""), "{clusters}");
    }
}

/// Goal: a bad resource is refused alone, by name, path and reason; what came with it is used, and the version before
/// it stays (the listener, too: a port that is taken takes nothing else with it). Method: a push with one bad cluster
/// of two, then with a listener on an address of somebody else's; then everything is mended.
#[test]
fn a_bad_resource_is_refused_alone() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let [a, b] = ["a", "b"].map(Origin::named);
    plane.serve(&world(&[a.address]));
    let proxy = proxy(&plane, "delta");
    let web = listening(&proxy, "web");
    let mut bad = cluster("a");
    bad["connect_timeout"] = "-1s".into();
    bad["use_tcp_for_dns_lookups"] = true.into();
    let broken = world(&[a.address])
        .with("cluster", 2, bad)
        .with("cluster", 2, cluster("b"))
        .with("endpoint", 2, endpoints("b", &[b.address]))
        .with("route", 2, routes("r", to("b")));
    plane.serve(&broken);
    eventually("the good part of the push", || {
        (answered(web) == "b").then_some(())
    });
    let errors = eventually("a refusal", || {
        let errors = plane.errors();
        (!errors.is_empty()).then_some(errors)
    });
    assert_eq!(
        errors,
        [
            "cluster: a: use_tcp_for_dns_lookups: is not supported; connect_timeout: -1.000000000s is negative or malformed"
        ]
    );
    let refused = resource(&view(&proxy), "cluster", "a");
    assert_eq!(
        (&refused["state"], &refused["version"]),
        (&json!("active"), &json!("1"))
    );
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("connect_timeout")
    );
    assert_eq!(proxy.metric("tidegate_xds_rejected_total"), 1.0);
    assert!(
        proxy
            .admin_get("/xds?format=text")
            .text()
            .contains("refused: use_tcp_for_dns_lookups")
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener("other", taken.local_addr().unwrap(), "r");
    let mended =
        world(&[a.address])
            .with("cluster", 3, cluster("a"))
            .with("route", 3, routes("r", to("a")));
    plane.serve(&mended.clone().with("listener", 1, other.clone()));
    eventually("the rest of the push", || {
        (answered(web) == "a").then_some(())
    });
    let unused = eventually("a listener that cannot be used", || {
        let unused = view(&proxy)["applied"]["refused"].clone();
        (unused != json!([])).then_some(unused)
    });
    assert!(
        unused[0].as_str().unwrap().contains("listener `other`"),
        "{unused}"
    );
    assert_eq!(
        resource(&view(&proxy), "cluster", "a")["error"],
        Value::Null
    );
    // Once the address is free, the next change brings it.
    drop(taken);
    plane.serve(
        &mended
            .with("listener", 1, other)
            .with("cluster", 4, cluster("a"))
            .with("cluster", 4, cluster("c"))
            .with("endpoint", 1, endpoints("c", &[])),
    );
    let other = listening(&proxy, "other");
    assert_eq!(answered(other), "a");
    // Told when all shards have it, behind the first that has.
    eventually("nothing left out", || {
        (view(&proxy)["applied"]["refused"] == json!([])).then_some(())
    });
}

/// Goal: a control plane that dies takes nothing with it, and one that comes back goes on where it was: what is held is
/// said, and changes arrive. Method: kill it, send requests, reload the file, start it again on its port.
#[test]
fn the_last_good_outlives_its_control_plane() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let [a, b] = ["a", "b"].map(Origin::named);
    plane.serve(&world(&[a.address]));
    let proxy = proxy(&plane, "delta");
    let web = listening(&proxy, "web");
    let address = plane.kill();
    eventually("the end of the stream", || {
        (view(&proxy)["connected_to"] == Value::Null).then_some(())
    });
    assert_eq!(answered(web), "a");
    assert_eq!(proxy.metric("tidegate_xds_connected"), 0.0);
    proxy.reload(format!(
        "node: {{ id: gw-1, app: edge }}\nxds: {{ addresses: [\"{address}\"], protocol: delta }}\n\
         listeners: {{ own: {{ bind: \"127.0.0.2:0\", routes: [ {{ respond: {{ status: 204 }} }} ] }} }}\n"
    ));
    assert_eq!(answered(web), "a");
    assert_eq!(get(listening(&proxy, "own"), "/").status, 204);

    let mut plane = ControlPlane::on(address).unwrap();
    plane.serve(&world(&[a.address]).with("endpoint", 2, endpoints("a", &[b.address])));
    eventually("a change of the new control plane", || {
        (answered(web) == "b").then_some(())
    });
    let heard = plane.heard();
    let first = heard.iter().find(|one| one["kind"] == "cluster").unwrap();
    assert_eq!(first["held"], json!({ "a": "1" }));
    assert_eq!(get(listening(&proxy, "own"), "/").status, 204);
}

/// Goal: a start while no control plane answers serves what the process before served, and the control plane is told of
/// it when it comes back. Method: a proxy with a cache, killed with its control plane; another one with the same file
/// of resources; the control plane again, with a change.
#[test]
fn a_cold_start_begins_with_the_last_good() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let [a, b] = ["a", "b"].map(Origin::named);
    let folder = Folder::new();
    let cache = folder.file("xds.binpb");
    plane.serve(&world(&[a.address]));
    let config = |address: SocketAddr| {
        format!(
            "xds: {{ addresses: [\"{address}\"], cache: {} }}\n",
            cache.display()
        )
    };
    let first = Proxy::start(config(plane.address));
    assert_eq!(answered(listening(&first, "web")), "a");
    eventually("the last resource on disk", || {
        let kept = std::fs::read(&cache).ok()?;
        let has = |name: &[u8]| kept.windows(name.len()).any(|window| window == name);
        (has(b"RouteConfiguration") && has(b"ClusterLoadAssignment")).then_some(())
    });
    drop(first);
    let address = plane.kill();

    let second = Proxy::start(config(address));
    let web = listening(&second, "web");
    assert_eq!(answered(web), "a");
    assert_eq!(second.metric("tidegate_xds_connected"), 0.0);
    let mut plane = ControlPlane::on(address).unwrap();
    plane.serve(&world(&[a.address]).with("endpoint", 2, endpoints("a", &[b.address])));
    eventually("a change", || (answered(web) == "b").then_some(()));
    let heard = plane.heard();
    let asked = heard.iter().find(|one| one["kind"] == "endpoint").unwrap();
    assert_eq!(asked["held"], json!({ "a": "1" }));
}

/// Goal: the file goes before the control plane, and both refer to each other's clusters. Method: a cluster and a
/// listener of the same names; a route of the stream to a cluster of the file alone.
#[test]
fn the_file_goes_first() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let [ours, theirs] = ["ours", "theirs"].map(Origin::named);
    let wants = World::default()
        .with("cluster", 1, cluster("a"))
        .with("endpoint", 1, endpoints("a", &[theirs.address]))
        .with(
            "listener",
            1,
            listener("web", "127.0.0.3:0".parse().unwrap(), "r"),
        )
        .with("listener", 1, listener("more", ANYWHERE, "r2"))
        .with("route", 1, routes("r", to("a")))
        .with("route", 1, routes("r2", to("local")));
    plane.serve(&wants);
    let proxy = Proxy::start(format!(
        "xds: {{ addresses: [\"{}\"] }}\n\
         listeners: {{ web: {{ bind: \"127.0.0.2:0\", routes: [ {{ to: a }} ] }} }}\n\
         clusters:\n  a: {{ endpoints: {{ static: [\"{}\"] }} }}\n  local: {{ endpoints: {{ static: [\"{}\"] }} }}\n",
        plane.address, ours.address, ours.address
    ));
    assert_eq!(answered(listening(&proxy, "more")), "ours");
    assert_eq!(answered(proxy.web()), "ours");
    let refused = eventually("what is left out", || {
        let refused = view(&proxy)["applied"]["refused"].clone();
        (refused.as_array()?.len() == 2).then_some(refused)
    });
    assert_eq!(
        refused,
        json!([
            "cluster `a`: the file has one of this name",
            "listener `web`: the file has one of this name"
        ])
    );
    assert_eq!(proxy.metric("tidegate_xds_unusable"), 2.0);
}
