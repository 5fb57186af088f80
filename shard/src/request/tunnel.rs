//! Requests for another protocol, such as WebSocket: from HTTP/1 by `Upgrade` (RFC 9110, 7.8), from HTTP/2 by an
//! extended CONNECT (RFC 8441), and towards the endpoint by either. What follows the answer is a relay.

use std::{io, ops::Range, sync::Arc};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use tidegate_codecs::{
    http1::{RequestKind, ResponseEdits, forward_response},
    http2::{FieldLine, RequestLine, response_fields},
};
use tidegate_core::{reason::Reason, snapshot::Route};

use super::{
    Next,
    caller::Caller,
    exchange::{Exchange, Refusal},
    retry::Failure,
};
use crate::{
    downstream::ClientStream,
    relay::{self, End, RelayLimits},
    ring::{Chunk, Payload},
    upstream::{Call, Leg},
};

/// Where a WebSocket handshake in HTTP/1 has its key, and the answer what was made of it (RFC 6455, 4). An
/// extended CONNECT has neither.
pub(super) const KEY: &str = "sec-websocket-key";
const ACCEPT: &str = "sec-websocket-accept";
/// Where a head has its status.
const STATUS: Range<usize> = 9..12;
/// What is put behind the key (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Asks an endpoint that takes an extended CONNECT.
pub(super) fn ask<'f>(
    call: &Call,
    line: RequestLine<'f>,
    fields: impl Iterator<Item = FieldLine<'f>>,
    protocol: &'f [u8],
) -> io::Result<()> {
    let line = RequestLine {
        method: b"CONNECT",
        protocol: Some(protocol),
        ..line
    };
    let fields = fields.filter(|field| !field.name.eq_ignore_ascii_case(KEY.as_bytes()));
    call.ask(line, fields, false, RequestKind::Connect)
}

/// What an endpoint makes of a key, to show that it speaks WebSocket.
fn accept_of(key: &[u8]) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    BASE64_STANDARD.encode(hash)
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

impl<'a> Exchange<'a> {
    /// The protocol that the request asks for.
    fn upgrade(&self) -> Option<&[u8]> {
        let (head, bytes) = self.head();
        head.upgrade.map(|protocol| protocol.of(bytes))
    }

    /// The key for an endpoint in HTTP/1, if the client did not have to make one up.
    pub(super) fn new_tunnel_key(&self, leg: &Leg) -> Option<String> {
        let wants_key = self.caller.is_http2()
            && matches!(leg, Leg::Http1(_))
            && self.upgrade().is_some_and(is_websocket);
        wants_key.then(|| {
            let local = &self.client.local;
            let nonce = [local.random(), local.random()].map(u64::to_le_bytes);
            BASE64_STANDARD.encode(nonce.concat())
        })
    }

    /// What an endpoint in HTTP/2 is to be asked for, if the request is one for another protocol. Where it does not
    /// take such requests, an `Upgrade` is left out, as any server may do; an extended CONNECT is refused, since
    /// there is nothing else that it could mean.
    pub(super) fn tunnel_protocol(&self, call: &Call) -> Result<Option<&[u8]>, Failure> {
        let Some(protocol) = self.upgrade() else {
            return Ok(None);
        };
        let is_http2 = self.caller.is_http2();
        match call.takes_tunnels() {
            // Only of this one it is known what HTTP/1 has beside it.
            true if is_http2 || is_websocket(protocol) => Ok(Some(protocol)),
            false if is_http2 => {
                let detail = "the endpoint takes no extended CONNECT";
                let refusal = Refusal::with_detail(Reason::MethodNotServed, detail);
                Err(refusal.into())
            }
            _ => Ok(None),
        }
    }

    /// Whether the endpoint has agreed to another protocol. To a client in HTTP/2 any 2xx would say so.
    pub(super) fn has_switched(&self) -> Result<bool, Refusal> {
        let response = &self.scratch.response;
        if response.status == 101 || response.tunnel {
            return Ok(true);
        }
        let is_asked = self.caller.is_http2() && self.upgrade().is_some();
        match response.status {
            200..300 if is_asked => {
                let detail = "the endpoint did not switch protocols";
                Err(Refusal::with_detail(Reason::UpstreamProtocol, detail))
            }
            _ => Ok(false),
        }
    }

