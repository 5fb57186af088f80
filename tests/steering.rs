//! The steering program end to end: where requests go, what is said of it, and who may say otherwise.
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
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{
    Client, Origin, Proxy, Response,
    proxy::Setup,
    steering::{Places, get, rule, steering, view},
};
use serde_json::{Value, json};

/// Goal: rules move what they match, and nothing else; each decision is in the log, in the counters, in the view
/// and, where asked for, in the answer (S2, S7, S16). Method: rules by colour, by interface and for a group, a
/// request of each and one that matches none.
#[test]
fn rules_move_what_they_match() {
    let places = Places::start();
    let rules = [
        rule("green", ", colour: green", "set_unit: unit2"),
        rule(
            "transfer",
            ", interface: pay.Transfer/Create",
            "set_group: transfers",
        ),
    ];
    let proxy = Proxy::start(places.with("response_header: true", &rules.concat()));
    let mut client = proxy.client();
    for (path, headers, body, told) in [
        ("/", "X-Colour: green\r\n", "unit2", "green@17:unit1>unit2"),
        (
            "/pay.Transfer/Create",
            "",
            "transfers",
            "transfer@17:unit1>transfers",
        ),
        ("/pay.Transfer/List", "", "unit1", "-:unit1>unit1"),
    ] {
        let answer = get(&mut client, path, headers);
        assert_eq!((answer.status, &*answer.text()), (200, body), "{path}");
        assert_eq!(answer.head.get("x-tidegate-steer"), Some(told));
    }
    assert_eq!(places.got(), [1, 1, 1]);
    let log = proxy.access_log(3);
    assert_eq!(log[0]["tidegate.steer.rule"], "green");
    assert_eq!(log[0]["tidegate.steer.from"], "unit1");
    assert_eq!(log[0]["tidegate.steer.to"], "unit2");
    assert_eq!(log[0]["tidegate.steer.epoch"], json!(1));
    assert_eq!(log[0]["tidegate.cluster"], "pay-2");
    assert!(
        log[2].get("tidegate.steer.rule").is_none(),
        "no rule was involved"
    );
    let view = view(&proxy);
    assert_eq!(view["rules"][0]["counts"]["moved"], json!(1), "{view:#}");
    assert_eq!(
        view["applications"]["pay"][0]["to"],
        json!({ "unit1": 1, "unit2": 1, "transfers": 1 })
    );
    assert_eq!(view["problems"], json!([]));
    assert_eq!(proxy.metric("tidegate_steering_rule_moved_total"), 2.0);
    assert_eq!(proxy.metric("tidegate_steering_flow_total"), 3.0);
    let text = proxy.admin_get("/steering?format=text").text();
    assert!(
        text.contains("rule green@17 of team") && text.contains("1 to unit2"),
        "{text}"
    );
}

/// Goal: a share is exact, the same on every shard, and what it takes it keeps as it grows (S13). Method: ids of
/// requests over two shards; those that were moved at 30 % are at 60 %, and who is moved is worked out here.
#[test]
fn shares_are_repeatable() {
    const N: usize = 200;
    let places = Places::start();
    let at = |share: &str| {
        places.config(&rule(
            "grow",
            "",
            &format!("shift: {{ to: unit2, share: {share} }}"),
        ))
    };
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    let proxy = Proxy::start_with(&setup, at("30%"));
    let moved = || -> Vec<bool> {
        let ask = |i: usize| {
            get(
                &mut proxy.client(),
                "/",
                &format!("X-Request-Id: request-{i}\r\n"),
            )
        };
        (0..N).map(|i| ask(i).text() == "unit2").collect()
    };
    let falls = |i: usize| {
        let key = tidegate_core::steering::hash_bytes(0, format!("request-{i}").as_bytes());
        tidegate_core::steering::program::Draw::new("grow", 0).point(key) as f64
            / (1u64 << 32) as f64
    };
    let small = moved();
    let expected: Vec<bool> = (0..N).map(|i| falls(i) < 0.3).collect();
    assert_eq!(small, expected);
    proxy.reload(at("60%"));
    let large = moved();
    assert_eq!(large, (0..N).map(|i| falls(i) < 0.6).collect::<Vec<_>>());
    assert!(
        small
            .iter()
            .zip(&large)
            .all(|(small, large)| !small || *large)
    );
}

