//! Counters with one writer: a shard counts on its own cache lines with plain loads and stores, the
//! coordinator reads them at each tick. There is no read-modify-write, no lock and no message.
//!
//! The doc comment of a counter *is* its help text: the metrics reference and `/stats/prometheus` are
//! generated from it.

use crate::{
    config::model::steering::PLACES_MAX,
    reason::Reason,
    sketch,
    sync::{AtomicU64, Ordering},
};

mod histogram;
mod methods;

pub use histogram::{BUCKETS, Histogram, HistogramCounts, bucket_upper_ns};
pub use methods::{
    FinishedCall, GRPC_STATUSES, METHOD_BYTES_MAX, METHODS_MAX, MethodCounters, Methods,
};

/// A value alone on its cache lines. 128, since the prefetcher of x86 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// One `T` per shard, each on its own cache lines.
#[derive(Debug)]
pub struct PerShard<T>(Box<[Padded<T>]>);

impl<T: Default> PerShard<T> {
    /// A slot for each of `shards` shards.
    pub fn new(shards: usize) -> Self {
        PerShard((0..shards).map(|_| Padded::default()).collect())
    }
}

impl<T> PerShard<T> {
    /// The slot of one shard, if there is such a shard.
    pub fn get(&self, shard: crate::id::ShardId) -> Option<&T> {
        self.0.get(shard.index()).map(|p| &p.0)
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All slots, in the order of the shards.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|p| &p.0)
    }

    /// The sum of `f` over the shards.
    pub fn sum(&self, f: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(f).sum()
    }
}

