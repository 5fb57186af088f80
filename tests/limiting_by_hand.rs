//! Limits that an operator sets by hand, over reloads, to their end (L10, L11).
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

use common::{Client, Proxy, eventually, http2_origin::Http2Origin};
use serde_json::Value;

/// Nothing but a hand limits here.
fn config(origin: &Http2Origin, drain: u64, route: &str, mode: &str) -> String {
    format!(
        "drain_timeout: {drain}s\nlisteners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n      \
         - {{ name: {route}, match: {{ path: /heavy }}, to: app, timeout: off }}\n      - {{ name: rest, to: app, priority: batch }}\n\
         clusters:\n  app:\n    protocol: http2\n    endpoints: {{ static: ['{origin}'] }}\n    adaptive_limit:\n      \
         mode: {mode}\n      targets: {{ cpu: off, psi_cpu: off, psi_memory: off, memory: off, loop_lag: off, app: off }}\n"
    )
}

/// `tidegate ctl`: its exit code, and what it said.
fn ctl(proxy: &Proxy, arguments: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["ctl", "--admin", &proxy.admin().to_string()])
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(said).unwrap(),
    )
}

fn page(proxy: &Proxy, target: &str) -> Value {
    serde_json::from_str(&proxy.admin_get(target).text()).unwrap()
}

/// What an interface may have in flight, and whether a hand says so; nothing before it was seen.
fn limit(proxy: &Proxy, name: &str) -> Option<(Value, bool)> {
    let page = page(proxy, "/limits");
    let mut interfaces = page[0]["interfaces"].as_array()?.iter();
    let found = interfaces.find(|one| one["name"] == name)?;
    Some((found["limit"].clone(), found["by_hand"] == true))
}

#[track_caller]
fn wait_for(proxy: &Proxy, name: &str, total: impl Into<Value>) {
    let total = total.into();
    let expected = (total.clone(), !total.is_null());
    eventually("the limit", || {
        (limit(proxy, name)? == expected).then_some(())
    });
}

const HEAVY: &str = "GET /heavy HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[track_caller]
fn assert_refused(proxy: &Proxy) {
    let refused = proxy.client().get("/heavy");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.head.get("x-tidegate-reason"), Some("overloaded"));
    assert_eq!(refused.head.get("retry-after"), Some("1"));
}

/// Goal: a limit that is set by hand holds over all shards and over reloads, is seen wherever limits are, and ends when
/// it is taken back (L10). Method: `ctl` against a running process, whose application holds two requests.
#[test]
fn limits_by_hand_outlive_reloads() {
    let origin = Http2Origin::start(100);
    let proxy = Proxy::start(config(&origin, 10, "heavy", "enforce"));
    for target in ["/heavy", "/other"] {
        assert_eq!(proxy.client().get(target).status, 200);
    }
    let (code, said) = ctl(&proxy, "limit app --interface web/heavy --to 2 --for 1h");
    assert_eq!(
        (code, said.as_str()),
        (
            0,
            "app, web/heavy: none → 2 for 1h\nundo: tidegate ctl limit app --interface web/heavy --off\n"
        )
    );
    wait_for(&proxy, "web/heavy", 2);
    assert_eq!(limit(&proxy, "web/rest"), Some((Value::Null, false)));
    let held = origin.hold();
    let mut clients: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(HEAVY).unwrap();
    }
    eventually("both are in flight", || {
        (origin.requests() == 4).then_some(())
    });
    assert_refused(&proxy);
    proxy.reload(config(&origin, 11, "heavy", "enforce"));
    assert_refused(&proxy);
    wait_for(&proxy, "web/heavy", 2);

    let decisions = page(&proxy, "/limits/decisions");
    let shown = &decisions[0]["limits"][0];
    assert_eq!(
        (&shown["limit"], &shown["by_hand"]),
        (&2.into(), &true.into())
    );
    let by_hand = page(&proxy, "/limits")[0]["by_hand"][0].clone();
    assert_eq!(
        (&by_hand["interface"], &by_hand["limit"]),
        (&"web/heavy".into(), &2.into())
    );
    assert!(
        (3_000.0..3_600.0).contains(&by_hand["left_s"].as_f64().unwrap()),
        "{by_hand}"
    );
    let metrics = proxy.admin_get("/metrics").text();
    let line = "tidegate_limits_by_hand{cluster=\"app\",interface=\"web/heavy\",priority=\"\"} 2";
    assert!(metrics.contains(line), "{metrics}");
    let text = proxy.admin_get("/limits?format=text").text();
    assert!(
        text.contains("by hand: web/heavy 2, ") && text.contains("limit 2 by hand"),
        "{text}"
    );
    assert!(ctl(&proxy, "limit").1.starts_with("app, web/heavy: 2, "));
    assert!(
        proxy
            .stderr()
            .contains("web/heavy limited by hand to 2 in flight, for 3600s")
    );

    held.send(true).unwrap();
    for client in &mut clients {
        assert_eq!(client.answer_to(HEAVY.as_bytes()).status, 200);
    }
    let lines = proxy.access_log(6);
    let why = lines
        .iter()
        .find(|l| l["tidegate.reason"] == "overloaded")
        .unwrap();
    assert_eq!(why["tidegate.limit.by_hand"], true, "{why}");
    assert_eq!(why["tidegate.limit.value"], 2, "{why}");

    let upgrade = proxy.admin_post("/upgrade");
    assert_eq!(upgrade.status, 409);
    assert!(
        upgrade.text().contains("limits are set by hand"),
        "{}",
        upgrade.text()
    );
    assert_eq!(ctl(&proxy, "limit app --interface web/heavy --off").0, 0);
    wait_for(&proxy, "web/heavy", Value::Null);
}

