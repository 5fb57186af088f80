//! Limits over many proxies, kept by a service that speaks Envoy's protocol with gRPC's own server and messages
//! compiled from Envoy's protos (L13).
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::process::Command;

use common::{
    Origin, Proxy, Response, eventually,
    peer::{self, Server},
};
use serde_json::{Value, json};

/// Requests a day that the service grants each descriptor.
const GRANTED: usize = 6;

/// The service; `None` where its Python is not there.
#[track_caller]
fn service() -> Option<Server> {
    let python = peer::python("grpc, envoy.service.ratelimit.v3.rls_pb2_grpc")?;
    Some(Server::start(|_, address| {
        let mut command = Command::new(python);
        command
            .arg(peer::script("rate_limit_service.py"))
            .args([address.to_string(), GRANTED.to_string()]);
        command
    }))
}

/// Has `service` asked about all that goes to `origin`.
fn config(service: &Server, origin: &Origin, descriptors: &str, more: &str) -> String {
    format!(
        "rate_limit_service: {{ cluster: limiter, domain: edge, timeout: 20s{more} }}\n\
         listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, global_rate_limits: {descriptors} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n  \
         limiter: {{ protocol: http2, endpoints: {{ static: ['{}'] }} }}\n",
        service.address
    )
}

#[track_caller]
fn asking(service: &Server, origin: &Origin, descriptors: &str, more: &str) -> Proxy {
    Proxy::start(config(service, origin, descriptors, more))
}

/// What was asked so far.
fn questions(service: &Server) -> Vec<Value> {
    let log = std::fs::read_to_string(service.folder.join("log")).unwrap();
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn get(proxy: &Proxy, headers: &str) -> Response {
    proxy.client().exchange(format!(
        "GET /a?user=u1 HTTP/1.1\r\nHost: a.example\r\nCookie: s=c1; t=2\r\n{headers}\r\n"
    ))
}

fn view(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/limits/service").text()).unwrap()
}

/// Goal: a limit is of all proxies together; who is over it is told so, why, and when to come back, in the answer,
/// the log, the views and the metrics (L10, L13). Method: two proxies take turns beyond what is granted.
#[test]
fn proxies_share_a_limit() {
    let Some(service) = service() else { return };
    let origin = Origin::named("app");
    let descriptors = "[{ entries: [{ value: all }] }]";
    let proxies = [(); 2].map(|()| asking(&service, &origin, descriptors, ""));
    let answers: Vec<Response> = (0..10).map(|n| get(&proxies[n % 2], "")).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses[..GRANTED], [200; GRANTED]);
    assert_eq!(statuses[GRANTED..], [429; 4]);
    let refused = &answers[9];
    assert_eq!(refused.head.get("x-tidegate-reason"), Some("rate_limited"));
    assert_eq!(refused.head.get("retry-after"), Some("4321"));
    let log = proxies[1].access_log(5);
    let said = ["requests", "per", "by", "retry_after"]
        .map(|key| &log[4][format!("tidegate.rate_limit.{key}")]);
    assert_eq!(
        said,
        [
            &json!(GRANTED),
            &json!(86_400.0),
            &json!("service"),
            &json!(4321.0)
        ]
    );
    let view = view(&proxies[0]);
    assert_eq!(
        [&view["asked"], &view["limited"], &view["failed"]],
        [&json!(5), &json!(2), &json!(0)],
        "{view}"
    );
    let text = proxies[0].admin_get("/limits?format=text").text();
    let said = "rate limit service limiter domain edge: enforce, on failure allow; asked 5, 2 over a limit";
    assert!(text.contains(said), "{text}");
    assert_eq!(
        proxies[0].metric("tidegate_rate_limit_service_limited_total"),
        2.0
    );
}

