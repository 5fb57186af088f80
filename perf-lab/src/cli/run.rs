//! `tidegate-lab run`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use super::{program, seconds};
use crate::{
    calibration::Calibration,
    cpu::{self, Placement},
    date,
    error::Error,
    knee::Objective,
    ledger,
    load::arrivals::Spacing,
    machine::Machine,
    measure::Bench,
    peer::{DIRECT, FLOOR, OURS, Peer, process::Workplace},
    report::{
        files::{self, FORMAT},
        text::Table,
    },
    run::{self, Candidate, Interrupt, Plan, RunResult},
    scenario::{Scenario, shipped},
    verdict::{PAIRS, SMALLEST},
};

/// Peers that are measured if none are named; those that are not installed are left out.
const PEERS: &str = "direct,tidegate,haproxy,nginx,envoy";

const EXAMPLES: &str = "\
Rows: h1-128 h1-128-half h1-16k h1-16k-half h1-1m h1-1m-half tcp-16k short-connections
      routes-1000 many-connections idle-connections idle-memory tls-128 tls-16k tls-handshake
      tls-handshake-resumed mtls-out two-hops two-hops-plain encryption-switch
      two-hops-h2 h2-tls h2c idle-connections-tls (all if none is named)

The report is a directory: report.html, report.md, result.json, hdr/.

Examples:
  tidegate-lab run --rounds 3
  tidegate-lab run h1-128 tcp-16k --peers tidegate,haproxy,nginx
  tidegate-lab run h1-128 --peers direct,tidegate,haproxy --objective p99=5ms
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
    /// Measurements of each peer in each row.
    #[arg(long, default_value_t = PAIRS, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Search each peer's capacity as well: the highest rate that keeps this, as in p99=5ms.
    #[arg(long)]
    objective: Option<Objective>,
    /// Count each peer's system calls as well, and its instructions where the machine counts them, in one more
    /// measurement; needs perf and its tracepoints.
    #[arg(long)]
    syscalls: bool,
    /// Install those of the default peers that are not there yet, too; peers that are named with --peers are
    /// installed anyway.
    #[arg(long, conflicts_with = "no_install")]
    install: bool,
    /// Install nothing: a peer that is named and not there is an error.
    #[arg(long)]
    no_install: bool,
    /// A peer's program, where it is not on PATH. May be repeated.
    #[arg(long, value_name = "NAME=PATH", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    #[command(flatten)]
    rig: RigArguments,
}

/// What every measuring verb takes.
#[derive(Debug, Args)]
pub(super) struct RigArguments {
    /// How long each measurement measures.
    #[arg(long, default_value = "3", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// How long each measurement loads before it measures.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// How open-loop arrivals are spread.
    #[arg(long, value_enum, default_value_t = Spacing::Constant)]
    spacing: Spacing,
    /// CPU of the proxy; the first that this process may use, if not given.
    #[arg(long)]
    proxy_cpu: Option<usize>,
    /// CPU of the origin and the generator; the second, if not given.
    #[arg(long)]
    load_cpu: Option<usize>,
    /// A directory with further peers, one directory each.
    #[arg(long)]
    pub(super) peers_dir: Option<PathBuf>,
    /// A difference below so many percent does not matter.
    #[arg(long, value_name = "PERCENT", default_value_t = SMALLEST * 100.0, value_parser = percent)]
    smallest: f64,
    /// The directory for the report.
    #[arg(long, default_value = "lab-report")]
    out: PathBuf,
    /// A file of JSON lines that the figures are added to, for `trend`.
    #[arg(long)]
    ledger: Option<PathBuf>,
}

/// A machine made ready for measuring.
pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) bench: Bench,
    smallest: f64,
    out: PathBuf,
    ledger: Option<PathBuf>,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.1..=100.0).contains(&percent) {
        true => Ok(percent),
        false => Err("not between 0.1 and 100".to_owned()),
    }
}

pub(super) fn execute(arguments: RunArguments) -> Result<ExitCode, Error> {
    let rows = scenarios(&arguments.rows)?;
    if arguments.install || (!arguments.peers.is_empty() && !arguments.no_install) {
        let named: Vec<String> = match arguments.peers.is_empty() {
            true => PEERS.split(',').map(str::to_owned).collect(),
            false => arguments.peers.clone(),
        };
        let told = |name: &String| arguments.program.iter().any(|(peer, _)| peer == name);
        let wanted: Vec<String> = named.into_iter().filter(|name| !told(name)).collect();
        let known = Peer::all(arguments.rig.peers_dir.as_deref())?;
        super::peers::install(&known, &wanted)?;
    }
    let work = Workplace::create()?;
    let candidates = candidates(&arguments, &work)?;
    let rig = Rig::set_up(arguments.rig, work, &rows)?;
    let plan = Plan {
        rows: &rows,
        candidates: &candidates,
        rounds: usize::from(arguments.rounds),
        objective: arguments.objective,
        counts: arguments.syscalls,
    };
    let result = rig.measure(plan, OURS)?;
    let empty = result.rows.iter().all(|row| row.measurements.is_empty());
    Ok(ExitCode::from(u8::from(empty)))
}

impl Rig {
    pub(super) fn set_up(
        arguments: RigArguments,
        work: Workplace,
        rows: &[Arc<Scenario>],
    ) -> Result<Rig, Error> {
        let machine = make_ready(arguments.proxy_cpu, arguments.load_cpu)?;
        let descriptors = machine.descriptors;
        check_descriptors(rows, descriptors)?;
        Ok(Rig {
            bench: Bench {
                placement: machine.placement,
                warm_up: arguments.warm_up,
                duration: arguments.seconds,
                spacing: arguments.spacing,
                work,
                descriptors,
                interrupt: Interrupt::listen()?,
            },
            machine,
            smallest: arguments.smallest / 100.0,
            out: arguments.out,
            ledger: arguments.ledger,
        })
    }

