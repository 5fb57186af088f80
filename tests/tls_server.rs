//! TLS on listeners of a whole process: what clients get, what origins are told, what the log says.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{io::Write, net::TcpStream};

use common::{
    Origin, Proxy,
    proxy::{self, Setup},
    tls::{Authority, CLIENT_ID, Leaf, SERVER_NAME, Session, client_config},
};

/// A proxy with a TLS listener `web` before `origin`; `tls` are more keys of its `tls` section.
fn start(setup: &Setup, authority: &Authority, tls: &str, origin: &Origin) -> Proxy {
    let identity = authority.issue(&Leaf::server(SERVER_NAME));
    let listener = format!("    tls: {{ certificates: web, {tls} }}\n");
    let config = format!(
        "secrets:\n{}{}{}",
        identity.secret("web"),
        authority.secret("ca"),
        proxy::web_with(&listener, "{ to: app }", &[("app", origin)])
    );
    Proxy::start_with(setup, config)
}

/// Goal: a client with a certificate is served, and everybody is told how it came (E1, E15). Method: one request;
/// what the origin saw, the log, the metrics.
#[test]
fn tells_how_a_client_came() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let asked = "client_certificate: { trusted_ca: ca }";
    let proxy = start(&Setup::default(), &authority, asked, &origin);
    let identity = authority.issue(&Leaf::client(CLIENT_ID));
    let config = client_config(&authority, Some(&identity));
    let mut session = Session::connect(proxy.web(), SERVER_NAME, &config).unwrap();
    let answer = session.get("/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        origin.request().head.get("x-forwarded-proto"),
        Some("https")
    );
    // The process tries its listener itself, without a certificate, which is refused and logged.
    let record = common::eventually("the request in the log", || {
        let mut records = proxy.access_log(1).into_iter();
        records.find(|record| record["http.response.status_code"] == 200)
    });
    assert_eq!(record["tls.protocol.version"], "1.3");
    assert_eq!(record["tls.client.server_name"], SERVER_NAME);
    assert_eq!(record["tls.client.subject"], CLIENT_ID);
    assert_eq!(record["tls.resumed"], false);
    proxy.wait_for_metric("tidegate_shard_tls_requests_total", |n| n == 1.0);
    proxy.wait_for_metric("tidegate_shard_plaintext_requests_total", |n| n == 0.0);
}

/// Goal: a ticket of one shard resumes on any other (E7). Method: many connections of one client, over two
/// shards; only the first handshake is a full one (the process tries its listener itself, too).
#[test]
fn tickets_serve_on_every_shard() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    let proxy = start(&setup, &authority, "mode: strict", &origin);
    let config = client_config(&authority, None);
    for _ in 0..32 {
        let mut session = Session::connect(proxy.web(), SERVER_NAME, &config).unwrap();
        assert!(session.get("/").unwrap().starts_with("HTTP/1.1 200 "));
    }
    proxy.wait_for_metric("tidegate_shard_tls_handshakes_resumed_total", |n| n == 31.0);
}

/// Goal: plaintext on a TLS port is told so in the clear, and never reaches an origin (E16). Method: a request
/// without TLS.
#[test]
fn plaintext_is_refused_in_the_clear() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let proxy = start(&Setup::default(), &authority, "mode: strict", &origin);
    let response = proxy.client().get("/");
    assert_eq!(response.status, 400);
    assert_eq!(response.reason(), Some("plaintext_on_tls"));
    assert!(origin.requests().is_empty());
    assert_eq!(
        proxy.access_log(1)[0]["tidegate.reason"],
        "plaintext_on_tls"
    );
}

/// Goal: a failed handshake is named in the log (E16). Method: a client that does not trust the authority, and
/// one that breaks off.
#[test]
fn failures_are_named() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let proxy = start(&Setup::default(), &authority, "mode: strict", &origin);
    let stranger = client_config(&Authority::new(), None);
    assert!(Session::connect(proxy.web(), SERVER_NAME, &stranger).is_err());
    assert_eq!(
        proxy.access_log(1)[0]["tidegate.detail"],
        "received unknown_ca"
    );
    let mut socket = TcpStream::connect(proxy.web()).unwrap();
    socket.write_all(&[0x16, 3, 1, 1, 0, 1]).unwrap();
    drop(socket);
    assert_eq!(
        proxy.access_log(2)[1]["tidegate.detail"],
        "closed during the handshake"
    );
}
