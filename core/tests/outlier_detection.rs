//! Envoy's outlier detection as a way to heal: its fields find, and the guards, the times out and the way back are
//! those of every node (H10, H11). Ticks of a group, call by call.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::time::Duration;

use tidegate_core::healing::{
    detector::Calls,
    ejection::{Backoff, Cause, Event, Group, Guard, Settings, State},
    outlier::{Outlier, RowCalls},
};

const TICK: Duration = Duration::from_millis(100);

/// Of Envoy's defaults, with other fields.
fn settings(outlier: Outlier) -> Settings {
    Settings {
        max_ejection_percent: 10,
        base_ejection: Duration::from_secs(30),
        backoff: Backoff::Multiplied {
            jitter: Duration::ZERO,
        },
        forgive_after: outlier.interval,
        outlier: Some(outlier),
        ..Settings::default()
    }
}

struct Nodes {
    group: Group,
    count: usize,
    now: Duration,
    random: u64,
}

impl Nodes {
    fn new(count: usize, settings: Settings) -> Nodes {
        Nodes {
            group: Group::new(settings, count),
            count,
            now: Duration::ZERO,
            random: 0,
        }
    }

    /// One tick, in which every node but `k` answers ten requests; what became of `k`.
    fn tick(&mut self, k: usize, calls: Calls) -> Vec<Event> {
        let mut all = vec![answered(10); self.count];
        all[k] = calls;
        self.tick_all(&all)
    }

    fn tick_all(&mut self, calls: &[Calls]) -> Vec<Event> {
        self.now += TICK;
        let drawn = self.random;
        self.group.tick(self.now, TICK, calls, None, &mut || drawn)
    }

    fn state(&self, k: usize) -> State {
        self.group.states().nth(k).unwrap()
    }

    /// Until the node may be tried, and then with a request that succeeds.
    fn bring_back(&mut self, k: usize) {
        while !matches!(self.state(k), State::Probation { .. }) {
            self.tick(k, Calls::default());
        }
        let trial = Calls {
            trials_succeeded: 1,
            ..answered(1)
        };
        assert_eq!(self.tick(k, trial), [Event::Recovered { node: k }]);
    }
}

fn answered(succeeded: u64) -> Calls {
    Calls {
        succeeded,
        rows: [RowCalls {
            full: 0,
            trailing: Some(0),
        }; 3],
        ..Calls::default()
    }
}

/// Answers of 500 and nothing else.
fn failed(failed: u64) -> Calls {
    let ended = RowCalls {
        full: 0,
        trailing: Some(0),
    };
    Calls {
        failed,
        rows: [RowCalls::default(), ended, ended],
        ..Calls::default()
    }
}

fn penalty(events: &[Event], expected: Cause) -> Duration {
    match events {
        [Event::Ejected { cause, penalty, .. }] if *cause == expected => *penalty,
        other => panic!("{other:?}"),
    }
}

/// Goal: five failures in a row and no fewer; out for once the base time, twice, thrice, and once again after three
/// intervals that it was well; the evidence has the row. Method: one of ten nodes fails, comes back, fails again.
#[test]
fn rows_eject_for_longer_and_longer() {
    let mut nodes = Nodes::new(10, settings(Outlier::default()));
    assert_eq!(nodes.tick(3, failed(4)), []);
    let events = nodes.tick(3, failed(1));
    assert!(matches!(events[..], [Event::Ejected { evidence, .. }] if evidence.run == 5));
    assert_eq!(
        penalty(&events, Cause::Consecutive5xx),
        Duration::from_secs(30)
    );
    nodes.bring_back(3);
    // What it did before it was out is forgotten: four are no row.
    assert_eq!(nodes.tick(3, failed(4)), []);
    let again = nodes.tick(3, failed(1));
    assert_eq!(
        penalty(&again, Cause::Consecutive5xx),
        Duration::from_secs(60)
    );
    nodes.bring_back(3);
    let third = nodes.tick(3, failed(5));
    assert_eq!(
        penalty(&third, Cause::Consecutive5xx),
        Duration::from_secs(90)
    );
    nodes.bring_back(3);
    for _ in 0..301 {
        assert_eq!(nodes.tick(3, answered(1)), []);
    }
    let forgiven = nodes.tick(3, failed(5));
    assert_eq!(
        penalty(&forgiven, Cause::Consecutive5xx),
        Duration::from_secs(30)
    );
}

/// Goal: what a node does while it is out belongs to no row once it is back, even if no request has tried it. Method:
/// four failures of requests that were under way, and a probation that nobody comes in.
#[test]
fn rows_begin_anew() {
    let mut nodes = Nodes::new(10, settings(Outlier::default()));
    penalty(&nodes.tick(3, failed(5)), Cause::Consecutive5xx);
    assert_eq!(nodes.tick(3, failed(4)), []);
    while nodes.state(3) != State::Healthy {
        nodes.tick(3, Calls::default());
    }
    assert_eq!(nodes.tick(3, failed(4)), []);
}