    /// Measures, prints the tables, and writes the report.
    pub(super) fn measure(&self, plan: Plan<'_>, subject: &str) -> Result<RunResult, Error> {
        let calibration = Calibration::load(&Calibration::path())?;
        let begun = date::now();
        let mut progress = Progress::new(&plan, &self.bench);
        let rows = run::run(plan, &self.bench, |line| progress.tell(line))?;
        let measured: Vec<&str> = plan
            .candidates
            .iter()
            .map(|candidate| candidate.peer.name.as_str())
            .filter(|name| ![DIRECT, FLOOR].contains(name))
            .collect();
        // Without the one that it should be about, the run is about the first.
        let subject = match measured.contains(&subject) {
            true => subject,
            false => measured.first().copied().unwrap_or(subject),
        };
        let mut result = RunResult {
            format: FORMAT,
            date: begun,
            command: command(std::env::args()),
            subject: subject.to_owned(),
            machine: self.machine.clone(),
            peers: plan
                .candidates
                .iter()
                .map(|candidate| (candidate.peer.name.clone(), candidate.version.clone()))
                .collect(),
            seconds: self.bench.duration.as_secs_f64(),
            rounds: plan.rounds,
            smallest: self.smallest,
            noise: calibration.here(&self.machine),
            rows,
        };
        let (foreign, stolen) = (result.foreign(), result.stolen());
        result.machine.note_run(foreign, stolen);
        println!("{}", Table(&result));
        let page = files::write(&result, &self.out)?;
        eprintln!("the report is {}", page.display());
        if let Some(path) = &self.ledger {
            ledger::append(path, &ledger::entries(&result, &ledger::commit()))?;
        }
        Ok(result)
    }
}

/// Tells a person how far the run is.
struct Progress {
    begun: Instant,
    done: usize,
    planned: usize,
}

impl Progress {
    fn new(plan: &Plan<'_>, bench: &Bench) -> Progress {
        let planned = plan.rows.len() * plan.candidates.len() * plan.rounds;
        // Starting, opening and stopping take about a second.
        let each = bench.duration + bench.warm_up + Duration::from_secs(1);
        eprintln!(
            "{planned} measurements, about {}",
            minutes(each.as_secs_f64() * planned as f64)
        );
        Progress {
            begun: Instant::now(),
            done: 0,
            planned,
        }
    }

    fn tell(&mut self, line: &str) {
        self.done += 1;
        let elapsed = self.begun.elapsed().as_secs_f64();
        // A search for the capacity comes on top, and nobody knows how many steps it takes.
        match self.planned.checked_sub(self.done) {
            Some(left) => {
                let left = elapsed / self.done as f64 * left as f64;
                eprintln!(
                    "[{}/{}, {} left] {line}",
                    self.done,
                    self.planned,
                    minutes(left)
                );
            }
            None => eprintln!("[search, {}] {line}", minutes(elapsed)),
        }
    }
}

pub(super) fn minutes(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The command line as it can be typed again.
pub(super) fn command(arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["tidegate-lab".to_owned()];
    for argument in arguments.skip(1) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@~%+".contains(c);
        words.push(
            match !argument.is_empty() && argument.chars().all(is_plain) {
                true => argument,
                false => format!("'{}'", argument.replace('\'', "'\\''")),
            },
        );
    }
    words.join(" ")
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
    let known = Peer::all(arguments.rig.peers_dir.as_deref())?;
    let by_name = !arguments.peers.is_empty();
    let names: Vec<&str> = match by_name {
        true => arguments.peers.iter().map(String::as_str).collect(),
        false => PEERS.split(',').collect(),
    };
    let mut candidates = Vec::new();
    for name in names {
        if candidates
            .iter()
            .any(|named: &Candidate| named.peer.name == name)
        {
            return Err(Error::Usage(format!("peer `{name}` is named twice")));
        }
        let peer = Peer::named(&known, name)?;
        match candidate(peer.clone(), programs.get(name).copied(), work) {
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

pub(super) fn candidate(
    peer: Peer,
    told: Option<&PathBuf>,
    work: &Workplace,
) -> Result<Candidate, Error> {
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

/// Decides who runs where, puts this thread there, and has as many descriptors as there may be.
pub(super) fn make_ready(
    proxy_cpu: Option<usize>,
    load_cpu: Option<usize>,
) -> Result<Machine, Error> {
    let placement = Placement::choose(proxy_cpu, load_cpu)?;
    let machine = Machine::look(placement);
    let descriptors = cpu::raise_descriptor_limit()?;
    cpu::pin_this_thread(placement.load)?;
    Ok(Machine {
        descriptors,
        ..machine
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The replay command can be pasted into a shell.
    #[test]
    fn commands_are_quoted() {
        let words = ["/usr/bin/x", "run", "h1-128", "--out", "my report", "it's"];
        let typed = command(words.into_iter().map(str::to_owned));
        assert_eq!(
            typed,
            r"tidegate-lab run h1-128 --out 'my report' 'it'\''s'"
        );
    }

    /// Times read as minutes and seconds.
    #[test]
    fn times_are_short() {
        assert_eq!(minutes(59.6), "1:00");
        assert_eq!(minutes(185.0), "3:05");
    }
}
