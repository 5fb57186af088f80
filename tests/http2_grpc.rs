//! gRPC through the proxy, and what its clients are told when the proxy answers itself (L9): a status in
//! trailers, not one of HTTP.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{net::SocketAddr, path::Path, process::Command};

use common::{
    Origin, Proxy, eventually,
    http2::{Http2, read, run, send_all, with},
    http2_origin::Http2Origin,
    peer, proxy,
    tls::{Authority, CLIENT_ID, Identity, Leaf, SERVER_NAME},
};

const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

/// A side of gRPC at `address`; in TLS if it has an identity.
fn grpc_peer(
    python: &Path,
    authority: &Authority,
    side: &str,
    address: SocketAddr,
    identity: Option<&Identity>,
) -> Command {
    let mut command = Command::new(python);
    command.arg(peer::script("grpc_peer.py"));
    command.args([side, &address.to_string()]);
    if let Some(identity) = identity {
        command.args([
            &identity.certificate,
            &identity.private_key,
            &authority.pem(),
        ]);
    }
    command
}

/// Goal: refusals are trailers that stand alone, with the status that gRPC has for them and the reason.
/// Method: no route, an endpoint that is
/// gone, a time-out; beside them a client of HTTP, which gets statuses.
#[test]
fn refusals_are_trailers() {
    let silent = Origin::start(|peer| {
        peer.next_head()?;
        let _ = peer.wire.rest();
        Ok(())
    });
    let config = proxy::web(
        "{ match: { path: /none }, to: none }, { match: { path: /slow }, to: slow, timeout: 200ms }",
        &[("slow", &silent)],
    );
    // Nobody listens there any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "{config}  none: {{ endpoints: {{ static: ['{}'] }} }}\n",
        gone.local_addr().unwrap()
    );
    drop(gone);
    let proxy = Proxy::start(config);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for (path, status, grpc_status, reason) in [
            ("/elsewhere", 404, "12", "no_route"),
            ("/none", 503, "14", "connect_refused"),
            ("/slow", 504, "4", "request_timeout"),
        ] {
            let call = with("POST", path, &[GRPC, ("te", "trailers")]);
            let (answer, mut stream) = client.begin(call, true).await.unwrap();
            stream.send_data(vec![0; 5].into(), true).unwrap();
            let answer = read(answer).await.unwrap();
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.body.is_empty() && answer.trailers.is_empty());
            assert_eq!(answer.field("content-type"), "application/grpc");
            assert_eq!(answer.field("grpc-status"), grpc_status, "{path}");
            assert_eq!(answer.field("grpc-message"), reason);
            assert_eq!(answer.field("x-tidegate-reason"), reason);
            let web = with("POST", path, &[("content-type", "application/grpc-web")]);
            let answer = client.exchange(web, b"x").await.unwrap();
            assert_eq!(answer.status, status, "{path}");
        }
    });
    let log = proxy.access_log(6);
    assert_eq!(log[0]["tidegate.reason"], "no_route", "{log:?}");
}

/// Goal: the client's own time-out ends a call, if it is shorter than the route's. Method: an endpoint that
/// does not answer, behind a route with a long time-out.
#[test]
fn grpc_timeout_is_honoured() {
    let silent = Origin::start(|peer| {
        peer.next_head()?;
        let _ = peer.wire.rest();
        Ok(())
    });
    let proxy = Proxy::start(proxy::web(
        "{ to: slow, timeout: 1h }",
        &[("slow", &silent)],
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        let call = with("POST", "/", &[GRPC, ("grpc-timeout", "200m")]);
        let answer = client.exchange(call, b"x").await.unwrap();
        assert_eq!(answer.field("grpc-status"), "4");
    });
    silent.wait_until_idle();
}

