//! One stream, as the task of its exchange sees it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tidegate_codecs::{
    http1::{RequestKind, ResponseHead},
    http2::{ErrorCode, FieldLine, SendError, StreamId},
};

use super::{
    inbox::{Framing, Inbox},
    session::Session,
    waiter::Waiter,
};
use crate::{
    ring::{Chunk, Driver, Failed},
    transport,
};

/// What the connection keeps of a stream that has a task.
pub(super) struct Slot {
    pub(super) id: StreamId,
    pub(super) inbox: RefCell<Inbox>,
    /// The stream's task, if it waits for what comes, or for its end.
    reader: Waiter,
    /// The stream's task, if it waits for a window.
    writer: Waiter,
    /// Reset, or the connection is gone.
    gone: Cell<Option<Gone>>,
    /// Of a stream that we have opened: what was asked, and the heads that came back.
    pub(super) kind: RequestKind,
    pub(super) answers: RefCell<VecDeque<Box<Answer>>>,
    /// Bytes that were put back.
    front: Cell<Option<Chunk>>,
}

/// How a stream ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// What the peer did about it is not known.
    Lost,
    /// The peer did nothing about it.
    Refused,
}

impl Gone {
    fn error(self) -> io::Error {
        match self {
            Gone::Lost => io::ErrorKind::ConnectionReset.into(),
            Gone::Refused => io::ErrorKind::ConnectionRefused.into(),
        }
    }
}

/// The head of an answer.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    /// The head as HTTP/1 has it.
    pub(super) text: Vec<u8>,
}

impl Slot {
    pub(super) fn new(id: StreamId, inbox: Inbox) -> Slot {
        Slot {
            id,
            inbox: RefCell::new(inbox),
            reader: Waiter::default(),
            writer: Waiter::default(),
            gone: Cell::new(None),
            kind: RequestKind::Other,
            answers: RefCell::default(),
            front: Cell::new(None),
        }
    }

    /// Of a stream that we have opened.
    pub(super) fn asking(id: StreamId, kind: RequestKind) -> Slot {
        Slot {
            kind,
            ..Slot::new(id, Inbox::new(Framing::Length, false))
        }
    }

    /// Bytes of heap it holds.
    pub(super) fn weight(&self) -> usize {
        let answers = self.answers.borrow();
        let heads: usize = answers.iter().map(|answer| answer.text.len()).sum();
        self.inbox.borrow().weight() + heads
    }

    pub(super) fn wake_reader(&self, driver: &Driver) {
        self.reader.wake(driver);
    }

    pub(super) fn wake_writer(&self, driver: &Driver) {
        self.writer.wake(driver);
    }

    pub(super) fn set_gone(&self, how: Gone, driver: &Driver) {
        self.gone.set(self.gone.get().or(Some(how)));
        self.wake_reader(driver);
        self.wake_writer(driver);
    }
}

/// A stream. Dropping it resets it, unless both sides have ended; that is no error once ours has.
pub(crate) struct Stream {
    session: Rc<Session>,
    slot: Rc<Slot>,
    /// Our side has ended.
    has_ended: Cell<bool>,
    /// What dropping it says before our side has ended.
    code: Cell<ErrorCode>,
    sent_bytes: Cell<u64>,
}

impl Stream {
    pub(super) fn new(session: Rc<Session>, slot: Rc<Slot>) -> Stream {
        Stream {
            session,
            slot,
            has_ended: Cell::new(false),
            code: Cell::new(ErrorCode::INTERNAL_ERROR),
            sent_bytes: Cell::new(0),
        }
    }

    /// One that we have opened, with a head of so many bytes.
    pub(super) fn asked(
        session: Rc<Session>,
        slot: Rc<Slot>,
        head_bytes: usize,
        has_ended: bool,
    ) -> Stream {
        Stream {
            session,
            slot,
            has_ended: Cell::new(has_ended),
            code: Cell::new(ErrorCode::CANCEL),
            sent_bytes: Cell::new(head_bytes as u64),
        }
    }

