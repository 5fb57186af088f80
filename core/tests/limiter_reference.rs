//! The adaptive limiter against a naive model of it, tick by tick, on simulated machines. A failing seed is in the message
//! of the assertion, and is all that it takes to see it again.
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
    pub mod limiter;
}
mod simulation;

use std::{cell::RefCell, rc::Rc};

use reference::limiter::Model;
use simulation::{
    Random,
    machine::{Machine, TICK, units},
};

/// Goal: what the limiter knows, which is a number or two of all that was, is what the whole history says; limits begin on
/// who pushes, move the way they should, and are divided without a slot lost or invented (L3–L6). Method: random machines
/// through loads of every size, neighbours that take CPU, memory that runs short; every tick against the model.
#[test]
fn what_is_known_is_what_the_history_says() {
    let (mut began, mut moved) = (0, 0);
    for seed in 0..simulation::seeds(25) {
        let mut random = Random::new(seed ^ 0x3ef);
        let cores = random.between(1.0, 32.0).round();
        let shards = 1 + random.below(8);
        let mut units = units(&mut random, cores, shards);
        // Classes in any order, and several of one.
        units.rotate_left(random.below(4));
        let mut machine = Machine::new(cores, units, true, seed);
        machine.tells_cost = random.below(2) == 0;
        let model = Rc::new(RefCell::new(Model::new(TICK)));
        let (watching, mut tick) = (model.clone(), 0);
        machine.witness = Some(Box::new(move |sample, units, decided, limiter| {
            let checked = watching.borrow_mut().check(sample, units, decided, limiter);
            checked.unwrap_or_else(|wrong| panic!("seed {seed}, tick {tick}: {wrong}"));
            tick += 1;
        }));
        machine.run(4.0, |_, _| 1.0);
        for _ in 0..8 {
            let load = 10f64.powf(random.next());
            let hot = random.below(8);
            machine.stolen = if random.below(4) == 0 {
                cores / 2.0
            } else {
                0.0
            };
            machine.memory = (random.below(3) == 0).then(|| random.between(0.3, 1.0));
            let times = |unit: usize| if hot < 4 && unit != hot { 1.0 } else { load };
            machine.run(random.between(1.0, 5.0), |unit, _| times(unit));
        }
        began += model.borrow().began;
        moved += model.borrow().moved;
    }
    assert!(began > 100 && moved > 1_000, "{began} began, {moved} moves");
}
