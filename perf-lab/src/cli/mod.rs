//! The command line: one verb a file.

mod compare;
mod experiment;
mod explain;
mod faults;
mod gate;
mod load;
mod origin;
mod overload;
mod peers;
mod relay;
mod report;
mod run;
mod scenarios;
mod trend;

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::error::Error;

/// Compares proxies under the same load on the same machine.
#[derive(Debug, Parser)]
#[command(name = "tidegate-lab", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  tidegate-lab peers                                    what can be measured here
  tidegate-lab run --rounds 3                           every row, every peer (about 15 minutes)
  tidegate-lab run h1-128 --peers tidegate,haproxy      one row, two peers
  tidegate-lab compare @HEAD~1 @HEAD                    did the last commit cost something?
  tidegate-lab load http://127.0.0.1:8080/ --rate 5000  load something that runs already";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measures peers in turn and prints what a request costs each.
    Run(run::RunArguments),
    /// Compares two peers, programs or commits, and says which is slower.
    Compare(compare::CompareArguments),
    /// Lets endpoints fall sick, and tells how soon they are left alone and what was lost.
    Faults(faults::FaultsArguments),
    /// Asks an application for more than it can do, and tells how much of it is answered.
    Overload(overload::OverloadArguments),
    /// Shows coordinated omission on this machine.
    Explain(explain::ExplainArguments),
    /// Renders the report of a result again.
    Report(report::ReportArguments),
    /// Shows a ledger's figures over time.
    Trend(trend::TrendArguments),
    /// Says whether a change made something dearer: instructions first, then the clock.
    Gate(gate::GateArguments),
    /// Loads something that runs already.
    Load(load::LoadArguments),
    /// Serves fixed bodies, or echoes.
    Origin(origin::OriginArguments),
    /// Relays bytes: the floor that proxies are measured against.
    Relay(relay::RelayArguments),
    /// Lists the scenarios, shows one, or checks a file.
    Scenarios(scenarios::ScenariosArguments),
    /// Lists the peers and whether they are installed.
    Peers(peers::PeersArguments),
}

/// Does what the command line says.
pub fn execute(cli: Cli) -> Result<ExitCode, Error> {
    match cli.verb {
        Verb::Run(arguments) => run::execute(arguments),
        Verb::Compare(arguments) => compare::execute(arguments),
        Verb::Faults(arguments) => faults::execute(arguments),
        Verb::Overload(arguments) => overload::execute(arguments),
        Verb::Explain(arguments) => explain::execute(arguments),
        Verb::Report(arguments) => report::execute(arguments),
        Verb::Trend(arguments) => trend::execute(arguments),
        Verb::Gate(arguments) => gate::execute(arguments),
        Verb::Load(arguments) => load::execute(arguments),
        Verb::Origin(arguments) => origin::execute(arguments),
        Verb::Relay(arguments) => relay::execute(arguments),
        Verb::Scenarios(arguments) => scenarios::execute(arguments),
        Verb::Peers(arguments) => peers::execute(arguments),
    }
}

/// `NAME=PATH` of `--program`.
fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text
        .split_once('=')
        .ok_or("it should look like tidegate=target/release/tidegate")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// Seconds, whole or not, up to ten minutes: a measurement is bounded in time.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.0..=600.0).contains(&seconds) {
        return Err("not between 0 and 600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A loopback address of `HOST:PORT`. The lab loads and serves this machine only: it makes as many
/// requests as it can, and must not be pointed at someone by a slip.
fn loopback(text: &str) -> Result<SocketAddr, Error> {
    let resolved = text
        .to_socket_addrs()
        .map_err(|error| Error::Usage(format!("`{text}` is not HOST:PORT: {error}")))?;
    let all: Vec<SocketAddr> = resolved.collect();
    let is_loopback = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    // `localhost` may name both families; origins usually listen on the older one.
    let chosen = all.iter().find(|address| address.is_ipv4()).or(all.first());
    match chosen {
        Some(address) if all.iter().all(is_loopback) => Ok(*address),
        _ => Err(Error::Usage(format!(
            "`{text}` is not a loopback address: the lab stays on this machine"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::CommandFactory;

    use super::*;

    /// The definition of the command line is consistent, and every verb's help has examples.
    #[test]
    fn the_command_line_is_consistent() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in command.get_subcommands() {
            if verb.get_name() != "help" {
                let help = verb.get_after_help().unwrap().to_string();
                assert!(help.contains("tidegate-lab"), "{}", verb.get_name());
            }
        }
    }

    /// Only loopback addresses are loaded.
    #[test]
    fn others_are_refused() {
        assert!(loopback("127.0.0.1:80").is_ok());
        assert!(loopback("127.9.9.9:80").is_ok());
        assert!(loopback("[::1]:80").is_ok());
        for text in [
            "192.0.2.1:80",
            "0.0.0.0:80",
            "[2001:db8::1]:80",
            "127.0.0.1",
        ] {
            assert_eq!(loopback(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }

    /// Durations are bounded.
    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["-1", "601", "NaN", "3s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
