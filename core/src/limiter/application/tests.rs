//! One rule over counters that a test moves, tick by tick.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::limiter::pressure::Pressure;
use crate::{
    config,
    id::{Epoch, ShardId},
    snapshot::Snapshot,
};

const TICK_S: f64 = 0.1;

fn compile(routes: &str, rule: &str, previous: Option<&Snapshot>) -> Snapshot {
    let text = format!(
        "version: 1\nlisteners: {{ web: {{ bind: 127.0.0.1:0, routes: [{routes}] }} }}\nclusters:\n  app: {{ \
         endpoints: {{ static: [127.0.0.1:1] }}, adaptive_limit: {{ {rule} }} }}\n"
    );
    let (config, _) = config::parse("test", &text).unwrap();
    let epoch = Epoch(previous.map_or(1, |p| p.epoch.0 + 1));
    Snapshot::compile(Arc::new(config), &Default::default(), previous, 2, epoch)
}

fn rule(snapshot: &Snapshot) -> AdaptiveLimit {
    let rule = snapshot.clusters[0].config.adaptive_limit.as_deref();
    rule.unwrap().clone()
}

fn application(snapshot: &Snapshot) -> Application {
    Application::new(&snapshot.clusters[0], &rule(snapshot))
}

/// Sets what one shard has in flight of an interface, as if it had come in this tick.
fn enter(snapshot: &Snapshot, interface: usize, shard: u16, in_flight: u64) {
    let shared = &snapshot.clusters[0].interfaces[interface].shared;
    let counters = shared
        .counters
        .get(ShardId(shard))
        .unwrap()
        .of(Priority::Normal);
    counters.admitted.add(in_flight);
    counters.in_flight.set(in_flight);
}

fn sample(cpu: f64) -> Sample {
    let mut sample = Sample::default();
    sample.set(Signal::Cpu, cpu);
    sample
}

const ROUTES: &str = "{ name: a, match: { path: /a }, to: app }, { name: b, to: app }";

/// Goal: without overload shards are told nothing; with it the interface that pushes, by its id and name, until
/// it is over (L4, L6). Method: a steady interface, then another one that rises with the CPU.
#[test]
fn limits_are_told_while_there_are_any() {
    let snapshot = compile(ROUTES, "", None);
    let mut application = application(&snapshot);
    for _ in 0..20 {
        enter(&snapshot, 0, 0, 1);
        assert_eq!(application.tick(&sample(0.3), TICK_S), None);
    }
    enter(&snapshot, 1, 0, 30);
    enter(&snapshot, 1, 1, 10);
    application.tick(&sample(0.3), TICK_S);
    let told = application.tick(&sample(1.3), TICK_S).unwrap();
    assert_eq!((told.phase, told.enforced), (Phase::Overloaded, true));
    let [limit] = &told.limits[..] else {
        panic!("{told:?}")
    };
    assert_eq!((limit.interface, &*limit.name), (InterfaceId(1), "web/b"));
    // What is in flight already is more than it may be: nothing is lent on top.
    let shared = &snapshot.clusters[0].interfaces[1].shared;
    assert!(!shared.spare(Priority::Normal).borrow());
    enter(&snapshot, 1, 0, 0);
    enter(&snapshot, 1, 1, 0);
    let ticks: Vec<_> = (0..100)
        .map(|_| application.tick(&sample(0.1), TICK_S))
        .collect();
    let last = ticks.iter().flatten().last().unwrap();
    assert_eq!(last.limits, []);
    assert!(ticks.last().unwrap().is_none(), "told once that it is over");
}

/// Goal: a reload keeps what is known of interfaces whose name stays, under their new ids, and forgets the rest.
/// Method: an overload over a snapshot that has another route in front.
#[test]
fn reloads_keep_what_is_known() {
    let before = compile(ROUTES, "", None);
    let mut application = application(&before);
    enter(&before, 0, 0, 1);
    enter(&before, 1, 0, 40);
    application.tick(&sample(0.3), TICK_S);
    let told = application.tick(&sample(1.3), TICK_S).unwrap();
    assert!(told.limits.iter().any(|l| l.interface == InterfaceId(1)));
    let routes = "{ name: new, match: { path: /n }, to: app }, { name: b, to: app }";
    let after = compile(routes, "floor: 3", Some(&before));
    application.follow(&after.clusters[0], &rule(&after));
    let told = application.tick(&sample(1.3), TICK_S).unwrap();
    let names: Vec<_> = told
        .limits
        .iter()
        .map(|l| (l.interface.0, &*l.name))
        .collect();
    assert_eq!(names, [(1, "web/b")]);
    assert_eq!(application.units().count(), 1);
    let other = compile(ROUTES, "mode: shadow", Some(&after));
    application.follow(&other.clusters[0], &rule(&other));
    let told = application.tick(&sample(1.3), TICK_S).unwrap();
    assert!(!told.enforced);
}

