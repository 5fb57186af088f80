//! Answers of our own.

use std::{pin::pin, time::Duration};

use tidegate_codecs::{
    grpc,
    http1::{reason_phrase, write_reply},
    http2::FieldLine,
};
use tidegate_core::{
    config::model::{HeaderEdits, Redirect, Respond},
    reason::Reason,
    snapshot::Route,
};

use super::{
    Next,
    caller::Caller,
    exchange::{Exchange, Refusal},
};
use crate::{
    downstream::{Client, ClientStream},
    ring::Payload,
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
        let over = self.over_rate.as_ref().and_then(|over| over.retry_after);
        let wait = over.map_or(RETRY_AFTER, |wait| wait.max(RETRY_AFTER));
        let wait = wait.as_secs_f64().ceil().to_string();
        let headers = [
            (REASON_HEADER, refusal.reason.word()),
            ("retry-after", &wait),
        ];
        let headers = match refusal.reason {
            Reason::Overloaded | Reason::RateLimited | Reason::SteerCapped => &headers[..],
            _ => &headers[..1],
        };
        if let Caller::Http2(on) = self.caller
            && self.is_grpc()
        {
            return self.refuse_call(on, refusal, headers).await;
        }
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
        let mut fields = headers.to_vec();
        let set = edits
            .into_iter()
            .flat_map(|e| e.set.iter().chain(&e.append));
        fields.extend(set.map(|(name, value)| (&**name, &**value)));
        self.received_bytes += self.upload.taken_bytes();
        self.status = status;
        self.answering = true;
        self.caller.deadline().set_after(self.http.timeouts.idle);
        match self.caller {
            Caller::Http1(client) => {
                self.reply_in_text(client, &fields, content_type, body)
                    .await
            }
            Caller::Http2(on) => self.reply_in_frames(on, &fields, content_type, body).await,
        }
    }

    async fn reply_in_text(
        &mut self,
        client: &Client,
        fields: &[(&str, &str)],
        content_type: &str,
        body: &[u8],
    ) -> Next {
        // A request whose head was not understood has no end that we know.
        let understood = self.scratch.request.len > 0;
        // What follows a refused CONNECT may be meant for the tunnel.
        let is_tunnel = self.scratch.request.is_connect();
        let keep = understood && !is_tunnel && self.may_keep() && !self.upload.may_stay_unsent();
        let mut out = client.local.driver.buffer();
        let is_head = self.scratch.request.is_head();
        write_reply(
            &mut out,
            self.status,
            fields,
            content_type,
            body,
            !keep,
            is_head,
        );
        self.sent_bytes += out.len() as u64;
        self.times.ended_ns = client.local.driver.clock_ns();
        let sending = client.socket.send(Payload::head(out));
        if !matches!(client.deadline.bound(pin!(sending)).await, Ok(Ok(()))) {
            return Next::Abort;
        }
        if !keep {
            let read = understood && !is_tunnel && self.upload.is_read();
            return if read { Next::Close } else { Next::Linger };
        }
        match self.discard_rest().await {
            true => Next::KeepAlive,
            false => Next::Linger,
        }
    }

    async fn reply_in_frames(
        &mut self,
        on: &ClientStream,
        fields: &[(&str, &str)],
        content_type: &str,
        body: &[u8],
    ) -> Next {
        let has_body = !matches!(self.status, 100..200 | 204 | 304);
        let length = body.len().to_string();
        let of_body = [("content-type", content_type), ("content-length", &length)];
        let of_body = match (has_body, content_type.is_empty() || body.is_empty()) {
            (true, false) => &of_body[..],
            (true, true) => &of_body[1..],
            (false, _) => &[],
        };
        let fields = fields.iter().chain(of_body);
        let fields = fields.map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
        let is_bodiless = !has_body || body.is_empty() || self.scratch.request.is_head();
        let sending = async {
            (on.stream)
                .send_head(self.status, fields, is_bodiless)
                .await?;
            match is_bodiless {
                true => Ok(()),
                false => on.stream.send_all(body).await,
            }
        };
        let sent = on.deadline.bound(pin!(sending)).await;
        self.end_reply(on, matches!(sent, Ok(Ok(())))).await
    }

    /// Refuses a gRPC call, as its clients understand it: a status in trailers, and nothing else.
    async fn refuse_call(
        &mut self,
        on: &ClientStream,
        refusal: Refusal,
        headers: &[(&str, &str)],
    ) -> Next {
        self.received_bytes += self.upload.taken_bytes();
        self.status = 200;
        self.answering = true;
        let by_reason = refusal.reason.grpc_status(refusal.status);
        let grpc_status = self.grpc_abort.unwrap_or(by_reason).to_string();
        self.grpc_status = Some(grpc::Status::parse(grpc_status.as_bytes()));
        let own = [
            ("content-type", "application/grpc"),
            (grpc::STATUS, &grpc_status),
            ("grpc-message", refusal.reason.word()),
        ];
        let fields = own.iter().chain(headers);
        let fields = fields.map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes()));
        on.deadline.set_after(self.http.timeouts.idle);
        let sent = on
            .deadline
            .bound(pin!(on.stream.send_head(self.status, fields, true)))
            .await;
        self.end_reply(on, matches!(sent, Ok(Ok(())))).await
    }

    /// A stream is reset if the rest of its request is not worth reading, which some clients take for a
    /// failure.
    async fn end_reply(&mut self, on: &ClientStream, was_sent: bool) -> Next {
        self.times.ended_ns = self.client.local.driver.clock_ns();
        self.sent_bytes += on.stream.sent_bytes();
        if !was_sent {
            return Next::Abort;
        }
        match self.upload.may_stay_unsent() || self.discard_rest().await {
            true => Next::KeepAlive,
            false => Next::Linger,
        }
    }

    /// Reads the rest of the request, if it is short. False if it is not.
    async fn discard_rest(&mut self) -> bool {
        let deadline = self.caller.deadline();
        deadline.set_after(DISCARD_TIMEOUT);
        let discarding = self.upload.discard(self.caller, DISCARD_BYTES_MAX);
        matches!(deadline.bound(pin!(discarding)).await, Ok(Ok(()))) && self.upload.is_read()
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