/// Goal: a request is moved at most once, by those who are trusted alone; nobody else can switch steering off, nor
/// does the mark of a stranger travel (S6, S12). Method: two proxies in front of a unit each, both with a matrix that
/// swaps the units, so that without a guard a request would never arrive; then a client that forges the mark.
#[test]
fn nothing_is_moved_twice() {
    let places = Places::start();
    let swap = rule(
        "swap",
        "",
        "matrix: { unit1: { unit2: 100% }, unit2: { unit1: 100% } }",
    );
    // The second server: its own application, and unit1 behind the first.
    let local2 = |trusted: &str, first: &str| {
        format!(
            "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [ {{ to: pay-2 }} ] }}\nclusters:\n  \
             pay-1: {{ endpoints: {{ static: [\"{first}\"] }} }}\n  pay-2: {{ endpoints: {{ static: [\"{}\"] }} }}\n  \
             pay-transfers: {{ endpoints: {{ static: [\"{}\"] }} }}\n{}",
            places.unit2,
            places.group,
            steering(&format!("trusted_peers: [{trusted}]"), &swap)
        )
    };
    let second = Proxy::start(local2("127.0.0.0/8", &places.unit1.to_string()));
    let first = Proxy::start(format!(
        "listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [ {{ to: pay-1 }} ] }}\nclusters:\n  \
         pay-1: {{ endpoints: {{ static: [\"{}\"] }} }}\n  pay-2: {{ endpoints: {{ static: [\"{}\"] }} }}\n  \
         pay-transfers: {{ endpoints: {{ static: [\"{}\"] }} }}\n{}",
        places.unit1,
        second.web(),
        places.group,
        steering("trusted_peers: [192.0.2.1]", &swap)
    ));
    // Moved by the first to unit2, whose proxy believes it and keeps it there.
    let answer = get(&mut first.client(), "/", "");
    assert_eq!(answer.text(), "unit2");
    let seen = places.unit2.requests();
    assert_eq!(seen[0].head.get("x-tidegate-hop"), Some("pay/swap@17"));
    // The first trusts nobody on this machine: a forged mark switches nothing off, and is replaced by its own.
    let forged = get(&mut first.client(), "/", "X-Tidegate-Hop: pay/forged@1\r\n");
    assert_eq!(forged.text(), "unit2");
    let seen = places.unit2.requests();
    assert_eq!(seen[1].head.all("x-tidegate-hop"), ["pay/swap@17"]);
    assert_eq!(
        first.metric("tidegate_shard_steer_marks_untrusted_total"),
        1.0
    );
    // Of another application it says nothing.
    let other = get(&mut second.client(), "/", "X-Tidegate-Hop: buy/swap@17\r\n");
    assert_eq!(other.text(), "unit1");
    // And where nothing is moved, a stranger's mark ends here.
    second.reload(
        local2("192.0.2.1", &places.unit1.to_string()).replace("unit1: 100%", "unit2: 100%"),
    );
    let kept = get(
        &mut second.client(),
        "/",
        "X-Tidegate-Hop: pay/forged@1\r\n",
    );
    assert_eq!(kept.text(), "unit2");
    let seen = places.unit2.requests();
    assert_eq!(seen[2].head.get("x-tidegate-hop"), None);
}

/// Goal: an empty target is refused and shown, unless the rule names a way out; there is a failover, and it goes back
/// by itself (S3, S17). Method: a target that its health check finds down, and then up.
#[test]
fn an_empty_target_is_seen() {
    let places = Places::start();
    let is_up = Arc::new(AtomicBool::new(false));
    let down = Origin::start({
        let is_up = is_up.clone();
        move |peer| {
            while peer.next_request()?.is_some() && is_up.load(Ordering::SeqCst) {
                peer.wire
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nunit2")?;
            }
            Ok(())
        }
    });
    let config = |rules: &str| {
        let all = places.config(rules);
        let dead = format!(
            "  pay-2: {{ endpoints: {{ static: [\"{down}\"] }}, health: {{ http: {{ path: /h }}, interval: 100ms, timeout: 100ms, unhealthy_after: 1, healthy_after: 1 }} }}\n"
        );
        let alive = format!(
            "  pay-2: {{ endpoints: {{ static: [\"{}\"] }} }}\n",
            places.unit2
        );
        all.replace(&alive, &dead)
    };
    let proxy = Proxy::start(config(&rule("r", "", "set_unit: unit2")));
    proxy.wait_for_metric("tidegate_steering_problems", |problems| problems == 1.0);
    let refused = common::eventually("a refusal for want of a target", || {
        let answer = get(&mut proxy.client(), "/", "");
        (answer.head.get("x-tidegate-reason") == Some("steer_no_target")).then_some(answer)
    });
    assert_eq!(refused.status, 503);
    let problems = view(&proxy)["problems"].to_string();
    assert!(
        problems.contains("rule `r`: its target `unit2` (cluster `pay-2`) has no endpoint"),
        "{problems}"
    );
    let refusal = |line: &Value| line["tidegate.reason"] == "steer_no_target";
    let log = common::eventually("the refusal in the log", || {
        proxy.access_log(1).into_iter().find(refusal)
    });
    assert_eq!(log["tidegate.steer.rule"], "r");
    assert_eq!(log["tidegate.steer.to"], "unit2");
    let settle = |rules: &str, expected: &str| {
        proxy.reload(config(rules));
        common::eventually(expected, || {
            let answer = get(&mut proxy.client(), "/", "");
            (answer.status == 200 && answer.text() == expected).then_some(())
        });
    };
    settle(&rule("r", "", "set_unit: unit2, fallback: home"), "unit1");
    settle(
        &rule("r", "", "set_unit: unit2, fallback: transfers"),
        "transfers",
    );
    let failing = [
        rule("r", "", "set_unit: unit2"),
        rule("away", "", "fail_to: [unit2, transfers]"),
    ];
    settle(&failing.concat(), "transfers");
    is_up.store(true, Ordering::SeqCst);
    common::eventually("the way back", || {
        (get(&mut proxy.client(), "/", "").text() == "unit2").then_some(())
    });
    proxy.wait_for_metric("tidegate_steering_problems", |problems| problems == 0.0);
}

