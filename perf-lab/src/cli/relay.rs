//! `tidegate-lab relay`.

use std::process::ExitCode;

use clap::Args;

use super::loopback;
use crate::{cpu, error::Error, relay, run::Interrupt};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab relay --listen 127.0.0.1:8001 --upstream 127.0.0.1:9000";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RelayArguments {
    /// Where to listen; loopback only.
    #[arg(long)]
    listen: String,
    /// Where the bytes go; loopback only.
    #[arg(long)]
    upstream: String,
}

pub(super) fn execute(arguments: RelayArguments) -> Result<ExitCode, Error> {
    let interrupt = Interrupt::listen()?;
    cpu::raise_descriptor_limit()?;
    let (listen, upstream) = (loopback(&arguments.listen)?, loopback(&arguments.upstream)?);
    relay::relay(listen, upstream, &interrupt)?;
    Ok(ExitCode::SUCCESS)
}
