//! The answer on its way to the client, and answers of our own.

use std::time::Duration;

use tidegate_codecs::{
    http1::{
        BodyError, BodyTracker, Framing, ResponseEdits, Version, forward_response, reason_phrase,
        write_reply,
    },
    limits::Http1Limits,
};
use tidegate_core::{
    config::model::{HeaderEdits, Redirect, Respond},
    reason::Reason,
    snapshot::Route,
};

use super::{
    Next,
    exchange::{Exchange, Pace, Refusal},
};
use crate::{
    downstream::Client,
    relay::{self, RelayLimits},
    ring::{Chunk, Failed, Payload},
    transport::Stream,
    upstream::{Connection, Destination},
};

/// Body bytes that are read and dropped so that a connection can be kept after an answer of our own.
const DISCARD_BYTES_MAX: u64 = 64 << 10;
/// And for how long.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// After which a client may come again that was refused for overload (RFC 9110, 10.2.3, which tells it in
/// seconds): limits are decided anew ten times within.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The header that names the reason of a refusal.
pub(super) const REASON_HEADER: &str = "x-tidegate-reason";

impl<'a> Exchange<'a> {
    /// Passes the answer on whose head is parsed, and which begins with `chunk`.
    pub(super) async fn answer(
        &mut self,
        route: &'a Route,
        to: Destination<'_>,
        connection: Connection,
        mut chunk: Chunk,
    ) -> Result<Next, Refusal> {
        if self.scratch.response.status == 101 {
            return self.upgrade(route, connection, chunk).await;
        }
        let response = &self.scratch.response;
        let framing = response.framing;
        if let Framing::Length(length) = framing {
            connection.socket.expect(length);
        }
        let dechunk =
            framing == Framing::Chunked && self.scratch.request.version == Version::Http10;
        let mut keep = self.may_keep() && framing != Framing::UntilClose && !dechunk;
        let head = self.write_response_head(&chunk, &route.response_headers, keep, dechunk);
        chunk.advance(self.scratch.response.len);
        self.status = self.scratch.response.status;
        self.answering = true;
        self.times.ended_ns = self.client.local.driver.clock_ns();
        let arrived_ns = self.times.sent_ns + self.times.first_byte_ns;
        self.times.added_ns += self.times.ended_ns.saturating_sub(arrived_ns);
        let mut download = Download::new(framing, dechunk, head);
        let whole = download.take(&connection.socket, chunk)?;
        let pace = self.pace();
        let client = self.client;
        let moved = if whole && self.upload.is_complete() {
            // The usual case, without the machinery: everything is here.
            pace.moved(client);
            if !keep {
                download.pending = download.pending.take().map(Payload::before_close);
            }
            let sending = download.send(&client.socket, pace, client);
            client.deadline.bound(sending).await
        } else {
            pace.moved(client);
            let streaming = download.run(client, &connection.socket, pace);
            let both = self
                .upload
                .alongside(client, &connection.socket, pace, streaming);
            client.deadline.bound(both).await.map(|r| r.and_then(|r| r))
        };
        self.times.ended_ns = client.local.driver.clock_ns();
        self.sent_bytes += download.sent_bytes;
        self.received_bytes += self.upload.taken_bytes();
        self.count_upstream(&connection, &download);
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
            connection.check_in(to);
        }
        Ok(match (keep, self.upload.is_read()) {
            (true, _) => Next::KeepAlive,
            (false, true) => Next::Close,
            (false, false) => Next::Linger,
        })
    }

    /// Passes an interim answer on; HTTP/1.0 knows none (RFC 9110, 15.2).
    pub(super) async fn pass_interim(&mut self, chunk: &Chunk) -> Result<(), Refusal> {
        let client = self.client;
        client.local.counters().responses_1xx.add(1);
        if self.scratch.request.version == Version::Http10 {
            return Ok(());
        }
        let mut head = client.local.driver.buffer();
        let edits = ResponseEdits::default();
        forward_response(chunk, &self.scratch.response, &edits, &mut head);
        self.sent_bytes += head.len() as u64;
        self.pace().moved(client);
        let sent = client
            .deadline
            .bound(client.socket.send(Payload::head(head)))
            .await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Reason::ClientGone.into()),
            Err(_) => Err(Reason::IdleTimeout.into()),
        }
    }

    /// Answers with a redirect.
    pub(super) async fn redirect(
        &mut self,
        route: &'a Route,
        redirect: &Redirect,
    ) -> Result<Next, Refusal> {
        let (head, bytes) = self.head();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let scheme = redirect
            .scheme
            .as_deref()
            .unwrap_or_else(|| self.client.scheme());
        let host = redirect
            .host
            .as_deref()
            .map_or_else(|| text(head.authority.of(bytes)), Into::into);
        let path = redirect
            .path
            .as_deref()
            .map_or_else(|| text(head.path.of(bytes)), Into::into);
        let query = head.query.filter(|_| !redirect.strip_query);
        let query = query.map_or_else(String::new, |q| format!("?{}", text(q.of(bytes))));
        let location = format!("{scheme}://{host}{path}{query}");
        let headers = [("location", location.as_str())];
        Ok(self
            .reply(
                redirect.status,
                &headers,
                Some(&route.response_headers),
                "",
                b"",
            )
            .await)
    }

    /// Answers with what the route holds.
    pub(super) async fn respond(
        &mut self,
        route: &'a Route,
        respond: &Respond,
    ) -> Result<Next, Refusal> {
        let edits = Some(&route.response_headers);
        let body = respond.body.as_bytes();
        Ok(self
            .reply(respond.status, &[], edits, &respond.content_type, body)
            .await)
    }

    /// Refuses the request, as far as the client can still be told.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Next {
        self.refusal = Some(refusal);
        if self.answering || refusal.reason == Reason::ClientGone {
            if self.status == 0 {
                self.times.ended_ns = self.client.local.driver.clock_ns();
            }
            return Next::Abort;
        }
        let status = refusal.status;
        let mut body = format!(
            "{status} {}: {}",
            reason_phrase(status),
            refusal.reason.word()
        );
        if !refusal.detail.is_empty() {
            body.push_str(" (");
            body.push_str(refusal.detail);
            body.push(')');
        }
        body.push('\n');
        let over = self.over_rate.as_ref().map(|over| over.retry_after);
        let wait = over.map_or(RETRY_AFTER, |wait| wait.max(RETRY_AFTER));
        let wait = wait.as_secs_f64().ceil().to_string();
        let headers = [
            (REASON_HEADER, refusal.reason.word()),
            ("retry-after", &wait),
        ];
        let headers = match refusal.reason {
            Reason::Overloaded | Reason::RateLimited => &headers[..],
            _ => &headers[..1],
        };
        self.reply(status, headers, None, "text/plain", body.as_bytes())
            .await
    }

    /// Sends an answer of our own, then makes the connection ready for the next request if it can.
    async fn reply(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        edits: Option<&HeaderEdits>,
        content_type: &str,
        body: &[u8],
    ) -> Next {
        let client = self.client;
        self.received_bytes += self.upload.taken_bytes();
        // A request whose head was not understood has no end that we know.
        let understood = self.scratch.request.len > 0;
        // What follows a refused CONNECT may be meant for the tunnel.
        let is_tunnel = self.scratch.request.is_connect();
        let keep = understood && !is_tunnel && self.may_keep() && !self.upload.may_stay_unsent();
        let mut fields = headers.to_vec();
        let set = edits
            .into_iter()
            .flat_map(|e| e.set.iter().chain(&e.append));
        fields.extend(set.map(|(name, value)| (&**name, &**value)));
        let mut out = client.local.driver.buffer();
        let is_head = self.scratch.request.is_head();
        write_reply(
            &mut out,
            status,
            &fields,
            content_type,
            body,
            !keep,
            is_head,
        );
        self.status = status;
        self.sent_bytes += out.len() as u64;
        self.answering = true;
        self.times.ended_ns = client.local.driver.clock_ns();
        client.deadline.set_after(self.http.timeouts.idle);
        let sending = client.socket.send(Payload::head(out));
        if !matches!(client.deadline.bound(sending).await, Ok(Ok(()))) {
            return Next::Abort;
        }
        if !keep {
            let read = understood && !is_tunnel && self.upload.is_read();
            return if read { Next::Close } else { Next::Linger };
        }
        client.deadline.set_after(DISCARD_TIMEOUT);
        let discarding = self.upload.discard(client, DISCARD_BYTES_MAX);
        let discarded = matches!(client.deadline.bound(discarding).await, Ok(Ok(())));
        if discarded && self.upload.is_read() {
            Next::KeepAlive
        } else {
            Next::Linger
        }
    }

    /// After a 101 the connection is a relay, and stays one to its end.
    async fn upgrade(
        &mut self,
        route: &'a Route,
        connection: Connection,
        mut chunk: Chunk,
    ) -> Result<Next, Refusal> {
        let client = self.client;
        // What follows is no request in flight, and may last for days.
        self.pass = None;
        let mut head = client.local.driver.buffer();
        let edits = ResponseEdits {
            upgrade: true,
            remove: &route.response_headers.remove,
            set: &route.response_headers.set,
            append: &route.response_headers.append,
            ..ResponseEdits::default()
        };
        forward_response(&chunk, &self.scratch.response, &edits, &mut head);
        chunk.advance(self.scratch.response.len);
        if !chunk.is_empty() {
            connection.socket.put_back(chunk);
        }
        self.status = 101;
        self.answering = true;
        self.sent_bytes += head.len() as u64;
        client.local.counters().upgrades.add(1);
        let sent = client.socket.send(Payload::head(head)).await;
        sent.map_err(|_| Reason::ClientGone)?;
        let limits = RelayLimits {
            idle: self.http.timeouts.idle,
            until_ns: u64::MAX,
        };
        let relayed = relay::run(client, &connection.socket, &limits).await;
        self.received_bytes += relayed.from_client;
        self.sent_bytes += relayed.from_upstream;
        self.times.ended_ns = client.local.driver.clock_ns();
        match relayed.reason {
            Some(reason) => Err(reason.into()),
            None => Ok(Next::Close),
        }
    }

    /// Whether the client's connection may serve another request after this one.
    fn may_keep(&self) -> bool {
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
        let edits = ResponseEdits {
            close: !keep,
            keep_alive_10: keep && self.scratch.request.version == Version::Http10,
            remove: &edits.remove,
            set: &edits.set,
            append: &edits.append,
            upgrade: response.status == 426,
            dechunk,
            extra: &[],
        };
        let mut out = self.client.local.driver.buffer();
        forward_response(chunk, response, &edits, &mut out);
        out
    }

    fn count_upstream(&self, connection: &Connection, download: &Download) {
        let received = self.scratch.response.len as u64 + download.received_bytes;
        let counters = self.client.local.counters();
        counters.upstream_sent_bytes.add(self.upload.sent_bytes);
        counters.upstream_received_bytes.add(received);
        if let Some(endpoint) = connection.endpoint().counters() {
            endpoint.sent_bytes.add(self.upload.sent_bytes);
            endpoint.received_bytes.add(received);
        }
    }
}

