//! Byte relays: TCP listeners, and exchanges that have switched to another protocol.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tidegate_codecs::proxy_protocol;
use tidegate_core::{
    config::model::{ProxyProtocolOut, Retry},
    encryption::census::Bytes,
    message::AccessRecord,
    reason::Reason,
    snapshot::{self, Listener, Tcp},
    steering::hash_address,
};

use crate::{
    access_log, census,
    downstream::Client,
    http2,
    local::{Local, Plane},
    ring::{Chunk, Deadline, Failed, Payload, is_over_budget},
    transport::Stream,
    upstream::{Callee, Connection, Destination, Fate, Ticket},
};

/// Endpoints tried for one connection: what HAProxy tries by default.
const CONNECT_TRIES_MAX: usize = 1 + Retry::BUDGET_MIN as usize;

/// Limits on one relay, on the driver's clock.
#[derive(Clone, Copy)]
pub(crate) struct RelayLimits {
    /// For any movement in either direction.
    pub(crate) idle: Duration,
    /// When it ends whatever moves.
    pub(crate) until_ns: u64,
}

/// How a relay ended, and what it moved.
pub(crate) struct Relayed {
    pub(crate) from_client: u64,
    pub(crate) from_upstream: u64,
    /// `None` if both sides finished.
    pub(crate) reason: Option<Reason>,
}

/// Serves a connection of a TCP listener to its end.
pub(crate) async fn serve(client: &Client, plane: &Rc<Plane>, listener: &Listener, tcp: &Tcp) {
    let local = &client.local;
    let began_ns = local.driver.now_ns();
    census::relay_began(client, listener);
    let mut record = AccessRecord {
        start_unix_ns: local.unix_ns(began_ns),
        shard: local.id.0,
        listener: listener.name.clone(),
        protocol: "TCP",
        ..AccessRecord::default()
    };
    let relayed = match connect(client, plane, tcp, &mut record).await {
        // The ticket counts the connection at its endpoint until the relay ends.
        Ok((connection, _ticket)) => {
            let until_ns = tcp
                .max_age
                .map_or(u64::MAX, |age| began_ns + age.as_nanos() as u64);
            let limits = RelayLimits {
                idle: tcp.idle_timeout,
                until_ns,
            };
            client.socket.start_receiving();
            let (from, to) = (End::Socket(&client.socket), End::Socket(&connection.socket));
            run(local, &client.deadline, from, to, &limits).await
        }
        Err(reason) => {
            client.socket.reset_on_close();
            Relayed {
                from_client: 0,
                from_upstream: 0,
                reason: Some(reason),
            }
        }
    };
    let counters = local.counters();
    counters.downstream_received_bytes.add(relayed.from_client);
    counters.downstream_sent_bytes.add(relayed.from_upstream);
    client.count_exchange(relayed.from_client, relayed.from_upstream);
    let bytes = Bytes {
        received: relayed.from_client,
        sent: relayed.from_upstream,
    };
    census::relay_ended(client, listener, bytes);
    if let Some(reason) = relayed.reason {
        counters.refuse(reason);
    }
    if local.logs_access() {
        record.client = client.peer();
        access_log::fill_tls(&mut record, &client.socket);
        record.reason = relayed.reason;
        record.received_bytes = relayed.from_client;
        record.sent_bytes = relayed.from_upstream;
        record.total_ns = local.driver.clock_ns().saturating_sub(began_ns);
        local.log_access(record);
    }
}

