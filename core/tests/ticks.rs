//! The coordinator's clock: what is looked at every 100 ms, and what becomes of a look that is early or late (L3).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    config::{self, model::Scope},
    coordinator::{Coordinator, Order, Samples, TICK},
    id::{Epoch, ShardId},
    limiter::{
        Priority, UnitView,
        watermark::{Phase, Sample, Signal},
    },
    snapshot::Snapshot,
};

const CONFIG: &str = "\
version: 1
listeners: { web: { bind: 127.0.0.1:0, routes: [{ to: app }] } }
clusters: { app: { endpoints: { static: [127.0.0.1:1] }, adaptive_limit: {} } }
";

/// Ticks of it that are in time.
const WATCHED: u32 = 40;

/// A coordinator whose only interface gets a request every 10 ms, one of which is in flight at any time.
struct World {
    coordinator: Coordinator,
    snapshot: Arc<Snapshot>,
    now: Duration,
}

impl World {
    fn new() -> World {
        let (config, _) = config::parse("test", CONFIG).unwrap();
        let none = Default::default();
        let snapshot = Snapshot::compile(Arc::new(config), &none, None, 1, Epoch(1));
        let mut world = World {
            coordinator: Coordinator::new(0),
            snapshot: Arc::new(snapshot),
            now: Duration::ZERO,
        };
        let snapshot = world.snapshot.clone();
        world.coordinator.installed(snapshot, world.now);
        (0..WATCHED).for_each(|_| drop(world.passes(TICK, 0.3)));
        world
    }

    /// A tick so long after the last, with the CPU so full meanwhile.
    fn passes(&mut self, time: Duration, cpu: f64) -> Vec<Order> {
        self.now += time;
        let shared = &self.snapshot.clusters[0].interfaces[0].shared;
        let counters = shared.counters.get(ShardId(0)).unwrap();
        let counters = counters.of(Priority::Normal);
        let requests = (time.as_millis() / 10) as u64;
        counters.admitted.add(requests);
        counters.completed.add(requests);
        counters.in_flight.set(1);
        counters.in_flight_ns.add(time.as_nanos() as u64);
        let mut sample = Sample::default();
        sample.set(Signal::Cpu, cpu);
        let samples = Samples::from([(Scope::Host, sample)]);
        self.coordinator.tick(self.now, &samples, [], &mut || 0)
    }

    fn unit(&self) -> UnitView {
        let application = &self.coordinator.applications()["app"];
        application.units().next().unwrap().view
    }

    fn phase(&self) -> Phase {
        let application = &self.coordinator.applications()["app"];
        application.last().unwrap().phase
    }
}

#[track_caller]
fn assert_steady(unit: &UnitView) {
    for (what, is, usual) in [
        ("rate", unit.rate, 100.0),
        ("over ten seconds", unit.rate_10s, 100.0),
        ("over minutes", unit.usual_rate, 100.0),
        ("baseline", unit.baseline, 1.1),
    ] {
        assert!((is - usual).abs() < 1e-3, "{what}: {is}, not {usual}");
    }
}

/// Goal: the world is looked at ten times a second, and rates are of the time that has passed, whether a look is in
/// time, late by a little or by seconds; one that an event brings in between looks at nothing, and takes nothing from
/// the next (L3). Method: steady traffic, ticks at other times, what is known of it.
#[test]
fn late_looks_divide_by_the_time_that_passed() {
    assert_eq!(TICK, Duration::from_millis(100));
    let mut world = World::new();
    assert_steady(&world.unit());
    for millis in [100, 90, 130, 250, 1_000, 3_000, 100] {
        let time = Duration::from_millis(millis);
        world.passes(time, 0.3);
        assert_steady(&world.unit());
    }
    for (part, is_due) in [(50, false), (30, false), (20, true)] {
        let time = Duration::from_millis(part);
        assert_eq!(world.coordinator.is_due(world.now + time), is_due);
        world.passes(time, 0.3);
        assert_steady(&world.unit());
    }
}

/// Goal: an overload is one after five looks: half a second where they are in time; looks that were missed are not made
/// up for, since one number of a long time is no proof that it lasted (L3). Method: a CPU at nine tenths of all it has,
/// looked at in time and late.
#[test]
fn overloads_are_counted_in_looks() {
    for millis in [100, 300] {
        let mut world = World::new();
        let begin = world.now;
        while world.phase() == Phase::Healthy {
            world.passes(Duration::from_millis(millis), 0.9);
        }
        let after = (world.now - begin).as_millis() as u64;
        assert_eq!(after, 5 * millis);
    }
    // Clear ones are seen by the first.
    let mut world = World::new();
    let orders = world.passes(TICK, 1.3);
    assert_eq!(world.phase(), Phase::Overloaded);
    let told = orders
        .iter()
        .any(|order| matches!(order, Order::Limits { told, .. } if told.limits.len() == 1));
    assert!(told, "{orders:?}");
}
