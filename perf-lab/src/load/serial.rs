//! Connections that carry one exchange at a time, as one state machine per slot.
//!
//! A slot's life: closed → (connect) → busy → idle → busy → … A kept connection does one exchange,
//! its *greeting*, right after connecting: only then is it certain that the peer has accepted it and
//! not just the kernel. Greetings are neither counted nor recorded.

use std::{
    collections::VecDeque,
    io::{Read, Write},
};

use super::{
    Connections, Exchange, Failures, LoadSpec,
    answer::{Answer, Reader, request_bytes},
    generator::{LoadOutcome, OPENING_MAX, READ_BYTES},
    latency::Times,
    tally::{Tally, Window},
};
use crate::{
    clock::Nanos,
    control::Phase,
    poll::{Moved, Poller, Token, moved},
    response::Reuse,
    stream::{Stream, connect},
};

/// The load.
pub struct Serial {
    spec: LoadSpec,
    pub(super) tally: Tally,
    /// What is written for each exchange.
    request: Vec<u8>,
    slots: Vec<Slot>,
    /// What events of its slots are called.
    pub(super) token: fn(usize) -> Token,
    /// Slots that may begin an exchange, longest idle first, so that all take their turn.
    /// May hold slots that have been closed since.
    idle: VecDeque<usize>,
    /// Slots to be (re)opened.
    closed: VecDeque<usize>,
    /// Slots between connecting and the end of their greeting.
    opening: usize,
    buffer: Vec<u8>,
}

struct Slot {
    socket: Option<Stream>,
    state: State,
    purpose: Purpose,
    reader: Reader,
    /// Bytes of the request that were written.
    written: usize,
    due: Nanos,
    free: Nanos,
    sent: Nanos,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Idle,
    /// Connecting, sending or receiving: the kernel knows which, and the result of each call says it.
    Busy,
    /// Answered; waiting for the server to close.
    Ending,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Greeting,
    Work,
}

impl Serial {
    pub(super) fn new(spec: LoadSpec, tally: Tally) -> Serial {
        let slots: Vec<Slot> = (0..spec.connections)
            .map(|_| Slot::new(&spec.exchange))
            .collect();
        Serial {
            request: request_bytes(&spec),
            closed: (0..slots.len()).collect(),
            slots,
            token: Token::Load,
            idle: VecDeque::with_capacity(spec.connections),
            opening: 0,
            buffer: vec![0; READ_BYTES],
            tally,
            spec,
        }
    }

    pub(super) fn turn(&mut self, poller: &Poller, now: Nanos) {
        while let Some(phase) = self.tally.next_phase() {
            self.enter(phase, poller, now);
        }
        if self.tally.phase != Phase::Origin && !self.closed.is_empty() {
            self.open_some(poller, now);
        }
        self.send_due(poller, now);
        if self.tally.is_draining() && self.is_drained(now) {
            self.tally.control.set_drained();
        }
    }

    pub(super) fn send_due(&mut self, poller: &Poller, now: Nanos) {
        while let Some(schedule) = &mut self.tally.schedule
            && schedule.peek() <= now
        {
            let Some(index) = self.idle.pop_front() else {
                return;
            };
            if self
                .slots
                .get(index)
                .is_none_or(|slot| slot.state != State::Idle)
            {
                continue;
            }
            let due = schedule.take();
            self.begin(index, Purpose::Work, due, poller);
        }
    }

    pub(super) fn on_event(&mut self, index: usize, poller: &Poller) {
        match self.state(index) {
            State::Closed => {}
            State::Idle => self.check_idle(index),
            State::Ending => self.await_end(index, poller),
            State::Busy => {
                if self.write(index) {
                    self.read(index, poller);
                }
            }
        }
    }

    pub(super) fn outcome(self) -> LoadOutcome {
        let window = self.tally.window;
        let working = self.slots.iter().filter(|slot| slot.is_working_on(window));
        self.tally.outcome(working.map(|slot| slot.due))
    }

    fn enter(&mut self, phase: Phase, poller: &Poller, now: Nanos) {
        self.tally.enter(phase, now);
        if phase == Phase::WarmUp && self.tally.is_saturating() {
            for index in std::mem::take(&mut self.idle) {
                self.begin(index, Purpose::Work, now, poller);
            }
        }
    }

