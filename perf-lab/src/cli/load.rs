//! `tidegate-lab load`.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use super::{loopback, seconds};
use crate::{
    clock::Clock,
    control::{Control, Phase},
    cost::{Cost, Sample},
    cpu::{self, Cpu},
    error::Error,
    load::{
        Connections, Exchange, Failures, LoadSpec, Pace,
        arrivals::{Arrivals, Spacing},
        generator::Generator,
        latency::Percentiles,
    },
    run::Interrupt,
    scenario::HttpVersion,
    worker::{Worker, WorkerOutcome},
};

const EXAMPLES: &str = "\
Without --rate the load is a closed loop: it finds the capacity, and its latencies flatter whoever
stalls. With --rate requests fall due whatever happens, and latencies count from there.

Examples:
  tidegate-lab load http://127.0.0.1:8080/b/128 --connections 64
  tidegate-lab load http://127.0.0.1:8080/ --rate 20000 --spacing poisson --seconds 10
  tidegate-lab load http://127.0.0.1:8080/ --new-connections --pid $(pidof tidegate)
  tidegate-lab load h2c://127.0.0.1:8080/ --connections 4 --streams 25
  tidegate-lab load tcp://127.0.0.1:9000 --bytes 16384";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LoadArguments {
    /// `http://HOST:PORT/PATH` for GETs, `h2c://…` for the same over HTTP/2 with prior knowledge, or
    /// `tcp://HOST:PORT` for an echo; loopback only.
    url: String,
    /// Connections, or with --new-connections requests in flight.
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Requests at once on each connection, over h2c.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    streams: u16,
    /// How long to measure.
    #[arg(long, short, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// How long to load before measuring.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Requests per second that fall due.
    #[arg(long, short, value_parser = rate)]
    rate: Option<f64>,
    /// How they are spread.
    #[arg(long, value_enum, default_value_t = Spacing::Constant)]
    spacing: Spacing,
    /// A new connection for each request.
    #[arg(long)]
    new_connections: bool,
    /// Bytes of each echo.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    bytes: u32,
    /// Bytes that each body must have.
    #[arg(long)]
    expect_body: Option<u64>,
    /// CPU of the generator; left to the scheduler if not given.
    #[arg(long)]
    cpu: Option<usize>,
    /// Also report what this process and its children consume.
    #[arg(long)]
    pid: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.001..=10_000_000.0).contains(&rate) {
        true => Ok(rate),
        false => Err("not between 0.001 and 10,000,000".to_owned()),
    }
}

struct Outcome {
    seconds: f64,
    completed: u64,
    worker: WorkerOutcome,
    cost: Option<Cost>,
}

impl Outcome {
    /// What went wrong first, where nothing went well.
    fn nothing(&self) -> Option<&str> {
        let load = self.worker.load.as_ref()?;
        let nothing = self.completed == 0 && load.latency.from_due.count == 0;
        load.first_failure.as_deref().filter(|_| nothing)
    }
}

pub(super) fn execute(arguments: LoadArguments) -> Result<ExitCode, Error> {
    let spec = spec(&arguments)?;
    cpu::raise_descriptor_limit()?;
    let outcome = load(&arguments, spec)?;
    if let Some(problem) = outcome.nothing() {
        let url = &arguments.url;
        return Err(Error::Load(format!(
            "{url}: no exchange succeeded, the first with \"{problem}\"; does something serve it there?"
        )));
    }
    match arguments.json {
        true => print_json(&outcome)?,
        false => print(&outcome),
    }
    let failures = outcome.worker.load.map_or(0, |load| load.failures);
    Ok(ExitCode::from(u8::from(failures > 0)))
}

fn spec(arguments: &LoadArguments) -> Result<LoadSpec, Error> {
    let usage = |problem: &str| Error::Usage(format!("`{}`: {problem}", arguments.url));
    let (scheme, rest) = arguments
        .url
        .split_once("://")
        .ok_or_else(|| usage("it should begin with http://, h2c:// or tcp://"))?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let is_clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_clean(rest) {
        return Err(usage("it has spaces, or bytes that are not ASCII"));
    }
    let http = match scheme {
        "h2c" => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    };
    if arguments.streams > 1 && http == HttpVersion::Http1 {
        return Err(usage("only h2c:// has more than one stream"));
    }
    if arguments.new_connections && http == HttpVersion::Http2 {
        return Err(usage("over HTTP/2 connections are kept"));
    }
    let exchange = match scheme {
        "http" | "h2c" => Exchange::Http {
            host: host.to_owned(),
            path: path.to_owned(),
            body_bytes: arguments.expect_body,
            request_bytes: 0,
        },
        "tcp" if arguments.new_connections => {
            return Err(usage("an echo has no end that would close its connection"));
        }
        "tcp" => Exchange::Echo {
            bytes: arguments.bytes as usize,
        },
        _ => return Err(usage("only http://, h2c:// and tcp:// are spoken")),
    };
    let target = match host.contains(':') {
        true => loopback(host)?,
        false => loopback(&format!("{host}:80"))?,
    };
    Ok(LoadSpec {
        target,
        exchange,
        http,
        connections: arguments.connections as usize,
        streams: usize::from(arguments.streams),
        keep: match arguments.new_connections {
            true => Connections::PerRequest,
            false => Connections::Keep,
        },
        stretches: Vec::new(),
        failures: Failures::GiveUp,
        tls: None,
        pace: match arguments.rate {
            None => Pace::Saturate,
            Some(rate) => Pace::Due(Arrivals {
                rate,
                spacing: arguments.spacing,
                seed: 0,
            }),
        },
    })
}

