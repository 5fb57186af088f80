//! One measurement: a peer is started on its core, loaded, and what it consumed meanwhile is set
//! against what was completed meanwhile.
//!
//! The peer is fresh each time, so that what it happened to get at its start (addresses, hash seeds)
//! varies over the rounds like everything else, and no other peer is alive beside it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
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
        certificate::{Certificate, TlsClient},
        process::{Running, Workplace, free_address},
        render::{Mode, Setting},
    },
    run::Interrupt,
    scenario::{
        Figure, Load, Neighbour, Scenario, Trouble,
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
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The generator's core may be this busy in an open loop before its latencies are its own.
const GENERATOR_BUSY_MAX: f64 = 0.80;
/// In a closed loop this busy means that the generator, not the peer, was the limit.
const GENERATOR_BOUND: f64 = 0.97;
/// The share of an open loop's requests that may still wait at its end: above it is an overload, whose
/// latencies only say how long it lasted.
const UNFINISHED_MAX: f64 = 0.01;
/// The proxy's core may be used by others this much.
const FOREIGN_MAX: f64 = 0.05;

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
            Figure::Memory => self.kib_per_connection,
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
    let mode = match task.row.mode() {
        Mode::Http => OriginMode::Http,
        Mode::Tcp => OriginMode::Echo,
    };
    let certificate = match task.row.tls {
        true => Some(Certificate::generate()?),
        false => None,
    };
    let mut origin = Origin::bind(([127, 0, 0, 1], 0).into(), mode)?
        .behave(&task.row.upstream, task.round as u64)?;
    let upstreams = origin.addresses();
    let listen = match task.program {
        Some(_) => free_address()?,
        None => origin.address()?,
    };
    if let (None, Some(certificate)) = (task.program, &certificate) {
        origin = origin.encrypt(certificate.server.clone());
    }
    let tls = certificate.as_ref().map(Certificate::client).transpose()?;
    let loaded = LoadedThread::start(task, bench, origin, listen, tls.clone())?;
    let prefixes = task.row.prefixes();
    let dir: PathBuf = bench
        .work
        .dir
        .join(format!("{}-{}", task.peer.name, listen.port()));
    let setting = Setting {
        listen,
        upstreams: &upstreams,
        mode: task.row.mode(),
        connections: task.row.client_descriptors() as usize,
        routes: &prefixes,
        certificate: certificate.as_ref(),
        admin: match task.row.asks_admin() {
            true => Some(free_address()?),
            false => None,
        },
        reloads: task.row.reloads(),
        cpu: bench.placement.proxy,
        descriptors: bench.descriptors,
        dir: &dir,
    };
    let (mut running, configuration) = start_peer(task, bench, &setting)?;
    running.wait_ready(
        task.row.mode(),
        &task.row.exchange(),
        tls.as_ref(),
        &bench.interrupt,
    )?;
    let sample = || match running.pid() {
        Some(pid) => Sample::of_tree(pid, bench.placement.proxy)
            .map(Some)
            .map_err(Error::io(format!(
                "reading the costs of {}",
                task.peer.name
            ))),
        None => Ok(None),
    };

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
        running: &running,
        setting,
        control: &loaded.control,
    };
    let mut player = Player::new(&task.row.events, stage);
    loaded.sleep(
        bench,
        task.row.time().unwrap_or(bench.duration),
        &mut player,
    )?;
    let seconds = started.elapsed().as_secs_f64();
    let (after, completed) = (sample()?, loaded.control.completed() - completed);
    running.check_alive()?;
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

impl Measurement {
    fn judge(&mut self, row: &Scenario) {
        let latency = &self.load.latency;
        if self.load.failures > 0 && !row.tolerates(Trouble::Failures) {
            self.void.push(format!(
                "{} failed exchanges, first: {}",
                self.load.failures,
                self.load.first_failure.as_deref().unwrap_or("unknown")
            ));
        }
        match row.load {
            Load::Idle => {
                if self.load.reconnects > 0 {
                    self.void.push(format!(
                        "{} of the idle connections were closed",
                        self.load.reconnects
                    ));
                }
            }
            Load::Saturate => {
                if self.completed == 0 {
                    self.void.push("nothing was completed".to_owned());
                }
                if self.generator_busy > GENERATOR_BOUND {
                    self.caveats.push(
                        "the generator was the limit: the throughput is a lower bound".to_owned(),
                    );
                }
            }
            Load::Share { .. } | Load::Rate(_) if row.tolerates(Trouble::Unfinished) => {}
            Load::Share { .. } | Load::Rate(_) => {
                if latency.lag_is_too_large() {
                    self.void.push(format!(
                        "the generator was late: lag p99 {:.1} µs, latency p50 {:.1} µs",
                        latency.lag.p99_us, latency.from_due.p50_us
                    ));
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
        }
        if let Some(cost) = &self.cost {
            let foreign = cost.core_busy - cost.cpu_us / 1e6 / self.seconds;
            if foreign > FOREIGN_MAX {
                self.caveats.push(format!(
                    "{:.0} % of the proxy's core went to others",
                    foreign * 100.0
                ));
            }
        }
    }
}

fn start_peer(
    task: Task<'_>,
    bench: &Bench,
    setting: &Setting<'_>,
) -> Result<(Running, BTreeMap<String, String>), Error> {
    let Some(program) = task.program else {
        return Ok((Running::direct(task.peer, setting.listen), BTreeMap::new()));
    };
    let rendered = task.peer.render(setting)?;
    let running = Running::start(task.peer, program, &rendered, setting, bench.placement)?;
    Ok((running, rendered.files))
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
                connections,
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
            connections: task.row.connections,
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
        while self.control.opened() < connections as u64 {
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
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        cost::Switches,
        load::latency::{LatencySummary, Percentiles},
    };

    fn measurement(lag_p99_us: f64, busy: f64, failures: u64, core_busy: f64) -> Measurement {
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
        let scenario = crate::scenario::shipped::named("h1-128").unwrap();
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

    /// Cost and throughput are per completed exchange.
    #[test]
    fn costs_are_per_request() {
        let measurement = measurement(0.0, 0.0, 0, 0.5);
        assert_eq!(measurement.cpu_us_per_request(), Some(10.0));
        assert!((measurement.requests_per_s() - 50_000.0).abs() < 1e-6);
    }
}
