//! Routing as a client sees it: which requests go where, and what is changed on the way. The tables
//! themselves are tested in `core`; here it is that the data path asks them the right questions.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{Client, Origin, Proxy, proxy};

/// One proxy with every kind of condition, before three origins that say their names.
fn gateway() -> (Proxy, [Origin; 3]) {
    let origins = ["a", "b", "c"].map(Origin::named);
    let routes = "
      - { match: { host: exact.example, path: /only }, to: a }
      - { match: { host: '*.wild.example' }, to: b }
      - { match: { host: 'pre.*' }, to: c }
      - { match: { path: /exact }, to: a }
      - { match: { path: /prefix/** }, to: b }
      - { match: { path: '/users/{id}/orders' }, to: c }
      - { match: { path: '~^/v[12]/.*' }, to: a }
      - { match: { path: /method, method: [POST, PUT] }, to: a }
      - { match: { path: /method }, to: b }
      - { match: { path: /header, header: { x-canary: '1' } }, to: a }
      - { match: { path: /header, header: { x-tier: { prefix: gold } } }, to: b }
      - { match: { path: /header, header: { x-gone: { absent: true } } }, to: c }
      - { match: { path: /query, query: { v: '2' } }, to: a }
      - { match: { path: /query, query: { debug: { present: true } } }, to: b }
      - { match: { path: /moved }, redirect: { status: 301, scheme: https, host: new.example, path: /here } }
      - { match: { path: /short }, redirect: /elsewhere }
      - { match: { path: /direct }, respond: { status: 418, body: 'short and stout', content_type: text/teapot } }
";
    let [a, b, c] = &origins;
    let config = format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:{routes}clusters:\n\
         \x20 a: {{ endpoints: {{ static: ['{a}'] }} }}\n\
         \x20 b: {{ endpoints: {{ static: ['{b}'] }} }}\n\
         \x20 c: {{ endpoints: {{ static: ['{c}'] }} }}\n"
    );
    (Proxy::start(config), origins)
}

/// Goal: conditions are asked of the request as it was sent. Method: a table of requests and the origin
/// that answers, over one connection, so that nothing of one request leaks into the next.
#[test]
fn requests_go_where_the_routes_say() {
    let (proxy, _origins) = gateway();
    let cases = [
        ("GET", "exact.example", "/only", "", "a"),
        ("GET", "EXACT.example:8080", "/only", "", "a"),
        ("GET", "exact.example", "/other", "", "404"),
        ("GET", "x.wild.example", "/anything", "", "b"),
        ("GET", "x.y.wild.example", "/anything", "", "b"),
        ("GET", "wild.example", "/anything", "", "404"),
        ("GET", "pre.anything", "/", "", "c"),
        ("GET", "o", "/exact", "", "a"),
        ("GET", "o", "/exact?with=query", "", "a"),
        ("GET", "o", "/exact/", "", "404"),
        ("GET", "o", "/prefix", "", "b"),
        ("GET", "o", "/prefix/", "", "b"),
        ("GET", "o", "/prefix/x/y", "", "b"),
        ("GET", "o", "/prefixed", "", "404"),
        ("GET", "o", "/users/42/orders", "", "c"),
        ("GET", "o", "/users/42/7/orders", "", "404"),
        ("GET", "o", "/v1/x", "", "a"),
        ("GET", "o", "/v3/x", "", "404"),
        ("POST", "o", "/method", "Content-Length: 0\r\n", "a"),
        ("GET", "o", "/method", "", "b"),
        ("GET", "o", "/header", "X-Canary: 1\r\nX-Gone: 1\r\n", "a"),
        (
            "GET",
            "o",
            "/header",
            "X-CANARY: 2\r\nX-Tier: golden\r\n",
            "b",
        ),
        ("GET", "o", "/header", "", "c"),
        ("GET", "o", "/header", "X-Gone: 1\r\n", "404"),
        ("GET", "o", "/query?v=2", "", "a"),
        ("GET", "o", "/query?v=3&debug", "", "b"),
        ("GET", "o", "/query?v=3", "", "404"),
    ];
    let mut client = proxy.client();
    for (method, host, target, fields, expected) in cases {
        let response = client.exchange(format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        ));
        let got = match response.status {
            200 => response.text(),
            status => status.to_string(),
        };
        assert_eq!(got, expected, "{method} {host}{target} {fields:?}");
    }
}

/// Goal: redirects and direct answers are complete, and leave the connection usable with and without a
/// request body. Method: each, GET, HEAD and POST.
#[test]
fn answers_of_the_routes_themselves() {
    let (proxy, _origins) = gateway();
    let mut client = proxy.client();
    let response = client.get("/moved?a=b");
    assert_eq!(response.status, 301);
    assert_eq!(
        response.head.get("location"),
        Some("https://new.example/here?a=b")
    );
    let response = client.get("/short");
    assert_eq!(response.status, 302);
    let location = response.head.get("location").unwrap();
    assert!(location.ends_with("/elsewhere"), "{location}");
    let response = client.post("/direct", &[b'x'; 10_000]);
    assert_eq!(response.status, 418);
    assert_eq!(response.text(), "short and stout");
    assert_eq!(response.head.get("content-type"), Some("text/teapot"));
    let mut client = proxy.client();
    let response = client.exchange("HEAD /direct HTTP/1.1\r\nHost: o\r\n\r\n");
    assert_eq!(response.status, 418);
    assert_eq!(response.head.get("content-length"), Some("15"));
    assert_eq!(client.get("/exact").text(), "a");
}

/// Goal: rewrites change what the origin sees, query kept. Method: each kind.
#[test]
fn rewrites() {
    let origin = Origin::echo();
    let proxy = Proxy::start(proxy::web(
        "{ match: { path: /full }, to: app, rewrite: { path: /new/path } }, \
         { match: { path: /api/** }, to: app, rewrite: { prefix: /internal } }, \
         { match: { path: /strip/** }, to: app, rewrite: { prefix: / } }, \
         { match: { path: /re/** }, to: app, rewrite: { regex: '^/re/([a-z]+)/(.*)$', replacement: '/$2/$1' } }, \
         { match: { path: /host }, to: app, rewrite: { host: 'inner.example:81' } }",
        &[("app", &origin)],
    ));
    let mut client = proxy.client();
    for (target, expected) in [
        ("/full?q=1", "/new/path?q=1"),
        ("/api/v1/x?q", "/internal/v1/x?q"),
        ("/api", "/internal"),
        ("/strip/a/b", "/a/b"),
        ("/re/abc/d/e", "/d/e/abc"),
        ("/host", "/host"),
    ] {
        assert_eq!(client.get(target).status, 200);
        let requests = origin.requests();
        let head = &requests.last().unwrap().head;
        assert_eq!(head.target(), expected);
        let host = if target == "/host" {
            "inner.example:81"
        } else {
            "a.example"
        };
        assert_eq!(head.all("host"), [host]);
    }
}

/// Goal: a split is exact in the mean (S13). Method: 1,000 requests over 80/20; the binomial error of five
/// deviations is 6.3 %.
#[test]
fn splits() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(proxy::web(
        "{ split: { a: 80%, b: 20% } }",
        &[("a", &a), ("b", &b)],
    ));
    let mut client = proxy.client();
    let mut counts = BTreeMap::new();
    for _ in 0..1000 {
        *counts.entry(client.get("/").text()).or_insert(0) += 1;
    }
    assert!((737..=863).contains(&counts["a"]), "{counts:?}");
}

/// Goal: a hashed split gives a client the same answer always, on every shard and after a restart (S13).
/// Method: 50 users, two connections each, on two proxies of different shard counts.
#[test]
fn sticky_splits() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let config = proxy::web(
        "{ split: { a: 50%, b: 50% }, hash: { header: x-user } }",
        &[("a", &a), ("b", &b)],
    );
    let one = Proxy::start(&config);
    let setup = proxy::Setup {
        shards: Some(2),
        ..Default::default()
    };
    let two = Proxy::start_with(&setup, &config);
    let ask = |proxy: &Proxy, user: usize| {
        Client::connect(proxy.web())
            .exchange(format!(
                "GET / HTTP/1.1\r\nHost: o\r\nX-User: u{user}\r\n\r\n"
            ))
            .text()
    };
    let mut seen = BTreeMap::new();
    for user in 0..50 {
        let first = ask(&one, user);
        for proxy in [&one, &two, &two] {
            assert_eq!(ask(proxy, user), first, "user {user}");
        }
        *seen.entry(first).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

/// Goal: endpoints share as their balancer says. Method: round robin over three, weights 1, 1 and 2.
#[test]
fn round_robin_by_weight() {
    let [a, b, c] = ["a", "b", "c"].map(Origin::named);
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app:\n    endpoints:\n      static: ['{a}', '{b}', {{ address: '{c}', weight: 2 }}]\n"
    ));
    let mut client = proxy.client();
    let mut counts = BTreeMap::new();
    for _ in 0..40 {
        *counts.entry(client.get("/").text()).or_insert(0) += 1;
    }
    let counts: Vec<_> = counts
        .into_iter()
        .map(|(name, n)| format!("{name}{n}"))
        .collect();
    assert_eq!(counts, ["a10", "b10", "c20"]);
}

/// Goal: active checks take an endpoint out and bring it back (H14). Method: an endpoint whose health page
/// fails on demand; while it does, every request goes to the other.
#[test]
fn health_checks_move_traffic() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let sick = Arc::new(AtomicBool::new(false));
    let is_sick = sick.clone();
    let a = Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            let probe = request.head.target() == "/health";
            let status = if probe && is_sick.load(Ordering::SeqCst) {
                500
            } else {
                200
            };
            peer.wire
                .send(format!("HTTP/1.1 {status} X\r\nContent-Length: 1\r\n\r\na"))?;
        }
        Ok(())
    });
    let b = Origin::named("b");
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app:\n    endpoints: {{ static: ['{a}', '{b}'] }}\n\
         \x20   health: {{ http: {{ path: /health }}, interval: 100ms, timeout: 2s, healthy_after: 1, unhealthy_after: 1 }}\n"
    ));
    let names =
        |n: usize| -> Vec<String> { (0..n).map(|_| proxy.client().get("/").text()).collect() };
    let both = |names: &[String]| names.iter().any(|n| n == "a") && names.iter().any(|n| n == "b");
    common::eventually("both in use", || both(&names(6)).then_some(()));
    sick.store(true, Ordering::SeqCst);
    common::eventually("the sick one out", || {
        names(6).iter().all(|n| n == "b").then_some(())
    });
    sick.store(false, Ordering::SeqCst);
    common::eventually("it is back", || both(&names(6)).then_some(()));
}

/// Goal: names are looked up. Method: `localhost`, which every machine knows.
#[test]
fn endpoints_by_dns() {
    let origin = Origin::named("a");
    let port = origin.address.port();
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, retry: {{ on: [connect], times: 2 }} }}] }}\n\
         clusters:\n  app: {{ endpoints: {{ dns: 'localhost:{port}' }} }}\n"
    ));
    common::eventually("an answer from a looked-up endpoint", || {
        (proxy.client().get("/").status == 200).then_some(())
    });
}
