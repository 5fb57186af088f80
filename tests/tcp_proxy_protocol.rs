//! The PROXY protocol, versions 1 and 2, in and out.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Client, Origin, Proxy, proxy};

/// The header of version 2 for 203.0.113.7:4711 to 198.51.100.1:443, with one extension of 3 bytes.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x12\xcb\x00\x71\x07\xc6\x33\x64\x01\x12\x67\x01\xbb\
\x04\x00\x03abc";

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n";

fn web_that_requires() -> (Origin, Proxy) {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    proxy_protocol: require\n",
        "{ to: app }",
        &[("app", &origin)],
    ));
    (origin, proxy)
}

/// Goal: the address of the header is the client's, for both versions, however it is cut. Method: whole
/// and byte by byte, with the request right behind it; X-Forwarded-For tells.
#[test]
fn addresses_of_both_versions() {
    let (origin, proxy) = web_that_requires();
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for header in [V1, V2] {
        for bytewise in [false, true] {
            let bytes = [header, request].concat();
            let mut client = proxy.client();
            if bytewise {
                client.send_bytewise(&bytes).unwrap();
            } else {
                client.send(&bytes).unwrap();
            }
            assert_eq!(client.answer_to(request).status, 200);
            let requests = origin.requests();
            let head = &requests.last().unwrap().head;
            assert_eq!(head.get("x-forwarded-for"), Some("203.0.113.7"));
        }
    }
    let lines = proxy.access_log(4);
    assert!(
        lines.iter().all(|l| l.to_string().contains("203.0.113.7")),
        "{lines:?}"
    );
}

/// Goal: headers without an address leave the socket's (UNKNOWN, LOCAL). Method: both.
#[test]
fn headers_without_an_address() {
    let (origin, proxy) = web_that_requires();
    let local: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    for header in [&b"PROXY UNKNOWN\r\n"[..], local] {
        let mut client = proxy.client();
        client
            .send([header, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"].concat())
            .unwrap();
        assert_eq!(client.answer_to(b"GET").status, 200);
        let requests = origin.requests();
        let head = &requests.last().unwrap().head;
        assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    }
}

/// Goal: without a good header nothing passes. Method: none, and broken ones; the connection is closed
/// without an answer.
#[test]
fn bad_headers_are_closed() {
    let (origin, proxy) = web_that_requires();
    let long = format!("PROXY TCP4 {}", "1".repeat(200));
    let cases: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711\r\n",
        b"PROXY TCP4 203.0.113.700 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 99999 443\r\n",
        b"proxy TCP4 203.0.113.7 198.51.100.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\nGET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c\xcb\x00\x71\x07\xc6\x33\x64\x01\x12\x67\x01\xbb",
        long.as_bytes(),
    ];
    for case in cases {
        let mut client = proxy.client();
        let _ = client.send(case);
        client.expect_close();
    }
    assert!(origin.requests().is_empty());
}

/// Goal: where the header is not expected it is no header. Method: it is a bad request there.
#[test]
fn an_unexpected_header_is_a_bad_request() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    for header in [V1, V2] {
        let mut client = proxy.client();
        client
            .send([header, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"].concat())
            .unwrap();
        let rest = client.rest().unwrap_or_default();
        let rest = String::from_utf8_lossy(&rest);
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 400"),
            "{rest}"
        );
    }
    assert!(origin.requests().is_empty());
}

/// Goal: the header that is sent says who the client is, before its first byte. Method: both versions,
/// an origin that reads them; the client's address is the test's own.
#[test]
fn headers_are_sent() {
    for version in ["v1", "v2"] {
        let origin = Origin::start(move |peer| {
            let header = if version == "v1" {
                peer.wire.until(b"\r\n")?
            } else {
                peer.wire.exactly(28)?
            };
            let hex: String = header.iter().map(|b| format!("{b:02x}")).collect();
            let text = String::from_utf8_lossy(&header).into_owned();
            let shown = if version == "v1" { text } else { hex + "\r\n" };
            peer.wire.send(shown)?;
            let line = peer.wire.until(b"\n")?;
            peer.wire.send(line)
        });
        let proxy = Proxy::start(format!(
            "listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, to: app }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, proxy_protocol: {version} }}\n"
        ));
        let mut client: Client = proxy.client();
        let own = client.stream.local_addr().unwrap().port();
        let listener = proxy.web().port();
        client.send("hello\n").unwrap();
        let header = String::from_utf8(client.until(b"\r\n").unwrap()).unwrap();
        let expected = if version == "v1" {
            format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {listener}\r\n")
        } else {
            format!("0d0a0d0a000d0a515549540a2111000c7f0000017f000001{own:04x}{listener:04x}\r\n")
        };
        assert_eq!(header, expected);
        assert_eq!(client.until(b"\n").unwrap(), b"hello\n");
    }
}

/// Goal: what came in goes out: a chain keeps the first client. Method: v2 in, v1 out.
#[test]
fn a_chain_keeps_the_first_client() {
    let origin = Origin::start(|peer| {
        let header = peer.wire.until(b"\r\n")?;
        peer.wire.send(header)
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, protocol: tcp, proxy_protocol: require, to: app }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, proxy_protocol: v1 }}\n"
    ));
    let mut client = proxy.client();
    client.send(V2).unwrap();
    let header = String::from_utf8(client.until(b"\r\n").unwrap()).unwrap();
    assert!(header.starts_with("PROXY TCP4 203.0.113.7 "), "{header}");
    assert!(header.contains(" 4711 "), "{header}");
}
