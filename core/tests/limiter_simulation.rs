//! The adaptive limiter against a simulated machine: seeded traces, virtual time. A failing seed is in the
//! message of the assertion, and is all that it takes to see it again.
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
    machine::{Machine, good, units},
};
use tidegate_core::limiter::{Priority, watermark::Phase};

fn seeds() -> u64 {
    simulation::seeds(1000)
}

/// Goal: from 1× to 10× goodput holds a plateau, critical requests succeed, and it settles within 2 s
/// (L7). Method: random machines, a step to 10× that lasts, goodput in CPU seconds before and after.
#[test]
fn plateau_under_ten_times_the_load() {
    for seed in 0..seeds() {
        let mut random = Random::new(seed);
        let cores = random.between(4.0, 32.0).round();
        let shards = 1 + (random.next() * 8.0) as usize;
        let units = units(&mut random, cores, shards);
        let mut machine = Machine::new(cores, units.clone(), true, seed);
        machine.run(5.0, |_, _| 1.0);
        machine.run(2.0, |_, _| 10.0);
        let held = machine.run(8.0, |_, _| 10.0);
        // The peak is the target: 80 % of the CPU, all of it useful. On few cores a slot is a large step.
        let goodput = good(&held, &units) / 8.0 / cores;
        assert!(
            goodput >= 0.9 * 0.8 - 0.5 / cores,
            "seed {seed}: goodput {goodput:.3} of the CPU"
        );
        let critical = held[0].good / held[0].offered;
        assert!(critical >= 0.99, "seed {seed}: critical {critical:.4}");
        let late: f64 = held.iter().map(|o| o.late).sum();
        assert!(late < 1.0, "seed {seed}: {late} answers came too late");
    }
}

/// Goal: limits settle and then keep still (L5, L7). Method: as above; after 3 s the watermark stays
/// within 10 % of its mean, but for one machine in a thousand, which takes longer.
#[test]
fn settles_without_oscillation() {
    let mut restless = Vec::new();
    for seed in 0..seeds() {
        let mut random = Random::new(seed ^ 0x5eed);
        let cores = random.between(4.0, 32.0).round();
        let units = units(&mut random, cores, 4);
        let factor = random.between(1.5, 10.0);
        let mut machine = Machine::new(cores, units, true, seed);
        machine.run(5.0, |_, _| 1.0);
        machine.run(3.0, |_, _| factor);
        let begin = machine.watermarks.len();
        machine.run(6.0, |_, _| factor);
        // Half a second at a time: what is shorter is the noise of the arrivals.
        let after: Vec<f64> = machine.watermarks[begin..]
            .windows(5)
            .map(|w| w.iter().sum::<f64>() / 5.0)
            .collect();
        let mean = after.iter().sum::<f64>() / after.len() as f64;
        let worst = after.iter().map(|w| (w - mean).abs()).fold(0.0, f64::max);
        // A slot is the smallest step that there is.
        let slot = 1.0 / cores / 0.8;
        if worst > 0.1 * mean + slot {
            restless.push(format!(
                "seed {seed}: {worst:.3} around {mean:.3}, {factor:.1}x"
            ));
        }
    }
    let allowed = seeds() as usize / 1000;
    assert!(restless.len() <= allowed, "{}", restless.join("\n"));
}

/// Goal: when the load is gone, so are the limits, and everybody is served (L7). Method: 10× for 5 s, then
/// 1× for 20 s.
#[test]
fn recovers_fully() {
    for seed in 0..seeds() {
        let mut random = Random::new(seed ^ 0xbac);
        let units = units(&mut random, 4.0, 4);
        let mut machine = Machine::new(4.0, units, true, seed);
        machine.run(5.0, |_, _| 1.0);
        machine.run(5.0, |_, _| 10.0);
        machine.run(15.0, |_, _| 1.0);
        let after = machine.run(5.0, |_, _| 1.0);
        assert_eq!(machine.phase, Phase::Healthy, "seed {seed}");
        for (outcome, unit) in after.iter().zip(&machine.units) {
            let served = outcome.good / outcome.offered;
            assert!(
                served > 0.95,
                "seed {seed}: {:?} {served:.3}",
                unit.priority
            );
        }
    }
}

