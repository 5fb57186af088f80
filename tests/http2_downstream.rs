//! HTTP/2 from clients, with the `h2` crate at the other end: messages, bodies and what becomes of them on
//! their way to HTTP/1 endpoints and back.
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
    Client, Origin, Proxy, assert_same_bytes, eventually,
    frames::{self, Frames},
    http2::{Http2, read, read_body, request, run, send_all, until, with},
    pattern, proxy,
    tls::Authority,
};
use http::HeaderMap;

/// Of a body beyond every window and buffer.
const LARGE: usize = 3_000_000;

fn before(listener: &str, origin: &Origin) -> Proxy {
    Proxy::start(proxy::web_with(listener, "{ to: app }", &[("app", origin)]))
}

/// Goal: a request in HTTP/2 reaches the endpoint as the HTTP/1 request that it stands for, once, and is
/// logged for what it was. Method: an echo of the head that the endpoint has received.
#[test]
fn a_request_becomes_http1() {
    let origin = Origin::echo();
    let proxy = before("    forwarded: { via: gw }\n", &origin);
    let text = run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let fields = [
            ("cookie", "a=b"),
            ("cookie", "c=d"),
            ("te", "trailers"),
            ("x-one", "1"),
        ];
        let answer = client
            .exchange(with("GET", "/at?q=1", &fields), b"")
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        answer.text()
    });
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(lines[0], "GET /at?q=1 HTTP/1.1");
    for line in [
        "host: a.example",
        "x-one: 1",
        "cookie: a=b; c=d",
        "Via: 2.0 gw",
        "X-Forwarded-Proto: http",
        "TE: trailers",
        "Connection: TE",
    ] {
        let found = lines
            .iter()
            .filter(|l| l.eq_ignore_ascii_case(line))
            .count();
        assert_eq!(found, 1, "{line}: {text}");
    }
    assert!(
        !text.to_ascii_lowercase().contains("transfer-encoding"),
        "{text}"
    );
    let entry = &proxy.access_log(1)[0];
    assert_eq!(entry["network.protocol.name"], "http", "{entry}");
    assert_eq!(entry["network.protocol.version"], "2", "{entry}");
    assert_eq!(entry["http.response.status_code"], 200, "{entry}");
    proxy.wait_for_metric("tidegate_shard_http2_connections_total", |n| n == 1.0);
    proxy.wait_for_metric("tidegate_shard_http2_streams_total", |n| n == 1.0);
    proxy.wait_for_metric("tidegate_shard_http2_streams_open", |n| n == 0.0);
    proxy.wait_for_metric("tidegate_shard_http2_connections_open", |n| n == 0.0);
}

/// Goal: both versions on one port are told apart by the first bytes, however they arrive. Method: the
/// preface byte by byte; then requests in HTTP/1 that begin like it.
#[test]
fn prior_knowledge_is_recognised() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let stream = std::net::TcpStream::connect(proxy.web()).unwrap();
    let mut frames = Frames::over(stream);
    for byte in [frames::PREFACE, &frames::frame(frames::SETTINGS, 0, 0, &[])].concat() {
        frames.send([byte]);
    }
    frames.send(frames::get(1, "/"));
    assert_eq!(frames.until_end(1).kind, frames::DATA);
    for method in ["P", "PR", "PRI", "POST", "PUT", "PROPFIND"] {
        let mut client = Client::connect(proxy.web());
        let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        client.send_bytewise(&head).unwrap();
        let answer = client.answer_to(head.as_bytes());
        assert!(
            answer.text().starts_with(&head[..head.find('\r').unwrap()]),
            "{method}"
        );
    }
}

/// Goal: bodies of any size arrive whole, with the framing that the endpoint understands. Method: bodies
/// with and without a length, empty, small and large, echoed.
#[test]
fn bodies_go_both_ways() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for len in [0, 1, 1000, 70_000, LARGE] {
            let body = pattern(len);
            let length = len.to_string();
            for fields in [&[][..], &[("content-length", &*length)]] {
                let answer = client
                    .exchange(with("POST", "/body", fields), &body)
                    .await
                    .unwrap();
                assert_eq!(answer.status, 200);
                assert_same_bytes(&answer.body, &body);
            }
        }
        for path in ["/bytes", "/chunked", "/close"] {
            for len in [0, 1, 70_000, LARGE] {
                let answer = client.get(&format!("{path}/{len}")).await.unwrap();
                assert_same_bytes(&answer.body, &pattern(len));
                assert!(!answer.fields.contains_key("transfer-encoding"));
                assert!(!answer.fields.contains_key("connection"));
            }
        }
    });
    let requests = origin.requests();
    let framing = |at: usize| {
        (
            requests[at].head.get("content-length"),
            requests[at].head.get("transfer-encoding"),
        )
    };
    // A body that is none is announced as such, or not at all.
    assert_eq!(framing(0), (None, None));
    assert_eq!(framing(1), (Some("0"), None));
    assert_eq!(framing(4), (None, Some("chunked")));
    assert_eq!(framing(5), (Some("1000"), None));
}

