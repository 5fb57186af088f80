//! The answer on its way to the client.

use std::{
    pin::pin,
    task::{Poll, ready},
};

use tidegate_codecs::{
    grpc,
    http1::{Framing, ResponseEdits, Version, forward_response},
    http2::response_fields,
};
use tidegate_core::{config::model::HeaderEdits, reason::Reason, snapshot::Route};

use super::{
    Next,
    caller::Caller,
    download::{Download, Downloaded, FrameDownload},
    exchange::{Exchange, Refusal},
};
use crate::{
    downstream::{Client, ClientStream},
    ring::{Chunk, Elapsed, Payload},
    upstream::{Callee, Destination, Leg},
};

/// What came of moving a body.
type Moved = Result<Result<(), Refusal>, Elapsed>;

impl<'a> Exchange<'a> {
    /// Passes the answer on whose head is parsed, and which begins with `chunk`.
    pub(super) async fn answer(
        &mut self,
        route: &'a Route,
        to: Destination<'_>,
        leg: Leg,
        mut chunk: Chunk,
    ) -> Result<Next, Refusal> {
        self.upload.forget();
        if self.has_switched()? {
            return self.tunnel(route, leg, chunk).await;
        }
        let callee = leg.callee().ok_or(Reason::UpstreamReset)?;
        let framing = self.scratch.response.framing;
        if let Framing::Length(length) = framing {
            callee.expect(length);
        }
        let dechunk =
            framing == Framing::Chunked && self.scratch.request.version == Version::Http10;
        let mut keep = match self.caller {
            Caller::Http1(_) => self.may_keep() && framing != Framing::UntilClose && !dechunk,
            // The connection sees to itself.
            Caller::Http2(_) => true,
        };
        let edits = &route.response_headers;
        self.status = self.scratch.response.status;
        self.answering = true;
        self.pace().moved(self.caller);
        let passed = match self.caller {
            Caller::Http1(client) => {
                let head = self.write_response_head(&chunk, edits, keep, dechunk);
                chunk.advance(self.scratch.response.len);
                self.count_added();
                let download = Download::new(framing, dechunk, head);
                self.pass_bytes(client, callee, chunk, download, keep).await
            }
            Caller::Http2(on) => {
                chunk = self.wait_for_room(on, callee, chunk).await?;
                let is_call = self.is_grpc();
                let counts_messages = is_call && route.methods.is_some();
                let download = FrameDownload::new(framing, counts_messages);
                let status = self.scratch.response.field(&chunk, grpc::STATUS);
                self.note_grpc_status(is_call, status);
                self.send_response_head(on, &chunk, edits, download.is_done())
                    .await?;
                chunk.advance(self.scratch.response.len);
                self.count_added();
                self.pass_frames(on, callee, chunk, download, is_call).await
            }
        };
        let (moved, download) = passed?;
        let client = self.client;
        self.times.ended_ns = client.local.driver.clock_ns();
        self.sent_bytes += download.sent_bytes;
        self.received_bytes += self.upload.taken_bytes();
        self.count_upstream(&leg, download.received_bytes);
        match moved {
            Ok(moved) => moved?,
            Err(_) if client.local.driver.now_ns() >= self.until_ns => {
                return Err(Reason::RequestTimeout.into());
            }
            Err(_) => return Err(Reason::IdleTimeout.into()),
        }
        if !self.upload.is_complete() {
            // An early answer: what is left of the request is nobody's, on either connection.
            keep = false;
        } else if self.scratch.response.keep_alive && !download.has_excess {
            leg.check_in(to);
        }
        Ok(match (keep, self.upload.is_read()) {
            (true, _) => Next::KeepAlive,
            (false, true) => Next::Close,
            (false, false) => Next::Linger,
        })
    }

    /// Passes the rest of an answer on as it comes, of which `chunk` is here.
    async fn pass_bytes(
        &mut self,
        client: &Client,
        upstream: Callee<'_>,
        chunk: Chunk,
        mut download: Download,
        keep: bool,
    ) -> Result<(Moved, Downloaded), Refusal> {
        let whole = download.take(upstream, chunk)?;
        let pace = self.pace();
        let moved = if whole && self.upload.is_complete() {
            // The usual case, without the machinery: everything is here.
            if !keep {
                download.close_behind();
            }
            let sending = download.send(client, pace);
            client.deadline.bound(pin!(sending)).await
        } else {
            let streaming = pin!(download.run(client, upstream, pace));
            let both = (self.upload).alongside(self.caller, upstream, pace, streaming);
            let moved = client.deadline.bound(pin!(both)).await;
            moved.map(|r| r.and_then(|r| r))
        };
        Ok((moved, download.done))
    }

    /// Passes the rest of an answer on in frames, of which `chunk` is here.
    async fn pass_frames(
        &mut self,
        on: &ClientStream,
        upstream: Callee<'_>,
        chunk: Chunk,
        mut download: FrameDownload,
        is_call: bool,
    ) -> Result<(Moved, Downloaded), Refusal> {
        upstream.put_back(chunk);
        let pace = self.pace();
        let moved = {
            let streaming = pin!(download.run(self.caller, on, upstream, pace));
            let both = (self.upload).alongside(self.caller, upstream, pace, streaming);
            let moved = on.deadline.bound(pin!(both)).await;
            moved.map(|r| r.and_then(|r| r))
        };
        let mut done = download.done;
        done.sent_bytes = on.stream.sent_bytes();
        self.response_messages = download.messages();
        self.note_grpc_status(is_call, download.trailer(grpc::STATUS));
        Ok((moved, done))
    }

