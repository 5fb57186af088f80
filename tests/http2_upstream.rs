//! HTTP/2 towards endpoints, with the `h2` crate's server at the other end: connections are shared, kept to
//! what the endpoint allows, and given up without losing a request.
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
    Proxy, assert_same_bytes, eventually,
    frames::{self, Frames},
    http2::{Http2, read, read_body, request, run, send_all, until, with},
    http2_origin::Http2Origin,
    pattern,
};
use http::HeaderMap;

/// Of a body beyond every window and buffer.
const LARGE: usize = 3_000_000;

fn before(origin: &Http2Origin, cluster: &str) -> Proxy {
    Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  \
         app: {{ endpoints: {{ static: ['{origin}'] }}, protocol: http2{cluster} }}\n"
    ))
}

/// Goal: requests of clients in HTTP/1 and HTTP/2 reach the endpoint in HTTP/2, and its answers them. Method:
/// heads, bodies with and without a length, trailers both ways, HEAD; over one connection.
#[test]
fn messages_go_both_ways() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "");
    let mut client = proxy.client();
    let answer = client.exchange(
        "GET /at?q=1 HTTP/1.1\r\nHost: a.example\r\nX-One: 1\r\nConnection: x-two\r\nX-Two: 2\r\n\r\n",
    );
    let text = answer.text();
    assert!(text.starts_with("GET http://a.example/at?q=1\n"), "{text}");
    assert!(
        text.contains("\"x-one\": \"1\"") && !text.contains("x-two"),
        "{text}"
    );
    assert!(text.contains("x-forwarded-for"), "{text}");
    assert_eq!(answer.head.get("transfer-encoding"), Some("chunked"));
    assert_same_bytes(&client.get("/bytes/70000?length").body, &pattern(70_000));
    assert_same_bytes(
        &client.get(&format!("/bytes/{LARGE}")).body,
        &pattern(LARGE),
    );
    let body = pattern(LARGE);
    assert_same_bytes(&client.post("/body", &body).body, &body);
    let answer = client.exchange(
        "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    assert_eq!(answer.text(), "abcdefg");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let answer = client.exchange("HEAD /bytes/5?length HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.head.get("content-length"), Some("5"));
    assert_eq!(client.get("/bytes/3").body, pattern(3));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for len in [0, 1, 70_000, LARGE] {
            assert_same_bytes(
                &client.get(&format!("/bytes/{len}")).await.unwrap().body,
                &pattern(len),
            );
            let body = pattern(len);
            assert_same_bytes(&client.post("/body", &body).await.unwrap().body, &body);
        }
        let (answer, stream) = client.begin(request("POST", "/body"), true).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        send_all(stream, b"payload", Some(trailers)).await.unwrap();
        let answer = read(answer).await.unwrap();
        assert_eq!(
            (answer.text().as_str(), answer.trailer("x-sum")),
            ("payload", "7")
        );
        assert_eq!(
            client.get("/trailers").await.unwrap().trailer("x-sum"),
            "42"
        );
    });
    assert_eq!(origin.connections(), 1);
}

/// Goal: the rest of a body that a refused request leaves is never taken for the next request, which could be smuggled
/// in it. Regression: bytes that were followed and waited for the endpoint's window were read again as what follows the
/// body. Method: bodies around what an endpoint takes that reads nothing, to the route's time-out; then a request on
/// the same connection.
#[test]
fn a_refused_body_leaves_nothing_behind() {
    let origin = Http2Origin::start(100);
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, timeout: 200ms }}] }}\nclusters:\n  \
         app: {{ endpoints: {{ static: ['{origin}'] }}, protocol: http2 }}\n"
    ));
    // The window that an endpoint has from the beginning (RFC 9113, 6.9.2).
    const WINDOW: usize = 65_535;
    for beyond in [1, 300, 5_000] {
        let mut client = proxy.client();
        let answer = client.post("/never", &vec![b'G'; WINDOW + beyond]);
        assert_eq!(answer.status, 504, "{beyond}");
        let text = client.get("/next").text();
        assert!(text.starts_with("GET http://"), "{beyond}: {text}");
    }
}

/// Goal: requests share a connection, and more are made only where the endpoint allows no more streams.
/// Method: a hundred at once, to an endpoint that takes a hundred, and to one that takes ten.
#[test]
fn connections_are_shared() {
    for streams_max in [100, 10] {
        let origin = Http2Origin::start(streams_max);
        let proxy = before(&origin, "");
        run(async {
            let (mut client, _) = Http2::connect(proxy.web()).await;
            // From here on the endpoint's settings are known.
            client.get("/bytes/1").await.unwrap();
            let mut never = Vec::new();
            for _ in 0..99 {
                never.push(client.begin(request("GET", "/never"), false).await.unwrap());
            }
            until(|| origin.requests() == 100).await;
            assert_same_bytes(
                &client.get("/bytes/30000").await.unwrap().body,
                &pattern(30_000),
            );
        });
        assert_eq!(origin.connections(), 100 / streams_max as usize);
        eventually("the calls' end at the endpoint", || {
            (origin.resets() == 99).then_some(())
        });
    }
}

