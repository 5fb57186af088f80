//! The loaded thread: one loop that drives an origin, a generator, or both.
//!
//! On a machine of two cores the proxy has one and the lab the other. Origin and generator in one
//! loop then spare each other a thread switch per turn, and the generator can spin between due times
//! without taking the core from the origin, as two threads would.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clock::{Clock, Nanos},
    control::{Control, Phase},
    cpu::{self, Cpu},
    error::Error,
    load::{
        generator::{Generator, LoadOutcome},
        trickle::Trickle,
    },
    origin::Origin,
    poll::{Poller, Token, Wait},
};

/// How long an idle loop sleeps before it looks at the phase again.
const TICK: Duration = Duration::from_millis(5);

/// What the loaded thread drives.
pub struct Worker {
    /// The application, if it is ours.
    pub origin: Option<Origin>,
    /// The clients, if any.
    pub generator: Option<Generator>,
    /// Clients that are not measured, if any.
    pub neighbour: Option<Beside>,
    /// Shared with whoever measures.
    pub control: Arc<Control>,
    /// The same that the generator has.
    pub clock: Clock,
    /// Where it runs; `None` leaves it to the scheduler.
    pub cpu: Option<Cpu>,
}

/// Clients that are not measured.
pub enum Beside {
    /// A load, with the control that it follows; its phases are those of the measured one.
    Load(Box<Generator>, Arc<Control>),
    /// Requests that never end.
    Trickle(Trickle),
}

impl Beside {
    fn turn(&mut self, poller: &Poller, phase: Phase, now: Nanos) {
        match self {
            Beside::Load(generator, control) => {
                control.enter(phase);
                generator.turn(poller, now);
            }
            Beside::Trickle(trickle) => trickle.turn(poller, phase, now),
        }
    }

    fn on_event(&mut self, index: usize, poller: &Poller) {
        match self {
            Beside::Load(generator, _) => generator.on_event(index, poller),
            Beside::Trickle(trickle) => trickle.on_event(index),
        }
    }
}

/// What a worker leaves behind.
#[derive(Clone, Debug)]
pub struct WorkerOutcome {
    /// The load's, if there was one.
    pub load: Option<LoadOutcome>,
    /// Share of the measurement in which the loop had something to do.
    pub busy: f64,
}

impl Worker {
    /// Starts the thread.
    pub fn spawn(self) -> Result<JoinHandle<Result<WorkerOutcome, Error>>, Error> {
        thread::Builder::new()
            .name("lab-load".to_owned())
            .spawn(move || self.run())
            .map_err(Error::io("starting the load thread"))
    }

    /// Runs until [`Phase::Stop`].
    pub fn run(mut self) -> Result<WorkerOutcome, Error> {
        if let Some(cpu) = self.cpu {
            cpu::pin_this_thread(cpu)?;
        }
        let mut poller = Poller::new().map_err(Error::io("creating an epoll instance"))?;
        if let Some(origin) = &self.origin {
            origin.register(&poller)?;
        }
        let mut usage = Usage::default();
        loop {
            let phase = self.control.phase();
            if phase == Phase::Stop {
                break;
            }
            let now = self.clock.now();
            let mut wait = Wait::AtMost(TICK);
            if let Some(origin) = &mut self.origin {
                origin.turn(&poller, self.control.dead());
                if origin.must_be_punctual() {
                    wait = Wait::Spin;
                }
            }
            if let Some(neighbour) = &mut self.neighbour {
                neighbour.turn(&poller, phase, now);
            }
            if let Some(generator) = &mut self.generator {
                generator.turn(&poller, now);
                if generator.must_be_punctual() {
                    wait = Wait::Spin;
                }
            }
            let before = self.clock.now();
            let count = poller.wait(wait).map_err(Error::io("waiting for events"))?;
            usage.note(phase, before, self.clock.now(), count, wait);
            for i in 0..count {
                self.dispatch(poller.token(i), &poller);
            }
        }
        Ok(WorkerOutcome {
            load: self.generator.map(Generator::outcome),
            busy: usage.busy(),
        })
    }

