//! Trust that changes while connections are open: whoever would not be let in any more finishes what is in flight,
//! and is gone after `drain_timeout`, busy or not (E12, E15).
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
    io::{self, Read, Write},
    process::{Command, Stdio},
};

use common::{
    Client, Origin, Proxy, eventually, peer,
    tls::{self, Authority, CLIENT_ID, Leaf, SERVER_NAME, Session, client_config},
};
use serde_json::Value;

/// The beginning of an answer whose end never comes.
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";

/// Waits for the end of the connection, orderly or not. A time-out is none.
#[track_caller]
fn ends(outcome: io::Result<Vec<u8>>) {
    if let Err(error) = outcome {
        let kind = error.kind();
        let is_open = matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(!is_open, "{error}");
    }
}

/// Goal: a client whose certificate is revoked takes nothing more from the connections that it has, however busy:
/// what waits ends at once, what is in flight after `drain_timeout`; others notice nothing. Method: an idle
/// connection, an answer that never ends and a relay of one client, a connection of another; then a list of
/// revocations.
#[test]
fn revoked_clients_are_gone() {
    let authority = Authority::new();
    let origin = Origin::start(|peer| {
        while let Some(request) = peer.next_request()? {
            match request.head.target() {
                "/slow" => peer.wire.send(HALF)?,
                _ => common::origin::answer(&mut peer.wire, &request)?,
            }
        }
        Ok(())
    });
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let good = authority.issue(&Leaf::client(CLIENT_ID));
    let bad = authority.issue(&Leaf::client("spiffe://mesh.example/ns/shop/sa/bad"));
    let crl = authority.revoke(&[]);
    let tls =
        "tls: { certificates: web, client_certificate: { trusted_ca: ca, drain_timeout: 500ms } }";
    let proxy = Proxy::start(format!(
        "secrets:\n{}  ca: {{ trusted_ca: '{}', crl: '{}' }}\nlisteners:\n  \
         web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}], {tls} }}\n  \
         raw: {{ bind: 127.0.0.2:0, protocol: tcp, to: app, {tls} }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
        server.secret("web"),
        authority.pem().display(),
        crl.display(),
    ));
    let (good, bad_config) = (
        client_config(&authority, Some(&good)),
        client_config(&authority, Some(&bad)),
    );
    let connect =
        |name: &str, config| Session::connect(proxy.listener(name), SERVER_NAME, config).unwrap();
    let mut idle = connect("web", &bad_config);
    let mut busy = connect("web", &bad_config);
    let mut relay = connect("raw", &bad_config);
    let mut kept = connect("web", &good);
    let slow = format!("GET /slow HTTP/1.1\r\nHost: {SERVER_NAME}\r\n\r\n");
    for session in [&mut busy, &mut relay] {
        session.send(&slow).unwrap();
    }
    origin.wait_for_requests(2);
    proxy.wait_for_metric("tidegate_shard_tls_connections_open", |n| n == 4.0);

    authority.revoke(&[&bad]);
    for session in [&mut idle, &mut busy, &mut relay] {
        ends(session.rest());
    }
    assert!(kept.get("/fine").unwrap().starts_with("HTTP/1.1 200 "));
    let refused = "tidegate_refused_total{reason=\"client_certificate\"}";
    assert_eq!(proxy.metric(refused), 3.0);
    let log = proxy.access_log(4);
    let told = log.iter().filter(|line| {
        line["tidegate.detail"] == "certificate_revoked"
            && line["tls.client.subject"] == "spiffe://mesh.example/ns/shop/sa/bad"
    });
    assert_eq!(told.count(), 3, "{log:?}");
    // A new one is refused as ever.
    if let Ok(mut session) = Session::connect(proxy.web(), SERVER_NAME, &bad_config) {
        assert!(session.get("/").is_err());
    }
}

