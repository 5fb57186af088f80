//! What the experiments beside the rows, `faults` and `overload`, take and do alike: where, with whom, and whither.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{
    program,
    run::{candidate, make_ready},
};
use crate::{
    error::Error,
    load::arrivals::Spacing,
    machine::Machine,
    measure::Bench,
    peer::{Capability, Peer, process::Workplace},
    run::{Candidate, Interrupt},
};

#[derive(Debug, Args)]
pub(super) struct ExperimentArguments {
    /// A peer's program, where it is not on PATH. May be repeated.
    #[arg(long, value_name = "NAME=PATH", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    /// A directory with further peers, one directory each.
    #[arg(long)]
    peers_dir: Option<PathBuf>,
    /// CPU of the proxies; the first that this process may use, if not given.
    #[arg(long)]
    proxy_cpu: Option<usize>,
    /// CPU of everything else; the second, if not given.
    #[arg(long)]
    load_cpu: Option<usize>,
    /// The directory for the result, as JSON and Markdown.
    #[arg(long, default_value = "lab-report")]
    out: PathBuf,
}

impl ExperimentArguments {
    /// Makes the machine ready.
    pub(super) fn set_up(&self, work: Workplace) -> Result<(Machine, Bench), Error> {
        let machine = make_ready(self.proxy_cpu, self.load_cpu)?;
        let bench = Bench {
            placement: machine.placement,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            spacing: Spacing::Poisson,
            work,
            descriptors: machine.descriptors,
            interrupt: Interrupt::listen()?,
        };
        Ok((machine, bench))
    }

    /// The peers that there are.
    pub(super) fn peers(&self) -> Result<BTreeMap<String, Peer>, Error> {
        Peer::all(self.peers_dir.as_deref())
    }

    /// One of them with its program, if it can do what is needed of it, which is `task` in words.
    pub(super) fn candidate(
        &self,
        known: &BTreeMap<String, Peer>,
        name: &str,
        (needed, task): (Capability, &str),
        work: &Workplace,
    ) -> Result<Candidate, Error> {
        let usage = |problem: String| Error::Usage(format!("`{name}`: {problem}"));
        let peer = Peer::named(known, name)?.clone();
        if let Some(reason) = peer.lacks(needed) {
            return Err(usage(format!("cannot {task}: {reason}")));
        }
        let told = self.program.iter().find(|(peer, _)| peer == name);
        candidate(peer, told.map(|(_, path)| path), work)
    }

    /// The directory for the result.
    pub(super) fn out(&self) -> &Path {
        &self.out
    }
}
