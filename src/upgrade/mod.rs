//! Hot upgrade: a new process takes the place of this one, and no connection is refused, reset or left waiting.
//!
//! The old process starts the program anew, from the path it was started by, with the same arguments and environment,
//! and with one end of a private socket as standard input. Over it (`channel`, in the words of `message`):
//!
//! ```text
//! new → old   hello: the versions I speak
//! old → new   begin · every listening socket · admin · ticket keys · what was set by hand · ejections ·
//!             what the control plane brought · end
//!             the new process reads its configuration, binds what is missing, starts its shards
//! new → old   ready                                      or: refused, and why; or it ends; or it is too late
//!             the old process stops accepting; what waits in the kernel waits
//! old → new   serve
//!             the new process accepts; the old one finishes what it has, and ends
//! ```
//!
//! Until *serve* nothing has happened: whatever goes wrong, the new process is ended and the old one goes on. They
//! never accept side by side: the kernel wakes one of those that wait at a socket for a connection, and if that one
//! has stopped at that very moment, nobody is woken.
//!
//! In reading order: `message`, `inheritance` (what is handed over), `resources` (the part that is too large for a message), `channel` (the socket), `successor` (the old
//! process's side), `takeover` (the new one's). What the coordinator does is in `coordinator/upgrade.rs`.

mod channel;
mod inheritance;
mod message;
mod resources;
mod successor;
mod takeover;

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
};

pub(crate) use inheritance::Inheritance;
pub(crate) use message::Ejection;
pub(crate) use resources::{from_memory, in_memory};
pub(crate) use successor::{NotReady, Successor};
pub(crate) use takeover::Takeover;

/// Says to a process that its standard input is the end of such a socket: the number of the process that made it.
const VARIABLE: &str = "TIDEGATE_UPGRADE";

/// How an upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The new process serves.
    Completed,
    /// It was not begun.
    Refused,
    /// The new process could not serve.
    Failed,
    /// It was not ready in time.
    TimedOut,
}

impl Outcome {
    /// Every one, in the order of what is counted.
    pub(crate) const ALL: [Outcome; message::TOTALS] = [
        Outcome::Completed,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::TimedOut,
    ];

    /// The word in metrics and logs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
        }
    }
}

/// Where this process stands among those that took over from each other, for the admin server.
#[derive(Clone, Debug)]
pub(crate) struct Ancestry {
    /// The how-many-th it is.
    pub(crate) generation: u32,
    /// The process it took over from.
    pub(crate) started_by: Option<u32>,
    /// A process is being started that is to take over from this one.
    pub(crate) under_way: bool,
    /// Why the newest upgrade was not completed, if it was not.
    pub(crate) last_error: Option<String>,
}

impl Default for Ancestry {
    fn default() -> Self {
        Ancestry {
            generation: 1,
            started_by: None,
            under_way: false,
            last_error: None,
        }
    }
}

/// How to start this program again.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The file. Found again by the same path, whatever lies there by then.
    path: PathBuf,
    /// As what it was started.
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// This process's own. To be called at its start: later its file may have been replaced, and the kernel then
    /// knows it by no path.
    pub(crate) fn own() -> io::Result<Program> {
        let file = env::current_exe()?;
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let folders = env::var_os("PATH").unwrap_or_default();
        Ok(Program {
            path: path_of(Path::new(&name), &file, &folders)?,
            name,
            arguments: arguments.collect(),
        })
    }
}

/// The path that `file` was started by under this name. A link on it is kept, since an upgrade may be a link that
/// points elsewhere; a name that leads to another file says nothing, and the file itself is it.
fn path_of(name: &Path, file: &Path, folders: &OsString) -> io::Result<PathBuf> {
    let same = |path: &PathBuf| path.canonicalize().is_ok_and(|found| found == file);
    let by_name = match name.components().count() {
        1 => env::split_paths(folders)
            .map(|folder| folder.join(name))
            .find(same),
        _ => Some(name.to_owned()).filter(same),
    };
    std::path::absolute(by_name.as_deref().unwrap_or(file))
}

/// Where a process runs, as far as its end means the end of others.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pid: u32,
    /// What process 1 is called, if it is the one that started this one.
    init: Option<String>,
    /// This process is the main one of a systemd unit.
    is_main: bool,
    /// systemd can be told of another main process.
    is_notified: bool,
}

/// Small inits of containers, which end with the process that they have started.
const INITS_THAT_END: [&str; 4] = ["catatonit", "docker-init", "dumb-init", "tini"];

impl Surroundings {
    /// This process's own.
    pub(crate) fn own() -> Surroundings {
        let pid = std::process::id();
        let is_started_by_init = parent_id() == 1;
        let init = is_started_by_init.then(|| fs::read_to_string("/proc/1/comm").ok());
        Surroundings {
            pid,
            init: init.flatten().map(|name| name.trim_end().to_owned()),
            is_main: env::var("SYSTEMD_EXEC_PID").is_ok_and(|main| main == pid.to_string()),
            is_notified: env::var_os("NOTIFY_SOCKET").is_some(),
        }
    }

    /// Why a process there cannot be upgraded: the new one would be ended together with it.
    pub(crate) fn unfit(&self) -> Option<String> {
        if self.pid == 1 {
            let why =
                "this is process 1 of its container, which ends with it: replace the container";
            return Some(why.into());
        }
        if let Some(init) = &self.init
            && INITS_THAT_END.contains(&init.as_str())
        {
            return Some(format!(
                "`{init}` ends the container together with this process: replace the container"
            ));
        }
        if self.is_main && !self.is_notified {
            let why = "systemd would end the new process together with this one: use `Type=notify` in the unit";
            return Some(why.into());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    /// Goal: a program is found again where it was started, also through a link. Method: a file, a link to it by path
    /// and by name, and names that lead elsewhere or nowhere.
    #[test]
    fn programs_are_found_again() {
        let folder = env::temp_dir().join(format!("tidegate-program-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let (file, link, other) = (
            folder.join("v1"),
            folder.join("current"),
            folder.join("other"),
        );
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        symlink(&file, &link).unwrap();
        let folders = folder.clone().into_os_string();
        let found = |name: &Path| path_of(name, &file, &folders).unwrap();
        assert_eq!(found(&link), link);
        assert_eq!(found(Path::new("current")), link);
        assert_eq!(found(&file), file);
        for strange in [
            &*other,
            Path::new("other"),
            Path::new("none"),
            Path::new(""),
        ] {
            assert_eq!(found(strange), file, "{strange:?}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    /// Goal: an upgrade that would end in an outage is refused. Method: table of surroundings.
    #[test]
    fn places_that_cannot_be_upgraded() {
        let place = |pid, init: Option<&str>, is_main, is_notified| {
            let surroundings = Surroundings {
                pid,
                init: init.map(str::to_owned),
                is_main,
                is_notified,
            };
            surroundings.unfit().unwrap_or_default()
        };
        assert!(place(1, None, false, false).contains("process 1"));
        assert!(place(7, Some("tini"), false, false).contains("`tini` ends"));
        assert!(place(7, Some("systemd"), true, false).contains("Type=notify"));
        for well in [
            place(7, Some("systemd"), true, true),
            place(7, Some("systemd"), false, true),
            place(7, None, false, false),
        ] {
            assert_eq!(well, "");
        }
    }
}
