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
    let record = &proxy.access_log(1)[0];
    assert_eq!(record["tls.protocol.version"], "1.3");
    assert_eq!(record["tls.client.server_name"], SERVER_NAME);
    assert_eq!(record["tls.client.subject"], CLIENT_ID);
    assert_eq!(record["tls.resumed"], false);
    proxy.wait_for_metric("tidegate_shard_tls_requests_total", |n| n == 1.0);
    proxy.wait_for_metric("tidegate_shard_plaintext_requests_total", |n| n == 0.0);
}

/// Goal: a ticket of one shard resumes on any other (E7). Method: many connections of one client, over two
/// shards; only the first handshake is a full one.
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
    assert_eq!(
        proxy.metric("tidegate_shard_tls_handshakes_full_total"),
        1.0
    );
}

/// Goal: the process's handshakes with its own listeners are no clients: neither counted nor logged (E10). Method: a
/// listener that takes anybody, one that asks for certificates and one behind a PROXY header; then a client
/// without a certificate, which is the first that is refused.
#[test]
fn own_handshakes_are_no_clients() {
    let authority = Authority::new();
    let origin = Origin::echo();
    let identity = authority.issue(&Leaf::server(SERVER_NAME));
    let listener = |name: &str, address: &str, keys: &str| {
        format!(
            "  {name}: {{ bind: '{address}:0', routes: [{{ to: app }}], {keys}, tls: {{ certificates: web, \
             client_certificate: {{ trusted_ca: ca, mode: {} }} }} }}\n",
            if name == "any" { "optional" } else { "require" }
        )
    };
    let listeners = listener("any", "127.0.0.1", "proxy_protocol: off")
        + &listener("web", "127.0.0.2", "proxy_protocol: off")
        + &listener("proxied", "127.0.0.3", "proxy_protocol: require");
    let proxy = Proxy::start(format!(
        "secrets:\n{}{}listeners:\n{listeners}clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
        identity.secret("web"),
        authority.secret("ca"),
    ));
    proxy.wait_for_metric("tidegate_self_handshakes_total", |n| n == 3.0);
    let counted = [
        "tidegate_shard_tls_handshakes_full_total",
        "tidegate_shard_tls_handshakes_failed_total",
        "tidegate_shard_tls_handshakes_failed_peer_total",
        "tidegate_shard_tls_handshakes_failed_certificate_total",
        "tidegate_shard_tls_connections_total",
        "tidegate_refused_total",
    ];
    for name in counted {
        assert_eq!(proxy.metric(name), 0.0, "{name}");
    }
    let mut client = Session::connect(proxy.web(), SERVER_NAME, &client_config(&authority, None));
    if let Ok(session) = &mut client {
        // In TLS 1.3 a client learns of its refusal afterwards.
        assert!(session.get("/").is_err());
    }
    let log = proxy.access_log(1);
    assert_eq!(
        (log.len(), &log[0]["tidegate.listener"]),
        (1, &"web".into())
    );
    proxy.wait_for_metric(counted[3], |n| n == 1.0);
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
