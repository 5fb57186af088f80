//! A TLS connection on its socket, once the handshake is through.
//!
//! Records are decrypted when somebody asks for data, not before: until then they lie in the driver's
//! buffers, whose limits are the back-pressure. A record that spans two chunks is joined in a vector that
//! goes when it is empty, so an idle connection holds no buffer.

use std::{
    cell::{Cell, Ref, RefCell, RefMut},
    io,
    task::{Context, Poll, ready},
};

use rustls::pki_types::CertificateDer;

use super::{
    TlsFacts,
    session::{Processed, Progress, Session, missing},
};
use crate::ring::{Chunk, Payload, Socket};

/// Bytes of a record's header.
const RECORD_HEADER: usize = 5;

/// The TLS side of a connection.
pub(super) struct Encrypted {
    pub(super) facts: TlsFacts,
    /// The peer was let in, and would not be any more.
    pub(super) distrusted: Cell<bool>,
    /// Its place among the clients that were let in.
    pub(super) place: Cell<usize>,
    state: RefCell<State>,
}

struct State {
    session: Session,
    input: Input,
    /// Plaintext that was not taken yet; the next is the last.
    ready: Vec<Chunk>,
    /// What must go before anything else that is sent. Bounded: rustls queues one answer at a time.
    out: Vec<u8>,
    /// The close that follows is a reset: no farewell.
    is_reset: bool,
}

/// What was received and is not decrypted yet.
#[derive(Default)]
struct Input {
    /// A record that spans chunks; or messages of the handshake that rustls wants to see again.
    partial: Vec<u8>,
    /// `partial` may hold whole records that were not processed.
    has_more: bool,
    /// Invariant: follows `partial`, if that is not empty.
    chunk: Option<Chunk>,
}

impl Encrypted {
    /// `rest` is what of the received bytes the handshake has left, `early` plaintext that came with it.
    pub(super) fn new(session: Session, facts: TlsFacts, rest: Rest) -> Encrypted {
        Encrypted {
            facts,
            distrusted: Cell::new(false),
            place: Cell::new(0),
            state: RefCell::new(State {
                session,
                input: Input {
                    partial: rest.input,
                    has_more: rest.has_more,
                    chunk: None,
                },
                ready: rest.early.into_iter().collect(),
                out: Vec::new(),
                is_reset: false,
            }),
        }
    }

