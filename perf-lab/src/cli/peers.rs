//! `tidegate-lab peers`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use crate::{
    error::Error,
    peer::{Capability, Peer, install},
};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab peers
  tidegate-lab peers --peers-dir my-proxies             with further plug-ins
  tidegate-lab peers install haproxy28 caddy            by name, with apt, pip or cargo";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PeersArguments {
    #[command(subcommand)]
    verb: Option<PeersVerb>,
    /// A directory with further peers, one directory each.
    #[arg(long, global = true)]
    peers_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum PeersVerb {
    /// Lists the peers, their versions and what they cannot do.
    List,
    /// Installs peers by name: system packages with apt, others beside the build's own files.
    Install {
        /// Which.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(super) fn execute(arguments: PeersArguments) -> Result<ExitCode, Error> {
    let peers = Peer::all(arguments.peers_dir.as_deref())?;
    match arguments.verb {
        None | Some(PeersVerb::List) => list(peers)?,
        Some(PeersVerb::Install { names }) => install(&peers, &names)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs those that are not there yet. Shared with `run --install`.
pub(super) fn install(peers: &BTreeMap<String, Peer>, names: &[String]) -> Result<(), Error> {
    let lab_dir = install::lab_dir()?;
    // A misspelt name should not be found out after minutes of installing others.
    let mut chosen = Vec::new();
    for name in names {
        chosen.push(Peer::named(peers, name)?);
    }
    for peer in chosen {
        if peer.is_direct() {
            continue;
        }
        let search = peer.search_directories(&lab_dir)?;
        if peer.program(None, &search).is_err() {
            peer.install(&lab_dir)?;
        }
        let program = peer.program(None, &search)?;
        eprintln!("{}: {}", peer.name, peer.version(&program));
    }
    Ok(())
}

fn list(peers: BTreeMap<String, Peer>) -> Result<(), Error> {
    let lab_dir = install::lab_dir()?;
    for peer in peers.into_values() {
        println!("{:<10}{}", peer.name, peer.manifest.about);
        if !peer.is_direct() {
            let search = peer.search_directories(&lab_dir)?;
            match peer.program(None, &search) {
                Ok(program) => {
                    println!("{:<10}{}", "", program.display());
                    println!("{:<10}{}", "", peer.version(&program));
                }
                Err(error) => println!("{:<10}{error}", ""),
            }
        }
        let (mut can, mut cannot) = (Vec::new(), Vec::new());
        for capability in Capability::ALL {
            match peer.lacks(capability) {
                None => can.push(capability.to_string()),
                Some(_) if !peer.manifest.capabilities.contains(&capability) => {}
                Some(problem) => cannot.push(format!("{capability}: {problem}")),
            }
        }
        println!("{:<10}can do {}", "", can.join(", "));
        for problem in cannot {
            println!("{:<10}cannot do {problem}", "");
        }
    }
    Ok(())
}
