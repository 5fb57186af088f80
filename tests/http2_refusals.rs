//! What clients in HTTP/2 are refused: limits, lengths, and whatever could smuggle another request.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{
    Origin, Proxy,
    frames::{self, Frames},
    http2::{Http2, request, run, with},
    pattern, proxy,
};

/// Goal: refusals say why, in the words of HTTP/1, and cost a stream at most. Method: no route, CONNECT, a
/// head and a target above the limits, a body above its own; then a request that is served.
#[test]
fn refusals() {
    let origin = Origin::echo();
    let listener = "    limits: { header_list: 4KiB, target: 1KiB, body: 10KiB }\n";
    let routes = "{ match: { host: a.example }, to: app }";
    let proxy = Proxy::start(proxy::web_with(listener, routes, &[("app", &origin)]));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let elsewhere = http::Request::get("http://b.example/").body(()).unwrap();
        let long = format!("/{}", "x".repeat(1024));
        let large = "x".repeat(3000);
        for (request, body, status, reason) in [
            (elsewhere, &b""[..], 404, "no_route"),
            (request("GET", &long), b"", 414, "target_too_long"),
            (
                with("GET", "/", &[("x-a", &large), ("x-b", &large)]),
                b"",
                431,
                "head_too_large",
            ),
            (
                with("POST", "/", &[("expect", "200-ok")]),
                b"",
                417,
                "expectation_failed",
            ),
            (
                with("POST", "/", &[("content-length", "20000")]),
                &[b'x'; 20_000],
                413,
                "body_too_large",
            ),
        ] {
            let answer = client.exchange(request, body).await.unwrap();
            assert_eq!(
                (answer.status, answer.field("x-tidegate-reason")),
                (status, reason)
            );
            assert_eq!(
                answer.field("content-length"),
                answer.body.len().to_string()
            );
        }
        assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
    });
    let mut client = Frames::connect(proxy.web());
    let tunnel = frames::block(&[(":method", "CONNECT"), (":authority", "a.example:1")]);
    client.send(frames::frame(
        frames::HEADERS,
        frames::END_HEADERS,
        1,
        &tunnel,
    ));
    client.until_end(1);
    let log = proxy.access_log(7);
    let reasons: Vec<_> = log
        .iter()
        .filter_map(|e| e["tidegate.reason"].as_str())
        .collect();
    assert!(reasons.contains(&"method_not_served"), "{reasons:?}");
}

/// Goal: nothing that two parsers could read in two ways reaches an endpoint. Method: requests that would
/// smuggle another in HTTP/1; each is reset with PROTOCOL_ERROR, and the endpoint hears of none.
#[test]
fn nothing_is_smuggled() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut client = Frames::connect(proxy.web());
    let cases: &[&[(&str, &str)]] = &[
        &[("transfer-encoding", "chunked")],
        &[("connection", "x")],
        &[("x", "a\r\nx-b: c")],
        &[("x", "a\0")],
        &[("x\r\nx-b", "c")],
        &[("content-length", "1"), ("content-length", "1")],
        &[("content-length", "+1")],
        &[("content-length", "5")],
        &[("host", "b.example")],
        &[("te", "chunked")],
        &[("upgrade", "websocket")],
        &[("X-Upper", "1")],
        &[(":path", "/two")],
    ];
    for (number, fields) in cases.iter().enumerate() {
        let stream = number as u32 * 2 + 1;
        let block = frames::block(&[&frames::line("POST", "/")[..], fields].concat());
        client.send(frames::frame(
            frames::HEADERS,
            frames::END_HEADERS | frames::END_STREAM,
            stream,
            &block,
        ));
        let end = client.until_end(stream);
        assert_eq!(
            (end.kind, end.code()),
            (frames::RESET, frames::PROTOCOL_ERROR),
            "{fields:?}"
        );
    }
    for path in ["/ HTTP/1.1\r\nx: y", "/a b", "http://b/", ""] {
        let mut client = Frames::connect(proxy.web());
        client.send(frames::get(1, path));
        let end = client.until_end(1);
        assert_eq!(
            (end.kind, end.code()),
            (frames::RESET, frames::PROTOCOL_ERROR),
            "{path:?}"
        );
    }
    assert_eq!(origin.connections(), 0);
    let counted = cases.len() as f64 + 4.0;
    proxy.wait_for_metric("tidegate_shard_http2_stream_errors_total", |n| n == counted);
    let log = proxy.access_log(cases.len());
    assert!(
        log.iter()
            .all(|entry| entry["tidegate.reason"] == "bad_request"),
        "{log:?}"
    );
}

/// Goal: a body that differs from its length goes nowhere as a whole one. Method: more than announced, and
/// less; the stream is reset, and so is the endpoint's connection.
#[test]
fn lengths_are_kept() {
    let origin = Origin::start(|peer| {
        let request = peer.next_head()?;
        let whole = peer.wire.body(&request.head, false);
        assert!(whole.is_err(), "the endpoint took it for whole");
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    let mut client = Frames::connect(proxy.web());
    for (stream, body) in [(1, &b"123456"[..]), (3, b"1234")] {
        let fields = [&frames::line("POST", "/")[..], &[("content-length", "5")]].concat();
        client.send(frames::frame(
            frames::HEADERS,
            frames::END_HEADERS,
            stream,
            &frames::block(&fields),
        ));
        origin.wait_for_requests(stream as usize / 2 + 1);
        client.send(frames::frame(
            frames::DATA,
            frames::END_STREAM,
            stream,
            body,
        ));
        let end = client.until_end(stream);
        assert_eq!(
            (end.kind, end.code()),
            (frames::RESET, frames::PROTOCOL_ERROR)
        );
    }
    origin.wait_until_idle();
}

/// Goal: streams beyond the limit are refused so that they can be sent again. Method: two allowed, a third
/// while they last.
#[test]
fn streams_beyond_the_limit() {
    let origin = Origin::start(|peer| {
        peer.next_head()?;
        let _ = peer.wire.rest();
        Ok(())
    });
    let limits = "    limits: { http2: { streams: 2 } }\n";
    let proxy = Proxy::start(proxy::web_with(limits, "{ to: app }", &[("app", &origin)]));
    let mut client = Frames::connect(proxy.web());
    client.until_kind(frames::SETTINGS);
    for stream in [1, 3, 5] {
        client.send(frames::get(stream, "/"));
    }
    let end = client.until_end(5);
    assert_eq!(
        (end.kind, end.code()),
        (frames::RESET, frames::REFUSED_STREAM)
    );
    origin.wait_for_requests(2);
}