/// A number with one writing thread and any number of readers. As a counter it only grows; as a gauge
/// it is set, raised and lowered by the same thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call it: two writers would lose counts, not break memory.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes `n` away, for gauges. Only the owning thread may call it.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).saturating_sub(n),
            Ordering::Relaxed,
        );
    }

    /// Sets the value, for gauges. Only the owning thread may call it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Raises the value to `n` if it is lower. Only the owning thread may call it.
    #[inline]
    pub fn raise(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a metric is, for the exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; its exposed name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One plain number of a slab, with its name and help.
#[derive(Clone, Copy, Debug)]
pub struct MetricInfo {
    /// The field's name, without prefix: `requests` is exposed as `tidegate_shard_requests_total`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: MetricKind,
    /// The help text.
    pub help: &'static str,
}

macro_rules! slab {
    ($(#[$meta:meta])* $slab:ident { $($(#[doc = $help:literal])+ $kind:ident $name:ident,)* } $(and { $($(#[$xmeta:meta])* $xname:ident: $xty:ty,)* })?) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $slab {
            $($(#[doc = $help])+ pub $name: Counter,)*
            $($($(#[$xmeta])* pub $xname: $xty,)*)?
        }

        impl Default for $slab {
            fn default() -> Self {
                $slab { $($name: Counter::default(),)* $($($xname: std::array::from_fn(|_| Default::default()),)*)? }
            }
        }

        impl $slab {
            /// Name, kind and help of each plain number, in the order of [`Self::values`].
            pub const METRICS: &[MetricInfo] = &[
                $(MetricInfo { name: stringify!($name), kind: MetricKind::$kind, help: concat!($($help),+).trim_ascii_start() },)*
            ];

            /// The plain numbers, in the order of [`Self::METRICS`].
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name.get(),)*]
            }
        }
    };
}

slab! {
    /// What one shard counts, apart from clusters and routes.
    ShardCounters {
        /// Listening sockets that are open.
        Gauge sockets_listening,
        /// Connections accepted.
        Counter connections,
        /// Client connections open now.
        Gauge connections_open,
        /// Connections closed at once, since a limit was reached.
        Counter connections_refused,
        /// Failed accepts (EMFILE, ENFILE, ENOBUFS, ENOMEM), each followed by a pause.
        Counter accept_errors,
        /// Client connections that were served in plaintext.
        Counter plaintext_connections,
        /// Of those, the ones open now.
        Gauge plaintext_connections_open,
        /// Client connections whose TLS handshake succeeded.
        Counter tls_connections,
        /// Of those, the ones open now.
        Gauge tls_connections_open,
        /// TLS handshakes with clients that go on now.
        Gauge tls_handshakes_active,
        /// TLS handshakes with clients from the beginning, with key exchange and certificate.
        Counter tls_handshakes_full,
        /// TLS handshakes with clients that resumed an earlier session.
        Counter tls_handshakes_resumed,
        /// Connections of clients that speak TLS 1.2.
        Counter tls_connections_1_2,
        /// Connections of clients that speak TLS 1.3.
        Counter tls_connections_1_3,
        /// TLS handshakes with clients that failed for another cause than the ones below.
        Counter tls_handshakes_failed,
        /// TLS handshakes that clients broke off, by an alert or by closing.
        Counter tls_handshakes_failed_peer,
        /// TLS handshakes in which the client's certificate was refused, or was missing.
        Counter tls_handshakes_failed_certificate,
        /// TLS handshakes with clients that did not end in time.
        Counter tls_handshakes_failed_timeout,
        /// TLS handshakes given up for newer ones, since too many went on at once.
        Counter tls_handshakes_evicted,
        /// Clients that spoke plaintext to a listener that takes only TLS.
        Counter tls_plaintext_refused,
        /// Requests and relayed connections that came in TLS.
        Counter tls_requests,
        /// Requests and relayed connections that came in plaintext.
        Counter plaintext_requests,
        /// Client connections in HTTP/2.
        Counter http2_connections,
        /// Of those, the ones open now.
        Gauge http2_connections_open,
        /// Streams of clients: requests in HTTP/2, those that were malformed not included.
        Counter http2_streams,
        /// Of those, the ones being served now.
        Gauge http2_streams_open,
        /// Streams that clients have reset.
        Counter http2_resets_received,
        /// Streams that were reset since the client broke a rule.
        Counter http2_stream_errors,
        /// Connections in HTTP/2 ended with ENHANCE_YOUR_CALM.
        Counter http2_floods,
        /// Bytes received from clients in TLS, as the application sees them.
        Counter tls_received_bytes,
        /// Bytes sent to clients in TLS, as the application sees them.
        Counter tls_sent_bytes,
        /// Bytes received from clients in plaintext.
        Counter plaintext_received_bytes,
        /// Bytes sent to clients in plaintext.
        Counter plaintext_sent_bytes,
        /// Requests begun, those whose head was refused included.
        Counter requests,
        /// Requests being served now.
        Gauge requests_active,
        /// Answers with a status of 1xx that were passed on.
        Counter responses_1xx,
        /// Answers with a status of 2xx.
        Counter responses_2xx,
        /// Answers with a status of 3xx.
        Counter responses_3xx,
        /// Answers with a status of 4xx.
        Counter responses_4xx,
        /// Answers with a status of 5xx.
        Counter responses_5xx,
        /// Connections that became a byte relay after a 101.
        Counter upgrades,
        /// Bytes received from clients.
        Counter downstream_received_bytes,
        /// Bytes sent to clients.
        Counter downstream_sent_bytes,
        /// Bytes received from endpoints.
        Counter upstream_received_bytes,
        /// Bytes sent to endpoints.
        Counter upstream_sent_bytes,
        /// Connections made to endpoints.
        Counter upstream_connects,
        /// TLS handshakes with endpoints from the beginning.
        Counter upstream_tls_handshakes_full,
        /// TLS handshakes with endpoints that resumed an earlier session.
        Counter upstream_tls_handshakes_resumed,
        /// TLS handshakes with endpoints that failed; nothing was sent in plaintext instead.
        Counter upstream_tls_handshakes_failed,
        /// Requests sent over an already open connection to an endpoint.
        Counter upstream_reused,
        /// Links to endpoints that are being made to take the place of others.
        Gauge links_warming,
        /// Plaintext links to endpoints that requests may be put on.
        Gauge links_plaintext,
        /// Links to endpoints in TLS that requests may be put on.
        Gauge links_tls,
        /// Links to endpoints that finish what is on them, and are then closed.
        Gauge links_draining,
        /// Endpoints whose links were switched to TLS or back.
        Counter link_switches,
        /// Links made, or tried to be made, to take the place of others.
        Counter link_warm_ups,
        /// Of those, the ones that failed: the old link stayed, and it is tried again.
        Counter link_warm_ups_failed,
        /// Links cut with a request on them, as they had drained for `drain_timeout`.
        Counter links_forced,
        /// Requests lost by closing a link, without such a time-out: must be 0.
        Counter link_requests_lost,
        /// Requests tried again, for whatever cause.
        Counter retries,
        /// Retries not made, since the retry budget was used up.
        Counter retries_over_budget,
        /// Hop marks of steering that were taken from requests, as no peer that is trusted had sent them.
        Counter steer_marks_untrusted,
        /// Tries begun beside one that went on.
        Counter hedges,
        /// Of those, the ones whose answer was taken.
        Counter hedges_won,
        /// Bytes of requests' bodies that are kept for another try or for copies.
        Gauge replay_bytes,
        /// Requests whose body outgrew what is kept of it: they are not tried again from there on.
        Counter replay_overflows,
        /// Access-log records dropped, since the writer was behind.
        Counter access_log_dropped,
        /// Turns of the loop.
        Counter loop_turns,
        /// Time spent outside the kernel's wait.
        Counter loop_busy_ns,
        /// The longest single turn since the start.
        Gauge loop_longest_turn_ns,
        /// Calls of io_uring_enter.
        Counter ring_enters,
        /// Operations submitted.
        Counter ring_submitted,
        /// Completions reaped.
        Counter ring_completed,
        /// Times the completion queue was found overflown.
        Counter ring_overflows,
        /// Receives that ended for want of a provided buffer.
        Counter ring_starved,
        /// Received buffers copied to the heap to give the provided one back early.
        Counter buffers_spilled,
        /// Provided buffers not in use, in the group for heads.
        Gauge buffers_heads_free,
        /// Provided buffers not in use, in the group for bodies.
        Gauge buffers_bodies_free,
        /// Bytes of heap buffers in use.
        Gauge buffers_heap_bytes,
        /// The epoch of the snapshot in use.
        Gauge epoch,
        /// How often contexts for TLS were taken over: what the coordinator sent is in use.
        Counter tls_installs,
        /// 1 while the shard drains.
        Gauge draining,
    } and {
        /// Refusals by reason: `refused[reason as usize]`.
        refused: [Counter; Reason::COUNT],
        /// Durations of a request: see [`Phase`].
        phases: [Histogram; Phase::COUNT],
        /// How late timers were served: see [`sketch`].
        loop_lag: [Counter; sketch::BUCKETS],
    }
}

impl ShardCounters {
    /// Counts one refusal.
    #[inline]
    pub fn refuse(&self, reason: Reason) {
        if let Some(counter) = self.refused.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Records the duration of one phase of a request.
    #[inline]
    pub fn phase(&self, phase: Phase, ns: u64) {
        if let Some(histogram) = self.phases.get(phase as usize) {
            histogram.record(ns);
        }
    }

    /// Counts one answer by the class of its status.
    #[inline]
    pub fn response(&self, status: u16) {
        match status / 100 {
            1 => self.responses_1xx.add(1),
            2 => self.responses_2xx.add(1),
            3 => self.responses_3xx.add(1),
            4 => self.responses_4xx.add(1),
            _ => self.responses_5xx.add(1),
        }
    }
}

/// The phases a request's time is split into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the request's last head byte to the answer's last byte given to the kernel.
    Total,
    /// Getting an upstream connection: zero when one was reused.
    Connect,
    /// From the request given to the kernel to the first byte of the answer.
    FirstByte,
    /// The part of `Total` that this process added: `Total` without the waits for client and endpoint.
    Added,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 4] = [Phase::Total, Phase::Connect, Phase::FirstByte, Phase::Added];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Total => "total",
            Phase::Connect => "connect",
            Phase::FirstByte => "first_byte",
            Phase::Added => "added",
        }
    }
}

