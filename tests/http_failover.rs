//! Where requests go when endpoints are out, and which endpoints they are for: priorities and subsets over real
//! sockets. The arithmetic is tested in `core`; here it is that health, labels and routes reach it.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{Origin, Proxy};
use serde_json::json;

/// An origin that says its name, and that its health check finds sick while `sick` is set.
fn checked(name: &'static str, sick: &Arc<AtomicBool>) -> Origin {
    let sick = sick.clone();
    Origin::start(move |peer| {
        while let Some(request) = peer.next_request()? {
            let fails = request.head.target() == "/health" && sick.load(Ordering::SeqCst);
            let status = if fails { 500 } else { 200 };
            peer.wire.send(format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            ))?;
        }
        Ok(())
    })
}

fn names(proxy: &Proxy, target: &str) -> BTreeSet<String> {
    let mut client = proxy.client();
    (0..20).map(|_| client.get(target).text()).collect()
}

/// Goal: the lower priority takes over while the higher one is sick, gives back when it is well (S3), and both serve when
/// everybody is sick. Method: health checks of two origins that fail on demand; the view and the log say the same.
#[test]
fn a_lower_priority_takes_over_and_gives_back() {
    let sick = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (a, b) = (checked("a", &sick[0]), checked("b", &sick[1]));
    let proxy = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n\
         clusters:\n  app:\n    endpoints: {{ static: ['{a}', {{ address: '{b}', priority: 1 }}] }}\n\
         \x20   health: {{ http: {{ path: /health }}, interval: 100ms, timeout: 2s, healthy_after: 1, unhealthy_after: 1 }}\n"
    ));
    let go_to = |expected: &[&str]| {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        common::eventually("requests go there", || {
            (names(&proxy, "/") == expected).then_some(())
        });
    };
    let loads = || {
        let clusters: serde_json::Value =
            serde_json::from_str(&proxy.admin_get("/clusters").text()).unwrap();
        let priorities = clusters[0]["priorities"].as_array().unwrap().clone();
        let load =
            |level: &serde_json::Value| (level["load_percent"].clone(), level["panic"].clone());
        priorities.iter().map(load).collect::<Vec<_>>()
    };
    go_to(&["a"]);
    sick[0].store(true, Ordering::SeqCst);
    go_to(&["b"]);
    assert_eq!(
        loads(),
        [(json!(0), json!(false)), (json!(100), json!(false))]
    );
    sick[0].store(false, Ordering::SeqCst);
    go_to(&["a"]);
    assert_eq!(
        loads(),
        [(json!(100), json!(false)), (json!(0), json!(false))]
    );
    sick.iter()
        .for_each(|sick| sick.store(true, Ordering::SeqCst));
    common::eventually("panic", || {
        (loads() == [(json!(50), json!(true)), (json!(50), json!(true))]).then_some(())
    });
    go_to(&["a", "b"]);
    proxy.wait_for_metric("tidegate_cluster_picked_in_panic_total", |n| n > 0.0);
}

/// Goal: a request is for the endpoints whose labels its route names; without such, what the cluster's fallback says holds,
/// and a refusal has a word of its own (S17). Method: two versions, a route for each case, and a split of both.
#[test]
fn routes_choose_subsets() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(format!(
        "listeners:
  web:
    bind: 127.0.0.1:0
    routes:
      - {{ match: {{ path: /stable }}, to: strict, subset: {{ version: stable }} }}
      - {{ match: {{ path: /canary }}, to: strict, subset: {{ version: canary }} }}
      - {{ match: {{ path: /gone }}, to: strict, subset: {{ version: gone }} }}
      - {{ match: {{ path: /none }}, to: strict }}
      - {{ match: {{ path: /any }}, to: lax, subset: {{ version: gone }} }}
      - {{ match: {{ path: /default }}, to: default }}
      - {{ match: {{ path: /split }}, split: [ {{ to: strict, share: 50%, subset: {{ version: stable }} }}, {{ to: strict, share: 50%, subset: {{ version: canary }} }} ] }}
      - {{ match: {{ path: /plain }}, to: plain, subset: {{ version: gone }} }}
clusters:
  strict: {{ endpoints: &both {{ static: [ {{ address: '{a}', labels: {{ version: stable }} }}, {{ address: '{b}', labels: {{ version: canary }} }} ] }}, subsets: {{ selectors: [ {{ keys: [version] }} ] }} }}
  lax: {{ endpoints: *both, subsets: {{ selectors: [ {{ keys: [version] }} ], fallback: any }} }}
  default: {{ endpoints: *both, subsets: {{ selectors: [ {{ keys: [version] }} ], fallback: default, default: {{ version: canary }} }} }}
  plain: {{ endpoints: *both }}
"
    ));
    for (target, expected) in [
        ("/stable", &["a"][..]),
        ("/canary", &["b"]),
        ("/any", &["a", "b"]),
        ("/default", &["b"]),
        ("/split", &["a", "b"]),
        ("/plain", &["a", "b"]),
    ] {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(names(&proxy, target), expected, "{target}");
    }
    for target in ["/gone", "/none"] {
        let response = proxy.client().get(target);
        assert_eq!(response.status, 503, "{target}");
        assert_eq!(
            response.head.get("x-tidegate-reason"),
            Some("no_subset"),
            "{target}"
        );
    }
    // Twenty each of /any and /default, and the two that were refused.
    let fallbacks = "tidegate_route_subset_fallbacks_total";
    proxy.wait_for_metric(fallbacks, |count| (count - 42.0).abs() < 0.1);
}