/// Goal: a limit may be of a whole cluster, and is then divided over its interfaces, the higher class first; it ends with
/// its time, or with its interface, and that is told (L10). Method: limits on two interfaces together, for a second; a
/// reload that renames a route.
#[test]
fn limits_by_hand_come_to_an_end() {
    let origin = Http2Origin::start(100);
    let proxy = Proxy::start(config(&origin, 10, "heavy", "enforce"));
    for target in ["/heavy", "/other"] {
        assert_eq!(proxy.client().get(target).status, 200);
    }
    assert_eq!(ctl(&proxy, "limit app --to 10 --for 1h").0, 0);
    wait_for(&proxy, "web/heavy", 5);
    wait_for(&proxy, "web/rest", 5);
    // In place of the one before, whose time was left.
    let (code, said) = ctl(&proxy, "limit app --to 4 --for 1s");
    assert!(code == 0 && said.contains(": 10 → 4 for 1s"), "{said}");
    assert!(
        said.contains("undo: tidegate ctl limit app --to 10 --for 3"),
        "{said}"
    );
    wait_for(&proxy, "web/heavy", Value::Null);
    wait_for(&proxy, "web/rest", Value::Null);
    assert!(
        proxy
            .stderr()
            .contains("the limit by hand on all interfaces ends, its time is over")
    );

    assert_eq!(
        ctl(
            &proxy,
            "limit app --interface web/heavy --priority normal --to 1"
        )
        .0,
        0
    );
    assert_eq!(ctl(&proxy, "limit app --interface web/rest --to 0").0, 0);
    wait_for(&proxy, "web/rest", 0);
    assert_eq!(proxy.client().get("/other").status, 503);
    proxy.reload(config(&origin, 10, "renamed", "enforce"));
    eventually("it is told", || {
        let said =
            "the limit by hand on web/heavy (normal) ends, there is no such interface any more";
        proxy.stderr().contains(said).then_some(())
    });
    assert_eq!(proxy.client().get("/heavy").status, 200);
    wait_for(&proxy, "web/rest", 0);
}

/// Goal: what cannot be is refused, with what can; what is only tried changes nothing. Method: mistakes of every kind.
#[test]
fn mistakes_are_told() {
    let origin = Http2Origin::start(100);
    let proxy = Proxy::start(config(&origin, 10, "heavy", "enforce"));
    assert_eq!(proxy.client().get("/heavy").status, 200);
    wait_for(&proxy, "web/heavy", Value::Null);
    for (arguments, code, said) in [
        (
            "limit app --interface web/none --to 1",
            5,
            "there are web/heavy, web/rest",
        ),
        ("limit none --to 1", 5, "those that do: app"),
        (
            "limit app --off",
            5,
            "no limit is set by hand on all interfaces",
        ),
        ("limit app", 2, "say --to N or --off"),
        ("limit app --to 1 --off", 2, "cannot be used with"),
        ("limit app --to -1", 2, "unexpected argument"),
        ("limit app --to 1 --priority urgent", 2, "critical"),
        ("limit app --to 1 --for 0s", 2, "from 1s to a year"),
        (
            "limit app --to 1 --dry-run",
            0,
            "would be: app, all interfaces: none → 1 for 10m",
        ),
    ] {
        let answer = ctl(&proxy, arguments);
        assert!(
            answer.0 == code && answer.1.contains(said),
            "{arguments}: {answer:?}"
        );
    }
    assert_eq!(
        page(&proxy, "/limits")[0]["by_hand"],
        Value::Array(Vec::new())
    );
    for (query, said) in [
        ("cluster=app&limit=many", "`off`"),
        ("cluster=app&limit=1&priority=x", "critical"),
        ("cluster=app&limit=1&for=soon", "`for`"),
    ] {
        let answer = proxy.admin_post(&format!("/limits?{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    proxy.reload(config(&origin, 10, "heavy", "shadow"));
    let (code, said) = ctl(&proxy, "limit app --to 1");
    assert!(code == 5 && said.contains("in shadow"), "{code} {said}");
}
