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
    pub fn program(&self, builds: &Builds<'_>) -> Result<Option<PathBuf>, Error> {
        match self {
            Side::Peer(_) => Ok(None),
            Side::Program { path, .. } => Ok(Some(path.clone())),
            Side::Commit(revision) => builds.build(revision).map(Some),
        }
    }
}

/// Where commits are built.
#[derive(Clone, Copy, Debug)]
pub struct Builds<'a> {
    /// A directory of the repository.
    pub repository: &'a Path,
    /// Keeps what was built, by commit.
    pub kept: &'a Path,
    /// For working trees; whoever owns it removes it, however the build ends.
    pub scratch: &'a Path,
}

impl Builds<'_> {
    /// Builds our program of a commit, in a working tree of its own.
    fn build(&self, revision: &str) -> Result<PathBuf, Error> {
        let wanted = format!("{revision}^{{commit}}");
        let verify = ["rev-parse", "--verify", "--end-of-options", &wanted];
        let commit = output(self.git().args(verify))?;
        // Cargo runs in another directory than git.
        let kept = std::path::absolute(self.kept).map_err(Error::io("finding this directory"))?;
        let program = kept.join(&commit).join(OURS);
        if program.is_file() {
            return Ok(program);
        }
        eprintln!("building {OURS} of {commit}");
        let source = self.scratch.join(format!("source-{commit}"));
        output(
            self.git()
                .args(["worktree", "add", "--detach"])
                .arg(&source)
                .arg(&commit),
        )?;
        let built = output(
            Command::new("cargo")
                .args(["build", "--quiet", "--release", "--locked", "--bin", OURS])
                .arg("--target-dir")
                // One directory for all commits, so that a neighbour builds in a minute.
                .arg(kept.join("target"))
                .current_dir(&source),
        );
        output(
            self.git()
                .args(["worktree", "remove", "--force"])
                .arg(&source),
        )?;
        built?;
        // Under its name only when it is whole: a copy that was interrupted is made again.
        let (fresh, partial) = (
            kept.join("target/release").join(OURS),
            program.with_extension("partial"),
        );
        fs::create_dir_all(kept.join(&commit))
            .and_then(|()| fs::copy(&fresh, &partial))
            .and_then(|_| fs::rename(&partial, &program))
            .map_err(Error::io(format!("copying {}", fresh.display())))?;
        Ok(program)
    }

    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.repository);
        git
    }
}

/// Two peers under names that tell them apart.
pub fn name_apart(a: &mut Peer, b: &mut Peer) {
    if a.name == b.name {
        a.name += "-a";
        b.name += "-b";
    }
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
    use crate::peer::process::Workplace;

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
        let nowhere = Path::new("/nonexistent");
        let builds = Builds {
            repository: Path::new("."),
            kept: nowhere,
            scratch: nowhere,
        };
        let side = Side::Commit("no-such-commit-anywhere".to_owned());
        let error = side.program(&builds).unwrap_err();
        assert!(error.to_string().contains("git"), "{error}");
    }

    /// A commit is built as it was, whatever the working tree holds now, and built once; a commit that
    /// does not build is an error with the compiler's words. No working tree is left behind. The
    /// repository is a made-up one, of a program that prints its version.
    #[test]
    fn commits_are_built() {
        let work = Workplace::create().unwrap();
        let repository = work.dir.join("repository");
        fs::create_dir_all(repository.join("src")).unwrap();
        let builds = Builds {
            repository: &repository,
            kept: &work.dir.join("kept"),
            scratch: &work.dir,
        };
        let git = |words: &[&str]| {
            let identity = ["-c", "user.name=lab", "-c", "user.email=lab@lab.example"];
            output(builds.git().args(identity).args(words)).unwrap()
        };
        git(&["init", "--quiet"]);
        let write = |name: &str, text: &str| fs::write(repository.join(name), text).unwrap();
        let package = "[package]\nname = \"tidegate\"\nversion = \"0.0.0\"\n[workspace]\n";
        write("Cargo.toml", package);
        write(
            "Cargo.lock",
            "version = 4\n\n[[package]]\nname = \"tidegate\"\nversion = \"0.0.0\"\n",
        );
        for text in ["first", "second", "{broken"] {
            write(
                "src/main.rs",
                &format!("fn main() {{ println!(\"{text}\") }}"),
            );
            git(&["add", "."]);
            git(&["commit", "--quiet", "-m", text]);
        }
        let program = |revision: &str| Side::Commit(revision.to_owned()).program(&builds);
        for (revision, said) in [
            ("HEAD~2", "first"),
            ("HEAD~1", "second"),
            ("HEAD~2", "first"),
        ] {
            let program = program(revision).unwrap().unwrap();
            assert_eq!(output(&mut Command::new(program)).unwrap(), said);
        }
        let error = program("HEAD").unwrap_err().to_string();
        assert!(
            error.contains("cargo") && error.contains("broken"),
            "{error}"
        );
        assert_eq!(git(&["worktree", "list"]).lines().count(), 1);
    }
}
