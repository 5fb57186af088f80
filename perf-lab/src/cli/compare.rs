//! `tidegate-lab compare`.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::run::{Rig, RigArguments, candidate};
use crate::{
    calibration::{Calibration, Subject},
    compare::{Builds, Side, name_apart},
    error::Error,
    machine::Fitness,
    peer::{Peer, process::Workplace},
    run::{Candidate, Plan, RunResult},
    scenario::shipped,
    verdict::{PAIRS, Word},
};

/// B is slower than A, and that was to be an error.
const SLOWER: u8 = 5;

const EXAMPLES: &str = "\
A side is a peer (haproxy), a peer's program (haproxy=/opt/haproxy), a path to one of ours, or a commit
of this repository (@HEAD~1), which is built first. Both are measured in turn, A B, B A, each time as a
fresh process. A side against itself calibrates: what it shows is kept as this machine's noise, and
later differences must exceed it, unless the machine was unfit.

Examples:
  tidegate-lab compare tidegate tidegate                 how noisy is this machine?
  tidegate-lab compare @main target/release/tidegate     did my change cost something?
  tidegate-lab compare haproxy tidegate --scenario h1-16k --pairs 20
  tidegate-lab compare @HEAD~1 @HEAD --fail-if-slower";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArguments {
    /// The side to compare with.
    a: Side,
    /// The side that is judged.
    b: Side,
    /// What to compare them in, by name or file.
    #[arg(long, default_value = "h1-128")]
    scenario: String,
    /// Measurements of each side.
    #[arg(long, default_value_t = PAIRS, value_parser = clap::value_parser!(u16).range(2..=1_000))]
    pairs: u16,
    /// End with exit code 5 if B is slower in the scenario's own figure (CPU per request, if it
    /// names none).
    #[arg(long)]
    fail_if_slower: bool,
    #[command(flatten)]
    rig: RigArguments,
}

pub(super) fn execute(arguments: CompareArguments) -> Result<ExitCode, Error> {
    let rows = shipped::with_bases(&[shipped::find(&arguments.scenario)?])?;
    let work = Workplace::create()?;
    let (a, b) = sides(&arguments, &work)?;
    let subject = b.peer.name.clone();
    let is_same = a.program == b.program;
    let rig = Rig::set_up(arguments.rig, work, &rows)?;
    let plan = Plan {
        rows: &rows,
        candidates: &[a, b],
        rounds: usize::from(arguments.pairs),
        objective: None,
        counts: false,
    };
    let result = rig.measure(plan, &subject)?;
    if result.rows.iter().any(|row| row.measurements.is_empty()) {
        // The reasons have been told.
        return Ok(ExitCode::FAILURE);
    }
    if is_same {
        calibrate(&result)?;
    }
    let is_slower = result.rows.last().is_some_and(|row| {
        let judged = row.figure();
        let comparisons = row.comparisons(&subject, |figure| result.criterion(row, figure));
        let slower = |figure| {
            let of_figure = comparisons.iter().find(|found| found.figure == figure);
            of_figure.is_some_and(|found| found.word == Word::Slower)
        };
        slower(judged)
    });
    Ok(match is_slower && arguments.fail_if_slower {
        true => ExitCode::from(SLOWER),
        false => ExitCode::SUCCESS,
    })
}

fn sides(arguments: &CompareArguments, work: &Workplace) -> Result<(Candidate, Candidate), Error> {
    let known = Peer::all(arguments.rig.peers_dir.as_deref())?;
    let builds = Builds {
        repository: Path::new("."),
        kept: Path::new("target/lab-builds"),
        scratch: &work.dir,
    };
    let side = |side: &Side| {
        let peer = Peer::named(&known, side.peer()).map_err(|error| {
            Error::Usage(format!("{error}; a program's path has a slash in it"))
        })?;
        candidate(peer.clone(), side.program(&builds)?.as_ref(), work)
    };
    let (mut a, mut b) = (side(&arguments.a)?, side(&arguments.b)?);
    for candidate in [&mut a, &mut b] {
        if let Some(program) = &candidate.program {
            candidate.version += &format!(", {}", program.display());
        }
    }
    name_apart(&mut a.peer, &mut b.peer);
    Ok((a, b))
}

/// Keeps what a side has shown against itself.
fn calibrate(result: &RunResult) -> Result<(), Error> {
    if result.machine.fitness == Fitness::Unfit {
        eprintln!("not kept as this machine's noise: it was unfit for measuring");
        return Ok(());
    }
    let path = Calibration::path();
    let mut calibration = Calibration::load(&path)?;
    for row in &result.rows {
        for comparison in row.comparisons(&result.subject, |figure| result.criterion(row, figure)) {
            let subject = Subject {
                scenario: &row.row.name,
                figure: comparison.figure,
                seconds: result.seconds,
            };
            calibration.note(&result.machine, subject, &comparison.ratio);
            if let Some(noise) = calibration.noise(&result.machine, subject) {
                eprintln!(
                    "noise of {}: {:.1} % per pair, from {} pairs; {} pairs show differences from {:.1} %",
                    subject.key(),
                    noise.deviation * 100.0,
                    noise.pairs,
                    result.rounds,
                    noise.floor(result.rounds) * 100.0
                );
            }
        }
    }
    calibration.save(&path)?;
    eprintln!("kept in {}", path.display());
    Ok(())
}
