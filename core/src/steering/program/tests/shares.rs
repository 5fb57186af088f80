//! Who is moved, how many, and what that costs.

use super::*;

/// How `n` keys of a home are shared out over the four places.
fn shared_out(table: &Table, home: ClusterId, n: u64) -> [u64; 4] {
    let request = request("/", &[]);
    let mut hits = [0; 4];
    for i in 0..n {
        let decided = table.decide(
            home,
            &asked(&request, mix(i)),
            &mut RouteScratch::default(),
            &Around::default(),
        );
        hits[decided.unwrap().unwrap().to.cluster.index()] += 1;
    }
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Goal: many to many, exactly (S8, S13). Method: matrices whose rows are drawn, and the counts of every home
    /// within six standard deviations of a binomial draw.
    #[test]
    fn matrices_are_exact(cuts in prop::array::uniform3(prop::array::uniform2(0..=WHOLE))) {
        const N: u64 = 20_000;
        let names = ["unit1", "unit2", "unit3"];
        let shares = cuts.map(|[a, b]| [a.min(b), a.max(b) - a.min(b), WHOLE - a.max(b)]);
        let rows = names.iter().zip(shares).map(|(from, row)| {
            (Arc::from(*from), names.iter().map(|to| Arc::from(*to)).zip(row).collect())
        });
        let table = table(vec![rule("m", Verb::Matrix(rows.collect()))]);
        for (home, row) in [UNIT1, UNIT2, UNIT3].into_iter().zip(shares) {
            let hits = shared_out(&table, home, N);
            for (hits, share) in hits.into_iter().zip(row) {
                let p = f64::from(share) / f64::from(WHOLE);
                let sigma = (N as f64 * p * (1.0 - p)).sqrt();
                prop_assert!((hits as f64 - N as f64 * p).abs() <= 6.0 * sigma, "{home:?} {hits} of {p}");
            }
        }
    }

    /// Goal: what a ramp has moved stays where it is while it grows, over any verb (S4, S13). Method: two points of
    /// a matrix that is moved step by step, and the keys that the smaller moves.
    #[test]
    fn ramps_are_monotone(a in 0..=WHOLE, b in 0..=WHOLE) {
        let row = vec![(Arc::from("unit2"), 6_000), (Arc::from("unit3"), 4_000)];
        let at = |reached| table(vec![with(rule("m", Verb::Matrix(vec![(Arc::from("unit1"), row.clone())])), |rule| {
            rule.reached = Some(reached);
        })]);
        let (small, large) = (at(a.min(b)), at(a.max(b)));
        let request = request("/", &[]);
        for key in (0..2_000).map(mix) {
            let at = |table: &Table| told_of(table, UNIT1, &asked(&request, key), &Around::default());
            let before = at(&small);
            prop_assert!(before == "m: unit1 → unit1" || before == at(&large), "{before}");
        }
    }
}

/// Goal: diverting by target share brings the target to that share (S5, the share trap). Method: three servers
/// with the same program and a third of the requests each; the one at the end has four fifths.
#[test]
fn a_target_share_is_reached() {
    const N: u64 = 100_000;
    let share = DivertShare::Target {
        share: 8_000,
        servers: 3,
    };
    let table = table(vec![rule(
        "d",
        Verb::Divert {
            to: "unit1".into(),
            share,
        },
    )]);
    let at_target: u64 = [UNIT1, UNIT2, UNIT3]
        .into_iter()
        .map(|home| shared_out(&table, home, N)[0])
        .sum();
    let reached = at_target as f64 / (3 * N) as f64;
    assert!((reached - 0.8).abs() < 0.005, "{reached}");
}

