//! The steering program while it runs: rules by hand, dry runs, ramps, and what the dashboard shows.
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
    Client, Origin, Proxy,
    proxy::Setup,
    steering::{Places, get, post, rule, view},
};
use serde_json::{Value, json};

/// Goal: one rule is set, changed, withdrawn and expires alone; conflicts and nonsense are refused, and change nothing
/// (S1, S14). Method: the life of a rule beside one of the file, through the admin server, over two shards.
#[test]
fn one_rule_changes_alone() {
    let places = Places::start();
    let setup = Setup {
        shards: Some(2),
        ..Setup::default()
    };
    let proxy = Proxy::start_with(
        &setup,
        places.config(&rule("file", ", colour: green", "set_unit: unit2")),
    );
    let goes = |headers: &str| get(&mut proxy.client(), "/", headers).text();
    let body = |epoch: u32, owner: &str, what: &str| {
        format!("{{ owner: {owner}, epoch: {epoch}, match: {{ application: pay }}, {what} }}")
    };
    assert_eq!(
        (goes(""), goes("X-Colour: green\r\n")),
        ("unit1".into(), "unit2".into())
    );
    for (target, rule, status, now) in [
        (
            "/steering/rules/hand",
            body(1, "me", "set_group: transfers"),
            200,
            "transfers",
        ),
        (
            "/steering/rules/hand",
            body(1, "me", "set_unit: unit2"),
            409,
            "transfers",
        ),
        (
            "/steering/rules/hand",
            body(2, "you", "set_unit: unit2"),
            409,
            "transfers",
        ),
        (
            "/steering/rules/hand",
            body(2, "me", "set_unit: unit9"),
            409,
            "transfers",
        ),
        ("/steering/rules/hand", "{".into(), 409, "transfers"),
        (
            "/steering/rules/hand",
            body(2, "me", "set_unit: unit2"),
            200,
            "unit2",
        ),
        (
            "/steering/rules/hand?withdraw=1&owner=me",
            String::new(),
            409,
            "unit2",
        ),
        (
            "/steering/rules/hand?withdraw=2",
            String::new(),
            400,
            "unit2",
        ),
        (
            "/steering/rules/hand?withdraw=2&owner=me",
            String::new(),
            200,
            "unit1",
        ),
        (
            "/steering/rules/hand?for=0s",
            body(3, "me", "set_unit: unit2"),
            400,
            "unit1",
        ),
    ] {
        let answer = post(&proxy, target, &rule);
        assert_eq!(answer.status, status, "{target} {rule}: {}", answer.text());
        // Answered once every shard uses it: each connection may be another's.
        for _ in 0..4 {
            assert_eq!(goes(""), now, "{target} {rule}");
        }
    }
    // A rule of 64 KiB is read, and one byte more is not.
    let filler = format!("{} # ", body(9, "me", "set_unit: unit9"));
    for (bytes, status) in [(64 << 10, 409), ((64 << 10) + 1, 400)] {
        let text = filler.clone() + &"x".repeat(bytes - filler.len());
        assert_eq!(post(&proxy, "/steering/rules/long", &text).status, status);
    }
    assert_eq!(
        post(
            &proxy,
            "/steering/rules/brief?for=1s",
            &body(1, "me", "set_unit: unit2")
        )
        .status,
        200
    );
    common::eventually("the end of a rule that was set for a second", || {
        (goes("") == "unit1").then_some(())
    });
    let view = view(&proxy);
    assert_eq!(
        view["by_hand"],
        json!({ "set": ["brief"], "withdrawn": ["hand"] })
    );
    assert!(
        view["problems"]
            .to_string()
            .contains("rule `brief` has expired"),
        "{view:#}"
    );
    assert!(proxy.metric("tidegate_config_applied_seconds_max") > 0.0);
    // The file's own word about a rule wins over what was done by hand.
    assert_eq!(
        post(
            &proxy,
            "/steering/rules/file",
            &body(18, "team", "set_group: transfers")
        )
        .status,
        200
    );
    assert_eq!(goes(""), "transfers");
    proxy.reload(places.config(&rule("file", ", colour: red", "set_unit: unit2")));
    assert_eq!(
        (goes(""), goes("X-Colour: red\r\n")),
        ("unit1".into(), "unit2".into())
    );
}