/// Goal: up to the jitter longer, and never longer than the longest but for it (H11). Method: the highest number that
/// may be drawn, at the third time out.
#[test]
fn jitter_is_added() {
    let mut with_jitter = settings(Outlier::default());
    with_jitter.backoff = Backoff::Multiplied {
        jitter: Duration::from_secs(8),
    };
    with_jitter.max_ejection = Duration::from_secs(70);
    let mut nodes = Nodes::new(10, with_jitter);
    nodes.random = u64::MAX;
    let mut times = Vec::new();
    for _ in 0..3 {
        times.push(
            penalty(&nodes.tick(3, failed(5)), Cause::Consecutive5xx)
                .as_secs_f64()
                .round(),
        );
        nodes.bring_back(3);
    }
    assert_eq!(times, [38.0, 68.0, 78.0]);
}

/// Goal: the guards are those of every node: so many percent, the last one, what strikes all (H10). Method: a second
/// of ten nodes, the second of two, and five of ten at once.
#[test]
fn guards_hold() {
    let kept_in = |events: &[Event]| match events {
        [Event::Suspected { guard, .. }] => *guard,
        other => panic!("{other:?}"),
    };
    for (count, guard) in [(10, Guard::Percent), (2, Guard::LastNode)] {
        let mut nodes = Nodes::new(count, settings(Outlier::default()));
        penalty(&nodes.tick(0, failed(5)), Cause::Consecutive5xx);
        let mut calls = vec![answered(50); count];
        calls[0] = Calls::default();
        // Rarely enough that its peers do not count as sick.
        calls[1] = Calls {
            rows: [RowCalls {
                full: 1,
                trailing: Some(0),
            }; 3],
            failed: 5,
            ..answered(50)
        };
        assert_eq!(kept_in(&nodes.tick_all(&calls)), guard, "{count}");
    }
    let mut nodes = Nodes::new(10, settings(Outlier::default()));
    let calls: Vec<Calls> = (0..10)
        .map(|k| if k < 5 { failed(5) } else { answered(10) })
        .collect();
    let events = nodes.tick_all(&calls);
    let is_kept = |event: &Event| {
        matches!(
            event,
            Event::Suspected {
                guard: Guard::CommonMode,
                ..
            }
        )
    };
    assert!(
        events.len() == 5 && events.iter().all(is_kept),
        "{events:?}"
    );
}

/// Goal: so many of a hundred that are found are acted on, and the others are told. Method: the last number drawn that
/// is acted on, and the first that is not.
#[test]
fn some_are_let_off() {
    let rarely = Outlier {
        enforcing_consecutive_5xx: 30,
        ..Outlier::default()
    };
    for (drawn, is_out) in [(29, true), (30, false)] {
        let mut nodes = Nodes::new(10, settings(rarely.clone()));
        nodes.random = drawn;
        let events = nodes.tick(3, failed(5));
        let let_off = matches!(
            events[..],
            [Event::Suspected {
                guard: Guard::Enforcing,
                cause: Cause::Consecutive5xx,
                ..
            }]
        );
        assert_eq!(let_off, !is_out, "{events:?}");
        assert_eq!(matches!(nodes.state(3), State::Ejected { .. }), is_out);
    }
}

/// Goal: a rate is looked at once in an interval. Method: one of five nodes fails a fifth of its calls, never five in
/// a row.
#[test]
fn rates_are_looked_at_by_the_interval() {
    let settings = settings(Outlier {
        interval: Duration::from_secs(2),
        ..Outlier::default()
    });
    let mut nodes = Nodes::new(5, settings);
    let sick = Calls {
        failed: 2,
        ..answered(8)
    };
    for _ in 0..19 {
        assert_eq!(nodes.tick(3, sick), []);
    }
    assert_eq!(
        penalty(&nodes.tick(3, sick), Cause::SuccessRate),
        Duration::from_secs(30)
    );
}

/// Goal: who writes Envoy's fields gets what they say, and not our own detectors (one way to judge). Method: a node
/// that is ten times as slow, hangs, and fails a third of its calls, none of which five in a row of four nodes.
#[test]
fn own_detectors_do_not_judge() {
    let mut nodes = Nodes::new(4, settings(Outlier::default()));
    for tick in 0..600 {
        let mut calls = vec![
            Calls {
                latency_s: Some(0.01),
                ..answered(10)
            };
            4
        ];
        calls[3] = match tick % 20 {
            0 => Calls {
                waiting: 50,
                ..Calls::default()
            },
            _ => Calls {
                failed: 3,
                latency_s: Some(0.1),
                ..answered(6)
            },
        };
        assert_eq!(nodes.tick_all(&calls), [], "tick {tick}");
    }
}
