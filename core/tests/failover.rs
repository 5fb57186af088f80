//! Where load goes when endpoints are out: over priorities, localities and subsets, as picks show it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    balancer::{
        Balancer, EndpointInput, Rules,
        priority::{Health, loads, locality_weight},
    },
    config::model::Balance,
    id::{EndpointId, SubsetId},
    message::Availability::{Available, Unavailable},
    steering::destination::mix,
};

const NOW: Duration = Duration::ZERO;

/// An endpoint of a priority and a locality; the locality's weight is its number plus one.
fn endpoint(at: usize, priority: u32, locality: u32) -> EndpointInput {
    EndpointInput {
        priority,
        locality,
        locality_weight: locality + 1,
        ..EndpointInput::new(mix(at as u64), 1)
    }
}

/// Picks by endpoint.
fn counts(balancer: &mut Balancer, subset: SubsetId, endpoints: usize, n: u64) -> Vec<u64> {
    let mut counts = vec![0; endpoints];
    for i in 0..n {
        let picked = balancer.pick_in(subset, None, mix(i * 77 + 5), &[], NOW);
        if let Some(picked) = picked {
            counts[picked.index()] += 1;
        }
    }
    counts
}

fn sum(counts: &[u64], of: impl Fn(usize) -> bool) -> u64 {
    let counts = counts.iter().enumerate();
    counts.filter(|(i, _)| of(*i)).map(|(_, n)| n).sum()
}

/// Within five standard deviations of a binomial draw.
fn assert_share(hits: u64, n: u64, p: f64, what: &str) {
    let sigma = (n as f64 * p * (1.0 - p)).sqrt();
    let off = (hits as f64 - n as f64 * p).abs();
    assert!(
        off <= 5.0 * sigma + 1e-9,
        "{what}: {hits} of {n}, expected {p}"
    );
}

/// Goal: load leaves a priority as its endpoints go, and comes back with them. Method: every policy, two priorities of
/// ten; endpoints of the first go one by one until the second, too, cannot take it all.
#[test]
fn load_spills_over_and_comes_back() {
    for policy in Balance::ALL {
        let inputs: Vec<_> = (0..20)
            .map(|i| endpoint(i, u32::from(i >= 10), 0))
            .collect();
        let mut balancer = Balancer::new(&Rules::new(policy), &inputs, &[], NOW);
        for (out, first) in [
            (0, 1.0),
            (2, 1.0),
            (3, 0.98),
            (5, 0.7),
            (9, 0.14),
            (10, 0.0),
            (4, 0.84),
            (0, 1.0),
        ] {
            for i in 0..10 {
                let availability = if i < out { Unavailable } else { Available };
                balancer.set_availability(EndpointId(i), availability, NOW);
            }
            let counts = counts(&mut balancer, SubsetId::ALL, 20, 20_000);
            let what = format!("{policy:?}, {out} out");
            assert_share(sum(&counts, |i| i < 10), 20_000, first, &what);
            assert_eq!(sum(&counts, |i| i < out as usize), 0, "{what}");
            assert!(!balancer.is_panicking());
        }
    }
}

/// Goal: too few healthy endpoints in all are as good as none: everybody is used, by the size of priorities; with a
/// threshold of 0, nobody ever is who is out. Method: every policy, one of four healthy in one priority and none of four
/// in the other, then none at all.
#[test]
fn panic_uses_everybody() {
    for policy in Balance::ALL {
        let inputs: Vec<_> = (0..8).map(|i| endpoint(i, u32::from(i >= 4), 0)).collect();
        for threshold in [50, 0] {
            let rules = Rules {
                panic_threshold: threshold,
                ..Rules::new(policy)
            };
            let mut balancer = Balancer::new(&rules, &inputs, &[], NOW);
            (1..8).for_each(|i| balancer.set_availability(EndpointId(i), Unavailable, NOW));
            let one_left = counts(&mut balancer, SubsetId::ALL, 8, 8_000);
            balancer.set_availability(EndpointId(0), Unavailable, NOW);
            let none_left = counts(&mut balancer, SubsetId::ALL, 8, 8_000);
            assert_eq!(balancer.is_panicking(), threshold > 0);
            if threshold == 0 {
                assert_eq!(one_left, [8_000, 0, 0, 0, 0, 0, 0, 0], "{policy:?}");
                assert_eq!(none_left, [0; 8], "{policy:?}");
                continue;
            }
            for counts in [one_left, none_left] {
                assert_share(sum(&counts, |i| i < 4), 8_000, 0.5, &format!("{policy:?}"));
                assert!(counts.iter().all(|n| *n > 100), "{policy:?} {counts:?}");
            }
        }
    }
}