    /// Passes the answer on that agrees to another protocol; then the exchange is a relay, to its end.
    pub(super) async fn tunnel(
        &mut self,
        route: &'a Route,
        leg: Leg,
        mut chunk: Chunk,
    ) -> Result<Next, Refusal> {
        // What follows is no request in flight, and may last for days.
        self.pass = None;
        let callee = leg.callee().ok_or(Reason::UpstreamReset)?;
        self.check_accept(&chunk)?;
        self.client.local.counters().upgrades.add(1);
        let sent = match self.caller {
            Caller::Http1(_) => self.switch(route, &chunk).await,
            Caller::Http2(on) => self.accept(on, route, &chunk).await,
        };
        sent.map_err(|_| Reason::ClientGone)?;
        chunk.advance(self.scratch.response.len);
        callee.put_back(chunk);
        let limits = RelayLimits {
            idle: self.http.timeouts.idle,
            until_ns: u64::MAX,
        };
        let client = match self.caller {
            Caller::Http1(client) => End::Socket(&client.socket),
            Caller::Http2(on) => End::Frames(&on.stream),
        };
        let (local, deadline) = (&self.client.local, self.caller.deadline());
        let relayed = relay::run(local, deadline, client, callee.into(), &limits).await;
        self.received_bytes += relayed.from_client;
        self.sent_bytes += relayed.from_upstream;
        self.times.ended_ns = local.driver.clock_ns();
        match relayed.reason {
            Some(reason) => Err(reason.into()),
            None => Ok(Next::Close),
        }
    }

    /// Checks what an endpoint has made of a key of ours.
    fn check_accept(&self, chunk: &Chunk) -> Result<(), Refusal> {
        let Some(key) = &self.tunnel_key else {
            return Ok(());
        };
        let accept = self.scratch.response.field(chunk, ACCEPT);
        if accept != Some(accept_of(key.as_bytes()).as_bytes()) {
            let detail = "the endpoint did not accept the WebSocket handshake";
            return Err(Refusal::with_detail(Reason::UpstreamProtocol, detail));
        }
        Ok(())
    }

    /// Sends the 101. From an endpoint in HTTP/2 there is a 200, and none of what makes it a 101.
    async fn switch(&mut self, route: &Route, chunk: &Chunk) -> io::Result<()> {
        let is_made = self.scratch.response.tunnel;
        let (head, bytes) = self.head();
        let protocol = String::from_utf8_lossy(self.upgrade().unwrap_or_default()).into_owned();
        let accept = head.field(bytes, KEY).map(accept_of);
        let made = [
            Some(("upgrade", &*protocol)),
            accept.as_deref().map(|accept| (ACCEPT, accept)),
        ];
        let made: Vec<_> = made.into_iter().flatten().filter(|_| is_made).collect();
        let edits = ResponseEdits {
            upgrade: true,
            remove: &route.response_headers.remove,
            set: &route.response_headers.set,
            append: &route.response_headers.append,
            extra: &made,
            ..ResponseEdits::default()
        };
        self.status = 101;
        self.answering = true;
        self.scratch.response.status = 101;
        let client = self.client;
        let mut head = client.local.driver.buffer();
        let mut text = chunk.to_vec();
        if let Some(status) = text.get_mut(STATUS) {
            status.copy_from_slice(b"101");
        }
        forward_response(&text, &self.scratch.response, &edits, &mut head);
        self.sent_bytes += head.len() as u64;
        client.socket.start_receiving();
        client.socket.send(Payload::head(head)).await
    }

    /// Sends the 200. From an endpoint in HTTP/1 there is a 101, with an answer to a key that the client does not have.
    async fn accept(&mut self, on: &ClientStream, route: &Route, chunk: &Chunk) -> io::Result<()> {
        let edits = &route.response_headers;
        let mut remove = edits.remove.clone();
        remove.push(Arc::from(ACCEPT));
        let edits = ResponseEdits {
            remove: &remove,
            set: &edits.set,
            append: &edits.append,
            ..ResponseEdits::default()
        };
        self.status = 200;
        self.answering = true;
        let fields = response_fields(chunk, &self.scratch.response, &edits);
        let sent = on.stream.send_head(200, fields, false).await;
        self.sent_bytes += on.stream.sent_bytes();
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the endpoint's proof is the one of RFC 6455. Method: the example of its 1.3.
    #[test]
    fn keys_are_accepted() {
        assert_eq!(
            accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
