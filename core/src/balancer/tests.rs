#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

const ZERO: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);

fn inputs(weights: &[u32]) -> Vec<EndpointInput> {
    let numbered = (1u64..).zip(weights);
    numbered
        .map(|(i, weight)| EndpointInput::new(mix(i), *weight))
        .collect()
}

/// Panics only when nobody is left, so that availability alone decides.
fn rules(policy: Balance, slow_start: Duration) -> Rules {
    Rules {
        slow_start,
        panic_threshold: 1,
        ..Rules::new(policy)
    }
}

fn balancer(policy: Balance, weights: &[u32]) -> Balancer {
    Balancer::new(&rules(policy, ZERO), &inputs(weights), &[], ZERO)
}

/// Picks `n` times without load; counts by endpoint.
fn counts(balancer: &mut Balancer, endpoints: usize, n: u64, now: Duration) -> Vec<u64> {
    let mut counts = vec![0; endpoints];
    for i in 0..n {
        let random = mix(i.wrapping_mul(77));
        let picked = balancer.pick(None, random, &[], now).unwrap();
        counts[picked.index()] += 1;
    }
    counts
}

/// Within five standard deviations of a binomial draw.
fn assert_share(hits: u64, n: u64, p: f64, what: &str) {
    let sigma = (n as f64 * p * (1.0 - p)).sqrt();
    let off = (hits as f64 - n as f64 * p).abs();
    assert!(off <= 5.0 * sigma, "{what}: {hits} of {n}, expected {p}");
}

/// Goal: without load, shares follow the weights. Method: 10^5 picks per policy that draws.
#[test]
fn drawn_shares_follow_weights() {
    for policy in [Balance::Random, Balance::LeastRequest, Balance::PeakEwma] {
        let counts = counts(&mut balancer(policy, &[1, 2, 5, 128]), 4, 100_000, ZERO);
        for (hits, weight) in counts.iter().zip([1, 2, 5, 128]) {
            assert_share(
                *hits,
                100_000,
                f64::from(weight) / 136.0,
                &format!("{policy:?}"),
            );
        }
    }
}

/// Goal: round robin is exact and smooth. Method: in every stretch of a whole round, an endpoint gets its
/// weight to within one turn; and never waits much longer than its period.
#[test]
fn round_robin_is_exact_and_smooth() {
    let weights = [1, 2, 3, 10];
    let mut balancer = balancer(Balance::RoundRobin, &weights);
    let picks: Vec<usize> = (0..1600)
        .map(|_| balancer.pick(None, 3, &[], ZERO).unwrap().index())
        .collect();
    for stretch in picks.windows(16) {
        for (i, weight) in weights.iter().enumerate() {
            let turns = stretch.iter().filter(|p| **p == i).count() as i64;
            assert!(
                (turns - i64::from(*weight)).abs() <= 1,
                "{i}: {turns} turns"
            );
        }
    }
    let heavy = picks.iter().enumerate().filter(|(_, p)| **p == 3);
    let at: Vec<usize> = heavy.map(|(i, _)| i).collect();
    assert!(at.windows(2).all(|w| w[1] - w[0] <= 4));
    let total = picks.iter().filter(|p| **p == 3).count();
    assert_eq!(total, 1000);
}