/// Goal: localities get load by weight, whatever the number of endpoints, and lose it in proportion when more are out
/// than overprovisioning makes up for. Method: every policy, weights 1 and 2, five endpoints and one.
#[test]
fn localities_get_load_by_weight() {
    for policy in Balance::ALL {
        let rules = Rules {
            by_locality: true,
            ..Rules::new(policy)
        };
        let inputs: Vec<_> = (0..6).map(|i| endpoint(i, 0, u32::from(i == 5))).collect();
        let mut balancer = Balancer::new(&rules, &inputs, &[], NOW);
        // 1.4 × 3 in 5 is 0.84, 1.4 × 4 in 5 is more than 1.
        for (out, first) in [(0, 1.0), (1, 1.0), (2, 0.84)] {
            (0..out).for_each(|i| balancer.set_availability(EndpointId(i), Unavailable, NOW));
            let counts = counts(&mut balancer, SubsetId::ALL, 6, 20_000);
            let share = first / (first + 2.0);
            assert_share(
                sum(&counts, |i| i < 5),
                20_000,
                share,
                &format!("{policy:?}, {out} out"),
            );
        }
        balancer.set_availability(EndpointId(5), Unavailable, NOW);
        let counts = counts(&mut balancer, SubsetId::ALL, 6, 1_000);
        assert_eq!(
            sum(&counts, |i| (2..5).contains(&i)),
            1_000,
            "{policy:?}: the other one takes all"
        );
    }
}

/// Goal: a subset gets its endpoints only, with a health of its own; an endpoint that is out is out in all of them.
/// Method: every policy, two subsets that share an endpoint.
#[test]
fn subsets_have_their_endpoints_only() {
    for policy in Balance::ALL {
        let inputs: Vec<_> = (0..4).map(|i| endpoint(i, 0, 0)).collect();
        let ids = |ids: &[u32]| ids.iter().map(|id| EndpointId(*id)).collect::<Vec<_>>();
        let subsets = [ids(&[0, 1]), ids(&[1, 2, 3])];
        let mut balancer = Balancer::new(&Rules::new(policy), &inputs, &subsets, NOW);
        let of = |balancer: &mut Balancer, subset| counts(balancer, SubsetId(subset), 4, 1_000);
        assert_eq!(sum(&of(&mut balancer, 1), |i| i < 2), 1_000, "{policy:?}");
        assert_eq!(sum(&of(&mut balancer, 2), |i| i > 0), 1_000, "{policy:?}");
        assert_eq!(
            of(&mut balancer, 3),
            [0; 4],
            "{policy:?}: there is no such subset"
        );
        balancer.set_availability(EndpointId(1), Unavailable, NOW);
        assert_eq!(of(&mut balancer, 1), [1_000, 0, 0, 0], "{policy:?}");
        assert_eq!(of(&mut balancer, 2)[1], 0, "{policy:?}");
        // Half of the cluster is left, and none of the first subset.
        balancer.set_availability(EndpointId(0), Unavailable, NOW);
        assert!(
            of(&mut balancer, 1)[..2].iter().all(|n| *n > 100),
            "{policy:?}"
        );
        assert_eq!(sum(&of(&mut balancer, 2), |i| i > 1), 1_000, "{policy:?}");
        // A trial of an endpoint is for requests of its subsets.
        balancer.offer_trial(EndpointId(0));
        assert_eq!(balancer.take_trial(SubsetId(2), &[]), None);
        assert_eq!(balancer.take_trial(SubsetId(1), &[]), Some(EndpointId(0)));
    }
}

/// Goal: a retry goes where another endpoint is left, beyond its priority and locality. Method: every policy, one
/// endpoint each.
#[test]
fn retries_leave_their_priority() {
    for policy in Balance::ALL {
        let inputs = [endpoint(0, 0, 0), endpoint(1, 0, 1), endpoint(2, 1, 0)];
        let rules = Rules {
            by_locality: true,
            ..Rules::new(policy)
        };
        let mut balancer = Balancer::new(&rules, &inputs, &[], NOW);
        for i in 0..100 {
            let mut tried = Vec::new();
            for _ in 0..3 {
                let picked = balancer.pick(Some(mix(i)), mix(i), &tried, NOW).unwrap();
                assert!(!tried.contains(&picked), "{policy:?}");
                tried.push(picked);
            }
            assert_eq!(
                tried[2],
                EndpointId(2),
                "{policy:?}: the lower priority is last"
            );
        }
    }
}

