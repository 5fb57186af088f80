//! What the data path relies on, whatever the policy: a pick that allocates nothing, and choices that
//! respect availability through any history.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use tidegate_core::{
    balancer::{Balancer, EndpointInput, Outcome, Rules},
    config::model::Balance,
    id::EndpointId,
    message::Availability::{self, Available, Unavailable},
    steering::destination::mix,
};

/// Goal: picking, starting and finishing allocate nothing, slow start and retries included. Method:
/// allocations are counted over 10,000 picks per policy, after one that lays out what is laid out late.
#[test]
fn picks_allocate_nothing() {
    for policy in Balance::ALL {
        let mut balancer = balancer(policy, 50);
        balancer.set_availability(EndpointId(3), Unavailable, Duration::ZERO);
        balancer.set_availability(EndpointId(3), Available, Duration::ZERO);
        balancer.pick(None, 1, &[], Duration::ZERO);
        let allocations = allocation_counter::measure(|| {
            for i in 0..10_000u32 {
                let now = Duration::from_millis(u64::from(i));
                let random = mix(u64::from(i));
                let first = balancer.pick(Some(random), random, &[], now).unwrap();
                balancer.started(first);
                let second = balancer.pick(None, random, &[first], now).unwrap();
                assert_ne!(first, second);
                balancer.finished(first, Outcome::Failure, now, now);
            }
        });
        assert_eq!(allocations.count_total, 0, "{policy:?}");
    }
}

/// Goal: through any history of availability, changes of endpoints and retries, an unavailable or tried
/// endpoint is only chosen where the contract says so. Method: a random walk of 2,000 steps per policy
/// beside a model that is a list of flags.
#[test]
fn choices_respect_availability() {
    for (seed, policy) in (1u64..).zip(Balance::ALL) {
        let mut random = mix(seed);
        let mut next = |n: usize| {
            random = mix(random);
            (random % n as u64) as usize
        };
        let mut inputs = inputs(6);
        let mut flags: Vec<(u64, Availability)> =
            inputs.iter().map(|e| (e.key, Available)).collect();
        let mut balancer = balancer(policy, 6);
        for step in 0..2000u64 {
            let now = Duration::from_millis(step * 7);
            match next(8) {
                0 | 1 => {
                    let at = next(flags.len());
                    flags[at].1 = [Available, Unavailable][next(2)];
                    balancer.set_availability(EndpointId(at as u32), flags[at].1, now);
                }
                2 => {
                    // One leaves, one comes.
                    let at = next(flags.len());
                    flags.remove(at);
                    inputs.remove(at);
                    let key = mix(step + 1000);
                    flags.insert(0, (key, Available));
                    inputs.insert(0, EndpointInput::new(key, 1 + next(9) as u32));
                    balancer.update(&rules(policy), &inputs, &[], now);
                }
                _ => {
                    let tried: Vec<_> = (0..next(4)).map(|_| EndpointId(next(6) as u32)).collect();
                    let picked = balancer
                        .pick(None, next(usize::MAX) as u64, &tried, now)
                        .unwrap();
                    let panicking = flags.iter().all(|(_, flag)| *flag == Unavailable);
                    assert_eq!(balancer.is_panicking(), panicking);
                    let usable = |i: usize| panicking || flags[i].1 == Available;
                    assert!(usable(picked.index()), "seed {seed} step {step} {policy:?}");
                    let untried = |i: &usize| !tried.contains(&EndpointId(*i as u32));
                    let another = (0..6).filter(|i| usable(*i)).any(|i| untried(&i));
                    assert!(
                        !another || untried(&picked.index()),
                        "seed {seed} step {step}"
                    );
                }
            }
        }
    }
}

fn inputs(n: u64) -> Vec<EndpointInput> {
    let keys = (0..n).map(mix);
    keys.map(|key| EndpointInput::new(key, 1 + (key % 7) as u32))
        .collect()
}

fn balancer(policy: Balance, n: u64) -> Balancer {
    Balancer::new(&rules(policy), &inputs(n), &[], Duration::ZERO)
}

/// Panics only when nobody is left.
fn rules(policy: Balance) -> Rules {
    Rules {
        slow_start: Duration::from_secs(1),
        panic_threshold: 1,
        ..Rules::new(policy)
    }
}
