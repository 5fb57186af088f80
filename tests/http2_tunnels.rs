//! WebSocket and its like where HTTP/2 is on either side: an extended CONNECT is what an `Upgrade` is in HTTP/1
//! (RFC 8441), and each becomes the other.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use common::{
    Origin, Proxy, assert_same_bytes, eventually,
    http2::{Http2, read, read_body, run, send_all, until, websocket},
    http2_origin::Http2Origin,
    pattern,
};
use h2::{RecvStream, SendStream};

/// Beyond every window and buffer.
const LARGE: usize = 3_000_000;

/// What an endpoint in HTTP/1 sends back at once.
const PIECE: usize = 500;

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What a server makes of a client's key (RFC 6455, 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// An origin in HTTP/1 that accepts WebSockets, and sends back what comes.
fn echoing() -> Origin {
    Origin::start(|peer| {
        let head = peer.next_head()?.head;
        let accept = accept(head.get("sec-websocket-key").unwrap());
        peer.wire.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        ))?;
        // The client takes a frame a byte for an attack.
        while let Ok(piece) = peer.wire.exactly(PIECE) {
            peer.wire.send(piece)?;
        }
        Ok(())
    })
}

fn before(origin: &Http2Origin) -> Proxy {
    Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  \
         app: {{ endpoints: {{ static: ['{origin}'] }}, protocol: http2 }}\n"
    ))
}

/// Opens a WebSocket over HTTP/2.
async fn open(client: &mut Http2) -> (SendStream<Bytes>, RecvStream) {
    let (answer, stream) = client.begin(websocket("/chat"), true).await.unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    (stream, answer.into_body())
}

/// Sends `bytes` and the end, and gets the same back.
async fn echo(stream: SendStream<Bytes>, back: RecvStream, bytes: &[u8]) {
    let sending = send_all(stream, bytes, None);
    let (sent, got) = tokio::join!(sending, read_body(http::Response::new(back)));
    sent.unwrap();
    assert_same_bytes(&got.unwrap().body, bytes);
}

/// A client in HTTP/2 that may open tunnels.
async fn connect(proxy: &Proxy) -> Http2 {
    let (client, _) = Http2::connect(proxy.web()).await;
    client.tunnels().await;
    client
}

