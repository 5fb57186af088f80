//! The program as a whole.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod shares;
mod words;

use std::{cell::Cell, collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{share::WHOLE, *};
use crate::{
    config::model::{
        HashOn, ValuePattern,
        steering::{
            Application, DivertShare, Fallback, Group, Interface, Match, Network, OnStop, Ramp,
            Rule, Steering, Stop, Verb,
        },
    },
    id::{ClusterId, Epoch, ShardId},
    limiter::bucket::Rate,
    steering::{RequestView, RouteScratch, mix},
};

const UNIT1: ClusterId = ClusterId(0);
const UNIT2: ClusterId = ClusterId(1);
const UNIT3: ClusterId = ClusterId(2);
const GROUP: ClusterId = ClusterId(3);

/// Three units and an exclusive group, each a cluster of its own; another cluster is no place.
fn steering(rules: Vec<Rule>) -> Steering {
    let units =
        ["unit1", "unit2", "unit3"].map(|name| (Arc::from(name), Arc::from(format!("pay-{name}"))));
    let group = Group {
        cluster: "pay-transfers".into(),
        exclusive: true,
    };
    let pay = Application {
        units: units.into(),
        groups: [(Arc::from("transfers"), group)].into(),
    };
    Steering {
        applications: [(Arc::from("pay"), pay)].into(),
        rules,
        trusted_peers: vec![Network {
            address: "10.0.0.0".parse().unwrap(),
            bits: 8,
        }],
        ..Steering::default()
    }
}

fn clusters() -> BTreeMap<&'static str, ClusterId> {
    let names = [
        "pay-unit1",
        "pay-unit2",
        "pay-unit3",
        "pay-transfers",
        "other",
    ];
    names.into_iter().zip((0u32..).map(ClusterId)).collect()
}

fn compile(steering: &Steering, previous: Option<&Table>) -> Table {
    assert_eq!(faults(steering), [""; 0]);
    Table::compile(steering, &clusters(), previous, 1, Epoch(7))
}

fn table(rules: Vec<Rule>) -> Table {
    compile(&steering(rules), None)
}

fn faults(steering: &Steering) -> Vec<String> {
    let has = |name: &str| clusters().contains_key(name);
    let faults = check(steering, &has);
    faults
        .into_iter()
        .map(|f| format!("{}: {}; {}", f.key, f.problem, f.remedy))
        .collect()
}

fn rule(id: &str, verb: Verb) -> Rule {
    Rule {
        id: id.into(),
        owner: "team".into(),
        epoch: 1,
        expires_unix_s: None,
        matches: Match {
            application: "pay".into(),
            ..Match::default()
        },
        verb,
        sticky: None,
        fallback: None,
        ramp: None,
        reached: None,
        origin: "f.yaml:1:1".into(),
    }
}

fn with(mut rule: Rule, change: impl FnOnce(&mut Rule)) -> Rule {
    change(&mut rule);
    rule
}

fn set_unit(id: &str, to: &str) -> Rule {
    rule(id, Verb::SetUnit(to.into()))
}

/// A request that was typed.
#[derive(Default)]
struct Typed {
    path: String,
    headers: Vec<(&'static str, String)>,
}

impl RequestView for Typed {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn host(&self) -> &[u8] {
        b"pay.example"
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        None
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value.as_bytes())
    }
}