/// Goal: an endpoint that ends its connections again and again costs no request, whatever the method: what
/// it has not taken is sent to another connection. Method: a GOAWAY at each request, under many at once.
#[test]
fn an_endpoint_that_goes_away_loses_nothing() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        origin.go_away(true);
        for _ in 0..20 {
            let mut begun = Vec::new();
            for _ in 0..10 {
                begun.push(
                    client
                        .begin(request("POST", "/bytes/3000"), false)
                        .await
                        .unwrap()
                        .0,
                );
            }
            for answer in begun {
                let answer = read(answer).await.unwrap();
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.body, pattern(3000));
            }
        }
    });
    assert!(origin.connections() >= 20, "{}", origin.connections());
}

/// Goal: a request that the endpoint refuses unread is sent again once, whatever its method; not for ever.
/// Method: endpoints that refuse one, and all.
#[test]
fn refused_streams_are_sent_again() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "");
    let mut client = proxy.client();
    origin.refuse(1);
    assert_eq!(
        client
            .exchange("POST /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n")
            .body,
        pattern(3)
    );
    assert_eq!(origin.requests(), 1);
    origin.refuse(1000);
    let answer = client.exchange("POST /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (answer.status, answer.head.get("x-tidegate-reason")),
        (502, Some("upstream_reset"))
    );
}

/// Goal: who gives up, gives up at the endpoint, and no more than its own request. Method: streams that are
/// reset, in HTTP/1 connections that close; others on the same connection go on.
#[test]
fn giving_up_is_passed_on() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let (answer, mut stream) = client.begin(request("POST", "/never"), true).await.unwrap();
        until(|| origin.requests() == 1).await;
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        until(|| origin.resets() == 1).await;
        assert_eq!(client.get("/bytes/3").await.unwrap().body, pattern(3));
    });
    assert_eq!(origin.connections(), 1);
}

/// Goal: a client that does not read holds up its own stream alone, though it shares the connection to the
/// endpoint. Method: a large answer that is left unread, others meanwhile, then it is read.
#[test]
fn a_slow_reader_holds_its_stream_alone() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, "");
    run(async {
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let (mut client, _) = Http2::connect_with(proxy.web(), &builder).await;
        let large = format!("/bytes/{LARGE}");
        let (slow, _) = client.begin(request("GET", &large), false).await.unwrap();
        let slow = slow.await.unwrap();
        for _ in 0..50 {
            assert_eq!(
                client.get("/bytes/20000").await.unwrap().body,
                pattern(20_000)
            );
        }
        assert_same_bytes(&read_body(slow).await.unwrap().body, &pattern(LARGE));
    });
    assert_eq!(origin.connections(), 1);
}

/// Goal: connections end when they are not needed, or have served enough, and no request notices. Method:
/// short idle time-outs; few requests a connection; a short age.
#[test]
fn connections_end_in_their_time() {
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, ", idle_timeout: 200ms");
    assert_eq!(proxy.client().get("/bytes/3").body, pattern(3));
    eventually("the idle connection's end", || {
        (origin.open_connections() == 0).then_some(())
    });
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, ", requests_per_connection: 5");
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/bytes/3").body, pattern(3));
    }
    assert_eq!(origin.connections(), 4);
    let origin = Http2Origin::start(100);
    let proxy = before(&origin, ", max_connection_age: 1s");
    let mut client = proxy.client();
    eventually("a second connection", || {
        assert_eq!(client.get("/bytes/3").body, pattern(3));
        (origin.connections() >= 2 && origin.open_connections() == 1).then_some(())
    });
    assert_eq!(proxy.metric("tidegate_shard_link_requests_lost_total"), 0.0);
}

/// Goal: the circuit counts requests and connections, not streams as connections. Method: two connections of
/// ten streams allowed; the next request is refused.
#[test]
fn the_circuit_counts_both() {
    let origin = Http2Origin::start(10);
    let proxy = before(&origin, ", circuit: { connections: 2, requests: 25 }");
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        client.get("/bytes/1").await.unwrap();
        let mut never = Vec::new();
        for _ in 0..20 {
            never.push(client.begin(request("GET", "/never"), false).await.unwrap());
        }
        until(|| origin.requests() == 21).await;
        let answer = client.get("/").await.unwrap();
        assert_eq!(answer.field("x-tidegate-reason"), "circuit_connections");
    });
}

/// Goal: an endpoint that breaks off does not look whole. Method: a server that closes inside an answer;
/// clients of both versions.
#[test]
fn a_broken_answer_is_reset() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut server = Frames::over(stream.unwrap());
            let mut preface = [0; 24];
            std::io::Read::read_exact(&mut server.stream, &mut preface).unwrap();
            server.send(frames::frame(frames::SETTINGS, 0, 0, &[]));
            let asked = server.until_kind(frames::HEADERS);
            let head = frames::block(&[(":status", "200")]);
            server.send(frames::frame(
                frames::HEADERS,
                frames::END_HEADERS,
                asked.stream,
                &head,
            ));
            server.send(frames::frame(frames::DATA, 0, asked.stream, b"half"));
        }
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  \
         app: {{ endpoints: {{ static: ['{address}'] }}, protocol: http2 }}\n"
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let broken = client.exchange(with("GET", "/", &[]), b"").await;
        assert_eq!(
            broken.unwrap_err().reason(),
            Some(h2::Reason::INTERNAL_ERROR)
        );
    });
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(client.response("GET").is_err());
}
