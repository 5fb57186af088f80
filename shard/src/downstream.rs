//! A client's connection, from its accept to its close.
//!
//! While it is idle it is a small task around one armed receive: no buffer, no parsed head. The state of
//! a request is boxed, and lives as long as the request.
//!
//! * `downstream.rs`: every connection until it is known what is spoken, and those in HTTP/1.
//! * `downstream/http2.rs`: those in HTTP/2; `downstream/workers.rs`: the tasks that serve their streams.

mod http2;
mod workers;

use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use tidegate_codecs::http2::PREFACE;
use tidegate_core::{
    config::model::{HttpTimeouts, ProxyProtocolIn, ServerMode},
    encryption::rollout::LinkKind,
    message::AccessRecord,
    reason::Reason,
    snapshot::{Listener, Protocol},
};

use crate::{
    access_log, census,
    drain::IDLE_GRACE,
    local::Local,
    relay,
    request::{self, Caller, Next, Start},
    ring::{Chunk, Deadline, Socket},
    transport::{self, Stream},
};
pub(crate) use http2::ClientStream;
pub(crate) use workers::Workers;

/// For a PROXY header, on listeners that have no time-out of their own for heads.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closed connection may still send what we do not read, before it is reset
/// (RFC 9112, 9.6: lingering keeps the reset from overtaking our answer).
const LINGER: Duration = Duration::from_secs(2);
/// How much of it, so that a peer cannot hold us by sending on.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A client's connection. It is the largest part of an idle connection's task: a field more is a field
/// more for each of a hundred thousand.
pub(crate) struct Client {
    pub(crate) local: Rc<Local>,
    pub(crate) socket: Stream,
    /// The one deadline of the connection, moved from step to step.
    pub(crate) deadline: Deadline,
    /// The address of the listener it came in by.
    pub(crate) bind: Rc<SocketAddr>,
    /// Requests served on it.
    pub(crate) served: Cell<u32>,
    /// It is among the open ones of its kind: it was told from the other, and shook hands if it is TLS.
    is_established: Cell<bool>,
    pub(crate) census: census::Place,
    /// The client, as the PROXY header or the socket says; asked for when first needed.
    peer: OnceCell<Box<Peer>>,
}

/// Who the client is.
struct Peer {
    address: Option<SocketAddr>,
    /// The IP address as text, for `X-Forwarded-For`; `unknown` (RFC 7239, 6.2) if the socket has lost it.
    ip: String,
}

impl Peer {
    fn new(address: Option<SocketAddr>) -> Box<Peer> {
        let ip = address.map_or_else(|| "unknown".to_owned(), |peer| peer.ip().to_string());
        Box::new(Peer { address, ip })
    }
}

impl Client {
    /// A connection that [`Local::admit_connection`] has counted.
    pub(crate) fn new(local: &Rc<Local>, bind: &Rc<SocketAddr>, fd: OwnedFd) -> Client {
        Client {
            local: local.clone(),
            socket: Stream::plain(Socket::new(&local.driver, fd)),
            deadline: local.driver.deadline(),
            bind: bind.clone(),
            served: Cell::new(0),
            is_established: Cell::new(false),
            census: census::Place::default(),
            peer: OnceCell::new(),
        }
    }

    /// The client's address.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
            .get_or_init(|| Peer::new(self.socket.peer_address()))
            .address
    }

    /// The client's IP address as text.
    pub(crate) fn peer_ip(&self) -> &str {
        &self
            .peer
            .get_or_init(|| Peer::new(self.socket.peer_address()))
            .ip
    }

    /// The scheme that the client uses.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.socket.kind() {
            LinkKind::Plaintext => "http",
            LinkKind::Tls => "https",
        }
    }

    /// Whether `listener`, its own as it is now, would not take it any more: it is plaintext, and strict was
    /// forced, which is ended as politely as a drain does it; or its certificate is not trusted any more, and
    /// then no further request is served.
    pub(crate) fn is_unwelcome(&self, listener: &Listener) -> bool {
        let tls = listener.tls.as_ref();
        let is_strict = tls.is_some_and(|tls| tls.mode == ServerMode::Strict);
        let is_plaintext = self.socket.kind() == LinkKind::Plaintext;
        is_strict && is_plaintext || self.socket.is_distrusted()
    }

    /// Counts a request, or a relayed connection, by how its bytes travelled (E1).
    pub(crate) fn count_exchange(&self, received_bytes: u64, sent_bytes: u64) {
        let counters = self.local.counters();
        let (requests, received, sent) = match self.socket.kind() {
            LinkKind::Plaintext => (
                &counters.plaintext_requests,
                &counters.plaintext_received_bytes,
                &counters.plaintext_sent_bytes,
            ),
            LinkKind::Tls => (
                &counters.tls_requests,
                &counters.tls_received_bytes,
                &counters.tls_sent_bytes,
            ),
        };
        requests.add(1);
        received.add(received_bytes);
        sent.add(sent_bytes);
    }

    /// It is known how its bytes travel.
    fn count_established(&self) {
        let counters = self.local.counters();
        let (all, open) = match self.socket.kind() {
            LinkKind::Plaintext => (
                &counters.plaintext_connections,
                &counters.plaintext_connections_open,
            ),
            LinkKind::Tls => (&counters.tls_connections, &counters.tls_connections_open),
        };
        all.add(1);
        open.add(1);
        self.is_established.set(true);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.is_established.get() {
            let counters = self.local.counters();
            match self.socket.kind() {
                LinkKind::Plaintext => counters.plaintext_connections_open.sub(1),
                LinkKind::Tls => counters.tls_connections_open.sub(1),
            }
        }
        census::disconnected(self);
        self.local.let_in.remove(&self.socket);
        self.local.release_connection();
    }
}