/// Goal: gRPC passes end to end: every kind of call, trailers, statuses, deadlines. Method: gRPC's own client
/// and server, in plaintext and with certificates on both sides; its calls share a connection.
#[test]
fn grpc_end_to_end() {
    let Some(python) = peer::python("grpc, grpc_health.v1.health") else {
        return;
    };
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let client = authority.issue(&Leaf::client(CLIENT_ID));
    let secrets = format!(
        "secrets:\n{}{}{}",
        server.secret("server"),
        client.secret("client"),
        authority.secret("ca")
    );
    let grpc = |side: &str, address: SocketAddr, identity: Option<&Identity>| {
        grpc_peer(&python, &authority, side, address, identity)
    };
    for is_secure in [false, true] {
        let identity = is_secure.then_some(&server);
        let origin = peer::Server::start(|_, address| grpc("server", address, identity));
        let (listener, cluster) = match is_secure {
            true => (
                ", tls: { certificates: server, client_certificate: { trusted_ca: ca }, alpn: [h2] }",
                format!(
                    ", tls: {{ trusted_ca: ca, certificate: client, server_name: {SERVER_NAME} }}"
                ),
            ),
            false => ("", String::new()),
        };
        let proxy = Proxy::start(format!(
            "{secrets}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, timeout: off }}]{listener} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{}'] }}, protocol: http2{cluster} }}\n",
            origin.address
        ));
        let mut calls = grpc("client", proxy.web(), is_secure.then_some(&client));
        if is_secure {
            calls.arg(SERVER_NAME);
        }
        assert_eq!(peer::run(&mut calls), "done\n");
        assert!(proxy.metric("tidegate_shard_upstream_connects_total") <= 3.0);
        proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
    }
}

/// Goal: a client of gRPC need not try again itself, nor wait for a server that is stuck. Method: gRPC's own client and
/// servers: unary calls and a stream that fail at first, a message above what is kept, and calls of which every other
/// one meets a server that never answers.
#[test]
fn grpc_is_tried_again() {
    let Some(python) = peer::python("grpc, grpc_health.v1.health") else {
        return;
    };
    let authority = Authority::new();
    let grpc =
        |side: &str, address: SocketAddr| grpc_peer(&python, &authority, side, address, None);
    let server = peer::Server::start(|_, address| grpc("server", address));
    let stuck = peer::Server::start(|_, address| grpc("stuck", address));
    let proxy = Proxy::start(format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      \
         - {{ match: {{ path: /test.Peer/Think }}, to: both, timeout: off, \
         hedge: {{ delay: 50ms, unsafe_methods: true }} }}\n      \
         - {{ to: one, timeout: off, retry: {{ on: [unavailable] }} }}\n\
         clusters:\n  both: {{ endpoints: {{ static: ['{stuck}', '{server}'] }}, protocol: http2, balance: round_robin }}\n  \
         one: {{ endpoints: {{ static: ['{server}'] }}, protocol: http2 }}\n",
        stuck = stuck.address,
        server = server.address,
    ));
    assert_eq!(peer::run(&mut grpc("insistent", proxy.web())), "done\n");
    assert_eq!(proxy.metric("tidegate_shard_retries_total"), 4.0);
    assert_eq!(proxy.metric("tidegate_shard_replay_overflows_total"), 1.0);
    assert!(proxy.metric("tidegate_shard_hedges_won_total") >= 5.0);
    proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
    proxy.wait_for_metric("tidegate_shard_replay_bytes", |n| n == 0.0);
}

/// Goal: endpoints that speak HTTP/2 are checked in it: by a page, or by gRPC's own health service, which is to say
/// that it serves (H14). Method: gRPC's own server, in plaintext and with certificates, asked about what it knows;
/// and a server of pages.
#[test]
fn health_is_asked_in_http2() {
    let Some(python) = peer::python("grpc, grpc_health.v1.health") else {
        return;
    };
    let authority = Authority::new();
    let server = authority.issue(&Leaf::server(SERVER_NAME));
    let client = authority.issue(&Leaf::client(CLIENT_ID));
    let serve = |identity: Option<&Identity>| {
        peer::Server::start(|_, address| {
            grpc_peer(&python, &authority, "server", address, identity)
        })
    };
    let (plain, secure) = (serve(None), serve(Some(&server)));
    let pages = Http2Origin::start(100);
    let tls =
        format!(", tls: {{ trusted_ca: ca, certificate: client, server_name: {SERVER_NAME} }}");
    let checks = [
        ("whole", plain.address, "grpc: {}", "", "ok"),
        (
            "service",
            plain.address,
            "grpc: { service: test.Peer }",
            "",
            "ok",
        ),
        (
            "secure",
            secure.address,
            "grpc: { service: test.Peer }",
            &*tls,
            "ok",
        ),
        (
            "down",
            plain.address,
            "grpc: { service: test.Down }",
            "",
            "NOT_SERVING",
        ),
        (
            "other",
            plain.address,
            "grpc: { service: other }",
            "",
            "grpc-status NOT_FOUND",
        ),
        (
            "page",
            pages.address,
            "http: { path: /bytes/9000 }",
            "",
            "ok",
        ),
        (
            "status",
            pages.address,
            "http: { expect: [404] }",
            "",
            "status 200",
        ),
        (
            "no-grpc",
            pages.address,
            "grpc: {}",
            "",
            "not a gRPC answer",
        ),
    ];
    let clusters: String = checks
        .iter()
        .map(|(name, address, check, tls, _)| {
            format!(
                "  {name}: {{ endpoints: {{ static: ['{address}'] }}, protocol: http2, \
                 health: {{ {check}, interval: 100ms, timeout: 60s, unhealthy_after: 1, healthy_after: 1 }}{tls} }}\n"
            )
        })
        .collect();
    let proxy = Proxy::start(format!(
        "secrets:\n{}{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: whole }}] }}\nclusters:\n{clusters}",
        client.secret("client"),
        authority.secret("ca"),
    ));
    for (name, _, _, _, expected) in checks {
        eventually(name, || {
            let all: serde_json::Value =
                serde_json::from_str(&proxy.admin_get("/clusters").text()).unwrap();
            let clusters = all.as_array().unwrap();
            let cluster = clusters.iter().find(|c| c["name"] == name).unwrap();
            let last = &cluster["endpoints"][0]["health_check"]["last"];
            (last == expected).then_some(()).or_else(|| {
                assert!(last.is_null() || last == "", "{name}: {last}");
                None
            })
        });
    }
}