/// Goal: what the control plane has taken out counts as unhealthy, and stays so. Method: one of two, told to be well.
#[test]
fn out_of_rotation_counts_as_unhealthy() {
    let mut inputs = [endpoint(0, 0, 0), endpoint(1, 0, 0)];
    inputs[0].is_out = true;
    let mut balancer = Balancer::new(&Rules::new(Balance::Random), &inputs, &[], NOW);
    balancer.set_availability(EndpointId(0), Unavailable, NOW);
    balancer.set_availability(EndpointId(0), Available, NOW);
    assert_eq!(counts(&mut balancer, SubsetId::ALL, 2, 100), [0, 100]);
    inputs[0].is_out = false;
    balancer.update(&Rules::new(Balance::Random), &inputs, &[], NOW);
    assert!(counts(&mut balancer, SubsetId::ALL, 2, 100)[0] > 20);
}

/// Goal: picks over priorities, localities and subsets allocate nothing. Method: allocations are counted over picks of
/// each policy, after those that lay out what is laid out late.
#[test]
fn picks_allocate_nothing() {
    for policy in Balance::ALL {
        let inputs: Vec<_> = (0..12)
            .map(|i| endpoint(i, i as u32 / 6, i as u32 % 2))
            .collect();
        let rules = Rules {
            by_locality: true,
            subsets_by_locality: true,
            ..Rules::new(policy)
        };
        let subset: Vec<_> = (0..8).map(EndpointId).collect();
        let mut balancer = Balancer::new(&rules, &inputs, &[subset], NOW);
        (0..4).for_each(|i| balancer.set_availability(EndpointId(i), Unavailable, NOW));
        let mut picks = |n: u64| {
            for i in 0..n {
                let first = balancer
                    .pick_in(SubsetId(i as u32 % 2), None, mix(i), &[], NOW)
                    .unwrap();
                balancer.pick(None, mix(i), &[first], NOW).unwrap();
            }
        };
        picks(500);
        let allocations = allocation_counter::measure(|| picks(5_000));
        assert_eq!(allocations.count_total, 0, "{policy:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Goal: shares of picks are those of the rules, after any history of availability and of changes. Method: random
    /// clusters; the expected share of each endpoint is worked out from the rules by hand, and compared within five
    /// standard deviations.
    #[test]
    fn shares_of_picks_are_those_of_the_rules(
        places in prop::collection::vec((0u32..3, 0u32..3, any::<bool>()), 1..12),
        history in prop::collection::vec((0usize..12, any::<bool>()), 0..20),
        by_locality: bool,
        threshold in 0u32..=100,
    ) {
        let inputs: Vec<_> = places.iter().enumerate().map(|(i, p)| endpoint(i, p.0, p.1)).collect();
        let rules = Rules { by_locality, panic_threshold: threshold, ..Rules::new(Balance::Random) };
        // Begin elsewhere, so that what is there was updated and not made.
        let mut balancer = Balancer::new(&Rules::new(Balance::RoundRobin), &inputs[..1], &[], NOW);
        balancer.update(&rules, &inputs, &[], NOW);
        for (at, up) in history {
            if at < inputs.len() {
                balancer.set_availability(EndpointId(at as u32), if up { Available } else { Unavailable }, NOW);
            }
        }
        for (i, place) in places.iter().enumerate() {
            balancer.set_availability(EndpointId(i as u32), if place.2 { Available } else { Unavailable }, NOW);
        }
        const N: u64 = 4_000;
        let got = counts(&mut balancer, SubsetId::ALL, inputs.len(), N);
        let expected = expected(&places, &rules);
        for (i, (hits, share)) in got.iter().zip(&expected).enumerate() {
            assert_share(*hits, N, *share, &format!("{i} of {places:?}: {got:?} {expected:?}"));
        }
    }
}

/// By endpoint: its share, worked out from the rules.
fn expected(places: &[(u32, u32, bool)], rules: &Rules) -> Vec<f64> {
    let health = |of: &dyn Fn(&(u32, u32, bool)) -> bool| {
        let of: Vec<_> = places.iter().filter(|place| of(place)).collect();
        Health {
            endpoints: of.len() as u32,
            available: of.iter().filter(|place| place.2).count() as u32,
        }
    };
    let levels: Vec<Health> = (0..3).map(|p| health(&|place| place.0 == p)).collect();
    let loads = loads(&levels, rules.overprovisioning, rules.panic_threshold);
    let share = |place: &(u32, u32, bool)| {
        let load = loads[place.0 as usize];
        let level = levels[place.0 as usize];
        let percent = f64::from(load.percent) / 100.0;
        if load.panics {
            return percent / f64::from(level.endpoints);
        }
        if !place.2 {
            return 0.0;
        }
        if !rules.by_locality {
            return percent / f64::from(level.available);
        }
        let of = |l: u32| health(&|other| other.0 == place.0 && other.1 == l);
        let weight = |l: u32| locality_weight(l + 1, of(l), rules.overprovisioning) as f64;
        let total: f64 = (0..3).map(weight).sum();
        percent * weight(place.1) / total / f64::from(of(place.1).available)
    };
    places.iter().map(share).collect()
}