slab! {
    /// What one shard counts for one endpoint. Kept over snapshots while the endpoint stays.
    EndpointCounters {
        /// Requests sent.
        Counter requests,
        /// Of those, the ones that were sent though the endpoint counts as unhealthy, since too few are healthy (panic).
        Counter picked_in_panic,
        /// Requests in flight now.
        Gauge requests_active,
        /// Answers that were not a failure.
        Counter succeeded,
        /// Answers with a status of 5xx, those of the next two aside.
        Counter failed_5xx,
        /// Answers with a status of 502, 503 or 504, refusals for overload aside.
        Counter failed_gateway,
        /// Answers by which the endpoint's own proxy refused for overload.
        Counter failed_overloaded,
        /// Connections that were refused or failed.
        Counter failed_connect,
        /// Connections that were not made in time.
        Counter failed_connect_timeout,
        /// Connections whose TLS handshake failed, or for which a secret was missing.
        Counter failed_tls,
        /// Connections closed or reset before the answer was complete.
        Counter failed_reset,
        /// Answers that broke the protocol.
        Counter failed_protocol,
        /// Requests that ran into their deadline.
        Counter failed_deadline,
        /// Connections made.
        Counter connections,
        /// Connections open now.
        Gauge connections_open,
        /// Of those, the ones in TLS.
        Gauge tls_connections_open,
        /// Shards that want their connections in TLS.
        Gauge tls_wanted,
        /// Bytes received.
        Counter received_bytes,
        /// Bytes sent.
        Counter sent_bytes,
        /// Requests sent in full whose answer has not begun.
        Gauge requests_waiting,
        /// Failures of connection, protocol or deadline since the last answer, by the shard that has most.
        Gauge failures_in_row,
        /// Shards that keep requests from it for such failures, until the coordinator has decided.
        Gauge quarantined,
        /// With `outlier_detection`: failures since the last success, by the shard that has most.
        Gauge errors_in_row,
        /// The same, of answers of 502, 503 and 504, and of what is no answer unless that is split off.
        Gauge gateway_failures_in_row,
        /// The same, of what is no answer, if that is split off.
        Gauge local_failures_in_row,
        /// Rows of `consecutive_5xx` failures.
        Counter rows_5xx,
        /// Rows of `consecutive_gateway_failure` gateway failures.
        Counter rows_gateway_failure,
        /// Rows of `consecutive_local_origin_failure` failures that are no answer.
        Counter rows_local_failure,
        /// Requests that an ejected endpoint was tried out with, and that it answered.
        Counter trials_succeeded,
        /// Requests that an ejected endpoint was tried out with, and that failed.
        Counter trials_failed,
    } and {
        /// Time to the head of an answer: see [`sketch`].
        latency: [Counter; sketch::BUCKETS],
    }
}

