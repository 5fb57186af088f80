//! The request on its way to the endpoint, body included, while its answer may already be coming back.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tidegate_codecs::{
    grpc::MessageCounter,
    http1::{BodyError, BodyTracker, Framing, RequestHead, trailer_fields},
    http2::FieldLine,
    limits::Http1Limits,
};
use tidegate_core::reason::Reason;

use super::{
    caller::Caller,
    exchange::{Pace, Refusal},
    replay::Replay,
};
use crate::{
    http2,
    local::Local,
    ring::{Chunk, Failed, Payload, is_over_budget},
    transport::Stream,
    upstream::Callee,
};

/// The request's own bytes, from the client to the endpoint. It holds at most one piece, which is the
/// back-pressure.
#[derive(Default)]
pub(super) struct Upload {
    /// `None` for a request without body.
    body: Option<Box<Body>>,
    pending: Option<Payload>,
    /// In frames: payload that was followed and is not sent, the first bytes that are received next.
    passed: usize,
    /// Everything was handed on; or the endpoint takes no more, and its answer decides.
    finished: bool,
    /// Bytes given to the endpoint's socket.
    pub(super) sent_bytes: u64,
}

struct Body {
    /// Where this try has come to.
    tracker: BodyTracker,
    /// Bytes of payload that the listener allows.
    payload_max: u64,
    /// Bytes that this try has taken.
    at: u64,
    /// Bytes taken from the client.
    taken: u64,
    /// Bytes of payload that went on, in whatever try.
    gone: u64,
    /// What is kept of it, if there may be another try.
    replay: Option<Rc<Replay>>,
    /// Of a try before: what this one has not taken yet, ahead of what the client sends.
    front: Option<Chunk>,
    /// The client waits for a 100 before it sends.
    expects_continue: bool,
    /// In frames: of the trailer section, as far as it has come.
    trailers: Vec<u8>,
    /// Messages of gRPC in it, if they are counted.
    messages: Option<MessageCounter>,
    /// What is kept of it for copies of the request.
    copy: Option<Rc<Replay>>,
}

impl Upload {
    /// The upload of a request with this head.
    pub(super) fn new(
        head: &RequestHead,
        limits: &Http1Limits,
        payload_max: Option<u64>,
    ) -> Result<Upload, Refusal> {
        let payload_max = payload_max.unwrap_or(u64::MAX);
        match head.framing {
            Framing::None => return Ok(Upload::default()),
            Framing::Length(length) if length > payload_max => {
                return Err(Reason::BodyTooLarge.into());
            }
            _ => {}
        }
        let body = Body {
            tracker: BodyTracker::new(head.framing, limits),
            payload_max,
            at: 0,
            taken: 0,
            gone: 0,
            replay: None,
            front: None,
            expects_continue: head.expect_continue,
            trailers: Vec::new(),
            copy: None,
            messages: None,
        };
        Ok(Upload {
            body: Some(Box::new(body)),
            ..Upload::default()
        })
    }

    /// Has what comes of the body kept for copies of the request, with the bounds of [`keep`](Self::keep).
    pub(super) fn keep_copy(&mut self, local: &Rc<Local>, bytes_max: usize, buffers: u64) {
        if let Some(body) = self.body.as_mut().filter(|body| body.taken == 0) {
            let start = body.tracker.clone();
            body.copy = Some(Replay::new(local, start, bytes_max, buffers));
        }
    }

    /// The body that was kept for copies, if all of it has come.
    pub(super) fn take_copy(&mut self) -> Option<Rc<Replay>> {
        let copy = self.body.as_mut()?.copy.take();
        copy.filter(|copy| copy.whole().is_some())
    }

    /// The same body as one of which all is kept; `None` if it is not. The client has nothing to do with it.
    pub(super) fn of_kept(replay: &Replay) -> Option<Upload> {
        let body = Body {
            tracker: replay.start(),
            payload_max: u64::MAX,
            at: 0,
            taken: 0,
            gone: u64::MAX,
            replay: None,
            front: Some(replay.copy()?),
            copy: None,
            expects_continue: false,
            trailers: Vec::new(),
            messages: None,
        };
        Some(Upload {
            body: Some(Box::new(body)),
            ..Upload::default()
        })
    }

    /// Has what comes of the body kept, so that it can be sent again: so many bytes of it, and of all bodies a part
    /// of `buffers`.
    pub(super) fn keep(&mut self, local: &Rc<Local>, bytes_max: usize, buffers: u64) {
        if let Some(body) = &mut self.body {
            let start = body.tracker.clone();
            body.replay = Some(Replay::new(local, start, bytes_max, buffers));
        }
    }