/// Serves one connection to its end. (Not an `async fn`, whose future would hold its argument twice.)
#[allow(clippy::manual_async_fn)]
pub(crate) fn serve(mut client: Client) -> impl Future<Output = ()> {
    async move {
        let Some(plane) = client.local.plane() else {
            return;
        };
        let Some(listener) = plane.listener(*client.bind) else {
            return;
        };
        if listener.proxy_protocol == ProxyProtocolIn::Require
            && !Box::pin(take_proxy_header(&client)).await
        {
            client.local.counters().refuse(Reason::ProxyHeader);
            return;
        }
        if listener.tls.is_some() && !Box::pin(encrypt(&mut client, listener)).await {
            return;
        }
        client.count_established();
        census::connected(&client, listener);
        match &listener.protocol {
            Protocol::Tcp(tcp) => Box::pin(relay::serve(&client, &plane, listener, tcp)).await,
            Protocol::Http(http) => {
                let first_wait = http.timeouts.header;
                // An idle connection must not keep an old snapshot alive.
                drop(plane);
                let agreed = client.socket.tls_facts().map(|tls| tls.is_http2);
                let spoken = match agreed {
                    Some(true) => Spoken::Http2,
                    _ => serve_http1(&client, first_wait).await,
                };
                if spoken == Spoken::Http2 {
                    Box::pin(http2::serve(client)).await;
                }
            }
        }
    }
}

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Http1,
    /// And nothing of it was taken.
    Http2,
}

/// Requests, one after the other, until either side has enough; unless the client begins with the preface of
/// HTTP/2, knowing that it is spoken here. (In TLS that is agreed upon, and not guessed.) (Not an
/// `async fn`, as above.)
#[allow(clippy::manual_async_fn)]
fn serve_http1(client: &Client, mut wait: Duration) -> impl Future<Output = Spoken> {
    async move {
        while let Some(first) = wait_for_request(client, wait).await {
            match Box::pin(serve_request(client, first)).await {
                Some(Next::KeepAlive) => {}
                Some(Next::Close) => {
                    close(client).await;
                    break;
                }
                Some(Next::Linger) => {
                    Box::pin(linger(client)).await;
                    break;
                }
                Some(Next::Abort) => {
                    client.socket.reset_on_close();
                    break;
                }
                None => return Spoken::Http2,
            }
            client.served.set(client.served.get().saturating_add(1));
            wait = timeouts(client).keep_alive;
        }
        Spoken::Http1
    }
}

/// Serves a request, whose first bytes these are; `None` if they are the preface, and were put back.
async fn serve_request(client: &Client, mut first: Chunk) -> Option<Next> {
    let may_be_http2 = client.served.get() == 0
        && begins_alike(&first, PREFACE)
        && client.socket.kind() == LinkKind::Plaintext;
    if may_be_http2 {
        first = gather_preface(client, first).await;
        if first.starts_with(PREFACE) {
            client.socket.put_back(first);
            return None;
        }
    }
    Some(request::serve_request(Caller::Http1(client), Start::Bytes(first)).await)
}

/// Whether one is the beginning of the other.
fn begins_alike(bytes: &[u8], known: &[u8]) -> bool {
    bytes.iter().zip(known).all(|(one, other)| one == other)
}

/// Receives until it is known whether the client begins with the preface. If it stops before, whoever reads
/// the request finds that out.
async fn gather_preface(client: &Client, mut first: Chunk) -> Chunk {
    client.deadline.set_after(timeouts(client).header);
    while first.len() < PREFACE.len() && begins_alike(&first, PREFACE) {
        let Ok(Ok(Some(more))) = client.deadline.bound(pin!(client.socket.receive())).await else {
            break;
        };
        first = Chunk::from_vec(&client.local.driver, [&first[..], &more[..]].concat());
    }
    first
}

/// The first bytes of the next request; `None` if there will be none.
async fn wait_for_request(client: &Client, wait: Duration) -> Option<Chunk> {
    let usual_ns = client
        .local
        .driver
        .now_ns()
        .saturating_add(wait.as_nanos() as u64);
    let waiting = std::future::poll_fn(|cx| {
        if client.socket.is_distrusted() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(received) = client.socket.poll_receive(cx) {
            return Poll::Ready(received.ok().flatten());
        }
        // Here, since a drain or the listener's end wakes us to move it.
        client.deadline.set(idle_until_ns(client, usual_ns));
        Poll::Pending
    });
    client.deadline.bound(pin!(waiting)).await.ok().flatten()
}

