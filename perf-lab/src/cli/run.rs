//! `tidegate-lab run`.

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;

use super::{program, seconds};
use crate::{
    cpu::{self, Placement},
    error::Error,
    load::arrivals::Spacing,
    machine::Machine,
    measure::Bench,
    peer::{Peer, process::Workplace},
    report::Table,
    run::{self, Candidate, Interrupt, RunResult},
    scenario::{Scenario, shipped},
};

/// Peers that are measured if none are named; those that are not installed are left out.
const PEERS: &str = "direct,tidegate,haproxy,nginx,envoy";

const EXAMPLES: &str = "\
Rows: h1-128 h1-128-half h1-16k h1-16k-half h1-1m h1-1m-half tcp-16k short-connections
      routes-1000 many-connections idle-connections (all if none is named)

Examples:
  tidegate-lab run
  tidegate-lab run h1-128 tcp-16k --peers tidegate,haproxy,nginx --rounds 5
  tidegate-lab run h1-128 --program tidegate=target/release/tidegate --seconds 1 --rounds 1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArguments {
    /// Scenarios by name or file; the budget's rows if none is named. One that takes a part of
    /// another's capacity brings that with it.
    rows: Vec<String>,
    /// Peers, in the order in which they take their turns.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// How long each measurement measures.
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// How long each measurement loads before it measures.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Measurements of each peer in each row.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How open-loop arrivals are spread.
    #[arg(long, value_enum, default_value_t = Spacing::Constant)]
    spacing: Spacing,
    /// CPU of the proxy; the first that this process may use, if not given.
    #[arg(long)]
    proxy_cpu: Option<usize>,
    /// CPU of the origin and the generator; the second, if not given.
    #[arg(long)]
    load_cpu: Option<usize>,
    /// A peer's program, where it is not on PATH. May be repeated.
    #[arg(long, value_name = "NAME=PATH", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    /// A directory with further peers, one directory each.
    #[arg(long)]
    peers_dir: Option<PathBuf>,
    /// Where the whole result goes.
    #[arg(long, default_value = "result.json")]
    output: PathBuf,
}

pub(super) fn execute(arguments: RunArguments) -> Result<ExitCode, Error> {
    let rows = scenarios(&arguments.rows)?;
    let work = Workplace::create()?;
    let candidates = candidates(&arguments, &work)?;
    let placement = Placement::choose(arguments.proxy_cpu, arguments.load_cpu)?;
    let machine = Machine::look(placement);
    let descriptors = cpu::raise_descriptor_limit()?;
    check_descriptors(&rows, descriptors)?;
    cpu::pin_this_thread(placement.load)?;
    let bench = Bench {
        placement,
        warm_up: arguments.warm_up,
        duration: arguments.seconds,
        spacing: arguments.spacing,
        work,
        descriptors,
        interrupt: Interrupt::listen()?,
    };
    let rounds = usize::from(arguments.rounds);
    // Starting, opening and stopping take about a second.
    let each = arguments.seconds + arguments.warm_up + Duration::from_secs(1);
    let count = rows.len() * candidates.len() * rounds;
    eprintln!(
        "{count} measurements, about {:.0} s",
        each.as_secs_f64() * count as f64
    );
    let results = run::run(&rows, &candidates, rounds, &bench, |line| {
        eprintln!("{line}")
    })?;
    let result = RunResult {
        format: 1,
        machine,
        peers: candidates
            .iter()
            .map(|candidate| (candidate.peer.name.clone(), candidate.version.clone()))
            .collect(),
        seconds: arguments.seconds.as_secs_f64(),
        rounds,
        rows: results,
    };
    println!("{}", Table(&result));
    let path = &arguments.output;
    let json = serde_json::to_string_pretty(&result)
        .map_err(|error| Error::io("writing the result")(error.into()))?;
    fs::write(path, json).map_err(Error::io(format!("writing {}", path.display())))?;
    eprintln!("the whole result is in {}", path.display());
    let empty = result.rows.iter().all(|row| row.measurements.is_empty());
    Ok(ExitCode::from(u8::from(empty)))
}

/// The scenarios asked for, by name or path; the budget's if none is.
fn scenarios(names: &[String]) -> Result<Vec<Arc<Scenario>>, Error> {
    let asked: Result<Vec<_>, Error> = match names.is_empty() {
        true => shipped::BUDGET
            .iter()
            .map(|name| shipped::find(name))
            .collect(),
        false => names.iter().map(|name| shipped::find(name)).collect(),
    };
    shipped::with_bases(&asked?)
}

/// The peers asked for. One that is asked for by name must be there; of the default ones, those that
/// are missing are left out, aloud.
fn candidates(arguments: &RunArguments, work: &Workplace) -> Result<Vec<Candidate>, Error> {
    let programs: BTreeMap<&str, &PathBuf> = arguments
        .program
        .iter()
        .map(|(name, path)| (name.as_str(), path))
        .collect();
    let mut known = Peer::all(arguments.peers_dir.as_deref())?;
    let by_name = !arguments.peers.is_empty();
    let names: Vec<&str> = match by_name {
        true => arguments.peers.iter().map(String::as_str).collect(),
        false => PEERS.split(',').collect(),
    };
    let mut candidates = Vec::new();
    for name in names {
        let Some(peer) = known.remove(name) else {
            let rest: Vec<&str> = known.keys().map(String::as_str).collect();
            return Err(Error::Usage(format!(
                "no peer `{name}`, or named twice; there are also {}",
                rest.join(", ")
            )));
        };
        match candidate(peer, programs.get(name).copied(), work) {
            Ok(candidate) => candidates.push(candidate),
            Err(error @ Error::Missing { .. }) if !by_name => eprintln!("left out: {error}"),
            Err(error) => return Err(error),
        }
    }
    if candidates.is_empty() {
        return Err(Error::Usage("no peer is left to measure".to_owned()));
    }
    Ok(candidates)
}

fn candidate(peer: Peer, told: Option<&PathBuf>, work: &Workplace) -> Result<Candidate, Error> {
    if peer.is_direct() {
        return Ok(Candidate {
            peer,
            program: None,
            version: "no proxy".to_owned(),
        });
    }
    let search = peer.search_directories(&work.lab_dir)?;
    let program = peer.program(told.map(PathBuf::as_path), &search)?;
    Ok(Candidate {
        version: peer.version(&program),
        program: Some(program),
        peer,
    })
}

/// Both ends of a row's connections lie on this machine, but in two processes; only the direct
/// connection has them in one.
fn check_descriptors(rows: &[Arc<Scenario>], limit: u64) -> Result<(), Error> {
    for row in rows {
        let needed = row.client_descriptors() + run::OTHER_DESCRIPTORS;
        if needed > limit {
            return Err(Error::Host(format!(
                "{} needs {needed} descriptors and the limit is {limit}: raise `ulimit -n`",
                row.name
            )));
        }
    }
    Ok(())
}