slab! {
    /// What one shard counts for one interface at one priority, for adaptive limiting. Kept over snapshots
    /// while the route's name and the cluster's stay.
    InterfaceCounters {
        /// Requests let in.
        Counter admitted,
        /// Requests refused, since the interface was at its limit.
        Counter refused,
        /// In shadow: requests that would have been refused.
        Counter would_refuse,
        /// Requests that are over.
        Counter completed,
        /// Of those, the ones without an answer, or with one of 5xx.
        Counter failed,
        /// Requests in flight now.
        Gauge in_flight,
        /// Of those, the ones on slots borrowed from the interface's spare ones.
        Gauge borrowed,
        /// Time that requests spent in flight, added up.
        Counter in_flight_ns,
        /// CPU time that the application says it has spent on requests (ORCA), added up.
        Counter cpu_ns,
        /// Answers in which the application said how full it is (ORCA).
        Counter load_reports,
        /// What they said, in thousandths, added up.
        Counter load_permille,
    }
}

slab! {
    /// What one shard counts for one rate limit of a route. Kept over snapshots while the route's name and the
    /// limit stay.
    RateLimitCounters {
        /// Requests refused, since they were over the limit.
        Counter limited,
        /// In shadow: requests that would have been refused.
        Counter would_limit,
        /// Buckets of clients that were not full, given to others for want of room.
        Counter evicted,
        /// Tokens that the shard has taken and not given out.
        Gauge lot,
    }
}

slab! {
    /// What one shard counts for the service that keeps limits for many proxies.
    RateLimitServiceCounters {
        /// Requests that the service was asked about.
        Counter asked,
        /// Of those, the ones refused, since it said so.
        Counter limited,
        /// In shadow: requests that would have been refused.
        Counter would_limit,
        /// Requests that it had no answer for: none in time, or none that can be read.
        Counter failed,
    }
}

slab! {
    /// What one shard counts for one rule of the steering program. Kept over snapshots while its id stays.
    RuleCounters {
        /// Requests that it sent elsewhere than their route says.
        Counter moved,
        /// Requests that matched and stay where their route sends them: outside of its share, or at home.
        Counter stayed,
        /// Requests that went where its fallback says, as the place that was chosen had no endpoint.
        Counter fell_back,
        /// Requests refused, as the place that it chose had no endpoint.
        Counter refused,
        /// Requests refused, as they were over its rate.
        Counter capped,
        /// Of those that it moved, the ones that are over.
        Counter completed,
        /// Of those, the ones that failed: 5xx, a status of gRPC that is the server's fault, or no answer.
        Counter failed,
    }
}

slab! {
    /// What one shard counts for one place of the steering program. Kept over snapshots while its name stays.
    PlaceCounters {
        /// Requests whose route leads here.
        Counter arrived,
        /// Of those, the ones refused, as only rules may send here and none did.
        Counter turned_away,
    } and {
        /// Of those, the ones that went to each place of the application.
        to: [Counter; PLACES_MAX],
    }
}

slab! {
    /// What one shard counts for one route. Kept over snapshots while the route's name stays.
    RouteCounters {
        /// Requests that took the route.
        Counter requests,
        /// Of those, the ones answered with a status of 5xx.
        Counter failed_5xx,
        /// Requests that were delayed on purpose.
        Counter faults_delayed,
        /// Requests that were refused on purpose.
        Counter faults_aborted,
        /// Requests that were spared a fault, since as many had one as may.
        Counter faults_over_limit,
        /// Requests with a fault now.
        Gauge faults_active,
        /// Copies of requests that were sent to other clusters.
        Counter mirrored,
        /// Copies that were answered, with whatever status.
        Counter mirrors_answered,
        /// Copies that were not answered.
        Counter mirrors_failed,
        /// Copies that were not sent: too many at once, a body that is too large, or one that did not come to its end.
        Counter mirrors_dropped,
        /// Requests for which the fallback of the cluster's `subsets` held, refused or not.
        Counter subset_fallbacks,
        /// Calls of gRPC that have come to a status.
        Counter grpc_calls,
        /// Of those, the ones with another status than OK.
        Counter grpc_failed,
    }
}
