//! The answer's body on its way to the client.

use std::task::{Context, Poll, ready};

use tidegate_codecs::{
    grpc::MessageCounter,
    http1::{BodyError, BodyTracker, Framing, trailer_fields},
    http2::FieldLine,
    limits::Http1Limits,
};
use tidegate_core::reason::Reason;

use super::{
    caller::Caller,
    exchange::{Pace, Refusal},
};
use crate::{
    downstream::{Client, ClientStream},
    http2,
    ring::{Chunk, Failed, Payload},
    upstream::Callee,
};

/// What was moved.
#[derive(Clone, Copy, Default)]
pub(super) struct Downloaded {
    /// The endpoint sent more than its framing says: the connection cannot be trusted any more.
    pub(super) has_excess: bool,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

/// The answer's bytes, from the endpoint to a client in HTTP/1. It holds at most one piece, which is the
/// back-pressure.
pub(super) struct Download {
    tracker: BodyTracker,
    dechunk: bool,
    pending: Option<Payload>,
    /// Bytes of payload that the endpoint was told to have gone on.
    consumed: u64,
    pub(super) done: Downloaded,
}

impl Download {
    pub(super) fn new(framing: Framing, dechunk: bool, head: Vec<u8>) -> Download {
        Download {
            tracker: BodyTracker::new(framing, &Http1Limits::default()),
            dechunk,
            pending: Some(Payload::head(head)),
            consumed: 0,
            done: Downloaded::default(),
        }
    }

    /// Takes a piece, to be sent behind what is pending. True if it was the last.
    pub(super) fn take(&mut self, upstream: Callee<'_>, mut chunk: Chunk) -> Result<bool, Refusal> {
        if self.dechunk {
            return self.take_payload(&chunk);
        }
        let n = self.tracker.advance(&chunk).map_err(broken)?;
        if n < chunk.len() {
            chunk.truncate(n);
            self.done.has_excess = true;
        }
        self.done.received_bytes += n as u64;
        if n > 0 {
            self.pending = Some(match self.pending.take() {
                Some(pending) => pending.followed_by(chunk),
                None => Payload::chunk(chunk),
            });
        }
        self.done.has_excess |= self.tracker.is_done() && upstream.has_received();
        Ok(self.tracker.is_done())
    }

    /// Takes only the payload out of a chunked piece, for a client that knows no chunks.
    fn take_payload(&mut self, chunk: &Chunk) -> Result<bool, Refusal> {
        let mut out = self
            .pending
            .take()
            .map(Payload::into_head)
            .unwrap_or_default();
        let mut rest: &[u8] = chunk;
        while !rest.is_empty() && !self.tracker.is_done() {
            let piece = self.tracker.next_payload(rest).map_err(broken)?;
            out.extend_from_slice(rest.get(piece.payload).unwrap_or_default());
            self.done.received_bytes += piece.consumed as u64;
            rest = rest.get(piece.consumed..).unwrap_or_default();
        }
        self.done.has_excess |= !rest.is_empty();
        self.pending = Some(Payload::head(out));
        Ok(self.tracker.is_done())
    }

    /// Sends what is pending.
    pub(super) async fn send(&mut self, client: &Client, pace: Pace) -> Result<(), Refusal> {
        if let Some(pending) = self.pending.take() {
            self.done.sent_bytes += pending.len() as u64;
            let sent = client.socket.send(pending).await;
            sent.map_err(|e| Refusal::of_client(&e))?;
            pace.moved(Caller::Http1(client));
        }
        Ok(())
    }

    /// The connection will be closed behind what is pending.
    pub(super) fn close_behind(&mut self) {
        self.pending = self.pending.take().map(Payload::before_close);
    }

    /// Sends, receives and sends, to the end of the body.
    pub(super) async fn run(
        &mut self,
        client: &Client,
        upstream: Callee<'_>,
        pace: Pace,
    ) -> Result<(), Refusal> {
        self.send(client, pace).await?;
        while !self.tracker.is_done() {
            let sink = &client.socket;
            let received = std::future::poll_fn(|cx| upstream.poll_receive_for(cx, sink)).await;
            match received {
                Ok(Some(chunk)) => {
                    pace.moved(Caller::Http1(client));
                    self.take(upstream, chunk)?;
                    self.send(client, pace).await?;
                    let passed = self.tracker.payload_bytes();
                    upstream.consume(passed - self.consumed);
                    self.consumed = passed;
                }
                Ok(None) => self.tracker.end_of_stream().map_err(broken)?,
                Err(Failed::Source(error)) => return Err(Refusal::of_upstream(&error)),
                Err(Failed::Sink(error)) => return Err(Refusal::of_client(&error)),
            }
        }
        Ok(())
    }
}

/// The answer's body, from the endpoint to a stream: payload in frames, trailers behind it.
///
/// What the stream's windows do not let through goes back to the endpoint's socket, which has limits on what
/// it holds; here there is nothing but how far it was followed.
pub(super) struct FrameDownload {
    tracker: BodyTracker,
    /// Payload that the tracker has passed and that was not sent: the first bytes that are received next.
    passed: usize,
    /// Of the trailer section, as far as it has come.
    trailers: Vec<u8>,
    /// Messages of gRPC in it, if they are counted.
    messages: Option<MessageCounter>,
    pub(super) done: Downloaded,
}

impl FrameDownload {
    pub(super) fn new(framing: Framing, counts_messages: bool) -> FrameDownload {
        FrameDownload {
            tracker: BodyTracker::new(framing, &Http1Limits::default()),
            passed: 0,
            trailers: Vec::new(),
            messages: counts_messages.then(MessageCounter::default),
            done: Downloaded::default(),
        }
    }

