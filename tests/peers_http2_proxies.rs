//! Proxies that others wrote on either side of us, in HTTP/2 with prior knowledge: what a client sends and gets is the
//! same as without them.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::net::SocketAddr;

use common::{
    Origin, Proxy, assert_same_bytes,
    client::exchange_all,
    http2::{Http2, read, request, run},
    pattern, peer,
};

/// Requests at once.
const AT_ONCE: usize = 60;

/// We ask `address` in HTTP/2.
fn before(address: SocketAddr) -> Proxy {
    Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  \
         app: {{ endpoints: {{ static: ['{address}'] }}, protocol: http2 }}\n"
    ))
}

/// Many requests at once on one connection, large ones among them, a body both ways, and trailers where the peer
/// `passes_trailers`.
#[track_caller]
fn exchange_at_once(address: SocketAddr, passes_trailers: bool) {
    let body = pattern(1_000_000);
    run(async {
        let (mut client, _) = Http2::connect(address).await;
        let mut answers = Vec::new();
        for number in 0..AT_ONCE {
            let path = match number % 10 {
                0 => String::from("/chunked/100000"),
                _ => format!("/{number}"),
            };
            let (answer, _) = client.begin(request("GET", &path), false).await.unwrap();
            // Read at once: what lies unread of one holds up the connection's window for all.
            answers.push((number, tokio::spawn(read(answer))));
        }
        for (number, answer) in answers {
            let answer = answer.await.unwrap().unwrap();
            match number % 10 {
                0 => assert_same_bytes(&answer.body, &pattern(100_000)),
                _ => assert!(
                    answer
                        .text()
                        .starts_with(&format!("GET /{number} HTTP/1.1"))
                ),
            }
        }
        let echoed = client.post("/body", &body).await.unwrap();
        assert_same_bytes(&echoed.body, &body);
        if passes_trailers {
            let answer = client.get("/trailers").await.unwrap();
            assert_eq!(
                (&*answer.text(), answer.trailer("x-sum")),
                ("hello world", "42")
            );
        }
    });
}

/// Whether requests came over few connections, each of many.
#[track_caller]
fn shared_connections(proxy: &Proxy) {
    let streams = proxy.metric("tidegate_shard_http2_streams_total");
    let connections = proxy.metric("tidegate_shard_http2_connections_total");
    assert!(connections > 0.0, "nothing came in HTTP/2");
    assert!(streams > 10.0 * connections, "{streams} on {connections}");
}

/// Goal: nginx as a server in HTTP/2 behind us. Method: it passes on to an echo; it closes a connection after fifty
/// requests, which hurts none.
#[test]
fn nginx_behind() {
    let Some(program) = peer::program("nginx") else {
        return;
    };
    let origin = Origin::echo();
    let server = peer::nginx(&program, |_, address| {
        format!(
            "keepalive_requests 50; server {{ listen {address} http2;\n\
             location / {{ proxy_pass http://{origin}; proxy_http_version 1.1; proxy_buffering off;\n\
             add_header x-seen $server_protocol; }} }}"
        )
    });
    let proxy = before(server.address);
    assert_eq!(proxy.client().get("/").head.get("x-seen"), Some("HTTP/2.0"));
    for _ in 0..3 {
        exchange_all(proxy.web());
    }
    // nginx drops trailers of what it passes on.
    exchange_at_once(proxy.web(), false);
}

/// Goal: nginx as a client in HTTP/2 before us, which it is for gRPC alone. Method: `grpc_pass`, which passes any
/// request in HTTP/2 on.
#[test]
fn nginx_before() {
    let Some(program) = peer::program("nginx") else {
        return;
    };
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let server = peer::nginx(&program, |_, address| {
        format!(
            "upstream us {{ server {}; keepalive 4; }}\n\
             server {{ listen {address} http2; location / {{ grpc_pass grpc://us; }} }}",
            proxy.web()
        )
    });
    exchange_at_once(server.address, true);
    assert!(proxy.metric("tidegate_shard_http2_streams_total") > AT_ONCE as f64);
}

/// Goal: HAProxy as a server in HTTP/2 behind us. Method: it says to the origin what it saw.
#[test]
fn haproxy_behind() {
    let Some(program) = peer::program("haproxy") else {
        return;
    };
    let origin = Origin::echo();
    let server = peer::haproxy(&program, |address| {
        format!(
            "frontend in\n  bind {address} proto h2\n  http-request set-header x-seen %HV\n  \
             default_backend app\nbackend app\n  server app {origin}\n"
        )
    });
    let proxy = before(server.address);
    let text = proxy.client().get("/").text();
    assert!(text.contains("x-seen: HTTP/2.0"), "{text}");
    exchange_all(proxy.web());
    exchange_at_once(proxy.web(), true);
}

/// Goal: HAProxy as a client in HTTP/2 before us. Method: HTTP/1 and HTTP/2 into HAProxy; its requests share
/// connections to us.
#[test]
fn haproxy_before() {
    let Some(program) = peer::program("haproxy") else {
        return;
    };
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let server = peer::haproxy(&program, |address| {
        format!(
            "frontend in\n  bind {address}\n  default_backend us\nfrontend in2\n  bind {} proto h2\n  \
             default_backend us\nbackend us\n  http-reuse always\n  server us {} proto h2\n",
            "127.0.0.2:".to_owned() + &address.port().to_string(),
            proxy.web(),
        )
    });
    exchange_all(server.address);
    exchange_at_once(
        SocketAddr::from(([127, 0, 0, 2], server.address.port())),
        true,
    );
    shared_connections(&proxy);
}

/// Goal: Envoy as a server in HTTP/2 behind us. Method: its codec is by the first bytes; what it counted.
#[test]
fn envoy_behind() {
    let Some(program) = peer::envoy() else {
        return;
    };
    let origin = Origin::echo();
    let server = peer::envoy_before(&program, origin.address, "null", "null");
    let proxy = before(server.address);
    exchange_all(proxy.web());
    // Envoy drops trailers of origins in HTTP/1 unless it is told not to.
    exchange_at_once(proxy.web(), false);
}

/// Goal: Envoy as a client in HTTP/2 before us. Method: HTTP/1 and HTTP/2 into Envoy; its requests share
/// connections to us; a drain of ours hurts none.
#[test]
fn envoy_before() {
    let Some(program) = peer::envoy() else {
        return;
    };
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let server = peer::envoy_in_http2_before(&program, proxy.web());
    exchange_all(server.address);
    exchange_at_once(server.address, true);
    shared_connections(&proxy);
}

/// Goal: Python's httpx in HTTP/2. Method: the script beside the tests, in plaintext by prior knowledge and in TLS by
/// ALPN.
#[test]
fn python_httpx() {
    let Some(python) = peer::python("httpx, h2") else {
        return;
    };
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let out = peer::run(
        std::process::Command::new(python)
            .arg(peer::script("httpx_client.py"))
            .arg(format!("http://{}", proxy.web())),
    );
    assert!(out.starts_with("ok "), "{out}");
    assert!(proxy.metric("tidegate_shard_http2_streams_total") > 100.0);
}
