//! `tidegate-lab trend`.

use std::{fs, io::ErrorKind, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    error::Error,
    trend::{Filter, Trend},
};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab trend
  tidegate-lab trend ledger.jsonl --scenario h1-128 --peer tidegate";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TrendArguments {
    /// The ledger.
    #[arg(default_value = "perf-lab/ledger.jsonl")]
    ledger: PathBuf,
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Only this peer.
    #[arg(long)]
    peer: Option<String>,
    /// Only this figure.
    #[arg(long)]
    figure: Option<String>,
}

pub(super) fn execute(arguments: TrendArguments) -> Result<ExitCode, Error> {
    let shown = arguments.ledger.display();
    let text = match fs::read_to_string(&arguments.ledger) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::Usage(format!(
                "there is no ledger {shown}; `tidegate-lab run --ledger {shown}` begins one"
            )));
        }
        text => text.map_err(Error::io(format!("reading the ledger {shown}")))?,
    };
    let filter = Filter {
        scenario: arguments.scenario,
        peer: arguments.peer,
        figure: arguments.figure,
    };
    let trend = Trend::read(&text, &filter);
    if trend.skipped > 0 {
        eprintln!(
            "{shown}: {} lines are no entries and were skipped",
            trend.skipped
        );
    }
    if trend.is_empty() {
        return Err(Error::Usage(format!(
            "{shown} has no figure that was asked for; without --scenario, --peer and --figure it is shown whole"
        )));
    }
    print!("{trend}");
    Ok(ExitCode::SUCCESS)
}
