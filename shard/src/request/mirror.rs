//! Copies of requests for other clusters (mirroring, or shadowing). The request itself never waits for them, and never
//! fails for them: a copy is made of what has gone by anyway, and sent by a task of its own; its answer is read and
//! dropped.
//!
//! A copy of a request with a body is sent once all of the body has come. What is too large, or too much at once, is not
//! copied, and counted.

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use tidegate_codecs::{
    http1::{BodyTracker, RequestKind, ResponseHead},
    http2::request_fields,
    limits::Http1Limits,
};
use tidegate_core::{
    config::model::Labels,
    healing::counter::Fault,
    id::ClusterId,
    snapshot::{Action, Forward, Route},
    stats::{PerShard, RouteCounters},
};

use super::{
    exchange::Exchange,
    head::{Copied, read_head},
    replay::Replay,
};
use crate::{
    executor,
    local::{Local, Plane},
    ring::{Chunk, Payload},
    upstream::{Callee, Destination, Endpoint, Fate, Leg},
};

/// Bytes of a body that is copied: most calls have less, and uploads are not what one wants twice.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// Copies of a shard that are being made or sent at once: with their bodies, 16 MiB, if `limits.buffers` has room.
const ACTIVE_MAX: u32 = 256;

/// Bytes of an answer that are read so that its connection can be used again.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// For a copy whose route has no time-out.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The clusters that get a copy of a request, while its body is still to come.
#[derive(Default)]
pub(super) struct Copies(Vec<Pending>);

/// A copy for one cluster.
struct Pending {
    to: ClusterId,
    host_suffix: bool,
    slot: Slot,
}

/// A place among those that are active.
struct Slot(Rc<Local>);

