//! A load, whichever way its connections work: one exchange after the other (`Serial`) or several at
//! once (`Multiplexed`). Driven by the loop of [`crate::worker`].

use std::sync::Arc;

use super::{LoadSpec, multiplexed::Multiplexed, serial::Serial, tally::Tally};
use crate::{
    clock::{Clock, Nanos},
    control::Control,
    error::Error,
    poll::{Poller, Token},
    scenario::HttpVersion,
};

pub use super::tally::LoadOutcome;

/// Connections being opened at once, below every peer's accept backlog.
pub(super) const OPENING_MAX: usize = 64;
/// Bytes read at once: large enough that a big body costs few calls, small enough for the cache.
pub(super) const READ_BYTES: usize = 128 << 10;

/// Generates one load.
pub enum Generator {
    /// One exchange at a time on each connection.
    Serial(Box<Serial>),
    /// Several, by HTTP/2.
    Multiplexed(Box<Multiplexed>),
}

impl Generator {
    /// A generator that has not connected yet.
    pub fn new(spec: LoadSpec, control: Arc<Control>, clock: Clock) -> Result<Generator, Error> {
        let tally = Tally::new(&spec, control, clock)?;
        Ok(match spec.http {
            HttpVersion::Http1 => Generator::Serial(Box::new(Serial::new(spec, tally))),
            HttpVersion::Http2 => Generator::Multiplexed(Box::new(Multiplexed::new(spec, tally)?)),
        })
    }

    /// The same as a neighbour of the measured load.
    pub fn beside(mut self) -> Generator {
        match &mut self {
            Generator::Serial(serial) => serial.token = Token::Neighbour,
            Generator::Multiplexed(multiplexed) => multiplexed.token = Token::Neighbour,
        }
        self
    }

    /// Whether the loop must not sleep, because a request may fall due at any microsecond.
    pub fn must_be_punctual(&self) -> bool {
        let tally = match self {
            Generator::Serial(serial) => &serial.tally,
            Generator::Multiplexed(multiplexed) => &multiplexed.tally,
        };
        tally.schedule.is_some()
    }

    /// Follows the phase and does what is due; called once per turn of the loop.
    pub fn turn(&mut self, poller: &Poller, now: Nanos) {
        match self {
            Generator::Serial(serial) => serial.turn(poller, now),
            Generator::Multiplexed(multiplexed) => multiplexed.turn(poller, now),
        }
    }

    /// Sends what is due, as far as connections or streams are free; whatever is not waits in the schedule.
    pub fn send_due(&mut self, poller: &Poller, now: Nanos) {
        match self {
            Generator::Serial(serial) => serial.send_due(poller, now),
            Generator::Multiplexed(multiplexed) => multiplexed.send_due(now),
        }
    }

    /// Moves a connection on after an event.
    pub fn on_event(&mut self, index: usize, poller: &Poller) {
        match self {
            Generator::Serial(serial) => serial.on_event(index, poller),
            Generator::Multiplexed(multiplexed) => multiplexed.on_event(index),
        }
    }

    /// Sums up after the last turn.
    pub fn outcome(self) -> LoadOutcome {
        match self {
            Generator::Serial(serial) => serial.outcome(),
            Generator::Multiplexed(multiplexed) => multiplexed.outcome(),
        }
    }
}
