//! A run: rows one after the other, and in each row the peers in turn, there and back (A B C, C B A),
//! so that a drift of the machine hits all alike.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    calibration::Subject,
    capacity::{self, Capacity},
    error::Error,
    knee::Objective,
    machine::Machine,
    measure::{Bench, Measurement, Task, measure},
    peer::{DIRECT, FLOOR, OURS, Peer},
    perf::Counts,
    scenario::{Figure, Load, Scenario},
    statistics::Spread,
    verdict::{Criterion, Noise},
};

/// Set by SIGINT and SIGTERM, so that peers are stopped before the lab ends.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens to the signals from now on.
    pub fn listen() -> Result<Interrupt, Error> {
        let interrupt = Interrupt::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, interrupt.0.clone())
                .map_err(Error::io("listening to signals"))?;
        }
        Ok(interrupt)
    }

    /// As if a signal came.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error once a signal came.
    pub fn check(&self) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    /// Sleeps, unless a signal comes.
    pub fn sleep(&self, duration: Duration) -> Result<(), Error> {
        const SLICE: Duration = Duration::from_millis(50);
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

/// A peer that is on this machine.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The peer.
    pub peer: Peer,
    /// Its program; `None` for the direct connection.
    pub program: Option<PathBuf>,
    /// What it says about its version.
    pub version: String,
}

/// Everything a run found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// Version of this file's shape.
    pub format: u32,
    /// When it began, in UTC.
    #[serde(default)]
    pub date: String,
    /// What to type to do it again.
    #[serde(default)]
    pub command: String,
    /// The peer that the others are compared with.
    #[serde(default)]
    pub subject: String,
    /// Where.
    pub machine: Machine,
    /// Versions by peer.
    pub peers: BTreeMap<String, String>,
    /// How long each measurement took.
    pub seconds: f64,
    /// Rounds per row.
    pub rounds: usize,
    /// A smaller difference is called the same: 0.03 is three percent.
    #[serde(default)]
    pub smallest: f64,
    /// This machine's noise, by [`Subject`].
    #[serde(default)]
    pub noise: BTreeMap<String, Noise>,
    /// In order.
    pub rows: Vec<RowResult>,
}

/// What a row found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowResult {
    /// The scenario.
    pub row: Scenario,
    /// In the order in which they were taken.
    pub measurements: Vec<Measurement>,
    /// Peers that are not in it, and why.
    pub left_out: BTreeMap<String, String>,
    /// The peers' configurations by peer and file, except where they are a thousand routes long.
    pub configurations: BTreeMap<String, BTreeMap<String, String>>,
    /// What each peer can bear at an objective, where one was given.
    #[serde(default)]
    pub capacities: BTreeMap<String, Capacity>,
    /// System calls of each peer per exchange, where they were counted.
    #[serde(default)]
    pub calls: BTreeMap<String, f64>,
    /// Instructions of each peer per exchange, where they were counted too.
    #[serde(default)]
    pub instructions: BTreeMap<String, f64>,
}

impl RunResult {
    /// The part of the proxy's core that others took, in the middle measurement.
    pub fn foreign(&self) -> Option<f64> {
        self.middle(|measurement| {
            let cost = measurement.cost?;
            Some(cost.core_busy - cost.cpu_us / 1e6 / measurement.seconds)
        })
    }

    /// The part of the time that the host took, in the middle measurement.
    pub fn stolen(&self) -> Option<f64> {
        self.middle(|measurement| Some(measurement.cost?.core_steal))
    }

    fn middle(&self, figure: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        let measurements = self.rows.iter().flat_map(|row| &row.measurements);
        Spread::of(measurements.filter_map(figure)).map(|spread| spread.median)
    }

    /// What a figure of a row is judged by.
    pub fn criterion(&self, row: &RowResult, figure: Figure) -> Criterion {
        let subject = Subject {
            scenario: &row.row.name,
            figure,
            seconds: self.seconds,
        };
        Criterion {
            smallest: self.smallest,
            noise: self.noise.get(&subject.key()).copied(),
        }
    }
}