/// Goal: whoever resumes a session of a certificate that was revoked since is told so by the alert (E7, E15). Method:
/// `openssl s_client` saves a session in either version, and comes back with it once the list is there.
#[test]
fn revoked_sessions_get_the_alert() {
    let Some(openssl) = peer::program("openssl") else {
        return;
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let (authority, origin) = (Authority::new(), Origin::echo());
        let server = authority.issue(&Leaf::server(SERVER_NAME));
        let client = authority.issue(&Leaf::client(CLIENT_ID));
        let crl = authority.revoke(&[]);
        let proxy = Proxy::start(format!(
            "secrets:\n{}  ca: {{ trusted_ca: '{}', crl: '{}' }}\nlisteners:\n  web: {{ bind: 127.0.0.1:0, \
             routes: [{{ to: app }}], tls: {{ certificates: web, client_certificate: {{ trusted_ca: ca }} }} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
            server.secret("web"),
            authority.pem().display(),
            crl.display(),
        ));
        let session = authority.folder().join("session");
        let come = |how: &str| {
            let mut child = Command::new(&openssl)
                .args(["s_client", "-ign_eof", version, "-connect"])
                .arg(proxy.web().to_string())
                .arg("-cert")
                .arg(&client.certificate)
                .arg("-key")
                .arg(&client.private_key)
                .arg(how)
                .arg(&session)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            // It may have been refused before.
            let _ = child.stdin.take().unwrap().write_all(request);
            let output = child.wait_with_output().unwrap();
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        assert!(come("-sess_out").contains("HTTP/1.1 200"));
        let again = come("-sess_in");
        assert!(
            again.contains("Reused, ") && again.contains("HTTP/1.1 200"),
            "{again}"
        );
        authority.revoke(&[&client]);
        proxy.wait_for_metric("tidegate_secret_generation", |n| n == 3.0);
        eventually("the alert of a revoked certificate", || {
            come("-sess_in").contains("alert number 44").then_some(())
        });
    }
}

/// Goal: links to endpoints whose certificate is not trusted any more are gone, too: none is used again, and what is
/// in flight is cut after `drain_timeout`, though no new link can be made (E16). Method: an idle link and one with
/// an answer that never ends; then another authority.
#[test]
fn links_of_strangers_are_gone() {
    let (authority, other) = (Authority::new(), Authority::new());
    let endpoint = tls::Origin::start(
        &authority.issue(&Leaf::server(SERVER_NAME)),
        None,
        |peer: &mut tls::Peer| {
            loop {
                match tls::read_head(peer)?.target() {
                    "/slow" => {
                        peer.write_all(HALF)?;
                        peer.read_to_end(&mut Vec::new())?;
                    }
                    _ => peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?,
                }
            }
        },
    );
    let ca = authority.folder().join("trusted.pem");
    fs::copy(authority.pem(), &ca).unwrap();
    let proxy = Proxy::start(format!(
        "secrets:\n  ca: {{ trusted_ca: '{}' }}\nlisteners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{endpoint}'] }}, tls: {{ trusted_ca: ca, \
         server_name: {SERVER_NAME}, drain_timeout: 500ms }} }}\n",
        ca.display()
    ));
    let mut busy = Client::connect(proxy.web());
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut seen = [0; HALF.len()];
    busy.stream.read_exact(&mut seen[..20]).unwrap();
    let mut client = proxy.client();
    assert_eq!(client.get("/one").status, 200);
    proxy.wait_for_metric("tidegate_shard_links_tls", |n| n == 2.0);

    fs::copy(other.pem(), &ca).unwrap();
    proxy.wait_for_metric("tidegate_shard_links_tls", |n| n == 0.0);
    let answer = client.get("/two");
    assert_eq!(
        (answer.status, answer.reason()),
        (502, Some("upstream_tls"))
    );
    let mut rest = Vec::new();
    ends(busy.stream.read_to_end(&mut rest).map(|_| rest));
    assert_eq!(proxy.metric("tidegate_shard_links_forced_total"), 1.0);
    assert_eq!(proxy.metric("tidegate_link_requests_lost_total"), 0.0);
    let clusters: Value = serde_json::from_str(&proxy.admin_get("/encryption").text()).unwrap();
    assert_eq!(clusters["clusters"][0]["open_plaintext"], 0);
}