/// Goal: the same request falls the same way everywhere and again (S13). Method: its id, and its sticky key,
/// against different random numbers; without both chance decides.
#[test]
fn shares_go_by_what_the_request_carries() {
    let shift = || {
        rule(
            "r",
            Verb::Shift {
                to: "unit2".into(),
                share: 5_000,
            },
        )
    };
    let sticky = with(shift(), |rule| {
        rule.sticky = Some(HashOn::Cookie("user".into()))
    });
    let by_id = table(vec![shift()]);
    let by_key = table(vec![sticky]);
    let outcomes = |table: &Table, request: &Typed| {
        let all =
            (0..200).map(|i| told_of(table, UNIT1, &asked(request, mix(i)), &Around::default()));
        all.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(outcomes(&by_id, &request("/", &[("x-request-id", "a")])), 1);
    assert_eq!(outcomes(&by_key, &request("/", &[("cookie", "user=a")])), 1);
    assert_eq!(
        outcomes(&by_key, &request("/", &[("x-request-id", "a")])),
        1
    );
    assert_eq!(outcomes(&by_id, &request("/", &[])), 2);
}

/// Goal: rules that cannot match are not looked at. Method: how many are, beside one and beside a thousand of other
/// interfaces, homes and applications.
#[test]
fn what_cannot_match_costs_nothing() {
    let count = |others: usize| {
        let mut rules = vec![set_unit("mine", "unit2")];
        rules.extend((0..others).map(|i| {
            with(set_unit(&format!("other-{i}"), "unit2"), |rule| {
                match i % 2 {
                    0 => rule.matches.from = Some("unit3".into()),
                    _ => {
                        rule.matches.interface = Some(Interface {
                            service: format!("s{i}").into(),
                            method: None,
                        });
                    }
                }
            })
        }));
        table(rules).candidate_count(UNIT1, &request("/pay.Transfer/Create", &[]))
    };
    assert_eq!(count(0), 1);
    assert_eq!(count(1_000), 1);
    // A path that ends with a slash is its service alone, and is found once.
    let service = with(set_unit("s", "unit2"), |rule| {
        rule.matches.interface = Some(Interface {
            service: "pay.Transfer".into(),
            method: None,
        });
    });
    let table = table(vec![service]);
    assert_eq!(
        table.candidate_count(UNIT1, &request("/pay.Transfer/", &[])),
        1
    );
}

/// Goal: deciding allocates nothing. Method: count allocations, over rules of every kind.
#[test]
fn a_decision_allocates_nothing() {
    let rules = vec![
        with(set_unit("a", "unit2"), |rule| {
            rule.matches.colour = Some("red".into())
        }),
        with(set_unit("b", "unit2"), |rule| {
            rule.matches.interface = Some(Interface {
                service: "s".into(),
                method: Some("m".into()),
            });
            rule.matches.users = Some((0, 9));
        }),
        rule(
            "c",
            Verb::Shift {
                to: "unit3".into(),
                share: 5_000,
            },
        ),
        rule("d", Verb::FailTo(vec!["unit2".into()])),
    ];
    let table = table(rules);
    let request = request("/s/m", &[("x-user-id", "17"), ("x-request-id", "a")]);
    let mut scratch = RouteScratch::default();
    let around = Around::default();
    let info = allocation_counter::measure(|| {
        let decided = table.decide(UNIT1, &asked(&request, 1), &mut scratch, &around);
        table.count(ShardId(0), UNIT1, &decided.unwrap());
    });
    assert_eq!(info.count_total, 0);
}

/// Goal: counters go on while a rule keeps its id and a place its name. Method: count, compile again, count.
#[test]
fn counters_survive_a_change() {
    let first = table(vec![set_unit("r", "unit2"), set_unit("gone", "unit2")]);
    let request = request("/", &[]);
    let count = |table: &Table| {
        let decided = table.decide(
            UNIT1,
            &asked(&request, 1),
            &mut RouteScratch::default(),
            &Around::default(),
        );
        table.count(ShardId(0), UNIT1, &decided.unwrap());
    };
    count(&first);
    let changed = with(set_unit("r", "unit3"), |rule| rule.epoch = 2);
    let second = compile(&steering(vec![changed]), Some(&first));
    count(&second);
    assert_eq!(second.rule("r").unwrap().counters.sum(|c| c.moved.get()), 2);
    let home = second.place(UNIT1).unwrap();
    assert_eq!(home.counters.sum(|c| c.arrived.get()), 2);
    let flows: Vec<u64> = (0..4)
        .map(|to| home.counters.sum(|c| c.to[to].get()))
        .collect();
    assert_eq!(flows, [0, 1, 1, 0]);
}

/// Goal: draws of one rule are apart from each other: a half of a half is a quarter, and of what a ramp moves each
/// place has its share (S13). Method: counts of many keys, of a `percent` with a share, and of a split on its way.
#[test]
fn draws_of_a_rule_are_apart() {
    const N: u64 = 40_000;
    let is_about = |hits: u64, p: f64| (hits as f64 - N as f64 * p).abs() < 600.0;
    let quarter = with(
        rule(
            "r",
            Verb::Shift {
                to: "unit2".into(),
                share: 5_000,
            },
        ),
        |rule| rule.matches.percent = Some(5_000),
    );
    let hits = shared_out(&table(vec![quarter]), UNIT1, N);
    assert!(is_about(hits[1], 0.25), "{hits:?}");
    let row = vec![(Arc::from("unit2"), 6_000), (Arc::from("unit3"), 4_000)];
    let half = with(rule("r", Verb::Split(row)), |rule| {
        rule.reached = Some(5_000)
    });
    let hits = shared_out(&table(vec![half]), UNIT1, N);
    let expected = [0.5, 0.3, 0.2, 0.0];
    for (hits, p) in hits.into_iter().zip(expected) {
        assert!(is_about(hits, p), "{hits} of {p}");
    }
}