/// Goal: a program is evaluated beside the one in use, decides nothing, and what it would move is told for every request
/// (S15). Method: `ctl shift --dry-run` while requests come whose fate is worked out here; then the same for real.
#[test]
fn a_dry_run_moves_nothing() {
    const N: usize = 100;
    let places = Places::start();
    let proxy = Proxy::start(places.config(&rule("file", ", colour: green", "set_unit: unit2")));
    let body = "{ owner: me, match: { application: pay }, shift: { to: unit2, share: 30% } }";
    assert_eq!(
        post(&proxy, "/steering/rules/grow?dry_run=1", body).status,
        200
    );
    for i in 0..N {
        let answer = get(
            &mut proxy.client(),
            "/",
            &format!("X-Request-Id: request-{i}\r\n"),
        );
        assert_eq!(answer.text(), "unit1");
    }
    let falls = |i: &usize| {
        let key = tidegate_core::steering::hash_bytes(0, format!("request-{i}").as_bytes());
        tidegate_core::steering::program::Draw::new("grow", 3 * (1 << 32) / 10).takes(key)
    };
    let would = (0..N).filter(falls).count();
    let dry: Value = serde_json::from_str(&proxy.admin_get("/steering/dry-run").text()).unwrap();
    assert_eq!(dry["rules"], json!(["grow@1", "file@17"]), "{dry:#}");
    let movement = json!([
        { "application": "pay", "from": "unit1", "to": "unit1", "now": N, "next": N - would },
        { "application": "pay", "from": "unit1", "to": "unit2", "now": 0, "next": would },
    ]);
    assert_eq!(dry["movement"], movement, "{dry:#}");
    assert_eq!(post(&proxy, "/steering/dry-run?end=1", "").status, 200);
    assert_eq!(proxy.admin_get("/steering/dry-run").text().trim(), "null");
    assert_eq!(post(&proxy, "/steering/rules/grow", body).status, 200);
    let ask = |i: usize| {
        get(
            &mut proxy.client(),
            "/",
            &format!("X-Request-Id: request-{i}\r\n"),
        )
    };
    assert_eq!((0..N).filter(|i| ask(*i).text() == "unit2").count(), would);
}

/// Goal: a ramp stops by itself when what it moves fails, says why in numbers, and nothing is moved any more (S5, S11).
/// Method: a target that answers 500, under requests until it is so.
#[test]
fn a_sick_ramp_goes_back() {
    let places = Places::start();
    let sick = Origin::saying("HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n");
    let ramp = "ramp: { start: 100%, every: 1s, stop: { error_rate: 5% } }";
    let config = places.config(&rule("r", "", &format!("set_unit: unit2, {ramp}")));
    let healthy = format!(
        "  pay-2: {{ endpoints: {{ static: [\"{}\"] }} }}\n",
        places.unit2
    );
    let proxy = Proxy::start(config.replace(
        &healthy,
        &healthy.replace(&places.unit2.to_string(), &sick.to_string()),
    ));
    common::eventually("a ramp that went back", || {
        (get(&mut proxy.client(), "/", "").status == 200).then_some(())
    });
    let state = common::eventually("the state of the ramp", || {
        let state = view(&proxy)["rules"][0]["ramp_state"].as_str()?.to_owned();
        state.starts_with("stopped").then_some(state)
    });
    assert!(
        state.contains("moved requests failed, 100 %, over 5 %"),
        "{state}"
    );
    assert_eq!(view(&proxy)["rules"][0]["reached"], json!(0.0));
    assert!(
        proxy
            .stderr()
            .contains("the ramp of rule `r` stops, 0 % is moved now"),
        "{}",
        proxy.stderr()
    );
}

/// Goal: the dashboard shows what flows where, and what is wrong (S17). Method: one event of its stream, after a request
/// was moved; and beside a rule that has expired.
#[test]
fn the_dashboard_shows_flows() {
    let places = Places::start();
    let rules = [
        rule("green", ", colour: green", "set_unit: unit2"),
        rule("old", "", "expires: 2020-01-01T00:00:00Z, set_unit: unit2"),
    ];
    let proxy = Proxy::start(places.config(&rules.concat()));
    assert_eq!(
        get(&mut proxy.client(), "/", "X-Colour: green\r\n").text(),
        "unit2"
    );
    let mut stream = Client::connect(proxy.admin());
    stream
        .send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let event = common::eventually("an event", || {
        let event = String::from_utf8(stream.until(b"\n\n").unwrap()).unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
        serde_json::from_str::<Value>(data).ok()
    });
    let steering = &event["steering"];
    let flow = json!([{ "application": "pay", "from": "unit1", "to": "unit2", "count": 1 }]);
    assert_eq!(steering["flows"], flow, "{steering:#}");
    assert_eq!(steering["rules"], json!(2));
    let problems = steering["problems"].to_string();
    assert!(
        problems.contains("rule `old` has expired at 2020-01-01T00:00:00Z"),
        "{problems}"
    );
}
