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
    scenario::{
        ServiceTime, Stall, Upstream,
        units::{NumberOrText, Time},
    },
    worker::Worker,
};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab origin                                   GET /b/128 answers 128 bytes
  tidegate-lab origin --mode http2                      the same over HTTP/2
  tidegate-lab origin --mode echo --listen 127.0.0.1:9001
  tidegate-lab origin --mode http-close --cpu 1
  tidegate-lab origin --cpu-time 2ms                    no more than 500 requests per second
  tidegate-lab origin --service-time 1ms --stall-every 1s --stall-time 50ms";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct OriginArguments {
    /// Where to listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: String,
    /// What to do on connections.
    #[arg(long, value_enum, default_value_t = OriginMode::Http)]
    mode: OriginMode,
    /// How long every answer takes.
    #[arg(long, value_parser = time, default_value = "0")]
    service_time: Time,
    /// CPU time that every answer costs: an application that can be overloaded.
    #[arg(long, value_parser = time, default_value = "0")]
    cpu_time: Time,
    /// From the start of one standstill to the start of the next.
    #[arg(long, value_parser = time, requires = "stall_time")]
    stall_every: Option<Time>,
    /// How long a standstill lasts.
    #[arg(long, value_parser = time, requires = "stall_every")]
    stall_time: Option<Time>,
    /// CPU to run on; left to the scheduler if not given.
    #[arg(long)]
    cpu: Option<usize>,
}

/// As in a scenario: `1ms`, `0.5s`.
fn time(text: &str) -> Result<Time, String> {
    NumberOrText::Text(text.to_owned()).try_into()
}

fn behaviour(arguments: &OriginArguments) -> Result<Upstream, Error> {
    let stall = arguments.stall_every.zip(arguments.stall_time);
    if let Some((every, time)) = stall
        && (time.0.is_zero() || time >= every)
    {
        let problem = "--stall-time is longer than nothing, and shorter than --stall-every";
        return Err(Error::Usage(problem.to_owned()));
    }
    Ok(Upstream {
        service_time: match arguments.service_time.0.is_zero() {
            true => ServiceTime::None,
            false => ServiceTime::Constant(arguments.service_time),
        },
        stall: stall.map(|(every, time)| Stall { every, time }),
        ..Upstream::default()
    })
}

pub(super) fn execute(arguments: OriginArguments) -> Result<ExitCode, Error> {
    let interrupt = Interrupt::listen()?;
    cpu::raise_descriptor_limit()?;
    let origin = Origin::bind(loopback(&arguments.listen)?, arguments.mode)?;
    let origin = origin.behave(&behaviour(&arguments)?, 0)?;
    let origin = origin.burn(arguments.cpu_time.0.into());
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
