//! The request on its way to the endpoint, body included, while its answer may already be coming back.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tidegate_codecs::{
    http1::{BodyTracker, Framing, RequestHead, trailer_fields},
    http2::FieldLine,
    limits::Http1Limits,
};
use tidegate_core::reason::Reason;

use super::{
    caller::Caller,
    exchange::{Pace, Refusal},
};
use crate::{
    http2,
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
    tracker: BodyTracker,
    /// Bytes of payload that the listener allows.
    payload_max: u64,
    /// Bytes taken from the client.
    taken: u64,
    /// Bytes of payload that went on.
    gone: u64,
    /// The client waits for a 100 before it sends.
    expects_continue: bool,
    /// In frames: of the trailer section, as far as it has come.
    trailers: Vec<u8>,
    /// What has come, for copies of the request.
    copy: Option<BodyCopy>,
}

/// All of a body, framing included, as long as it is not too large.
#[derive(Default)]
struct BodyCopy {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_cut: bool,
}

impl BodyCopy {
    fn push(&mut self, bytes: &[u8]) {
        if self.is_cut || self.bytes.len() + bytes.len() > self.bytes_max {
            self.is_cut = true;
            self.bytes = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }
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
            taken: 0,
            gone: 0,
            expects_continue: head.expect_continue,
            trailers: Vec::new(),
            copy: None,
        };
        Ok(Upload {
            body: Some(Box::new(body)),
            ..Upload::default()
        })
    }

    /// Keeps what comes of the body, up to `bytes_max`, for copies of the request.
    pub(super) fn keep_copy(&mut self, bytes_max: usize) {
        if let Some(body) = self.body.as_mut().filter(|body| body.taken == 0) {
            body.copy = Some(BodyCopy {
                bytes_max,
                ..BodyCopy::default()
            });
        }
    }

    /// The body, framing included, if all of it has come and was kept.
    pub(super) fn take_copy(&mut self) -> Option<Vec<u8>> {
        let Some(body) = &mut self.body else {
            return Some(Vec::new());
        };
        let copy = body.copy.take().filter(|copy| !copy.is_cut);
        copy.filter(|_| body.tracker.is_done())
            .map(|copy| copy.bytes)
    }

    /// Starts (again) with `head`.
    pub(super) fn begin(&mut self, head: Payload) {
        self.pending = Some(head);
        self.finished = false;
    }

    /// Starts (again) on a stream, whose head was sent.
    pub(super) fn begin_in_frames(&mut self) {
        self.finished = false;
    }

    /// Whether there is a body.
    pub(super) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Whether body bytes were taken from the client: they cannot be sent a second time.
    pub(super) fn has_taken_body(&self) -> bool {
        self.body.as_ref().is_some_and(|b| b.taken > 0)
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

    /// Runs `future` while the upload goes on. A client that breaks off ends both.
    pub(super) async fn alongside<T>(
        &mut self,
        caller: Caller<'_>,
        upstream: Callee<'_>,
        pace: Pace,
        future: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        let mut future = std::pin::pin!(future);
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
        while !self.is_read() && self.taken_bytes() < until {
            let received = caller.receive().await.map_err(|_| Reason::ClientGone)?;
            let mut chunk = received.ok_or(Reason::ClientGone)?;
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
            let chunk = match caller.poll_receive_for(cx, upstream) {
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
            let received = match ready!(caller.poll_receive(cx)) {
                Ok(received) => received,
                Err(error) => return Poll::Ready(Err(Refusal::of_client(&error))),
            };
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
                let Poll::Ready(sent) = upstream.poll_send(cx, payload, is_last) else {
                    caller.put_back(chunk);
                    return Poll::Pending;
                };
                let Ok(sent) = sent else {
                    // It may answer and take no more, so its answer decides.
                    return Poll::Ready(Ok(()));
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
            .filter(|b| b.taken == 0 && !b.tracker.is_done())
        else {
            return Ok(());
        };
        if self.pending.is_some()
            && let Some(chunk) = caller.try_receive()
        {
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
            .tracker
            .advance(&chunk)
            .map_err(|e| Refusal::with_detail(Reason::ClientBody, e.detail()))?;
        self.taken += n as u64;
        if let Some(copy) = &mut self.copy {
            copy.push(chunk.get(..n).unwrap_or_default());
        }
        if self.tracker.payload_bytes() > self.payload_max {
            return Err(Reason::BodyTooLarge.into());
        }
        if n == chunk.len() {
            return Ok(chunk);
        }
        let (chunk, rest) = chunk.split(n);
        rest.into_iter().for_each(|rest| caller.put_back(rest));
        Ok(chunk)
    }

    /// Goes over framing, up to the next payload; how much there is of that.
    fn follow(&mut self, chunk: &mut Chunk) -> Result<usize, Refusal> {
        let piece = self
            .tracker
            .next_payload(chunk)
            .map_err(|e| Refusal::with_detail(Reason::ClientBody, e.detail()))?;
        self.taken += piece.consumed as u64;
        if let Some(copy) = &mut self.copy {
            copy.push(chunk.get(..piece.consumed).unwrap_or_default());
        }
        if self.tracker.payload_bytes() > self.payload_max {
            return Err(Reason::BodyTooLarge.into());
        }
        let trailers = chunk.get(piece.trailers).unwrap_or_default();
        self.trailers.extend_from_slice(trailers);
        chunk.advance(piece.consumed - piece.payload.len());
        Ok(piece.payload.len())
    }

    /// What was followed went on, or was dropped, but for `passed` bytes.
    fn went(&mut self, caller: Caller<'_>, passed: usize) {
        let bytes = self.tracker.payload_bytes() - passed as u64;
        caller.consume(bytes - self.gone);
        self.gone = bytes;
    }
}