    /// Waits until the connection's output takes a head. Meanwhile the one that begins `chunk` lies at the endpoint's
    /// socket: a client that does not read must not keep the buffers that others receive in.
    async fn wait_for_room(
        &self,
        on: &ClientStream,
        upstream: Callee<'_>,
        chunk: Chunk,
    ) -> Result<Chunk, Refusal> {
        if on.stream.has_room() {
            return Ok(chunk);
        }
        upstream.put_back(chunk);
        let waiting = std::future::poll_fn(|cx| {
            if let Poll::Ready(room) = on.stream.poll_room(cx) {
                return Poll::Ready(room.map_err(|e| Refusal::of_client(&e)));
            }
            let error = ready!(upstream.poll_cut_short(cx));
            Poll::Ready(Err(Refusal::of_upstream(&error)))
        });
        let waited = on.deadline.bound(pin!(waiting)).await;
        waited.map_err(|_| Reason::IdleTimeout)??;
        let received = std::future::poll_fn(|cx| upstream.poll_receive(cx)).await;
        let received = received.map_err(|e| Refusal::of_upstream(&e))?;
        received.ok_or(Reason::UpstreamReset.into())
    }

    /// What came of a call of gRPC is in the head, or in the trailers.
    fn note_grpc_status(&mut self, is_call: bool, status: Option<&[u8]>) {
        let status = status.filter(|_| is_call).map(grpc::Status::parse);
        self.grpc_status = status.or(self.grpc_status);
    }

    /// The answer's head was given to the kernel, or to the connection.
    fn count_added(&mut self) {
        self.times.ended_ns = self.client.local.driver.clock_ns();
        let arrived_ns = self.times.sent_ns + self.times.first_byte_ns;
        self.times.added_ns += self.times.ended_ns.saturating_sub(arrived_ns);
    }

    /// Passes an interim answer on; HTTP/1.0 knows none (RFC 9110, 15.2).
    pub(super) async fn pass_interim(&mut self, chunk: &Chunk) -> Result<(), Refusal> {
        let client = self.client;
        client.local.counters().responses_1xx.add(1);
        if self.scratch.request.version == Version::Http10 {
            return Ok(());
        }
        self.pace().moved(self.caller);
        if let Caller::Http2(on) = self.caller {
            return (self.send_response_head(on, chunk, &HeaderEdits::default(), false)).await;
        }
        let mut head = client.local.driver.buffer();
        let edits = ResponseEdits::default();
        forward_response(chunk, &self.scratch.response, &edits, &mut head);
        self.sent_bytes += head.len() as u64;
        let sent = client
            .deadline
            .bound(pin!(client.socket.send(Payload::head(head))))
            .await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Reason::ClientGone.into()),
            Err(_) => Err(Reason::IdleTimeout.into()),
        }
    }

    /// Sends the head of an answer on a stream.
    async fn send_response_head(
        &self,
        on: &ClientStream,
        chunk: &Chunk,
        edits: &HeaderEdits,
        end_stream: bool,
    ) -> Result<(), Refusal> {
        let response = &self.scratch.response;
        let decision = self.decision_field();
        let own = decision.as_ref().map(|(name, value)| (*name, &**value));
        let edits = ResponseEdits {
            remove: &edits.remove,
            set: &edits.set,
            append: &edits.append,
            extra: own.as_slice(),
            ..ResponseEdits::default()
        };
        let fields = response_fields(chunk, response, &edits);
        let sending = on.stream.send_head(response.status, fields, end_stream);
        match on.deadline.bound(pin!(sending)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Refusal::of_client(&error)),
            Err(_) => Err(Reason::IdleTimeout.into()),
        }
    }

    /// Whether the client's connection may serve another request after this one.
    pub(super) fn may_keep(&self) -> bool {
        let served = self.client.served.get().saturating_add(1);
        let worn = self
            .http
            .limits
            .requests_per_connection
            .is_some_and(|max| served >= max);
        let unwelcome = self.client.is_unwelcome(self.listener);
        self.scratch.request.keep_alive && !worn && !unwelcome && !self.client.local.drain.is_on()
    }

    fn write_response_head(
        &self,
        chunk: &Chunk,
        edits: &HeaderEdits,
        keep: bool,
        dechunk: bool,
    ) -> Vec<u8> {
        let response = &self.scratch.response;
        let decision = self.decision_field();
        let own = decision.as_ref().map(|(name, value)| (*name, &**value));
        let edits = ResponseEdits {
            close: !keep,
            keep_alive_10: keep && self.scratch.request.version == Version::Http10,
            remove: &edits.remove,
            set: &edits.set,
            append: &edits.append,
            upgrade: response.status == 426,
            dechunk,
            extra: own.as_slice(),
        };
        let mut out = self.client.local.driver.buffer();
        forward_response(chunk, response, &edits, &mut out);
        out
    }

    fn count_upstream(&self, leg: &Leg, body_bytes: u64) {
        let received = self.scratch.response.len as u64 + body_bytes;
        let counters = self.client.local.counters();
        counters.upstream_sent_bytes.add(self.upload.sent_bytes);
        counters.upstream_received_bytes.add(received);
        if let Some(endpoint) = leg.endpoint().counters() {
            endpoint.sent_bytes.add(self.upload.sent_bytes);
            endpoint.received_bytes.add(received);
        }
    }
}
