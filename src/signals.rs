//! The signals that the process answers, as words.

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// TERM: drain and end.
    Terminate,
    /// INT: the same; a second one ends now.
    Interrupt,
    /// HUP: read the configuration again.
    Reload,
    /// USR1: open log files again.
    Reopen,
    /// QUIT: write the state into the log.
    Dump,
    /// USR2: a hot upgrade.
    Upgrade,
}

/// Receives them.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    reopen: Signal,
    quit: Signal,
    upgrade: Signal,
}

impl Signals {
    /// From now on these signals arrive here. To be called on a runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            quit: signal(SignalKind::quit())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.reopen.recv() => Asked::Reopen,
            _ = self.quit.recv() => Asked::Dump,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }
}

/// Runs `start` with these signals blocked, so that the threads it starts inherit that and signals
/// arrive on this thread only: a shard's wait in the kernel is not interrupted.
pub(crate) fn blocked<T>(start: impl FnOnce() -> T) -> T {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let signals = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGQUIT, SIGUSR2]
        .into_iter()
        .collect::<SigSet>();
    let blocked = signals.thread_block().is_ok();
    let started = start();
    if blocked && let Err(e) = signals.thread_unblock() {
        tracing::error!("signals stay blocked: {e}");
    }
    started
}
