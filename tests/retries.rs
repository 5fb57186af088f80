//! Requests that are tried again though their body has begun to flow, and calls of gRPC that are for their status.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use bytes::Bytes;
use common::{
    Origin, Proxy, assert_same_bytes,
    http2::{Answer, Http2, read, run, send_all, with},
    http2_origin::{Failing, Http2Origin},
    pattern, proxy,
};

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const UNAVAILABLE: Failing = Failing {
    status: "14",
    in_trailers: false,
    behind_data: false,
    at_once: false,
    pushback: None,
};

/// A proxy in front of one endpoint in HTTP/2, on a route with these keys of `retry`.
fn before(origin: &Http2Origin, retry: &str) -> Proxy {
    Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, retry: {{ backoff: 1ms, {retry} }} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, protocol: http2 }}\n"
    ))
}

async fn call(client: &mut Http2, body: &[u8], fields: &[(&str, &str)]) -> Answer {
    let fields = [&[GRPC], fields].concat();
    client
        .exchange(with("POST", "/body", &fields), body)
        .await
        .unwrap()
}

fn assert_nothing_kept(proxy: &Proxy) {
    proxy.wait_for_metric("tidegate_shard_replay_bytes", |n| n == 0.0);
}

/// Goal: a unary call is tried again for its status, with its message, wherever the status stands before anything of
/// the answer was passed on; and the endpoint is told. Method: an endpoint that is unavailable twice, by a head alone,
/// by trailers right behind a head, and before it has read the message; with a time-out of the client's.
#[test]
fn calls_are_tried_again_for_their_status() {
    let in_trailers = Failing {
        in_trailers: true,
        ..UNAVAILABLE
    };
    let at_once = Failing {
        at_once: true,
        ..UNAVAILABLE
    };
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "on: [unavailable], times: 2");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for how in [UNAVAILABLE, in_trailers, at_once] {
            origin.fail(2, how);
            let answer = call(&mut client, b"message", &[("grpc-timeout", "40S")]).await;
            assert_eq!(answer.text(), "message");
        }
        origin.fail(3, UNAVAILABLE);
        let answer = call(
            &mut client,
            b"message",
            &[("grpc-previous-rpc-attempts", "4")],
        )
        .await;
        assert_eq!(answer.field("grpc-status"), "14", "the third is the last");
    });
    let attempts = origin.seen("grpc-previous-rpc-attempts");
    assert_eq!(attempts[..9].concat(), "121212");
    assert_eq!(attempts[9..], ["4", "5", "6"]);
    let timeouts = origin.seen("grpc-timeout");
    assert_eq!(timeouts[0], "40S");
    for left in [&timeouts[1], &timeouts[2]] {
        let left: u64 = left.strip_suffix('u').unwrap().parse().unwrap();
        assert!((1..40_000_000).contains(&left), "{left}");
    }
    assert_eq!(timeouts[9..].concat(), "");
    assert_eq!(proxy.metric("tidegate_shard_retries_total"), 8.0);
    assert_nothing_kept(&proxy);
}

/// Goal: what the route does not name, and what cannot be taken back, is passed on. Method: another status, a status
/// behind a message, a request that is no call, a route without gRPC.
#[test]
fn other_answers_are_passed_on() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "on: [unavailable, internal], times: 2");
    let behind_data = Failing {
        in_trailers: true,
        behind_data: true,
        ..UNAVAILABLE
    };
    let exhausted = Failing {
        status: "8",
        ..UNAVAILABLE
    };
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        origin.fail(1, exhausted);
        let answer = call(&mut client, b"x", &[]).await;
        assert_eq!(answer.field("grpc-status"), "8");
        origin.fail(1, behind_data);
        let answer = call(&mut client, b"x", &[]).await;
        assert_eq!(answer.trailer("grpc-status"), "14");
        origin.fail(1, UNAVAILABLE);
        let answer = client.post("/body", b"x").await.unwrap();
        assert_eq!(answer.field("grpc-status"), "14");
    });
    assert_eq!(origin.requests(), 3);
    let proxy = before(&origin, "on: [connect, reset], times: 2");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        origin.fail(1, UNAVAILABLE);
        let answer = call(&mut client, b"x", &[]).await;
        assert_eq!(answer.field("grpc-status"), "14");
    });
    assert_eq!(origin.requests(), 4);
}

/// Goal: an endpoint says when to be tried again, and whether. Method: no time, a time within the call's, one beyond
/// it, one that no route would wait, and `-1`.
#[test]
fn endpoints_push_back() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "on: [unavailable], times: 1");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for (pushback, timeout, tries) in [
            ("0", "40S", 2),
            ("30", "40S", 2),
            ("50000", "40S", 1),
            ("60001", "9H", 1),
            ("-1", "40S", 1),
            ("later", "40S", 1),
        ] {
            let requests = origin.requests();
            origin.fail(
                1,
                Failing {
                    pushback: Some(pushback),
                    ..UNAVAILABLE
                },
            );
            call(&mut client, b"x", &[("grpc-timeout", timeout)]).await;
            assert_eq!(origin.requests() - requests, tries, "{pushback}");
        }
    });
}

