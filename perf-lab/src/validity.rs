//! Whether a measurement counts: reasons that make it void, and reasons to read it with care.

use crate::{
    measure::Measurement,
    scenario::{Load, Scenario, Trouble},
};

/// The generator's core may be this busy in an open loop before its latencies are its own.
const GENERATOR_BUSY_MAX: f64 = 0.80;
/// In a closed loop this busy means that the generator, not the peer, was the limit.
const GENERATOR_BOUND: f64 = 0.97;
/// The share of an open loop's requests that may still wait at its end: above it is an overload, whose
/// latencies only say how long it lasted.
const UNFINISHED_MAX: f64 = 0.01;
/// The share of handshakes that may be full where all should be resumed: a server that changes its keys
/// refuses a few.
const FULL_MAX: f64 = 0.01;
/// The proxy's core may be used by others this much.
const FOREIGN_MAX: f64 = 0.05;

impl Measurement {
    /// Writes down what speaks against it.
    pub(crate) fn judge(&mut self, row: &Scenario) {
        if self.load.failures > 0 && !row.tolerates(Trouble::Failures) {
            self.void.push(format!(
                "{} failed exchanges, first: {}",
                self.load.failures,
                self.load.first_failure.as_deref().unwrap_or("unknown")
            ));
        }
        if row.resume {
            self.judge_sessions();
        }
        match row.load {
            Load::Idle => self.judge_idle(),
            Load::Saturate => self.judge_closed(),
            Load::Share { .. } | Load::Rate(_) => self.judge_open(row),
        }
        self.judge_neighbours();
    }

    /// A row about resumption is about nothing else: a peer that gives no tickets, or does not take
    /// them back, is not cheap or dear at it.
    fn judge_sessions(&mut self) {
        let all = self.load.latency.from_send.count;
        let full = all.saturating_sub(self.load.resumed);
        if full as f64 > FULL_MAX * all as f64 {
            let problem = format!("{full} of {all} handshakes were full: sessions are not resumed");
            self.void.push(problem);
        }
    }

    fn judge_idle(&mut self) {
        if self.load.reconnects > 0 {
            self.void.push(format!(
                "{} of the idle connections were closed",
                self.load.reconnects
            ));
        }
    }

    fn judge_closed(&mut self) {
        if self.completed == 0 {
            self.void.push("nothing was completed".to_owned());
        }
        if self.generator_busy > GENERATOR_BOUND {
            self.caveats
                .push("the generator was the limit: the throughput is a lower bound".to_owned());
        }
    }

    fn judge_open(&mut self, row: &Scenario) {
        let latency = &self.load.latency;
        if latency.lag_is_too_large() {
            self.void.push(format!(
                "the generator was late: lag p99 {:.1} µs, latency p50 {:.1} µs",
                latency.lag.p99_us, latency.from_due.p50_us
            ));
        }
        if row.tolerates(Trouble::Unfinished) {
            // An overload on purpose keeps the loop busy and leaves requests behind; that the
            // generator was punctual all the same has been seen above.
            return;
        }
        if self.generator_busy > GENERATOR_BUSY_MAX {
            self.void.push(format!(
                "the generator's core was {:.0} % busy",
                self.generator_busy * 100.0
            ));
        }
        let unfinished = format!(
            "{} requests had no answer at the end: the rate was too high",
            latency.unfinished
        );
        if latency.unfinished as f64 > UNFINISHED_MAX * latency.from_due.count as f64 {
            self.void.push(unfinished);
        } else if latency.unfinished > 0 {
            self.caveats.push(unfinished);
        }
    }