/// Until when an idle connection is kept.
fn idle_until_ns(client: &Client, usual_ns: u64) -> u64 {
    let plane = client.local.plane();
    let listener = plane.as_ref().and_then(|p| p.listener(*client.bind));
    if listener.is_some_and(|listener| !client.is_unwelcome(listener)) {
        return client.local.drain.idle_until_ns(usual_ns);
    }
    let now_ns = client.local.driver.now_ns();
    usual_ns.min(now_ns.saturating_add(IDLE_GRACE.as_nanos() as u64))
}

/// The time-outs that the listener has now; it may have changed since the accept.
fn timeouts(client: &Client) -> HttpTimeouts {
    let plane = client.local.plane();
    let listener = plane
        .as_ref()
        .and_then(|plane| plane.listener(*client.bind));
    match listener.map(|listener| &listener.protocol) {
        Some(Protocol::Http(http)) => http.timeouts,
        // The listener is gone: what is under way ends as usual, and nothing new begins.
        _ => HttpTimeouts {
            keep_alive: Duration::ZERO,
            ..HttpTimeouts::default()
        },
    }
}

/// Makes the connection what the listener asks for. False if it is not served.
async fn encrypt(client: &mut Client, listener: &Listener) -> bool {
    let Client {
        local,
        socket,
        deadline,
        ..
    } = client;
    let Err(refused) = transport::establish(local, socket, deadline, listener).await else {
        return true;
    };
    if let Some(reason) = refused.reason {
        refuse(client, listener, reason, refused.detail).await;
    }
    false
}

/// Logs what no request has recorded.
fn log(
    client: &Client,
    listener: &Listener,
    reason: Reason,
    detail: &'static str,
    protocol: &'static str,
) {
    let local = &client.local;
    if local.logs_access() {
        let mut record = AccessRecord {
            start_unix_ns: local.unix_ns(local.driver.now_ns()),
            shard: local.id.0,
            listener: listener.name.clone(),
            client: client.peer(),
            protocol,
            reason: Some(reason),
            detail,
            ..AccessRecord::default()
        };
        access_log::fill_tls(&mut record, &client.socket);
        local.log_access(record);
    }
}

/// Counts and logs a connection that is not served, and lets the client read what it was told.
async fn refuse(client: &Client, listener: &Listener, reason: Reason, detail: &'static str) {
    let local = &client.local;
    log(client, listener, reason, detail, "TCP");
    client.deadline.set_after(LINGER);
    match &listener.protocol {
        Protocol::Http(_) if reason == Reason::PlaintextOnTls => {
            // Somebody who forgot the `s` is told so, in the clear.
            let answering = request::refuse_unread(client, reason);
            if client.deadline.bound(pin!(answering)).await.is_err() {
                return;
            }
        }
        _ => local.counters().refuse(reason),
    }
    linger(client).await;
}

async fn take_proxy_header(client: &Client) -> bool {
    client.deadline.set_after(PROXY_HEADER_TIMEOUT);
    let header = transport::read_proxy_header(&client.local.driver, &client.socket);
    let Ok(Some(proxied)) = client.deadline.bound(pin!(header)).await else {
        return false;
    };
    if let Some(source) = proxied.source {
        let _ = client.peer.set(Peer::new(Some(source)));
    }
    true
}

/// Closes after everything was sent. The request was read to its end, so nothing can provoke a reset. In TLS
/// the farewell follows by itself.
/// A slow reader has the listener's idle time-out for the last piece, as for those before it.
async fn close(client: &Client) {
    client.deadline.set_after(timeouts(client).idle);
    let _ = client.deadline.bound(pin!(client.socket.flush())).await;
}

/// Closes after everything was sent and the peer has stopped sending, or has had its time for it.
async fn linger(client: &Client) {
    client.deadline.set_after(timeouts(client).idle);
    if !matches!(
        client.deadline.bound(pin!(client.socket.finish())).await,
        Ok(Ok(()))
    ) {
        return;
    }
    client.deadline.set_after(LINGER);
    let reading = async {
        let mut left = LINGER_BYTES_MAX;
        while left > 0
            && let Ok(Some(chunk)) = client.socket.receive().await
        {
            left = left.saturating_sub(chunk.len());
        }
    };
    let _ = client.deadline.bound(pin!(reading)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<F>(_: impl FnOnce(Client) -> F) -> usize {
        size_of::<F>()
    }

    /// Goal: a plain idle connection costs less than 1 KiB of user space. Method: the sizes of what it
    /// holds; the rest (executor, allocator, timer) is about 250 bytes.
    #[test]
    fn idle_connections_are_small() {
        let task = future_size(serve);
        let slot = crate::ring::SLOT_BYTES;
        assert!(task <= 336, "{task}");
        assert!(slot <= 208, "{slot}");
    }
}