    fn is_drained(&self, now: Nanos) -> bool {
        let mut slots = self.slots.iter();
        !slots.any(|slot| slot.is_working_on(self.tally.window)) || self.tally.has_waited(now)
    }

    fn state(&self, index: usize) -> State {
        self.slots
            .get(index)
            .map_or(State::Closed, |slot| slot.state)
    }

    /// Opens what is closed. Each slot is looked at once: one that fails at once waits for the next
    /// turn.
    fn open_some(&mut self, poller: &Poller, now: Nanos) {
        for _ in 0..self.closed.len() {
            if self.opening >= OPENING_MAX {
                return;
            }
            let Some(index) = self.closed.pop_front() else {
                return;
            };
            match self.spec.keep {
                // Under load there is no time for greetings: connecting again belongs to the next
                // exchange, as it does for any client.
                Connections::Keep if self.tally.is_running() => self.rest(index, now, poller),
                Connections::Keep => {
                    self.opening += 1;
                    self.begin(index, Purpose::Greeting, now, poller);
                }
                Connections::PerRequest => {
                    self.tally.control.count_opened();
                    self.rest(index, now, poller);
                }
            }
        }
    }

    /// Begins an exchange, connecting first where there is no connection.
    fn begin(&mut self, index: usize, purpose: Purpose, due: Nanos, poller: &Poller) {
        let now = self.tally.clock.now();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.purpose = purpose;
        slot.state = State::Busy;
        slot.written = 0;
        slot.due = due;
        slot.sent = now;
        slot.reader = Reader::new(&self.spec.exchange);
        if slot.socket.is_none() {
            let connected = connect(self.spec.target).and_then(|socket| {
                poller.add(&socket, (self.token)(index))?;
                Stream::client(socket, self.spec.tls.as_ref())
            });
            match connected {
                Ok(socket) => slot.socket = Some(socket),
                Err(error) => return self.fail(index, &format!("connect: {error}")),
            }
        }
        self.write(index);
    }

    /// Writes what is left of the request; returns false if the exchange failed. While the
    /// connection is being made the kernel answers "later", so there is no state for that.
    fn write(&mut self, index: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let Some(socket) = &mut slot.socket else {
            return false;
        };
        if let Err(error) = socket.push() {
            self.fail(index, &format!("write: {error}"));
            return false;
        }
        while let Some(rest) = self.request.get(slot.written..)
            && !rest.is_empty()
        {
            match moved(socket.write(rest)) {
                Ok(Moved::Bytes(count)) => slot.written += count,
                Ok(Moved::Later | Moved::End) => return true,
                Err(error) => {
                    self.fail(index, &format!("write: {error}"));
                    return false;
                }
            }
        }
        true
    }