/// Goal: a body without a length whose end comes alone is ended once. Regression: an empty frame at the end
/// became a chunk of its own, which is the last one, and another followed. Method: the endpoint reads the first chunk before the
/// end is sent, and then the rest, byte for byte.
#[test]
fn an_end_that_comes_alone() {
    let (got, seen) = std::sync::mpsc::channel();
    let origin = Origin::start(move |peer| {
        peer.next_head()?;
        assert_eq!(peer.wire.until(b"abc\r\n")?, b"3\r\nabc\r\n");
        got.send(()).unwrap();
        assert_eq!(peer.wire.exactly(5)?, b"0\r\n\r\n");
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        assert_eq!(peer.wire.rest()?, b"");
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    let mut client = Frames::connect(proxy.web());
    client.send(frames::post(1, "/"));
    client.send(frames::frame(frames::DATA, 0, 1, b"abc"));
    seen.recv().unwrap();
    client.send(frames::frame(frames::DATA, frames::END_STREAM, 1, b""));
    assert_eq!(client.until_end(1).payload, b"ok");
}

/// Goal: trailers pass both ways. Method: a request with them, an answer with them.
#[test]
fn trailers_go_both_ways() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let (answer, stream) = client.begin(request("POST", "/body"), true).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        send_all(stream, b"payload", Some(trailers)).await.unwrap();
        assert_eq!(read(answer).await.unwrap().body, b"payload");
        let answer = client.get("/trailers").await.unwrap();
        assert_eq!(answer.body, b"hello world");
        assert_eq!(answer.trailer("x-sum"), "42");
    });
    let sent = &origin.requests()[0];
    assert_eq!(sent.body, b"payload");
    assert_eq!(sent.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

/// Goal: answers without a body end with their head. Method: HEAD, 204, 304; the connection goes on.
#[test]
fn answers_without_body() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let answer = client
            .exchange(request("HEAD", "/bytes/1234"), b"")
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.field("content-length")),
            (200, "1234")
        );
        assert!(answer.body.is_empty());
        for status in [204, 304] {
            let answer = client.get(&format!("/status/{status}")).await.unwrap();
            assert_eq!((answer.status, answer.field("etag")), (status, "\"x\""));
            assert!(answer.body.is_empty());
        }
        assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
    });
}

