//! Heads: the request's from the client and for the endpoint, the answer's from the endpoint.

use std::{io, pin::pin, rc::Rc, sync::Arc};

use tidegate_codecs::{
    http1::{
        ForwardedFor, Framing, HeadError, Progress, RequestEdits, RequestKind, ResponseHead,
        forward_request,
    },
    http2::{MessageError, request_fields},
    limits::Http1Limits,
};
use tidegate_core::{
    config::model::XForwarded,
    reason::Reason,
    snapshot::{Forward, Route},
};

use super::{
    attempt::Attempt,
    caller::{Caller, Start},
    exchange::{Exchange, Pace, Refusal, Scratch},
    retry::Failure,
    steer::with_hop_mark,
    tunnel,
    upload::Upload,
};
use crate::{
    downstream::ClientStream,
    ring::{Chunk, Driver, Payload, is_over_budget},
    transport::Stream,
    upstream::{Callee, Leg},
};

impl<'a> Exchange<'a> {
    /// Reads the request's head.
    pub(super) async fn read_head(&mut self, start: Start) -> Result<(), Refusal> {
        let limits = self.codec_limits();
        match (start, self.caller) {
            (Start::Bytes(first), _) => self.receive_head(first, &limits).await?,
            (Start::Head(scratch), Caller::Http2(on)) => self.take_head(scratch, on, &limits)?,
            (Start::Refused(error), Caller::Http2(on)) => {
                self.scratch.request.clear();
                self.times.began_ns = on.arrived_ns;
                return Err(refuse_message(error));
            }
            (_, Caller::Http1(_)) => return Err(Reason::BadRequest.into()),
        }
        self.times.ready_ns = self.times.began_ns;
        let head = &self.scratch.request;
        self.received_bytes += head.len as u64;
        if head.is_connect() {
            return Err(Reason::MethodNotServed.into());
        }
        self.upload = Upload::new(head, &limits, self.http.limits.body)?;
        if let Caller::Http1(client) = self.caller {
            if head.keep_alive || head.framing != Framing::None {
                client.socket.start_receiving();
            }
            if let Framing::Length(length) = head.framing {
                client.socket.expect(length);
            }
        }
        Ok(())
    }

    /// Takes the head of a stream.
    fn take_head(
        &mut self,
        scratch: Box<Scratch>,
        on: &ClientStream,
        limits: &Http1Limits,
    ) -> Result<(), Refusal> {
        let spare = std::mem::replace(&mut self.scratch, scratch);
        self.client.local.keep_scratch(spare);
        self.times.began_ns = on.arrived_ns;
        if self.scratch.request.target.of(&self.scratch.bytes).len() > limits.target_bytes_max {
            return Err(Reason::TargetTooLong.into());
        }
        match on.stream.is_gone() {
            true => Err(Reason::ClientGone.into()),
            false => Ok(()),
        }
    }

    /// Receives a head, of which `first` is the beginning; bytes behind it go back to the socket.
    async fn receive_head(&mut self, first: Chunk, limits: &Http1Limits) -> Result<(), Refusal> {
        let client = self.client;
        client.deadline.set_after(self.http.timeouts.header);
        let mut chunk = first;
        loop {
            let parsed = self.scratch.request.parse(&chunk, limits);
            if parsed.map_err(refuse_head)? == Progress::Complete {
                break;
            }
            let more = gather(
                &client.local.driver,
                &client.socket,
                chunk,
                limits.head_bytes_max,
            );
            chunk = match client.deadline.bound(pin!(more)).await {
                Ok(Ok(Some(more))) => more,
                Ok(Ok(None)) => return Err(Reason::ClientGone.into()),
                Ok(Err(error)) => return Err(Refusal::of_client(&error)),
                Err(_) => return Err(Reason::HeaderTimeout.into()),
            };
        }
        self.times.began_ns = client.socket.received_at_ns();
        let len = self.scratch.request.len;
        self.scratch.bytes.clear();
        self.scratch
            .bytes
            .extend_from_slice(chunk.get(..len).unwrap_or_default());
        chunk.advance(len);
        client.socket.put_back(chunk);
        Ok(())
    }

