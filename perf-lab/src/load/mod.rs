//! The load generator: what load is ([`LoadSpec`]), when requests are due ([`arrivals`]), what is
//! recorded of them ([`latency`], [`distribution`], [`series`]) and the connections that carry them
//! ([`generator`]): `serial`, one exchange at a time, or `multiplexed`, over what is the same for both,
//! `tally`.

mod answer;
pub mod arrivals;
pub mod distribution;
pub mod generator;
pub mod latency;
mod multiplexed;
mod serial;
pub mod series;
mod tally;
pub mod trickle;

use std::net::SocketAddr;

use self::arrivals::{Arrivals, Stretch};
use crate::{peer::certificate::TlsClient, scenario::HttpVersion};

/// A load, without its duration.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Where connections go; loopback only.
    pub target: SocketAddr,
    /// What is exchanged on them.
    pub exchange: Exchange,
    /// By which HTTP, where it is HTTP.
    pub http: HttpVersion,
    /// Connections, or with [`Connections::PerRequest`] requests in flight.
    pub connections: usize,
    /// Exchanges at once on each; more than one is HTTP/2.
    pub streams: usize,
    /// Whether connections are kept.
    pub keep: Connections,
    /// When a request is sent.
    pub pace: Pace,
    /// How an open loop's rate changes over the measurement; empty is not at all.
    pub stretches: Vec<Stretch>,
    /// What becomes of a load with failures.
    pub failures: Failures,
    /// How to speak TLS, and to whom; `None` is plain.
    pub tls: Option<TlsClient>,
}

/// What becomes of a load with failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// After a thousand it ends: the run is void anyway.
    GiveUp,
    /// They are counted, and it goes on: the scenario is about them.
    Count,
}

/// One unit of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A GET and its response, which must be a 2xx and, if given, have a body of this size.
    Http {
        /// The `Host` field.
        host: String,
        /// The target.
        path: String,
        /// Bytes of body that make the response right.
        body_bytes: Option<u64>,
        /// Bytes of body that are sent: any make it a POST.
        request_bytes: usize,
    },
    /// So many bytes sent, and as many expected back.
    Echo {
        /// How many.
        bytes: usize,
    },
}

impl Exchange {
    /// Asks the lab's origin, below a path prefix that ends in `/`.
    pub fn get(prefix: &str, body_bytes: u64, request_bytes: usize) -> Exchange {
        Exchange::Http {
            host: crate::peer::certificate::HOST.to_owned(),
            path: format!("{prefix}b/{body_bytes}"),
            body_bytes: Some(body_bytes),
            request_bytes,
        }
    }
}

/// Whether connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// For all requests.
    Keep,
    /// A new one for each request, closed by the server after it.
    PerRequest,
}

/// When a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: as soon as the one before it on its connection is answered. This finds the
    /// capacity; its latencies leave out whoever would have come meanwhile.
    Saturate,
    /// Open loop: when it is due, or as soon after as a connection is free.
    Due(Arrivals),
    /// Never: each connection does one exchange and then stays.
    Hold,
}