    fn read(&mut self, index: usize, poller: &Poller) {
        let mut left = poller.event_bytes();
        loop {
            let Some(slot) = self.slots.get_mut(index) else {
                return;
            };
            let Some(socket) = &mut slot.socket else {
                return;
            };
            if left == 0 {
                if let Err(error) = poller.again(&*socket, (self.token)(index)) {
                    self.fail(index, &format!("watching: {error}"));
                }
                return;
            }
            let certain = slot.reader.certain();
            let wanted = left.min(if certain > 0 { certain } else { READ_BYTES });
            let wanted = wanted.min(READ_BYTES);
            let buffer = self.buffer.get_mut(..wanted).unwrap_or_default();
            let taken = match certain {
                0 => socket.read(buffer),
                _ => socket.discard(buffer),
            };
            let count = match moved(taken) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return,
                Ok(Moved::End) => match slot.reader.end(&self.spec.exchange) {
                    Answer::Complete(reuse) => return self.complete(index, reuse, poller),
                    Answer::Pending => return self.fail(index, "closed before the answer"),
                    Answer::Wrong(problem, _) | Answer::Failed(problem) => {
                        return self.fail(index, &problem);
                    }
                },
                Err(error) => return self.fail(index, &format!("read: {error}")),
            };
            left -= count;
            let answer = match certain {
                0 => {
                    let bytes = self.buffer.get(..count).unwrap_or_default();
                    slot.reader.feed(bytes, &self.spec.exchange)
                }
                _ => slot.reader.skip(count, &self.spec.exchange),
            };
            match answer {
                Answer::Complete(reuse) => return self.complete(index, reuse, poller),
                Answer::Wrong(problem, reuse) => {
                    return self.refuse(index, &problem, reuse, poller);
                }
                Answer::Failed(problem) => return self.fail(index, &problem),
                Answer::Pending if count < wanted && socket.short_read_is_the_last() => return,
                Answer::Pending => {}
            }
        }
    }

    fn complete(&mut self, index: usize, reuse: Reuse, poller: &Poller) {
        let now = self.tally.clock.now();
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match slot.purpose {
            Purpose::Greeting => {
                self.opening -= 1;
                self.tally.control.count_opened();
            }
            Purpose::Work => {
                let times = Times {
                    due: slot.due,
                    free: slot.free,
                    sent: slot.sent,
                    done: now,
                };
                let is_resumed = slot.socket.as_ref().is_some_and(Stream::is_resumed);
                self.tally.complete(times, is_resumed);
            }
        }
        slot.purpose = Purpose::Greeting;
        self.go_on(index, reuse, now, poller);
    }

    /// The exchange failed by its answer; its connection is as good as before.
    fn refuse(&mut self, index: usize, problem: &str, reuse: Reuse, poller: &Poller) {
        let is_greeting = self
            .slots
            .get(index)
            .is_none_or(|slot| slot.purpose == Purpose::Greeting);
        if self.spec.failures == Failures::GiveUp || is_greeting {
            return self.fail(index, problem);
        }
        self.tally.count_failure(problem);
        let now = self.tally.clock.now();
        if let Some(slot) = self.slots.get_mut(index) {
            slot.purpose = Purpose::Greeting;
        }
        self.go_on(index, reuse, now, poller);
    }

    fn go_on(&mut self, index: usize, reuse: Reuse, now: Nanos, poller: &Poller) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match (self.spec.keep, reuse) {
            (Connections::Keep, Reuse::KeepAlive) => self.rest(index, now, poller),
            (Connections::Keep, Reuse::Close) => self.reopen(index),
            (Connections::PerRequest, _) => {
                slot.state = State::Ending;
                self.await_end(index, poller);
            }
        }
    }

    /// A slot is free: it goes on at once, or waits for its turn.
    fn rest(&mut self, index: usize, now: Nanos, poller: &Poller) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.state = State::Idle;
        slot.free = now;
        if self.tally.is_saturating() {
            self.begin(index, Purpose::Work, now, poller);
        } else {
            self.idle.push_back(index);
        }
    }

    /// Reads until the server's end of the stream, then the slot is free.
    fn await_end(&mut self, index: usize, poller: &Poller) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(socket) = &mut slot.socket else {
            return;
        };
        // Whether it ends in order or by a reset, the answer was complete.
        if let Ok(Moved::Bytes(_) | Moved::Later) = moved(socket.read(&mut self.buffer)) {
            return;
        }
        slot.socket = None;
        let now = self.tally.clock.now();
        self.rest(index, now, poller);
    }

    /// An idle connection reports something: the server closed it, or it is nothing.
    fn check_idle(&mut self, index: usize) {
        let Some(socket) = self
            .slots
            .get_mut(index)
            .and_then(|slot| slot.socket.as_mut())
        else {
            return;
        };
        match moved(socket.read(&mut self.buffer)) {
            Ok(Moved::Later) => {}
            Ok(Moved::Bytes(_)) => self.fail(index, "bytes that nobody asked for"),
            Ok(Moved::End) | Err(_) => self.reopen(index),
        }
    }

    fn reopen(&mut self, index: usize) {
        self.tally.reconnects += 1;
        self.close(index);
    }

    fn fail(&mut self, index: usize, problem: &str) {
        self.tally.count_failure(problem);
        let greeting = self
            .slots
            .get(index)
            .is_some_and(|slot| slot.state == State::Busy && slot.purpose == Purpose::Greeting);
        if greeting {
            self.opening -= 1;
        }
        self.close(index);
    }

    fn close(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.socket = None;
            slot.state = State::Closed;
            self.closed.push_back(index);
        }
    }
}

impl Slot {
    fn new(exchange: &Exchange) -> Slot {
        Slot {
            socket: None,
            state: State::Closed,
            purpose: Purpose::Greeting,
            reader: Reader::new(exchange),
            written: 0,
            due: Nanos::ZERO,
            free: Nanos::ZERO,
            sent: Nanos::ZERO,
        }
    }

    fn is_working_on(&self, window: Window) -> bool {
        self.state == State::Busy && self.purpose == Purpose::Work && window.holds(self.due)
    }
}
