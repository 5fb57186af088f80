//! How a link is replaced, whatever the reason: `Warming → Selectable → Draining → Closed` (E12).
//!
//! One link is a [`Link`], and [`step`] is all that ever happens to it. It knows no clock, no socket and no
//! other link: whoever holds them says what happened, and does what the answer says. How many links to warm
//! and to drain, and when, is [`super::replacement`]'s.
//!
//! What must hold, and does in every order of events (see the tests):
//!
//! * A link closes only when no request is on it and none can come, unless the peer closes it or its drain
//!   takes longer than it may, which is told apart ([`Closing::Forced`]).
//! * A request is on one link from its selection to its answer; only a selectable link is selected.
//! * A link that fails to warm up changes nothing for the others.
//!
//! An ejected endpoint and a split that no longer leads to an endpoint are removals to this machine, and a
//! process that is replaced is one that drains.

/// A connection to an endpoint, as far as replacing it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Where it stands.
    pub state: State,
    /// Requests that were selected onto it and are not answered: at most 1 for HTTP/1.1.
    pub in_flight: u32,
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is being connected or shakes hands; nobody waits for it.
    Warming,
    /// Requests may be put on it.
    Selectable,
    /// What is on it is finished, nothing is added.
    Draining,
    /// It is gone.
    Closed(Closing),
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closing {
    /// By us, with nothing on it.
    Quiet,
    /// By us, since its drain took longer than `drain_timeout`; what was on it is cut.
    Forced,
    /// By the peer, or the connection broke.
    Peer,
    /// It never became a link: the handshake failed.
    Failed,
}

/// What happens to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The handshake succeeded.
    Warmed,
    /// The link was made, but the handshake failed, or took too long.
    WarmUpFailed,
    /// A request is to go over it.
    Selected,
    /// A request on it was answered to its end.
    Answered,
    /// It is time for a heart-beat.
    HeartBeat,
    /// It is to be replaced, or is not needed any more.
    Retire,
    /// Its drain has taken `drain_timeout`.
    DrainTimedOut,
    /// The peer closed it, or it broke.
    PeerClosed,
}

/// What is to be done after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Offer it to requests, before those that it replaces; one of these is to retire.
    Offer,
    /// The old link stays; try again after a pause.
    WarmAgain,
    /// Send a heart-beat.
    Beat,
    /// Take it out of what is offered, and let `drain_timeout` begin. HTTP/1.1 tells the peer nothing: a
    /// client just closes.
    Drain,
    /// Choose another link: this one takes no request.
    Decline,
    /// Close it.
    Close,
}

/// What became of the link, and what is to be done, at most one thing.
#[must_use]
pub const fn step(link: Link, event: Event) -> (Link, Option<Action>) {
    match (link.state, event) {
        (State::Warming, Event::Warmed) => (link.now(State::Selectable), Some(Action::Offer)),
        (State::Warming, Event::WarmUpFailed | Event::PeerClosed) => {
            (link.closed(Closing::Failed), Some(Action::WarmAgain))
        }
        (State::Warming, Event::Retire) => (link.closed(Closing::Quiet), Some(Action::Close)),

        (State::Selectable, Event::Selected) => (link.with(link.in_flight.saturating_add(1)), None),
        (State::Selectable, Event::Answered) => (link.with(link.in_flight.saturating_sub(1)), None),
        (State::Selectable, Event::Retire) if link.in_flight == 0 => {
            (link.closed(Closing::Quiet), Some(Action::Close))
        }
        (State::Selectable, Event::Retire) => (link.now(State::Draining), Some(Action::Drain)),

        (State::Draining, Event::Answered) if link.in_flight <= 1 => {
            (link.with(0).closed(Closing::Quiet), Some(Action::Close))
        }
        (State::Draining, Event::Answered) => (link.with(link.in_flight - 1), None),
        (State::Draining, Event::DrainTimedOut) => {
            (link.closed(Closing::Forced), Some(Action::Close))
        }

        // A drain that stops beating would be taken for dead by the peer, with requests on it.
        (State::Selectable | State::Draining, Event::HeartBeat) => (link, Some(Action::Beat)),
        (State::Selectable | State::Draining, Event::PeerClosed) => {
            (link.closed(Closing::Peer), Some(Action::Close))
        }
        (_, Event::Selected) => (link, Some(Action::Decline)),
        // Late news: of a handshake that ended, a time-out that was overtaken, a link that is gone.
        _ => (link, None),
    }
}

impl Link {
    /// A link that is being made beside others, in the background.
    pub const WARMING: Link = Link {
        state: State::Warming,
        in_flight: 0,
    };

    /// A link that was made for a request at hand: it needs no warm-up, as somebody waits for it anyway.
    pub const MADE: Link = Link {
        state: State::Selectable,
        in_flight: 0,
    };

    /// Whether a request may be put on it.
    pub const fn is_selectable(self) -> bool {
        matches!(self.state, State::Selectable)
    }

    /// Whether it finishes what is on it.
    pub const fn is_draining(self) -> bool {
        matches!(self.state, State::Draining)
    }

    /// Whether it is gone.
    pub const fn is_closed(self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Requests that were lost by closing it, by our own doing and without the excuse of a time-out. Must
    /// be 0 whatever happens; counted at run time all the same.
    pub const fn lost(self) -> u32 {
        match self.state {
            State::Closed(Closing::Quiet | Closing::Failed) => self.in_flight,
            _ => 0,
        }
    }

    const fn now(self, state: State) -> Link {
        Link { state, ..self }
    }

    const fn with(self, in_flight: u32) -> Link {
        Link { in_flight, ..self }
    }

    const fn closed(self, how: Closing) -> Link {
        self.now(State::Closed(how))
    }
}

#[cfg(test)]
mod tests;