/// Goal: interim answers are passed on. Method: an endpoint that sends 103 and 100 before it answers; the
/// frames that come.
#[test]
fn interim_answers_pass() {
    let origin = Origin::start(|peer| {
        peer.next_head()?;
        peer.wire
            .send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
        peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let head = peer.wire.head();
        drop(head);
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let proxy = Proxy::before(&origin);
    let mut client = Frames::connect(proxy.web());
    client.send(frames::post(1, "/"));
    let interim = [(); 2].map(|()| client.until_kind(frames::HEADERS));
    assert!(
        interim
            .iter()
            .all(|head| head.flags & frames::END_STREAM == 0)
    );
    client.send(frames::frame(
        frames::DATA,
        frames::END_STREAM,
        1,
        b"\r\n\r\n",
    ));
    assert_eq!(client.until_kind(frames::HEADERS).stream, 1);
    assert_eq!(client.until_end(1).payload, b"ok");
    proxy.wait_for_metric("tidegate_shard_responses_1xx_total", |n| n == 2.0);
}

/// Goal: many requests at once on one connection get each its own answer. Method: a hundred, of which the
/// endpoint answers none before all have come.
#[test]
fn a_hundred_streams_at_once() {
    const STREAMS: usize = 100;
    let arrived = std::sync::Arc::new(std::sync::Barrier::new(STREAMS));
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            arrived.wait();
            common::origin::answer(&mut peer.wire, &request)?;
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    run(async {
        // Streams that are read later must not hold up those that are read now.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let (mut client, _) = Http2::connect_with(proxy.web(), &builder).await;
        let mut begun = Vec::new();
        for number in 0..STREAMS {
            let path = format!("/bytes/{}", number * 1000);
            begun.push(client.begin(request("GET", &path), false).await.unwrap().0);
        }
        for (number, answer) in begun.into_iter().enumerate() {
            let answer = read(answer).await.unwrap();
            assert_same_bytes(&answer.body, &pattern(number * 1000));
        }
    });
    assert_eq!(proxy.metric("tidegate_shard_http2_connections_total"), 1.0);
}

/// Goal: a client that does not read an answer holds up that stream alone, and nothing of it is lost.
/// Method: a large answer whose window is left shut, others meanwhile, then it is read.
#[test]
fn a_slow_reader_holds_its_stream_alone() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    run(async {
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let (mut client, _) = Http2::connect_with(proxy.web(), &builder).await;
        let (slow, _) = client
            .begin(request("GET", &format!("/bytes/{LARGE}")), false)
            .await
            .unwrap();
        let slow = slow.await.unwrap();
        let (chunked, _) = client
            .begin(request("GET", &format!("/chunked/{LARGE}")), false)
            .await
            .unwrap();
        let chunked = chunked.await.unwrap();
        for _ in 0..50 {
            assert_eq!(
                client.get("/bytes/20000").await.unwrap().body,
                pattern(20_000)
            );
        }
        assert_same_bytes(&read_body(slow).await.unwrap().body, &pattern(LARGE));
        assert_same_bytes(&read_body(chunked).await.unwrap().body, &pattern(LARGE));
    });
}

/// Goal: an endpoint that does not read a body holds up that stream alone: the client may send a window
/// and no more. Method: uploads that lead to such an endpoint, others meanwhile, then it reads.
#[test]
fn a_slow_endpoint_holds_its_stream_alone() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let slow = Origin::start(move |peer| {
        let request = peer.next_head()?;
        let _ = gate.lock().unwrap().recv();
        let (body, _) = peer.wire.body(&request.head, false)?;
        peer.wire.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{:08}",
            body.len()
        ))
    });
    let quick = Origin::echo();
    // However long the machine takes for the others, the time-out is not what is looked at.
    let routes = "{ match: { path: /slow }, to: slow, timeout: off }, { to: quick }";
    let proxy = Proxy::start(proxy::web(routes, &[("slow", &slow), ("quick", &quick)]));
    // Beyond what sockets on both sides hold.
    let body = pattern(32 << 20);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let (answer, stream) = client.begin(request("POST", "/slow"), true).await.unwrap();
        let sending = tokio::spawn({
            let body = body.clone();
            async move { send_all(stream, &body, None).await }
        });
        for _ in 0..50 {
            let answer = client.post("/body", &pattern(30_000)).await.unwrap();
            assert_eq!(answer.body.len(), 30_000);
        }
        assert!(!sending.is_finished());
        go.send(()).unwrap();
        sending.await.unwrap().unwrap();
        assert_eq!(
            read(answer).await.unwrap().text(),
            body.len().to_string()[..].to_owned()
        );
    });
}

/// Goal: a request that the client gives up is given up at the endpoint. Method: a stream that is reset
/// while the endpoint thinks; others go on.
#[test]
fn a_reset_cancels_the_exchange() {
    let origin = Origin::start(|peer| {
        let request = peer.next_head()?;
        if request.head.target() == "/think" {
            // Until the other side closes.
            let _ = peer.wire.rest();
            return Ok(());
        }
        common::origin::answer(&mut peer.wire, &request)
    });
    let proxy = Proxy::before(&origin);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let (answer, mut stream) = client.begin(request("POST", "/think"), true).await.unwrap();
        until(|| !origin.requests().is_empty()).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
    });
    origin.wait_until_idle();
    let log = proxy.access_log(2);
    let given_up = log
        .iter()
        .find(|entry| entry["url.path"] == "/think")
        .unwrap();
    assert_eq!(given_up["tidegate.reason"], "client_gone", "{given_up}");
    proxy.wait_for_metric("tidegate_shard_http2_resets_received_total", |n| n == 1.0);
    proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
}