/// Goal: equal endpoints take strict turns, and shards do not begin in step. Method: the order of two
/// balancers with different random numbers.
#[test]
fn round_robin_begins_anywhere() {
    let order = |random: u64| {
        let mut balancer = balancer(Balance::RoundRobin, &[1; 4]);
        let picks = (0..8).map(|_| balancer.pick(None, random, &[], ZERO).unwrap().0);
        picks.collect::<Vec<_>>()
    };
    assert_eq!(order(0), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(order(u64::MAX / 2 + 1), [2, 3, 0, 1, 2, 3, 0, 1]);
}

/// Goal: under load, requests in flight follow the weights. Method: requests that never end.
#[test]
fn least_request_evens_load() {
    let mut balancer = balancer(Balance::LeastRequest, &[1, 2, 4]);
    for i in 0..7000 {
        let picked = balancer.pick(None, mix(i), &[], ZERO).unwrap();
        balancer.started(picked);
    }
    for (i, expected) in [1000, 2000, 4000].into_iter().enumerate() {
        let active = i64::from(balancer.active(EndpointId(i as u32)));
        assert!((active - expected).abs() <= 30, "{i}: {active}");
    }
}

/// Goal: peak EWMA sends less to a slow endpoint and to one that fails fast. Method: a closed loop of one
/// request after the other over 100 simulated seconds, with one endpoint of each kind among four.
#[test]
fn peak_ewma_avoids_slow_and_failing() {
    let mut balancer = balancer(Balance::PeakEwma, &[1; 4]);
    let mut hits = [0; 4];
    let mut now = ZERO;
    for i in 0..10_000 {
        let picked = balancer.pick(None, mix(i), &[], now).unwrap();
        balancer.started(picked);
        hits[picked.index()] += 1;
        let (latency, outcome) = match picked.0 {
            0 => (Duration::from_millis(50), Outcome::Success),
            1 => (Duration::from_micros(100), Outcome::Failure),
            _ => (Duration::from_millis(5), Outcome::Success),
        };
        now += Duration::from_millis(10);
        balancer.finished(picked, outcome, latency, now);
    }
    // One draw in six is of these two alone: 1667.
    assert!(hits[0] + hits[1] < 2000, "{hits:?}");
    assert!(hits[1] < 500, "{hits:?}");
    assert!(hits[0] > 0 && hits[1] > 0, "still tried: {hits:?}");
}

/// Goal: endpoints already tried are avoided while there is another, and used when there is none.
/// Method: every policy, every set of tried endpoints of four.
#[test]
fn tried_endpoints_are_avoided() {
    for policy in Balance::ALL {
        let mut balancer = balancer(policy, &[1, 1, 100, 1]);
        for set in 0u32..16 {
            let tried: Vec<_> = (0..4)
                .filter(|i| set >> i & 1 == 1)
                .map(EndpointId)
                .collect();
            for i in 0..200 {
                let picked = balancer
                    .pick(Some(mix(i)), mix(i + 7), &tried, ZERO)
                    .unwrap();
                assert!(
                    tried.len() == 4 || !tried.contains(&picked),
                    "{policy:?} {set:b}"
                );
            }
        }
    }
}

/// Goal: an unavailable endpoint gets nothing, unless all are unavailable (panic), and then all do.
/// Method: every policy; endpoints go one by one and come back.
#[test]
fn unavailable_endpoints_get_nothing() {
    for policy in Balance::ALL {
        let mut balancer = balancer(policy, &[1, 2, 3]);
        for gone in 0..2 {
            balancer.set_availability(EndpointId(gone), Availability::Unavailable, ZERO);
            let counts = counts(&mut balancer, 3, 500, ZERO);
            assert!(
                counts[..=gone as usize].iter().all(|n| *n == 0),
                "{policy:?}"
            );
            assert!(!balancer.is_panicking());
        }
        balancer.set_availability(EndpointId(2), Availability::Unavailable, ZERO);
        assert!(balancer.is_panicking());
        let all = counts(&mut balancer, 3, 500, ZERO);
        assert!(all.iter().all(|n| *n > 20), "{policy:?}: {all:?}");
        balancer.set_availability(EndpointId(1), Availability::Available, ZERO);
        assert_eq!(
            counts(&mut balancer, 3, 500, ZERO),
            [0, 500, 0],
            "{policy:?}"
        );
    }
}

/// Goal: an endpoint gets the part of its load that it is to get, and the others the rest (H5). Method: every
/// policy that goes by weight; half, nothing to speak of, the whole again.
#[test]
fn priors_take_load_away() {
    for policy in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let mut balancer = balancer(policy, &[1, 1, 1]);
        for (prior, expected) in [(5_000, 600), (0, 0), (10_000, 1_000)] {
            balancer.set_prior(EndpointId(1), prior, ZERO);
            let counts = counts(&mut balancer, 3, 3_000, ZERO);
            let got = counts[1] as i64;
            assert!(
                (got - expected).abs() <= 90,
                "{policy:?} {prior}: {counts:?}"
            );
        }
    }
}