/// Goal: requests in flight may be what is short. Method: a ceiling, nothing else measured.
#[test]
fn requests_in_flight_are_a_signal() {
    let snapshot = compile(ROUTES, "targets: { in_flight: 10 }", None);
    let mut application = application(&snapshot);
    enter(&snapshot, 0, 0, 20);
    application.tick(&Sample::default(), TICK_S);
    let told = application.tick(&Sample::default(), TICK_S).unwrap();
    assert_eq!(told.reading.dominant, Some(Signal::InFlight));
    assert_eq!(told.reading.watermark, 2.0);
}

/// Goal: what the application says of its load is a signal, believed for two seconds after it was said last (L1).
/// Method: two answers that say 1.4 and 1.6, then silence.
#[test]
fn the_applications_word_is_a_signal() {
    let snapshot = compile(ROUTES, "", None);
    let mut application = application(&snapshot);
    enter(&snapshot, 0, 0, 2);
    let shared = &snapshot.clusters[0].interfaces[0].shared;
    let counters = shared.counters.get(ShardId(0)).unwrap();
    counters.of(Priority::Normal).load_reports.add(2);
    counters.of(Priority::Normal).load_permille.add(3_000);
    for tick in 0..25 {
        application.tick(&Sample::default(), TICK_S);
        let said = application.sample().get(Signal::App);
        assert_eq!(said, (tick < 20).then_some(1.5), "tick {tick}");
        let reading = application.last().unwrap().reading;
        assert_eq!(reading.dominant, said.map(|_| Signal::App), "tick {tick}");
    }
}

/// Goal: what overloads is evidence, said at once and again while it lasts, with numbers (L12). Method: an
/// overload of seconds; then none.
#[test]
fn overload_is_reported_while_it_lasts() {
    let snapshot = compile(ROUTES, "", None);
    let mut application = application(&snapshot);
    let name: Arc<str> = "app".into();
    let mut pressure = Pressure::default();
    let mut said = Vec::new();
    for tick in 0..40u32 {
        enter(&snapshot, 0, 0, 4);
        enter(&snapshot, 1, 1, 12);
        let shared = &snapshot.clusters[0].interfaces[1].shared;
        let counters = shared.counters.get(ShardId(1)).unwrap();
        counters.of(Priority::Normal).refused.add(4);
        counters
            .of(Priority::Normal)
            .in_flight_ns
            .add(1_200_000_000);
        let cpu = if (5..26).contains(&tick) { 1.3 } else { 0.3 };
        application.tick(&sample(cpu), TICK_S);
        let now = std::time::Duration::from_millis(100) * tick;
        if let Some(overload) = pressure.step(now, [(&name, &application)]) {
            said.push((tick, overload));
        }
    }
    let at: Vec<u32> = said.iter().map(|(tick, _)| *tick).collect();
    assert_eq!(at[..3], [5, 15, 25], "{at:?}");
    assert!(at.last().unwrap() < &36, "{at:?}");
    let (_, overload) = &said[2];
    assert!(overload.watermark > 1.5, "{overload:?}");
    assert_eq!(&*overload.dominant_signal, "cpu");
    // A fifth is refused: 4 of 20 a tick.
    assert!((0.1..0.3).contains(&overload.shed_rate), "{overload:?}");
    assert_eq!(&*overload.top_interfaces[0].0, "web/b");
    let all: f64 = overload.top_interfaces.iter().map(|(_, part)| part).sum();
    assert!((0.99..1.01).contains(&all), "{overload:?}");
}

/// Goal: who is limited while others are already, and little is too much, keeps nearly what it has: cut to what it had
/// before, it would leave a part of the machine idle (L7). Method: one interface overloads; once that is held, the other
/// has half as much again as usual, at a twentieth above the watermark.
#[test]
fn who_is_limited_late_gives_little() {
    let snapshot = compile(ROUTES, "", None);
    let mut application = application(&snapshot);
    let mut tick = |a, b, cpu: f64| {
        for (interface, in_flight) in [(0, a), (1, b)] {
            enter(&snapshot, interface, 0, in_flight);
            let shared = &snapshot.clusters[0].interfaces[interface].shared;
            let counters = shared.counters.get(ShardId(0)).unwrap();
            let counters = counters.of(Priority::Normal);
            counters.in_flight_ns.add(in_flight * 100_000_000);
        }
        let told = application.tick(&sample(cpu * 0.8), TICK_S);
        let limits = told.map(|told| told.limits).unwrap_or_default();
        let total = |name| limits.iter().find(|l| &*l.name == name).map(|l| l.total);
        (total("web/a"), total("web/b"))
    };
    for _ in 0..20 {
        tick(20, 4, 0.5);
    }
    let (a, b) = (0..10).map(|_| tick(20, 60, 1.8)).last().unwrap();
    assert!(a.is_none() && b.is_some(), "{a:?} {b:?}");
    let held = (0..30).map(|_| tick(30, 1, 1.05)).find_map(|(a, _)| a);
    // By itself it would begin at 22.
    assert!((26..=30).contains(&held.unwrap()), "{held:?}");
}

