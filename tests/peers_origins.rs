//! Origins that others wrote: nginx and Envoy behind the proxy.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{fs, net::SocketAddr};

use common::{Origin, Proxy, assert_same_bytes, pattern, peer};

fn before(address: SocketAddr) -> Proxy {
    Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{address}'] }} }}\n"
    ))
}

/// Goal: nginx as a file server: sizes, ranges, conditions, errors, refused uploads, its own keep-alive
/// limit. Method: a small configuration, requests one after the other and pipelined.
#[test]
fn nginx() {
    let Some(nginx) = peer::program("nginx") else {
        return;
    };
    let body = pattern(2_000_000);
    let server = peer::nginx(&nginx, |folder, address| {
        fs::write(folder.join("large"), &body).unwrap();
        fs::write(folder.join("small"), "small").unwrap();
        let root = folder.display();
        format!(
            "keepalive_requests 7; server {{ listen {address}; root {root}; client_max_body_size 1k;\n\
             location /echo {{ client_max_body_size 10m; return 200 \"$request_method $http_x_forwarded_for\"; }}\n\
             location /gzip {{ gzip on; gzip_min_length 1; gzip_types *; alias {root}/large; }} }}"
        )
    });
    let proxy = before(server.address);
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/small").text(), "small");
    }
    assert_same_bytes(&client.get("/large").body, &body);
    let range = client.exchange("GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=10-19\r\n\r\n");
    assert_eq!((range.status, range.body.as_slice()), (206, &body[10..20]));
    let etag = client.get("/small").head.get("etag").unwrap().to_owned();
    let unchanged = client.exchange(format!(
        "GET /small HTTP/1.1\r\nHost: a\r\nIf-None-Match: {etag}\r\n\r\n"
    ));
    assert_eq!(unchanged.status, 304);
    let head = client.exchange("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.head.get("content-length"), Some("2000000"));
    assert_eq!(client.get("/nothing").status, 404);
    assert_eq!(client.get("/echo").text(), "GET 127.0.0.1");
    let compressed =
        client.exchange("GET /gzip HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(compressed.head.get("transfer-encoding"), Some("chunked"));
    assert!(compressed.body.starts_with(&[0x1f, 0x8b]));
    // nginx refuses by the length, without reading, and closes.
    let refused = proxy.client().post("/small", &pattern(500_000));
    assert_eq!(refused.status, 413);
    assert_eq!(proxy.client().get("/small").text(), "small");
    let mut client = proxy.client();
    client
        .send("GET /small HTTP/1.1\r\nHost: a\r\n\r\n".repeat(30))
        .unwrap();
    for _ in 0..30 {
        assert_eq!(client.answer_to(b"GET").text(), "small");
    }
}

/// Goal: Envoy as the next hop: lower-case names, its own keep-alive and chunking. Method: Tidegate before
/// Envoy before an echoing origin, every kind of body.
#[test]
fn envoy() {
    let Some(envoy) = peer::envoy() else {
        return;
    };
    let origin = Origin::echo();
    let server = peer::envoy_before(&envoy, origin.address, "null", "null");
    let proxy = before(server.address);
    let mut client = proxy.client();
    for i in 0..20 {
        let response = client.get(&format!("/{i}"));
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with(&format!("GET /{i} HTTP/1.1")));
        assert!(response.head.get("x-envoy-upstream-service-time").is_some());
    }
    let body = pattern(1_000_000);
    assert_same_bytes(&client.post("/body", &body).body, &body);
    let mut chunked =
        b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(9999) {
        common::origin::send_chunk(&mut chunked, chunk).unwrap();
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_same_bytes(&client.exchange(chunked).body, &body);
    assert_same_bytes(&client.get("/chunked/1000000").body, &body);
    assert_same_bytes(&client.get("/close/1000000").body, &body);
    assert_eq!(client.get("/status/204").status, 204);
    let head = client.exchange("HEAD /bytes/77 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.head.get("content-length"), Some("77"));
}
