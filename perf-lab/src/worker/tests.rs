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

/// For large bodies, which a debug build on a busy machine is slow with.
const SLOW: Pace = Pace::Due(Arrivals {
    rate: 200.0,
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
        (OriginMode::Http, get(1 << 18), Connections::Keep, SLOW),
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

/// Where requests fall due, an event moves no more than a piece of a large body, at the origin as at the
/// generator, so that nothing due waits for the rest. Method: a megabyte over one connection, event by
/// event, of which only one end's are short.
#[test]
fn large_bodies_are_short_events() {
    for (sender, receiver) in [
        (Events::Short, Events::Whole),
        (Events::Whole, Events::Short),
    ] {
        let (sending, receiving, piece) = events_of_a_megabyte(sender, receiver);
        let least = (1 << 20) / piece;
        assert!(least > 10, "events of {piece} bytes");
        let count = match sender {
            Events::Short => sending,
            Events::Whole => receiving,
        };
        assert!(count >= least, "{sender:?} {receiver:?}: {count}");
    }
}

/// Events of the origin, of the generator, and the bytes of a short one.
fn events_of_a_megabyte(sender: Events, receiver: Events) -> (usize, usize, usize) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut origin = Origin::bind(any, OriginMode::Http).unwrap();
    let mut spec = spec(&origin, get(1 << 20), Connections::Keep, Pace::Hold);
    spec.connections = 1;
    let (control, clock) = (Arc::new(Control::default()), Clock::start());
    let mut generator = Generator::new(spec, control.clone(), clock).unwrap();
    let mut poller = Poller::new().unwrap();
    origin.register(&poller).unwrap();
    control.enter(Phase::Open);
    generator.turn(&poller, clock.now());
    let (mut sending, mut receiving) = (0, 0);
    while control.opened() < 1 {
        assert!(!control.failed());
        for i in 0..poller.wait(Wait::AtMost(TICK)).unwrap() {
            match poller.token(i) {
                Some(Token::Accept(i)) => origin.accept(i, &poller),
                Some(Token::Origin(key)) => {
                    sending += 1;
                    poller.set_events(sender);
                    origin.on_event(key, &poller);
                }
                Some(Token::Load(index)) => {
                    receiving += 1;
                    poller.set_events(receiver);
                    generator.on_event(index, &poller);
                }
                _ => {}
            }
        }
    }
    poller.set_events(Events::Short);
    (sending, receiving, poller.event_bytes())
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
/// twenty milliseconds; 32 streams bear three times the 500 requests per second, four connections with a
/// request each would bear not half of them, and have every second one wait for half a second.
#[test]
fn due_requests_take_any_stream() {
    let upstream = Upstream {
        service_time: ServiceTime::Constant(Time(Duration::from_millis(20))),
        ..Upstream::default()
    };
    let pace = Pace::Due(Arrivals {
        rate: 500.0,
        spacing: Spacing::Constant,
        seed: 1,
    });
    let outcome = http2(128, pace, None, &upstream);
    assert_eq!(outcome.failures, 0, "{outcome:?}");
    let latency = &outcome.latency;
    assert!(latency.from_due.p50_us >= 20_000.0, "{latency:?}");
    assert!(latency.from_due.p50_us < 300_000.0, "{latency:?}");
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