    fn judge_neighbours(&mut self) {
        let Some(cost) = &self.cost else {
            return;
        };
        let foreign = cost.core_busy - cost.cpu_us / 1e6 / self.seconds;
        if foreign > FOREIGN_MAX {
            let percent = foreign * 100.0;
            self.caveats
                .push(format!("{percent:.0} % of the proxy's core went to others"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        collections::BTreeMap,
        net::SocketAddr,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use super::*;
    use crate::{
        clock::{Clock, Nanos},
        control::{Control, Phase},
        cost::{Cost, Switches},
        load::{
            Connections, Exchange, Failures, LoadSpec, Pace,
            arrivals::{Arrivals, Spacing},
            generator::{Generator, LoadOutcome},
            latency::{LatencySummary, Percentiles},
        },
        origin::{Origin, OriginMode},
        poll::{Poller, Token, Wait},
        scenario::{HttpVersion, shipped},
    };

    pub(crate) fn measurement(
        lag_p99_us: f64,
        busy: f64,
        failures: u64,
        core_busy: f64,
    ) -> Measurement {
        let at = |p50_us, p99_us| Percentiles {
            p50_us,
            p99_us,
            ..Percentiles::default()
        };
        Measurement {
            peer: "x".to_owned(),
            round: 0,
            rate: None,
            seconds: 2.0,
            completed: 100_000,
            cost: Some(Cost {
                cpu_us: 1_000_000.0,
                user_share: 0.2,
                switches: Switches::default(),
                rss_kib: 1,
                core_busy,
                core_steal: 0.0,
            }),
            rss_ready_kib: None,
            kib_per_connection: None,
            counts: None,
            base_cpu_us: None,
            configuration: BTreeMap::new(),
            load: LoadOutcome {
                latency: LatencySummary {
                    from_due: at(100.0, 200.0),
                    from_send: at(90.0, 190.0),
                    lag: at(1.0, lag_p99_us),
                    unfinished: 0,
                },
                failures,
                first_failure: None,
                reconnects: 0,
                ..LoadOutcome::default()
            },
            generator_busy: busy,
            void: Vec::new(),
            caveats: Vec::new(),
        }
    }

    fn working(load: Load) -> Scenario {
        let scenario = shipped::named("h1-128").unwrap();
        Scenario {
            load,
            ..Scenario::clone(&scenario)
        }
    }

    /// A measurement is void for lag or a busy generator in an open loop only, for failures always;
    /// others on the proxy's core are a caveat.
    #[test]
    fn what_makes_a_measurement_void() {
        let open = Load::Rate(1.0);
        for (load, lag, busy, failures, core, void, caveats) in [
            (open.clone(), 9.9, 0.5, 0, 0.52, 0, 0),
            (open.clone(), 10.1, 0.5, 0, 0.5, 1, 0),
            (open.clone(), 5.0, 0.81, 0, 0.5, 1, 0),
            (open, 50.0, 0.9, 1, 0.5, 3, 0),
            (Load::Saturate, 50.0, 0.9, 0, 0.5, 0, 0),
            (Load::Saturate, 50.0, 0.98, 0, 0.56, 0, 2),
            (Load::Saturate, 0.0, 0.5, 1, 0.5, 1, 0),
        ] {
            let mut measurement = measurement(lag, busy, failures, core);
            measurement.judge(&working(load.clone()));
            let found = (measurement.void.len(), measurement.caveats.len());
            assert_eq!(found, (void, caveats), "{load:?} {measurement:?}");
        }
    }

    /// Where sessions are to be resumed, one full handshake in a hundred is allowed, and nowhere else
    /// does anybody count them.
    #[test]
    fn full_handshakes_are_void() {
        for (name, resumed, void) in [
            ("tls-handshake-resumed", 990, 0),
            ("tls-handshake-resumed", 989, 1),
            ("tls-handshake", 0, 0),
        ] {
            let mut measurement = measurement(0.0, 0.5, 0, 0.5);
            measurement.load.latency.from_send.count = 1_000;
            measurement.load.resumed = resumed;
            measurement.judge(&shipped::named(name).unwrap());
            assert_eq!(measurement.void.len(), void, "{name} {measurement:?}");
        }
    }

    /// A few requests that still wait at the end are a caveat, more than one in a hundred an overload.
    #[test]
    fn an_overload_is_void() {
        for (unfinished, void, caveats) in [(0, 0, 0), (10, 0, 1), (11, 1, 0)] {
            let mut measurement = measurement(0.0, 0.5, 0, 0.5);
            measurement.load.latency.from_due.count = 1_000;
            measurement.load.latency.unfinished = unfinished;
            measurement.judge(&working(Load::Rate(1.0)));
            let found = (measurement.void.len(), measurement.caveats.len());
            assert_eq!(found, (void, caveats), "{unfinished}");
        }
    }

    /// A generator and an origin over real sockets in made time. The loop looks at the clock every
    /// microsecond and at the sockets every hundred, which is what an exchange takes; every ten
    /// milliseconds the CPU is gone for `robbed`.
    fn run_in_made_time(robbed: Nanos) -> LoadOutcome {
        let time: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        let clock = Clock::made(time);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut origin = Origin::bind(any, OriginMode::Http).unwrap();
        let spec = LoadSpec {
            target: origin.address().unwrap(),
            exchange: Exchange::get("/", 128, 0),
            http: HttpVersion::Http1,
            connections: 16,
            streams: 1,
            keep: Connections::Keep,
            pace: Pace::Due(Arrivals {
                rate: 10_000.0,
                spacing: Spacing::Constant,
                seed: 0,
            }),
            stretches: Vec::new(),
            failures: Failures::GiveUp,
            tls: None,
        };
        let control = Arc::new(Control::default());
        let mut generator = Generator::new(spec, control.clone(), clock).unwrap();
        let mut poller = Poller::new().unwrap();
        origin.register(&poller).unwrap();
        let look = |generator: &mut Generator, origin: &mut Origin, poller: &mut Poller| {
            for i in 0..poller.wait(Wait::Spin).unwrap() {
                match poller.token(i) {
                    Some(Token::Accept(i)) => origin.accept(i, poller),
                    Some(Token::Origin(key)) => origin.on_event(key, poller),
                    Some(Token::Load(index)) => generator.on_event(index, poller),
                    _ => {}
                }
            }
        };
        control.enter(Phase::Open);
        while control.opened() < 16 {
            generator.turn(&poller, clock.now());
            look(&mut generator, &mut origin, &mut poller);
        }
        control.enter(Phase::WarmUp);
        control.enter(Phase::Measure);
        for turn in 1..=200_000u64 {
            time.fetch_add(1_000, Ordering::Relaxed);
            if turn % 10_000 == 0 {
                time.fetch_add(robbed.0, Ordering::Relaxed);
            }
            generator.turn(&poller, clock.now());
            if turn % 100 == 0 {
                look(&mut generator, &mut origin, &mut poller);
            }
        }
        control.enter(Phase::Drain);
        while !control.drained() {
            time.fetch_add(1_000, Ordering::Relaxed);
            generator.turn(&poller, clock.now());
            look(&mut generator, &mut origin, &mut poller);
        }
        generator.outcome()
    }

    /// A generator whose CPU is taken away for a third of the time, five milliseconds in fifteen,
    /// makes its measurement void; the same generator left alone does not.
    #[test]
    fn a_starved_generator_is_void() {
        let judged = |robbed| {
            let mut measurement = measurement(0.0, 0.5, 0, 0.5);
            measurement.load = run_in_made_time(robbed);
            measurement.judge(&working(Load::Rate(10_000.0)));
            measurement
        };
        let healthy = judged(Nanos::ZERO);
        assert!(healthy.load.latency.from_due.count > 1_900, "{healthy:?}");
        assert!(healthy.void.is_empty(), "{:?}", healthy.void);
        let starved = judged(Nanos::from_millis(5));
        let reason = starved.void.first().unwrap();
        assert!(reason.contains("the generator was late"), "{reason}");
    }
}