/// Goal: a unit that is not heavy is never limited (L5). Method: one hot interface at 20×, a light one
/// beside it at its usual rate.
#[test]
fn light_units_do_not_starve() {
    for seed in 0..seeds() {
        let mut random = Random::new(seed ^ 0x11);
        let mut units = units(&mut random, 4.0, 4);
        units.truncate(2);
        units[0].priority = Priority::Normal;
        let mut machine = Machine::new(4.0, units, true, seed);
        machine.run(5.0, |_, _| 1.0);
        let held = machine.run(10.0, |unit, _| if unit == 1 { 20.0 } else { 1.0 });
        let served = held[0].good / held[0].offered;
        assert!(served > 0.97, "seed {seed}: the light one had {served:.3}");
    }
}

/// Goal: where the CPU is short, who only waits for something else is not held back for the time that this takes (L4,
/// L5). Method: an interface with a twelfth of the CPU time and most of the time in flight, beside one that computes, of
/// an application that says so; somebody else takes half of the CPU.
#[test]
fn who_waits_is_not_held_for_the_cpu() {
    for seed in 0..seeds() {
        let mut random = Random::new(seed ^ 0x3a17);
        let mut units = units(&mut random, 8.0, 4);
        units.truncate(2);
        units[0].priority = Priority::Normal;
        units[0].wait = 0.6;
        units[1].wait = 0.0;
        let mut machine = Machine::new(8.0, units, true, seed);
        machine.tells_cost = true;
        machine.run(5.0, |_, _| 1.0);
        machine.stolen = 5.0;
        let held = machine.run(10.0, |_, _| 1.0);
        let served = held.iter().map(|one| one.good / one.offered);
        let [waits, computes] = served.collect::<Vec<_>>()[..] else {
            panic!("two units")
        };
        assert!(waits > 0.97, "seed {seed}: who waits had {waits:.3}");
        assert!(
            computes < 0.9,
            "seed {seed}: nothing was short, {computes:.3}"
        );
    }
}

/// Goal: the test's machine does collapse without a limiter, else the plateau proves nothing. Method: the
/// same step to 10× without one.
#[test]
fn collapses_without_a_limiter() {
    let mut random = Random::new(1);
    let units = units(&mut random, 4.0, 4);
    let mut machine = Machine::new(4.0, units.clone(), false, 1);
    machine.run(5.0, |_, _| 1.0);
    machine.run(2.0, |_, _| 10.0);
    let held = machine.run(8.0, |_, _| 10.0);
    assert!(good(&held, &units) / 8.0 / 4.0 < 0.3);
}

/// Goal: even if what must go on is more than the machine can bear, it is held to what it can, instead of
/// collapsing; also where a single request is a large part of the machine (L7). Method: one to four cores,
/// critical traffic that alone is twice their capacity, beside the other classes.
#[test]
fn too_much_critical_traffic_is_limited_too() {
    for seed in 0..seeds() {
        let mut random = Random::new(seed ^ 0xc21);
        let cores = random.between(1.0, 4.0).round();
        let mut units = units(&mut random, cores, 1);
        let whole = units[0].rate * units[0].cpu / cores;
        units[0].rate *= 0.2 / whole;
        let mut machine = Machine::new(cores, units.clone(), true, seed);
        machine.run(5.0, |_, _| 1.0);
        // What came before the limit is a backlog: nobody here gives up.
        machine.run(15.0, |_, _| 10.0);
        let held = machine.run(8.0, |_, _| 10.0);
        let goodput = good(&held, &units) / 8.0 / cores;
        assert!(
            goodput >= 0.4,
            "seed {seed}: goodput {goodput:.3} of {cores} cores"
        );
        let late: f64 = held.iter().map(|o| o.late).sum();
        let offered: f64 = held.iter().map(|o| o.offered).sum();
        assert!(
            late <= 0.05 * offered,
            "seed {seed}: {late:.0} of {offered:.0} too late"
        );
    }
}
