//! One measurement: a peer is started on its core, loaded, and what it consumed meanwhile is set
//! against what was completed meanwhile.
//!
//! The peer is fresh each time, so that what it happened to get at its start (addresses, hash seeds)
//! varies over the rounds like everything else, and no other peer is alive beside it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    chain::{self, Chain, Layout},
    clock::Clock,
    control::{Control, Phase},
    cost::{Cost, Sample},
    cpu::Placement,
    error::Error,
    load::{
        Exchange, Failures, LoadSpec, Pace,
        arrivals::{Arrivals, Spacing},
        generator::{Generator, LoadOutcome},
        trickle::Trickle,
    },
    origin::{Origin, OriginMode},
    peer::{
        Peer,
        certificate::{Certificates, Shown, TlsClient},
        process::{Probe, Running, Workplace},
        render::{Mode, Setting},
    },
    perf::{Counting, Counts},
    run::Interrupt,
    scenario::{
        Figure, HttpVersion, Link, Load, Neighbour, Scenario,
        player::{Player, Stage},
    },
    worker::{Beside, Worker, WorkerOutcome},
};

/// For opening all connections, one exchange on each.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
/// For draining, over the generator's own limit.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
/// For memory to come to rest after the last connection was opened.
const SETTLE_TIME: Duration = Duration::from_millis(300);
/// The part of a measurement in which system calls and instructions are counted.
const COUNTED_PART: f64 = 0.7;
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// What is the same for all measurements of a run.
#[derive(Debug)]
pub struct Bench {
    /// Who runs where.
    pub placement: Placement,
    /// How long each measurement loads before it measures.
    pub warm_up: Duration,
    /// How long it measures.
    pub duration: Duration,
    /// How open-loop arrivals are spread.
    pub spacing: Spacing,
    /// Where peers are put.
    pub work: Workplace,
    /// Descriptors a process may open.
    pub descriptors: u64,
    /// Ends the run early.
    pub interrupt: Interrupt,
}

impl Bench {
    /// A peer that speaks HTTP/1.1 in plain text, does nothing of its own accord, and listens at `listen`.
    pub fn plain<'a>(
        &self,
        listen: SocketAddr,
        upstreams: &'a [SocketAddr],
        dir: &'a Path,
    ) -> Setting<'a> {
        Setting::plain(
            listen,
            upstreams,
            self.placement.proxy,
            self.descriptors,
            dir,
        )
    }

    /// Starts a peer that speaks so, and waits until it answers.
    pub fn start(
        &self,
        peer: &Peer,
        program: &Path,
        setting: &Setting<'_>,
    ) -> Result<Running, Error> {
        let rendered = peer.render(setting)?;
        let mut running = Running::start(peer, program, &rendered, setting, self.placement)?;
        let exchange = Exchange::get("/", 128, 0);
        running.wait_ready(Probe::plain(&exchange), &self.interrupt)?;
        Ok(running)
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The proxy.
    pub peer: &'a Peer,
    /// Its program; `None` for the direct connection.
    pub program: Option<&'a Path>,
    /// The work.
    pub row: &'a Scenario,
    /// Requests per second, where the row has a rate.
    pub rate: Option<f64>,
    /// Counts the measurements of the row; seeds the arrivals, alike for all peers.
    pub round: usize,
    /// Whether its system calls and instructions are counted, which makes everything else about it wrong.
    pub counts: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The proxy.
    pub peer: String,
    /// Which round.
    pub round: usize,
    /// Requests per second that were due, in an open loop.
    pub rate: Option<f64>,
    /// Seconds between the two readings.
    pub seconds: f64,
    /// Exchanges completed between them.
    pub completed: u64,
    /// The peer's consumption between them; `None` for the direct connection.
    pub cost: Option<Cost>,
    /// Its memory when it had just become ready.
    pub rss_ready_kib: Option<u64>,
    /// Memory that each idle connection added.
    pub kib_per_connection: Option<f64>,
    /// System calls and instructions per exchange, where they were counted.
    #[serde(skip)]
    pub counts: Option<Counts>,
    /// CPU per request in the scenario that this one's `minus` names, in the same round.
    #[serde(default)]
    pub base_cpu_us: Option<f64>,
    /// The peer's configuration by file; moved into the row's result.
    #[serde(skip)]
    pub configuration: BTreeMap<String, String>,
    /// Latencies and failures.
    pub load: LoadOutcome,
    /// How busy the generator's (and the origin's) loop was.
    pub generator_busy: f64,
    /// Reasons not to believe it at all.
    pub void: Vec<String>,
    /// Reasons to read it with care.
    pub caveats: Vec<String>,
}

impl Measurement {
    /// Throughput.
    pub fn requests_per_s(&self) -> f64 {
        self.completed as f64 / self.seconds
    }