impl Slot {
    fn take(local: &Rc<Local>) -> Option<Slot> {
        let active = &local.mirrors_active;
        if active.get() >= ACTIVE_MAX {
            return None;
        }
        active.set(active.get() + 1);
        Some(Slot(local.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let active = &self.0.mirrors_active;
        active.set(active.get().saturating_sub(1));
    }
}

/// A copy that is complete.
struct Shadow {
    to: ClusterId,
    /// In HTTP/1.
    head: Vec<u8>,
    /// In the framing of HTTP/1; copies of one request share it.
    body: Option<Rc<Replay>>,
    kind: RequestKind,
    timeout: Duration,
    counters: Arc<PerShard<RouteCounters>>,
}

impl<'a> Exchange<'a> {
    /// Chooses who gets a copy. Of a request without body they are sent right away.
    pub(super) fn mirror(&mut self, plane: &Rc<Plane>, route: &Route, forward: &Forward) {
        if forward.mirrors.is_empty() || self.scratch.request.upgrade.is_some() {
            return;
        }
        let local = &self.client.local;
        let Some(counters) = route.counters.get(local.id) else {
            return;
        };
        let chosen = forward.mirrors.iter();
        let chosen = chosen.filter(|mirror| mirror.chance.hits(local.random()));
        let copies = chosen.filter_map(|mirror| {
            let slot = Slot::take(local);
            if slot.is_none() {
                counters.mirrors_dropped.add(1);
            }
            Some(Pending {
                to: mirror.cluster,
                host_suffix: mirror.host_suffix,
                slot: slot?,
            })
        });
        self.copies = Copies(copies.collect());
        match self.is_bodiless() {
            true => self.send_copies(plane),
            false if self.copies.0.is_empty() => {}
            false => {
                let buffers = plane.snapshot.config.limits.buffers;
                self.upload.keep_copy(local, BODY_BYTES_MAX, buffers);
            }
        }
    }

    /// Sends the copies that wait for the body, if all of it has come.
    pub(super) fn send_copies(&mut self, plane: &Rc<Plane>) {
        let copies = std::mem::take(&mut self.copies.0);
        let Some(route) = self.route.filter(|_| !copies.is_empty()) else {
            return;
        };
        let Action::Forward(forward) = &route.action else {
            return;
        };
        let local = self.client.local.clone();
        let Some(counters) = route.counters.get(local.id) else {
            return;
        };
        let body = self.upload.take_copy();
        if body.is_none() && self.upload.has_body() {
            counters.mirrors_dropped.add(copies.len() as u64);
            return;
        }
        for copy in copies {
            counters.mirrored.add(1);
            let host = copy.host_suffix.then(|| self.shadow_host(forward));
            let host = host.as_deref();
            let shadow = Shadow {
                to: copy.to,
                head: self.write_copied_head(route, forward, Copied { host }),
                body: body.clone(),
                kind: self.scratch.request.kind(),
                timeout: forward.timeout.unwrap_or(TIMEOUT),
                counters: route.counters.clone(),
            };
            let (plane, slot) = (plane.clone(), copy.slot);
            executor::spawn(&local.driver, async move {
                let local = slot.0.clone();
                shadow.run(&local, &plane).await;
                drop(slot);
            });
        }
    }

    /// `pay.example:8080` is `pay.example-shadow:8080`, as with Envoy.
    fn shadow_host(&self, forward: &Forward) -> Vec<u8> {
        let (head, bytes) = self.head();
        let host = forward.host_rewrite.as_deref().map(str::as_bytes);
        with_suffix(host.unwrap_or_else(|| head.authority.of(bytes)))
    }
}

fn with_suffix(authority: &[u8]) -> Vec<u8> {
    const SUFFIX: &[u8] = b"-shadow";
    let is_port = |at: &usize| {
        let port = authority.get(at + 1..).unwrap_or_default();
        port.iter().all(u8::is_ascii_digit)
    };
    let port = authority
        .iter()
        .rposition(|byte| *byte == b':')
        .filter(is_port);
    let (name, port) = authority.split_at(port.unwrap_or(authority.len()));
    [name, SUFFIX, port].concat()
}

impl Shadow {
    async fn run(&self, local: &Rc<Local>, plane: &Plane) {
        let Some(counters) = self.counters.get(local.id) else {
            return;
        };
        match self.send(local, plane).await {
            Some(()) => counters.mirrors_answered.add(1),
            None => counters.mirrors_failed.add(1),
        }
    }

    /// One try at an endpoint, which is judged by it as by any request.
    async fn send(&self, local: &Rc<Local>, plane: &Plane) -> Option<()> {
        let (settings, cluster) = plane.cluster(self.to)?;
        let to = Destination {
            local,
            settings,
            cluster,
            subset: settings.subsets.find(&Labels::new()).subset?,
            hash: None,
            preface: None,
        };
        let _admission = to.admit()?;
        let began = local.now();
        let deadline = local.driver.deadline();
        deadline.set_after(self.timeout);
        let mut ticket = cluster.pick(to.subset, None, local.random(), &[], began)?;
        let sent = deadline
            .bound(pin!(self.exchange(to, &ticket.endpoint)))
            .await;
        let sent = sent.unwrap_or(Err(Fate::Failed(Fault::Deadline)));
        let fate = match &sent {
            Ok(500..) => Fate::Failed(Fault::Status),
            Ok(_) => Fate::Answered,
            Err(fate) => *fate,
        };
        let now = local.now();
        ticket.end(fate, now.saturating_sub(began), now);
        sent.ok().map(drop)
    }

    /// The status of the answer.
    async fn exchange(&self, to: Destination<'_>, endpoint: &Rc<Endpoint>) -> Result<u16, Fate> {
        // A pooled connection may have been closed meanwhile: that says nothing of the endpoint.
        if let Some(leg) = Leg::reuse(to, endpoint)
            && let Ok(status) = self.exchange_on(to, leg).await
        {
            return Ok(status);
        }
        let made = Leg::connect(to, endpoint).await;
        let leg = made.map_err(|_| Fate::NotConnected)?;
        self.exchange_on(to, leg).await
    }

    async fn exchange_on(&self, to: Destination<'_>, mut leg: Leg) -> Result<u16, Fate> {
        const LOST: Fate = Fate::Failed(Fault::Reset);
        let scheme = leg.scheme();
        match &mut leg {
            Leg::Http1(connection) => {
                let mut message = self.head.clone();
                if let Some(body) = &self.body {
                    message.extend_from_slice(&body.whole().ok_or(Fate::Unknown)?);
                }
                let sent = connection.socket.send(Payload::head(message)).await;
                sent.map_err(|_| LOST)?;
            }
            Leg::Http2(call) => {
                let payload = self.payload().ok_or(Fate::Unknown)?;
                let (line, fields) = request_fields(&self.head, scheme);
                let asked = call.ask(line, fields, payload.is_empty(), self.kind);
                asked.map_err(|_| LOST)?;
                if let (Some(Callee::Http2(stream)), false) = (leg.callee(), payload.is_empty()) {
                    stream.send_all(&payload).await.map_err(|_| LOST)?;
                }
            }
        }
        let callee = leg.callee().ok_or(LOST)?;
        let (head, rest) = self.read_final_head(to, callee).await.ok_or(LOST)?;
        if drain(callee, &head, rest).await {
            leg.check_in(to);
        }
        Ok(head.status)
    }

    /// The body without framing.
    fn payload(&self) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        let Some(body) = &self.body else {
            return Some(payload);
        };
        let (mut framing, bytes) = (body.start(), body.whole()?);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && !framing.is_done() {
            let piece = framing.next_payload(rest).ok()?;
            payload.extend_from_slice(rest.get(piece.payload)?);
            rest = rest.get(piece.consumed..)?;
        }
        Some(payload)
    }

    /// The head of the final answer, and what came with it.
    async fn read_final_head(
        &self,
        to: Destination<'_>,
        callee: Callee<'_>,
    ) -> Option<(ResponseHead, Chunk)> {
        let mut head = ResponseHead::default();
        loop {
            let read = read_head(&to.local.driver, callee, &mut head, self.kind).await;
            let mut chunk = read.ok()?;
            chunk.advance(head.len);
            if head.status >= 200 {
                return Some((head, chunk));
            }
            callee.put_back(chunk);
        }
    }
}

/// Reads the body of an answer and drops it; whether the connection can be used again.
async fn drain(callee: Callee<'_>, head: &ResponseHead, rest: Chunk) -> bool {
    let mut tracker = BodyTracker::new(head.framing, &Http1Limits::default());
    let mut rest = Some(rest).filter(|rest| !rest.is_empty());
    while !tracker.is_done() {
        let chunk = match rest.take() {
            Some(chunk) => Some(chunk),
            None => match std::future::poll_fn(|cx| callee.poll_receive(cx)).await {
                Ok(received) => received,
                Err(_) => return false,
            },
        };
        let Some(mut chunk) = chunk else {
            return false;
        };
        let before = tracker.payload_bytes();
        let Ok(taken) = tracker.advance(&chunk) else {
            return false;
        };
        callee.consume(tracker.payload_bytes() - before);
        chunk.advance(taken);
        if tracker.payload_bytes() > ANSWER_BYTES_MAX {
            return false;
        }
        rest = Some(chunk).filter(|chunk| !chunk.is_empty());
    }
    head.keep_alive && rest.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the host of a copy is told from that of the request, port and all. Method: hosts of each form.
    #[test]
    fn hosts_get_a_suffix() {
        for (host, expected) in [
            ("pay.example", "pay.example-shadow"),
            ("pay.example:8080", "pay.example-shadow:8080"),
            ("[::1]", "[::1]-shadow"),
            ("[::1]:80", "[::1]-shadow:80"),
            ("", "-shadow"),
        ] {
            let made = with_suffix(host.as_bytes());
            assert_eq!(String::from_utf8_lossy(&made), expected);
        }
    }
}