fn request(path: &str, headers: &[(&'static str, &str)]) -> Typed {
    Typed {
        path: path.to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
    }
}

fn asked(request: &Typed, random: u64) -> Asked<'_, Typed> {
    Asked {
        request,
        client: None,
        random,
        now_unix_s: 1_000,
        is_moved: false,
    }
}

/// Clusters without endpoints; tokens without end unless told otherwise.
#[derive(Default)]
struct Around {
    empty: Vec<ClusterId>,
    asked_for_tokens: Cell<u32>,
    is_over: bool,
}

impl Surroundings for Around {
    fn is_usable(&self, cluster: ClusterId) -> bool {
        !self.empty.contains(&cluster)
    }
    fn take_token(&self, _: &CompiledRule) -> Option<Duration> {
        self.asked_for_tokens.set(self.asked_for_tokens.get() + 1);
        self.is_over.then_some(Duration::from_secs(3))
    }
}

/// What is decided, as `rule: from → to`, `! ` in front of what fell back, or the reason of a refusal.
fn told_of(table: &Table, home: ClusterId, asked: &Asked<'_, Typed>, around: &Around) -> String {
    let decided = table.decide(home, asked, &mut RouteScratch::default(), around);
    match decided {
        None => "no place".to_owned(),
        Some(Err(refused)) => refused.reason().word().to_owned(),
        Some(Ok(decision)) => {
            let rule = decision.rule.map_or("none", |rule| &rule.id);
            let mark = if decision.fell_back { "! " } else { "" };
            format!(
                "{mark}{rule}: {} → {}",
                decision.from.name, decision.to.name
            )
        }
    }
}

fn told(table: &Table, home: ClusterId, request: &Typed) -> String {
    told_of(table, home, &asked(request, 0), &Around::default())
}

/// Goal: every condition holds and fails as it says (S2, S7). Method: a rule of each, and requests on both
/// sides of it; a rule of another application is never asked.
#[test]
fn conditions_hold() {
    let matching = |change: fn(&mut Match)| {
        table(vec![with(set_unit("r", "unit2"), |rule| {
            change(&mut rule.matches)
        })])
    };
    let interface = |service: &str, method: Option<&str>| Interface {
        service: service.into(),
        method: method.map(Into::into),
    };
    let method = table(vec![with(set_unit("r", "unit2"), |r| {
        r.matches.interface = Some(interface("pay.Transfer", Some("Create")));
    })]);
    let service = table(vec![with(set_unit("r", "unit2"), |r| {
        r.matches.interface = Some(interface("pay.Transfer", None));
    })]);
    let yes = "r: unit1 → unit2";
    let no = "none: unit1 → unit1";
    for (table, path, headers, expected) in [
        (&method, "/pay.Transfer/Create", &[][..], yes),
        (&method, "/pay.Transfer/%43reate", &[], yes),
        (&method, "/pay.Transfer/Creates", &[], no),
        (&method, "/pay.Transfer/", &[], no),
        (&service, "/pay.Transfer/Any", &[], yes),
        (&service, "/pay.Transfer/", &[], yes),
        (&service, "/pay.Transfer", &[], no),
        (&service, "/pay.Transfer/a/b", &[], no),
        (
            &matching(|m| m.colour = Some("green".into())),
            "/",
            &[("x-colour", "green")],
            yes,
        ),
        (
            &matching(|m| m.colour = Some("green".into())),
            "/",
            &[("x-colour", "red")],
            no,
        ),
        (
            &matching(|m| m.users = Some((0, 49))),
            "/",
            &[("x-user-id", "u-1049")],
            yes,
        ),
        (
            &matching(|m| m.users = Some((0, 49))),
            "/",
            &[("x-user-id", "u-1050")],
            no,
        ),
        (&matching(|m| m.users = Some((0, 49))), "/", &[], no),
        (
            &matching(|m| m.stress = Some(true)),
            "/",
            &[("x-stress", "1")],
            yes,
        ),
        (&matching(|m| m.stress = Some(true)), "/", &[], no),
        (
            &matching(|m| m.stress = Some(false)),
            "/",
            &[("x-stress", "1")],
            no,
        ),
        (
            &matching(|m| m.headers = vec![("x-a".into(), ValuePattern::Prefix("b".into()))]),
            "/",
            &[("x-a", "bc")],
            yes,
        ),
        (
            &matching(|m| m.headers = vec![("x-a".into(), ValuePattern::Prefix("b".into()))]),
            "/",
            &[("x-a", "cb")],
            no,
        ),
        (
            &matching(|m| m.cookies = vec![("c".into(), "1".into())]),
            "/",
            &[("cookie", "b=2; c=1")],
            yes,
        ),
        (
            &matching(|m| m.cookies = vec![("c".into(), "1".into())]),
            "/",
            &[("cookie", "b=2; c=12")],
            no,
        ),
        (&matching(|m| m.from = Some("unit1".into())), "/", &[], yes),
        (&matching(|m| m.from = Some("unit3".into())), "/", &[], no),
        (&matching(|m| m.percent = Some(WHOLE)), "/", &[], yes),
        (&matching(|m| m.percent = Some(0)), "/", &[], no),
    ] {
        assert_eq!(
            told(table, UNIT1, &request(path, headers)),
            expected,
            "{path} {headers:?}"
        );
    }
    assert_eq!(told(&method, ClusterId(4), &request("/", &[])), "no place");
}

/// Goal: a rule ends by itself, at its second (S1). Method: the second before, and it.
#[test]
fn rules_expire() {
    let table = table(vec![with(set_unit("r", "unit2"), |r| {
        r.expires_unix_s = Some(1_000)
    })]);
    let request = request("/", &[]);
    let at = |now_unix_s| {
        let asked = Asked {
            now_unix_s,
            ..asked(&request, 0)
        };
        told_of(&table, UNIT1, &asked, &Around::default())
    };
    assert_eq!(at(999), "r: unit1 → unit2");
    assert_eq!(at(1_000), "none: unit1 → unit1");
}

/// Goal: the first rule that matches decides, also where it moves nothing; what is outside of `percent` goes on
/// to the next. Method: pairs of rules.
#[test]
fn the_first_rule_decides() {
    let shift = |share| {
        rule(
            "first",
            Verb::Shift {
                to: "unit2".into(),
                share,
            },
        )
    };
    let second = || set_unit("second", "unit3");
    let request = request("/", &[]);
    assert_eq!(
        told(&table(vec![shift(WHOLE), second()]), UNIT1, &request),
        "first: unit1 → unit2"
    );
    assert_eq!(
        told(&table(vec![shift(0), second()]), UNIT1, &request),
        "first: unit1 → unit1"
    );
    let outside = with(shift(WHOLE), |rule| rule.matches.percent = Some(0));
    assert_eq!(
        told(&table(vec![outside, second()]), UNIT1, &request),
        "second: unit1 → unit3"
    );
}

/// Goal: a request is moved at most once (S12). Method: the same request with and without a trusted mark, against
/// a matrix that swaps two units, and a failover; a `cap` holds for both.
#[test]
fn a_moved_request_stays() {
    let row = |from: &str, to: &str| (Arc::from(from), vec![(Arc::from(to), WHOLE)]);
    let swap = rule(
        "swap",
        Verb::Matrix(vec![row("unit1", "unit2"), row("unit2", "unit1")]),
    );
    let fail_to = rule("away", Verb::FailTo(vec!["unit3".into()]));
    let cap = rule(
        "cap",
        Verb::Cap(Rate {
            requests: 1,
            per: Duration::from_secs(1),
            burst: 1,
        }),
    );
    let table = table(vec![swap, fail_to, cap]);
    let request = request("/", &[]);
    let moved = Asked {
        is_moved: true,
        ..asked(&request, 0)
    };
    let around = Around {
        empty: vec![UNIT2],
        ..Around::default()
    };
    assert_eq!(told(&table, UNIT2, &request), "swap: unit2 → unit1");
    assert_eq!(
        told_of(&table, UNIT2, &moved, &around),
        "none: unit2 → unit2"
    );
    assert_eq!(around.asked_for_tokens.get(), 1);
    let over = Around {
        is_over: true,
        ..Around::default()
    };
    assert_eq!(told_of(&table, UNIT2, &moved, &over), "steer_capped");
}

/// Goal: an empty target is an error unless the rule names a way out (S17, S3). Method: every fallback, with and
/// without a failover, over places that are empty.
#[test]
fn an_empty_target_is_never_any() {
    let rules = |fallback: Option<Fallback>, failover: bool| {
        let mut rules = vec![with(set_unit("r", "unit2"), |rule| {
            rule.fallback = fallback
        })];
        rules.extend(
            failover.then(|| rule("away", Verb::FailTo(vec!["unit2".into(), "unit3".into()]))),
        );
        table(rules)
    };
    let place = |name: &str| Some(Fallback::Place(name.into()));
    let request = request("/", &[]);
    for (fallback, failover, empty, expected) in [
        (None, false, &[UNIT2][..], "steer_no_target"),
        (Some(Fallback::Refuse), true, &[UNIT2], "steer_no_target"),
        (Some(Fallback::Home), false, &[UNIT2], "! r: unit1 → unit1"),
        (
            Some(Fallback::Home),
            false,
            &[UNIT1, UNIT2],
            "steer_no_target",
        ),
        (place("unit3"), false, &[UNIT2], "! r: unit1 → unit3"),
        (place("unit3"), false, &[UNIT2, UNIT3], "steer_no_target"),
        (None, true, &[UNIT2], "! away: unit1 → unit3"),
        (None, true, &[UNIT2, UNIT3], "steer_no_target"),
        (None, true, &[], "r: unit1 → unit2"),
    ] {
        let around = Around {
            empty: empty.to_vec(),
            ..Around::default()
        };
        let table = rules(fallback.clone(), failover);
        assert_eq!(
            told_of(&table, UNIT1, &asked(&request, 0), &around),
            expected,
            "{fallback:?} {empty:?}"
        );
    }
    let alone = table(vec![rule(
        "away",
        Verb::FailTo(vec!["unit2".into(), "unit3".into()]),
    )]);
    for (empty, expected) in [
        (&[][..], "none: unit1 → unit1"),
        (&[UNIT1], "! away: unit1 → unit2"),
        (&[UNIT1, UNIT2], "! away: unit1 → unit3"),
        (&[UNIT1, UNIT2, UNIT3], "steer_no_target"),
    ] {
        let around = Around {
            empty: empty.to_vec(),
            ..Around::default()
        };
        assert_eq!(
            told_of(&alone, UNIT1, &asked(&request, 0), &around),
            expected,
            "{empty:?}"
        );
    }
}

/// Goal: an exclusive group gets what rules name it for, and only that (S9). Method: requests from elsewhere, and
/// such whose route leads there: named, not named, outside of the rule's share, and moved by a trusted peer.
#[test]
fn a_group_gets_nothing_until_it_is_named() {
    let named = with(rule("r", Verb::SetGroup("transfers".into())), |rule| {
        rule.matches.colour = Some("money".into());
    });
    let table_of = |rule: &Rule| table(vec![rule.clone()]);
    let money = request("/", &[("x-colour", "money")]);
    let other = request("/", &[]);
    let table_named = table_of(&named);
    assert_eq!(told(&table_named, UNIT1, &money), "r: unit1 → transfers");
    assert_eq!(told(&table_named, UNIT1, &other), "none: unit1 → unit1");
    assert_eq!(
        told(&table_named, GROUP, &money),
        "r: transfers → transfers"
    );
    assert_eq!(told(&table_named, GROUP, &other), "steer_not_named");
    let moved = Asked {
        is_moved: true,
        ..asked(&other, 0)
    };
    assert_eq!(
        told_of(&table_named, GROUP, &moved, &Around::default()),
        "none: transfers → transfers"
    );
    let none = with(
        rule(
            "r",
            Verb::Shift {
                to: "transfers".into(),
                share: 0,
            },
        ),
        |_| {},
    );
    assert_eq!(told(&table_of(&none), GROUP, &money), "steer_not_named");
    let home = with(set_unit("r", "unit2"), |rule| {
        rule.fallback = Some(Fallback::Home)
    });
    let around = Around {
        empty: vec![UNIT2],
        ..Around::default()
    };
    assert_eq!(
        told_of(&table_of(&home), GROUP, &asked(&money, 0), &around),
        "steer_no_target"
    );
}
