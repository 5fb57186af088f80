//! One word per refusal: the same in this enum, the metric label, the access log, the
//! `x-tidegate-reason` header and the reference.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $word:literal, $status:literal, $remedy:literal;)*) => {
        /// Why a request or a connection was refused or ended by us.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the reference.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// How many there are: the width of a table of counters by reason.
            pub const COUNT: usize = Self::ALL.len();

            /// The word that operators see.
            pub const fn word(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// The HTTP status of our own answer; 0 where the connection is closed without one.
            pub const fn status(self) -> u16 {
                match self { $(Reason::$name => $status,)* }
            }

            /// One sentence: what happened.
            pub const fn describe(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii_start(),)* }
            }

            /// One sentence: what an operator can do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Reason::$name => $remedy,)* }
            }
        }
    };
}

reasons! {
    /// The request head breaks RFC 9112 or RFC 9113 (syntax, framing, or a smuggling attempt).
    BadRequest => "bad_request", 400, "Fix the client; the log's detail names the rule.";
    /// The request head did not arrive in full within `timeouts.header`.
    HeaderTimeout => "header_timeout", 408, "Raise `timeouts.header`, or look for slow-loris clients.";
    /// The request body is larger than `limits.body`.
    BodyTooLarge => "body_too_large", 413, "Raise `limits.body`.";
    /// The request target is longer than `limits.target`.
    TargetTooLong => "target_too_long", 414, "Raise `limits.target`.";
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed => "expectation_failed", 417, "Fix the client.";
    /// The field section is larger than `limits.header_list` or has more than `limits.header_fields` fields.
    HeadTooLarge => "head_too_large", 431, "Raise `limits.header_list` or `limits.header_fields`.";
    /// A transfer coding other than chunked was asked for.
    UnknownTransferCoding => "unknown_transfer_coding", 501, "Fix the client; only `chunked` is spoken.";
    /// The method is one that a reverse proxy does not serve (CONNECT).
    MethodNotServed => "method_not_served", 501, "Use a forward proxy for CONNECT.";
    /// The HTTP version of a request line is not 1.0 or 1.1.
    UnknownVersion => "unknown_version", 505, "Fix the client.";
    /// No route matches the request.
    NoRoute => "no_route", 404, "Run `tidegate explain` on the request; add a route or a default.";
    /// The cluster has no endpoint, or none that is available.
    NoEndpoint => "no_endpoint", 503, "Look at `/clusters`: endpoints, health, DNS.";
    /// The cluster has no subset that the route asks for, and its `fallback` is `none` or leads to nobody.
    NoSubset => "no_subset", 503, "Look at `/clusters`: subsets and labels of endpoints; or set `subsets.fallback`.";
    /// The cluster's `circuit.requests` are all in use.
    CircuitRequests => "circuit_requests", 503, "Raise `circuit.requests`, or add endpoints.";
    /// The cluster's `circuit.connections` are all in use.
    CircuitConnections => "circuit_connections", 503, "Raise `circuit.connections`, or add endpoints.";
    /// The machine is over its watermark, and this interface pushes it (`adaptive_limit`).
    Overloaded => "overloaded", 503, "Look at `/limits`: the watermark, its dominant signal, and who is held back.";
    /// The route's `rate_limits` have no token left for the request, or the service of `global_rate_limits` says so.
    RateLimited => "rate_limited", 429, "Look at `/limits/rates`; raise `requests` or `burst`, or let the client slow down.";
    /// The route's `global_rate_limits` could not be asked about, and `on_failure` is `refuse`.
    RateLimitService => "rate_limit_service", 503, "Look at `/limits/rates` and at the cluster of `rate_limit_service`; or set `on_failure: allow`.";
    /// The place that a steering rule chose has no endpoint, and the rule names no other.
    SteerNoTarget => "steer_no_target", 503, "Look at `/steering`: the rule and its target; name a `fallback`, or withdraw the rule.";
    /// The route leads to an exclusive group, and no steering rule sends the request there.
    SteerNotNamed => "steer_not_named", 503, "Run `tidegate explain` on the request; only rules that name the group may send to it.";
    /// A steering rule's `cap` has no token left for the request.
    SteerCapped => "steer_capped", 429, "Look at `/steering`; raise the rule's `cap`, or withdraw it.";
    /// The route's `fault` refuses it on purpose.
    FaultInjected => "fault_injected", 503, "Expected while a fault is injected; remove `fault` from the route.";
    /// The upstream connection was refused.
    ConnectRefused => "connect_refused", 503, "Is the endpoint's process up?";
    /// The upstream connection was not made within `connect_timeout`.
    ConnectTimeout => "connect_timeout", 504, "Is the endpoint reachable? Raise `connect_timeout`.";
    /// The upstream connection failed for another cause.
    ConnectFailed => "connect_failed", 503, "The log's detail names the error of the system.";
    /// The upstream closed or reset the connection before its answer was complete.
    UpstreamReset => "upstream_reset", 502, "Look at the endpoint's own log.";
    /// The upstream's answer breaks RFC 9112.
    UpstreamProtocol => "upstream_protocol", 502, "The endpoint speaks bad HTTP; the log's detail names the rule.";
    /// The whole exchange did not end within the route's `timeout`.
    RequestTimeout => "request_timeout", 504, "Raise the route's `timeout`, or make the endpoint faster.";
    /// Nothing moved in either direction for `timeouts.idle`.
    IdleTimeout => "idle_timeout", 504, "Raise `timeouts.idle`.";
    /// The client went away before its answer was complete.
    ClientGone => "client_gone", 499, "Often a client time-out shorter than the route's.";
    /// The client's request body broke off or broke its framing.
    ClientBody => "client_body", 400, "Fix the client.";
    /// The listener's or the shard's connection limit is reached.
    ConnectionLimit => "connection_limit", 0, "Raise `limits.connections`, or add shards.";
    /// The shard's buffer budget is used up.
    BufferBudget => "buffer_budget", 503, "Raise `limits.buffers`; look for slow readers in `/shards`.";
    /// A client in HTTP/2 did more of what costs it nothing than `limits.http2` allows; it was told ENHANCE_YOUR_CALM.
    Http2Flood => "http2_flood", 0, "Look at the client, the log's detail names what it did; or raise the limit.";
    /// A client's connection in HTTP/2 breaks RFC 9113.
    Http2Protocol => "http2_protocol", 0, "Fix the client; the log's detail names the rule.";
    /// The PROXY protocol header is missing or malformed.
    ProxyHeader => "proxy_header", 0, "Let the balancer in front send PROXY v1 or v2, or switch `proxy_protocol` off.";
    /// A relayed TCP connection reached `timeouts.max_age`.
    MaxAge => "max_age", 0, "Expected; raise `timeouts.max_age` if it is not.";
    /// The TLS handshake with a client failed; the log's detail names the alert.
    TlsHandshake => "tls_handshake", 0, "Compare versions, suites and certificates on both sides; the log's detail names the alert.";
    /// The TLS handshake with a client did not end within `tls.handshake_timeout`.
    TlsHandshakeTimeout => "tls_handshake_timeout", 0, "Raise `tls.handshake_timeout`, or look for clients that stall.";
    /// Plaintext on a port that takes only TLS.
    PlaintextOnTls => "plaintext_on_tls", 400, "Use `https://`, or set `tls.mode: permissive` while clients move.";
    /// The client's certificate is missing, not trusted, revoked, or not one of `subject_alt_names`.
    ClientCertificate => "client_certificate", 0, "Look at `tls.client_certificate` and at the client's certificate.";
    /// The TLS handshake with an endpoint failed; nothing was sent in plaintext instead.
    UpstreamTls => "upstream_tls", 502, "The log's detail names the alert; look at `/encryption` and `/certs`.";
    /// A secret that TLS needs has not been loaded.
    SecretMissing => "secret_missing", 503, "Look at `/certs`: which file is missing or refused, and why.";
    /// The process is draining and its deadline has passed.
    Draining => "draining", 503, "Expected while a process is being replaced.";
}