impl RowResult {
    /// One peer's measurements that are not void, by round.
    pub fn valid<'a>(&'a self, peer: &'a str) -> impl Iterator<Item = &'a Measurement> {
        self.measurements
            .iter()
            .filter(move |measurement| measurement.peer == peer && measurement.void.is_empty())
    }

    /// Peers that were measured, in their order.
    pub fn peers(&self) -> Vec<&str> {
        let mut peers: Vec<&str> = Vec::new();
        for measurement in &self.measurements {
            if !peers.contains(&measurement.peer.as_str()) {
                peers.push(&measurement.peer);
            }
        }
        peers
    }

    /// Median throughput of a peer.
    pub fn capacity(&self, peer: &str) -> Option<f64> {
        Spread::of(self.valid(peer).map(Measurement::requests_per_s)).map(|spread| spread.median)
    }
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Each after the one whose capacity it takes a part of.
    pub rows: &'a [Arc<Scenario>],
    /// Who is measured.
    pub candidates: &'a [Candidate],
    /// Measurements of each in each row.
    pub rounds: usize,
    /// What to search the capacity at, if that is wanted.
    pub objective: Option<Objective>,
    /// Whether to count each peer's system calls and instructions as well, in one more measurement.
    pub counts: bool,
}

/// Measures, calling `progress` with a line for a person after each measurement.
pub fn run(
    plan: Plan<'_>,
    bench: &Bench,
    mut progress: impl FnMut(&str),
) -> Result<Vec<RowResult>, Error> {
    let mut results: Vec<RowResult> = Vec::new();
    for row in plan.rows {
        let base = row
            .base()
            .and_then(|base| results.iter().find(|result| result.row.name == base));
        let rates = Rates::of(row, base);
        let mut result = RowResult {
            row: Scenario::clone(row),
            measurements: Vec::new(),
            left_out: BTreeMap::new(),
            configurations: BTreeMap::new(),
            capacities: BTreeMap::new(),
            calls: BTreeMap::new(),
            instructions: BTreeMap::new(),
        };
        for round in 0..plan.rounds {
            for candidate in in_turn(plan.candidates, round) {
                let name = &candidate.peer.name;
                if result.left_out.contains_key(name) {
                    continue;
                }
                let measured = able(candidate, row, bench)
                    .and_then(|()| rates.rate(name))
                    .and_then(|rate| measure(candidate.task(row, rate, round), bench));
                match measured {
                    Ok(mut measurement) => {
                        measurement.base_cpu_us = base_cpu_us(row, &results, &measurement);
                        progress(&line(row, plan.rounds, &measurement));
                        result.take(measurement);
                    }
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(error) => {
                        progress(&format!("{}: {error}", row.name));
                        result.left_out.insert(name.clone(), error.to_string());
                    }
                }
            }
        }
        if plan.counts {
            count(plan, &rates, &mut result, bench, &mut progress)?;
        }
        if let Some(objective) = plan.objective {
            for candidate in plan.candidates {
                let capacity =
                    capacity::search(candidate, &result, objective, bench, &mut progress)?;
                let name = candidate.peer.name.clone();
                result
                    .capacities
                    .extend(capacity.map(|capacity| (name, capacity)));
            }
        }
        results.push(result);
    }
    Ok(results)
}

impl Candidate {
    pub(crate) fn task<'a>(
        &'a self,
        row: &'a Scenario,
        rate: Option<f64>,
        round: usize,
    ) -> Task<'a> {
        Task {
            peer: &self.peer,
            program: self.program.as_deref(),
            row,
            rate,
            round,
            counts: false,
        }
    }
}