    /// What the peer has shown, the leaf first.
    pub(super) fn peer_certificates(&self) -> Ref<'_, [CertificateDer<'static>]> {
        Ref::map(self.state.borrow(), |state| {
            state.session.peer_certificates()
        })
    }

    /// See [`Stream::poll_receive`](super::Stream::poll_receive). The end of the stream without a
    /// close_notify is an error: somebody may have cut it short (RFC 8446, 6.1).
    pub(super) fn poll_receive(
        &self,
        socket: &Socket,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        let mut state = self.state.borrow_mut();
        loop {
            if let Some(chunk) = state.ready.pop() {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if state.input.is_pending() {
                ready!(socket.poll_heap(cx));
            }
            if let Some(chunk) = state.decrypt(socket)? {
                return Poll::Ready(Ok(Some(chunk)));
            }
            if state.session.peer_has_closed() {
                return Poll::Ready(Ok(None));
            }
            match ready!(socket.poll_receive(cx))? {
                Some(chunk) => state.input.chunk = Some(chunk),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Plaintext of what is already here.
    pub(super) fn try_receive(&self, socket: &Socket) -> Option<Chunk> {
        let mut state = self.state.borrow_mut();
        state.digest(socket);
        state.ready.pop()
    }

    pub(super) fn put_back(&self, chunk: Chunk) {
        self.state.borrow_mut().ready.push(chunk);
    }

    /// Whether anything waits to be read, decrypted or not.
    pub(super) fn has_any(&self, socket: &Socket) -> bool {
        let state = self.state.borrow();
        !state.ready.is_empty() || state.input.is_pending() || socket.has_received()
    }

    /// Whether plaintext waits to be read. Tickets and key updates are none: they are taken in.
    pub(super) fn has_received(&self, socket: &Socket) -> bool {
        let mut state = self.state.borrow_mut();
        state.digest(socket);
        !state.ready.is_empty()
    }

    /// Whether nothing came beyond what was read, tickets and key updates aside.
    pub(super) fn is_settled(&self, socket: &Socket) -> bool {
        let mut state = self.state.borrow_mut();
        state.digest(socket);
        state.ready.is_empty()
            && state.input.is_empty()
            && !state.session.has_failed()
            && !state.session.peer_has_closed()
    }

    /// See [`Stream::poll_send`](super::Stream::poll_send). One encrypted payload is under way at a time.
    pub(super) fn poll_send(
        &self,
        socket: &Socket,
        cx: &Context<'_>,
        payload: &mut Option<Payload>,
    ) -> Poll<io::Result<()>> {
        ready!(socket.poll_flush(cx))?;
        let Some(plain) = payload.take() else {
            return Poll::Ready(Ok(()));
        };
        let mut state = self.state.borrow_mut();
        let driver = socket.driver();
        let is_last = plain.is_last();
        let (head, body) = plain.take_apart();
        let mut out = state.take_out(socket);
        let body_bytes = body.as_deref().unwrap_or_default();
        state.encrypt(&head, body_bytes, &mut out)?;
        if is_last {
            state.close(&mut out)?;
        }
        drop(body);
        driver.keep_buffer(head);
        let mut cipher = Payload::head(out).weighing();
        if is_last {
            cipher = cipher.before_close();
        }
        drop(state);
        socket.poll_send(cx, &mut Some(cipher))
    }

    /// Says that we send no more, after everything was taken by the kernel.
    pub(super) fn poll_close(&self, socket: &Socket, cx: &Context<'_>) -> Poll<io::Result<()>> {
        ready!(socket.poll_flush(cx))?;
        let mut state = self.state.borrow_mut();
        if state.session.has_closed() {
            return Poll::Ready(Ok(()));
        }
        let mut out = state.take_out(socket);
        state.close(&mut out)?;
        drop(state);
        ready!(socket.poll_send(cx, &mut Some(Payload::head(out))))?;
        socket.poll_flush(cx)
    }

    /// The socket will be closed by a reset: no farewell.
    pub(super) fn reset(&self) {
        self.state.borrow_mut().is_reset = true;
    }

    /// Tells the peer that the close that follows is meant (RFC 8446, 6.1), if it can be told at once.
    pub(super) fn say_farewell(&self, socket: &Socket) {
        let mut state = self.borrow_mut();
        let is_told = state.session.has_closed() || state.session.has_failed() || state.is_reset;
        if is_told || socket.is_sending() || socket.has_ended() {
            return;
        }
        let mut out = state.take_out(socket);
        if state.close(&mut out).is_ok() {
            socket.send_now(&out);
        }
    }

    fn borrow_mut(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }
}

/// What a handshake leaves.
pub(super) struct Rest {
    pub(super) input: Vec<u8>,
    /// `input` may hold whole records that were not processed.
    pub(super) has_more: bool,
    pub(super) early: Option<Chunk>,
}

impl State {
    /// Takes in what has arrived, up to the next plaintext, if the shard's budget allows.
    fn digest(&mut self, socket: &Socket) {
        while self.ready.is_empty() && !socket.driver().is_heap_short() {
            match self.decrypt(socket) {
                Ok(Some(chunk)) => self.ready.push(chunk),
                // A failure shows at the next receive.
                Err(_) => return,
                Ok(None) => match socket.try_receive() {
                    Some(chunk) => self.input.chunk = Some(chunk),
                    None => return,
                },
            }
        }
    }

    /// Decrypts what is there, until there is plaintext or nothing more can be.
    fn decrypt(&mut self, socket: &Socket) -> io::Result<Option<Chunk>> {
        if self.session.has_failed() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut plain = Vec::new();
        while let Some(processed) = self
            .input
            .advance(&mut self.session, &mut plain, &mut self.out)
        {
            if processed.is_err() {
                let alert = std::mem::take(&mut self.out);
                socket.send_now(&alert);
                self.input = Input::default();
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !plain.is_empty() && (self.input.has_more || self.input.chunk.is_none()) {
                break;
            }
        }
        self.answer(socket);
        if plain.is_empty() {
            return Ok(None);
        }
        Ok(Some(Chunk::from_vec(socket.driver(), plain)))
    }

    /// Sends what the session says of itself, such as no to a renegotiation: the peer may wait for it. What
    /// cannot go now goes before what is sent next.
    fn answer(&mut self, socket: &Socket) {
        if !self.out.is_empty() {
            let taken = socket.send_now(&self.out);
            self.out.drain(..taken);
        }
    }

    fn encrypt(&mut self, head: &[u8], body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let retained = self.input.retained();
        let encrypted = self.session.encrypt(head, body, retained, out);
        encrypted.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn close(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let closed = self.session.close(self.input.retained(), out);
        closed.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// A buffer to encrypt into, with what must go first.
    fn take_out(&mut self, socket: &Socket) -> Vec<u8> {
        match self.out.is_empty() {
            true => socket.driver().buffer(),
            false => std::mem::take(&mut self.out),
        }
    }
}

impl Input {
    fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.chunk.is_none()
    }

    /// Whether there may be a whole record to process.
    fn is_pending(&self) -> bool {
        self.has_more || self.chunk.is_some()
    }

    /// What rustls wants to see again when it writes.
    fn retained(&mut self) -> &mut [u8] {
        match self.has_more {
            // Not while plaintext may be in it; then no message of the handshake is incomplete
            // (RFC 8446, 5.1).
            true => &mut [],
            false => &mut self.partial,
        }
    }

    /// Processes the next whole records; `None` if there are none.
    fn advance(
        &mut self,
        session: &mut Session,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), rustls::Error>> {
        if session.peer_has_closed() {
            *self = Input::default();
            return None;
        }
        if self.partial.is_empty() {
            return self.advance_chunk(session, plain, out);
        }
        if !self.has_more && !self.complete() {
            return None;
        }
        let Processed { discard, progress } = session.process(&mut self.partial, plain, out);
        self.has_more = progress == Ok(Progress::More);
        if discard >= self.partial.len() {
            self.partial = Vec::new();
        } else {
            self.partial.drain(..discard);
        }
        Some(progress.map(|_| ()))
    }

    /// Processes records where they lie; what is left at the end of the chunk moves to `partial`.
    fn advance_chunk(
        &mut self,
        session: &mut Session,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), rustls::Error>> {
        let mut chunk = self.chunk.take()?;
        plain.reserve_exact(chunk.len());
        let Processed { discard, progress } = session.process(chunk.bytes_mut(), plain, out);
        chunk.advance(discard);
        self.has_more = false;
        match progress {
            Ok(Progress::More) if !chunk.is_empty() => self.chunk = Some(chunk),
            _ if !chunk.is_empty() => self.partial = chunk.to_vec(),
            _ => {}
        }
        Some(progress.map(|_| ()))
    }

    /// Completes the record at the end of `partial` from the chunk. True if it is whole.
    fn complete(&mut self) -> bool {
        // Whole records are there for rustls to see again, with the one that follows.
        let mut lacking = match missing(&self.partial) {
            0 => RECORD_HEADER,
            lacking => lacking,
        };
        while lacking > 0 {
            let Some(chunk) = &mut self.chunk else {
                return false;
            };
            let n = lacking.min(chunk.len());
            self.partial
                .extend_from_slice(chunk.get(..n).unwrap_or_default());
            chunk.advance(n);
            if chunk.is_empty() {
                self.chunk = None;
            }
            lacking = missing(&self.partial);
        }
        true
    }
}
