//! Time-outs: each ends what it names, with its reason, and nothing else.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::{Mutex, mpsc};

use common::{Origin, PATIENCE, Proxy, pattern, proxy};

/// An origin that reads requests and answers none.
fn silent() -> Origin {
    Origin::start(|peer| {
        peer.next_request()?;
        peer.wire.rest()?;
        Ok(())
    })
}

/// Goal: a head that does not arrive in time is answered with 408 and the connection closed, however
/// steadily it drips (slow loris). Method: half a head, then silence; and a head in drops.
#[test]
fn header_time_out() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { header: 300ms }\n",
        "{ to: app }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a.ex").unwrap();
    let response = client.answer_to(b"GET");
    assert_eq!(response.status, 408);
    assert_eq!(response.reason(), Some("header_timeout"));
    client.expect_close();

    let mut client = proxy.client();
    let started = std::time::Instant::now();
    let mut dropped = 0;
    // Dripping resets no clock: at some point the proxy has answered and the send fails.
    while client.send("X").is_ok() && started.elapsed() < PATIENCE {
        dropped += 1;
        common::pause(20);
    }
    assert!(
        started.elapsed() < PATIENCE,
        "dripped {dropped} bytes in peace"
    );
    assert!(origin.requests().is_empty());
}

/// Goal: a connection on which nothing was ever sent is closed too. Method: connect and wait.
#[test]
fn silent_connections_are_closed() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { header: 200ms, keep_alive: 200ms }\n",
        "{ to: app }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    let rest = client.rest().unwrap_or_default();
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 408"),
        "{rest}"
    );
}

/// Goal: a kept connection is closed after `keep_alive` without a word (an answer to no request would
/// be taken for the next one). Method: one request, then silence.
#[test]
fn keep_alive_time_out() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { keep_alive: 300ms }\n",
        "{ to: app }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    client.expect_close();
}

/// Goal: the route's time-out covers the wait for the answer. Method: a silent origin; 504 with the
/// reason, and the upstream connection is closed.
#[test]
fn request_time_out_before_the_answer() {
    let origin = silent();
    let proxy = Proxy::start(proxy::web(
        "{ to: app, timeout: 300ms }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    let response = client.get("/");
    assert_eq!(response.status, 504);
    assert_eq!(response.reason(), Some("request_timeout"));
    origin.wait_until_idle();
}

/// Goal: it covers the whole exchange: an answer that drips for ever is cut. Method: an origin that sends
/// a byte now and then; the client sees a broken body, not a whole one.
#[test]
fn request_time_out_in_the_answer() {
    let origin = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        loop {
            peer.wire.send("x")?;
            common::pause(20);
        }
    });
    let proxy = Proxy::start(proxy::web(
        "{ to: app, timeout: 500ms }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    assert!(client.response("GET").is_err());
    origin.wait_until_idle();
    let line = proxy.access_log(1).remove(0);
    assert!(line.to_string().contains("request_timeout"), "{line}");
}

/// Goal: `timeout: off` and a long answer are compatible; idle still ends a body that stands still. Method:
/// an origin that stops in the middle of its body.
#[test]
fn idle_time_out_in_the_answer() {
    let origin = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")?;
        peer.wire.rest()?;
        Ok(())
    });
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { idle: 300ms }\n",
        "{ to: app, timeout: off }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    client
        .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    assert!(client.response("GET").is_err());
    origin.wait_until_idle();
}

/// Goal: a client that stops in the middle of its request's body is let go. Method: half a body, then
/// silence.
#[test]
fn idle_time_out_in_the_request() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { idle: 300ms }\n",
        "{ to: app, timeout: off }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    client
        .send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100\r\n\r\nabc")
        .unwrap();
    let rest = client.rest().unwrap_or_default();
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 408") || rest.starts_with("HTTP/1.1 504"),
        "{rest}"
    );
    origin.wait_until_idle();
    assert!(origin.requests().is_empty());
}

/// Goal: a client that stops reading is let go. Method: a large answer of which nothing is read.
#[test]
fn idle_time_out_of_a_client_that_does_not_read() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { idle: 500ms }\n",
        "{ to: app, timeout: off }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    client
        .send("GET /bytes/50000000 HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    proxy.wait_for_metric("tidegate_shard_connections_open", |open| open == 1.0);
    proxy.wait_for_metric("tidegate_shard_connections_open", |open| open == 0.0);
    origin.wait_until_idle();
}

/// Goal: an endpoint that does not answer to connections is given up in time. Method: a listening socket
/// whose accept queue is full drops what comes.
#[test]
fn connect_time_out() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let full = socket.local_addr().unwrap().as_socket().unwrap();
    // A backlog of 0 holds one connection; more wait for their handshake without end.
    let fillers: Vec<_> = (0..3)
        .map(|_| {
            let filler =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&full.into());
            filler
        })
        .collect();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{full}'] }}, connect_timeout: 300ms }}\n"
    ));
    let response = proxy.client().get("/");
    assert_eq!(response.status, 504);
    assert_eq!(response.reason(), Some("connect_timeout"));
    drop(fillers);
}

/// Goal: a pooled connection is closed after the cluster's `idle_timeout`. Method: one request; the origin
/// sees the close.
#[test]
fn upstream_idle_time_out() {
    let (closed, wait_for_close) = mpsc::channel();
    let closed = Mutex::new(closed);
    let origin = Origin::start(move |peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        peer.wire.rest()?;
        closed.lock().unwrap().send(()).unwrap();
        Ok(())
    });
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }}, idle_timeout: 300ms }}\n"
    ));
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    wait_for_close.recv_timeout(PATIENCE).unwrap();
    // The client's own connection goes on.
    assert_eq!(client.get("/").status, 200);
    assert_eq!(origin.connections(), 2);
}

/// Goal: `per_try_timeout` with a retry mends an endpoint that hangs. Method: an origin that answers on
/// its second connection only.
#[test]
fn per_try_time_out() {
    let origin = Origin::start(|peer| {
        let request = peer.next_request()?;
        if peer.number == 0 || request.is_none() {
            peer.wire.rest()?;
            return Ok(());
        }
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let proxy = Proxy::start(proxy::web(
        "{ to: app, timeout: 20s, \
           retry: { on: [timeout], times: 1, per_try_timeout: 300ms, backoff: 1ms } }",
        &[("app", &origin)],
    ));
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(origin.connections(), 2);
}

/// Goal: a slow but moving exchange is not cut by the idle time-out. Method: a body in pieces whose pauses
/// are shorter than it, and whose whole is longer.
#[test]
fn slow_but_moving() {
    let origin = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire
            .send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")?;
        for byte in pattern(12) {
            peer.wire.send([byte])?;
            common::pause(100);
        }
        Ok(())
    });
    let proxy = Proxy::start(proxy::web_with(
        "    timeouts: { idle: 1s }\n",
        "{ to: app, timeout: off }",
        &[("app", &origin)],
    ));
    assert_eq!(proxy.client().get("/").body, pattern(12));
}