/// One more measurement of each peer, of which nothing is kept but what perf counted.
fn count(
    plan: Plan<'_>,
    rates: &Rates<'_>,
    result: &mut RowResult,
    bench: &Bench,
    progress: &mut impl FnMut(&str),
) -> Result<(), Error> {
    let row = result.row.clone();
    // Where a load comes to rest, or changes over time, a part of it says nothing of the whole.
    if row.load == Load::Idle || !row.phases.is_empty() {
        return Ok(());
    }
    for candidate in plan.candidates {
        let name = &candidate.peer.name;
        if result.left_out.contains_key(name) || candidate.program.is_none() {
            continue;
        }
        let task = Task {
            counts: true,
            ..candidate.task(&row, rates.rate(name)?, plan.rounds)
        };
        match measure(task, bench) {
            Ok(measurement) => {
                if let Some(Counts {
                    calls,
                    instructions,
                }) = measurement.counts
                {
                    progress(&format!(
                        "{}: {name} makes {calls:.2} system calls per request",
                        row.name
                    ));
                    result.calls.insert(name.clone(), calls);
                    let its = instructions.map(|instructions| (name.clone(), instructions));
                    result.instructions.extend(its);
                }
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => progress(&format!("{}: system calls of {name}: {error}", row.name)),
        }
    }
    Ok(())
}

impl RowResult {
    fn take(&mut self, mut measurement: Measurement) {
        let files = std::mem::take(&mut measurement.configuration);
        if self.row.routes == 0 {
            self.configurations.insert(measurement.peer.clone(), files);
        }
        self.measurements.push(measurement);
    }
}

/// What the same peer's request costs in the scenario that is to be subtracted, in the same round.
fn base_cpu_us(row: &Scenario, results: &[RowResult], of: &Measurement) -> Option<f64> {
    let minus = row.minus.as_deref()?;
    let base = results.iter().find(|result| result.row.name == minus)?;
    let mut same_round = base.valid(&of.peer).filter(|base| base.round == of.round);
    same_round.next()?.cpu_us_per_request()
}

/// Descriptors that the lab needs for other things than connections.
pub const OTHER_DESCRIPTORS: u64 = 200;

/// The candidates, in every second round backwards.
fn in_turn(candidates: &[Candidate], round: usize) -> Vec<&Candidate> {
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Whether a candidate can do what a row asks, here.
fn able(candidate: &Candidate, row: &Scenario, bench: &Bench) -> Result<(), Error> {
    // Only the direct connection has both ends in one process.
    let needed = 2 * row.client_descriptors() + OTHER_DESCRIPTORS;
    if candidate.peer.is_direct() && needed > bench.descriptors {
        return Err(Error::Host(format!(
            "it needs {needed} descriptors and the limit is {}",
            bench.descriptors
        )));
    }
    for capability in row.capabilities() {
        if let Some(problem) = candidate.peer.lacks(capability) {
            return Err(Error::Peer {
                peer: candidate.peer.name.clone(),
                problem: format!("{capability}: {problem}"),
            });
        }
    }
    Ok(())
}

fn line(row: &Scenario, rounds: usize, measurement: &Measurement) -> String {
    let is_about = |figure| row.goal.as_ref().is_some_and(|goal| goal.figure == figure);
    let of = |figure| measurement.figure(figure);
    let number = match (of(Figure::Rss), of(Figure::Memory), of(Figure::Cpu)) {
        (Some(mib), ..) if is_about(Figure::Rss) => format!("{mib:>8.2} MiB"),
        (_, Some(kib), _) => format!("{kib:>8.2} KiB/connection"),
        (_, None, Some(cpu)) => format!("{cpu:>8.2} µs/request"),
        (_, None, None) => format!("{:>8} µs/request", "-"),
    };
    let void = match measurement.void.first() {
        Some(reason) => format!("  void: {reason}"),
        None => String::new(),
    };
    format!(
        "{:<18} {}/{rounds}  {:<10} {number} {:>8.0}/s{void}",
        row.name,
        measurement.round + 1,
        measurement.peer,
        measurement.requests_per_s(),
    )
}

/// At which rate a row drives each peer.
struct Rates<'a> {
    row: &'a Scenario,
    base: Option<&'a RowResult>,
    /// The scenario's part of the best other peer's capacity.
    common: Option<f64>,
}

/// Nobody is driven above this part of its own capacity: latencies of an overload say nothing.
const OWN_SHARE_MAX: f64 = 0.7;

impl<'a> Rates<'a> {
    fn of(row: &'a Scenario, base: Option<&'a RowResult>) -> Rates<'a> {
        let part = match row.load {
            Load::Share { part, .. } => part,
            _ => 1.0,
        };
        let best = |skip: &[&str]| {
            let base = base?;
            let peers = base.peers().into_iter().filter(|peer| !skip.contains(peer));
            peers
                .filter_map(|peer| base.capacity(peer))
                .max_by(f64::total_cmp)
        };
        let best = best(&[DIRECT, FLOOR, OURS])
            .or_else(|| best(&[DIRECT, FLOOR]))
            .or_else(|| best(&[]));
        Rates {
            row,
            base,
            common: best.map(|capacity| capacity * part),
        }
    }

    /// All peers get the same rate, so that their costs and latencies compare, except those that
    /// could not bear it: they get what they can, and the report shows it.
    fn rate(&self, peer: &str) -> Result<Option<f64>, Error> {
        match &self.row.load {
            Load::Saturate | Load::Idle => Ok(None),
            Load::Rate(rate) => Ok(Some(*rate)),
            Load::Share { of: name, part } => {
                let own = self.base.and_then(|base| base.capacity(peer));
                match (self.common, own) {
                    // Who is overloaded on purpose is not spared.
                    (Some(common), Some(_)) if *part >= 1.0 => Ok(Some(common)),
                    (Some(common), Some(own)) => Ok(Some(common.min(own * OWN_SHARE_MAX))),
                    _ => Err(Error::Load(format!(
                        "its capacity is unknown: it has no valid measurement in {name}"
                    ))),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{load::generator::LoadOutcome, scenario::shipped};

    fn measured(peer: &str, requests_per_s: u64) -> Measurement {
        Measurement {
            peer: peer.to_owned(),
            round: 0,
            rate: None,
            seconds: 1.0,
            completed: requests_per_s,
            cost: None,
            rss_ready_kib: None,
            kib_per_connection: None,
            counts: None,
            base_cpu_us: None,
            configuration: BTreeMap::new(),
            load: LoadOutcome::default(),
            generator_busy: 0.0,
            void: Vec::new(),
            caveats: Vec::new(),
        }
    }

    /// Half load is half of the best other's capacity for all, less for who cannot bear it, and
    /// nothing for who was not measured; void measurements do not count.
    #[test]
    fn half_load_is_common() {
        let mut void = measured("nginx", 900_000);
        void.void.push("test".to_owned());
        let base = RowResult {
            row: Scenario::clone(&shipped::named("h1-128").unwrap()),
            measurements: vec![
                measured("direct", 200_000),
                measured("tidegate", 70_000),
                measured("haproxy", 50_000),
                measured("nginx", 48_000),
                void,
                measured("envoy", 15_000),
            ],
            left_out: BTreeMap::new(),
            configurations: BTreeMap::new(),
            capacities: BTreeMap::new(),
            calls: BTreeMap::new(),
            instructions: BTreeMap::new(),
        };
        let half = shipped::named("h1-128-half").unwrap();
        let rates = Rates::of(&half, Some(&base));
        for (peer, rate) in [
            ("tidegate", 25_000.0),
            ("direct", 25_000.0),
            ("nginx", 25_000.0),
            ("envoy", 10_500.0),
        ] {
            assert_eq!(rates.rate(peer).unwrap(), Some(rate), "{peer}");
        }
        assert!(rates.rate("caddy").is_err());
        assert!(Rates::of(&half, None).rate("nginx").is_err());
    }

    /// A sleep ends with an error as soon as a signal came.
    #[test]
    fn an_interrupt_ends_a_sleep() {
        let interrupt = Interrupt::default();
        assert!(interrupt.sleep(Duration::ZERO).is_ok());
        interrupt.0.store(true, Ordering::Relaxed);
        let hour = Duration::from_secs(3600);
        assert!(matches!(interrupt.sleep(hour), Err(Error::Interrupted)));
    }
}