/// Goal: what an endpoint breaks off does not look whole. Method: endpoints that close inside a body, by
/// length and in chunks; the stream ends with INTERNAL_ERROR, and the connection goes on.
#[test]
fn a_broken_answer_is_reset() {
    let origin = Origin::start(|peer| {
        let request = peer.next_head()?;
        match request.head.target() {
            "/length" => peer
                .wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
            "/chunks" => peer
                .wire
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
            _ => common::origin::answer(&mut peer.wire, &request),
        }
    });
    let proxy = Proxy::before(&origin);
    let mut client = Frames::connect(proxy.web());
    for (stream, path) in [(1, "/length"), (3, "/chunks")] {
        client.send(frames::get(stream, path));
        let end = client.until_end(stream);
        assert_eq!(
            (end.kind, end.code()),
            (frames::RESET, frames::INTERNAL_ERROR),
            "{path}"
        );
    }
    client.send(frames::get(5, "/bytes/3"));
    assert_eq!(client.until_end(5).payload, pattern(3));
}

/// Goal: a connection that has served its share is ended without hurting a request. Method: three allowed;
/// a GOAWAY, and all that were sent before are answered.
#[test]
fn requests_per_connection() {
    let origin = Origin::echo();
    let proxy = before("    limits: { requests_per_connection: 3 }\n", &origin);
    run(async {
        let (mut client, connection) = Http2::connect(proxy.web()).await;
        for _ in 0..3 {
            assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
        }
        connection.await.unwrap().unwrap();
        assert!(client.get("/").await.is_err());
    });
    assert_eq!(origin.requests().len(), 3);
}

/// Goal: a connection on which nothing happens is ended, politely. Method: short time-outs, before the first
/// request and after one; pings do not keep it.
#[test]
fn idle_connections_end() {
    let origin = Origin::echo();
    let proxy = before(
        "    timeouts: { header: 300ms, keep_alive: 300ms }\n",
        &origin,
    );
    for requests in [0, 1] {
        let mut client = Frames::connect(proxy.web());
        for request in 0..requests {
            client.send(frames::get(request * 2 + 1, "/bytes/3"));
            client.until_end(request * 2 + 1);
        }
        client.until_kind(frames::GO_AWAY);
        let end = client.until_closed();
        assert_eq!(
            (end.code(), end.last_stream()),
            (frames::NO_ERROR, requests)
        );
    }
    eventually("no connection", || {
        (proxy.metric("tidegate_shard_http2_connections_open") == 0.0).then_some(())
    });
}

/// Goal: time-outs of routes hold for each stream. Method: an endpoint that does not answer; the stream
/// gets a 504, another goes on.
#[test]
fn time_outs_are_a_streams_own() {
    let origin = Origin::start(|peer| {
        let request = peer.next_head()?;
        if request.head.target() == "/never" {
            let _ = peer.wire.rest();
            return Ok(());
        }
        common::origin::answer(&mut peer.wire, &request)
    });
    let proxy = Proxy::start(proxy::web(
        "{ to: app, timeout: 300ms }",
        &[("app", &origin)],
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let (never, _) = client.begin(request("GET", "/never"), false).await.unwrap();
        assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
        let answer = read(never).await.unwrap();
        assert_eq!(
            (answer.status, answer.field("x-tidegate-reason")),
            (504, "request_timeout")
        );
    });
}

/// Goal: what the shard holds of bodies in HTTP/2 counts against its budget. Method: uploads that no endpoint
/// reads; the gauge shows their windows, and shows nothing once they are gone.
#[test]
fn bodies_count_against_the_budget() {
    const STREAMS: u32 = 8;
    let authority = Authority::new();
    // Nobody answers there: bodies wait for a handshake.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let config = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes: [{{ to: app }}]\nclusters:\n  app:\n    \
         endpoints: {{ static: [\"{address}\"] }}\n    tls: {{ mode: required, trusted_ca: ca, handshake_timeout: 20s }}\n\
         secrets:\n{}",
        authority.secret("ca"),
    );
    let proxy = Proxy::start(config);
    let mut client = Frames::connect(proxy.web());
    for number in 0..STREAMS {
        let stream = number * 2 + 1;
        client.send(frames::post(stream, "/"));
        for _ in 0..3 {
            client.send(frames::frame(frames::DATA, 0, stream, &[b'x'; 16_000]));
        }
    }
    let least = f64::from(STREAMS) * 48_000.0;
    proxy.wait_for_metric("tidegate_shard_buffers_heap_bytes", |n| n >= least);
    drop(client);
    proxy.wait_for_metric("tidegate_shard_buffers_heap_bytes", |n| n < least);
}