    /// The next head of an answer: its text, with the spans of `head` into it.
    pub(crate) fn poll_head(
        &self,
        cx: &Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<io::Result<Chunk>> {
        if let Some(answer) = self.slot.answers.borrow_mut().pop_front() {
            *head = answer.head;
            self.session.driver.release(answer.text.len() as u64);
            return Poll::Ready(Ok(Chunk::from_vec(&self.session.driver, answer.text)));
        }
        self.poll_failed(cx).map(Err)
    }

    /// See [`transport::Stream::put_back`].
    pub(crate) fn put_back(&self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.slot.front.set(Some(chunk));
        }
    }

    /// Whether something waits to be read.
    pub(crate) fn has_received(&self) -> bool {
        let front = self.slot.front.take();
        let has_front = front.is_some();
        self.slot.front.set(front);
        has_front || self.slot.inbox.borrow().is_ready()
    }

    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.slot.id.number()
    }

    /// Bytes sent on it, frames included.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Whether it was reset, or the connection is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.slot.gone.get().is_some()
    }

    /// Has the peer told, when the stream is dropped, that nothing was done of the request: it may try it
    /// elsewhere.
    pub(crate) fn refuse(&self) {
        self.code.set(ErrorCode::REFUSED_STREAM);
    }

    /// More of the body, in the framing that was asked for. Not called again after its end, which only a tunnel
    /// tells by `None`.
    pub(crate) fn poll_receive(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if let Some(chunk) = self.try_receive() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        if self.slot.inbox.borrow().is_at_end() {
            return Poll::Ready(Ok(None));
        }
        self.poll_failed(cx).map(Err)
    }

    /// See [`transport::Stream::poll_receive_for`].
    pub(crate) fn poll_receive_for(
        &self,
        cx: &Context<'_>,
        sink: &transport::Stream,
    ) -> Poll<Result<Option<Chunk>, Failed>> {
        if self.has_received() && sink.poll_flush(cx).map_err(Failed::Sink)?.is_pending() {
            return Poll::Pending;
        }
        self.poll_receive(cx).map_err(Failed::Source)
    }

    /// More of the body that is already here.
    pub(crate) fn try_receive(&self) -> Option<Chunk> {
        if let Some(front) = self.slot.front.take() {
            return Some(front);
        }
        let mut inbox = self.slot.inbox.borrow_mut();
        let weight = inbox.weight();
        let taken = inbox.take(&self.session.driver)?;
        self.session
            .driver
            .release(weight.saturating_sub(inbox.weight()) as u64);
        Some(taken)
    }

    /// Resolves when the stream [is gone](Stream::is_gone).
    pub(crate) fn poll_failed(&self, cx: &Context<'_>) -> Poll<io::Error> {
        if let Some(gone) = self.slot.gone.get() {
            return Poll::Ready(gone.error());
        }
        self.slot.reader.register(cx);
        Poll::Pending
    }

    /// Resolves when the stream is gone before all of the body has come.
    pub(crate) fn poll_cut_short(&self, cx: &Context<'_>) -> Poll<io::Error> {
        if self.slot.inbox.borrow().is_whole() {
            return Poll::Pending;
        }
        self.poll_failed(cx)
    }

    /// `bytes` of the body went on: the peer may send as many again.
    pub(crate) fn consume(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = self.session.state.borrow_mut();
        state.connection.consume(self.slot.id, bytes);
        let has_output = state.connection.has_output();
        drop(state);
        if has_output {
            self.session.wake();
        }
    }

    /// Sends the head of an answer, an interim one or the final one.
    pub(crate) async fn send_head(
        &self,
        status: u16,
        fields: impl Iterator<Item = FieldLine<'_>>,
        end_stream: bool,
    ) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        let mut state = self.session.state.borrow_mut();
        let before = state.connection.output_bytes();
        let sent = (state.connection).send_response(self.slot.id, status, fields, end_stream);
        let bytes = state.connection.output_bytes().saturating_sub(before);
        drop(state);
        self.went(bytes, end_stream, sent.map_err(gone))
    }

    /// Sends of `bytes` what the windows let through, and with the last of them the end, if `is_last`.
    /// How many went; something, unless there is nothing.
    pub(crate) fn poll_send(
        &self,
        cx: &Context<'_>,
        bytes: &[u8],
        is_last: bool,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(cx))?;
        let now_ns = self.session.driver.now_ns();
        let mut state = self.session.state.borrow_mut();
        let granted = (state.connection).send_data(self.slot.id, bytes.len(), is_last, now_ns);
        let granted = match granted {
            Ok(granted) => granted,
            Err(error) => {
                drop(state);
                // It may be the connection that has failed with this, which its task must hear of.
                self.session.wake();
                return Poll::Ready(Err(gone(error)));
            }
        };
        if granted == 0 && !bytes.is_empty() {
            self.slot.writer.register(cx);
            return Poll::Pending;
        }
        let before = state.output.len();
        let super::session::State {
            connection, output, ..
        } = &mut *state;
        connection.take_output(output);
        output.extend_from_slice(bytes.get(..granted).unwrap_or_default());
        let added = state.output.len() - before;
        self.session.weigh(&mut state);
        drop(state);
        let ends = is_last && granted == bytes.len();
        Poll::Ready(self.went(added, ends, Ok(())).map(|()| granted))
    }

    /// Sends all of `bytes`, and the end.
    pub(crate) async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = std::future::poll_fn(|cx| self.poll_send(cx, bytes, true)).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends our side, with trailers if there are any.
    pub(crate) fn finish<'f>(
        &self,
        trailers: impl Iterator<Item = FieldLine<'f>>,
    ) -> io::Result<()> {
        if self.has_ended.get() {
            return Ok(());
        }
        let mut trailers = trailers.peekable();
        let now_ns = self.session.driver.now_ns();
        let mut state = self.session.state.borrow_mut();
        let before = state.connection.output_bytes();
        let sent = match trailers.peek() {
            Some(_) => (state.connection).send_trailers(self.slot.id, trailers),
            None => (state.connection)
                .send_data(self.slot.id, 0, true, now_ns)
                .map(|_| ()),
        };
        let bytes = state.connection.output_bytes().saturating_sub(before);
        drop(state);
        self.went(bytes, true, sent.map_err(gone))
    }

    /// Notes that something was written, and has it sent.
    fn went(&self, bytes: usize, ends: bool, sent: io::Result<()>) -> io::Result<()> {
        self.session.wake();
        sent?;
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
        self.has_ended.set(self.has_ended.get() || ends);
        Ok(())
    }

    /// Whether the connection's output has room.
    pub(crate) fn has_room(&self) -> bool {
        !self.session.state.borrow().is_full()
    }

    /// Waits until the connection's output has room.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(gone) = self.slot.gone.get() {
            return Poll::Ready(Err(gone.error()));
        }
        let mut state = self.session.state.borrow_mut();
        if !state.is_full() {
            return Poll::Ready(Ok(()));
        }
        let is_known = |waker: &Waker| waker.will_wake(cx.waker());
        if !state.waiting.iter().any(is_known) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let code = match self.code.get() {
            // Of one that we have opened, the answer is not wanted any more.
            ErrorCode::CANCEL => ErrorCode::CANCEL,
            // RFC 9113, 8.1: the answer is whole, and what is left of the request is not wanted.
            _ if self.has_ended.get() => ErrorCode::NO_ERROR,
            code => code,
        };
        self.session.close(&self.slot, code);
    }
}

/// A command that came too late: the stream is gone, or the connection.
fn gone(error: SendError) -> io::Error {
    debug_assert!(error != SendError::OutOfOrder);
    io::ErrorKind::ConnectionReset.into()
}