fn load(arguments: &LoadArguments, spec: LoadSpec) -> Result<Outcome, Error> {
    const POLL_INTERVAL: Duration = Duration::from_millis(5);
    const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
    let interrupt = Interrupt::listen()?;
    let (control, clock) = (Arc::new(Control::default()), Clock::start());
    let generator = Generator::new(spec, control.clone(), clock)?;
    let worker = Worker {
        origin: None,
        generator: Some(generator),
        neighbour: None,
        control: control.clone(),
        clock,
        cpu: arguments.cpu.map(Cpu),
    };
    let thread = worker.spawn()?;
    let wait = |time: Duration, condition: &dyn Fn() -> bool| {
        let end = Instant::now() + time;
        while !condition() && !control.failed() && !thread.is_finished() && Instant::now() < end {
            interrupt.sleep(POLL_INTERVAL)?;
        }
        Ok::<(), Error>(())
    };
    control.enter(Phase::Open);
    let all = u64::from(arguments.connections);
    wait(OPEN_TIME_MAX, &|| control.opened() >= all)?;
    control.enter(Phase::WarmUp);
    wait(arguments.warm_up, &|| false)?;
    let sample = || match arguments.pid {
        Some(pid) => Sample::of_tree(pid, Cpu(0))
            .map(Some)
            .map_err(Error::io(format!("reading the costs of process {pid}"))),
        None => Ok(None),
    };
    let (before, started, completed) = (sample()?, Instant::now(), control.completed());
    control.enter(Phase::Measure);
    wait(arguments.seconds, &|| false)?;
    let seconds = started.elapsed().as_secs_f64();
    let (after, completed) = (sample()?, control.completed() - completed);
    control.enter(Phase::Drain);
    wait(OPEN_TIME_MAX, &|| control.drained())?;
    control.enter(Phase::Stop);
    let worker = thread
        .join()
        .unwrap_or_else(|_| Err(Error::Load("the load thread panicked".to_owned())))?;
    Ok(Outcome {
        seconds,
        completed,
        worker,
        cost: before.zip(after).map(|(from, to)| from.until(&to)),
    })
}

fn print(outcome: &Outcome) {
    let rate = outcome.completed as f64 / outcome.seconds;
    println!(
        "{} exchanges in {:.2} s: {rate:.0}/s; generator {:.0} % busy",
        outcome.completed,
        outcome.seconds,
        outcome.worker.busy * 100.0
    );
    let Some(load) = &outcome.worker.load else {
        return;
    };
    println!(
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}  µs",
        "", "p50", "p90", "p99", "p99.9", "max"
    );
    let line = |name: &str, p: &Percentiles| {
        println!(
            "{name:<12}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
            p.p50_us, p.p90_us, p.p99_us, p.p999_us, p.max_us
        );
    };
    line("from due", &load.latency.from_due);
    line("from send", &load.latency.from_send);
    line("lag", &load.latency.lag);
    if let Some(cost) = &outcome.cost {
        let per_request = cost.cpu_us / outcome.completed.max(1) as f64;
        println!(
            "cost: {per_request:.2} µs CPU per exchange, {:.0} % of it user; RSS {:.1} MiB",
            cost.user_share * 100.0,
            cost.rss_kib as f64 / 1024.0
        );
    }
    for (count, what) in [
        (
            load.latency.unfinished,
            "exchanges had no answer at the end",
        ),
        (
            load.reconnects,
            "connections were closed by the server and opened again",
        ),
        (load.failures, "exchanges failed"),
    ] {
        if count > 0 {
            println!("{count} {what}");
        }
    }
    if let Some(problem) = &load.first_failure {
        println!("first failure: {problem}");
    }
}

fn print_json(outcome: &Outcome) -> Result<(), Error> {
    let json = serde_json::json!({
        "seconds": outcome.seconds,
        "completed": outcome.completed,
        "generator_busy": outcome.worker.busy,
        "load": outcome.worker.load,
        "cost": outcome.cost,
    });
    println!("{json:#}");
    Ok(())
}