    fn dispatch(&mut self, token: Option<Token>, poller: &Poller) {
        match (token, &mut self.origin, &mut self.generator) {
            (Some(Token::Accept(i)), Some(origin), _) => origin.accept(i, poller),
            (Some(Token::Origin(key)), Some(origin), _) => origin.on_event(key),
            (Some(Token::Load(index)), _, Some(generator)) => generator.on_event(index, poller),
            (Some(Token::Neighbour(index)), ..) => {
                if let Some(neighbour) = &mut self.neighbour {
                    neighbour.on_event(index, poller);
                }
            }
            _ => {}
        }
        // A turn may have a hundred events of several microseconds each: what falls due meanwhile
        // is sent between them.
        if let Some(generator) = &mut self.generator
            && generator.must_be_punctual()
        {
            let now = self.clock.now();
            generator.send_due(poller, now);
        }
    }
}

/// How much of the measurement the loop worked.
#[derive(Debug, Default)]
struct Usage {
    first: Option<Nanos>,
    last: Nanos,
    idle: Nanos,
}

impl Usage {
    /// A wait counts as idle if it slept, or if it spun and found nothing. A wait that returned at
    /// once with events is a system call like any other.
    fn note(&mut self, phase: Phase, before: Nanos, after: Nanos, events: usize, wait: Wait) {
        if phase != Phase::Measure {
            return;
        }
        self.first.get_or_insert(before);
        self.last = after;
        if wait != Wait::Spin || events == 0 {
            self.idle = self.idle + (after - before);
        }
    }