/// Goal: the service is told what the file says, in that order, and is not asked about what a request does not have
/// (L13). Method: descriptors of every kind, requests with and without the header of one.
#[test]
fn descriptors_are_of_the_request() {
    let Some(service) = service() else { return };
    let origin = Origin::named("app");
    let descriptors = "[{ entries: [{ value: search, key: route }, { by: client_ip }, { by: { query: user } }] }, \
                        { entries: [{ by: { header: x-api-key }, key: api_key }, { by: { cookie: s } }] }]";
    let proxy = asking(&service, &origin, descriptors, "");
    assert_eq!(get(&proxy, "").status, 200);
    assert_eq!(get(&proxy, "X-Api-Key: k\u{e9}y\r\n").status, 200);
    let first = json!([
        ["route", "search"],
        ["remote_address", "127.0.0.1"],
        ["user", "u1"]
    ]);
    let second = json!([["api_key", "k\u{e9}y"], ["s", "c1"]]);
    let of =
        |descriptors: Value| json!({ "domain": "edge", "hits": 1, "descriptors": descriptors });
    assert_eq!(
        questions(&service),
        [of(json!([first])), of(json!([first, second]))]
    );
    let proxy = asking(
        &service,
        &origin,
        "[{ entries: [{ by: { header: x-api-key } }] }]",
        "",
    );
    assert_eq!(get(&proxy, "").status, 200);
    assert_eq!(view(&proxy)["asked"], json!(0), "nothing to ask about");
}

/// Goal: what the service cannot say does not stop traffic, unless the file says so; it is counted (L13). Method: each
/// way to have no answer, with both.
#[test]
fn failures_are_open_or_closed() {
    let Some(service) = service() else { return };
    let origin = Origin::named("app");
    for value in ["abort", "unknown"] {
        let descriptors = format!("[{{ entries: [{{ value: {value} }}] }}]");
        let open = asking(&service, &origin, &descriptors, "");
        assert_eq!(get(&open, "").status, 200, "{value}");
        let closed = asking(&service, &origin, &descriptors, ", on_failure: refuse");
        let refused = get(&closed, "");
        assert_eq!(
            (refused.status, refused.head.get("x-tidegate-reason")),
            (503, Some("rate_limit_service")),
            "{value}"
        );
        assert_eq!(view(&open)["failed"], json!(1));
        assert_eq!(
            closed.metric("tidegate_rate_limit_service_failed_total"),
            1.0
        );
    }
}

/// Goal: a service that does not answer holds a request for `timeout` and no longer, and hears of it (L13). Method: one
/// that never does, then one that does over the same connection.
#[test]
fn answers_are_waited_for_as_long_as_allowed() {
    let Some(service) = service() else { return };
    let origin = Origin::named("app");
    let descriptors = "[{ entries: [{ by: { header: x-value } }] }]";
    let patient = config(&service, &origin, descriptors, "");
    let proxy = Proxy::start(&patient);
    // The connection is there before the time-out is short.
    assert_eq!(get(&proxy, "X-Value: a\r\n").status, 200);
    proxy.reload(patient.replace("timeout: 20s", "timeout: 50ms"));
    assert_eq!(get(&proxy, "X-Value: never\r\n").status, 200);
    assert_eq!(view(&proxy)["failed"], json!(1));
    proxy.reload(&patient);
    assert_eq!(get(&proxy, "X-Value: bare\r\n").status, 429);
    assert_eq!(
        proxy.metric("tidegate_shard_upstream_connects_total"),
        2.0,
        "one to the service, one to the application"
    );
    eventually("the question", || {
        (questions(&service).len() == 3).then_some(())
    });
}

/// Goal: in shadow the service is asked, and everything is let in and counted (L11, L13). Method: more than is granted.
#[test]
fn shadow_lets_in() {
    let Some(service) = service() else { return };
    let origin = Origin::named("app");
    let descriptors = "[{ entries: [{ value: all }] }]";
    let proxy = asking(&service, &origin, descriptors, ", mode: shadow");
    for _ in 0..10 {
        assert_eq!(get(&proxy, "").status, 200);
    }
    assert_eq!(view(&proxy)["would_limit"], json!(10 - GRANTED));
}