/// Goal: no endpoint, no choice. Method: every policy over nothing, then filled and emptied.
#[test]
fn empty_cluster_has_no_choice() {
    for policy in Balance::ALL {
        let mut balancer = balancer(policy, &[]);
        assert_eq!(balancer.pick(Some(1), 2, &[], ZERO), None);
        assert!(!balancer.is_panicking());
        balancer.update(&rules(policy, SECOND), &inputs(&[1]), &[], ZERO);
        assert_eq!(balancer.pick(Some(1), 2, &[], ZERO), Some(EndpointId(0)));
        balancer.update(&rules(policy, SECOND), &[], &[], ZERO);
        assert_eq!(balancer.pick(Some(1), 2, &[], ZERO), None);
        balancer.started(EndpointId(9));
        balancer.finished(EndpointId(9), Outcome::Failure, SECOND, ZERO);
        balancer.set_availability(EndpointId(9), Availability::Unavailable, ZERO);
    }
}

/// Goal: consistent policies are even and follow weights. Method: 10^5 keys over ten endpoints, one of
/// them of double weight.
#[test]
fn consistent_shares_follow_weights() {
    let mut weights = [1; 10];
    weights[4] = 2;
    for (policy, tolerance) in [(Balance::RingHash, 0.25), (Balance::Maglev, 0.03)] {
        let mut balancer = balancer(policy, &weights);
        let counts = counts(&mut balancer, 10, 100_000, ZERO);
        for (hits, weight) in counts.iter().zip(weights) {
            let expected = f64::from(weight) * 100_000.0 / 11.0;
            let off = (*hits as f64 - expected).abs() / expected;
            assert!(off < tolerance, "{policy:?}: {hits} for {expected}");
        }
    }
}

/// Goal: the least weight beside the greatest still gets its share. Method: 10^6 keys by Maglev.
#[test]
fn maglev_is_sized_to_weights() {
    let mut balancer = balancer(Balance::Maglev, &[1, 128]);
    let share = counts(&mut balancer, 2, 1_000_000, ZERO)[0] as f64 / 1e6;
    assert!((share * 129.0 - 1.0).abs() < 0.03, "{share}");
}

/// Goal: a key moves only if it must. Method: 20 endpoints; one becomes unavailable (exactly its keys
/// move, and come back), then one is removed (its keys move, and few others), whatever its position.
#[test]
fn consistent_policies_move_few_keys() {
    for (policy, others_max) in [(Balance::RingHash, 0.0), (Balance::Maglev, 0.02)] {
        let all = inputs(&[1; 20]);
        let mut balancer = Balancer::new(&rules(policy, ZERO), &all, &[], ZERO);
        let keys = |balancer: &mut Balancer| -> Vec<u64> {
            let picks = (0..20_000).map(|i| balancer.pick(Some(mix(i)), 0, &[], ZERO).unwrap());
            let ids: Vec<_> = picks.collect();
            ids.iter()
                .map(|id| balancer.slots.slots[id.index()].key)
                .collect()
        };
        let before = keys(&mut balancer);
        let gone = all[7].key;

        balancer.set_availability(EndpointId(7), Availability::Unavailable, ZERO);
        let without = keys(&mut balancer);
        assert!(
            before
                .iter()
                .zip(&without)
                .all(|(b, w)| (b == w) == (*b != gone))
        );
        balancer.set_availability(EndpointId(7), Availability::Available, ZERO);
        assert_eq!(keys(&mut balancer), before);

        let mut fewer: Vec<_> = all.iter().copied().filter(|e| e.key != gone).collect();
        fewer.reverse();
        balancer.update(&rules(policy, ZERO), &fewer, &[], ZERO);
        let after = keys(&mut balancer);
        let others = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| **b != gone && b != a)
            .count();
        assert!(
            others as f64 <= others_max * 20_000.0,
            "{policy:?}: {others} others moved"
        );
    }
}

