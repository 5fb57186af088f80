//! `tidegate run`: the service.

use std::path::PathBuf;

use crate::{apps, exit::Failure, logging, service::Service, source::Source};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate run                                  demonstration on http://127.0.0.1:8080
  tidegate run -c /etc/tidegate/tidegate.yaml   serve a configuration; the file is watched
  kill -HUP $(pidof tidegate)                   read the file again now
  TIDEGATE_LOG=debug tidegate run -c edge.yaml  say more")]
pub(super) struct Args {
    /// Configuration; without it, built-in applications are served for a first look
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Once ready, write the bound addresses to this file as JSON, all or nothing
    #[arg(long, value_name = "FILE")]
    announce: Option<PathBuf>,
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
        log,
    };
    service.run(|_| {
        if embedded {
            eprintln!("{WELCOME}");
        }
    })
}

const WELCOME: &str = "
  try      curl http://127.0.0.1:8080/          an application behind the gateway
           curl http://127.0.0.1:8080/flaky/    one that fails 1 in 5: see the retries
           curl http://127.0.0.1:8080/slow/     one that takes its time
  look     http://127.0.0.1:9901/               dashboard, metrics, config_dump
  next     tidegate run -c FILE                 your own configuration
  end      Ctrl-C
";

/// A gateway in front of the built-in applications.
pub(super) fn embedded(apps: &apps::Apps) -> String {
    include_str!("embedded.yaml")
        .replace("STEADY", &apps.steady.address.to_string())
        .replace("SLOW", &apps.slow.address.to_string())
        .replace("FLAKY", &apps.flaky.address.to_string())
}
