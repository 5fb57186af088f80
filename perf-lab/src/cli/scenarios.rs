//! `tidegate-lab scenarios`.

use std::process::ExitCode;

use clap::Args;

use crate::{error::Error, scenario::shipped};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab scenarios                                all that are shipped
  tidegate-lab scenarios h1-128 > mine.yaml             one as a file, to begin with
  tidegate-lab scenarios mine.yaml                      whether a file is right";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScenariosArguments {
    /// A name, whose file is printed, or a file, which is checked.
    scenario: Option<String>,
}

pub(super) fn execute(arguments: ScenariosArguments) -> Result<ExitCode, Error> {
    let Some(typed) = arguments.scenario else {
        for scenario in shipped::all()? {
            println!("{:<20}{}", scenario.name, scenario.title);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let scenario = shipped::find(&typed)?;
    match shipped::text(&typed) {
        Some(text) => print!("{text}"),
        None => println!("{}: {}", scenario.name, scenario.title),
    }
    Ok(ExitCode::SUCCESS)
}
