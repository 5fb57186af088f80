//! Encryption by a control plane, with secrets of the file: listeners are switched and links to endpoints are encrypted
//! while requests go on, and what cannot be encrypted takes the place of nothing.
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
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use common::{
    Client, Origin, Proxy,
    client::get,
    control_plane::{ControlPlane, World, cluster, endpoints, listener, listening, routes, to},
    eventually,
    tls::{self, Authority, Leaf, SERVER_NAME, Session, client_config, read_head},
};
use serde_json::{Value, json};

const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn socket(kind: &str, common: Value) -> Value {
    json!({ "name": "tls", "typed_config": {
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"),
        "common_tls_context": common } })
}

/// `web` with a chain in TLS that shows the secret `certificate`, and one without if `plaintext` is taken.
fn encrypted(certificate: &str, plaintext: bool) -> Value {
    let mut listener = listener("web", ANYWHERE, "r");
    let plain = listener["filter_chains"][0].clone();
    let mut chain = plain.clone();
    let shown = json!({ "tls_certificate_sds_secret_configs": [{ "name": certificate }] });
    chain["transport_socket"] = socket("DownstreamTlsContext", shown);
    listener["filter_chains"] = match plaintext {
        true => json!([chain, plain]),
        false => json!([chain]),
    };
    listener
}

/// `web`, in its version, before cluster `a` and its endpoint.
fn world(version: u32, web: Value, cluster: Value, origin: SocketAddr) -> World {
    World::default()
        .with("cluster", version, cluster)
        .with("endpoint", version, endpoints("a", &[origin]))
        .with("listener", version, web)
        .with("route", 1, routes("r", to("a")))
}

fn refused(proxy: &Proxy) -> Vec<String> {
    let view: Value = serde_json::from_str(&proxy.admin_get("/xds").text()).unwrap();
    let refused = view["applied"]["refused"].as_array().unwrap().clone();
    refused
        .iter()
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

/// Goal: a control plane switches a listener from plaintext to both and a link to TLS, and no request fails; a listener
/// whose secret is not there, or that would cut off who still speaks plaintext, changes nothing. Method: grpcio serves
/// each step while a kept connection sends requests.
#[test]
fn encryption_is_switched_under_traffic() {
    let Some(mut plane) = ControlPlane::start() else {
        return;
    };
    let authority = Authority::new();
    let served = authority.issue(&Leaf::server(SERVER_NAME));
    let plain = Origin::named("plain");
    let secret = tls::Origin::start(&served, None, |peer| {
        while read_head(peer).is_ok() {
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nencrypted")?;
        }
        Ok(())
    });
    plane.serve(&world(
        1,
        listener("web", ANYWHERE, "r"),
        cluster("a"),
        plain.address,
    ));
    let proxy = Proxy::start(format!(
        "xds: {{ addresses: [\"{}\"] }}\nsecrets:\n{}{}",
        plane.address,
        served.secret("web"),
        authority.secret("ca"),
    ));
    let web = listening(&proxy, "web");
    assert_eq!(get(web, "/").text(), "plain");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let load = thread::spawn(move || {
        let mut client = Client::connect(web);
        let mut statuses = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            statuses.push(client.get("/").status);
        }
        statuses
    });

    let config = client_config(&authority, None);
    let by_tls = || Session::connect(web, SERVER_NAME, &config)?.get("/");
    assert!(by_tls().is_err());
    plane.serve(&world(
        2,
        encrypted("web", true),
        cluster("a"),
        plain.address,
    ));
    let answer = eventually("TLS on the listener", || by_tls().ok());
    assert!(answer.ends_with("plain"), "{answer}");
    assert_eq!(
        get(web, "/").text(),
        "plain",
        "plaintext is taken beside it"
    );

    let mut link = cluster("a");
    let trusted = json!({ "validation_context_sds_secret_config": { "name": "ca" } });
    link["transport_socket"] = socket("UpstreamTlsContext", trusted);
    link["transport_socket"]["typed_config"]["sni"] = SERVER_NAME.into();
    plane.serve(&world(
        3,
        encrypted("web", true),
        link.clone(),
        secret.address,
    ));
    eventually("TLS towards the endpoint", || {
        (get(web, "/").text() == "encrypted").then_some(())
    });

    // No secret of this name; and a switch that would cut the load off.
    for (web_now, why) in [
        (
            encrypted("nobody", true),
            "listener `web`: the file has no secret `nobody`",
        ),
        (encrypted("web", false), "strict is refused"),
    ] {
        plane.serve(&world(4, web_now, link.clone(), secret.address));
        eventually(why, || {
            refused(&proxy)[..]
                .iter()
                .any(|line| line.contains(why))
                .then_some(())
        });
        assert!(by_tls().unwrap().ends_with("encrypted"));
        assert_eq!(get(web, "/").text(), "encrypted");
        plane.serve(&world(
            5,
            encrypted("web", true),
            link.clone(),
            secret.address,
        ));
        eventually("nothing refused", || {
            refused(&proxy).is_empty().then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    let statuses = load.join().unwrap();
    assert!(statuses.len() > 10 && statuses.iter().all(|status| *status == 200));
    assert_eq!(plane.errors(), Vec::<String>::new());
}
