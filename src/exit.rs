//! How the process ends: the exit codes of the interface, and the failure that carries one.

use std::{fmt, io, process};

/// The exit codes that operators and scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something failed while running.
    Runtime = 1,
    /// The command line makes no sense. The argument parser uses the same code.
    Usage = 2,
    /// The configuration is invalid or missing.
    Config = 3,
    /// The host refuses what is needed: io_uring, memory to lock, a port, a permission.
    HostUnfit = 4,
    /// A check ran and says no.
    CheckFailed = 5,
    /// A fault of our own.
    Bug = 70,
}

/// Why a verb did not succeed: what happened, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened; empty if it has been printed already.
    pub(crate) problem: String,
    /// What to do about it; may be empty.
    pub(crate) remedy: String,
}

impl Failure {
    /// A failure with a remedy.
    pub(crate) fn new(exit: Exit, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Failure {
            exit,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// A failure whose report is already on the terminal.
    pub(crate) fn reported(exit: Exit) -> Self {
        Failure::new(exit, "", "")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  help: {}", self.remedy)?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::new(Exit::Runtime, error.to_string(), "")
    }
}

/// Makes every panic, on whatever thread, end the process with [`Exit::Bug`]: a data plane that lost a
/// shard must not look alive.
pub(crate) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        eprintln!(
            "tidegate: this is a bug, please report it: {info}\n  thread: {}, version: {}",
            thread.name().unwrap_or("unnamed"),
            env!("CARGO_PKG_VERSION"),
        );
        // There is no `main` to return to from a panic on another thread.
        #[allow(clippy::disallowed_methods)]
        process::exit(Exit::Bug as i32);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a failure reads as problem, then remedy. Method: both forms.
    #[test]
    fn failures_read_well() {
        let with = Failure::new(
            Exit::HostUnfit,
            "port 80 is in use",
            "stop the other process",
        );
        assert_eq!(
            with.to_string(),
            "port 80 is in use\n  help: stop the other process"
        );
        assert_eq!(Failure::new(Exit::Runtime, "x", "").to_string(), "x");
    }
}
