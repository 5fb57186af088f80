//! Origins that misbehave, and connections to them: what is reused, what never is, what is tried again.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use common::{Client, Origin, Proxy, assert_same_bytes, pattern, proxy};

/// Goal: an answer that is no HTTP is a 502, and its connection is done with. Method: each of a table of
/// broken heads; the origin counts connections.
#[test]
fn broken_answers_are_502_and_never_reused() {
    let cases = [
        ("garbage", "\x16\x03\x01\x02\x00\x01\x00\x01"),
        ("no version", "200 OK\r\n\r\n"),
        (
            "lower-case version",
            "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("HTTP/2", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "two-digit status",
            "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("status 099", "HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        (
            "folded field",
            "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "space before the colon",
            "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        ),
        (
            "NUL",
            "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "bad length",
            "HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
        ),
        (
            "length and chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "unknown coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "204 with a coding",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "101 out of nowhere",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        ("closed in the head", ""),
    ];
    for (name, answer) in cases {
        let origin = if answer.is_empty() {
            Origin::saying_once("HTTP/1.1 200 OK\r\nContent-Le")
        } else {
            Origin::saying(answer)
        };
        let proxy = Proxy::before(&origin);
        let mut client = proxy.client();
        for i in 1..=2 {
            let response = client.post("/", b"x");
            assert_eq!(response.status, 502, "{name}");
            assert!(
                matches!(
                    response.reason(),
                    Some("upstream_protocol" | "upstream_reset")
                ),
                "{name}: {:?}",
                response.reason()
            );
            assert_eq!(origin.connections(), i, "{name}: reused");
        }
        origin.wait_until_idle();
    }
}

/// Goal: bytes behind an answer never become the next one (response smuggling). Method: an origin that
/// sends two answers to one request, in one write; the next client must get its own.
#[test]
fn surplus_bytes_are_not_the_next_answer() {
    let origin = Origin::start(|peer| {
        let number = peer.number;
        while let Some(request) = peer.next_request()? {
            let own = format!("{number}{}", request.head.target());
            let mut reply = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{own}",
                own.len()
            );
            if request.head.target() == "/poison" {
                reply.push_str("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            }
            peer.wire.send(reply)?;
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    for _ in 0..20 {
        let response = common::client::get(proxy.web(), "/poison");
        assert!(response.text().ends_with("/poison"));
        let response = common::client::get(proxy.web(), "/victim");
        assert!(response.text().ends_with("/victim"), "{}", response.text());
    }
}

/// Goal: a body that breaks off is seen as broken by the client. Method: an origin that closes or resets
/// in the middle, with each framing; the client's connection must not end as if all was well.
#[test]
fn answers_that_break_off() {
    for (framing, complete) in [
        ("Content-Length: 100000", false),
        ("Transfer-Encoding: chunked", false),
    ] {
        for reset in [false, true] {
            let origin = Origin::start(move |peer| {
                peer.next_request()?;
                peer.wire
                    .send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))?;
                if framing.starts_with('T') {
                    peer.wire.send("1388\r\n")?;
                }
                peer.wire.send(pattern(5000))?;
                if reset {
                    std::mem::replace(&mut peer.wire, dead_wire()).reset();
                }
                Ok(())
            });
            let proxy = Proxy::before(&origin);
            let mut client = proxy.client();
            client
                .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                .unwrap();
            let outcome = client.response("GET");
            let whole = outcome.as_ref().is_ok_and(|r| r.status == 200);
            assert_eq!(whole, complete, "{framing}, reset {reset}: {outcome:?}");
            assert_eq!(origin.connections(), 1);
        }
    }
}

/// A connection to nowhere, to swap in for one that is to be reset.
fn dead_wire() -> common::Wire {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    common::Wire::new(std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap())
}

/// Goal: chunks that break are not passed on as if they were whole, and the connection is done with.
/// Method: a bad size after a good chunk.
#[test]
fn answers_whose_chunks_break() {
    for bad in [
        "zz\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "0\r\nX 1\r\n\r\n",
    ] {
        let origin = Origin::saying(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{bad}"
        ));
        let proxy = Proxy::before(&origin);
        for round in 1..=2 {
            let mut client = proxy.client();
            client
                .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                .unwrap();
            let outcome = client.response("GET");
            assert!(
                outcome.as_ref().map_or(true, |r| r.status == 502),
                "{bad:?}: {outcome:?}"
            );
            assert_eq!(origin.connections(), round, "{bad:?}: reused");
        }
    }
}

/// Goal: an answer before the end of the request's body is passed on, and the upstream connection, whose
/// body was not read to the end, never serves another request (CVE-2025-4366). Method: an origin that
/// answers to the head and leaves the body unread; the next request must come on another connection.
#[test]
fn early_answers_and_unread_bodies() {
    let origin = Origin::start(|peer| {
        while let Ok(request) = peer.next_head() {
            if request.head.target() == "/early" {
                peer.wire
                    .send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")?;
                // The body stays unread; only the proxy can keep this connection from being reused.
                continue;
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    for round in 0..3 {
        let mut client = proxy.client();
        client
            .send(
                "POST /early HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n\
                 GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n",
            )
            .unwrap();
        let response = client.answer_to(b"POST");
        assert_eq!((response.status, response.text().as_str()), (413, "big"));
        let response = common::client::get(proxy.web(), "/next");
        assert_eq!(response.text(), "ok", "round {round}");
        let requests = origin.requests();
        let early = requests
            .iter()
            .rfind(|r| r.head.target() == "/early")
            .unwrap();
        let next = requests
            .iter()
            .rfind(|r| r.head.target() == "/next")
            .unwrap();
        assert_ne!(early.connection, next.connection);
    }
}

/// Goal: an early answer with a large body arrives whole though the client still sends. Method: both
/// directions at once, larger than every buffer.
#[test]
fn full_duplex_exchange() {
    let origin = Origin::start(|peer| {
        let request = peer.next_head()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let length: usize = request.head.get("content-length").unwrap().parse().unwrap();
        let mut left = length;
        while left > 0 {
            let piece = peer.wire.exactly(left.min(10_000))?;
            left -= piece.len();
            common::origin::send_chunk(&mut peer.wire.stream, &piece)?;
        }
        peer.wire.send("0\r\n\r\n")
    });
    let proxy = Proxy::before(&origin);
    let body = pattern(3_000_000);
    let mut client = proxy.client();
    let mut sender = client.stream.try_clone().unwrap();
    let to_send = body.clone();
    let thread = std::thread::spawn(move || {
        use std::io::Write;
        write!(
            sender,
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
            to_send.len()
        )
        .unwrap();
        sender.write_all(&to_send).unwrap();
    });
    let response = client.answer_to(b"POST");
    thread.join().unwrap();
    assert_same_bytes(&response.body, &body);
}

/// Goal: a kept connection that the origin has closed meanwhile costs no request. Method: the origin
/// closes after each answer without saying so; every GET succeeds all the same.
#[test]
fn stale_pooled_connections_are_tried_again() {
    let origin = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for i in 0..100 {
        assert_eq!(client.get(&format!("/{i}")).text(), "ok", "request {i}");
    }
}

/// Goal: the race that cannot be seen beforehand: a kept connection is closed when the request is already
/// on its way. Method: the origin closes on reading the second request of a connection; a GET is sent
/// again on a new one, a POST is not.
#[test]
fn a_request_that_meets_a_closing_connection() {
    let origin = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        peer.next_request()?;
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    for i in 0..10 {
        assert_eq!(client.get(&format!("/{i}")).text(), "ok", "request {i}");
    }
    // A POST that reached the origin may have done its work: once only.
    let mut once = proxy.client();
    let first = once.post("/p1", b"x").status;
    let second = once.post("/p2", b"x").status;
    assert!([200, 502].contains(&first) && [200, 502].contains(&second));
    for target in ["/p1", "/p2"] {
        let times = origin
            .requests()
            .iter()
            .filter(|r| r.head.target() == target)
            .count();
        assert_eq!(times, 1, "{target} was sent {times} times");
    }
}

/// Goal: an endpoint that refuses is named so. Method: a port that nobody listens on.
#[test]
fn connection_refused() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{closed}'] }} }}\n"
    ));
    let mut client = proxy.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.status, 503);
        assert_eq!(response.reason(), Some("connect_refused"));
    }
}

/// Goal: another endpoint is tried when one refuses, asked for or not: nothing was sent. Method: one dead and
/// one live endpoint, a route that retries on connect and one that says nothing of retries.
#[test]
fn retry_on_another_endpoint() {
    for retry in [", retry: { on: [connect], times: 1, backoff: 1ms }", ""] {
        another_endpoint_is_tried(retry);
    }
}

fn another_endpoint_is_tried(retry: &str) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app{retry} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{closed}', '{origin}'] }} }}\n"
    ));
    let mut client = proxy.client();
    for i in 0..20 {
        assert_eq!(client.get(&format!("/{i}")).status, 200);
        assert_eq!(client.post("/body", b"hello").text(), "hello");
    }
    let retried = proxy
        .access_log(40)
        .iter()
        .filter(|l| l.to_string().contains("resend_count"))
        .count();
    assert!(retried >= 10, "{retried}");
}