/// Connects to an endpoint of the listener's cluster, to another one if the first will not.
async fn connect(
    client: &Client,
    plane: &Plane,
    tcp: &Tcp,
    record: &mut AccessRecord,
) -> Result<(Connection, Ticket), Reason> {
    let local = &client.local;
    let target = tcp.split.target(local.random()).ok_or(Reason::NoEndpoint)?;
    let destination = plane.cluster(target.cluster);
    let (settings, cluster) = destination.ok_or(Reason::NoEndpoint)?;
    record.cluster = settings.name.clone();
    record.choice.is_fallback = target.within.is_fallback;
    let subset = target.within.subset.ok_or(Reason::NoSubset)?;
    // The port says nothing about who the client is.
    let hash = client
        .peer()
        .map(|peer| hash_address(SocketAddr::new(peer.ip(), 0)));
    let header = proxy_header(client, settings);
    let to = Destination {
        local,
        settings,
        cluster,
        subset,
        hash,
        preface: header.as_deref(),
    };
    let mut tried = Vec::new();
    let mut reason = Reason::NoEndpoint;
    while tried.len() < CONNECT_TRIES_MAX {
        let ticket = cluster.pick(subset, hash, local.random(), &tried, local.now());
        let Some(mut ticket) = ticket.filter(|t| !tried.contains(&t.id)) else {
            break;
        };
        record.endpoint = Some(ticket.endpoint.address);
        ticket.describe(settings, &mut record.choice);
        match Connection::connect(to, &ticket.endpoint).await {
            Ok(connection) => {
                ticket.end(Fate::Answered, Duration::ZERO, local.now());
                return Ok((connection, ticket));
            }
            Err(refused) => {
                ticket.end(Fate::NotConnected, Duration::ZERO, local.now());
                tried.push(ticket.id);
                if refused == Reason::UpstreamTls {
                    record.detail = ticket.endpoint.fault();
                }
                reason = refused;
            }
        }
    }
    Err(reason)
}

/// The PROXY protocol header, if the cluster wants one. It goes before TLS, as HAProxy's and Envoy's does.
fn proxy_header(client: &Client, settings: &snapshot::Cluster) -> Option<Vec<u8>> {
    let version = settings.config.proxy_protocol?;
    let mut header = Vec::new();
    match (client.peer().zip(client.socket.local_address()), version) {
        (Some((source, to)), ProxyProtocolOut::V1) => {
            proxy_protocol::write_v1(source, to, &mut header);
        }
        (Some((source, to)), ProxyProtocolOut::V2) => {
            proxy_protocol::write_v2(source, to, &mut header);
        }
        (None, ProxyProtocolOut::V1) => header.extend_from_slice(proxy_protocol::V1_UNKNOWN),
        (None, ProxyProtocolOut::V2) => header.extend_from_slice(&proxy_protocol::V2_LOCAL),
    }
    Some(header)
}

/// Moves bytes both ways (and counts the endpoint's side; the client's is the caller's to count, with what
/// went before) until both sides have finished, one has failed, or a limit is reached. A side
/// that half-closes is half-closed on the other; the opposite direction goes on.
pub(crate) async fn run(
    local: &Local,
    deadline: &Deadline,
    client: End<'_>,
    upstream: End<'_>,
    limits: &RelayLimits,
) -> Relayed {
    let extend = || {
        let idle_until = local
            .driver
            .now_ns()
            .saturating_add(limits.idle.as_nanos() as u64);
        deadline.set(idle_until.min(limits.until_ns));
    };
    let mut up = Direction::default();
    let mut down = Direction::default();
    extend();
    let moving = std::future::poll_fn(|cx| {
        let before = (up.bytes, down.bytes);
        let up_done = up.poll(cx, client, upstream);
        let down_done = down.poll(cx, upstream, client);
        if before != (up.bytes, down.bytes) {
            extend();
        }
        match (up_done, down_done) {
            (Poll::Ready(Err(failed)), _) => Poll::Ready(Some(reason(&failed, Side::Client))),
            (_, Poll::Ready(Err(failed))) => Poll::Ready(Some(reason(&failed, Side::Upstream))),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(None),
            _ => Poll::Pending,
        }
    });
    let reason = match deadline.bound(pin!(moving)).await {
        Ok(reason) => reason,
        Err(_) if local.driver.now_ns() >= limits.until_ns => Some(Reason::MaxAge),
        Err(_) => Some(Reason::IdleTimeout),
    };
    if reason.is_some() {
        client.reset_on_close();
        upstream.reset_on_close();
    }
    let counters = local.counters();
    counters.upstream_sent_bytes.add(up.bytes);
    counters.upstream_received_bytes.add(down.bytes);
    Relayed {
        from_client: up.bytes,
        from_upstream: down.bytes,
        reason,
    }
}