    /// Counts the messages of gRPC in the body.
    pub(super) fn count_messages(&mut self) {
        if let Some(body) = &mut self.body {
            body.messages = Some(MessageCounter::default());
        }
    }

    /// How many have come.
    pub(super) fn messages(&self) -> u64 {
        let counter = self.body.as_ref().and_then(|body| body.messages);
        counter.map_or(0, |counter| counter.count())
    }

    /// There will be no other try.
    pub(super) fn forget(&self) {
        if let Some(replay) = self.replay() {
            replay.forget();
        }
    }

    /// What is kept of the body, if it may be.
    pub(super) fn replay(&self) -> Option<&Rc<Replay>> {
        self.body.as_ref()?.replay.as_ref()
    }

    /// Starts (again) with `head`.
    pub(super) fn begin(&mut self, caller: Caller<'_>, head: Payload) {
        self.rewind(caller);
        self.pending = Some(head);
    }

    /// Starts (again) on a stream, whose head was sent.
    pub(super) fn begin_in_frames(&mut self, caller: Caller<'_>) {
        self.rewind(caller);
    }

    /// Goes back to the beginning of the body.
    fn rewind(&mut self, caller: Caller<'_>) {
        debug_assert!(self.is_at_hand());
        self.pending = None;
        self.finished = false;
        let passed = std::mem::take(&mut self.passed);
        if let Some(body) = &mut self.body
            && body.at > 0
        {
            body.rewind(caller, passed);
        }
    }

    /// The request went another way, all of it, in so many bytes.
    pub(super) fn went_beside(&mut self, caller: Caller<'_>, sent_bytes: u64) {
        self.pending = None;
        self.finished = true;
        self.sent_bytes = sent_bytes;
        let passed = std::mem::take(&mut self.passed);
        if let Some(body) = &mut self.body {
            body.skip(caller, passed);
            body.went(caller, 0);
        }
    }

    /// Whether there is a body.
    pub(super) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Whether the request can be sent from its beginning: nothing of its body was taken from the client, or all
    /// that was is kept.
    pub(super) fn is_at_hand(&self) -> bool {
        self.body.as_ref().is_none_or(|b| b.taken == 0)
            || self.replay().is_some_and(|replay| replay.is_kept())
    }

