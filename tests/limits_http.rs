//! Limits on what one client may send: each at its number, and one above.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{Client, Origin, Proxy, assert_same_bytes, pattern, proxy};

/// A proxy whose HTTP listener has these limits.
fn limited(limits: &str) -> (Origin, Proxy) {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        &format!("    limits: {{ {limits} }}\n"),
        "{ to: app }",
        &[("app", &origin)],
    ));
    (origin, proxy)
}

/// A GET whose head is exactly `len` bytes long.
fn head_of(len: usize) -> String {
    let start = "GET / HTTP/1.1\r\nHost: a.example\r\n";
    let filler = len - start.len() - "X: \r\n\r\n".len();
    format!("{start}X: {}\r\n\r\n", "y".repeat(filler))
}

/// Goal: heads up to `header_list` pass, longer ones are 431 with the reason, and the connection closes.
/// Method: the configured and the default limit, exactly and one above.
#[test]
fn bytes_of_the_head() {
    let (_origin, small) = limited("header_list: 2KiB");
    let (_origin2, default) = limited("header_fields: 128");
    for (proxy, limit) in [(&small, 2 << 10), (&default, 64 << 10)] {
        let mut client = proxy.client();
        assert_eq!(client.exchange(head_of(limit)).status, 200, "{limit}");
        let response = client.exchange(head_of(limit + 1));
        assert_eq!(response.status, 431, "{limit}");
        assert_eq!(response.reason(), Some("head_too_large"));
        client.expect_close();
    }
}

/// Goal: a head without end is refused as soon as it is too long, not collected. Method: bytes until the
/// answer.
#[test]
fn a_head_without_end() {
    let (origin, proxy) = limited("header_list: 4KiB");
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n")
        .unwrap();
    for i in 0..200 {
        if client
            .send(format!("X-{i}: {}\r\n", "y".repeat(50)))
            .is_err()
        {
            break;
        }
    }
    // The rest of the head may have made the close a reset.
    if let Ok(response) = client.response("GET") {
        assert_eq!(response.status, 431);
    }
    assert!(origin.requests().is_empty());
}

/// Goal: fields up to `header_fields` pass, one more is 431. Method: configured and default.
#[test]
fn fields_of_the_head() {
    let (_origin, small) = limited("header_fields: 10");
    let (_origin2, default) = limited("header_list: 64KiB");
    for (proxy, limit) in [(&small, 10), (&default, 128)] {
        for (extra, expected) in [(0, 200), (1, 431)] {
            let fields: String = (0..limit - 1 + extra)
                .map(|i| format!("X-{i}: 1\r\n"))
                .collect();
            let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n");
            let response = proxy.client().exchange(request);
            assert_eq!(response.status, expected, "{limit} + {extra}");
        }
    }
}

/// Goal: targets up to `target` pass, longer ones are 414. Method: configured and default.
#[test]
fn bytes_of_the_target() {
    let (_origin, small) = limited("target: 100B");
    let (_origin2, default) = limited("header_list: 64KiB");
    for (proxy, limit) in [(&small, 100), (&default, 8 << 10)] {
        for (extra, expected) in [(0, 200), (1, 414)] {
            let target = format!("/{}", "a".repeat(limit - 1 + extra));
            let response = Client::connect(proxy.web()).get(&target);
            assert_eq!(response.status, expected, "{limit} + {extra}");
            if extra > 0 {
                assert_eq!(response.reason(), Some("target_too_long"));
            }
        }
    }
}

/// Goal: bodies up to `body` pass, longer ones are 413: by their length at once, by their chunks when
/// they get there. Method: exactly and one above, both framings; the origin never sees a whole request
/// that is too long.
#[test]
fn bytes_of_the_body() {
    let (origin, proxy) = limited("body: 10KiB");
    let limit = 10 << 10;
    for (extra, expected) in [(0, 200), (1, 413)] {
        let body = pattern(limit + extra);
        let response = proxy.client().post("/body", &body);
        assert_eq!(response.status, expected);
        let mut request =
            b"POST /body HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        for chunk in body.chunks(1000) {
            common::origin::send_chunk(&mut request, chunk).unwrap();
        }
        request.extend_from_slice(b"0\r\n\r\n");
        let chunked = proxy.client().exchange(&request);
        assert_eq!(chunked.status, expected, "chunked");
        if extra == 0 {
            assert_same_bytes(&chunked.body, &body);
        } else {
            assert_eq!(response.reason(), Some("body_too_large"));
            assert_eq!(chunked.reason(), Some("body_too_large"));
        }
    }
    assert!(origin.requests().iter().all(|r| r.body.len() <= limit));
}

/// Goal: trailers are limited like heads. Method: a trailer section that never ends.
#[test]
fn trailers_without_end() {
    let (origin, proxy) = limited("header_list: 2KiB");
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        .unwrap();
    let mut held = false;
    for i in 0..100_000 {
        if client
            .send(format!("X-{i}: {}\r\n", "y".repeat(100)))
            .is_err()
        {
            held = true;
            break;
        }
    }
    assert!(held, "10 MB of trailers were taken");
    origin.wait_until_idle();
    assert!(origin.requests().is_empty());
}

/// Goal: a chunk's size line is limited. Method: an extension without end.
#[test]
fn chunk_extensions_without_end() {
    let (origin, proxy) = limited("header_list: 2KiB");
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5;x=")
        .unwrap();
    let mut held = false;
    for _ in 0..100_000 {
        if client.send("y".repeat(100)).is_err() {
            held = true;
            break;
        }
    }
    assert!(held, "10 MB of chunk extension were taken");
    origin.wait_until_idle();
    assert!(origin.requests().is_empty());
}

/// Goal: `requests_per_connection` is kept. Method: three allowed; the third says close.
#[test]
fn requests_of_a_connection() {
    let (_origin, proxy) = limited("requests_per_connection: 3");
    let mut client = proxy.client();
    for i in 1..=3 {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        let closes = response.head.get("connection") == Some("close");
        assert_eq!(closes, i == 3, "request {i}");
    }
    client.expect_close();
}

/// Goal: the same towards an endpoint. Method: two requests a connection, ten in all.
#[test]
fn requests_of_an_upstream_connection() {
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, requests_per_connection: 2 }}\n"
    ));
    let mut client = proxy.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(origin.connections(), 5);
}

/// Goal: answers are limited too: an origin cannot make us collect a head. Method: a head of 100 KiB, and
/// one of 300 fields, are 502.
#[test]
fn heads_of_answers() {
    for fields in [
        format!("X: {}\r\n", "y".repeat(100 << 10)),
        "X: y\r\n".repeat(300),
    ] {
        let origin = Origin::saying(format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"
        ));
        let proxy = Proxy::before(&origin);
        assert_eq!(proxy.client().get("/").status, 502);
    }
}
