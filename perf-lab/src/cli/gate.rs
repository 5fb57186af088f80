//! `tidegate-lab gate`.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::Args;

use crate::{
    callgrind::Driver,
    error::Error,
    gate::{
        Baseline, Baselines, Slower, TOLERANCE_PERCENT, Word, compare, host, is_slower_throughout,
    },
    peer::process::Workplace,
};

/// Something became dearer. Also what `compare --fail-if-slower` ends with.
const REGRESSION: u8 = 5;

const EXAMPLES: &str = "\
First the instructions of the codecs and the policy are counted (valgrind) and set against the
baseline of this compiler and kind of CPU; without one for them, nothing is judged. Then, if there is
something to compare with, the whole proxy is measured against it, and only three \"slower\" in a row
count. Exit code 5 is a regression.

Examples:
  tidegate-lab gate --quick                              instructions only
  tidegate-lab gate --bless                              the counts of now are the baseline
  tidegate-lab gate --against @main                      and the proxy against that commit's";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GateArguments {
    /// Instructions only.
    #[arg(long, conflicts_with = "against")]
    quick: bool,
    /// Takes the counts of now as the baseline, instead of judging them.
    #[arg(long)]
    bless: bool,
    /// How much dearer a case may be, in percent.
    #[arg(long, default_value_t = TOLERANCE_PERCENT, value_parser = percent)]
    tolerance: f64,
    /// The baselines.
    #[arg(long, default_value = "perf-lab/baselines/instructions.json")]
    baseline: PathBuf,
    /// The program whose instructions are counted; built from the sources here if not given.
    #[arg(long)]
    driver: Option<PathBuf>,
    /// What the proxy is measured against, as for `compare`: a program, or a commit as @REVISION.
    #[arg(long)]
    against: Option<String>,
    /// The proxy that is measured.
    #[arg(long, default_value = "target/release/tidegate")]
    program: String,
    /// Measurements of each side, each time.
    #[arg(long, default_value_t = 10)]
    pairs: u16,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (0.0..=100.0).contains(&percent) {
        true => Ok(percent),
        false => Err("not between 0 and 100".to_owned()),
    }
}

pub(super) fn execute(arguments: GateArguments) -> Result<ExitCode, Error> {
    let is_dearer = count(&arguments)?;
    if is_dearer {
        return Ok(ExitCode::from(REGRESSION));
    }
    let Some(against) = arguments.against.as_deref().filter(|_| !arguments.quick) else {
        return Ok(ExitCode::SUCCESS);
    };
    let slower = is_slower_throughout(|time| ask(&arguments, against, time))?;
    Ok(match slower {
        true => ExitCode::from(REGRESSION),
        false => ExitCode::SUCCESS,
    })
}

/// Whether a case became dearer.
fn count(arguments: &GateArguments) -> Result<bool, Error> {
    let driver = match &arguments.driver {
        Some(program) => Driver::at(program.clone()),
        None => Driver::build()?,
    };
    let work = Workplace::create()?;
    let now = driver.count(&work.dir)?;
    let host = host()?;
    let mut baselines = Baselines::read(&arguments.baseline)?;
    let none = Default::default();
    let before = baselines
        .of(&host)
        .map_or(&none, |baseline| &baseline.cases);
    println!("instructions, {host}");
    println!("{:<20}{:>12}{:>12}{:>12}", "", "baseline", "now", "change");
    let changes = compare(before, &now, arguments.tolerance);
    for change in &changes {
        println!("{change}");
    }
    if arguments.bless {
        baselines.set(Baseline { host, cases: now });
        baselines.write(&arguments.baseline)?;
        println!("{} has them now", arguments.baseline.display());
        return Ok(false);
    }
    if baselines.of(&host).is_none() {
        println!("no baseline for this host: nothing is judged; `gate --bless` makes one");
    }
    Ok(changes.iter().any(|change| change.word == Word::Dearer))
}

/// One paired comparison, in a process of its own.
fn ask(arguments: &GateArguments, against: &str, time: usize) -> Result<Slower, Error> {
    println!("measuring against {against}, time {time}");
    let lab = std::env::current_exe().map_err(Error::io("finding the lab's own program"))?;
    let status = Command::new(lab)
        .args(["compare", against, &arguments.program, "--fail-if-slower"])
        .args(["--pairs", &arguments.pairs.to_string()])
        .status()
        .map_err(Error::io("starting a comparison"))?;
    match status.code() {
        Some(0) => Ok(Slower::No),
        Some(code) if code == i32::from(REGRESSION) => Ok(Slower::Yes),
        _ => Err(Error::Load(format!("the comparison failed ({status})"))),
    }
}
