//! The `tidegate-lab` program.

use std::process::ExitCode;

use clap::Parser;
use tidegate_lab::cli::{Cli, execute};

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate-lab: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
