//! Upgrades: a connection becomes a byte relay after a 101, and only then (RFC 9110, 7.8; RFC 6455).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Origin, Proxy, assert_same_bytes, pattern};

/// The handshake of RFC 6455, 1.3, byte for byte what its client must get.
const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\
Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
Origin: http://a.example\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Version: 13\r\n\r\n";

const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
Sec-WebSocket-Protocol: chat\r\n\r\n";

/// An origin that accepts every upgrade and echoes bytes until the other side ends.
fn echoing() -> Origin {
    Origin::start(|peer| {
        peer.next_head()?;
        peer.wire.send(ACCEPTED)?;
        loop {
            let byte = match peer.wire.exactly(1) {
                Ok(byte) => byte,
                Err(_) => return Ok(()),
            };
            peer.wire.send(byte)?;
        }
    })
}

/// Goal: a WebSocket handshake passes with all that it needs, and bytes flow after it. Method: the
/// example of the RFC, frames sent in pieces, some together with the handshake.
#[test]
fn websocket_relay() {
    let origin = echoing();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(HANDSHAKE).unwrap();
    let head = client.head().unwrap();
    assert_eq!(head.status().unwrap(), 101);
    assert!(
        head.get("upgrade")
            .unwrap()
            .eq_ignore_ascii_case("websocket")
    );
    assert!(
        head.get("connection")
            .unwrap()
            .to_ascii_lowercase()
            .contains("upgrade")
    );
    assert_eq!(
        head.get("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    let request = origin.request().head;
    assert!(
        request
            .get("upgrade")
            .unwrap()
            .eq_ignore_ascii_case("websocket")
    );
    assert!(
        request
            .get("connection")
            .unwrap()
            .to_ascii_lowercase()
            .contains("upgrade")
    );
    assert_eq!(
        request.get("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    // A masked text frame, whose payload is what would be a request.
    let frame = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58GET / HTTP/1.1\r\n\r\n";
    for _ in 0..50 {
        client.send(frame).unwrap();
        assert_eq!(client.exactly(frame.len()).unwrap(), frame);
    }
    client.finish().unwrap();
    client.expect_close();
}

/// Goal: what the client sends behind its handshake, before it knows the answer, is not lost and not read
/// as a request. Method: both in one write.
#[test]
fn bytes_behind_the_handshake_are_relayed() {
    let origin = echoing();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let early = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
    client.send(format!("{HANDSHAKE}{early}")).unwrap();
    assert_eq!(client.head().unwrap().status().unwrap(), 101);
    assert_eq!(client.exactly(early.len()).unwrap(), early.as_bytes());
    assert_eq!(origin.requests().len(), 1);
}

/// Goal: what the origin sends right behind its 101 arrives. Method: both in one write, larger than a
/// buffer.
#[test]
fn bytes_behind_the_101_are_relayed() {
    let origin = Origin::start(|peer| {
        peer.next_head()?;
        let mut bytes = ACCEPTED.as_bytes().to_vec();
        bytes.extend(pattern(200_000));
        peer.wire.send(bytes)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(HANDSHAKE).unwrap();
    assert_eq!(client.head().unwrap().status().unwrap(), 101);
    assert_same_bytes(&client.rest().unwrap(), &pattern(200_000));
}

/// Goal: the body of a request that asks for an upgrade is still its body (RFC 9110, 7.8: the upgrade takes
/// effect after the request). Method: a body that looks like a request, then bytes of the new protocol.
#[test]
fn an_upgrade_with_a_body() {
    let origin = Origin::start(|peer| {
        let request = peer.next_request()?.unwrap();
        peer.wire.send(ACCEPTED)?;
        peer.wire.send(&request.body)?;
        let rest = peer.wire.exactly(4)?;
        peer.wire.send(rest)
    });
    let proxy = Proxy::before(&origin);
    let body = "GET / HTTP/1.1\r\n\r\n";
    let mut client = proxy.client();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: foo\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .unwrap();
    assert_eq!(client.head().unwrap().status().unwrap(), 101);
    assert_eq!(client.exactly(body.len()).unwrap(), body.as_bytes());
    client.send("more").unwrap();
    assert_eq!(client.exactly(4).unwrap(), b"more");
    client.expect_close();
}

/// Goal: half-close passes through an upgraded connection. Method: the client ends its direction; the
/// origin, having read all, still answers.
#[test]
fn half_close_after_an_upgrade() {
    let origin = Origin::start(|peer| {
        peer.next_head()?;
        peer.wire.send(ACCEPTED)?;
        let all = peer.wire.rest()?;
        peer.wire.send(all)
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client.send(HANDSHAKE).unwrap();
    assert_eq!(client.head().unwrap().status().unwrap(), 101);
    let body = pattern(300_000);
    client.send(&body).unwrap();
    client.finish().unwrap();
    assert_same_bytes(&client.rest().unwrap(), &body);
}

/// Goal: other protocols upgrade alike, h2c does not: it would carry requests past the routes. Method:
/// each; the origin must not be asked for h2c.
#[test]
fn other_protocols() {
    let origin = echoing();
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: foo/2\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().status().unwrap(), 101);
    assert_eq!(origin.request().head.get("upgrade"), Some("foo/2"));

    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let response = proxy.client().exchange(
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    let head = origin.request().head;
    assert!(head.get("upgrade").is_none(), "{}", head.raw);
    assert!(head.get("http2-settings").is_none(), "{}", head.raw);
}

/// Goal: an origin cannot upgrade a connection that was not asked to (RFC 9110, 15.2.2). Method: a 101 to
/// a plain request is a 502.
#[test]
fn an_upgrade_that_nobody_asked_for() {
    let origin = Origin::saying_once(ACCEPTED);
    let proxy = Proxy::before(&origin);
    let response = proxy.client().get("/");
    assert_eq!(response.status, 502);
    assert_eq!(response.reason(), Some("upstream_protocol"));
}

/// Goal: a refused upgrade is an ordinary answer on a connection that goes on. Method: 426, then another
/// request on the same connection.
#[test]
fn a_refused_upgrade_goes_on_as_http() {
    let origin = Origin::saying(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Content-Length: 2\r\n\r\nno",
    );
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    let response = client.exchange(HANDSHAKE);
    assert_eq!((response.status, response.text().as_str()), (426, "no"));
    if response
        .head
        .get("connection")
        .is_none_or(|c| !c.contains("close"))
    {
        assert_eq!(client.get("/").status, 426);
    }
}

/// Goal: an upgraded connection is not cut by the request's time-out, and is by the idle one. Method: a
/// route with a short time-out, longer silence than it, then bytes; then silence for good.
#[test]
fn time_outs_of_an_upgraded_connection() {
    let origin = echoing();
    let proxy = Proxy::start(common::proxy::web_with(
        "    timeouts: { idle: 1500ms }\n",
        "{ to: app, timeout: 200ms }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    client.send(HANDSHAKE).unwrap();
    assert_eq!(client.head().unwrap().status().unwrap(), 101);
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_millis(600) {
        client.send("x").unwrap();
        assert_eq!(client.exactly(1).unwrap(), b"x");
    }
    client.expect_close();
    origin.wait_until_idle();
}