/// Goal: a route that says on what to retry is taken at its word. Method: one dead and one live endpoint, a
/// route that retries on a status only: the dead one shows.
#[test]
fn retry_only_on_what_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, retry: {{ on: [500], times: 1 }} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{closed}', '{origin}'] }} }}\n"
    ));
    let mut client = proxy.client();
    let refused = (0..4).filter(|_| client.get("/").reason() == Some("connect_refused"));
    assert_eq!(refused.count(), 2);
}

/// Goal: retries by status happen at most `times` and end with the last answer. Method: an origin that
/// fails n times; n at and one above the limit.
#[test]
fn retry_on_status() {
    for (failures, expected, tries) in [(2, 200, 3), (3, 503, 3)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let origin = Origin::start(move |peer| {
            while peer.next_request()?.is_some() {
                let status = if counter.fetch_add(1, Ordering::SeqCst) < failures {
                    503
                } else {
                    200
                };
                peer.wire
                    .send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))?;
            }
            Ok(())
        });
        let proxy = Proxy::start(proxy::web(
            "{ to: app, retry: { on: [503], times: 2, backoff: 1ms } }",
            &[("app", &origin)],
        ));
        assert_eq!(proxy.client().get("/").status, expected);
        assert_eq!(count.load(Ordering::SeqCst), tries);
    }
}

