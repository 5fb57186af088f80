//! Readiness of sockets: a thin, safe epoll. Edge-triggered and registered once for both directions,
//! so that a socket costs one `epoll_ctl` in its life; whoever is told of an event reads until the
//! kernel has no more (a short read says so) and judges by the results of its calls, never by the
//! event's flags. A stale event for a reused slot therefore costs one vain read and nothing else.

use std::{io, os::fd::AsFd, time::Duration};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::{clock::Nanos, error::Error};

/// Who owns a socket, and which of theirs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// One of the origin's listening sockets.
    Accept(usize),
    /// One of the origin's connections, by slot.
    Origin(usize),
    /// One of the generator's connections, by slot.
    Load(usize),
    /// One of the unmeasured clients' connections, by slot.
    Neighbour(usize),
}

/// How long [`Poller::wait`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: the caller spins, to be on time to the microsecond.
    Spin,
    /// At most this long, with the kernel's resolution of a millisecond.
    AtMost(Duration),
}

/// The shortest that the kernel's timer can do.
const RESOLUTION: Nanos = Nanos::from_millis(1);
/// Events handled per turn: a turn stays short enough that due requests are not kept waiting.
const EVENTS_PER_WAIT: usize = 128;
/// Bytes that an event may move where requests fall due at any microsecond. To copy so many takes the
/// kernel's TCP about ten of them, and more would be a lag that is seen beside a latency of a hundred.
const SHORT_EVENT_BYTES: usize = 32 << 10;

/// An epoll instance and room for what it reports.
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    event_bytes: usize,
}

/// How long an event may keep others waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Until the kernel has no more, which is cheapest.
    Whole,
    /// A moment: what is left comes again, after the others.
    Short,
}

impl Poller {
    /// A poller that watches nothing yet.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); EVENTS_PER_WAIT],
            event_bytes: usize::MAX,
        })
    }

    /// How long events may take from now on.
    pub fn set_events(&mut self, events: Events) {
        self.event_bytes = match events {
            Events::Whole => usize::MAX,
            Events::Short => SHORT_EVENT_BYTES,
        };
    }

    /// Bytes that an event may move, each way. Who has moved so many stops, and asks to be called
    /// [`again`](Poller::again).
    pub fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    /// Watches a socket until it is closed.
    pub fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(socket, event(token))?)
    }

    /// Reports a watched socket once more, after those that wait already, if there is anything that it is
    /// ready for: to be able to send is enough.
    pub fn again(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.modify(socket, &mut event(token))?)
    }

    /// Waits for events and returns how many there are.
    pub fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        let timeout = match wait {
            Wait::Spin => EpollTimeout::ZERO,
            Wait::AtMost(time) => EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX),
        };
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for events until about `due`, and returns how many there are. It never spins: it sleeps for a
    /// millisecond at least, which is the shortest that the kernel's timer can do.
    pub fn sleep_until(&mut self, due: Nanos, now: Nanos) -> Result<usize, Error> {
        let sleep = (due - now).max(RESOLUTION);
        let waited = self.wait(Wait::AtMost(Duration::from_nanos(sleep.0)));
        waited.map_err(Error::io("waiting for events"))
    }

    /// The token of the `i`-th event of the last wait.
    pub fn token(&self, i: usize) -> Option<Token> {
        self.events.get(i).map(|event| Token::decode(event.data()))
    }
}

impl Poller {
    /// Whether the `i`-th event of the last wait tells of an end, so that a short read is not the last.
    /// Only the relay asks: others notice an end when they next want something of the socket.
    pub fn tells_of_an_end(&self, i: usize) -> bool {
        let ends = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        self.events
            .get(i)
            .is_some_and(|event| event.events().intersects(ends))
    }
}

fn event(token: Token) -> EpollEvent {
    let flags =
        EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    EpollEvent::new(flags, token.encode())
}

impl Token {
    const ROLE_SHIFT: u32 = 62;

    fn encode(self) -> u64 {
        match self {
            Token::Accept(i) => i as u64,
            Token::Origin(slot) => (1 << Token::ROLE_SHIFT) | slot as u64,
            Token::Load(slot) => (2 << Token::ROLE_SHIFT) | slot as u64,
            Token::Neighbour(slot) => (3 << Token::ROLE_SHIFT) | slot as u64,
        }
    }

    fn decode(data: u64) -> Token {
        let slot = (data & ((1 << Token::ROLE_SHIFT) - 1)) as usize;
        match data >> Token::ROLE_SHIFT {
            1 => Token::Origin(slot),
            2 => Token::Load(slot),
            3 => Token::Neighbour(slot),
            _ => Token::Accept(slot),
        }
    }
}

/// What a non-blocking call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now; an event will tell.
    Later,
    /// The other side has ended its stream (reads only).
    End,
}

/// Sorts out the result of a non-blocking read or write.
pub fn moved(result: io::Result<usize>) -> io::Result<Moved> {
    match result {
        Ok(0) => Ok(Moved::End),
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Moved::Later),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Moved::Later),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every token survives the trip through the kernel's 64 bits.
    #[test]
    fn tokens_round_trip() {
        for token in [
            Token::Accept(0),
            Token::Accept(15),
            Token::Neighbour(9),
            Token::Origin(0),
            Token::Origin(70_000),
            Token::Load(0),
            Token::Load(usize::MAX >> 3),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