    fn busy(&self) -> f64 {
        let whole = (self.last - self.first.unwrap_or(self.last)).0;
        if whole == 0 {
            return 0.0;
        }
        1.0 - self.idle.0 as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::net::SocketAddr;

    use super::*;
    use crate::{
        load::{
            Connections, Exchange, Failures, LoadSpec, Pace,
            arrivals::{Arrivals, Spacing},
        },
        origin::OriginMode,
        peer::certificate::{Certificates, Sessions, Shown},
        scenario::{
            HttpVersion, ServiceTime, Upstream,
            units::{Share, Time},
        },
    };

    /// Runs a load straight against an origin in the same loop until `exchanges` were completed
    /// and the rest has drained.
    fn run(mode: OriginMode, exchange: Exchange, keep: Connections, pace: Pace) -> LoadOutcome {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let origin = Origin::bind(any, mode).unwrap();
        let spec = spec(&origin, exchange, keep, pace);
        drive(origin, spec)
    }

    fn spec(origin: &Origin, exchange: Exchange, keep: Connections, pace: Pace) -> LoadSpec {
        LoadSpec {
            target: origin.address().unwrap(),
            exchange,
            http: HttpVersion::Http1,
            connections: 80,
            streams: 1,
            keep,
            pace,
            stretches: Vec::new(),
            failures: Failures::GiveUp,
            tls: None,
        }
    }

    fn drive(origin: Origin, spec: LoadSpec) -> LoadOutcome {
        let exchanges = 300;
        let (pace, connections) = (spec.pace, spec.connections as u64);
        let (control, clock) = (Arc::new(Control::default()), Clock::start());
        let generator = Generator::new(spec, control.clone(), clock).unwrap();
        let worker = Worker {
            origin: Some(origin),
            generator: Some(generator),
            neighbour: None,
            control: control.clone(),
            clock,
            cpu: None,
        };
        let thread = worker.spawn().unwrap();
        let until = |condition: &dyn Fn() -> bool| {
            while !condition() && !control.failed() {
                assert!(!thread.is_finished(), "the worker ended early");
                thread::yield_now();
            }
        };
        control.enter(Phase::Open);
        until(&|| control.opened() >= connections);
        control.enter(Phase::WarmUp);
        control.enter(Phase::Measure);
        if pace != Pace::Hold {
            until(&|| control.completed() >= exchanges);
        }
        control.enter(Phase::Drain);
        until(&|| control.drained());
        control.enter(Phase::Stop);
        thread.join().unwrap().unwrap().load.unwrap()
    }

    fn get(body_bytes: u64) -> Exchange {
        Exchange::Http {
            host: "lab".to_owned(),
            path: format!("/b/{body_bytes}"),
            body_bytes: Some(body_bytes),
            request_bytes: 0,
        }
    }

    const OPEN: Pace = Pace::Due(Arrivals {
        rate: 5_000.0,
        spacing: Spacing::Poisson,
        seed: 1,
    });

    /// Every combination of exchange, reuse and pace completes without failures over loopback.
    #[test]
    fn every_kind_of_load_runs_clean() {
        let echo = Exchange::Echo { bytes: 16 << 10 };
        let cases = [
            (
                OriginMode::Http,
                get(128),
                Connections::Keep,
                Pace::Saturate,
            ),
            (
                OriginMode::Http,
                get(1 << 20),
                Connections::Keep,
                Pace::Saturate,
            ),
            (OriginMode::Http, get(0), Connections::Keep, OPEN),
            (OriginMode::Http, get(128), Connections::Keep, Pace::Hold),
            (
                OriginMode::Http,
                get(128),
                Connections::PerRequest,
                Pace::Saturate,
            ),
            (OriginMode::Http, get(128), Connections::PerRequest, OPEN),
            (
                OriginMode::HttpClose,
                get(128),
                Connections::Keep,
                Pace::Saturate,
            ),
            (OriginMode::Echo, echo, Connections::Keep, Pace::Saturate),
        ];
        for (mode, exchange, keep, pace) in cases {
            let what = format!("{mode:?} {exchange:?} {keep:?} {pace:?}");
            let outcome = run(mode, exchange, keep, pace);
            assert_eq!(outcome.failures, 0, "{what}: {outcome:?}");
            assert_eq!(outcome.latency.unfinished, 0, "{what}: {outcome:?}");
            assert_eq!(
                outcome.latency.from_due.count > 0,
                pace != Pace::Hold,
                "{what}"
            );
            let closes = mode == OriginMode::HttpClose;
            assert_eq!(outcome.reconnects > 0, closes, "{what}: {outcome:?}");
        }
    }

    /// Over TLS every kind of load runs as clean as over TCP: handshakes, bodies of many records, and
    /// connections of a single request; with certificates on both sides as well. Sessions are resumed
    /// where that is asked for, all but the first few, and nowhere else.
    #[test]
    fn tls_runs_clean() {
        let certificates = Certificates::generate().unwrap();
        let (keep, each) = (Connections::Keep, Connections::PerRequest);
        for (body, keep, pace, shown, sessions) in [
            (128, keep, Pace::Saturate, Shown::Server, Sessions::Fresh),
            (1 << 17, keep, Pace::Saturate, Shown::Both, Sessions::Fresh),
            (128, each, Pace::Saturate, Shown::Server, Sessions::Fresh),
            (128, each, Pace::Saturate, Shown::Server, Sessions::Resumed),
            (128, each, Pace::Saturate, Shown::Both, Sessions::Resumed),
            (128, keep, OPEN, Shown::Server, Sessions::Fresh),
        ] {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let origin = Origin::bind(any, OriginMode::Http).unwrap();
            let origin = origin.encrypt(certificates.server(shown, HttpVersion::Http1).unwrap());
            let mut spec = spec(&origin, get(body), keep, pace);
            // A debug build does thousands of records and signatures slowly.
            spec.connections = 8;
            spec.tls = Some(
                certificates
                    .client(shown, sessions, HttpVersion::Http1)
                    .unwrap(),
            );
            let outcome = drive(origin, spec);
            let what = format!("{body} {keep:?} {pace:?} {shown:?} {sessions:?}: {outcome:?}");
            assert_eq!(outcome.failures, 0, "{what}");
            let full = outcome.latency.from_send.count - outcome.resumed;
            match sessions {
                Sessions::Fresh => assert_eq!(outcome.resumed, 0, "{what}"),
                Sessions::Resumed => assert!(full <= 8, "{what}"),
            }
        }
    }

    /// A load of HTTP/2 against an origin that speaks it, with eight streams on each of four connections.
    fn http2(body: u64, pace: Pace, tls: Option<Shown>, upstream: &Upstream) -> LoadOutcome {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut origin = Origin::bind(any, OriginMode::Http2).unwrap();
        origin = origin.behave(upstream, 1).unwrap();
        let mut spec = spec(&origin, get(body), Connections::Keep, pace);
        (spec.http, spec.connections, spec.streams) = (HttpVersion::Http2, 4, 8);
        if upstream.errors.0 > 0.0 {
            spec.failures = Failures::Count;
        }
        if let Some(shown) = tls {
            let certificates = Certificates::generate().unwrap();
            origin = origin.encrypt(certificates.server(shown, spec.http).unwrap());
            let client = certificates.client(shown, Sessions::Fresh, spec.http);
            spec.tls = Some(client.unwrap());
        }
        drive(origin, spec)
    }

    /// Over HTTP/2 every pace runs clean, in plain text and over TLS: bodies of none, one and hundreds of
    /// frames, which have to share a connection.
    #[test]
    fn http2_runs_clean() {
        for (body, pace, tls) in [
            (128, Pace::Saturate, None),
            (0, Pace::Saturate, None),
            (4 << 20, Pace::Saturate, None),
            (128, OPEN, None),
            (128, Pace::Hold, None),
            (128, Pace::Saturate, Some(Shown::Server)),
            (1 << 17, Pace::Saturate, Some(Shown::Both)),
            (128, OPEN, Some(Shown::Server)),
        ] {
            let outcome = http2(body, pace, tls, &Upstream::default());
            let what = format!("{body} {pace:?} {tls:?}: {outcome:?}");
            assert_eq!((outcome.failures, outcome.reconnects), (0, 0), "{what}");
            assert_eq!(outcome.latency.unfinished, 0, "{what}");
            let count = outcome.latency.from_due.count;
            assert_eq!(count > 0, pace != Pace::Hold, "{what}");
        }
    }

    /// In an open loop a request that is due takes any stream that is free. Method: an origin that takes
    /// ten milliseconds; 32 streams bear twice of the thousand requests per second, four connections with a
    /// request each would bear not half of them and have them wait for ever longer.
    #[test]
    fn due_requests_take_any_stream() {
        let upstream = Upstream {
            service_time: ServiceTime::Constant(Time(Duration::from_millis(10))),
            ..Upstream::default()
        };
        let pace = Pace::Due(Arrivals {
            rate: 1_000.0,
            spacing: Spacing::Constant,
            seed: 1,
        });
        let outcome = http2(128, pace, None, &upstream);
        assert_eq!(outcome.failures, 0, "{outcome:?}");
        let latency = &outcome.latency;
        assert!(latency.from_due.p50_us >= 10_000.0, "{latency:?}");
        assert!(latency.from_due.p50_us < 100_000.0, "{latency:?}");
    }

    /// Answers that are wrong are failures of their exchange alone, also where others share its connection.
    #[test]
    fn http2_failures_are_counted() {
        let upstream = Upstream {
            errors: Share(0.5),
            service_time: ServiceTime::Exponential(Time(Duration::from_micros(100))),
            ..Upstream::default()
        };
        let outcome = http2(128, Pace::Saturate, None, &upstream);
        assert!((150..1_000).contains(&outcome.failures), "{outcome:?}");
        assert_eq!(outcome.first_failure.as_deref(), Some("status 503"));
        assert_eq!(outcome.reconnects, 0, "{outcome:?}");
    }

    /// A peer that allows fewer streams than are asked for, or that speaks no HTTP/2, is told apart from one
    /// that serves.
    #[test]
    fn peers_that_cannot_are_named() {
        for (mode, streams, problem) in [
            (
                OriginMode::Http2,
                1_025,
                "the peer allows 1024 streams on a connection, not 1025",
            ),
            (OriginMode::Http, 1, "closed before the answer"),
        ] {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let origin = Origin::bind(any, mode).unwrap();
            let mut spec = spec(&origin, get(128), Connections::Keep, Pace::Saturate);
            (spec.http, spec.connections, spec.streams) = (HttpVersion::Http2, 1, streams);
            let outcome = drive(origin, spec);
            assert!(outcome.failures >= 1_000, "{outcome:?}");
            assert_eq!(outcome.first_failure.as_deref(), Some(problem));
            assert_eq!(outcome.latency.from_send.count, 0, "{outcome:?}");
        }
    }

    /// An origin that wants certificates answers nobody without one.
    #[test]
    fn certificates_are_asked_for() {
        let certificates = Certificates::generate().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let origin = Origin::bind(any, OriginMode::Http).unwrap();
        let origin = origin.encrypt(
            certificates
                .server(Shown::Both, HttpVersion::Http1)
                .unwrap(),
        );
        let mut spec = spec(&origin, get(128), Connections::PerRequest, Pace::Saturate);
        spec.connections = 2;
        spec.tls = Some(
            certificates
                .client(Shown::Server, Sessions::Fresh, HttpVersion::Http1)
                .unwrap(),
        );
        let outcome = drive(origin, spec);
        assert!(outcome.failures >= 1_000, "{outcome:?}");
        assert_eq!(outcome.latency.from_send.count, 0, "{outcome:?}");
    }

    /// An origin that takes its time and fails one answer in two is seen as that, on connections that stay.
    #[test]
    fn failures_are_counted_where_they_are_expected() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let upstream = Upstream {
            errors: Share(0.5),
            service_time: ServiceTime::Constant(Time(Duration::from_micros(100))),
            ..Upstream::default()
        };
        let origin = Origin::bind(any, OriginMode::Http).unwrap();
        let origin = origin.behave(&upstream, 1).unwrap();
        let mut failing = spec(&origin, get(128), Connections::Keep, Pace::Saturate);
        failing.connections = 4;
        failing.failures = Failures::Count;
        let outcome = drive(origin, failing);
        // Half of them, but for chance; a greeting that fails opens its connection again.
        assert!((150..1_000).contains(&outcome.failures), "{outcome:?}");
        assert_eq!(outcome.first_failure.as_deref(), Some("status 503"));
        assert_eq!(outcome.reconnects, 0, "{outcome:?}");
        assert!(outcome.latency.from_send.p50_us >= 100.0, "{outcome:?}");
    }

