//! Rate limits of routes end to end: token buckets over all shards (L13, L8, L10).
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
    Client, Origin, Proxy, Response,
    proxy::{Setup, web},
};
use serde_json::{Value, json};

/// A limit that does not drip while a test runs.
fn limit(burst: u32, more: &str) -> String {
    format!("{{ requests: 1, per: 24h, burst: {burst}{more} }}")
}

fn route(limits: &str) -> String {
    format!("{{ name: all, to: app, rate_limits: [{limits}] }}")
}

fn get(client: &mut Client, headers: &str) -> Response {
    client.exchange(format!(
        "GET /a HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n"
    ))
}

/// How many of `times` requests on connections of their own are let in; the others are refused for the limit.
#[track_caller]
fn admitted(proxy: &Proxy, times: usize, headers: &str) -> usize {
    let answers = (0..times).map(|_| get(&mut proxy.client(), headers));
    let is_admitted = |answer: &Response| match answer.status {
        200 => true,
        429 => false,
        status => panic!("status {status}"),
    };
    answers.filter(is_admitted).count()
}

fn rates(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.admin_get("/limits/rates").text()).unwrap()
}

/// Goal: a limit is of all shards together; who is over it is told so, why, and when to come back, in the
/// answer, the log, the view and the metrics; the connection stays (L8, L10, L13). Method: two shards and more
/// requests than the burst, each on a connection of its own; then on one, with a body that is not sent on.
#[test]
fn all_shards_share_a_limit() {
    let origin = Origin::named("app");
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    let proxy = Proxy::start_with(&setup, web(&route(&limit(10, "")), &[("app", &origin)]));
    assert_eq!(admitted(&proxy, 30, ""), 10);
    let mut client = proxy.client();
    let refused =
        client.exchange("POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.head.get("x-tidegate-reason"), Some("rate_limited"));
    let wait: u64 = refused.head.get("retry-after").unwrap().parse().unwrap();
    assert!((80_000..=86_400).contains(&wait), "{wait}");
    assert_eq!(get(&mut client, "").status, 429, "on the same connection");
    let view = rates(&proxy);
    assert_eq!(view[0]["limited"], json!(22), "{view}");
    assert_eq!(
        [&view[0]["listener"], &view[0]["route"], &view[0]["by"]],
        ["web", "all", "route"]
    );
    assert_eq!(proxy.metric("tidegate_rate_limited_total"), 22.0);
    let text = proxy.admin_get("/limits?format=text").text();
    assert!(text.contains("rate limit web/all by route"), "{text}");
    let log = proxy.access_log(32);
    let lines: Vec<_> = log
        .iter()
        .filter(|line| line["tidegate.reason"] == "rate_limited")
        .collect();
    assert_eq!(lines.len(), 22);
    assert_eq!(lines[0]["tidegate.rate_limit.burst"], json!(10));
    assert!(
        lines[0]["network.peer.address"].is_null(),
        "no endpoint was asked"
    );
}

/// Goal: what a limit is told apart by has a bucket of its own; who does not carry it shares one (L13).
/// Method: two keys and none, by header; the same client by address.
#[test]
fn keys_have_limits_of_their_own() {
    let origin = Origin::named("app");
    let by_header = limit(3, ", by: { header: X-Api-Key }");
    let proxy = Proxy::start(web(&route(&by_header), &[("app", &origin)]));
    for headers in ["X-Api-Key: one\r\n", "X-Api-Key: two\r\n", ""] {
        assert_eq!(admitted(&proxy, 5, headers), 3, "{headers}");
    }
    let by_client = limit(2, ", by: client_ip");
    proxy.reload(web(&route(&by_client), &[("app", &origin)]));
    assert_eq!(admitted(&proxy, 5, "X-Api-Key: three\r\n"), 2);
}

/// Goal: each limit of a route has to let a request in, whatever the route does (L13). Method: a route that
/// answers by itself, with a wide and a narrow limit.
#[test]
fn the_narrowest_limit_binds() {
    let origin = Origin::named("app");
    let limits = [limit(100, ""), limit(4, ", by: client_ip")].join(", ");
    let routes = format!(
        "{{ name: own, match: {{ path: /a }}, respond: {{ status: 200 }}, rate_limits: [{limits}] }}, {{ to: app }}"
    );
    let proxy = Proxy::start(web(&routes, &[("app", &origin)]));
    assert_eq!(admitted(&proxy, 10, ""), 4);
    let limited: Vec<_> = (0..2)
        .map(|i| rates(&proxy)[i]["limited"].clone())
        .collect();
    assert_eq!(limited, [json!(0), json!(6)]);
}

/// Goal: in shadow nothing is refused, and what would be is counted (L11). A reload that leaves a limit as it is
/// does not fill its bucket; enforcing what was in shadow goes on from what it saw; another limit begins anew.
/// Method: three reloads, with the bucket's state asked for after each.
#[test]
fn shadow_and_reloads() {
    let origin = Origin::named("app");
    let with = |limits: &str| web(&route(limits), &[("app", &origin)]);
    let proxy = Proxy::start(with(&limit(5, ", mode: shadow")));
    assert_eq!(admitted(&proxy, 8, ""), 8);
    assert_eq!(rates(&proxy)[0]["would_limit"], json!(3));
    proxy.reload(with(&limit(5, "")));
    assert_eq!(admitted(&proxy, 2, ""), 0, "the bucket is as it was");
    proxy.reload(format!("{}drain_timeout: 9s\n", with(&limit(5, ""))));
    assert_eq!(admitted(&proxy, 2, ""), 0, "nor does another key fill it");
    proxy.reload(with(&limit(6, "")));
    assert_eq!(admitted(&proxy, 8, ""), 6);
}
