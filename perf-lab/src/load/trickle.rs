//! Clients that begin a request and never end it: a byte of a head now and then, on many connections.
//! They cost whoever waits for them a connection each, which is what the attack named slow loris is.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::{
    clock::Nanos,
    control::Phase,
    poll::{Moved, Poller, Token, moved},
    stream::connect,
};

/// The beginning of a request, then a field that goes on for ever.
const HEAD: &[u8] = b"GET /b/1 HTTP/1.1\r\nHost: lab.example\r\nX-Slow: ";

/// Connections made in a turn. Made all at once, or spread over the measurement, they would keep the
/// measured requests waiting.
const CONNECTS_PER_TURN: usize = 4;

/// The clients.
pub struct Trickle {
    target: SocketAddr,
    byte_every: Nanos,
    slots: Vec<Slot>,
    /// Slots before this one have been connected for the first time.
    connected: usize,
    /// When each slot sends its next byte, soonest first: all wait equally long, so the order stays.
    due: VecDeque<(Nanos, usize)>,
    /// Connections that the other side closed, which is its right.
    closed: u64,
}

#[derive(Default)]
struct Slot {
    socket: Option<TcpStream>,
    sent: usize,
}

impl Trickle {
    /// So many clients, none of them connected yet.
    pub fn new(target: SocketAddr, connections: usize, byte_every: Nanos) -> Trickle {
        Trickle {
            target,
            byte_every,
            slots: (0..connections).map(|_| Slot::default()).collect(),
            connected: 0,
            due: VecDeque::new(),
            closed: 0,
        }
    }

    /// Connections that the other side closed so far.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// Connects, and sends what is due from the warm-up to the end of the measurement.
    pub fn turn(&mut self, poller: &Poller, phase: Phase, now: Nanos) {
        if matches!(phase, Phase::Open | Phase::WarmUp | Phase::Measure) {
            let last = self.slots.len().min(self.connected + CONNECTS_PER_TURN);
            for index in self.connected..last {
                self.connect(index, poller);
            }
            self.connected = last;
        }
        if !matches!(phase, Phase::WarmUp | Phase::Measure) {
            return;
        }
        if self.due.is_empty() {
            // Spread over one interval, so that they do not come all at once.
            let count = self.slots.len() as u64;
            let gap = self.byte_every.0 / count.max(1);
            self.due = (0..self.slots.len())
                .map(|index| (now + Nanos(gap * index as u64), index))
                .collect();
        }
        while let Some(&(due, index)) = self.due.front()
            && due <= now
        {
            self.due.pop_front();
            self.due.push_back((now + self.byte_every, index));
            self.send(index, poller);
        }
    }

    /// A peer that refuses is asked again when the next byte is due.
    fn connect(&mut self, index: usize, poller: &Poller) {
        if let Some(slot) = self.slots.get_mut(index)
            && let Ok(socket) = connect(self.target)
            && poller.add(&socket, Token::Neighbour(index)).is_ok()
        {
            slot.socket = Some(socket);
            slot.sent = 0;
        }
    }

    fn send(&mut self, index: usize, poller: &Poller) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(socket) = &mut slot.socket else {
            return self.connect(index, poller);
        };
        let byte = HEAD.get(slot.sent).copied().unwrap_or(b'a');
        match moved(socket.write(&[byte])) {
            Ok(Moved::Bytes(_)) => slot.sent += 1,
            Ok(Moved::Later) => {}
            Ok(Moved::End) | Err(_) => self.close(index),
        }
    }

    /// An answer, most likely a 408, or the end: either way the client starts again.
    pub fn on_event(&mut self, index: usize) {
        let mut answer = [0; 1024];
        let Some(socket) = self
            .slots
            .get_mut(index)
            .and_then(|slot| slot.socket.as_mut())
        else {
            return;
        };
        if !matches!(moved(socket.read(&mut answer)), Ok(Moved::Later)) {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.socket = None;
            self.closed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    /// With a made-up clock all clients connect before anything is measured, and each sends one byte in each
    /// interval: a head that is right as far as it goes, and does not end.
    #[test]
    fn heads_never_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poller = Poller::new().unwrap();
        let every = Nanos::from_millis(100);
        let mut trickle = Trickle::new(listener.local_addr().unwrap(), 3, every);
        trickle.turn(&poller, Phase::Open, Nanos::ZERO);
        assert!(trickle.due.is_empty());
        let accepted: Vec<TcpStream> = (0..3).map(|_| listener.accept().unwrap().0).collect();
        let bytes = HEAD.len() as u64 + 10;
        for round in 0..bytes {
            trickle.turn(
                &poller,
                Phase::Measure,
                Nanos::from_millis(100 * round + 99),
            );
        }
        trickle.slots.clear();
        for (mut socket, bytes) in accepted.into_iter().zip([bytes, bytes - 1, bytes - 1]) {
            let mut head = String::new();
            socket.read_to_string(&mut head).unwrap();
            assert_eq!(head.len() as u64, bytes, "{head}");
            assert!(
                head.as_bytes().starts_with(HEAD) && head.ends_with("aaaaaaaaa"),
                "{head}"
            );
        }
    }
}
