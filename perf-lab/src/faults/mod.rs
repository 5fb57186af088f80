//! Real faults: how long sick endpoints get requests, and how many of those are lost, by proxies that
//! take them out.
//!
//! One [`episode`] is one fault with a fresh proxy, since a proxy keeps an endpoint out for longer each
//! time: of [`endpoints`] that can fall sick one does, under the load of [`crate::clients`]; [`analysis`] says
//! what came of it, and [`report`] sums up. All contenders have their turn at a row before it comes again.
//!
//! Not here: what becomes of faults that several endpoints have at once. The policy's simulation has them
//! (`core/tests/healing_simulation.rs`).

pub mod analysis;
pub mod endpoints;
pub mod episode;
pub mod report;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde::{Deserialize, Serialize};

use self::{
    analysis::Outcome,
    endpoints::Fault,
    episode::{Course, Task},
};
use crate::{
    clock::Nanos,
    cpu,
    error::Error,
    measure::Bench,
    peer::{Peer, render::Heal},
};

/// A fault and the load under which it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What befalls one endpoint.
    pub fault: Fault,
    /// How many endpoints there are.
    pub endpoints: usize,
    /// Requests per second and endpoint.
    pub rate: u32,
}

impl Row {
    /// For all endpoints together.
    pub fn requests_per_s(&self) -> f64 {
        f64::from(self.rate) * self.endpoints as f64
    }
}

/// A peer with one of its ways to find sick endpoints.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As it was named on the command line.
    pub name: String,
    /// The peer.
    pub peer: Peer,
    /// Its program.
    pub program: PathBuf,
    /// What it says about its version.
    pub version: String,
    /// The way.
    pub heal: Heal,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The rows.
    pub rows: &'a [Row],
    /// Who takes part.
    pub contenders: &'a [Contender],
    /// Faults of each kind for each.
    pub faults: usize,
    /// Episodes at the same time.
    pub side_by_side: usize,
    /// How long a fault lasts if nobody finds it.
    pub bound: Nanos,
    /// How long the return is waited for.
    pub recovery: Nanos,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What a contender did in a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The row.
    pub row: Row,
    /// The contender's name.
    pub contender: String,
    /// By turn, without those that are void.
    pub outcomes: Vec<Outcome>,
    /// Episodes that could not be played or are void, and why.
    pub problems: Vec<String>,
}

/// The time before a fault that every proxy has to come to rest.
const SETTLED: Nanos = Nanos::from_millis(2_000);
/// The fault comes within so long after it. Longer than any interval in which a contender looks around,
/// but for Envoy's default of ten seconds.
const WITHIN: Nanos = Nanos::from_millis(1_000);
/// Envoy's default interval, at the end of which rates are compared: a fault may come at any moment of it.
const WITHIN_ENVOY_DEFAULT: Nanos = Nanos::from_millis(10_000);

/// More than this lost before the fault, and the episode is void.
const LOST_BEFORE_MAX: f64 = 0.01;

/// Plays all episodes. `tell` is given how many are done, now and then.
pub fn run(
    plan: Plan<'_>,
    bench: &Bench,
    tell: impl Fn(usize, usize) + Sync,
) -> Result<Vec<Cell>, Error> {
    let cells = plan.rows.len() * plan.contenders.len();
    let all = cells * plan.faults;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, Result<Outcome, Error>)>> = Mutex::default();
    let work = || -> Result<(), Error> {
        cpu::pin_this_thread(bench.placement.load)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= all {
                return Ok(());
            }
            bench.interrupt.check()?;
            let result = plan.play(number, cells, bench);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((number, result));
            tell(done.fetch_add(1, Ordering::Relaxed) + 1, all);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.side_by_side).map(|_| scope.spawn(work)).collect();
        let ended = || Err(Error::Load("a thread of the lab panicked".to_owned()));
        let mut ends = workers
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| ended()));
        ends.by_ref().collect::<Result<(), Error>>()
    })?;
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    Ok(plan.gather(results))
}

impl Plan<'_> {
    fn cell(&self, number: usize) -> Option<(Row, &Contender)> {
        let per_row = self.contenders.len();
        let row = self.rows.get(number / per_row % self.rows.len())?;
        Some((*row, self.contenders.get(number % per_row)?))
    }

    /// Contenders first, then rows, then rounds: who is compared is measured close together.
    fn play(&self, number: usize, cells: usize, bench: &Bench) -> Result<Outcome, Error> {
        let nothing = || Error::Usage("nothing to do".to_owned());
        let (row, contender) = self.cell(number).ok_or_else(nothing)?;
        // The same for all contenders of a round: arrivals, victim, moment.
        let turn = (number / self.contenders.len()) as u64;
        let seed = self.seed.wrapping_add(turn);
        let within = match (contender.heal, row.fault) {
            (Heal::Default, Fault::Errors) if contender.peer.name == "envoy" => {
                WITHIN_ENVOY_DEFAULT
            }
            _ => WITHIN,
        };
        let part = fastrand::Rng::with_seed(!seed).f64();
        let course = Course {
            healthy: SETTLED + Nanos((within.0 as f64 * part) as u64),
            bound: self.bound,
            recovery: self.recovery,
        };
        let task = Task {
            contender,
            row,
            course,
            seed,
        };
        let round = number / cells;
        episode::run(
            task,
            &format!("{}-{round}-{number}", contender.peer.name),
            bench,
        )
    }

    fn gather(&self, results: Vec<(usize, Result<Outcome, Error>)>) -> Vec<Cell> {
        let named = self.rows.iter().flat_map(|row| {
            let of_row = self.contenders.iter();
            of_row.map(move |contender| Cell {
                row: *row,
                contender: contender.name.clone(),
                outcomes: Vec::new(),
                problems: Vec::new(),
            })
        });
        let mut cells: Vec<Cell> = named.collect();
        let count = cells.len().max(1);
        for (number, result) in results {
            match (cells.get_mut(number % count), result) {
                (Some(cell), Ok(outcome)) if outcome.lost_before > LOST_BEFORE_MAX => {
                    let percent = outcome.lost_before * 100.0;
                    let problem = format!("{percent:.0} % were lost before the fault");
                    cell.problems.push(problem);
                }
                (Some(cell), Ok(outcome)) => cell.outcomes.push(outcome),
                (Some(cell), Err(error)) => cell.problems.push(error.to_string()),
                (None, _) => {}
            }
        }
        cells
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::Refuse => "connection refused",
            Fault::Reset => "connection reset",
            Fault::Hang => "hangs",
            Fault::Errors => "30 % errors",
            Fault::Slow => "10 times as slow",
        };
        write!(
            f,
            "{fault}, {} endpoints, {}/s each",
            self.endpoints, self.rate
        )
    }
}
