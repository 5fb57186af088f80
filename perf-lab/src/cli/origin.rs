//! `tidegate-lab origin`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;

use super::loopback;
use crate::{
    clock::Clock,
    control::{Control, Phase},
    cpu::{self, Cpu},
    error::Error,
    origin::{Origin, OriginMode},
    run::Interrupt,
    worker::Worker,
};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab origin                                   GET /b/128 answers 128 bytes
  tidegate-lab origin --mode echo --listen 127.0.0.1:9001
  tidegate-lab origin --mode http-close --cpu 1";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct OriginArguments {
    /// Where to listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: String,
    /// What to do on connections.
    #[arg(long, value_enum, default_value_t = OriginMode::Http)]
    mode: OriginMode,
    /// CPU to run on; left to the scheduler if not given.
    #[arg(long)]
    cpu: Option<usize>,
}

pub(super) fn execute(arguments: OriginArguments) -> Result<ExitCode, Error> {
    let interrupt = Interrupt::listen()?;
    cpu::raise_descriptor_limit()?;
    let origin = Origin::bind(loopback(&arguments.listen)?, arguments.mode)?;
    eprintln!("serving on {}", origin.address()?);
    let control = Arc::new(Control::default());
    let worker = Worker {
        origin: Some(origin),
        generator: None,
        neighbour: None,
        control: control.clone(),
        clock: Clock::start(),
        cpu: arguments.cpu.map(Cpu),
    };
    let thread = worker.spawn()?;
    while !thread.is_finished() && interrupt.sleep(Duration::from_millis(200)).is_ok() {}
    control.enter(Phase::Stop);
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::Load("the origin's thread panicked".to_owned())))?;
    Ok(ExitCode::SUCCESS)
}
