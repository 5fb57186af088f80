//! The two sides of a comparison: two peers, or two programs of one, of which either may still have to
//! be built from a commit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use crate::{
    error::Error,
    peer::{OURS, Peer},
};

/// What was typed for a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A peer, with its usual program.
    Peer(String),
    /// A program of a peer: `haproxy=/opt/haproxy/haproxy`, or a path alone for one of ours.
    Program {
        /// The peer.
        peer: String,
        /// The program.
        path: PathBuf,
    },
    /// A commit of this repository, built first: `@HEAD~1`.
    Commit(String),
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Side, String> {
        if let Some(revision) = text.strip_prefix('@') {
            return match revision.is_empty() || revision.starts_with('-') {
                true => Err("after @ comes a commit, as in @HEAD~1".to_owned()),
                false => Ok(Side::Commit(revision.to_owned())),
            };
        }
        let (peer, path) = match text.split_once('=') {
            Some((peer, path)) => (peer, path),
            None if text.contains('/') => (OURS, text),
            None => return Ok(Side::Peer(text.to_owned())),
        };
        if peer.is_empty() || path.is_empty() {
            return Err("it should look like haproxy=/usr/sbin/haproxy".to_owned());
        }
        Ok(Side::Program {
            peer: peer.to_owned(),
            path: PathBuf::from(path),
        })
    }
}

impl Side {
    /// The peer's name.
    pub fn peer(&self) -> &str {
        match self {
            Side::Peer(peer) | Side::Program { peer, .. } => peer,
            Side::Commit(_) => OURS,
        }
    }

    /// Its program, if it is not the peer's usual one. Builds a commit unless that was done before.
    pub fn program(&self, builds: &Path) -> Result<Option<PathBuf>, Error> {
        match self {
            Side::Peer(_) => Ok(None),
            Side::Program { path, .. } => Ok(Some(path.clone())),
            Side::Commit(revision) => build(revision, builds).map(Some),
        }
    }
}

/// Two peers under names that tell them apart.
pub fn name_apart(a: &mut Peer, b: &mut Peer) {
    if a.name == b.name {
        a.name += "-a";
        b.name += "-b";
    }
}

/// Builds our program of a commit, in a working tree of its own; the program is kept by commit.
fn build(revision: &str, builds: &Path) -> Result<PathBuf, Error> {
    let commit = output(Command::new("git").args([
        "rev-parse",
        "--verify",
        "--end-of-options",
        &format!("{revision}^{{commit}}"),
    ]))?;
    // Cargo runs in another directory than git.
    let builds = std::path::absolute(builds).map_err(Error::io("finding this directory"))?;
    let directory = builds.join(&commit);
    let program = directory.join(OURS);
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("building {OURS} of {commit}");
    let source = directory.join("source");
    fs::create_dir_all(&directory).map_err(Error::io("creating a directory for the build"))?;
    let add = ["worktree", "add", "--force", "--detach"];
    output(Command::new("git").args(add).arg(&source).arg(&commit))?;
    let built = output(
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--locked", "--bin", OURS])
            .arg("--target-dir")
            // One directory for all commits, so that a neighbour builds in a minute.
            .arg(builds.join("target"))
            .current_dir(&source),
    );
    let remove = ["worktree", "remove", "--force"];
    output(Command::new("git").args(remove).arg(&source))?;
    built?;
    let fresh = builds.join("target/release").join(OURS);
    fs::copy(&fresh, &program).map_err(Error::io(format!("copying {}", fresh.display())))?;
    Ok(program)
}

/// A program's output, trimmed; its failure is an error with what it said.
fn output(command: &mut Command) -> Result<String, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(Error::io(format!("starting {name}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Usage(format!("{name}: {said}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What a side may look like, and what it may not.
    #[test]
    fn sides_parse() {
        let program = |peer: &str, path: &str| Side::Program {
            peer: peer.to_owned(),
            path: PathBuf::from(path),
        };
        for (text, side) in [
            ("nginx", Side::Peer("nginx".to_owned())),
            (
                "target/release/tidegate",
                program("tidegate", "target/release/tidegate"),
            ),
            ("haproxy=/opt/haproxy", program("haproxy", "/opt/haproxy")),
            ("@HEAD~1", Side::Commit("HEAD~1".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(side), "{text}");
        }
        for text in ["@", "@--help", "=x", "x="] {
            assert!(text.parse::<Side>().is_err(), "{text}");
        }
    }

    /// The same peer twice gets two names, two peers keep theirs.
    #[test]
    fn names_are_told_apart() {
        let peers = Peer::all(None).unwrap();
        let named = |a: &str, b: &str| {
            let (mut a, mut b) = (peers.get(a).unwrap().clone(), peers.get(b).unwrap().clone());
            name_apart(&mut a, &mut b);
            (a.name, b.name)
        };
        assert_eq!(
            named("nginx", "nginx"),
            ("nginx-a".to_owned(), "nginx-b".to_owned())
        );
        assert_eq!(
            named("nginx", "envoy"),
            ("nginx".to_owned(), "envoy".to_owned())
        );
    }

    /// A commit that does not exist is an error that says so, and nothing is built.
    #[test]
    fn unknown_commits_are_errors() {
        let side = Side::Commit("no-such-commit-anywhere".to_owned());
        let error = side.program(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("git"), "{error}");
    }
}
