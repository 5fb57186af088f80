//! Everything that crosses a thread boundary. Down: [`Directive`]s over one single-producer
//! single-consumer ring per shard. Up: the counters of [`crate::stats`], and [`AccessRecord`]s over a
//! ring of their own, dropped and counted when the writer is behind.

use std::{any::Any, fmt, net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    id::{ClusterId, EndpointId, Epoch, InterfaceId, ShardId},
    limiter::{Priority, bucket::Rate, decision::Share, watermark::Signal},
    reason::Reason,
    snapshot::Snapshot,
};

/// What the coordinator tells a shard. `S` is the type of a listening socket, which policy never
/// looks into.
#[derive(Debug)]
pub enum Directive<S> {
    /// Use this snapshot from the next turn on. `sockets` are the listening sockets that are new in it,
    /// by bind address; sockets of addresses that are gone are closed by the shard.
    Install {
        /// The snapshot.
        snapshot: Arc<Snapshot>,
        /// New listening sockets, each of this shard alone (SO_REUSEPORT).
        sockets: Vec<(SocketAddr, S)>,
    },
    /// Accept on these too: sockets of the snapshot in use that were not there when it was installed.
    Listen {
        /// By bind address.
        sockets: Vec<(SocketAddr, S)>,
    },
    /// Encrypt new connections with this from the next turn on. Sent before the `Install` that needs it,
    /// and again whenever a secret or a ticket key has changed.
    Tls(TlsContexts),
    /// What changed of whether endpoints may be chosen: by active checks, or by what their calls came to.
    Health {
        /// The epoch that the ids below belong to; a verdict for another epoch is dropped.
        epoch: Epoch,
        /// Endpoint and whether it may be chosen.
        verdicts: Vec<(ClusterId, EndpointId, Availability)>,
    },
    /// What part of their load endpoints are to get.
    Priors {
        /// The epoch that the ids below belong to; those of another epoch are dropped.
        epoch: Epoch,
        /// Endpoint and part, in basis points.
        priors: Vec<(ClusterId, EndpointId, u32)>,
    },
    /// The limits of a cluster's interfaces on this shard, in place of those before.
    Limits {
        /// The epoch that the ids below belong to; limits for another epoch are dropped.
        epoch: Epoch,
        /// The cluster.
        cluster: ClusterId,
        /// Why they are what they are.
        cause: LimitCause,
        /// Those that are limited; the others are not.
        limits: Vec<ShardLimit>,
    },
    /// Take what the listening sockets hold, close them, say `Connection: close` and finish what is in
    /// flight. Who is left after `deadline` is cut by the [`Directive::Stop`] that follows.
    Drain {
        /// How long connections may take to finish.
        deadline: Duration,
        /// Addresses whose sockets another process has too, and accepts on from now on: what they hold is
        /// left to it.
        left: Arc<[SocketAddr]>,
    },
    /// Serve as usual again. The listening sockets come with the next [`Directive::Install`].
    Undrain,
    /// Leave the loop now.
    Stop,
}

/// What a limit rests on (L10).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LimitCause {
    /// How full the machine is; 1 is its watermark.
    pub watermark: f32,
    /// What is short.
    pub signal: Option<Signal>,
    /// Of the limits: it grows when they change.
    pub epoch: u64,
}

/// A shard's part of the limit on one interface at one priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShardLimit {
    /// The interface.
    pub interface: InterfaceId,
    /// The priority.
    pub priority: Priority,
    /// Requests in flight over all shards.
    pub total: u32,
    /// On this shard.
    pub share: Share,
    /// Callers that are let in while slots are scarce, in basis points.
    pub cohort: u16,
    /// An operator has set it.
    pub by_hand: bool,
}

/// What the transport made of policy and secrets, off the shards. Policy never looks into it, and it
/// shows nothing of itself (E9).
#[derive(Clone)]
pub struct TlsContexts(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for TlsContexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsContexts(redacted)")
    }
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// May be chosen.
    Available,
    /// May not be chosen, except when the whole cluster is so (panic).
    Unavailable,
    /// On this shard, one request is sent to it to see how it does (H11); else as unavailable.
    Trial(ShardId),
}