/// Answers a request that is not looked at: its listener was taken away while its connection was idle, or
/// it is in plaintext where only TLS is taken.
pub(crate) async fn refuse_unread(client: &Client, reason: Reason) -> Next {
    let mut out = client.local.driver.buffer();
    let headers = [(REASON_HEADER, reason.word())];
    write_reply(&mut out, reason.status(), &headers, "", b"", true, false);
    client.local.counters().refuse(reason);
    client.local.counters().response(reason.status());
    match client.socket.send(Payload::head(out)).await {
        Ok(()) => Next::Linger,
        Err(_) => Next::Abort,
    }
}

/// The answer's bytes, from the endpoint to the client. It holds at most one piece, which is the
/// back-pressure.
struct Download {
    tracker: BodyTracker,
    dechunk: bool,
    pending: Option<Payload>,
    /// The endpoint sent more than its framing says: the connection cannot be trusted any more.
    has_excess: bool,
    received_bytes: u64,
    sent_bytes: u64,
}

impl Download {
    fn new(framing: Framing, dechunk: bool, head: Vec<u8>) -> Download {
        Download {
            tracker: BodyTracker::new(framing, &Http1Limits::default()),
            dechunk,
            pending: Some(Payload::head(head)),
            has_excess: false,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// Takes a piece, to be sent behind what is pending. True if it was the last.
    fn take(&mut self, upstream: &Stream, mut chunk: Chunk) -> Result<bool, Refusal> {
        if self.dechunk {
            return self.take_payload(&chunk);
        }
        let n = self.tracker.advance(&chunk).map_err(broken)?;
        if n < chunk.len() {
            chunk.truncate(n);
            self.has_excess = true;
        }
        self.received_bytes += n as u64;
        if n > 0 {
            self.pending = Some(match self.pending.take() {
                Some(pending) => pending.followed_by(chunk),
                None => Payload::chunk(chunk),
            });
        }
        self.has_excess |= self.tracker.is_done() && upstream.has_received();
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
            self.received_bytes += piece.consumed as u64;
            rest = rest.get(piece.consumed..).unwrap_or_default();
        }
        self.has_excess |= !rest.is_empty();
        self.pending = Some(Payload::head(out));
        Ok(self.tracker.is_done())
    }

    /// Sends what is pending.
    async fn send(&mut self, to: &Stream, pace: Pace, client: &Client) -> Result<(), Refusal> {
        if let Some(pending) = self.pending.take() {
            self.sent_bytes += pending.len() as u64;
            to.send(pending).await.map_err(|e| Refusal::of_client(&e))?;
            pace.moved(client);
        }
        Ok(())
    }

    /// Sends, receives and sends, to the end of the body.
    async fn run(&mut self, client: &Client, upstream: &Stream, pace: Pace) -> Result<(), Refusal> {
        self.send(&client.socket, pace, client).await?;
        while !self.tracker.is_done() {
            let sink = &client.socket;
            let received = std::future::poll_fn(|cx| upstream.poll_receive_for(cx, sink)).await;
            match received {
                Ok(Some(chunk)) => {
                    pace.moved(client);
                    self.take(upstream, chunk)?;
                    self.send(sink, pace, client).await?;
                }
                Ok(None) => self.tracker.end_of_stream().map_err(broken)?,
                Err(Failed::Source(error)) => return Err(Refusal::of_upstream(&error)),
                Err(Failed::Sink(error)) => return Err(Refusal::of_client(&error)),
            }
        }
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
