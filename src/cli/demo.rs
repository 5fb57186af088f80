//! `tidegate demo`: the arguments of [`crate::demo`].

use std::time::Duration;

use crate::{demo, exit::Failure, text::parse_duration};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate demo
  tidegate demo --time 20s --rate 500")]
pub(super) struct Args {
    /// How long it goes on, with its unit
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    time: Duration,

    /// Requests per second, all together
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=demo::RATE_MAX))]
    rate: u32,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    demo::run(args.time, args.rate)
}