fn hand(interface: &str, total: u32, until_s: u64) -> (Whose, HandLimit) {
    let whose = Whose {
        interface: Some(interface.into()),
        priority: None,
    };
    let until = Duration::from_secs(until_s);
    (whose, HandLimit { total, until })
}

/// Goal: of what a hand sets and what is found the lower one counts, in every place it is told and shown, and where
/// neither is any more nothing is left of it (L10). Method: a limit by hand while all is well, then an overload whose
/// limit falls below it, then the end of both.
#[test]
fn the_lower_of_hand_and_watermark_counts() {
    let snapshot = compile(ROUTES, "", None);
    let mut application = application(&snapshot);
    for _ in 0..20 {
        enter(&snapshot, 1, 0, 10);
        assert_eq!(application.tick(&sample(0.3), TICK_S), None);
    }
    let (whose, limit) = hand("web/b", 6, 9);
    application.limit_by_hand(whose.clone(), limit).unwrap();
    let told = application.tick(&sample(0.3), TICK_S).unwrap();
    let of = |told: &Told| -> Vec<(u32, bool)> {
        told.limits.iter().map(|l| (l.total, l.by_hand)).collect()
    };
    assert_eq!((of(&told), told.phase), (vec![(6, true)], Phase::Healthy));
    let view = |application: &Application| {
        let view = application.units().next().unwrap().view;
        (view.limit, view.by_hand)
    };
    assert_eq!(view(&application), (Some(6), true));
    let mut last = told;
    for _ in 0..40 {
        enter(&snapshot, 1, 0, 2);
        last = application.tick(&sample(2.0), TICK_S).unwrap();
    }
    let [(found, false)] = of(&last)[..] else {
        panic!("{last:?}")
    };
    assert!(found < 6, "{found}");
    assert_eq!(view(&application), (Some(found), false));
    assert_eq!(application.end_by_hand(Duration::from_secs(8)), []);
    let ended = application.end_by_hand(Duration::from_secs(9));
    assert_eq!(ended, [(whose.clone(), Ended::Expired)]);
    assert!(application.unlimit_by_hand(&whose).is_err());
    enter(&snapshot, 1, 0, 0);
    let mut ticks = (0..100).map(|_| application.tick(&sample(0.1), TICK_S));
    assert!(ticks.any(|told| told.is_none()), "it is over, and told");
}

/// Goal: what a hand sets outlives a reload under the new ids, and ends with its interface (L10). Method: limits on two
/// interfaces, of which the reload keeps one.
#[test]
fn hands_outlive_reloads() {
    let before = compile(ROUTES, "", None);
    let mut application = application(&before);
    enter(&before, 0, 0, 4);
    enter(&before, 1, 0, 4);
    for name in ["web/a", "web/b"] {
        let (whose, limit) = hand(name, 3, 9);
        application.limit_by_hand(whose, limit).unwrap();
    }
    assert_eq!(
        application.tick(&sample(0.1), TICK_S).unwrap().limits.len(),
        2
    );
    let routes = "{ name: new, match: { path: /n }, to: app }, { name: b, to: app }";
    let after = compile(routes, "", Some(&before));
    application.follow(&after.clusters[0], &rule(&after));
    let told = application.tick(&sample(0.1), TICK_S).unwrap();
    let [limit] = &told.limits[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (limit.interface.0, &*limit.name, limit.total),
        (1, "web/b", 3)
    );
    let (gone, _) = hand("web/a", 3, 9);
    assert_eq!(
        application.end_by_hand(Duration::ZERO),
        [(gone, Ended::Gone)]
    );
    let (unknown, limit) = hand("web/a", 3, 9);
    let why = application.limit_by_hand(unknown, limit).unwrap_err();
    assert!(why.contains("there are web/new, web/b"), "{why}");
    let shadow = compile(routes, "mode: shadow", Some(&after));
    application.follow(&shadow.clusters[0], &rule(&shadow));
    let (whose, limit) = hand("web/b", 1, 9);
    assert!(
        application
            .limit_by_hand(whose, limit)
            .unwrap_err()
            .contains("shadow")
    );
}