/// Goal: a new endpoint's share grows linearly from 10 %. Method: the share of one of two endpoints at
/// moments of the ramp.
#[test]
fn slow_start_ramps_linearly() {
    for policy in [Balance::RoundRobin, Balance::Random, Balance::LeastRequest] {
        let two = inputs(&[1, 1]);
        let mut balancer = Balancer::new(&rules(policy, 10 * SECOND), &two[..1], &[], ZERO);
        balancer.update(&rules(policy, 10 * SECOND), &two, &[], ZERO);
        for (second, ramp) in [
            (0, 0.1),
            (1, 0.1),
            (3, 0.3),
            (5, 0.5),
            (9, 0.9),
            (10, 1.0),
            (99, 1.0),
        ] {
            let now = second * SECOND;
            let counts = counts(&mut balancer, 2, 10_000, now);
            assert_share(
                counts[1],
                10_000,
                ramp / (1.0 + ramp),
                &format!("{policy:?} {second} s"),
            );
        }
    }
}

/// Goal: an endpoint that comes back slow-starts, one that was there from the start does not. Method:
/// shares before, after, and after the ramp.
#[test]
fn slow_start_after_return() {
    let mut balancer = Balancer::new(
        &rules(Balance::Random, 10 * SECOND),
        &inputs(&[1, 1]),
        &[],
        ZERO,
    );
    assert_share(
        counts(&mut balancer, 2, 10_000, ZERO)[1],
        10_000,
        0.5,
        "start",
    );
    balancer.set_availability(EndpointId(1), Availability::Unavailable, SECOND);
    balancer.set_availability(EndpointId(1), Availability::Available, 2 * SECOND);
    let back = counts(&mut balancer, 2, 10_000, 2 * SECOND)[1];
    assert_share(back, 10_000, 0.1 / 1.1, "back");
    let warm = counts(&mut balancer, 2, 10_000, 12 * SECOND)[1];
    assert_share(warm, 10_000, 0.5, "warm");
}

/// Goal: a change of endpoints keeps what is known of those that stay. Method: load and availability
/// follow the key to its new position, for every policy and across a change of policy.
#[test]
fn update_keeps_what_stays() {
    let three = inputs(&[1, 1, 1]);
    for policy in Balance::ALL {
        let mut balancer = Balancer::new(&rules(Balance::Random, ZERO), &three, &[], ZERO);
        balancer.started(EndpointId(2));
        balancer.set_availability(EndpointId(1), Availability::Unavailable, ZERO);
        balancer.update(&rules(policy, ZERO), &[three[2], three[1]], &[], ZERO);
        assert_eq!(balancer.endpoint_by_key(three[2].key), Some(EndpointId(0)));
        assert_eq!(balancer.endpoint_by_key(three[0].key), None);
        assert_eq!(balancer.active(EndpointId(0)), 1);
        assert_eq!(counts(&mut balancer, 2, 100, ZERO), [100, 0], "{policy:?}");
    }
}

/// Goal: same calls, same choices. Method: two balancers, a mixed run of calls, every policy.
#[test]
fn choices_are_deterministic() {
    for policy in Balance::ALL {
        let run = || {
            let mut balancer =
                Balancer::new(&rules(policy, SECOND), &inputs(&[1, 2, 3, 4, 5]), &[], ZERO);
            let picks = (0..1000u32).map(|i| {
                let now = Duration::from_millis(u64::from(i));
                let picked = balancer.pick(None, mix(u64::from(i)), &[], now).unwrap();
                balancer.started(picked);
                if i % 3 == 0 {
                    balancer.finished(picked, Outcome::Success, i * SECOND / 1000, now);
                }
                let availability = match i % 2 {
                    0 => Availability::Unavailable,
                    _ => Availability::Available,
                };
                balancer.set_availability(EndpointId(i % 5), availability, now);
                picked
            });
            picks.collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