    /// Sends the request on `connection` and reads the head of the final answer, which is parsed into the
    /// scratch. Interim answers are passed on. The chunk begins with the head.
    pub(super) async fn send_and_read_head(
        &mut self,
        route: &'a Route,
        forward: &'a Forward,
        leg: &mut Leg,
    ) -> Result<Chunk, Failure> {
        let driver = &self.client.local.driver;
        self.tunnel_key = self.new_tunnel_key(leg);
        let tries = self.retries + self.hedges;
        let mut head = self.write_request_head(route, forward, tries > 0);
        if tries > 0
            && let Some(attempt) = self.attempt()
        {
            attempt.append_to(&mut head, tries, driver.now_ns());
        }
        let leg_scheme = leg.scheme();
        let try_timeout = forward.retry.as_ref().and_then(|r| r.per_try_timeout);
        self.try_until_ns = try_timeout.map_or(u64::MAX, |limit| {
            driver.now_ns().saturating_add(limit.as_nanos() as u64)
        });
        match leg {
            Leg::Http1(_) => self.upload.begin(self.caller, Payload::head(head)),
            Leg::Http2(call) => {
                let (line, fields) = request_fields(&head, leg_scheme);
                let asked = match self.tunnel_protocol(call)? {
                    Some(protocol) => tunnel::ask(call, line, fields, protocol),
                    None => {
                        let kind = self.scratch.request.kind();
                        call.ask(line, fields, !self.upload.has_body(), kind)
                    }
                };
                asked.map_err(|e| lost(&e))?;
                driver.keep_buffer(head);
                self.upload.begin_in_frames(self.caller);
            }
        }
        self.times.sent_ns = driver.clock_ns();
        self.times.added_ns += self.times.sent_ns.saturating_sub(self.times.ready_ns);
        loop {
            let mut chunk = self.read_response_head(leg).await?;
            let arrived_ns = leg.received_at_ns();
            self.times.first_byte_ns = arrived_ns.saturating_sub(self.times.sent_ns);
            match self.scratch.response.status {
                101 if self.scratch.request.upgrade.is_none() => {
                    return Err(Failure::Protocol("a 101 that nobody asked for"));
                }
                100 | 102..=199 => {
                    self.pass_interim(&chunk).await?;
                    chunk.advance(self.scratch.response.len);
                    let callee = leg.callee().ok_or(Failure::Reset)?;
                    callee.put_back(chunk);
                }
                _ => return Ok(chunk),
            }
        }
    }

    async fn read_response_head(&mut self, leg: &Leg) -> Result<Chunk, Failure> {
        let pace = Pace {
            until_ns: self.until_ns.min(self.try_until_ns),
            ..self.pace()
        };
        let Exchange {
            caller,
            client,
            upload,
            scratch,
            ..
        } = self;
        let callee = leg.callee().ok_or(Failure::Reset)?;
        let kind = scratch.request.kind();
        let response = &mut scratch.response;
        let reading = pin!(read_head(&client.local.driver, callee, response, kind));
        pace.moved(*caller);
        let both = upload.alongside(*caller, callee, pace, reading);
        match caller.deadline().bound(pin!(both)).await {
            Ok(read) => read?,
            Err(_) => {
                let now_ns = client.local.driver.now_ns();
                if now_ns >= self.until_ns {
                    Err(Failure::Refused(Reason::RequestTimeout.into()))
                } else if now_ns >= self.try_until_ns {
                    Err(Failure::TryTimeout)
                } else {
                    Err(Failure::Refused(Reason::IdleTimeout.into()))
                }
            }
        }
    }

    /// The head for the endpoint, with the listener's and the route's edits. For a try that is not the first, fields
    /// of a call that say so are left out, to be [written anew](Attempt::append_to).
    pub(super) fn write_request_head(
        &mut self,
        route: &Route,
        forward: &Forward,
        is_again: bool,
    ) -> Vec<u8> {
        self.write_edited_head(route, forward, is_again, None)
    }

    /// The same for a copy of the request.
    pub(super) fn write_copied_head(
        &mut self,
        route: &Route,
        forward: &Forward,
        copied: Copied<'_>,
    ) -> Vec<u8> {
        self.write_edited_head(route, forward, false, Some(copied))
    }

    fn write_edited_head(
        &mut self,
        route: &Route,
        forward: &Forward,
        is_again: bool,
        copied: Option<Copied<'_>>,
    ) -> Vec<u8> {
        // A copy is sent before there is a key, and asks for no other protocol.
        let key = self.tunnel_key.as_deref().map(|key| (tunnel::KEY, key));
        let own: Vec<_> = key.into_iter().chain(self.hop_mark()).collect();
        let removed = self.removed_fields(route, is_again);
        let local = &self.client.local;
        let scratch = &mut *self.scratch;
        let head = &scratch.request;
        scratch.target.clear();
        if let Some(rewriter) = &forward.path_rewrite {
            let path = head.path.of(&scratch.bytes);
            local.with_route_scratch(|s| rewriter.rewrite(s, path, &mut scratch.target));
            if let Some(query) = head.query {
                scratch.target.push(b'?');
                scratch.target.extend_from_slice(query.of(&scratch.bytes));
            }
        }
        let forwarded_for = match self.http.forwarded.x_forwarded {
            XForwarded::Append => ForwardedFor::Append(self.client.peer_ip().as_bytes()),
            XForwarded::Replace => ForwardedFor::Replace(self.client.peer_ip().as_bytes()),
            XForwarded::Preserve => ForwardedFor::Preserve,
        };
        let edits = RequestEdits {
            target: forward
                .path_rewrite
                .as_ref()
                .map(|_| scratch.target.as_slice()),
            host: copied
                .and_then(|copied| copied.host)
                .or(forward.host_rewrite.as_deref().map(str::as_bytes)),
            via: self.http.forwarded.via.as_deref(),
            forwarded_for,
            proto: self.client.scheme(),
            remove: removed.as_deref().unwrap_or(&route.request_headers.remove),
            set: &route.request_headers.set,
            append: &route.request_headers.append,
            upgrade: head.upgrade.is_some(),
            // Nobody waits for what a copy is answered with.
            drop_expect: copied.is_some(),
            extra: &own,
        };
        let mut out = local.driver.buffer();
        forward_request(&scratch.bytes, head, &edits, &mut out);
        out
    }