/// Goal: a lost connection is UNAVAILABLE to a client of gRPC, and so it is to a route that names it; a stream that was
/// refused costs another try though its message was sent. Method: an endpoint in HTTP/1 that closes behind the message,
/// and one that refuses streams unread.
#[test]
fn lost_calls_are_tried_again() {
    for (on, tries) in [("unavailable", 2), ("reset", 1)] {
        let origin = Origin::start(|peer| {
            peer.next_request()?;
            if peer.number == 0 {
                return Ok(());
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\ngrpc-status: 0\r\n\r\n")
        });
        let route = format!("{{ to: app, retry: {{ on: [{on}], backoff: 1ms }} }}");
        let proxy = Proxy::start(proxy::web(&route, &[("app", &origin)]));
        run(async {
            let (mut client, _) = Http2::connect(proxy.web()).await;
            let answer = call(&mut client, b"message", &[]).await;
            let status = if tries == 2 { "0" } else { "14" };
            assert_eq!(answer.field("grpc-status"), status, "{on}");
        });
        let requests = origin.requests();
        assert_eq!(requests.len(), tries, "{on}");
        assert!(requests.iter().all(|request| request.body == b"message"));
    }
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "on: [reset]");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        origin.refuse(1);
        assert_eq!(call(&mut client, b"message", &[]).await.text(), "message");
    });
}

/// Goal: a try's own time-out is DEADLINE_EXCEEDED to a route that names it, whatever the method. Method: an endpoint
/// that is held until it is asked the second time.
#[test]
fn slow_tries_are_tried_again() {
    let origin = Http2Origin::start(100);
    let gate = origin.hold();
    let proxy = before(&origin, "on: [deadline-exceeded], per_try_timeout: 1s");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let (answer, stream) = client
            .begin(with("POST", "/body", &[GRPC]), true)
            .await
            .unwrap();
        send_all(stream, b"message", None).await.unwrap();
        common::http2::until(|| origin.requests() == 2).await;
        gate.send(true).unwrap();
        assert_eq!(read(answer).await.unwrap().text(), "message");
    });
    assert_nothing_kept(&proxy);
}

/// Goal: a stream of messages is tried again with those that have come, and goes on. Method: an endpoint that is
/// unavailable at once, behind the first message; the second is sent after that.
#[test]
fn streams_are_tried_again() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "on: [unavailable]");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        origin.fail(
            1,
            Failing {
                at_once: true,
                ..UNAVAILABLE
            },
        );
        let (answer, mut stream) = client
            .begin(with("POST", "/body", &[GRPC]), true)
            .await
            .unwrap();
        stream
            .send_data(Bytes::from_static(b"one "), false)
            .unwrap();
        common::http2::until(|| origin.requests() == 2).await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "2".parse().unwrap());
        send_all(stream, b"two", Some(trailers)).await.unwrap();
        let answer = read(answer).await.unwrap();
        assert_eq!(
            (answer.text().as_str(), answer.trailer("x-sum")),
            ("one two", "2")
        );
    });
    assert_nothing_kept(&proxy);
}

/// Goal: what waits for a window is sent again in its place. Method: a body of three windows, from clients in HTTP/1
/// and HTTP/2, to an endpoint that is unavailable twice before it reads anything.
#[test]
fn bodies_beyond_a_window_are_sent_again() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "on: [503, unavailable], times: 2, buffer: 1MiB");
    let at_once = Failing {
        at_once: true,
        ..UNAVAILABLE
    };
    let body = pattern(200_000);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        origin.fail(2, at_once);
        let answer = call(&mut client, &body, &[]).await;
        assert_same_bytes(&answer.body, &body);
    });
    assert_nothing_kept(&proxy);
    let origin = Origin::start(|peer| {
        while let Some(request) = peer.next_request()? {
            peer.wire.send(match peer.number {
                0 | 1 => "HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
                _ => format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    request.body.len()
                ),
            })?;
            if peer.number < 2 {
                return Ok(());
            }
            peer.wire.send(&request.body)?;
        }
        Ok(())
    });
    let route = "{ to: app, retry: { on: [503], times: 2, backoff: 1ms, buffer: 1MiB } }";
    let proxy = Proxy::start(proxy::web(route, &[("app", &origin)]));
    let mut client = proxy.client();
    assert_same_bytes(&client.post("/", &body).body, &body);
    let mut request =
        b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(7_000) {
        common::origin::send_chunk(&mut request, piece).unwrap();
    }
    request.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
    assert_same_bytes(&client.exchange(&request).body, &body);
    assert_nothing_kept(&proxy);
}

/// Goal: what is kept is bounded by request and by shard, and given back. Method: bodies at each limit and one byte
/// above, to an endpoint that answers 503 and then 200; the number of tries tells whether it was kept.
#[test]
fn kept_bodies_are_bounded() {
    for (limits, buffer, max) in [
        ("", "1000B", 1000),
        // A quarter of it.
        ("limits: { buffers: 1MiB }\n", "1MiB", 256 << 10),
    ] {
        let origin = Origin::start(|peer| {
            while let Some(request) = peer.next_request()? {
                let status = match request.head.target() {
                    "/fail" => 503,
                    _ => 200,
                };
                peer.wire
                    .send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))?;
            }
            Ok(())
        });
        let route =
            format!("{{ to: app, retry: {{ on: [503], backoff: 1ms, buffer: {buffer} }} }}");
        let proxy = Proxy::start(format!(
            "{limits}{}",
            proxy::web(&route, &[("app", &origin)])
        ));
        let mut client = proxy.client();
        for (len, tries) in [(max, 2), (max + 1, 1), (max, 2)] {
            let before = origin.requests().len();
            assert_eq!(client.post("/fail", &pattern(len)).status, 503);
            assert_eq!(origin.requests().len() - before, tries, "{len}");
        }
        assert_nothing_kept(&proxy);
        proxy.wait_for_metric("tidegate_shard_replay_overflows_total", |n| n == 1.0);
        proxy.wait_for_metric("tidegate_shard_retries_total", |n| n == 2.0);
    }
}
