//! `tidegate-lab faults`.

use std::{
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use super::{
    experiment::ExperimentArguments,
    run::{command, minutes},
    seconds,
};
use crate::{
    date,
    error::Error,
    faults::{self, Contender, Plan, Row, endpoints::Fault, report::FaultResult},
    peer::{Capability, process::Workplace, render::Heal},
};

const EXAMPLES: &str = "\
One of several endpoints falls sick under load: it refuses or resets connections, hangs, fails three of
ten requests, or takes ten times as long. Told are the time to the last request that reached it, what was
lost, and whether healthy ones were taken out; trials after it was left alone are counted apart.

A peer finds sick endpoints in one of three ways: from the traffic with its defaults (`envoy`), from the
traffic as soon as its settings allow (`envoy:tuned`), or by a check every second alone (`envoy:probes`).

Examples:
  tidegate-lab faults                                           every kind, 50 faults each (hours)
  tidegate-lab faults --side-by-side 8                          the same, eight faults at the same time
  tidegate-lab faults --faults 5 --kinds hang --peers tidegate,haproxy:probes
  tidegate-lab faults --rates 10,1000 --endpoints 10 --faults 10";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct FaultsArguments {
    /// Peers, each with its way to find sick endpoints.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "tidegate,envoy,envoy:tuned"
    )]
    peers: Vec<Named>,
    /// What befalls an endpoint; everything if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    kinds: Vec<Fault>,
    /// How many endpoints there are.
    #[arg(long, value_delimiter = ',', default_value = "2,10", value_parser = clap::value_parser!(u8).range(2..=64))]
    endpoints: Vec<u8>,
    /// Requests per second and endpoint.
    #[arg(long, value_delimiter = ',', default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rates: Vec<u32>,
    /// Faults of each kind for each peer.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    faults: u16,
    /// Faults at the same time, each with a proxy of its own; all proxies share a core.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    side_by_side: u8,
    /// How long a fault lasts if nobody finds it.
    #[arg(long, default_value = "10", value_parser = seconds)]
    bound: Duration,
    /// How long the return is waited for after the fault.
    #[arg(long, default_value = "3", value_parser = seconds)]
    recovery: Duration,
    /// Everything random follows from it; from the clock, and told, if not given.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    experiment: ExperimentArguments,
}

/// `PEER` or `PEER:WAY`.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    peer: String,
    heal: Heal,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let (peer, way) = text.split_once(':').unwrap_or((text, "default"));
        let heal = match way {
            "default" => Heal::Default,
            "tuned" => Heal::Tuned,
            "probes" => Heal::Probes,
            _ => return Err(format!("`{way}` is none of default, tuned and probes")),
        };
        Ok(Named {
            name: text.to_owned(),
            peer: peer.to_owned(),
            heal,
        })
    }
}

pub(super) fn execute(arguments: FaultsArguments) -> Result<ExitCode, Error> {
    let work = Workplace::create()?;
    let contenders = contenders(&arguments, &work)?;
    let rows = rows(&arguments);
    let (machine, bench) = arguments.experiment.set_up(work)?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let plan = Plan {
        rows: &rows,
        contenders: &contenders,
        faults: usize::from(arguments.faults),
        side_by_side: usize::from(arguments.side_by_side),
        bound: arguments.bound.into(),
        recovery: arguments.recovery.into(),
        seed,
    };
    eprintln!("seed {seed}");
    let (date, begun) = (date::now(), Instant::now());
    let cells = faults::run(plan, &bench, |done, all| tell(done, all, begun))?;
    let result = FaultResult {
        date,
        command: command(std::env::args()),
        seed,
        machine,
        versions: contenders
            .iter()
            .map(|contender| (contender.name.clone(), contender.version.clone()))
            .collect(),
        side_by_side: plan.side_by_side,
        bound_s: arguments.bound.as_secs_f64(),
        recovery_s: arguments.recovery.as_secs_f64(),
        cells,
    };
    println!("{result}");
    let out = arguments.experiment.out();
    result.write(out)?;
    eprintln!("the result is in {}", out.display());
    let empty = result.cells.iter().any(|cell| cell.outcomes.is_empty());
    Ok(ExitCode::from(u8::from(empty)))
}

fn contenders(arguments: &FaultsArguments, work: &Workplace) -> Result<Vec<Contender>, Error> {
    let experiment = &arguments.experiment;
    let known = experiment.peers()?;
    let contender = |named: &Named| {
        let needed = (Capability::Heal, "take endpoints out");
        let found = experiment.candidate(&known, &named.peer, needed, work)?;
        let none = || Error::Usage(format!("`{}`: it has no program", named.peer));
        let program = found.program.ok_or_else(none)?;
        Ok(Contender {
            name: named.name.clone(),
            peer: found.peer,
            program,
            version: found.version,
            heal: named.heal,
        })
    };
    arguments.peers.iter().map(contender).collect()
}

fn rows(arguments: &FaultsArguments) -> Vec<Row> {
    let kinds = match arguments.kinds.is_empty() {
        true => Fault::value_variants(),
        false => &arguments.kinds,
    };
    let mut rows = Vec::new();
    for &rate in &arguments.rates {
        for &endpoints in &arguments.endpoints {
            rows.extend(kinds.iter().map(|&fault| Row {
                fault,
                endpoints: usize::from(endpoints),
                rate,
            }));
        }
    }
    rows
}

/// Tells a person how far the run is, about a hundred times.
fn tell(done: usize, all: usize, begun: Instant) {
    if done.is_multiple_of(all.div_ceil(100)) {
        let left = begun.elapsed().as_secs_f64() / done as f64 * (all - done) as f64;
        eprintln!("[{done}/{all}, {} left]", minutes(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer's way is named after a colon, and is one of three.
    #[test]
    fn ways_are_named() {
        for (text, peer, heal) in [
            ("tidegate", "tidegate", Heal::Default),
            ("envoy:tuned", "envoy", Heal::Tuned),
            ("haproxy:probes", "haproxy", Heal::Probes),
        ] {
            let named = text.parse::<Named>();
            let found = named.as_ref().map(|it| (it.peer.as_str(), it.heal));
            assert_eq!(found, Ok((peer, heal)), "{text}");
        }
        assert!("envoy:off".parse::<Named>().is_err());
    }
}