    /// A wrong body size is a failure, and enough of them end the load.
    #[test]
    fn wrong_answers_are_failures() {
        let exchange = Exchange::Http {
            host: "lab".to_owned(),
            path: "/b/127".to_owned(),
            body_bytes: Some(128),
            request_bytes: 0,
        };
        let outcome = run(
            OriginMode::Http,
            exchange,
            Connections::Keep,
            Pace::Saturate,
        );
        assert!(outcome.failures >= 1_000);
        let first = outcome.first_failure.unwrap();
        assert_eq!(first, "a body of 127 bytes instead of 128");
    }

    /// Busy is what was neither slept nor spun in vain, within the measurement only.
    #[test]
    fn usage_counts_the_measurement_only() {
        let mut usage = Usage::default();
        let spin = Wait::Spin;
        let sleep = Wait::AtMost(TICK);
        usage.note(Phase::WarmUp, Nanos(0), Nanos(500), 0, sleep);
        usage.note(Phase::Measure, Nanos(1_000), Nanos(1_100), 0, spin);
        usage.note(Phase::Measure, Nanos(1_200), Nanos(1_300), 4, spin);
        usage.note(Phase::Measure, Nanos(1_900), Nanos(2_000), 1, sleep);
        usage.note(Phase::Drain, Nanos(2_000), Nanos(9_000), 0, sleep);
        assert!((usage.busy() - 0.8).abs() < 1e-9, "{usage:?}");
    }
}
