//! The old process's side of a hot upgrade: start the new one, hand over, wait until it is ready.
//!
//! Blocking, on a thread of its own. That thread is not pinned, so the new process finds the CPUs that this one was
//! started with, not a shard's.

use std::{
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use super::{
    Inheritance, Outcome, Program, VARIABLE,
    channel::{Channel, Fault},
    inheritance::SOCKETS_MAX,
    message::{Message, VERSION},
};

/// How long a process that has closed its end may take to end, so that its exit code can be told.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked for.
const END_POLL: Duration = Duration::from_millis(5);
/// How long the last word may take to be sent: it fits the socket's buffer.
const SERVE_PATIENCE: Duration = Duration::from_secs(1);

/// A new process. Ended when it is dropped, unless it was told to serve.
pub(crate) struct Successor {
    child: Option<Child>,
    channel: Channel,
    left: Vec<SocketAddr>,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotReady {
    /// What to count it as.
    pub(crate) outcome: Outcome,
    /// In words.
    pub(crate) why: String,
}

impl Successor {
    /// Starts `program`, tells `started` its process, hands `inheritance` over, and returns it once it could serve.
    ///
    /// # Errors
    ///
    /// Why it could not within `patience`. It is ended then.
    pub(crate) fn prepare(
        program: &Program,
        inheritance: &Inheritance,
        patience: Duration,
        started: impl FnOnce(u32),
    ) -> Result<Successor, NotReady> {
        let deadline = Instant::now() + patience;
        if inheritance.count() > SOCKETS_MAX {
            let why = format!("more than {SOCKETS_MAX} listening sockets cannot be handed over");
            return Err(failed(why));
        }
        let mut new = Successor::start(program).map_err(|error| {
            failed(format!(
                "cannot start `{}`: {error}",
                program.path.display()
            ))
        })?;
        started(new.pid());
        tracing::info!(
            "upgrade: pid {} started from `{}`",
            new.pid(),
            program.path.display()
        );
        match new.converse(inheritance, deadline) {
            Ok(()) => Ok(new),
            Err(fault) => Err(new.explain(fault, patience)),
        }
    }

    fn start(program: &Program) -> std::io::Result<Successor> {
        let (mut channel, theirs) = Channel::pair()?;
        let child = Command::new(&program.path)
            .arg0(&program.name)
            .args(&program.arguments)
            .env(VARIABLE, std::process::id().to_string())
            // It says which process is to give signs of life: this one. Without it, whoever has the others does.
            .env_remove("WATCHDOG_PID")
            .stdin(theirs)
            .spawn()?;
        channel.listen_to(child.id());
        Ok(Successor {
            child: Some(child),
            channel,
            left: Vec::new(),
        })
    }

    fn converse(&mut self, inheritance: &Inheritance, deadline: Instant) -> Result<(), Said> {
        match self.channel.receive(deadline)?.0 {
            Message::Hello { oldest, newest } if (oldest..=newest).contains(&VERSION) => {}
            Message::Hello { oldest, newest } => {
                return Err(Said::No(format!(
                    "it speaks versions {oldest} to {newest} of the handover, this process speaks {VERSION}: restart \
                     instead"
                )));
            }
            other => return Err(strange(other)),
        }
        for (message, sockets) in inheritance.messages() {
            let sockets: Vec<BorrowedFd<'_>> = sockets.into_iter().map(AsFd::as_fd).collect();
            self.channel.send(&message, &sockets, deadline)?;
        }
        match self.channel.receive(deadline)?.0 {
            Message::Ready { left } => {
                self.left = left;
                Ok(())
            }
            other => Err(strange(other)),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Addresses of the old process that it does not listen on.
    pub(crate) fn left(&self) -> &[SocketAddr] {
        &self.left
    }

    /// Tells it to serve; from then on it lives by itself. Gives its process.
    ///
    /// # Errors
    ///
    /// It is gone. Then it has not served anybody.
    pub(crate) fn serve(mut self) -> Result<u32, NotReady> {
        let deadline = Instant::now() + SERVE_PATIENCE;
        match self.channel.send(&Message::Serve, &[], deadline) {
            Ok(()) => {
                let pid = self.pid();
                self.child = None;
                Ok(pid)
            }
            // How it ended is not waited for: nobody accepts meanwhile.
            Err(fault) => Err(failed(format!("when it was to serve, {fault}"))),
        }
    }

    /// A fault in words, with what the process itself said, or how it ended.
    fn explain(&mut self, said: Said, patience: Duration) -> NotReady {
        match said {
            Said::No(why) => failed(why),
            Said::Nothing(Fault::TimedOut) => NotReady {
                outcome: Outcome::TimedOut,
                why: format!(
                    "the new process was not ready within {patience:?} (`upgrade_timeout`), and was ended"
                ),
            },
            Said::Nothing(Fault::Closed) => failed(match self.ended() {
                Some(status) => format!("the new process ended ({status}) before it was ready"),
                None => "the new process does not take over".into(),
            }),
            Said::Nothing(fault) => failed(fault.to_string()),
        }
    }

    /// How it ended, if it has, or does within [`END_PATIENCE`].
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + END_PATIENCE;
        loop {
            let status = self.child.as_mut()?.try_wait().ok()?;
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::park_timeout(END_POLL);
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let _ = child.kill();
        // The end of a process with rings takes its time. Whoever drops this does not wait for it.
        let _ = thread::Builder::new()
            .name("upgrade-end".into())
            .spawn(move || child.wait());
    }
}

/// Why a conversation came to no good end.
enum Said {
    /// The new process said no, or what it said is of no use.
    No(String),
    /// It said nothing that could be heard.
    Nothing(Fault),
}

impl From<Fault> for Said {
    fn from(fault: Fault) -> Self {
        Said::Nothing(fault)
    }
}

/// What `message` means where another was expected.
fn strange(message: Message) -> Said {
    match message {
        Message::Refused { why } => Said::No(why.into()),
        message => Said::No(format!("the new process is not understood: {message:?}")),
    }
}

fn failed(why: String) -> NotReady {
    NotReady {
        outcome: Outcome::Failed,
        why,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ffi::OsString;

    fn program(path: &str, arguments: &[&str]) -> Program {
        Program {
            path: path.into(),
            name: path.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
        }
    }

    /// Goal: a program that cannot take over is told by what it did, and leaves nothing behind. Method: one that is
    /// not there, one that ends, one that never says anything, and one whose child speaks in its place.
    #[test]
    fn programs_that_do_not_take_over() {
        let prepare = |program: &Program, patience| {
            let patience = Duration::from_millis(patience);
            Successor::prepare(program, &Inheritance::default(), patience, |_| {})
                .err()
                .unwrap()
        };
        let missing = prepare(&program("/nonexistent/tidegate", &[]), 10_000);
        assert_eq!(missing.outcome, Outcome::Failed);
        assert!(missing.why.contains("/nonexistent/tidegate"), "{missing:?}");
        let ended = prepare(&program("/bin/sh", &["-c", "exit 3"]), 10_000);
        assert_eq!(ended.outcome, Outcome::Failed);
        assert!(ended.why.contains("exit status: 3"), "{ended:?}");
        let silent = prepare(&program("/bin/sleep", &["1000"]), 50);
        assert_eq!(silent.outcome, Outcome::TimedOut);
        let stranger = prepare(
            &program("/bin/sh", &["-c", "(echo tidegate >&0); exit 0"]),
            10_000,
        );
        assert_eq!(stranger.outcome, Outcome::Failed);
        assert!(stranger.why.contains("is not the process"), "{stranger:?}");
    }
}
