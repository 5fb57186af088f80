//! `tidegate-lab explain`: coordinated omission, on the reader's own machine.

use std::{
    fmt,
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use super::seconds;
use crate::{
    clock::Clock,
    control::{Control, Phase},
    error::Error,
    load::{
        Connections, Exchange, Failures, LoadSpec, Pace,
        arrivals::{Arrivals, Spacing},
        distribution::Distribution,
        generator::{Generator, LoadOutcome},
    },
    origin::{Origin, OriginMode},
    run::Interrupt,
    scenario::{HttpVersion, Stall, Upstream, units::Time},
    worker::Worker,
};

const EXAMPLES: &str = "\
A server that answers at once stands still for a tenth of the time, once. The same stop is read three
ways; docs/benchmarks.md says why they differ.

Examples:
  tidegate-lab explain
  tidegate-lab explain --seconds 10 --rate 1000";

/// When the server stands still, as a part of the whole: late enough to be inside the measurement
/// whatever the start took, and the next time after its end.
const STALL_AT: f64 = 0.6;
/// How long it stands still, as a part of the whole.
const STALL_PART: f64 = 0.1;
const CONNECTIONS: usize = 8;
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Eight connections to this process open within milliseconds, if they do at all.
const OPEN_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArguments {
    /// How long each of the two loads takes.
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// Requests per second that fall due in the open loop.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    rate: u32,
}

pub(super) fn execute(arguments: ExplainArguments) -> Result<ExitCode, Error> {
    if arguments.seconds < Duration::from_millis(500) {
        return Err(Error::Usage(
            "half a second is the least in which a stop can be seen".to_owned(),
        ));
    }
    let interrupt = Interrupt::listen()?;
    let open = Pace::Due(Arrivals {
        rate: f64::from(arguments.rate),
        spacing: Spacing::Constant,
        seed: 0,
    });
    eprintln!(
        "an open loop, then a closed one, {:?} each",
        arguments.seconds
    );
    let due = load(open, arguments.seconds, &interrupt)?.distributions;
    let closed = load(Pace::Saturate, arguments.seconds, &interrupt)?.distributions;
    let readings = [
        Reading("closed loop, from send", closed.from_send),
        Reading("open loop, from send", due.from_send),
        Reading("open loop, from due time", due.from_due),
    ];
    let stop = arguments.seconds.mul_f64(STALL_PART);
    println!(
        "A server stood still for {stop:?}, once in {:?}.\n",
        arguments.seconds
    );
    println!("{}", Readings(&readings));
    println!(
        "The last two lines are the same requests. One in ten fell due while the server stood still;\n\
         who counts from the send leaves out how long they waited to be sent."
    );
    Ok(ExitCode::SUCCESS)
}

fn load(pace: Pace, duration: Duration, interrupt: &Interrupt) -> Result<LoadOutcome, Error> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let upstream = Upstream {
        stall: Some(Stall {
            every: Time(duration.mul_f64(STALL_AT)),
            time: Time(duration.mul_f64(STALL_PART)),
        }),
        ..Upstream::default()
    };
    let origin = Origin::bind(any, OriginMode::Http)?.behave(&upstream, 0)?;
    let spec = LoadSpec {
        target: origin.address()?,
        exchange: Exchange::get("/", 128, 0),
        http: HttpVersion::Http1,
        connections: CONNECTIONS,
        streams: 1,
        keep: Connections::Keep,
        pace,
        stretches: Vec::new(),
        failures: Failures::GiveUp,
        tls: None,
    };
    let (control, clock) = (Arc::new(Control::default()), Clock::start());
    let worker = Worker {
        origin: Some(origin),
        generator: Some(Generator::new(spec, control.clone(), clock)?),
        neighbour: None,
        control: control.clone(),
        clock,
        cpu: None,
    };
    let thread = worker.spawn()?;
    let until = |time: Duration, is_over: &dyn Fn() -> bool| {
        let end = Instant::now() + time;
        while !is_over() && !thread.is_finished() && Instant::now() < end {
            interrupt.sleep(POLL_INTERVAL)?;
        }
        Ok::<(), Error>(())
    };
    control.enter(Phase::Open);
    let steps = until(OPEN_TIME_MAX, &|| control.opened() >= CONNECTIONS as u64).and_then(|()| {
        control.enter(Phase::WarmUp);
        control.enter(Phase::Measure);
        until(duration, &|| control.failed())?;
        control.enter(Phase::Drain);
        until(OPEN_TIME_MAX, &|| control.drained())
    });
    // The thread ends whether or not a signal came.
    control.enter(Phase::Stop);
    let ended = || Error::Load("the load thread ended without an outcome".to_owned());
    let outcome = thread.join().map_err(|_| ended())??;
    steps?;
    let load = outcome.load.ok_or_else(ended)?;
    match load.first_failure {
        Some(failure) => Err(Error::Load(failure)),
        None => Ok(load),
    }
}

struct Reading(&'static str, Distribution);

struct Readings<'a>(&'a [Reading]);

const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

impl fmt::Display for Readings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26}{:>9}", "latency in ms", "requests")?;
        for (name, _) in QUANTILES {
            write!(f, "{name:>9}")?;
        }
        writeln!(f)?;
        for Reading(name, distribution) in self.0 {
            write!(f, "{name:<26}{:>9}", distribution.count())?;
            for (_, quantile) in QUANTILES {
                match distribution.at(quantile) {
                    Some(value) => write!(f, "{:>9.1}", value.as_micros() / 1e3)?,
                    None => write!(f, "{:>9}", "-")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hdrhistogram::Histogram;

    use super::*;

    /// The table is in milliseconds, and says nothing of what it does not know.
    #[test]
    fn the_table_reads() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record(1_500_000).unwrap();
        let readings = [
            Reading("known", Distribution::new(histogram)),
            Reading("unknown", Distribution::default()),
        ];
        let text = Readings(&readings).to_string();
        let lines: Vec<&str> = text.lines().collect();
        let known = lines.get(1).unwrap();
        assert!(known.ends_with("1.5      1.5      1.5"), "{text}");
        assert!(lines.get(2).unwrap().ends_with('-'), "{text}");
    }
}
