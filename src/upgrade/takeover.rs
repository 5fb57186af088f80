//! The new process's side of a hot upgrade: say hello, take what the old one leaves, and serve when it says so.

use std::{
    env,
    fs::File,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::unistd::dup2_stdin;

use super::{
    Inheritance, VARIABLE,
    channel::{Channel, Fault},
    inheritance::Intake,
    message::{Message, VERSION},
};
use crate::exit::{Exit, Failure};

/// How long the old process may take to hand over. It has nothing else to do.
const INTAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to stop accepting, once this process is ready.
const SERVE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a word of ours may take to be sent: it fits the socket's buffer.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

/// The line to the process that is replaced.
pub(crate) struct Takeover {
    channel: Channel,
    predecessor: u32,
}

impl Takeover {
    /// Takes over from the process that started this one for it; `None` in any other process.
    ///
    /// # Errors
    ///
    /// The other process is gone, or cannot be understood.
    pub(crate) fn begin() -> Result<Option<(Takeover, Inheritance)>, Failure> {
        let Some(takeover) = Takeover::find()? else {
            return Ok(None);
        };
        let hello = Message::Hello {
            oldest: VERSION,
            newest: VERSION,
        };
        let inheritance = takeover
            .send(&hello)
            .and_then(|()| takeover.receive())
            .map_err(failure)?;
        Ok(Some((takeover, inheritance)))
    }

    /// The line, if there is one. It is this process's alone then: standard input is nothing from now on, so that no
    /// process that this one starts has it, or takes itself for the next of its line.
    fn find() -> io::Result<Option<Takeover>> {
        let Some(predecessor) = env::var(VARIABLE).ok().and_then(|pid| pid.parse().ok()) else {
            return Ok(None);
        };
        let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
        // What starts this process by another way may have the variable, but not the socket.
        if channel.maker().ok() != Some(predecessor) {
            return Ok(None);
        }
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(Some(Takeover {
            channel,
            predecessor,
        }))
    }

    /// The process that is replaced.
    pub(crate) fn predecessor(&self) -> u32 {
        self.predecessor
    }

    /// Says why this process cannot serve. That nobody listens changes nothing.
    pub(crate) fn refuse(&self, why: &str) {
        if why.is_empty() {
            return;
        }
        let _ = self.send(&Message::Refused { why: why.into() });
    }

    /// Says that this process could serve, everywhere but at `left`, and returns when it is to.
    ///
    /// # Errors
    ///
    /// The old process goes on, or is gone.
    pub(crate) fn ready(&self, left: Vec<SocketAddr>) -> Result<(), Failure> {
        let deadline = Instant::now() + SERVE_PATIENCE;
        self.send(&Message::Ready { left })
            .and_then(|()| self.channel.receive(deadline))
            .and_then(|(message, _)| match message {
                Message::Serve => Ok(()),
                _ => Err(OUT_OF_PLACE.into()),
            })
            .map_err(failure)
    }

    fn send(&self, message: &Message) -> Result<(), Fault> {
        let deadline = Instant::now() + SEND_PATIENCE;
        self.channel.send(message, &[], deadline)
    }

    fn receive(&self) -> Result<Inheritance, Fault> {
        let deadline = Instant::now() + INTAKE_PATIENCE;
        let mut intake = Intake::<OwnedFd>::new();
        loop {
            let (message, descriptors) = self.channel.receive(deadline)?;
            if let Some(inheritance) = intake.take(message, descriptors)? {
                return Ok(inheritance);
            }
        }
    }
}

const OUT_OF_PLACE: super::message::Malformed =
    super::message::Malformed("a message that has no place here");

fn failure(fault: Fault) -> Failure {
    Failure::new(
        Exit::Runtime,
        format!("hot upgrade: {fault}"),
        "the process before goes on, if it is there; its log says more",
    )
}
