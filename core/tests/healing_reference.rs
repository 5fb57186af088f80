//! Self-healing against a naive model of it, tick by tick: what is found of whom, and what becomes of it. A failing seed
//! is in the message of the assertion, and is all that it takes to see it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    missing_docs,
    unreachable_pub
)]

mod reference {
    pub mod healing;
}
mod simulation;

use std::{collections::BTreeMap, time::Duration};

use reference::healing::{Expected, Model, State};
use simulation::Random;
use tidegate_core::healing::{
    detector::Calls,
    ejection::{Group, Settings},
};

const TICK: Duration = Duration::from_millis(100);
/// Of numbers that are the same sum in another order.
const TOLERANCE: f64 = 1e-6;

/// What a node does for a while.
#[derive(Clone, Copy)]
struct Mood {
    fails: f64,
    /// Of the failures, those that are hard, and those that are refusals for overload.
    hard: f64,
    overloaded: f64,
    latency_s: f64,
    hangs: bool,
}

const WELL: Mood = Mood {
    fails: 0.001,
    hard: 0.5,
    overloaded: 0.0,
    latency_s: 0.002,
    hangs: false,
};

fn mood(random: &mut Random) -> Mood {
    let fails = random.between(0.02, 0.6);
    match random.below(12) {
        0 => Mood {
            fails: 1.0,
            hard: 1.0,
            ..WELL
        },
        1 => Mood { fails, ..WELL },
        2 => Mood {
            latency_s: random.between(0.005, 0.1),
            ..WELL
        },
        3 => Mood {
            hangs: true,
            ..WELL
        },
        4 => Mood {
            fails,
            hard: 0.0,
            overloaded: 0.9,
            ..WELL
        },
        _ => WELL,
    }
}

/// One tick of a node that so many requests are sent to.
fn calls(mood: Mood, requests: usize, is_trial: bool, random: &mut Random) -> Calls {
    let mut calls = Calls::default();
    if mood.hangs {
        calls.waiting = requests as u64;
        return calls;
    }
    for _ in 0..requests {
        let is_failure = random.next() < mood.fails;
        if !is_failure {
            calls.succeeded += 1;
            calls.trailing = 0;
            calls.latency_s = Some(mood.latency_s * random.between(0.8, 1.2));
        } else {
            calls.failed += 1;
            match random.next() {
                kind if kind < mood.hard => {
                    calls.failed_hard += 1;
                    calls.trailing += 1;
                }
                kind if kind < mood.hard + mood.overloaded => calls.overloaded += 1,
                _ => {}
            }
        }
        calls.trials_failed += u64::from(is_trial && is_failure);
        calls.trials_succeeded += u64::from(is_trial && !is_failure);
    }
    calls
}

/// Goal: the detectors, which keep a number or two of all that was, find what the whole history says, of the same nodes in
/// the same tick, for the same reason, and the same guard holds (H1, H9, H10, H11). Method: random groups whose nodes
/// fail, hang, slow down and refuse for a while, often several at once; every event against that of the model, and every
/// rate to a millionth.
#[test]
fn what_is_found_is_what_the_history_says() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..simulation::seeds(25) {
        let mut random = Random::new(seed ^ 0xe0e);
        let nodes = 1 + random.below(8);
        let rate = 20.0 * 20f64.powf(random.next());
        let mut group = Group::new(Settings::default(), nodes);
        let mut model = Model::new(nodes, TICK.as_secs_f64());
        let mut moods = vec![WELL; nodes];
        let mut now = Duration::ZERO;
        for tick in 0..400 {
            if tick % 20 == 0 && tick > 40 {
                moods.iter_mut().for_each(|it| *it = mood(&mut random));
            }
            let all: Vec<Calls> = (0..nodes)
                .map(|k| {
                    let usual = (rate * TICK.as_secs_f64() * random.between(0.0, 2.0)) as usize;
                    let (requests, is_trial) = match model.nodes[k].state {
                        State::Out(_) => (0, false),
                        State::Trial(_) => (random.below(2), true),
                        State::In | State::Suspect => (usual, false),
                    };
                    calls(moods[k], requests, is_trial, &mut random)
                })
                .collect();
            now += TICK;
            let happened = group.tick(now, TICK, &all, None, &mut || random.bits());
            let expected = model.tick(now, &all, &happened);
            let events: Vec<Expected> = happened.iter().map(Expected::of).collect();
            assert_eq!(events, expected, "seed {seed}, tick {tick}");
            for event in &events {
                let said = format!("{event:?}").replace(|c: char| c.is_ascii_digit(), "");
                *seen.entry(said).or_default() += 1;
            }
            for (k, evidence) in group.evidences().enumerate() {
                let known = model.known(k);
                for (own, known) in [
                    (evidence.own.calls, known.calls),
                    (evidence.own.failed, known.failed),
                ] {
                    let near = (own - known).abs() <= TOLERANCE * known.max(1.0);
                    assert!(near, "seed {seed}, tick {tick}: node {k} {own} {known}");
                }
            }
        }
    }
    // Else nothing was compared.
    for kind in [
        "Ejected(, Run)",
        "Ejected(, Rate)",
        "Ejected(, Stall)",
        "Ejected(, Latency)",
        "Ejected(, Probation)",
        "Suspected(, Run, LastNode)",
        "Suspected(, Rate, CommonMode)",
        "Suspected(, Rate, Capacity)",
        "Suspected(, Run, Percent)",
        "Recovered()",
    ] {
        assert!(seen.contains_key(kind), "{kind} is not among {seen:?}");
    }
}
