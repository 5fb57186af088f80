//! What operators are told.

use super::*;

/// Goal: what cannot be meant is refused, with a way out (S8, S9, S17). Method: a program with each mistake, and
/// a part of what is said.
#[test]
fn mistakes_are_told() {
    let row = |to: &[(&str, u32)]| {
        to.iter()
            .map(|(to, share)| (Arc::from(*to), *share))
            .collect::<Vec<_>>()
    };
    let divert = |share| {
        rule(
            "r",
            Verb::Divert {
                to: "unit2".into(),
                share,
            },
        )
    };
    let ramp = Ramp {
        start: 0,
        step: 100,
        every: Duration::from_secs(1),
        stop: Stop::default(),
        on_stop: OnStop::Back,
    };
    for (rule, said) in [
        (
            set_unit("r", "unit9"),
            "set_unit: application `pay` has no place `unit9`; its places are `unit1`",
        ),
        (
            set_unit("r", "transfers"),
            "set_unit: `transfers` is a group; use `set_group`",
        ),
        (
            rule("r", Verb::SetGroup("unit1".into())),
            "set_group: `unit1` is a unit; use `set_unit`",
        ),
        (
            rule("r", Verb::Split(row(&[("unit1", 5_000), ("unit2", 4_999)]))),
            "split: the split sums to 99.99 %",
        ),
        (
            rule(
                "r",
                Verb::Matrix(vec![(
                    "unit1".into(),
                    row(&[("unit1", 9_000), ("unit2", 2_000)]),
                )]),
            ),
            "matrix: row `unit1` sums to 110 %, not to 100 %; shares are exact",
        ),
        (
            rule("r", Verb::Matrix(vec![])),
            "matrix: the matrix has no row",
        ),
        (
            rule("r", Verb::FailTo(vec![])),
            "fail_to: `fail_to` names no place",
        ),
        (
            divert(DivertShare::Target {
                share: 3_000,
                servers: 3,
            }),
            "has 33.33 % without steering, more than 30 %",
        ),
        (
            divert(DivertShare::Target {
                share: 3_000,
                servers: 1,
            }),
            "there is nobody to take it from",
        ),
        (
            rule(
                "r",
                Verb::Cap(Rate {
                    requests: 0,
                    per: Duration::from_secs(1),
                    burst: 1,
                }),
            ),
            "cap: a `cap` of nothing",
        ),
        (
            with(set_unit("r", "unit2"), |r| {
                r.fallback = Some(Fallback::Place("unit2".into()))
            }),
            "fallback: `unit2` is where the rule sends to",
        ),
        (
            with(rule("r", Verb::FailTo(vec!["unit2".into()])), |r| {
                r.fallback = Some(Fallback::Home)
            }),
            "fallback: `fallback` has no meaning for `fail_to`",
        ),
        (
            with(set_unit("r", "unit2"), |r| {
                r.matches.application = "buy".into()
            }),
            "match: there is no application `buy`",
        ),
        (
            with(set_unit("r", "unit2"), |r| {
                r.matches.from = Some("x".into())
            }),
            "match: application `pay` has no place `x`",
        ),
        (
            with(set_unit("r", "unit2"), |r| r.matches.users = Some((50, 49))),
            "match: users 50–49 are no range",
        ),
        (
            with(set_unit("r", "unit2"), |r| r.ramp = Some(ramp)),
            "ramp: a ramp that nothing stops",
        ),
    ] {
        let found = faults(&steering(vec![rule.clone()]));
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{rule:?}: {found:?}"
        );
    }
    let mut twice = steering(vec![set_unit("r", "unit2"), set_unit("r", "unit3")]);
    assert!(faults(&twice)[0].contains("rule `r` stands twice"));
    twice.rules.pop();
    let pay = twice.applications.get_mut("pay").unwrap();
    pay.units.insert("unit4".into(), "pay-unit1".into());
    assert!(
        faults(&twice)[0]
            .contains("cluster `pay-unit1` is place `unit4` of `pay`, and `unit1` of `pay`")
    );
    let pay = twice.applications.get_mut("pay").unwrap();
    pay.units = [
        (Arc::from("home"), Arc::from("nowhere")),
        (Arc::from("unit2"), Arc::from("other")),
    ]
    .into();
    let found = faults(&twice);
    assert!(
        found[0].contains("a place cannot be called `home`")
            && found[1].contains("no cluster `nowhere`")
    );
    let mut untrusted = steering(vec![divert(DivertShare::Own(1))]);
    untrusted.trusted_peers.clear();
    assert!(faults(&untrusted)[0].contains("could be diverted back"));
}