/// Goal: a WebSocket over HTTP/2 reaches an endpoint in HTTP/1 as a handshake that it accepts, and bytes flow both
/// ways to the end of each. Method: the handshake as the endpoint sees it; bytes that come back, both ends closed.
#[test]
fn from_http2_to_http1() {
    let origin = echoing();
    let proxy = Proxy::before(&origin);
    run(async {
        let mut client = connect(&proxy).await;
        let (stream, back) = open(&mut client).await;
        echo(stream, back, &pattern(10 * PIECE)).await;
    });
    let head = origin.request().head;
    assert_eq!((head.method(), head.target()), ("GET", "/chat"));
    for (name, value) in [
        ("host", "a.example"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(head.get(name), Some(value), "{name}");
    }
    let key = BASE64_STANDARD.decode(head.get("sec-websocket-key").unwrap());
    assert_eq!(key.unwrap().len(), 16);
    let log = &proxy.access_log(1)[0];
    assert_eq!(log["http.response.status_code"], 200, "{log}");
    assert_eq!(proxy.metric("tidegate_shard_upgrades_total"), 1.0);
}

/// Goal: a handshake in HTTP/1 reaches an endpoint in HTTP/2 as an extended CONNECT, and the answer is the one that the
/// client's key asks for. Method: both as the other side sees them; bytes that come back.
#[test]
fn from_http1_to_http2() {
    let origin = Http2Origin::with_tunnels();
    let proxy = before(&origin);
    let mut client = proxy.client();
    client.send(HANDSHAKE).unwrap();
    let head = client.head().unwrap();
    assert_eq!(head.status().unwrap(), 101);
    for (name, value) in [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(head.get(name), Some(value), "{name}");
    }
    let bytes = pattern(100_000);
    client.send(&bytes).unwrap();
    assert_same_bytes(&client.exactly(bytes.len()).unwrap(), &bytes);
    client.finish().unwrap();
    client.expect_close();
    let said = origin.tunnels().remove(0);
    assert!(
        said.starts_with("websocket http://a.example/chat "),
        "{said}"
    );
    assert!(said.contains("\"sec-websocket-version\": \"13\""), "{said}");
    for name in ["sec-websocket-key", "upgrade", "\"connection"] {
        assert!(!said.contains(name), "{name}: {said}");
    }
}

/// Goal: tunnels pass from HTTP/2 to HTTP/2, beside other requests: who does not read holds up its own alone. Method:
/// more than every window through one tunnel, of which nothing is read until others have been served.
#[test]
fn from_http2_to_http2() {
    let origin = Http2Origin::with_tunnels();
    let proxy = before(&origin);
    run(async {
        // A tunnel that is not read may not use the window of its connection up, which is the client's to see to.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let (mut client, _) = Http2::connect_with(proxy.web(), &builder).await;
        client.tunnels().await;
        let (mut stream, mut back) = open(&mut client).await;
        let bytes = pattern(LARGE);
        let sending = tokio::spawn({
            let mut rest = Bytes::from(bytes.clone());
            async move {
                while !rest.is_empty() {
                    stream.reserve_capacity(rest.len());
                    let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                    let piece = rest.split_to(room.unwrap().unwrap().min(rest.len()));
                    stream.send_data(piece, rest.is_empty()).unwrap();
                }
            }
        });
        let first = back.data().await.unwrap().unwrap();
        for _ in 0..20 {
            assert_same_bytes(
                &client.get("/bytes/30000").await.unwrap().body,
                &pattern(30_000),
            );
        }
        assert!(!sending.is_finished(), "windows are not endless");
        back.flow_control().release_capacity(first.len()).unwrap();
        let rest = read_body(http::Response::new(back)).await.unwrap().body;
        assert_same_bytes(&[&first[..], &rest].concat(), &bytes);
        sending.await.unwrap();
    });
    assert_eq!(origin.connections(), 1);
}

/// Goal: nothing but an agreement is taken for one: to a client in HTTP/2 any success would be. Method: endpoints in
/// HTTP/1 that answer as if nothing had been asked, or do not know the key; one in HTTP/2 that takes no tunnels.
#[test]
fn what_is_no_agreement() {
    let unaware = Origin::named("app");
    let pretending = Origin::saying(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    );
    let refusing = Origin::saying("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let without = Http2Origin::start(100);
    for (proxy, status, reason) in [
        (Proxy::before(&unaware), 502, Some("upstream_protocol")),
        (Proxy::before(&pretending), 502, Some("upstream_protocol")),
        (Proxy::before(&refusing), 403, None),
        (before(&without), 501, Some("method_not_served")),
    ] {
        run(async {
            let mut client = connect(&proxy).await;
            let (answer, _stream) = client.begin(websocket("/chat"), true).await.unwrap();
            let answer = read(answer).await.unwrap();
            assert_eq!(answer.status, status, "{answer:?}");
            let said = answer.fields.get("x-tidegate-reason");
            assert_eq!(said.map(|said| said.to_str().unwrap()), reason);
            if status == 403 {
                assert_eq!(answer.text(), "no");
            }
        });
    }
}

/// Goal: an `Upgrade` that the endpoint cannot be asked for is left out, as any server may do (RFC 9110, 7.8). Method:
/// handshakes in HTTP/1 to endpoints in HTTP/2: for WebSocket to one without tunnels, for another protocol.
#[test]
fn upgrades_may_be_ignored() {
    let without = Http2Origin::start(100);
    let answer = before(&without).client().exchange(HANDSHAKE);
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("GET http://a.example/chat"));
    let with = Http2Origin::with_tunnels();
    let other = HANDSHAKE.replace("websocket", "ircp/1");
    assert_eq!(before(&with).client().exchange(other).status, 200);
    assert_eq!(with.tunnels().len(), 0);
}

/// Goal: who gives a tunnel up has the other side hear of it, and nothing is left. Method: a client that resets its
/// stream, to endpoints in HTTP/1 and HTTP/2; an endpoint that breaks its connection.
#[test]
fn tunnels_end_on_both_sides() {
    let http1 = echoing();
    let http2 = Http2Origin::with_tunnels();
    let breaking = Origin::start(|peer| {
        let head = peer.next_head()?.head;
        let accept = accept(head.get("sec-websocket-key").unwrap());
        peer.wire.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        ))?;
        peer.wire.exactly(1)?;
        peer.wire.reset();
        Err(std::io::ErrorKind::ConnectionReset.into())
    });
    for proxy in [Proxy::before(&http1), before(&http2)] {
        run(async {
            let mut client = connect(&proxy).await;
            let (mut stream, _back) = open(&mut client).await;
            stream.send_reset(h2::Reason::CANCEL);
            until(|| proxy.metric("tidegate_shard_http2_streams_open") == 0.0).await;
        });
        eventually("the end of the request", || {
            (proxy.metric("tidegate_cluster_requests_active") == 0.0).then_some(())
        });
        let log = &proxy.access_log(1)[0];
        assert_eq!(log["tidegate.reason"], "client_gone", "{log}");
    }
    http1.wait_until_idle();
    let proxy = Proxy::before(&breaking);
    run(async {
        let mut client = connect(&proxy).await;
        let (mut stream, back) = open(&mut client).await;
        stream.send_data("x".into(), false).unwrap();
        // An end that is none: the tunnel may have lost something.
        assert!(
            read_body(http::Response::new(back))
                .await
                .is_err_and(|e| e.is_reset())
        );
    });
}