/// Goal: a POST whose connection breaks is not sent twice; a GET is (RFC 9110, 9.2.2). Method: an origin
/// that reads the first request and closes, a route that retries on reset.
#[test]
fn only_idempotent_requests_are_sent_twice() {
    for (method, expected, tries) in [("GET", 200, 2), ("POST", 502, 1)] {
        let origin = Origin::start(|peer| {
            peer.next_request()?;
            if peer.number == 0 {
                return Ok(());
            }
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        });
        let proxy = Proxy::start(proxy::web(
            "{ to: app, retry: { on: [connect, reset], times: 2, backoff: 1ms } }",
            &[("app", &origin)],
        ));
        let response = proxy.client().exchange(format!(
            "{method} / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(response.status, expected, "{method}");
        assert_eq!(origin.requests().len(), tries, "{method}");
    }
}

/// Goal: a client that goes away frees the upstream connection's work: it is closed, not reused and not
/// left. Method: the client resets while the origin holds its answer; the origin sees the close.
#[test]
fn a_gone_client_ends_the_upstream_exchange() {
    let (arrived, wait_for_arrival) = mpsc::channel();
    let (closed, wait_for_close) = mpsc::channel();
    let channels = Mutex::new((arrived, closed));
    let origin = Origin::start(move |peer| {
        peer.next_request()?;
        channels.lock().unwrap().0.send(()).unwrap();
        let end = peer.wire.rest();
        channels.lock().unwrap().1.send(end.is_ok()).unwrap();
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    wait_for_arrival.recv_timeout(common::PATIENCE).unwrap();
    client.into_wire().reset();
    wait_for_close.recv_timeout(common::PATIENCE).unwrap();
    let line = proxy.access_log(1).remove(0);
    assert!(line.to_string().contains("client_gone"), "{line}");
}

/// Goal: a request body that breaks off is not passed on as whole. Method: a client that announces more
/// than it sends and closes; the origin never sees a complete request.
#[test]
fn request_bodies_that_break_off() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = proxy.client();
        let start = if framing.starts_with('T') {
            "64\r\nhello"
        } else {
            "hello"
        };
        client
            .send(format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n\r\n{start}"
            ))
            .unwrap();
        drop(client);
        origin.wait_until_idle();
    }
    assert!(origin.requests().is_empty());
    assert_eq!(proxy.client().get("/").status, 200);
}

/// Goal: connections of a cluster are limited, at the limit and one above. Method: one connection is
/// allowed and busy; the next request is refused, and served when it is free.
#[test]
fn circuit_of_connections() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |peer| {
        while peer.next_request()?.is_some() {
            let _ = gate.lock().unwrap().recv_timeout(common::PATIENCE);
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, circuit: {{ connections: 1 }} }}\n"
    ));
    let mut held = proxy.client();
    held.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    origin.wait_for_requests(1);
    let response = proxy.client().get("/");
    assert_eq!(response.status, 503);
    assert_eq!(response.reason(), Some("circuit_connections"));
    release.send(()).unwrap();
    assert_eq!(held.answer_to(b"GET").status, 200);
    release.send(()).unwrap();
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(origin.connections(), 1);
}