impl Reason {
    /// What a gRPC client is told instead of the status (L9; gRPC's table of HTTP statuses).
    pub const fn grpc_status(self, status: u16) -> u16 {
        const CANCELLED: u16 = 1;
        const UNKNOWN: u16 = 2;
        const DEADLINE_EXCEEDED: u16 = 4;
        const PERMISSION_DENIED: u16 = 7;
        const RESOURCE_EXHAUSTED: u16 = 8;
        const UNIMPLEMENTED: u16 = 12;
        const INTERNAL: u16 = 13;
        const UNAVAILABLE: u16 = 14;
        const UNAUTHENTICATED: u16 = 16;
        match (self, status) {
            (Reason::Overloaded, _) | (_, 413 | 429 | 431) => RESOURCE_EXHAUSTED,
            (_, 400) => INTERNAL,
            (_, 401) => UNAUTHENTICATED,
            (_, 403) => PERMISSION_DENIED,
            (_, 404 | 501) => UNIMPLEMENTED,
            (_, 408 | 504) => DEADLINE_EXCEEDED,
            (_, 499) => CANCELLED,
            (_, 502 | 503) => UNAVAILABLE,
            _ => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Goal: gRPC clients are told what they can act upon: overload is not what they try again at once
    /// (L9). Method: the cases.
    #[test]
    fn grpc_statuses() {
        for (reason, grpc) in [
            (Reason::Overloaded, 8),
            (Reason::NoEndpoint, 14),
            (Reason::UpstreamReset, 14),
            (Reason::RequestTimeout, 4),
            (Reason::NoRoute, 12),
            (Reason::BadRequest, 13),
        ] {
            assert_eq!(reason.grpc_status(reason.status()), grpc, "{reason:?}");
        }
    }

    /// Goal: a word means one thing. Method: no two reasons share it.
    #[test]
    fn words_are_unique_and_plain() {
        let words: BTreeSet<_> = Reason::ALL.iter().map(|r| r.word()).collect();
        assert_eq!(words.len(), Reason::COUNT);
        assert!(words.iter().all(|w| {
            w.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        }));
    }

    /// Goal: a table by reason is indexed by `reason as usize`. Method: discriminants are dense.
    #[test]
    fn discriminants_index_the_table() {
        assert!(
            Reason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
    }
}
