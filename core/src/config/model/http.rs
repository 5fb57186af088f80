//! What an HTTP listener grants its clients, and tells endpoints of them.

use std::{sync::Arc, time::Duration};

use super::Http2Limits;

/// Time-outs on the client's side of an HTTP listener.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HttpTimeouts {
    /// For the whole head of a request, from its first byte (or from the accept).
    pub header: Duration,
    /// For the next request on a kept connection.
    pub keep_alive: Duration,
    /// For any movement while a body or a relayed upgrade flows.
    pub idle: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        HttpTimeouts {
            header: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// Limits on what a client may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HttpLimits {
    /// Bytes of the request head (and of a trailer section).
    pub header_list: u32,
    /// Fields of the request head.
    pub header_fields: u16,
    /// Bytes of the request target.
    pub target: u32,
    /// Bytes of a request body; `None` is without limit (bodies stream and are never collected).
    pub body: Option<u64>,
    /// Requests on one connection, after which it is closed; `None` is without limit.
    pub requests_per_connection: Option<u32>,
    /// What a connection in HTTP/2 may do.
    pub http2: Http2Limits,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits {
            header_list: 64 << 10,
            header_fields: 128,
            target: 8 << 10,
            body: None,
            requests_per_connection: None,
            http2: Http2Limits::default(),
        }
    }
}

/// What is told to endpoints about the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Forwarded {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    pub x_forwarded: XForwarded,
    /// `Via: 1.1 <name>` added to requests, if named.
    pub via: Option<Arc<str>>,
}

impl Default for Forwarded {
    fn default() -> Self {
        Forwarded {
            x_forwarded: XForwarded::Append,
            via: None,
        }
    }
}

/// What happens to `X-Forwarded-For` and `X-Forwarded-Proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XForwarded {
    /// The client's address is appended to `-For`; `-Proto` is set where it is absent.
    Append,
    /// Both are replaced by what this proxy sees: for an edge whose clients are not trusted.
    Replace,
    /// Both are passed on as they came.
    Preserve,
}
