//! `tidegate-lab peers`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    error::Error,
    peer::{Capability, Peer, process::Workplace},
};

const EXAMPLES: &str = "\
Examples:
  tidegate-lab peers
  tidegate-lab peers --peers-dir my-proxies             with further plug-ins";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PeersArguments {
    /// A directory with further peers, one directory each.
    #[arg(long)]
    peers_dir: Option<PathBuf>,
}

pub(super) fn execute(arguments: PeersArguments) -> Result<ExitCode, Error> {
    let work = Workplace::create()?;
    for peer in Peer::all(arguments.peers_dir.as_deref())?.into_values() {
        println!("{:<10}{}", peer.name, peer.manifest.about);
        if peer.is_direct() {
            continue;
        }
        let search = peer.search_directories(&work.lab_dir)?;
        match peer.program(None, &search) {
            Ok(program) => {
                println!("{:<10}{}", "", program.display());
                println!("{:<10}{}", "", peer.version(&program));
            }
            Err(error) => println!("{:<10}{error}", ""),
        }
        for capability in [Capability::Http, Capability::Tcp, Capability::Routes] {
            if let Some(problem) = peer.lacks(capability) {
                let name = format!("{capability:?}").to_lowercase();
                println!("{:<10}cannot do {name}: {problem}", "");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
