//! The clients: requests that fall due as a Poisson process, whatever becomes of them (an open loop),
//! over as many connections as that takes. Every request is numbered and its fate kept.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use slab::Slab;

use crate::{
    clock::Nanos,
    load::arrivals::{Arrivals, Schedule, Spacing},
    poll::{Moved, Poller, Token, moved},
    response::{Progress, Response, ResponseReader, Reuse},
    stream::connect,
};

/// A client waits for an answer this long: longer than the proxies do, so that theirs still counts as
/// one.
pub const PATIENCE: Nanos = Nanos::from_millis(1_500);
const REQUEST: &[u8] = b"GET /b/128 HTTP/1.1\r\nHost: lab\r\n\r\n";
const READ_BYTES: usize = 16 << 10;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it was due, and sent but for a millisecond.
    pub due: Nanos,
    /// What became of it.
    pub fate: Fate,
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
    /// Not answered within [`PATIENCE`].
    TimedOut,
}

/// The clients of one proxy.
pub struct Clients {
    target: SocketAddr,
    schedule: Schedule,
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
    written: usize,
    /// The number of the request that it works on.
    request: Option<usize>,
}

/// How far a connection is with its request.
enum Step {
    Waits,
    Ends(Response),
    Breaks,
}

impl Clients {
    /// So many requests per second from `start` on.
    pub fn new(target: SocketAddr, rate: f64, seed: u64, start: Nanos) -> Clients {
        let arrivals = Arrivals {
            rate,
            spacing: Spacing::Poisson,
            seed,
        };
        Clients {
            target,
            schedule: Schedule::new(arrivals, start),
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
            self.send(due, poller);
        }
        while let Some(request) = self.requests.get(self.oldest)
            && (!matches!(request.fate, Fate::Pending(_)) || request.due + PATIENCE <= now)
        {
            if let Fate::Pending(slot) = request.fate {
                self.end(self.oldest, Fate::TimedOut);
                self.connections.try_remove(slot);
            }
            self.oldest += 1;
        }
    }

    /// Moves a connection on after an event.
    pub fn on_event(&mut self, slot: usize) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let step = connection.go_on(&mut self.buffer);
        let request = connection.request;
        match (step, request) {
            (Step::Waits, _) => {}
            (Step::Ends(response), Some(number)) => {
                connection.request = None;
                match response.reuse {
                    Reuse::KeepAlive => self.idle.push(slot),
                    Reuse::Close => drop(self.connections.try_remove(slot)),
                }
                self.end(
                    number,
                    match response.status {
                        200 => Fate::Answered,
                        _ => Fate::Refused,
                    },
                );
            }
            (Step::Ends(_) | Step::Breaks, request) => {
                self.connections.try_remove(slot);
                if let Some(number) = request {
                    self.end(number, Fate::Broken);
                }
            }
        }
    }

    fn send(&mut self, due: Nanos, poller: &Poller) {
        let number = self.requests.len();
        let slot = self.take_idle().or_else(|| self.open(poller));
        let fate = slot.map_or(Fate::Broken, Fate::Pending);
        self.requests.push(Request { due, fate });
        let connection = slot.and_then(|slot| self.connections.get_mut(slot));
        if let (Some(connection), Some(slot)) = (connection, slot) {
            connection.request = Some(number);
            connection.written = 0;
            self.on_event(slot);
        }
    }

    fn take_idle(&mut self) -> Option<usize> {
        while let Some(slot) = self.idle.pop() {
            let connection = self.connections.get(slot);
            if connection.is_some_and(|connection| connection.request.is_none()) {
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
            written: REQUEST.len(),
            request: None,
        });
        Some(slot)
    }

    fn end(&mut self, number: usize, fate: Fate) {
        if let Some(request) = self.requests.get_mut(number) {
            request.fate = fate;
        }
    }
}

impl Connection {
    /// Writes what is left and reads what is there. While the connection is being made the kernel
    /// answers "later" to both.
    fn go_on(&mut self, buffer: &mut [u8]) -> Step {
        while let Some(rest) = REQUEST.get(self.written..)
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
