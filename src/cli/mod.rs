//! The command line: one file a verb. Results go to standard output, progress and problems to standard
//! error; colour only on a terminal and never with `NO_COLOR`.

mod center;
mod check;
mod convert;
mod ctl;
mod demo;
mod explain;
mod proxy;
#[cfg(test)]
mod reference;
pub(crate) mod render;
mod run;
mod schema;
mod top;
mod version;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::exit::{Exit, Failure};

/// A thread-per-core data plane: gateway and reverse proxy on io_uring.
#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    about,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Examples:
  tidegate run                                      try it: no file needed
  tidegate run -c /etc/tidegate/tidegate.yaml       serve
  tidegate check tidegate.yaml                      is this file right?
  tidegate explain GET http://pay.example/a -c tidegate.yaml
                                                    why does a request go where it goes?
  tidegate ctl tls pay=20%                          ask a running process

Exit codes:
  0 ok, 1 runtime failure, 2 usage, 3 configuration invalid or missing, 4 host unfit (io_uring,
  memory, port, permission), 5 a check failed, 70 a bug

Signals (run, proxy):
  TERM, INT drain and end (a second INT: now), HUP reload, USR1 reopen logs, USR2 hot upgrade,
  QUIT log the state"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve: the gateway, its admin server and dashboard
    Run(run::Args),
    /// Show a minute of life: applications, gateway, load, a failure and the recovery from it
    Demo(demo::Args),
    /// Serve as a reverse proxy in front of a few addresses, without a file
    Proxy(proxy::Args),
    /// Check configuration files; say what would change
    Check(check::Args),
    /// Make a configuration of an Envoy's bootstrap
    Convert(convert::Args),
    /// Say why a request goes where it goes
    Explain(explain::Args),
    /// Serve as healing center: judge what many proxies report, and act on it
    Center(center::Args),
    /// Ask a running process to show or to change something
    Ctl(ctl::Args),
    /// Watch a running process: shards, routes, endpoints, limits
    Top(top::Args),
    /// Print the JSON Schema of the configuration, for editors
    Schema(schema::Args),
    /// Print the version and what the kernel offers
    Version(version::Args),
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a person.
    #[default]
    Human,
    /// For a program.
    Json,
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Proxy(args) => proxy::run(args),
        Verb::Check(args) => check::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Center(args) => center::run(args),
        Verb::Ctl(args) => ctl::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Version(args) => version::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.problem.is_empty() {
                eprintln!("tidegate: {failure}");
            }
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Writes a result to standard output. A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Runtime,
            format!("cannot write to standard output: {e}"),
            "",
        )),
        _ => Ok(()),
    }
}

/// Writes a result as JSON, indented.
fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Whether to colour what goes to standard error: on a terminal, unless <https://no-color.org> is asked for.
pub(crate) fn colour_stderr() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !no_color
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Goal: the command line is consistent, and every help ends in examples. Method: clap's own check;
    /// the help of every verb.
    #[test]
    fn every_help_has_examples() {
        let mut cli = Cli::command();
        cli.clone().debug_assert();
        cli.build();
        for verb in cli.get_subcommands() {
            let help = verb.clone().render_long_help().to_string();
            let tail = help.rsplit("\n\n").next().unwrap_or_default();
            assert!(tail.starts_with("Examples:"), "{}: {tail}", verb.get_name());
        }
    }
}
