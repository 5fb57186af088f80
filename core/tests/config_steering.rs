//! The steering program as a file and as a change by hand say it (S1, S8, S17).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use tidegate_core::config::{
    self, Diagnostic,
    model::steering::{DivertShare, Interface, Steering, Verb},
};

fn file(steering: &str) -> String {
    format!(
        "version: 1\nlisteners: {{ web: {{ bind: 127.0.0.1:80, routes: [ {{ to: one }} ] }} }}\nclusters:\n  \
         one: {{ endpoints: {{ static: [10.0.0.1:80] }} }}\n  two: {{ endpoints: {{ static: [10.0.0.2:80] }} }}\n\
         steering:\n  applications: {{ pay: {{ units: {{ u1: one, u2: two }} }} }}\n{steering}"
    )
}

fn program(steering: &str) -> Steering {
    let (config, warnings) = config::parse("f.yaml", &file(steering)).unwrap();
    assert!(warnings.is_empty(), "{warnings:#?}");
    *config.steering.unwrap()
}

fn mistakes(steering: &str) -> Vec<Diagnostic> {
    config::parse("f.yaml", &file(steering)).unwrap_err()
}

fn rule(rest: &str) -> String {
    format!(
        "  trusted_peers: [10.0.0.0/8]\n  rules:\n    - {{ id: r, owner: o, match: {{ application: pay }}, {rest} }}\n"
    )
}

/// Goal: what is short means what it says. Method: interfaces, and what is left out of a divert and a cap.
#[test]
fn short_forms_are_read() {
    let interface = |text: &str| {
        let rule = rule("set_unit: u2").replace(
            "application: pay",
            &format!("application: pay, interface: {text}"),
        );
        program(&rule).rules[0].matches.interface.clone().unwrap()
    };
    let expected = |service: &str, method: Option<&str>| Interface {
        service: service.into(),
        method: method.map(Into::into),
    };
    assert_eq!(interface("pay.Transfer"), expected("pay.Transfer", None));
    assert_eq!(interface("pay.Transfer/*"), expected("pay.Transfer", None));
    assert_eq!(interface("a/b/c"), expected("a/b", Some("c")));
    let verb = |text: &str| program(&rule(text)).rules[0].verb.clone();
    let units = DivertShare::Target {
        share: 8_000,
        servers: 2,
    };
    assert_eq!(
        verb("divert: { to: u2, target_share: 80% }"),
        Verb::Divert {
            to: "u2".into(),
            share: units
        }
    );
    let Verb::Cap(rate) = verb("cap: { requests: 7 }") else {
        panic!()
    };
    assert_eq!((rate.burst, rate.per.as_secs()), (7, 1));
}

/// Goal: a mistake is told at its place, with a remedy (S8, S17). Method: files with one mistake each; the text
/// that the diagnostic points at.
#[test]
fn mistakes_have_places() {
    for (rest, code, at, help) in [
        ("set_unit: u3", "TG-C060", "u3", "its places are `u1`, `u2`"),
        (
            "split: { u1: 50%, u2: 40% }",
            "TG-C060",
            "{ u1: 50%, u2: 40% }",
            "sum to 100 %",
        ),
        (
            "matrix: { u1: { u1: 100%, u2: 1% } }",
            "TG-C060",
            "{ u1: { u1: 100%, u2: 1% } }",
            "sum to 100 %",
        ),
        (
            "divert: { to: u2, target_share: 40% }",
            "TG-C060",
            "{ to: u2, target_share: 40% }",
            "ask for more",
        ),
        (
            "shift: { to: u2, share: 5% }, fallback: u2",
            "TG-C060",
            "u2",
            "`home` or `refuse`",
        ),
        (
            "set_unit: u1, ramp: { stop: {} }",
            "TG-C060",
            "{ stop: {} }",
            "add `stop: { error_rate: … }`",
        ),
        (
            "set_unit: u2, expires: tomorrow",
            "TG-C017",
            "tomorrow",
            "2026-12-31T23:59:59Z",
        ),
    ] {
        let text = file(&rule(rest));
        let found = mistakes(&rule(rest));
        assert_eq!(found.len(), 1, "{rest}: {found:#?}");
        let line = text.lines().nth(found[0].line - 1).unwrap();
        let pointed: String = line.chars().skip(found[0].column - 1).collect();
        assert!(pointed.starts_with(at), "{rest}: {pointed}");
        assert!(
            found[0].help.as_deref().unwrap().contains(help),
            "{rest}: {found:#?}"
        );
        if code != "TG-C017" {
            assert_eq!(found[0].code, code);
        }
    }
    for rest in [
        "set_unit: u2, set_group: u1",
        "fallback: home",
        "mirror: { to: u2 }",
    ] {
        assert!(!mistakes(&rule(rest)).is_empty(), "{rest}");
    }
    for (from, to) in [
        ("application: pay", "application: pay, users: 5-9"),
        ("application: pay", "application: pay, interface: /a"),
        ("10.0.0.0/8", "10.0.0.0/33"),
        ("10.0.0.0/8", "host"),
    ] {
        let wrong = rule("set_unit: u2").replace(from, to);
        assert_eq!(mistakes(&wrong).len(), 1, "{to}");
    }
}

/// Goal: a rule that is set by hand is the rule that a file would have (S1). Method: the same rule from a file, from
/// its dump, and as block YAML; what is wrong with one is told by line.
#[test]
fn rules_stand_alone() {
    let steering = program(&rule(
        "set_unit: u2, hash: { cookie: c }, expires: 2030-01-01T00:00:00Z",
    ));
    let from_file = &steering.rules[0];
    let dump = config::rule_to_json(from_file);
    let mut by_hand = config::parse_steering_rule("r", &dump.to_string(), &steering).unwrap();
    assert_eq!(&*by_hand.origin, "by hand");
    by_hand.origin = from_file.origin.clone();
    assert_eq!(by_hand, *from_file);
    let without_id = "owner: o\nmatch: { application: pay }\nset_unit: u2\n";
    assert_eq!(
        &*config::parse_steering_rule("q", without_id, &steering)
            .unwrap()
            .id,
        "q"
    );
    let json = r#"{"owner":"o","match":{"application":"pay"},"set_unit":"u2"}"#;
    assert_eq!(
        &*config::parse_steering_rule("q", json, &steering)
            .unwrap()
            .id,
        "q"
    );
    let wrong = config::parse_steering_rule("q", "owner: o\nmatch: {}\nset_unit: u2\n", &steering)
        .unwrap_err();
    assert_eq!((wrong[0].line, wrong.len()), (2, 1), "{wrong:#?}");
    let other = config::parse_steering_rule("q", &dump.to_string(), &steering).unwrap_err();
    assert!(other[0].message.contains("calls itself `r`"), "{other:#?}");
    assert!(config::parse_steering_rule("q", "", &steering).is_err());
    assert!(config::parse_steering_rule("q", "[", &steering).is_err());
}
