//! The load generator: what load is ([`LoadSpec`]), when requests are due ([`arrivals`]), what is
//! recorded of them ([`latency`], [`distribution`], [`series`]) and the connections that carry them
//! ([`generator`]).

pub mod arrivals;
pub mod distribution;
pub mod generator;
pub mod latency;
pub mod series;

use std::net::SocketAddr;

use self::arrivals::Arrivals;

/// A load, without its duration.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Where connections go; loopback only.
    pub target: SocketAddr,
    /// What is exchanged on them.
    pub exchange: Exchange,
    /// Connections, or with [`Connections::PerRequest`] requests in flight.
    pub connections: usize,
    /// Whether connections are kept.
    pub keep: Connections,
    /// When a request is sent.
    pub pace: Pace,
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
            host: "lab.example".to_owned(),
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