/// Goal: a retry is not made once the client's body was taken, and nothing of it is kept. Method: a chunked PUT whose
/// origin closes after the head and some of the body, on a route that would retry; the origin sees it once.
#[test]
fn a_taken_body_is_not_sent_twice() {
    let origin = Origin::start(|peer| {
        peer.next_head()?;
        peer.wire.exactly(1000)?;
        Ok(())
    });
    let proxy = Proxy::start(proxy::web(
        "{ to: app, retry: { on: [connect, reset, 5xx], times: 3, backoff: 1ms, buffer: 0B } }",
        &[("app", &origin)],
    ));
    let mut request =
        b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..10 {
        common::origin::send_chunk(&mut request, &pattern(1000)).unwrap();
    }
    let mut client = proxy.client();
    let _ = client.send(&request);
    if let Ok(response) = client.response("PUT") {
        assert_eq!(response.status, 502);
    }
    origin.wait_until_idle();
    assert_eq!(origin.requests().len(), 1);
}

/// Goal: circuit limits hold, at the limit and one above. Method: two requests in flight are allowed; the
/// third is refused at once, and served when one has ended.
#[test]
fn circuit_of_requests() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::start(move |peer| {
        while peer.next_request()?.is_some() {
            let _ = gate.lock().unwrap().recv_timeout(common::PATIENCE);
            peer.wire
                .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, circuit: {{ requests: 2 }} }}\n"
    ));
    let mut held: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut held {
        client
            .send("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .unwrap();
    }
    origin.wait_for_requests(2);
    let response = proxy.client().get("/third");
    assert_eq!(response.status, 503);
    assert_eq!(response.reason(), Some("circuit_requests"));
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    for client in &mut held {
        assert_eq!(client.answer_to(b"GET").status, 200);
    }
    assert_eq!(proxy.client().get("/fourth").status, 200);
}