    /// Whether there is no body, or no more of it.
    pub(super) fn is_done(&self) -> bool {
        self.passed == 0 && self.tracker.is_done()
    }

    /// Messages that have come.
    pub(super) fn messages(&self) -> u64 {
        self.messages.map_or(0, |counter| counter.count())
    }

    /// A trailer of this name (lower case), once all have come.
    pub(super) fn trailer(&self, name: &str) -> Option<&[u8]> {
        let mut trailers = trailer_fields(&self.trailers);
        let found = trailers.find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value)
    }

    /// Receives and sends, to the end of the stream.
    pub(super) async fn run(
        &mut self,
        caller: Caller<'_>,
        on: &ClientStream,
        upstream: Callee<'_>,
        pace: Pace,
    ) -> Result<(), Refusal> {
        while !self.is_done() {
            std::future::poll_fn(|cx| self.poll_piece(cx, &on.stream, upstream)).await?;
            pace.moved(caller);
        }
        self.done.has_excess |= upstream.has_received();
        // None of an HTTP/1 connection: the tracker refuses those.
        let trailers = trailer_fields(&self.trailers);
        let ended = (on.stream).finish(trailers.map(|(name, value)| FieldLine::new(name, value)));
        ended.map_err(|e| Refusal::of_client(&e))
    }

    /// Receives a piece, and sends all of it that the windows let through.
    fn poll_piece(
        &mut self,
        cx: &Context<'_>,
        to: &http2::Stream,
        upstream: Callee<'_>,
    ) -> Poll<Result<(), Refusal>> {
        let received = ready!(upstream.poll_receive(cx));
        let Some(mut chunk) = received.map_err(|e| Refusal::of_upstream(&e))? else {
            return Poll::Ready(self.tracker.end_of_stream().map_err(broken));
        };
        let before = chunk.len();
        while !chunk.is_empty() && !self.is_done() {
            if self.passed == 0 {
                self.follow(&mut chunk)?;
                continue;
            }
            let here = self.passed.min(chunk.len());
            let payload = chunk.get(..here).unwrap_or_default();
            // Known only of a body with a length: chunks end behind their payload.
            let is_last = self.tracker.is_done() && here == self.passed;
            match to.poll_send(cx, payload, is_last) {
                Poll::Ready(sent) => {
                    let sent = sent.map_err(|e| Refusal::of_client(&e))?;
                    chunk.advance(sent);
                    self.passed -= sent;
                    upstream.consume(sent as u64);
                }
                Poll::Pending => {
                    let has_moved = chunk.len() < before;
                    upstream.put_back(chunk);
                    if has_moved {
                        return Poll::Ready(Ok(()));
                    }
                    // What waits for a window may be given up, for want of room.
                    let error = ready!(upstream.poll_cut_short(cx));
                    return Poll::Ready(Err(Refusal::of_upstream(&error)));
                }
            }
        }
        self.done.has_excess |= !chunk.is_empty();
        Poll::Ready(Ok(()))
    }

    /// Goes over framing, up to the next payload.
    fn follow(&mut self, chunk: &mut Chunk) -> Result<(), Refusal> {
        let piece = self.tracker.next_payload(chunk).map_err(broken)?;
        self.done.received_bytes += piece.consumed as u64;
        let trailers = chunk.get(piece.trailers).unwrap_or_default();
        self.trailers.extend_from_slice(trailers);
        if let Some(messages) = &mut self.messages {
            messages.advance(chunk.get(piece.payload.clone()).unwrap_or_default());
        }
        self.passed = piece.payload.len();
        chunk.advance(piece.consumed - self.passed);
        Ok(())
    }
}

fn broken(error: BodyError) -> Refusal {
    let reason = match error {
        BodyError::Truncated => Reason::UpstreamReset,
        _ => Reason::UpstreamProtocol,
    };
    Refusal::with_detail(reason, error.detail())
}