/// Goal: what came of a call is known by its status, wherever that stands: in the log and in the route's counters; and
/// an endpoint whose calls fail by its own fault is taken out as one that answers 5xx is (H2). Method: calls that end
/// well, with trailers, and with nothing but a status; then an endpoint that is unavailable beside one that serves.
#[test]
fn calls_are_judged_by_their_status() {
    let trailers = |status: u8| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: {status}\r\n\r\n"
        )
    };
    let origin = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            peer.wire.send(match request.head.target() {
                "/a.B/Well" => trailers(0),
                "/a.B/Missing" => trailers(5),
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            })?;
        }
        Ok(())
    });
    let proxy = Proxy::before(&origin);
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for (path, status) in [("/a.B/Well", "0"), ("/a.B/Missing", "5")] {
            let (answer, stream) = client
                .begin(with("POST", path, &[GRPC]), true)
                .await
                .unwrap();
            send_all(stream, b"\0\0\0\0\0", None).await.unwrap();
            let answer = read(answer).await.unwrap();
            assert_eq!(answer.trailer("grpc-status"), status);
        }
        client.get("/page").await.unwrap();
    });
    let log = proxy.access_log(3);
    let said: Vec<_> = log.iter().map(|l| &l["rpc.grpc.status_code"]).collect();
    assert_eq!(said[..2], [&serde_json::json!(0), &serde_json::json!(5)]);
    assert!(said[2].is_null(), "a page has none");
    // Streams have their numbers, and the endpoint its protocol.
    for (line, stream) in log.iter().zip([1, 3, 5]) {
        assert_eq!(line["tidegate.stream"], stream, "{line}");
        assert_eq!(line["tidegate.endpoint.protocol"], "HTTP/1.1", "{line}");
    }
    assert_eq!(proxy.metric("tidegate_route_grpc_calls_total"), 2.0);
    assert_eq!(proxy.metric("tidegate_route_grpc_failed_total"), 1.0);

    let unavailable = Http2Origin::with_status("14");
    let serving = Http2Origin::with_status("0");
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\nclusters:\n  \
         app: {{ endpoints: {{ static: ['{unavailable}', '{serving}'] }}, protocol: http2, heal: {{}} }}\n"
    ));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        while proxy.metric("tidegate_healing_ejections_total") == 0.0 {
            client.get("/").await.unwrap();
        }
        let before = unavailable.requests();
        for _ in 0..20 {
            assert_eq!(client.get("/").await.unwrap().field("grpc-status"), "0");
        }
        assert_eq!(unavailable.requests(), before);
    });
    let line = &proxy.access_log(1)[0];
    assert_eq!(line["tidegate.endpoint.protocol"], "HTTP/2", "{line}");
    let clusters: serde_json::Value =
        serde_json::from_str(&proxy.admin_get("/clusters").text()).unwrap();
    assert_eq!(clusters[0]["protocol"], "http2");
}