/// Goal: an exclusive group gets all that its rule names and only that, audited by counters on both sides (S9).
/// Method: transfers and others, on two routes; then one that leads to the group itself.
#[test]
fn all_and_only() {
    let places = Places::start();
    let named = rule("money", ", interface: pay.Transfer", "set_group: transfers");
    let config = places.config(&named);
    let routes =
        "{ name: open, match: { path: /open }, to: pay-transfers }, { name: pay, to: pay-1 }";
    let proxy = Proxy::start(config.replace("{ name: pay, to: pay-1 }", routes));
    for _ in 0..5 {
        assert_eq!(
            get(&mut proxy.client(), "/pay.Transfer/Do", "").text(),
            "transfers"
        );
        assert_eq!(
            get(&mut proxy.client(), "/pay.Query/Do", "").text(),
            "unit1"
        );
    }
    let refused = get(&mut proxy.client(), "/open", "");
    assert_eq!(
        (refused.status, refused.head.get("x-tidegate-reason")),
        (503, Some("steer_not_named"))
    );
    assert_eq!(places.got(), [5, 0, 5]);
    let view = view(&proxy);
    let group = view["applications"]["pay"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "transfers")
        .unwrap();
    assert_eq!(
        [&group["delivered"], &group["sent"], &group["turned_away"]],
        [&json!(5), &json!(5), &json!(1)]
    );
    assert_eq!(proxy.metric("tidegate_steering_turned_away_total"), 1.0);
}

/// Goal: a cap holds over all shards, and says when to come back. Method: a bucket that does not drip while a test
/// runs, with and without the mark of test traffic.
#[test]
fn caps_hold() {
    let places = Places::start();
    let cap = rule(
        "cap",
        ", stress: true",
        "cap: { requests: 1, per: 24h, burst: 4 }",
    );
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    let proxy = Proxy::start_with(&setup, places.config(&cap));
    let ask = |headers: &str| get(&mut proxy.client(), "/", headers);
    let answers: Vec<Response> = (0..10).map(|_| ask("X-Stress: 1\r\n")).collect();
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        4
    );
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.head.get("x-tidegate-reason"), Some("steer_capped"));
    assert!(
        refused
            .head
            .get("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 80_000
    );
    assert_eq!(ask("").status, 200);
    assert_eq!(proxy.metric("tidegate_steering_rule_capped_total"), 6.0);
}

/// Goal: a steered group has its own connections, circuit and limits (S10). Method: a unit whose circuit is full of
/// requests that hang: those that a rule sends to the group are served, on connections of its own.
#[test]
fn groups_are_isolated() {
    let places = Places::start();
    let stuck = Origin::start(|peer| {
        peer.next_request()?;
        peer.wire.rest().map(drop)
    });
    let config = places.config(&rule("money", ", colour: money", "set_group: transfers"));
    let alive = format!(
        "  pay-1: {{ endpoints: {{ static: [\"{}\"] }} }}\n",
        places.unit1
    );
    let narrow = format!(
        "  pay-1: {{ endpoints: {{ static: [\"{stuck}\"] }}, circuit: {{ requests: 2, connections: 2 }} }}\n"
    );
    let proxy = Proxy::start(config.replace(&alive, &narrow));
    let mut hanging: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut hanging {
        client
            .send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            .unwrap();
    }
    stuck.wait_for_requests(2);
    let refused = get(&mut proxy.client(), "/", "");
    assert_eq!(refused.reason(), Some("circuit_requests"));
    for _ in 0..5 {
        assert_eq!(
            get(&mut proxy.client(), "/", "X-Colour: money\r\n").text(),
            "transfers"
        );
    }
    assert_eq!(
        places.group.connections(),
        1,
        "one connection, reused, and its own"
    );
}
