//! `tidegate run`: the service.

use std::path::PathBuf;

use tidegate_core::config;

use crate::{apps, exit::Failure, logging, service::Service, source::Source, upgrade::Program};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate run                                  demonstration on http://127.0.0.1:8080
  tidegate run -c /etc/tidegate/tidegate.yaml   serve a configuration; the file is watched
  kill -HUP $(pidof tidegate)                   read the file again now
  kill -USR2 $(pidof tidegate)                  hot upgrade: the binary, started anew, takes over
  TIDEGATE_LOG=debug tidegate run -c edge.yaml  say more")]
pub(super) struct Args {
    /// Configuration; without it, built-in applications are served for a first look
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Once ready, write the bound addresses to this file as JSON, all or nothing
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,

    /// UNSAFE, for looking into captured packets: append the keys of all TLS connections to this file
    #[arg(long, value_name = "FILE")]
    unsafe_key_log: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let log = logging::start();
    let (source, embedded) = match args.config {
        Some(path) => (Source::File(path), false),
        None => (Source::Embedded(embedded(&apps::start()?)), true),
    };
    let service = Service {
        source,
        announce: args.announce,
        unsafe_key_log: args.unsafe_key_log,
        log,
        program: Some(Program::own()?),
    };
    service.run(|_| {
        if embedded {
            eprintln!("{WELCOME}");
        }
    })
}

const WELCOME: &str = "
  try      curl http://127.0.0.1:8080/               the gateway itself
           curl http://127.0.0.1:8080/shop/          applications behind it
           curl http://127.0.0.1:8080/shop/echo      what an application gets to see
  look     http://127.0.0.1:9901/                    dashboard, metrics, configuration
  next     tidegate run -c FILE                      your own configuration
  end      Ctrl-C
";

/// A gateway in front of the built-in applications: a shop of a quick and a slow one, and a canary that
/// fails now and then, which retries hide.
fn embedded(apps: &apps::Apps) -> String {
    config::demo_config(
        &[apps.steady.address, apps.slow.address],
        apps.flaky.address,
    )
}
