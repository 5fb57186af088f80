//! The adaptive limiter before a small application, request by request: seeded arrivals, virtual time. A failing
//! seed is in the message of the assertion, and is all that it takes to see it again.
//!
//! What is particular of it, as `tidegate-lab overload` has shown: its CPU cannot be more than full, a slot is a
//! large part of what it has, and a tick has few requests, so that much of what is measured is chance.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod simulation;

use simulation::{
    Random,
    queue::{Fates, Needs, Queue},
};

/// The application of `tidegate-lab overload`.
const LAB: Needs = Needs {
    cpu: 0.002,
    wait: 0.05,
    quota: 0.4,
    period: 0.01,
    critical: 0.05,
};
const STEPS: [f64; 5] = [1.0, 2.0, 3.0, 5.0, 10.0];

/// Applications of 100 to 1,000 requests per second, whose critical traffic alone is not too much at ten times.
fn any(random: &mut Random) -> Needs {
    let quota = random.between(0.2, 1.0);
    let capacity = 100.0 * 10f64.powf(random.next());
    Needs {
        cpu: quota / capacity,
        wait: random.between(0.0, 0.1),
        quota,
        period: if random.below(2) == 0 { 0.01 } else { 0.1 },
        critical: random.between(0.01, 0.055),
    }
}

/// Half of the capacity for three seconds, then a step: what is held once two seconds are over.
fn step(needs: Needs, shards: usize, times: f64, seed: u64) -> [Fates; 4] {
    let mut queue = Queue::new(needs, shards, true, seed);
    queue.run(3.0, 0.5);
    queue.run(2.0, times);
    queue.measured(6.0, times)
}

fn good(fates: &[Fates; 4]) -> f64 {
    fates.iter().map(|class| f64::from(class.good)).sum()
}

fn success(class: &Fates) -> f64 {
    f64::from(class.good) / f64::from(class.offered.max(1))
}

/// Goal: at any multiple of what it can do, an application goes on doing it, and critical requests are answered
/// (L7). Method: random applications, the steps of the lab; goodput over that of the best step, in the mean of all
/// applications, since that of one in six seconds is chance to a tenth. One step in a thousand may be worse.
#[test]
fn plateau_of_small_applications() {
    let seeds = simulation::seeds(40);
    let mut goodput = [0.0; STEPS.len()];
    let mut poor = Vec::new();
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let needs = any(&mut random);
        let shards = 1 + random.below(4);
        for (times, goodput) in STEPS.iter().zip(&mut goodput) {
            let fates = step(needs, shards, *times, seed);
            let (critical, held) = (success(&fates[0]), good(&fates) / 6.0 / needs.capacity());
            if critical < 0.99 || held < 0.6 {
                poor.push(format!(
                    "seed {seed}, {times}x: critical {critical:.4}, {held:.3} of {needs:?}"
                ));
            }
            *goodput += held / seeds as f64;
        }
    }
    let allowed = seeds as usize * STEPS.len() / 1000;
    assert!(poor.len() <= allowed, "{}", poor.join("\n"));
    // Nine tenths of the target: a limit that follows every tick is lower.
    assert!(
        goodput.iter().all(|it| *it >= 0.9 * 0.8 - 0.01),
        "{goodput:.3?}"
    );
    // More than the nine tenths that L7 asks for: reality is some hundredths worse.
    let peak = goodput.iter().copied().fold(0.0, f64::max);
    assert!(goodput.iter().all(|it| *it >= 0.94 * peak), "{goodput:.3?}");
}

/// Goal: the very application that was measured, too (L7). Method: as above, over other arrivals.
#[test]
fn plateau_of_the_labs_application() {
    for (times, seed) in STEPS
        .iter()
        .flat_map(|times| (0..4).map(move |s| (*times, s)))
    {
        let fates = step(LAB, 1, times, seed);
        let held = good(&fates) / 6.0 / LAB.capacity();
        assert!(held >= 0.6, "seed {seed}, {times}x: {held:.3}");
        assert!(
            success(&fates[0]) >= 0.99,
            "seed {seed}, {times}x: {fates:?}"
        );
    }
}

/// Goal: over all shards no more is in flight than the limit allows, whatever shares and limits move to, but for what
/// was there before, which only gets less (L6). Method: random applications behind one to eight shards; after each
/// request that is let in under a limit.
#[test]
fn limits_hold_over_all_shards() {
    let mut is_limited = false;
    for seed in 0..simulation::seeds(150) {
        let mut random = Random::new(seed ^ 0x10f);
        let needs = any(&mut random);
        let shards = 1 + random.below(8);
        let times = random.between(1.0, 10.0);
        let mut queue = Queue::new(needs, shards, true, seed);
        queue.run(3.0, 0.5);
        queue.run(8.0, times);
        let (over, limit) = queue.most_over;
        assert_eq!(over, 0, "seed {seed}: above {limit} on {shards} shards");
        is_limited |= limit > 0;
    }
    assert!(is_limited, "there was no limit");
}

/// Goal: half a second of ten times the load is work for five, which nobody waits for any more: it is seen in the
/// tick that it is in (L3). Method: requests let in that were not answered in time, from the step on.
#[test]
fn surges_are_seen_at_once() {
    for seed in 0..simulation::seeds(40) {
        let mut queue = Queue::new(LAB, 1, true, seed);
        queue.run(3.0, 0.5);
        let fates = queue.measured(2.0, 10.0);
        let let_in: u32 = fates
            .iter()
            .map(|class| class.offered - class.refused)
            .sum();
        // Two ticks of it, and what is answered meanwhile.
        assert!(let_in <= 400 + 2 * 200, "seed {seed}: {let_in} were let in");
    }
}

/// Goal: what was held back is let in as soon as there is room (L5). Method: critical traffic that alone is
/// half as much again as the application can do, then a third of that; after a second nothing is refused, but in
/// one run in a thousand.
#[test]
fn critical_traffic_is_given_back_to_at_once() {
    let seeds = simulation::seeds(150);
    let mut late = Vec::new();
    for seed in 0..seeds {
        let too_much = Needs {
            critical: 0.15,
            ..LAB
        };
        let mut queue = Queue::new(too_much, 1, true, seed);
        queue.run(3.0, 0.5);
        let held = queue.measured(5.0, 10.0);
        assert!(held[0].refused > 0, "seed {seed}: nothing was too much");
        queue.set_critical(LAB.critical);
        queue.run(1.0, 10.0);
        let after = queue.measured(4.0, 10.0);
        let served = success(&after[0]);
        if served < 0.99 {
            late.push(format!("seed {seed}: {served:.4}"));
        }
    }
    let allowed = seeds as usize / 1000;
    assert!(late.len() <= allowed, "{}", late.join("\n"));
}

/// Goal: the test's application does collapse without a limiter, else the plateau proves nothing. Method: the
/// lab's one at ten times.
#[test]
fn collapses_without_a_limiter() {
    let mut queue = Queue::new(LAB, 1, false, 1);
    queue.run(3.0, 0.5);
    queue.run(2.0, 10.0);
    assert_eq!(good(&queue.measured(6.0, 10.0)), 0.0);
}