    /// Body bytes taken from the client.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |b| b.taken)
    }

    /// Whether the request was read to its end: what comes next is the next request.
    pub(super) fn is_read(&self) -> bool {
        // What was followed and is not sent went back to the client's side.
        self.passed == 0 && self.body.as_ref().is_none_or(|b| b.tracker.is_done())
    }

    /// Whether the request was handed to the endpoint to its end.
    pub(super) fn is_complete(&self) -> bool {
        self.is_read() && self.pending.is_none()
    }

    /// Whether the client may never send the body, since it waits for a 100 that did not come.
    pub(super) fn may_stay_unsent(&self) -> bool {
        self.body
            .as_ref()
            .is_some_and(|b| b.expects_continue && b.taken == 0)
    }

    /// Runs `future`, which the caller pins, while the upload goes on. A client that breaks off ends both.
    pub(super) async fn alongside<T>(
        &mut self,
        caller: Caller<'_>,
        upstream: Callee<'_>,
        pace: Pace,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Refusal> {
        std::future::poll_fn(|cx| {
            let was_finished = self.finished;
            if !was_finished {
                let uploaded = match upstream {
                    Callee::Http1(socket) => self.poll(cx, caller, socket, pace),
                    Callee::Http2(stream) => self.poll_in_frames(cx, caller, stream, pace),
                };
                if let Poll::Ready(uploaded) = uploaded {
                    uploaded?;
                    self.finished = true;
                }
            }
            // What HTTP/2 resets it does so ahead of what it has sent.
            if (was_finished || caller.is_http2())
                && let Poll::Ready(error) = caller.poll_failed(cx)
            {
                return Poll::Ready(Err(Refusal::of_client(&error)));
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Reads the rest of the body and drops it, at most `bytes_max` of it.
    pub(super) async fn discard(
        &mut self,
        caller: Caller<'_>,
        bytes_max: u64,
    ) -> Result<(), Refusal> {
        let until = self.taken_bytes().saturating_add(bytes_max);
        self.forget();
        while !self.is_read() && self.taken_bytes() < until {
            let front = self.body.as_mut().and_then(|body| body.front.take());
            let mut chunk = match front {
                Some(front) => front,
                None => {
                    let received = caller.receive().await.map_err(|_| Reason::ClientGone)?;
                    received.ok_or(Reason::ClientGone)?
                }
            };
            let passed = self.passed.min(chunk.len());
            chunk.advance(passed);
            self.passed -= passed;
            if let Some(body) = &mut self.body {
                body.take(caller, chunk)?;
                body.went(caller, self.passed);
            }
        }
        Ok(())
    }

    fn poll(
        &mut self,
        cx: &Context<'_>,
        caller: Caller<'_>,
        upstream: &Stream,
        pace: Pace,
    ) -> Poll<Result<(), Refusal>> {
        loop {
            self.join_waiting_body(caller)?;
            if let Some(pending) = &self.pending {
                let len = pending.len() as u64;
                match upstream.poll_send(cx, &mut self.pending) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(unsendable(&error)),
                    Poll::Ready(Ok(())) => self.sent_bytes += len,
                }
                if let Some(body) = &mut self.body {
                    body.went(caller, 0);
                }
                pace.moved(caller);
            }
            let Some(body) = self.body.as_mut().filter(|b| !b.tracker.is_done()) else {
                return Poll::Ready(Ok(()));
            };
            let front = body.front.take();
            let received = match front {
                Some(front) => Poll::Ready(Ok(Some(front))),
                None => caller.poll_receive_for(cx, upstream),
            };
            let chunk = match received {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(Failed::Sink(error))) => return Poll::Ready(unsendable(&error)),
                Poll::Ready(Err(Failed::Source(e))) => {
                    return Poll::Ready(Err(Refusal::of_client(&e)));
                }
                Poll::Ready(Ok(chunk)) => chunk.ok_or(CUT_SHORT)?,
            };
            self.pending = Some(Payload::chunk(body.take(caller, chunk)?));
        }
    }

    /// The same on a stream: payload in frames, trailers behind it. What its windows do not let through goes
    /// back to the client's side, which has limits on what it holds.
    fn poll_in_frames(
        &mut self,
        cx: &Context<'_>,
        caller: Caller<'_>,
        upstream: &http2::Stream,
        pace: Pace,
    ) -> Poll<Result<(), Refusal>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        while self.passed > 0 || !body.tracker.is_done() {
            let front = body.front.take();
            let is_front = front.is_some();
            let received = match front {
                Some(front) => Ok(Some(front)),
                None => ready!(caller.poll_receive(cx)),
            };
            let received = received.map_err(|error| Refusal::of_client(&error))?;
            let mut chunk = received.ok_or(CUT_SHORT)?;
            while !chunk.is_empty() {
                if self.passed == 0 && body.tracker.is_done() {
                    caller.put_back(chunk);
                    break;
                }
                if self.passed == 0 {
                    self.passed = body.follow(&mut chunk)?;
                    continue;
                }
                let here = self.passed.min(chunk.len());
                let is_last = body.tracker.is_done() && here == self.passed;
                let payload = chunk.get(..here).unwrap_or_default();
                let sent = upstream.poll_send(cx, payload, is_last);
                let Poll::Ready(Ok(sent)) = sent else {
                    match is_front {
                        true => body.front = Some(chunk),
                        false => caller.put_back(chunk),
                    }
                    // With an error: it may answer and take no more, so its answer decides.
                    return sent.map(|_| Ok(()));
                };
                chunk.advance(sent);
                self.passed -= sent;
                body.went(caller, self.passed);
                pace.moved(caller);
            }
        }
        let trailers = trailer_fields(&body.trailers);
        let ended = upstream.finish(trailers.map(|(name, value)| FieldLine::new(name, value)));
        self.sent_bytes = upstream.sent_bytes();
        // As above.
        drop(ended);
        Poll::Ready(Ok(()))
    }

    /// Lets a body that has arrived already travel with the head, in one send.
    fn join_waiting_body(&mut self, caller: Caller<'_>) -> Result<(), Refusal> {
        let Some(body) = self
            .body
            .as_mut()
            .filter(|b| b.at == 0 && !b.tracker.is_done())
        else {
            return Ok(());
        };
        if self.pending.is_none() {
            return Ok(());
        }
        let front = body.front.take();
        if let Some(chunk) = front.or_else(|| caller.try_receive()) {
            let chunk = body.take(caller, chunk)?;
            self.pending = self.pending.take().map(|head| head.followed_by(chunk));
        }
        Ok(())
    }
}

/// The endpoint takes no more. It may answer and close without reading on, so its answer decides; unless
/// it was we who cut it.
fn unsendable(error: &io::Error) -> Result<(), Refusal> {
    match is_over_budget(error) {
        true => Err(Reason::BufferBudget.into()),
        false => Ok(()),
    }
}

/// The client half-closed inside its body.
const CUT_SHORT: Refusal = Refusal {
    reason: Reason::ClientBody,
    status: Reason::ClientBody.status(),
    detail: "the connection ended inside the body",
};

impl Body {
    /// Takes of `chunk` what belongs to the body; the rest goes back to the socket.
    fn take(&mut self, caller: Caller<'_>, chunk: Chunk) -> Result<Chunk, Refusal> {
        let n = self
            .advance(&chunk)
            .map_err(|e| Refusal::with_detail(Reason::ClientBody, e.detail()))?;
        self.took(chunk.get(..n).unwrap_or_default())?;
        if n == chunk.len() {
            return Ok(chunk);
        }
        let (chunk, rest) = chunk.split(n);
        rest.into_iter().for_each(|rest| caller.put_back(rest));
        Ok(chunk)
    }

    /// Goes over what of `bytes` belongs to the body; how much that is.
    fn advance(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        let Some(messages) = &mut self.messages else {
            return self.tracker.advance(bytes);
        };
        let mut at = 0;
        while at < bytes.len() && !self.tracker.is_done() {
            let rest = bytes.get(at..).unwrap_or_default();
            let piece = self.tracker.next_payload(rest)?;
            messages.advance(rest.get(piece.payload).unwrap_or_default());
            at += piece.consumed;
        }
        Ok(at)
    }

    /// Goes over framing, up to the next payload; how much there is of that.
    fn follow(&mut self, chunk: &mut Chunk) -> Result<usize, Refusal> {
        let piece = self
            .tracker
            .next_payload(chunk)
            .map_err(|e| Refusal::with_detail(Reason::ClientBody, e.detail()))?;
        self.took(chunk.get(..piece.consumed).unwrap_or_default())?;
        let trailers = chunk.get(piece.trailers).unwrap_or_default();
        self.trailers.extend_from_slice(trailers);
        if let Some(messages) = &mut self.messages {
            messages.advance(chunk.get(piece.payload.clone()).unwrap_or_default());
        }
        chunk.advance(piece.consumed - piece.payload.len());
        Ok(piece.payload.len())
    }

    /// The tracker has gone over `bytes`.
    fn took(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let before = self.taken;
        self.at += bytes.len() as u64;
        self.taken = self.taken.max(self.at);
        if let Some(copy) = &mut self.copy {
            // What goes a second time was copied before.
            let new = (self.taken - before) as usize;
            let new = bytes.get(bytes.len() - new..).unwrap_or_default();
            copy.keep_for_copies(new, self.tracker.is_done());
        }
        if self.tracker.payload_bytes() > self.payload_max {
            return Err(Reason::BodyTooLarge.into());
        }
        if let Some(replay) = &self.replay {
            replay.keep(bytes, self.tracker.is_done());
        }
        Ok(())
    }

    /// What was followed went on, or was dropped, but for `passed` bytes.
    fn went(&mut self, caller: Caller<'_>, passed: usize) {
        let bytes = self.tracker.payload_bytes() - passed as u64;
        // What goes a second time was told before.
        caller.consume(bytes.saturating_sub(self.gone));
        self.gone = self.gone.max(bytes);
    }

    /// Goes back to its beginning. The next `passed` bytes were followed, and so are kept already.
    fn rewind(&mut self, caller: Caller<'_>, passed: usize) {
        self.skip(caller, passed);
        let Some(replay) = &self.replay else {
            return;
        };
        let rest = self.front.take();
        self.front = Some(replay.rewind(rest.as_deref().unwrap_or_default()));
        self.tracker = replay.start();
        self.at = 0;
        self.trailers.clear();
        self.messages = self.messages.map(|_| MessageCounter::default());
    }

    /// Drops the next bytes, which were put back.
    fn skip(&mut self, caller: Caller<'_>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if let Some(front) = &mut self.front {
            front.advance(bytes);
        } else if let Some(mut chunk) = caller.try_receive() {
            chunk.advance(bytes);
            caller.put_back(chunk);
        }
    }
}