    /// The fields that do not go on, if there are others than the route names.
    fn removed_fields(&self, route: &Route, is_again: bool) -> Option<Vec<Arc<str>>> {
        let named = &route.request_headers.remove;
        let unmarked = self.drops_hop_mark().then(|| with_hop_mark(named));
        match is_again && self.is_grpc() {
            true => Some(Attempt::without(unmarked.as_deref().unwrap_or(named))),
            false => unmarked,
        }
    }
}

/// What is particular to the head of a copy.
#[derive(Clone, Copy)]
pub(super) struct Copied<'a> {
    /// Its host, if that is another.
    pub(super) host: Option<&'a [u8]>,
}

/// Reads the next head of an answer into `head`; the chunk begins with it.
pub(super) async fn read_head(
    driver: &Rc<Driver>,
    callee: Callee<'_>,
    head: &mut ResponseHead,
    kind: RequestKind,
) -> Result<Chunk, Failure> {
    match callee {
        Callee::Http1(socket) => {
            read_response(driver, socket, head, kind, &Http1Limits::default()).await
        }
        Callee::Http2(stream) => {
            let head = std::future::poll_fn(|cx| stream.poll_head(cx, head)).await;
            head.map_err(|e| lost(&e))
        }
    }
}

/// The same, from a connection in HTTP/1.
async fn read_response(
    driver: &Rc<Driver>,
    socket: &Stream,
    head: &mut ResponseHead,
    kind: RequestKind,
    limits: &Http1Limits,
) -> Result<Chunk, Failure> {
    let first = socket.receive().await.map_err(|e| lost(&e))?;
    let mut chunk = first.ok_or(Failure::Reset)?;
    loop {
        let parsed = head
            .parse(&chunk, kind, limits)
            .map_err(|e| Failure::Protocol(e.detail()))?;
        if parsed == Progress::Complete {
            return Ok(chunk);
        }
        let more = gather(driver, socket, chunk, limits.head_bytes_max).await;
        chunk = more.map_err(|e| lost(&e))?.ok_or(Failure::Reset)?;
    }
}

/// What a failed receive means: the connection is lost, or our own budget is used up.
pub(super) fn lost(error: &io::Error) -> Failure {
    match error.kind() {
        _ if is_over_budget(error) => Failure::Refused(Reason::BufferBudget.into()),
        // On an open connection only HTTP/2 says so.
        io::ErrorKind::ConnectionRefused => Failure::NotProcessed,
        _ => Failure::Reset,
    }
}

/// Joins `chunk` with what follows, until a whole head may be in it. Parsing anew for each byte of a
/// head that trickles in would cost its square; so it is parsed again only when an empty line has come,
/// or the limit is passed, which the codec then refuses. `None` at the end of the stream.
async fn gather(
    driver: &Rc<Driver>,
    socket: &Stream,
    chunk: Chunk,
    bytes_max: usize,
) -> io::Result<Option<Chunk>> {
    let mut joined = chunk.to_vec();
    drop(chunk);
    while let Some(more) = socket.receive().await? {
        // The line end before may be the last byte seen so far.
        let search_from = joined.len().saturating_sub(2);
        joined.extend_from_slice(&more);
        let has_empty_line = joined.get(search_from..).is_some_and(holds_empty_line);
        if has_empty_line || joined.len() > bytes_max {
            return Ok(Some(Chunk::from_vec(driver, joined)));
        }
    }
    Ok(None)
}

/// Whether two line ends follow each other. A bare LF counts: the codec refuses it, the sooner the better.
fn holds_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes)
        .any(|at| matches!(bytes.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

/// What a message that is well-formed in HTTP/2 and still not served means. (One that is not has cost the
/// client its stream.)
fn refuse_message(error: MessageError) -> Refusal {
    match error {
        MessageError::Head(error) => refuse_head(error),
        _ => Refusal::with_detail(Reason::BadRequest, error.detail()),
    }
}

fn refuse_head(error: HeadError) -> Refusal {
    let reason = match (error, error.status()) {
        (HeadError::MethodTooLong, _) => Reason::MethodNotServed,
        (_, 414) => Reason::TargetTooLong,
        (_, 417) => Reason::ExpectationFailed,
        (_, 431) => Reason::HeadTooLarge,
        (_, 501) => Reason::UnknownTransferCoding,
        (_, 505) => Reason::UnknownVersion,
        _ => Reason::BadRequest,
    };
    Refusal::with_detail(reason, error.detail())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// Goal: a head that trickles in is parsed again at its end, and only there. Method: heads with and
    /// without an empty line.
    #[test]
    fn finds_empty_lines() {
        for whole in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"a\n\n",
            b"a\n\r\n",
        ] {
            assert!(holds_empty_line(whole));
            assert!(!holds_empty_line(&whole[..whole.len() - 1]));
        }
    }
}
