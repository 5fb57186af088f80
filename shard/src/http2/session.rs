//! A connection: bytes in, bytes out, and whom they concern.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tidegate_codecs::{
    http1::{self, RequestKind},
    http2::{
        Connection, ConnectionError, ErrorCode, Event, FieldLine, HeaderBlock, MessageError,
        RequestLine, SendError, StreamId,
    },
};

use super::{
    OUTPUT_BYTES_MAX,
    inbox::{Framing, Inbox},
    stream::{Answer, Gone, Slot, Stream},
    waiter::Waiter,
};
use crate::{
    ring::{Driver, Payload},
    transport,
};

/// One connection, shared by its task and those of its streams.
pub(crate) struct Session {
    pub(super) driver: Rc<Driver>,
    pub(super) state: RefCell<State>,
    /// The task of the connection, while it waits.
    task: Waiter,
    /// The peer has said what it allows; or the connection is gone.
    is_settled: Cell<bool>,
    /// Who waits for that.
    unsettled: Waiter,
}

pub(super) struct State {
    pub(super) connection: Connection,
    /// Those that have a task; in order, since identifiers only grow.
    streams: Vec<Rc<Slot>>,
    /// Frames with their payload, to be sent in one piece.
    pub(super) output: Vec<u8>,
    /// What of it counts against the shard's budget.
    counted: usize,
    /// Streams that wait for the output to be taken, in line.
    pub(super) waiting: Vec<Waker>,
}

/// What has happened that the session cannot deal with alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A request. Its head is [lent](Session::with_head) until more is received.
    Request { id: StreamId, end_stream: bool },
    /// A request that is to be refused with the status of this error.
    Refused {
        id: StreamId,
        error: MessageError,
        end_stream: bool,
    },
    /// The peer has reset a stream.
    Reset,
    /// The peer takes no more streams.
    GoAway,
    /// The peer broke a rule on a stream, which was reset.
    Broken {
        error: MessageError,
        /// It had a task.
        was_open: bool,
    },
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to, and nothing is left to do.
    Drained,
    /// The peer has closed it, or it has failed.
    Gone,
    /// The peer breaks the rules of the connection, and is to be [told](Session::poll_write).
    Broken(ConnectionError),
}

impl Session {
    pub(crate) fn new(driver: &Rc<Driver>, connection: Connection) -> Rc<Session> {
        Rc::new(Session {
            driver: driver.clone(),
            state: RefCell::new(State {
                connection,
                streams: Vec::new(),
                output: Vec::new(),
                counted: 0,
                waiting: Vec::new(),
            }),
            task: Waiter::default(),
            is_settled: Cell::new(false),
            unsettled: Waiter::default(),
        })
    }

    /// Waits until the peer has said how many streams it allows, or the connection is gone.
    pub(crate) async fn settled(&self) {
        std::future::poll_fn(|cx| {
            if self.is_settled.get() {
                return Poll::Ready(());
            }
            self.unsettled.register(cx);
            Poll::Pending
        })
        .await;
    }

    fn settle(&self) {
        self.is_settled.set(true);
        self.unsettled.wake(&self.driver);
    }

