//! Connections that carry several exchanges at once, by HTTP/2.
//!
//! A line is a connection with its streams. Its life: closed → (connect) → opening → open → closed. The
//! first exchange on it, its *greeting*, shows that the peer serves it and how many streams it allows, and
//! is neither counted nor recorded. Then each of its streams is free or under way: in a closed loop the
//! end of an exchange is the beginning of the next, in an open one a request that is due takes the
//! stream that has been free for longest, on whichever line.
//!
//! What a turn begins on a line leaves in one write, as it does for any client of HTTP/2; a request that
//! was due leaves at once.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use super::{
    Exchange, LoadSpec,
    answer::is_right,
    generator::{LoadOutcome, OPENING_MAX, READ_BYTES},
    latency::Times,
    tally::Tally,
};
use crate::{
    clock::Nanos,
    control::Phase,
    error::Error,
    http2::{ALPN, Answer, Client, Request},
    poll::{Moved, Poller, Token, moved},
    stream::{Output, Stream, connect},
};

/// The load.
pub struct Multiplexed {
    spec: LoadSpec,
    pub(super) tally: Tally,
    request: Request,
    lines: Vec<Line>,
    /// What events of its lines are called.
    pub(super) token: fn(usize) -> Token,
    /// Streams that may begin an exchange, longest free first. May hold some of lines that have been
    /// closed since.
    free: VecDeque<Free>,
    /// Lines to be (re)opened.
    closed: VecDeque<usize>,
    /// Lines between connecting and the end of their greeting.
    opening: usize,
    buffer: Vec<u8>,
    answers: Vec<Answer<UnderWay>>,
}

/// A stream that works on nothing.
#[derive(Clone, Copy, Debug)]
struct Free {
    line: usize,
    /// Which of the line's connections it is on.
    serial: u64,
    since: Nanos,
}

struct Line {
    /// `None` while it is closed.
    connected: Option<Connected>,
    /// Counts its connections.
    serial: u64,
}

struct Connected {
    socket: Stream,
    client: Client<UnderWay>,
    output: Output,
    /// Whether something has come: then TLS has agreed on a protocol.
    heard: bool,
}

/// What an exchange was begun with.
#[derive(Clone, Copy, Debug)]
enum UnderWay {
    Greeting,
    Work {
        due: Nanos,
        free: Nanos,
        sent: Nanos,
    },
}

impl Multiplexed {
    pub(super) fn new(spec: LoadSpec, tally: Tally) -> Result<Multiplexed, Error> {
        let Exchange::Http { host, path, .. } = &spec.exchange else {
            return Err(Error::Load("an echo is no HTTP/2".to_owned()));
        };
        let request = Request {
            scheme: match spec.tls {
                Some(_) => "https",
                None => "http",
            },
            authority: host.clone(),
            path: path.clone(),
        };
        let line = |_| Line {
            connected: None,
            serial: 0,
        };
        Ok(Multiplexed {
            request,
            lines: (0..spec.connections).map(line).collect(),
            token: Token::Load,
            free: VecDeque::with_capacity(spec.connections * spec.streams),
            closed: (0..spec.connections).collect(),
            opening: 0,
            buffer: vec![0; READ_BYTES],
            answers: Vec::new(),
            tally,
            spec,
        })
    }

    pub(super) fn turn(&mut self, poller: &Poller, now: Nanos) {
        while let Some(phase) = self.tally.next_phase() {
            self.enter(phase, now);
        }
        if self.tally.phase != Phase::Origin && !self.closed.is_empty() {
            self.open_some(poller, now);
        }
        self.send_due(now);
        if self.tally.is_draining() && self.is_drained(now) {
            self.tally.control.set_drained();
        }
    }

    pub(super) fn send_due(&mut self, now: Nanos) {
        while self.tally.is_due(now) {
            let Some(free) = self.take_free() else {
                return;
            };
            let Some(schedule) = &mut self.tally.schedule else {
                return;
            };
            let due = schedule.take();
            self.begin(free, due);
            self.flush(free.line);
        }
    }

    pub(super) fn on_event(&mut self, index: usize) {
        self.flush(index);
        self.read(index);
        self.flush(index);
        self.retire(index);
    }

    pub(super) fn outcome(self) -> LoadOutcome {
        let window = self.tally.window;
        let connected = self.lines.iter().filter_map(|line| line.connected.as_ref());
        let under_way = connected.flat_map(|connected| connected.client.under_way());
        let outstanding = under_way.filter_map(|exchange| exchange.due());
        self.tally
            .outcome(outstanding.filter(|due| window.holds(*due)))
    }