    /// One of the figures that a scenario may be about.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let latency = &self.load.latency.from_due;
        let measured = |value: f64| (latency.count > 0).then_some(value);
        match figure {
            Figure::Cpu => self.cpu_us_per_request(),
            // Nothing, or less than nothing, is less than a nanosecond, so that ratios can be taken.
            Figure::Added => Some((self.cpu_us_per_request()? - self.base_cpu_us?).max(1e-3)),
            Figure::Memory => self.kib_per_connection,
            Figure::Rss => self.rss_ready_kib.map(|kib| kib as f64 / 1024.0),
            Figure::P50 => measured(latency.p50_us),
            Figure::P99 => measured(latency.p99_us),
            Figure::P999 => measured(latency.p999_us),
            Figure::Failures => {
                let all = self.completed + self.load.failures;
                // No failure is less than one in a million, so that ratios can be taken.
                (all > 0).then(|| (self.load.failures as f64 / all as f64).max(1e-6))
            }
            Figure::Throughput => Some(self.requests_per_s()),
        }
    }

    /// CPU per request, in microseconds.
    pub fn cpu_us_per_request(&self) -> Option<f64> {
        let cost = self.cost?;
        (self.completed > 0).then(|| cost.cpu_us / self.completed as f64)
    }
}

/// Measures once.
pub fn measure(task: Task<'_>, bench: &Bench) -> Result<Measurement, Error> {
    let mode = match (task.row.mode(), spoken_to_origin(task)) {
        (Mode::Http, HttpVersion::Http1) => OriginMode::Http,
        (Mode::Http, HttpVersion::Http2) => OriginMode::Http2,
        (Mode::Tcp, _) => OriginMode::Echo,
    };
    let certificates = match task.row.is_encrypted() {
        true => Some(Certificates::generate()?),
        false => None,
    };
    let mut origin = Origin::bind(([127, 0, 0, 1], 0).into(), mode)?
        .behave(&task.row.upstream, task.round as u64)?;
    if let (Some(certificates), Some(shown)) = (&certificates, shown_to_origin(task)) {
        origin = origin.encrypt(certificates.server(shown, spoken_to_origin(task))?);
    }
    let layout = Layout::of(task, origin.addresses(), &bench.work.dir)?;
    let setting = layout.front(task, bench, certificates.as_ref());
    let tls = chain::client(&setting, task.row.sessions())?;
    let loaded = LoadedThread::start(task, bench, origin, layout.listen, tls)?;
    let (mut chain, configuration) = Chain::start(task, bench, &layout, setting)?;
    let sample = || chain.sample(bench.placement.proxy);

    let ready = sample()?;
    loaded.open(bench, task.row.connections)?;
    if task.row.load == Load::Idle {
        bench.interrupt.sleep(SETTLE_TIME)?;
    } else {
        loaded.control.enter(Phase::WarmUp);
        bench.interrupt.sleep(bench.warm_up)?;
    }
    let (before, started, completed) = (sample()?, Instant::now(), loaded.control.completed());
    loaded.control.enter(Phase::Measure);
    let stage = Stage {
        peer: task.peer,
        running: &chain.front,
        setting,
        control: &loaded.control,
    };
    let mut player = Player::new(&task.row.events, stage);
    let time = task.row.time().unwrap_or(bench.duration);
    let pids = chain.pids();
    let counting = match task.counts && !pids.is_empty() {
        // A little less than the measurement, since perf takes its time to begin.
        true => Some(Counting::start(
            &pids,
            time.mul_f64(COUNTED_PART),
            loaded.control.clone(),
        )?),
        false => None,
    };
    loaded.sleep(bench, time, &mut player)?;
    let seconds = started.elapsed().as_secs_f64();
    let (after, completed) = (sample()?, loaded.control.completed() - completed);
    chain.check_alive()?;
    let counts = counting.map(Counting::finish).transpose()?;
    let outcome = loaded.finish(bench)?;

    let per_connection = |ready: &Sample, after: &Sample| {
        (after.rss_kib as f64 - ready.rss_kib as f64) / task.row.connections as f64
    };
    let is_idle = task.row.load == Load::Idle;
    let mut measurement = Measurement {
        peer: task.peer.name.clone(),
        round: task.round,
        rate: task.rate,
        seconds,
        completed,
        cost: before.zip(after.as_ref()).map(|(from, to)| from.until(to)),
        rss_ready_kib: ready.as_ref().map(|sample| sample.rss_kib),
        kib_per_connection: ready
            .zip(after)
            .filter(|_| is_idle)
            .map(|(ready, after)| per_connection(&ready, &after)),
        counts,
        base_cpu_us: None,
        configuration,
        load: outcome
            .load
            .ok_or_else(|| Error::Load("the load thread ended without an outcome".to_owned()))?,
        generator_busy: outcome.busy,
        void: Vec::new(),
        caveats: Vec::new(),
    };
    measurement.judge(task.row);
    Ok(measurement)
}

/// Who shows a certificate when the origin is spoken to; `None` is plain.
fn shown_to_origin(task: Task<'_>) -> Option<Shown> {
    match task.program {
        None => task.row.tls.then_some(Shown::Server),
        Some(_) => (task.row.link == Link::Mtls && task.row.hops == 1).then_some(Shown::Both),
    }
}

/// Which HTTP the origin is spoken to in.
fn spoken_to_origin(task: Task<'_>) -> HttpVersion {
    match (task.program, task.row.hops) {
        (None, _) => task.row.http(),
        (Some(_), 1) => task.row.link_protocol,
        // The link is the one between the proxies.
        (Some(_), _) => HttpVersion::Http1,
    }
}