/// One finished request or TCP connection, as the access log sees it.
#[derive(Clone, Debug, Default)]
pub struct AccessRecord {
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Which shard.
    pub shard: u16,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Name of the route, empty without one.
    pub route: Arc<str>,
    /// Name of the cluster, empty without one.
    pub cluster: Arc<str>,
    /// The client, as the socket or the PROXY header says.
    pub client: Option<SocketAddr>,
    /// The endpoint, if one was chosen.
    pub endpoint: Option<SocketAddr>,
    /// How it came to be chosen.
    pub choice: Choice,
    /// `HTTP/2`, `HTTP/1.1`, `HTTP/1.0` or `TCP`.
    pub protocol: &'static str,
    /// The client's stream, in HTTP/2; 0 for none.
    pub stream: u32,
    /// `HTTP/2` or `HTTP/1.1`: what the endpoint is spoken to in; empty without one.
    pub endpoint_protocol: &'static str,
    /// Method; empty for TCP.
    pub method: Box<str>,
    /// Host; empty for TCP.
    pub host: Box<str>,
    /// Path and query as sent by the client; empty for TCP.
    pub target: Box<str>,
    /// User agent, if any.
    pub user_agent: Box<str>,
    /// `traceparent`, if any.
    pub traceparent: Box<str>,
    /// Version of TLS on the client's side, `1.3`; empty in plaintext.
    pub tls_version: &'static str,
    /// IANA name of the cipher suite; empty in plaintext.
    pub tls_cipher: &'static str,
    /// An earlier session was resumed.
    pub tls_resumed: bool,
    /// The server name that the client asked for, if any.
    pub tls_sni: Box<str>,
    /// Who the client is by its certificate, if it showed one.
    pub tls_peer: Box<str>,
    /// Status sent to the client; 0 for none.
    pub status: u16,
    /// What came of a call of gRPC, as its `grpc-status` says.
    pub grpc_status: Option<u8>,
    /// Why we refused or ended it, if we did.
    pub reason: Option<Reason>,
    /// How long it was delayed on purpose.
    pub fault_delay_ns: u64,
    /// More about the reason, in words.
    pub detail: &'static str,
    /// The limit that the request was refused by, if it was (L10).
    pub limit: Option<Box<LimitRecord>>,
    /// The rate limit that the request was over, if it was refused for that (L13).
    pub rate_limit: Option<Box<RateLimitRecord>>,
    /// What the steering program decided, where a rule was involved (S16).
    pub steer: Option<Box<SteerRecord>>,
    /// Times the request was tried again.
    pub retries: u8,
    /// Tries beside another.
    pub hedges: u8,
    /// Bytes of the request, head included.
    pub received_bytes: u64,
    /// Bytes of the answer, head included.
    pub sent_bytes: u64,
    /// From the last head byte to the last byte of the answer.
    pub total_ns: u64,
    /// Waiting for a connection.
    pub connect_ns: u64,
    /// Waiting for the first byte of the answer.
    pub first_byte_ns: u64,
    /// What this process added.
    pub added_ns: u64,
}

/// How an endpoint came to be chosen, where that is not what is usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Its priority: not 0 if load has left a higher one.
    pub priority: u32,
    /// It counts as unhealthy: too few endpoints are healthy.
    pub in_panic: bool,
    /// The cluster has no such subset as the route asks for.
    pub is_fallback: bool,
}

/// The rate limit that a request was over, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitRecord {
    /// How many requests, and in what time; `None` if the service for global limits does not tell.
    pub rate: Option<Rate>,
    /// What has a bucket of its own: see [`RateLimit::by_word`](crate::config::model::RateLimit::by_word); or
    /// `service`, if that has said so.
    pub by: &'static str,
    /// When there will be a token; `None` if the service does not tell.
    pub retry_after: Option<Duration>,
}

/// What a steering rule decided about a request: `rule42@17:unit1→unit2`.
#[derive(Clone, Debug, PartialEq)]
pub struct SteerRecord {
    /// The rule.
    pub rule: Arc<str>,
    /// Its own version.
    pub rule_epoch: u64,
    /// Where the request would have gone.
    pub from: Arc<str>,
    /// Where it went, or was to go.
    pub to: Arc<str>,
    /// The place that was chosen first had no endpoint.
    pub fell_back: bool,
    /// The snapshot that decided.
    pub epoch: Epoch,
}

/// The limit that a request was refused by, in numbers (L10).
#[derive(Clone, Debug, PartialEq)]
pub struct LimitRecord {
    /// Name of the interface, `listener/route`.
    pub interface: Arc<str>,
    /// The request's priority.
    pub priority: Priority,
    /// Requests in flight that the interface may have, over all shards.
    pub limit: u32,
    /// Requests in flight of it on this shard.
    pub in_flight: u32,
    /// What the limit rests on.
    pub cause: LimitCause,
    /// It does not: an operator has set it.
    pub by_hand: bool,
}
