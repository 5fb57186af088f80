//! Clients whose every request is numbered and its fate kept: requests fall due as a Poisson process,
//! whatever becomes of them (an open loop), over as many connections as that takes.
//!
//! They sleep between events with the kernel's resolution of a millisecond, and are of use where that is
//! little beside what is measured. Who measures microseconds takes [`crate::load`].

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use slab::Slab;

use crate::{
    clock::Nanos,
    load::arrivals::Schedule,
    poll::{Moved, Poller, Token, moved},
    response::{Progress, Response, ResponseReader, Reuse},
    stream::connect,
};

const READ_BYTES: usize = 16 << 10;

/// What clients send.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The part of all requests that is of this kind.
    pub part: f64,
    /// Its bytes.
    pub request: Vec<u8>,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was due, and sent but for a millisecond.
    pub due: Nanos,
    /// Which of the kinds it is.
    pub kind: usize,
    /// What became of it.
    pub fate: Fate,
    /// When it did.
    pub ended: Nanos,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On its way, over the connection of this slot.
    Pending(usize),
    /// Answered with a 200.
    Answered,
    /// Answered with another status.
    Refused,
    /// The connection broke, or could not be made.
    Broken,
    /// Not answered within the clients' patience.
    TimedOut,
}

/// The clients of one proxy.
pub struct Clients {
    target: SocketAddr,
    schedule: Schedule,
    kinds: Vec<Kind>,
    random: fastrand::Rng,
    patience: Nanos,
    connections: Slab<Connection>,
    /// Slots of connections that work on nothing. May hold some that have been closed since.
    idle: Vec<usize>,
    requests: Vec<Request>,
    /// All requests before this one have met their fate.
    oldest: usize,
    buffer: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    reader: ResponseReader,
    /// What it sends, from an offset on.
    request: Vec<u8>,
    written: usize,
    /// The number of the request that it works on.
    number: Option<usize>,
}

/// How far a connection is with its request.
enum Step {
    Waits,
    Ends(Response),
    Breaks,
}

impl Clients {
    /// Clients that send what falls due by `schedule`, and wait so long for an answer. The seed chooses
    /// the kind of each request.
    pub fn new(
        target: SocketAddr,
        schedule: Schedule,
        kinds: Vec<Kind>,
        patience: Nanos,
        seed: u64,
    ) -> Clients {
        Clients {
            target,
            schedule,
            kinds,
            random: fastrand::Rng::with_seed(seed),
            patience,
            connections: Slab::new(),
            idle: Vec::new(),
            requests: Vec::new(),
            oldest: 0,
            buffer: vec![0; READ_BYTES],
        }
    }

    /// All requests so far, by due time.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Nanos {
        self.schedule.peek()
    }

    /// Sends what is due and gives up what is overdue.
    pub fn turn(&mut self, poller: &Poller, now: Nanos) {
        while self.schedule.peek() <= now {
            let due = self.schedule.take();
            self.send(due, now, poller);
        }
        while let Some(request) = self.requests.get(self.oldest)
            && (!matches!(request.fate, Fate::Pending(_)) || request.due + self.patience <= now)
        {
            if let Fate::Pending(slot) = request.fate {
                self.end(self.oldest, Fate::TimedOut, now);
                self.connections.try_remove(slot);
            }
            self.oldest += 1;
        }
    }

    /// Moves a connection on after an event.
    pub fn on_event(&mut self, slot: usize, now: Nanos) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let step = connection.go_on(&mut self.buffer);
        let number = connection.number;
        match (step, number) {
            (Step::Waits, _) => {}
            (Step::Ends(response), Some(number)) => {
                connection.number = None;
                match response.reuse {
                    Reuse::KeepAlive => self.idle.push(slot),
                    Reuse::Close => drop(self.connections.try_remove(slot)),
                }
                let fate = match response.status {
                    200 => Fate::Answered,
                    _ => Fate::Refused,
                };
                self.end(number, fate, now);
            }
            (Step::Ends(_) | Step::Breaks, number) => {
                self.connections.try_remove(slot);
                if let Some(number) = number {
                    self.end(number, Fate::Broken, now);
                }
            }
        }
    }

    fn send(&mut self, due: Nanos, now: Nanos, poller: &Poller) {
        let number = self.requests.len();
        let kind = self.draw();
        let slot = self.take_idle().or_else(|| self.open(poller));
        self.requests.push(Request {
            due,
            kind,
            fate: slot.map_or(Fate::Broken, Fate::Pending),
            ended: now,
        });
        let connection = slot.and_then(|slot| self.connections.get_mut(slot));
        let sent = self.kinds.get(kind).map(|kind| kind.request.as_slice());
        if let (Some(connection), Some(slot)) = (connection, slot) {
            connection.begin(number, sent.unwrap_or_default());
            self.on_event(slot, now);
        }
    }

    /// A kind, as often as its part says; the last one takes what is left.
    fn draw(&mut self) -> usize {
        let mut drawn = self.random.f64();
        for (i, kind) in self.kinds.iter().enumerate() {
            drawn -= kind.part;
            if drawn < 0.0 {
                return i;
            }
        }
        self.kinds.len().saturating_sub(1)
    }

    fn take_idle(&mut self) -> Option<usize> {
        while let Some(slot) = self.idle.pop() {
            let connection = self.connections.get(slot);
            if connection.is_some_and(|connection| connection.number.is_none()) {
                return Some(slot);
            }
        }
        None
    }

    fn open(&mut self, poller: &Poller) -> Option<usize> {
        let socket = connect(self.target).ok()?;
        let entry = self.connections.vacant_entry();
        poller.add(&socket, Token::Load(entry.key())).ok()?;
        let slot = entry.key();
        entry.insert(Connection {
            socket,
            reader: ResponseReader::default(),
            request: Vec::new(),
            written: 0,
            number: None,
        });
        Some(slot)
    }

    fn end(&mut self, number: usize, fate: Fate, now: Nanos) {
        if let Some(request) = self.requests.get_mut(number) {
            request.fate = fate;
            request.ended = now;
        }
    }
}

impl Connection {
    fn begin(&mut self, number: usize, request: &[u8]) {
        self.number = Some(number);
        self.request.clear();
        self.request.extend_from_slice(request);
        self.written = 0;
    }

    /// Writes what is left and reads what is there. While the connection is being made the kernel
    /// answers "later" to both.
    fn go_on(&mut self, buffer: &mut [u8]) -> Step {
        while let Some(rest) = self.request.get(self.written..)
            && !rest.is_empty()
        {
            match moved(self.socket.write(rest)) {
                Ok(Moved::Bytes(count)) => self.written += count,
                Ok(Moved::Later | Moved::End) => break,
                Err(_) => return Step::Breaks,
            }
        }
        loop {
            let count = match moved(self.socket.read(buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return Step::Waits,
                Ok(Moved::End) | Err(_) => return Step::Breaks,
            };
            match self.reader.feed(buffer.get(..count).unwrap_or_default()) {
                Ok(Progress::More) => {}
                Ok(Progress::Done { response, .. }) => return Step::Ends(response),
                Err(_) => return Step::Breaks,
            }
        }
    }
}