    /// Moves bytes both ways on `socket` until the connection ends. What is left to the caller to do is told
    /// to `heed`.
    pub(crate) fn poll_run(
        &self,
        cx: &Context<'_>,
        socket: &transport::Stream,
        mut heed: impl FnMut(Notice),
    ) -> Poll<End> {
        self.task.register(cx);
        if let Err(error) = self.on_time() {
            return Poll::Ready(End::Broken(error));
        }
        loop {
            match self.poll_write(cx, socket) {
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(())) if self.is_drained() => return Poll::Ready(End::Drained),
                _ => {}
            }
            ready!(socket.poll_heap(cx));
            let Ok(Some(chunk)) = ready!(socket.poll_receive(cx)) else {
                return Poll::Ready(End::Gone);
            };
            if let Err(error) = self.receive(&chunk, &mut heed) {
                return Poll::Ready(End::Broken(error));
            }
        }
    }

    fn receive(
        &self,
        mut input: &[u8],
        heed: &mut impl FnMut(Notice),
    ) -> Result<(), ConnectionError> {
        while !input.is_empty() {
            let (consumed, notice) = self.receive_frame(input)?;
            input = input.get(consumed..).unwrap_or_default();
            if let Some(notice) = notice {
                heed(notice);
            }
        }
        self.wake_writable();
        Ok(())
    }

    /// Takes at most a frame. Returns how many bytes are dealt with, and what the caller is to do about them.
    fn receive_frame(&self, input: &[u8]) -> Result<(usize, Option<Notice>), ConnectionError> {
        let mut state = self.state.borrow_mut();
        let step = state.connection.receive(input, self.driver.now_ns())?;
        let Some(event) = step.event else {
            return Ok((step.consumed, None));
        };
        let notice = match event {
            Event::Request { stream, end_stream } => Some(Notice::Request {
                id: stream,
                end_stream,
            }),
            Event::Refused {
                stream,
                error,
                end_stream,
            } => Some(Notice::Refused {
                id: stream,
                error,
                end_stream,
            }),
            Event::Data {
                stream,
                payload,
                end_stream,
            } => {
                self.on_data(&mut state, stream, payload, end_stream);
                None
            }
            Event::Trailers { stream } => {
                self.on_trailers(&mut state, stream);
                None
            }
            Event::Response { stream, end_stream } => {
                self.on_response(&mut state, stream, end_stream);
                None
            }
            Event::Reset { stream, code } => {
                let how = match code {
                    ErrorCode::REFUSED_STREAM => Gone::Refused,
                    _ => Gone::Lost,
                };
                self.on_gone(&state, stream, how);
                Some(Notice::Reset)
            }
            Event::Broken { stream, error } => {
                let was_open = self.on_gone(&state, stream, Gone::Lost);
                Some(Notice::Broken { error, was_open })
            }
            Event::GoAway { last, .. } => {
                let refused = state.streams.iter().filter(|slot| slot.id > last);
                refused.for_each(|slot| slot.set_gone(Gone::Refused, &self.driver));
                Some(Notice::GoAway)
            }
            Event::Settings => {
                self.settle();
                None
            }
        };
        Ok((step.consumed, notice))
    }

    /// Lends the head that was announced last.
    pub(crate) fn with_head<T>(&self, f: impl FnOnce(&mut HeaderBlock) -> T) -> T {
        f(self.state.borrow_mut().connection.head())
    }

    /// The stream that was announced last, for a task of its own. Its body will be read in `framing`.
    pub(crate) fn open(
        self: &Rc<Self>,
        id: StreamId,
        framing: Framing,
        end_stream: bool,
    ) -> Stream {
        let slot = Rc::new(Slot::new(id, Inbox::new(framing, end_stream)));
        self.state.borrow_mut().streams.push(slot.clone());
        Stream::new(self.clone(), slot)
    }

    /// Asks the peer for something: opens a stream with the head of a request.
    pub(crate) fn ask<'f>(
        self: &Rc<Self>,
        line: RequestLine<'f>,
        fields: impl Iterator<Item = FieldLine<'f>>,
        end_stream: bool,
        kind: RequestKind,
    ) -> Result<Stream, SendError> {
        let mut state = self.state.borrow_mut();
        let before = state.connection.output_bytes();
        let id = state.connection.send_request(line, fields, end_stream)?;
        let bytes = state.connection.output_bytes().saturating_sub(before);
        let slot = Rc::new(Slot::asking(id, kind));
        state.streams.push(slot.clone());
        drop(state);
        self.wake();
        Ok(Stream::asked(self.clone(), slot, bytes, end_stream))
    }

    /// Whether the peer takes an extended CONNECT (RFC 8441).
    pub(crate) fn takes_tunnels(&self) -> bool {
        self.state.borrow().connection.peer().extended_connect
    }

    /// How many streams may be opened now.
    pub(crate) fn streams_available(&self) -> usize {
        self.state.borrow().connection.streams_available()
    }

    /// Wakes streams whose windows have opened.
    fn wake_writable(&self) {
        let mut state = self.state.borrow_mut();
        while let Some(id) = state.connection.next_writable() {
            if let Some(slot) = state.find(id) {
                slot.wake_writer(&self.driver);
            }
        }
    }

    /// Hands output to the socket. Ready when there is none left, and the socket has taken all.
    pub(crate) fn poll_write(
        &self,
        cx: &Context<'_>,
        socket: &transport::Stream,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(socket.poll_flush(cx))?;
            let mut state = self.state.borrow_mut();
            if state.output.is_empty() && !state.connection.has_output() {
                return Poll::Ready(Ok(()));
            }
            let State {
                connection, output, ..
            } = &mut *state;
            connection.take_output(output);
            let bytes = std::mem::replace(output, self.driver.buffer());
            self.weigh(&mut state);
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            let sent = socket.poll_send(cx, &mut Some(Payload::head(bytes).weighing()));
            // Whatever came of it: who waits for room learns of a failure, too.
            if !waiting.is_empty() {
                waiting.into_iter().for_each(Waker::wake);
                self.driver.mark_runnable();
            }
            ready!(sent)?;
        }
    }

    /// Wakes the task of the connection.
    pub(super) fn wake(&self) {
        self.task.wake(&self.driver);
    }

    /// Does what is due.
    fn on_time(&self) -> Result<(), ConnectionError> {
        let now_ns = self.driver.now_ns();
        self.state.borrow_mut().connection.on_timeout(now_ns)
    }

    /// When the session is to be run next, if nothing happens before.
    pub(crate) fn next_time_ns(&self) -> u64 {
        let state = self.state.borrow();
        state.connection.next_timeout_ns().unwrap_or(u64::MAX)
    }

    /// Begins to end the connection without hurting a request.
    pub(crate) fn drain(&self) {
        let now_ns = self.driver.now_ns();
        self.state.borrow_mut().connection.drain(now_ns);
    }

    /// Whether a drain is over.
    fn is_drained(&self) -> bool {
        let state = self.state.borrow();
        state.streams.is_empty() && state.connection.is_drained()
    }

    /// Whether no stream has a task.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.borrow().streams.is_empty()
    }

    /// The connection is gone: so are all streams.
    pub(crate) fn lose_all(&self) {
        self.settle();
        let state = self.state.borrow();
        state
            .streams
            .iter()
            .for_each(|slot| slot.set_gone(Gone::Lost, &self.driver));
        drop(state);
        let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
        waiting.into_iter().for_each(Waker::wake);
        self.driver.mark_runnable();
    }

    /// The task of a stream is over.
    pub(super) fn close(&self, slot: &Slot, code: ErrorCode) {
        let mut state = self.state.borrow_mut();
        if let Ok(at) = state.place(slot.id) {
            state.streams.remove(at);
        }
        state.connection.reset(slot.id, code);
        drop(state);
        self.driver.release(slot.weight() as u64);
        self.wake();
    }

    /// Counts the output against the shard's budget.
    pub(super) fn weigh(&self, state: &mut State) {
        let (before, now) = (state.counted as u64, state.output.len() as u64);
        match now.checked_sub(before) {
            Some(more) => self.driver.hold(more),
            None => self.driver.release(before - now),
        }
        state.counted = state.output.len();
    }

    fn on_data(&self, state: &mut State, id: StreamId, payload: &[u8], end_stream: bool) {
        let Some(slot) = state.find(id) else {
            // Nobody will read it.
            state.connection.consume(id, payload.len());
            return;
        };
        let mut inbox = slot.inbox.borrow_mut();
        let weight = inbox.push(payload);
        if end_stream {
            inbox.finish();
        }
        drop(inbox);
        self.driver.hold(weight as u64);
        slot.wake_reader(&self.driver);
    }

    fn on_trailers(&self, state: &mut State, id: StreamId) {
        let Some((head, slot)) = state.head_for(id) else {
            return;
        };
        let mut inbox = slot.inbox.borrow_mut();
        // Behind the lines there is an empty one.
        let lines = head.text().strip_suffix(b"\r\n").unwrap_or_default();
        let weight = inbox.push_trailers(lines);
        inbox.finish();
        drop(inbox);
        self.driver.hold(weight as u64);
        slot.wake_reader(&self.driver);
    }

    fn on_response(&self, state: &mut State, id: StreamId, end_stream: bool) {
        let Some((head, slot)) = state.head_for(id) else {
            return;
        };
        let is_final = !head.is_interim();
        let mut answer = Box::<Answer>::default();
        head.take_response(!end_stream, slot.kind, &mut answer.head, &mut answer.text);
        if is_final {
            let framing = match answer.head.framing {
                _ if answer.head.tunnel => Framing::Tunnel,
                http1::Framing::Chunked => Framing::Chunked,
                _ => Framing::Length,
            };
            slot.inbox.replace(Inbox::new(framing, end_stream));
        }
        self.driver.hold(answer.text.len() as u64);
        slot.answers.borrow_mut().push_back(answer);
        slot.wake_reader(&self.driver);
    }

    /// Tells the stream's task, if it has one.
    fn on_gone(&self, state: &State, id: StreamId, how: Gone) -> bool {
        let slot = state.find(id);
        if let Some(slot) = slot {
            slot.set_gone(how, &self.driver);
        }
        slot.is_some()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        self.driver.release(state.counted as u64);
    }
}

impl State {
    /// Whether streams that have something to send must wait.
    pub(super) fn is_full(&self) -> bool {
        self.output.len() + self.connection.output_bytes() >= OUTPUT_BYTES_MAX
    }

    fn place(&self, id: StreamId) -> Result<usize, usize> {
        self.streams.binary_search_by_key(&id, |slot| slot.id)
    }

    /// The head that was announced last, and the stream that it is of.
    fn head_for(&mut self, id: StreamId) -> Option<(&mut HeaderBlock, &Rc<Slot>)> {
        let slot = self.streams.get(self.place(id).ok()?)?;
        Some((self.connection.head(), slot))
    }

    fn find(&self, id: StreamId) -> Option<&Rc<Slot>> {
        self.streams.get(self.place(id).ok()?)
    }
}