/// Goal: an operator reads why (S16). Method: the whole text for requests that pass each kind of rule, with and
/// without a key.
#[test]
fn explanations_say_why() {
    let table = table(vec![
        with(set_unit("green", "unit2"), |rule| {
            rule.matches.colour = Some("green".into())
        }),
        with(set_unit("old", "unit2"), |rule| {
            rule.expires_unix_s = Some(1)
        }),
        with(set_unit("low", "unit2"), |rule| {
            rule.matches.users = Some((0, 9))
        }),
        rule(
            "cap",
            Verb::Cap(Rate {
                requests: 1,
                per: Duration::from_secs(1),
                burst: 1,
            }),
        ),
        with(
            rule(
                "grow",
                Verb::Shift {
                    to: "unit2".into(),
                    share: 3_000,
                },
            ),
            |rule| rule.epoch = 17,
        ),
        set_unit("late", "unit3"),
        rule("away", Verb::FailTo(vec!["unit2".into(), "unit3".into()])),
    ]);
    let say = |request: &Typed, empty: &[ClusterId]| {
        let asked: Asked<'_, dyn RequestView> = Asked {
            request,
            client: None,
            random: 0,
            now_unix_s: 1_000,
            is_moved: false,
        };
        explain::explain(&table, UNIT1, &asked, |cluster| !empty.contains(&cluster))
            .unwrap()
            .to_string()
    };
    let known = request("/", &[("x-request-id", "a"), ("x-user-id", "17")]);
    let point = share::percent(share::part(
        Draw::new("grow", 0).point(crate::steering::hash_bytes(0, b"a")),
    ));
    assert_eq!(
        say(&known, &[]),
        format!(
            "\
steering  pay, home unit1
    green@1  header x-colour does not say so
    old@1    has expired
    low@1    user 17 is not in its range
    cap@1    matches: refuses what is over its rate
  > grow@17  shift to unit2, 30 %: the request falls at {point}, outside
    late@1   matches, but comes later
    away@1   matches: unit2, unit3 if the place has no endpoint
steer     grow@17:unit1→unit1
"
        )
    );
    assert!(say(&known, &[UNIT1]).ends_with("steer     away@1:unit1→unit2\n"));
    assert!(say(&known, &[UNIT1, UNIT2, UNIT3]).ends_with("steer     refused: steer_no_target\n"));
    let unknown = say(&request("/", &[]), &[]);
    assert!(
        unknown.contains("low@1    the request names no user\n"),
        "{unknown}"
    );
    assert!(
        unknown.contains("> grow@17  shift to unit2, 30 %, by chance\n"),
        "{unknown}"
    );
    assert!(unknown.ends_with("steer     by chance\n"), "{unknown}");
}

/// Goal: nothing that a program may hold grows without end. Method: as many places and rules as there may be, and one
/// more.
#[test]
fn programs_have_limits() {
    use crate::config::model::steering::{PLACES_MAX, RULES_MAX};
    let places = |count: usize| {
        let mut one = steering(vec![]);
        let pay = one.applications.get_mut("pay").unwrap();
        let unit = |i| {
            (
                Arc::from(format!("u{i}")),
                Arc::from(format!("cluster-{i}")),
            )
        };
        pay.units = (1..count).map(unit).collect();
        one
    };
    let count = |one: &Steering| check(one, &|_| true).len();
    assert_eq!(count(&places(PLACES_MAX)), 0);
    assert_eq!(count(&places(PLACES_MAX + 1)), 1);
    let rules = |count: usize| {
        let rules = (0..count).map(|i| set_unit(&format!("r{i}"), "unit2"));
        steering(rules.collect())
    };
    assert_eq!(count(&rules(RULES_MAX)), 0);
    assert_eq!(count(&rules(RULES_MAX + 1)), 1);
}
