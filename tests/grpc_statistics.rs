//! Calls of gRPC are counted by method, on routes that ask for it.
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
    http2::{Http2, read, run, send_all, with},
    peer, proxy,
};
use serde_json::{Value, json};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn methods(proxy: &Proxy) -> Vec<Value> {
    serde_json::from_str(&proxy.admin_get("/grpc").text()).unwrap()
}

/// The row of a method.
#[track_caller]
fn row(proxy: &Proxy, method: &str) -> Value {
    let all = methods(proxy);
    let found = all.iter().find(|row| row["method"] == method);
    found
        .unwrap_or_else(|| panic!("no {method} in {all:#?}"))
        .clone()
}

/// `count` messages of a byte.
fn messages(count: usize) -> Vec<u8> {
    b"\0\0\0\0\x01m".repeat(count)
}

/// Goal: statuses, messages and durations are told by method, in JSON, as text and as metrics; names that no service
/// knows have no row; a page that is no call is none; nothing is counted where nobody asked. Method: calls that end
/// well, badly, with a refusal of ours and unknown to the service, over an endpoint in HTTP/1 that answers in chunks
/// with trailers; then a reload without the key.
#[test]
fn calls_are_counted_by_method() {
    let origin = Origin::start(|peer| {
        while let Some(request) = peer.next_request()? {
            let status = match request.head.target() {
                "/a.B/Well" => 0,
                "/a.B/Missing" => 5,
                _ => 12,
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
                 12\r\n{}\r\n0\r\ngrpc-status: {status}\r\n\r\n",
                String::from_utf8(messages(3)).unwrap()
            );
            peer.wire.send(answer)?;
        }
        Ok(())
    });
    let config = |keys: &str| {
        proxy::web(
            &format!("{{ name: calls, to: app{keys} }}"),
            &[("app", &origin)],
        )
    };
    let proxy = Proxy::start(config(", grpc_statistics: true"));
    let call = async |client: &mut Http2, path: &str, fields: &[(&str, &str)]| {
        let head = with("POST", path, fields);
        let (answer, stream) = client.begin(head, true).await.unwrap();
        send_all(stream, &messages(2), None).await.unwrap();
        read(answer).await.unwrap()
    };
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        for path in [
            "/a.B/Well",
            "/a.B/Well",
            "/a.B/Missing",
            "/a.B/Made-Up",
            "/a.B/Made-Up-2",
        ] {
            call(&mut client, path, &[GRPC]).await;
        }
        call(&mut client, "/a.B/Well", &[]).await;
        call(&mut client, "/no-method", &[GRPC]).await;
    });
    assert_eq!(methods(&proxy).len(), 3);
    let well = row(&proxy, "Well");
    assert_eq!(
        (&well["listener"], &well["route"], &well["service"]),
        (&json!("web"), &json!("calls"), &json!("a.B"))
    );
    assert_eq!(well["statuses"], json!({ "OK": 2 }));
    assert_eq!(
        (&well["request_messages"], &well["response_messages"]),
        (&json!(4), &json!(6))
    );
    assert!(well["p50_s"].as_f64().unwrap() > 0.0);
    assert_eq!(
        row(&proxy, "Missing")["statuses"],
        json!({ "NOT_FOUND": 1 })
    );
    let other = row(&proxy, "other");
    assert_eq!(other["statuses"], json!({ "UNIMPLEMENTED": 2 }));
    assert_eq!(other["request_messages"], 4);

    let text = proxy.admin_get("/grpc?format=text").text();
    let line = "web/calls a.B/Well: 2 calls, 2 OK; 4 messages in, 6 out, p50 ";
    assert!(text.contains(line), "{text}");
    let metrics = proxy.admin_get("/stats/prometheus").text();
    let labels = "listener=\"web\",route=\"calls\",service=\"a.B\",method=\"Well\"";
    for series in [
        format!("tidegate_grpc_calls_total{{{labels},status=\"OK\"}} 2\n"),
        format!("tidegate_grpc_request_messages_total{{{labels}}} 4\n"),
        format!("tidegate_grpc_response_messages_total{{{labels}}} 6\n"),
        format!("tidegate_grpc_call_seconds_bucket{{{labels},le=\"+Inf\"}} 2\n"),
        format!("tidegate_grpc_call_seconds_count{{{labels}}} 2\n"),
    ] {
        assert!(metrics.contains(&series), "{series} in\n{metrics}");
    }

    proxy.reload(config(", grpc_statistics: true, timeout: 3s"));
    assert_eq!(row(&proxy, "Well")["calls"], 2, "kept over a reload");
    proxy.reload(config(""));
    run(async {
        let (mut client, _) = Http2::connect(proxy.web()).await;
        call(&mut client, "/a.B/Well", &[GRPC]).await;
    });
    assert!(methods(&proxy).is_empty());
}

/// Goal: every kind of call is counted, as gRPC's own ends see it, also where a message is sent again. Method: gRPC's
/// own client and server, whose calls are known; an endpoint that fails at first.
#[test]
fn calls_of_grpc_are_counted() {
    let Some(python) = peer::python("grpc, grpc_health.v1.health") else {
        return;
    };
    let side = |side: &str, address: std::net::SocketAddr| {
        let mut command = std::process::Command::new(&python);
        command
            .arg(peer::script("grpc_peer.py"))
            .args([side, &address.to_string()]);
        command
    };
    let server = peer::Server::start(|_, address| side("server", address));
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: \
         [{{ to: app, timeout: off, grpc_statistics: true, retry: {{ on: [unavailable] }} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{}'] }}, protocol: http2 }}\n",
        server.address
    ));
    assert_eq!(peer::run(&mut side("client", proxy.web())), "done\n");
    assert_eq!(peer::run(&mut side("insistent", proxy.web())), "done\n");
    proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
    for (method, statuses, requests, responses) in [
        ("Echo", json!({ "OK": 1003 }), 1003, 1003),
        ("Fail", json!({ "FAILED_PRECONDITION": 1 }), 1, 0),
        ("Count", json!({ "OK": 1 }), 1, 1000),
        ("Total", json!({ "OK": 1 }), 300, 1),
        ("EchoEach", json!({ "OK": 1 }), 300, 300),
        ("FailFirst", json!({ "OK": 3, "UNAVAILABLE": 1 }), 4, 3),
        ("FailFirstEach", json!({ "OK": 1 }), 100, 100),
    ] {
        let row = row(&proxy, method);
        assert_eq!(row["statuses"], statuses, "{method}");
        let messages = (&row["request_messages"], &row["response_messages"]);
        assert_eq!(messages, (&json!(requests), &json!(responses)), "{method}");
    }
}
