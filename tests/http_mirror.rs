//! Copies of requests for other clusters: whoever sent the request must not notice.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{
    Origin, Proxy,
    http2::{Http2, run, with},
    http2_origin::Http2Origin,
    pattern, proxy,
};

/// Bodies that are copied are at most so long.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Copies of a shard at once.
const ACTIVE_MAX: usize = 256;

fn is(count: usize) -> impl Fn(f64) -> bool {
    move |n| (n - count as f64).abs() < 0.1
}

/// Goal: a copy is the request as it goes on, with its body, to a host that tells it from that; the client gets the answer
/// of the cluster that the route leads to. Method: bodies of each framing, a rewritten path, a host with a port, a mirror
/// that leaves the host alone.
#[test]
fn copies_are_what_goes_on() {
    let (main, shadow, plain) = (
        Origin::named("main"),
        Origin::named("shadow"),
        Origin::named("plain"),
    );
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /a/** }, to: main, rewrite: { prefix: /b }, request_headers: { set: { x-own: '1' } },
           mirror: [ { to: shadow }, { to: plain, host_suffix: false } ] },
         { match: { path: /none }, to: main, mirror: [ { to: shadow, share: 0% } ] }",
        &[("main", &main), ("shadow", &shadow), ("plain", &plain)],
    ));
    let mut client = proxy.client();
    let chunked = "POST /a/chunked HTTP/1.1\r\nHost: pay.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let requests = [
        (
            "GET /a/x?q=1 HTTP/1.1\r\nHost: pay.example:8080\r\n\r\n",
            "/b/x?q=1",
            "pay.example-shadow:8080",
            "",
        ),
        (
            "POST /a/y HTTP/1.1\r\nHost: pay.example\r\nContent-Length: 4\r\n\r\nbody",
            "/b/y",
            "pay.example-shadow",
            "body",
        ),
        (chunked, "/b/chunked", "pay.example-shadow", "abcdefg"),
    ];
    for (number, (request, target, host, body)) in requests.iter().enumerate() {
        assert_eq!(client.exchange(request).text(), "main");
        shadow.wait_for_requests(number + 1);
        plain.wait_for_requests(number + 1);
        let copy = &shadow.requests()[number];
        assert_eq!(
            (copy.head.target(), copy.head.get("host")),
            (*target, Some(*host))
        );
        assert_eq!(
            (&*copy.body, copy.head.get("x-own")),
            (body.as_bytes(), Some("1"))
        );
        let own = host.replace("-shadow", "");
        assert_eq!(plain.requests()[number].head.get("host"), Some(&*own));
    }
    assert_eq!(client.get("/none").text(), "main");
    proxy.wait_for_metric("tidegate_route_mirrored_total", is(6));
    proxy.wait_for_metric("tidegate_route_mirrors_answered_total", is(6));
    assert_eq!(shadow.requests().len(), 3);
    // Their connections are used again.
    assert_eq!(shadow.connections(), 1);
}

/// Goal: a body that is sent twice is copied once. Method: an endpoint that refuses the first try of each request after
/// its body, and a route that tries again; bodies of each framing.
#[test]
fn what_is_tried_again_is_copied_once() {
    let tries = AtomicUsize::new(0);
    let main = Origin::start(move |peer| {
        while peer.next_request()?.is_some() {
            let is_first = tries.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            let status = if is_first { "503 No" } else { "200 OK" };
            peer.wire
                .send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))?;
        }
        Ok(())
    });
    let shadow = Origin::named("shadow");
    let proxy = Proxy::start(proxy::web(
        "{ to: main, retry: { on: [503], times: 1, budget: 100%, backoff: 1ms }, mirror: [ { to: shadow } ] }",
        &[("main", &main), ("shadow", &shadow)],
    ));
    let mut client = proxy.client();
    let length = "POST /l HTTP/1.1\r\nHost: pay.example\r\nContent-Length: 4\r\n\r\nbody";
    let chunked = "POST /c HTTP/1.1\r\nHost: pay.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4\r\nbody\r\n0\r\n\r\n";
    for (number, request) in [length, chunked].into_iter().enumerate() {
        assert_eq!(client.exchange(request).status, 200);
        shadow.wait_for_requests(number + 1);
        assert_eq!(shadow.requests()[number].body, b"body");
    }
    assert_eq!(main.requests().len(), 4);
    assert!(
        main.requests()
            .iter()
            .all(|request| request.body == b"body")
    );
}

/// Goal: HTTP/2 is copied, too, and to HTTP/2. Method: a client in HTTP/2 with a body, mirrors of both kinds.
#[test]
fn copies_go_from_and_to_http2() {
    let (main, shadow) = (Origin::named("main"), Origin::named("shadow"));
    let shadow2 = Http2Origin::start(100);
    let config = proxy::web(
        "{ to: main, mirror: [ { to: shadow }, { to: shadow2 } ] }",
        &[("main", &main), ("shadow", &shadow)],
    );
    let proxy = Proxy::start(format!(
        "{config}  shadow2: {{ protocol: http2, endpoints: {{ static: ['{shadow2}'] }} }}\n"
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let answer = client
            .exchange(with("POST", "/body", &[]), b"four")
            .await
            .unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"main"[..]));
        let answer = client.exchange(with("GET", "/", &[]), b"").await.unwrap();
        assert_eq!(answer.status, 200);
    });
    shadow.wait_for_requests(2);
    assert!(shadow.requests().iter().any(|copy| copy.body == b"four"));
    proxy.wait_for_metric("tidegate_route_mirrors_answered_total", is(4));
    assert_eq!(shadow2.requests(), 2);
}

/// Goal: a request neither fails nor waits for its copy. Method: mirrors of nobody, of a cluster without endpoints that
/// are up, and of one that never answers.
#[test]
fn copies_that_fail_are_not_noticed() {
    let main = Origin::named("main");
    let silent = Origin::start(|peer| {
        peer.next_head()?;
        let _ = peer.wire.rest();
        Ok(())
    });
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = proxy::web(
        "{ match: { path: /gone }, to: main, mirror: [ { to: gone } ] },
         { match: { path: /slow }, to: main, timeout: 200ms, mirror: [ { to: silent } ] }",
        &[("main", &main), ("silent", &silent)],
    );
    let proxy = Proxy::start(format!(
        "{config}  gone: {{ endpoints: {{ static: ['{gone}'] }} }}\n"
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/gone").text(), "main");
    assert_eq!(client.post("/slow", b"body").text(), "main");
    assert_eq!(client.get("/slow").text(), "main");
    proxy.wait_for_metric("tidegate_route_mirrors_failed_total", is(3));
    assert_eq!(main.requests().len(), 3);
}

/// Goal: what a copy costs is bounded, and what is not copied is counted. Method: a body at the limit and one above it;
/// as many copies as may be under way, and one above.
#[test]
fn copies_are_bounded() {
    let (main, shadow) = (Origin::named("main"), Origin::named("shadow"));
    let silent = Origin::start(|peer| {
        peer.next_head()?;
        let _ = peer.wire.rest();
        Ok(())
    });
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /body }, to: main, mirror: [ { to: shadow } ] },
         { match: { path: /slow }, to: main, timeout: 1h, mirror: [ { to: silent } ] }",
        &[("main", &main), ("shadow", &shadow), ("silent", &silent)],
    ));
    let mut client = proxy.client();
    let body = pattern(BODY_BYTES_MAX + 1);
    for length in [BODY_BYTES_MAX, BODY_BYTES_MAX + 1] {
        assert_eq!(client.post("/body", &body[..length]).text(), "main");
    }
    shadow.wait_for_requests(1);
    common::assert_same_bytes(&shadow.requests()[0].body, &body[..BODY_BYTES_MAX]);
    proxy.wait_for_metric("tidegate_route_mirrors_dropped_total", is(1));
    proxy.wait_for_metric("tidegate_route_mirrors_answered_total", is(1));
    for _ in 0..ACTIVE_MAX + 1 {
        assert_eq!(client.get("/slow").text(), "main");
    }
    proxy.wait_for_metric("tidegate_route_mirrors_dropped_total", is(2));
    proxy.wait_for_metric("tidegate_route_mirrored_total", is(1 + ACTIVE_MAX));
}

/// Goal: what copies hold is part of `limits.buffers`, and given back with the last of them. Method: a silent mirror and
/// room for five bodies of 48 KiB: five copies are held, the sixth is left out; the mirror goes, and so does what was
/// held.
#[test]
fn copies_are_charged() {
    const BODY: usize = 48 << 10;
    let (main, holds) = (
        Origin::named("main"),
        std::sync::Arc::new(AtomicBool::new(true)),
    );
    let held = holds.clone();
    let silent = Origin::start(move |peer| {
        peer.next_request()?;
        while held.load(Ordering::SeqCst) {
            common::pause(5);
        }
        Ok(())
    });
    // A quarter is for what is kept, in whole powers of two.
    let buffers = 4 * 5 * 64;
    let proxy = Proxy::start(format!(
        "limits: {{ buffers: {buffers}KiB }}\n{}",
        proxy::web(
            "{ to: main, timeout: 1h, mirror: [ { to: silent } ] }",
            &[("main", &main), ("silent", &silent)],
        )
    ));
    let mut client = proxy.client();
    let body = pattern(BODY);
    for _ in 0..6 {
        assert_eq!(client.post("/", &body).text(), "main");
    }
    proxy.wait_for_metric("tidegate_route_mirrors_dropped_total", is(1));
    proxy.wait_for_metric("tidegate_shard_replay_bytes", is(5 * (64 << 10)));
    holds.store(false, Ordering::SeqCst);
    proxy.wait_for_metric("tidegate_route_mirrors_failed_total", is(5));
    proxy.wait_for_metric("tidegate_shard_replay_bytes", is(0));
}
