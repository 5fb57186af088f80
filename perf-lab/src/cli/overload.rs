//! `tidegate-lab overload`.

use std::{process::ExitCode, str::FromStr, time::Duration};

use clap::Args;

use super::{experiment::ExperimentArguments, run::command, seconds};
use crate::{
    date,
    error::Error,
    overload::{self, Contender, Plan, SETTLE, application::Needs, report::OverloadResult},
    peer::{Capability, DIRECT, process::Workplace, render::Limit},
};

const EXAMPLES: &str = "\
An application whose CPU is the bottleneck is asked for a multiple of what it can answer, by requests that
say how much they matter. Told are how many good answers there were, how many of the critical ones, how
long it took to settle, and what a refusal costs.

A peer holds requests back by a limit that it finds itself (`tidegate`, `envoy`: adaptive concurrency), by
what its own machine has left (`envoy:manager`), or not at all (`tidegate:off`).

Examples:
  tidegate-lab overload                                         five steps, five contenders (6 minutes)
  tidegate-lab overload --peers tidegate --steps 10 --rounds 3
  tidegate-lab overload --critical 10 --steps 1,2,3,5";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct OverloadArguments {
    /// Who stands in front of the application, each with its way to hold requests back.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "tidegate,envoy,envoy:manager,tidegate:off,direct"
    )]
    peers: Vec<Named>,
    /// Multiples of the application's capacity.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,5,10", value_parser = times)]
    steps: Vec<f64>,
    /// How often each step is done.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How long a step lasts; the first two seconds are for settling.
    #[arg(long, default_value = "8", value_parser = seconds)]
    seconds: Duration,
    /// How long half of the capacity is asked for before it.
    #[arg(long, default_value = "3", value_parser = seconds)]
    healthy: Duration,
    /// CPU time of each answer in milliseconds.
    #[arg(long, default_value_t = 2.0, value_parser = millis)]
    cpu_ms: f64,
    /// Time that each waits for something else in milliseconds: with it several are in flight while all is
    /// well.
    #[arg(long, default_value_t = 50.0, value_parser = wait)]
    wait_ms: f64,
    /// CPUs' worth of time that the application gets, where there are control groups.
    #[arg(long, default_value_t = 0.4, value_parser = cpus)]
    cpus: f64,
    /// The part of the requests that is critical, in percent. With more than 8 the critical ones alone are
    /// too many for the application at ten times its capacity.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = percent)]
    critical: f64,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    experiment: ExperimentArguments,
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("not between {least} and {most}")),
    }
}

fn times(text: &str) -> Result<f64, String> {
    number(text, 0.1, 100.0)
}

fn millis(text: &str) -> Result<f64, String> {
    number(text, 0.1, 100.0)
}

fn wait(text: &str) -> Result<f64, String> {
    number(text, 0.0, 200.0)
}

fn cpus(text: &str) -> Result<f64, String> {
    number(text, 0.05, 1.0)
}

fn percent(text: &str) -> Result<f64, String> {
    number(text, 0.0, 100.0)
}

/// `PEER` or `PEER:WAY`.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    peer: String,
    /// `None` is whatever the peer has for it.
    limit: Option<Limit>,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let (peer, limit) = match text.split_once(':') {
            None => (text, None),
            Some((peer, "off")) => (peer, Some(Limit::Off)),
            Some((peer, "manager")) => (peer, Some(Limit::Manager)),
            Some((_, way)) => return Err(format!("`{way}` is neither off nor manager")),
        };
        Ok(Named {
            name: text.to_owned(),
            peer: peer.to_owned(),
            limit,
        })
    }
}

pub(super) fn execute(arguments: OverloadArguments) -> Result<ExitCode, Error> {
    if arguments.seconds <= Duration::from_nanos(2 * SETTLE.0) {
        let problem = "--seconds: a step lasts longer than four seconds, two of them for settling";
        return Err(Error::Usage(problem.to_owned()));
    }
    let work = Workplace::create()?;
    let contenders = contenders(&arguments, &work)?;
    let (machine, bench) = arguments.experiment.set_up(work)?;
    let plan = Plan {
        contenders: &contenders,
        steps: &arguments.steps,
        rounds: usize::from(arguments.rounds),
        needs: Needs {
            cpu_time: Duration::from_secs_f64(arguments.cpu_ms / 1e3),
            wait: Duration::from_secs_f64(arguments.wait_ms / 1e3),
            cpus: Some(arguments.cpus),
        },
        critical: arguments.critical / 100.0,
        healthy: arguments.healthy.into(),
        step: arguments.seconds.into(),
        seed: arguments.seed,
    };
    let date = date::now();
    let findings = overload::run(plan, &bench, |text| eprintln!("{text}"))?;
    let versions = contenders
        .iter()
        .map(|it| (it.name.clone(), it.version.clone()));
    let result = OverloadResult {
        date,
        command: command(std::env::args()),
        seed: arguments.seed,
        machine,
        versions: versions.collect(),
        cpu_time_ms: arguments.cpu_ms,
        wait_ms: arguments.wait_ms,
        cpus: arguments.cpus,
        confinement: findings.confinement,
        critical: plan.critical,
        capacity: findings.capacity,
        cells: findings.cells,
        prices: findings.prices,
    };
    println!("{result}");
    let out = arguments.experiment.out();
    result.write(out)?;
    eprintln!("the result is in {}", out.display());
    let empty = result.cells.iter().any(|cell| cell.outcomes.is_empty());
    Ok(ExitCode::from(u8::from(empty)))
}

fn contenders(arguments: &OverloadArguments, work: &Workplace) -> Result<Vec<Contender>, Error> {
    let experiment = &arguments.experiment;
    let known = experiment.peers()?;
    let contender = |named: &Named| {
        let limit = match named.limit {
            Some(limit) => limit,
            None if named.peer == DIRECT => Limit::Off,
            // Filled in with the application's process.
            None => Limit::Adaptive(0),
        };
        let needed = match limit {
            Limit::Off => Capability::Http,
            Limit::Adaptive(_) => Capability::Adaptive,
            Limit::Manager => Capability::Manager,
        };
        let found = experiment.candidate(&known, &named.peer, (needed, "do that"), work)?;
        Ok(Contender {
            name: named.name.clone(),
            peer: found.peer,
            program: found.program,
            version: found.version,
            limit,
        })
    };
    arguments.peers.iter().map(contender).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer's way is named after a colon; without one it is its own.
    #[test]
    fn ways_are_named() {
        for (text, peer, limit) in [
            ("tidegate", "tidegate", None),
            ("tidegate:off", "tidegate", Some(Limit::Off)),
            ("envoy:manager", "envoy", Some(Limit::Manager)),
        ] {
            let named = text.parse::<Named>();
            let found = named.as_ref().map(|it| (it.peer.as_str(), it.limit));
            assert_eq!(found, Ok((peer, limit)), "{text}");
        }
        assert!("envoy:tuned".parse::<Named>().is_err());
    }
}