/// The clients that a scenario has beside the measured ones.
fn neighbour(row: &Scenario, target: SocketAddr, clock: Clock) -> Result<Option<Beside>, Error> {
    Ok(match row.neighbour {
        None => None,
        Some(Neighbour::SlowLoris {
            connections,
            byte_every,
        }) => Some(Beside::Trickle(Trickle::new(
            target,
            connections,
            byte_every.0.into(),
        ))),
        Some(Neighbour::Saturate { connections, body }) => {
            let spec = LoadSpec {
                target,
                exchange: Exchange::get("/", body.0, 0),
                http: HttpVersion::Http1,
                connections,
                streams: 1,
                keep: row.keep(),
                pace: Pace::Saturate,
                stretches: Vec::new(),
                failures: Failures::Count,
                tls: None,
            };
            let control = Arc::new(Control::default());
            let generator = Generator::new(spec, control.clone(), clock)?.beside();
            Some(Beside::Load(Box::new(generator), control))
        }
    })
}

/// The loaded thread, led through its phases. Dropping it ends it.
struct LoadedThread {
    control: Arc<Control>,
    thread: Option<JoinHandle<Result<WorkerOutcome, Error>>>,
}

impl LoadedThread {
    fn start(
        task: Task<'_>,
        bench: &Bench,
        origin: Origin,
        target: SocketAddr,
        tls: Option<TlsClient>,
    ) -> Result<LoadedThread, Error> {
        let spec = LoadSpec {
            target,
            exchange: task.row.exchange(),
            http: task.row.http(),
            connections: task.row.connections,
            streams: task.row.streams,
            keep: task.row.keep(),
            stretches: task.row.stretches(),
            failures: task.row.failures(),
            tls,
            pace: match (&task.row.load, task.rate) {
                (Load::Idle, _) => Pace::Hold,
                (_, Some(rate)) => Pace::Due(Arrivals {
                    rate,
                    spacing: task.row.spacing.unwrap_or(bench.spacing),
                    seed: task.round as u64,
                }),
                (_, None) => Pace::Saturate,
            },
        };
        let (control, clock) = (Arc::new(Control::default()), Clock::start());
        let worker = Worker {
            origin: Some(origin),
            generator: Some(Generator::new(spec, control.clone(), clock)?),
            neighbour: neighbour(task.row, target, clock)?,
            control: control.clone(),
            clock,
            cpu: Some(bench.placement.load),
        };
        Ok(LoadedThread {
            control,
            thread: Some(worker.spawn()?),
        })
    }

    fn open(&self, bench: &Bench, connections: usize) -> Result<(), Error> {
        self.control.enter(Phase::Open);
        let deadline = Instant::now() + OPEN_TIME_MAX;
        // A load that gives up has its reason in its outcome.
        while self.control.opened() < connections as u64 && !self.control.failed() {
            self.check()?;
            if Instant::now() > deadline {
                return Err(Error::Load(format!(
                    "only {} of {connections} connections could be opened",
                    self.control.opened()
                )));
            }
            bench.interrupt.sleep(POLL_INTERVAL)?;
        }
        Ok(())
    }

    /// Waits, as long as the load goes on.
    fn sleep(
        &self,
        bench: &Bench,
        duration: Duration,
        player: &mut Player<'_>,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let end = start + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            // A load that has given up is void; there is no point in going on with it.
            if self.control.failed() || self.check().is_err() {
                break;
            }
            player.play(start.elapsed())?;
            let slice = left.min(Duration::from_millis(100));
            let next = player.until_next(start.elapsed()).unwrap_or(slice);
            bench.interrupt.sleep(slice.min(next))?;
        }
        Ok(())
    }

    fn finish(mut self, bench: &Bench) -> Result<WorkerOutcome, Error> {
        self.control.enter(Phase::Drain);
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        while !self.control.drained() && Instant::now() < deadline {
            self.check()?;
            bench.interrupt.sleep(POLL_INTERVAL)?;
        }
        self.control.enter(Phase::Stop);
        self.join()
    }

    fn check(&self) -> Result<(), Error> {
        match &self.thread {
            Some(thread) if !thread.is_finished() => Ok(()),
            _ => Err(Error::Load("the load thread ended early".to_owned())),
        }
    }

    fn join(&mut self) -> Result<WorkerOutcome, Error> {
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_else(|| Err(Error::Load("the load thread panicked".to_owned())))
    }
}

impl Drop for LoadedThread {
    fn drop(&mut self) {
        self.control.enter(Phase::Stop);
        let _ = self.join();
    }
}

#[cfg(test)]
mod tests {
    use crate::validity::tests::measurement;

    /// Cost and throughput are per completed exchange.
    #[test]
    fn costs_are_per_request() {
        let measurement = measurement(0.0, 0.0, 0, 0.5);
        assert_eq!(measurement.cpu_us_per_request(), Some(10.0));
        assert!((measurement.requests_per_s() - 50_000.0).abs() < 1e-6);
    }
}