    fn enter(&mut self, phase: Phase, now: Nanos) {
        self.tally.enter(phase, now);
        if phase == Phase::WarmUp && self.tally.is_saturating() {
            while let Some(free) = self.take_free() {
                self.begin(free, now);
            }
            (0..self.lines.len()).for_each(|index| self.flush(index));
        }
    }

    fn is_drained(&self, now: Nanos) -> bool {
        let window = self.tally.window;
        let mut connected = self.lines.iter().filter_map(|line| line.connected.as_ref());
        let is_outstanding =
            |exchange: &UnderWay| exchange.due().is_some_and(|at| window.holds(at));
        !connected.any(|connected| connected.client.under_way().any(is_outstanding))
            || self.tally.has_waited(now)
    }

    /// Opens what is closed. Each line is looked at once: one that fails at once waits for the next turn.
    fn open_some(&mut self, poller: &Poller, now: Nanos) {
        for _ in 0..self.closed.len() {
            if self.opening >= OPENING_MAX {
                return;
            }
            let Some(index) = self.closed.pop_front() else {
                return;
            };
            match self.connect(index, poller, now) {
                Ok(()) => self.flush(index),
                Err(error) => {
                    self.tally.count_failure(&format!("connect: {error}"));
                    self.closed.push_back(index);
                }
            }
        }
    }

    /// Connects a line and says the greeting, which waits in the output until the connection is made.
    fn connect(&mut self, index: usize, poller: &Poller, now: Nanos) -> io::Result<()> {
        let socket = connect(self.spec.target)?;
        poller.add(&socket, (self.token)(index))?;
        let mut client = Client::new(self.spec.streams, now);
        let greeted = client.send(&self.request, UnderWay::Greeting);
        greeted.map_err(io::Error::other)?;
        if let Some(line) = self.lines.get_mut(index) {
            line.serial += 1;
            line.connected = Some(Connected {
                socket: Stream::client(socket, self.spec.tls.as_ref())?,
                client,
                output: Output::default(),
                heard: false,
            });
            self.opening += 1;
        }
        Ok(())
    }

    fn connected(&mut self, index: usize) -> Option<&mut Connected> {
        self.lines.get_mut(index)?.connected.as_mut()
    }

    /// The stream that has been free for longest.
    fn take_free(&mut self) -> Option<Free> {
        while let Some(free) = self.free.pop_front() {
            if self.may_begin(free) {
                return Some(free);
            }
        }
        None
    }

    fn may_begin(&self, free: Free) -> bool {
        self.lines.get(free.line).is_some_and(|line| {
            let connected = line.connected.as_ref();
            line.serial == free.serial && connected.is_some_and(|it| !it.client.is_going_away())
        })
    }

    /// Begins an exchange; it leaves with the next [flush](Multiplexed::flush).
    fn begin(&mut self, free: Free, due: Nanos) {
        let work = UnderWay::Work {
            due,
            free: free.since,
            sent: self.tally.clock.now(),
        };
        let Some(connected) = self
            .lines
            .get_mut(free.line)
            .and_then(|line| line.connected.as_mut())
        else {
            return;
        };
        if let Err(error) = connected.client.send(&self.request, work) {
            // It allowed enough streams when it was opened: the peer has changed its mind.
            self.tally.count_failure(&format!("no stream: {error}"));
        }
    }

    /// Writes what there is to be written, as far as the socket takes it.
    fn flush(&mut self, index: usize) {
        if let Some(connected) = self.connected(index)
            && let Err(error) = connected.flush()
        {
            self.lose(index, &format!("write: {error}"));
        }
    }