/// One end of a relay.
#[derive(Clone, Copy)]
pub(crate) enum End<'a> {
    /// A connection.
    Socket(&'a Stream),
    /// A stream in HTTP/2.
    Frames(&'a http2::Stream),
}

impl<'a> From<Callee<'a>> for End<'a> {
    fn from(callee: Callee<'a>) -> End<'a> {
        match callee {
            Callee::Http1(stream) => End::Socket(stream),
            Callee::Http2(stream) => End::Frames(stream),
        }
    }
}

impl End<'_> {
    /// Receives for `sink`: not before that has taken what it was given.
    fn poll_receive_for(
        self,
        cx: &Context<'_>,
        sink: End<'_>,
    ) -> Poll<Result<Option<Chunk>, Failed>> {
        match (self, sink) {
            (End::Socket(source), End::Socket(sink)) => source.poll_receive_for(cx, sink),
            (End::Frames(source), End::Socket(sink)) => source.poll_receive_for(cx, sink),
            (source, End::Frames(sink)) => {
                // A sink that is only written to is not heard of before the next piece.
                if let Poll::Ready(error) = sink.poll_failed(cx) {
                    return Poll::Ready(Err(Failed::Sink(error)));
                }
                match source {
                    End::Socket(source) => source.poll_receive(cx),
                    End::Frames(source) => source.poll_receive(cx),
                }
                .map_err(Failed::Source)
            }
        }
    }

    /// Sends what is pending, all of it.
    fn poll_send(self, cx: &Context<'_>, pending: &mut Option<Piece>) -> Poll<io::Result<()>> {
        match self {
            End::Socket(stream) => {
                let mut payload = match pending.take() {
                    Some(Piece::Whole(chunk)) => Some(Payload::chunk(chunk)),
                    Some(Piece::Begun(payload)) => Some(payload),
                    None => None,
                };
                let sent = stream.poll_send(cx, &mut payload);
                *pending = payload.map(Piece::Begun);
                sent
            }
            End::Frames(stream) => {
                while let Some(Piece::Whole(chunk)) = pending {
                    let sent = ready!(stream.poll_send(cx, chunk, false))?;
                    chunk.advance(sent);
                    if chunk.is_empty() {
                        *pending = None;
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Half-closes it.
    fn poll_finish(self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Socket(stream) => stream.poll_finish(cx),
            End::Frames(stream) => Poll::Ready(stream.finish(std::iter::empty())),
        }
    }

    /// `bytes` that were received have gone on: as many more may come.
    fn consume(self, bytes: usize) {
        if let End::Frames(stream) = self {
            stream.consume(bytes);
        }
    }

    /// The relay has failed. A stream is reset anyway, when it is dropped before its end.
    fn reset_on_close(self) {
        if let End::Socket(stream) = self {
            stream.reset_on_close();
        }
    }
}

/// What was received and is not sent yet.
enum Piece {
    Whole(Chunk),
    /// Handed to a socket, which may have taken a part.
    Begun(Payload),
}

/// One direction of a relay: at most one piece is held, which is the back-pressure.
#[derive(Default)]
struct Direction {
    pending: Option<Piece>,
    /// Bytes of it.
    pending_bytes: usize,
    bytes: u64,
    state: DirectionState,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum DirectionState {
    #[default]
    Open,
    /// The source has finished; what is left is being sent.
    Finishing,
    Done,
}

/// Which side is the source of a direction.
#[derive(PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// What the failure of a direction means.
fn reason(failed: &Failed, source: Side) -> Reason {
    match (failed, source) {
        (Failed::Source(error) | Failed::Sink(error), _) if is_over_budget(error) => {
            Reason::BufferBudget
        }
        (Failed::Source(_), Side::Client) | (Failed::Sink(_), Side::Upstream) => Reason::ClientGone,
        _ => Reason::UpstreamReset,
    }
}

impl Direction {
    fn poll(&mut self, cx: &Context<'_>, from: End<'_>, to: End<'_>) -> Poll<Result<(), Failed>> {
        loop {
            if self.pending.is_some() {
                ready!(to.poll_send(cx, &mut self.pending)).map_err(Failed::Sink)?;
                from.consume(self.pending_bytes);
            }
            match self.state {
                DirectionState::Done => return Poll::Ready(Ok(())),
                DirectionState::Finishing => {
                    ready!(to.poll_finish(cx)).map_err(Failed::Sink)?;
                    self.state = DirectionState::Done;
                }
                DirectionState::Open => match ready!(from.poll_receive_for(cx, to))? {
                    Some(chunk) => {
                        self.pending_bytes = chunk.len();
                        self.bytes += chunk.len() as u64;
                        self.pending = Some(Piece::Whole(chunk));
                    }
                    None => self.state = DirectionState::Finishing,
                },
            }
        }
    }
}