    fn read(&mut self, index: usize) {
        loop {
            let now = self.tally.clock.now();
            let Some(connected) = self
                .lines
                .get_mut(index)
                .and_then(|line| line.connected.as_mut())
            else {
                return;
            };
            let count = match moved(connected.socket.read(&mut self.buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return,
                Ok(Moved::End) => return self.lose(index, "closed before the answer"),
                Err(error) => return self.lose(index, &format!("read: {error}")),
            };
            let bytes = self.buffer.get(..count).unwrap_or_default();
            let is_last = count < READ_BYTES && connected.socket.short_read_is_the_last();
            let mut answers = std::mem::take(&mut self.answers);
            let fed = connected.feed(bytes, now, &mut answers);
            for answer in answers.drain(..) {
                self.take(index, answer);
            }
            self.answers = answers;
            if let Err(problem) = fed {
                return self.lose(index, &problem);
            }
            if is_last {
                return;
            }
        }
    }

    fn take(&mut self, index: usize, answer: Answer<UnderWay>) {
        match answer {
            Answer::Response {
                tag,
                status,
                body_bytes,
            } => match (is_right(status, body_bytes, &self.spec.exchange), tag) {
                (Ok(()), UnderWay::Greeting) => self.greeted(index),
                (Ok(()), UnderWay::Work { due, free, sent }) => {
                    self.complete(index, due, free, sent);
                }
                (Err(problem), UnderWay::Greeting) => self.fail_greeting(index, &problem),
                (Err(problem), UnderWay::Work { .. }) => self.fail(index, &problem),
            },
            Answer::Lost {
                tag: UnderWay::Greeting,
                problem,
            } => self.fail_greeting(index, &problem),
            Answer::Lost { problem, .. } => self.fail(index, &problem),
            Answer::GoingAway(problem) => self.tally.count_failure(&problem),
        }
    }

    fn greeted(&mut self, index: usize) {
        let wanted = self.spec.streams;
        let connected = self.connected(index);
        let allowed = connected.map_or(0, |connected| connected.client.streams_available());
        if allowed < wanted {
            let problem =
                format!("the peer allows {allowed} streams on a connection, not {wanted}");
            return self.fail_greeting(index, &problem);
        }
        self.opening -= 1;
        self.tally.control.count_opened();
        let now = self.tally.clock.now();
        (0..wanted).for_each(|_| self.rest(index, now));
    }

    fn complete(&mut self, index: usize, due: Nanos, free: Nanos, sent: Nanos) {
        let done = self.tally.clock.now();
        let connected = self.connected(index);
        let is_resumed = connected.is_some_and(|connected| connected.socket.is_resumed());
        let times = Times {
            due,
            free,
            sent,
            done,
        };
        self.tally.complete(times, is_resumed);
        self.rest(index, done);
    }

    /// A connection whose greeting failed is of no use.
    fn fail_greeting(&mut self, index: usize, problem: &str) {
        self.opening -= 1;
        self.tally.count_failure(problem);
        self.close(index);
    }

    /// An exchange failed; its connection is as good as before.
    fn fail(&mut self, index: usize, problem: &str) {
        self.tally.count_failure(problem);
        let now = self.tally.clock.now();
        self.rest(index, now);
    }

    /// A stream is free: it goes on at once, or waits for its turn.
    fn rest(&mut self, index: usize, now: Nanos) {
        let Some(line) = self.lines.get(index) else {
            return;
        };
        let free = Free {
            line: index,
            serial: line.serial,
            since: now,
        };
        if !self.may_begin(free) {
            return;
        }
        match self.tally.is_saturating() {
            true => self.begin(free, now),
            false => self.free.push_back(free),
        }
    }

    /// A connection that the peer has ended in order is made anew once its last exchange is over.
    fn retire(&mut self, index: usize) {
        let connected = self.connected(index);
        if connected.is_some_and(|it| it.client.is_going_away() && it.client.is_idle()) {
            self.reopen(index);
        }
    }

    fn reopen(&mut self, index: usize) {
        self.tally.reconnects += 1;
        self.close(index);
    }

    /// The connection broke: so did what was under way on it.
    fn lose(&mut self, index: usize, problem: &str) {
        let Some(connected) = self.connected(index) else {
            return;
        };
        let under_way: Vec<UnderWay> = connected.client.abandon().collect();
        if under_way.is_empty() {
            return self.reopen(index);
        }
        for exchange in under_way {
            self.tally.count_failure(problem);
            if let UnderWay::Greeting = exchange {
                self.opening -= 1;
            }
        }
        self.close(index);
    }

    fn close(&mut self, index: usize) {
        if let Some(line) = self.lines.get_mut(index) {
            line.connected = None;
            self.closed.push_back(index);
        }
    }
}

impl UnderWay {
    /// When it was due; a greeting never was.
    fn due(&self) -> Option<Nanos> {
        match self {
            UnderWay::Greeting => None,
            UnderWay::Work { due, .. } => Some(*due),
        }
    }
}

impl Connected {
    fn feed(
        &mut self,
        bytes: &[u8],
        now: Nanos,
        answers: &mut Vec<Answer<UnderWay>>,
    ) -> Result<(), String> {
        if !self.heard {
            self.heard = true;
            if let Some(agreed) = self.socket.protocol()
                && agreed != ALPN
            {
                return Err("the peer does not speak h2 over TLS".to_owned());
            }
        }
        self.client.feed(bytes, now, answers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.push()?;
        self.client.take_output(self.output.bytes());
        self.output.write(&mut self.socket)?;
        Ok(())
    }
}
