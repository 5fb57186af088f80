//! What each field of the access log means: the source of `docs/reference/access-log.md`.

/// A field.
pub(crate) struct Field {
    /// In a JSON line.
    pub(crate) json: &'static str,
    /// In a short line; empty if it is not there.
    pub(crate) short: &'static str,
    /// What it is, and when it is there.
    pub(crate) meaning: &'static str,
}

const fn field(json: &'static str, short: &'static str, meaning: &'static str) -> Field {
    Field {
        json,
        short,
        meaning,
    }
}

/// All of them, in the order of the short line as far as they are in it.
pub(crate) const FIELDS: &[Field] = &[
    field("timestamp", "first word", "When it began, RFC 3339 in UTC."),
    field(
        "http.response.status_code",
        "second word, `---` without one",
        "Status that the client was sent.",
    ),
    field(
        "http.request.method",
        "third word; `TCP` for a relay",
        "Method.",
    ),
    field("server.address", "fourth word", "Host that was asked for."),
    field("url.path", "fifth word", "Path as the client sent it."),
    field("url.query", "behind the path", "Query, if there is one."),
    field(
        "client.address",
        "before `->`",
        "The client, as its socket or its PROXY header says.",
    ),
    field("client.port", "before `->`", "Its port."),
    field(
        "network.peer.address",
        "behind `->`",
        "The endpoint, if one was chosen.",
    ),
    field("network.peer.port", "behind `->`", "Its port."),
    field(
        "tidegate.duration.total",
        "`total`",
        "Seconds from the last byte of the request's head to the last one of the answer.",
    ),
    field(
        "tidegate.duration.added",
        "`added`",
        "Seconds of these in which neither client nor endpoint was waited for.",
    ),
    field(
        "tidegate.duration.connect",
        "",
        "Seconds of waiting for a connection.",
    ),
    field(
        "tidegate.duration.first_byte",
        "",
        "Seconds of waiting for the answer's first byte.",
    ),
    field(
        "http.request.size",
        "`in`",
        "Bytes of the request, head included.",
    ),
    field(
        "http.response.size",
        "`out`",
        "Bytes of the answer, head included.",
    ),
    field(
        "network.protocol.name",
        "",
        "`http`; a relay has `network.transport` instead.",
    ),
    field(
        "network.protocol.version",
        "",
        "`1.0`, `1.1` or `2`: the client's.",
    ),
    field("network.transport", "", "`tcp`, for a relay."),
    field(
        "tidegate.stream",
        "`stream`",
        "Number of the client's stream, in HTTP/2: with `client.port` it names the request in a capture.",
    ),
    field(
        "tidegate.endpoint.protocol",
        "`via`, unless HTTP/1.1",
        "What the endpoint is spoken to in, `HTTP/1.1` or `HTTP/2`, if one was chosen.",
    ),
    field("tls.protocol.name", "", "`tls`, if the client speaks it."),
    field("tls.protocol.version", "`tls`", "`1.2` or `1.3`."),
    field("tls.established", "", "`true` with TLS."),
    field("tls.resumed", "", "Whether an earlier session was resumed."),
    field("tls.cipher", "", "Cipher suite, by its IANA name."),
    field(
        "tls.client.server_name",
        "",
        "Server name that the client asked for (SNI).",
    ),
    field(
        "tls.client.subject",
        "`peer`",
        "Who the client is by its certificate.",
    ),
    field(
        "tidegate.route",
        "`route`",
        "Route, `LISTENER/NUMBER` or its name.",
    ),
    field(
        "tidegate.cluster",
        "`cluster`",
        "Cluster, if the route has one.",
    ),
    field("tidegate.listener", "", "Listener."),
    field("tidegate.shard", "", "Shard."),
    field(
        "tidegate.endpoint.priority",
        "`endpoint_priority`",
        "Priority of the endpoint, if it is not the first.",
    ),
    field(
        "tidegate.endpoint.panic",
        "`endpoint=panic`",
        "`true` if so few were healthy that all were taken.",
    ),
    field(
        "tidegate.subset.fallback",
        "`subset=fallback`",
        "`true` if the subset that was asked for is not there.",
    ),
    field(
        "tidegate.fault.delay",
        "`fault_delay`",
        "Seconds of delay on purpose (`fault`).",
    ),
    field(
        "http.request.resend_count",
        "`retries`",
        "How often it was tried again.",
    ),
    field("tidegate.hedges", "`hedges`", "Tries beside another."),
    field(
        "tidegate.reason",
        "`reason`",
        "Why we refused or ended it: a word of [the reasons](reasons.md).",
    ),
    field(
        "tidegate.limit.interface",
        "`interface`",
        "Interface whose limit refused it (`adaptive_limit`).",
    ),
    field(
        "tidegate.limit.priority",
        "`priority`",
        "Its priority class.",
    ),
    field(
        "tidegate.limit.value",
        "`limit`",
        "Requests that the interface may have in flight, over all shards.",
    ),
    field(
        "tidegate.limit.in_flight",
        "`in_flight`",
        "Requests of it that this shard had in flight.",
    ),
    field(
        "tidegate.limit.watermark",
        "`watermark`",
        "Watermark by which the limit was set.",
    ),
    field("tidegate.limit.signal", "`signal`", "The signal behind it."),
    field(
        "tidegate.limit.epoch",
        "`limits_epoch`",
        "Epoch of the limits, as in `/limits/decisions`.",
    ),
    field(
        "tidegate.limit.by_hand",
        "`limited_by=hand`",
        "Whether the limit was set by hand (`ctl limit`).",
    ),
    field(
        "rpc.grpc.status_code",
        "`grpc_status`",
        "What came of a call of gRPC.",
    ),
    field(
        "tidegate.steer.rule",
        "`steer=RULE@EPOCH:FROM→TO`",
        "Rule of the steering program that moved it.",
    ),
    field(
        "tidegate.steer.rule_epoch",
        "in `steer`",
        "Epoch of the rule.",
    ),
    field(
        "tidegate.steer.from",
        "in `steer`",
        "Unit or group that it would have gone to.",
    ),
    field(
        "tidegate.steer.to",
        "in `steer`",
        "Unit or group that it went to.",
    ),
    field(
        "tidegate.steer.fell_back",
        "`fell_back` behind it",
        "Whether nobody was there to take it.",
    ),
    field(
        "tidegate.steer.epoch",
        "",
        "Epoch of the configuration that decided.",
    ),
    field(
        "tidegate.rate_limit.requests",
        "`rate_limit=REQUESTS/PER`",
        "Requests of the rate that it was over, if they are known.",
    ),
    field(
        "tidegate.rate_limit.per",
        "in `rate_limit`",
        "Seconds of it.",
    ),
    field("tidegate.rate_limit.burst", "", "Requests at once of it."),
    field(
        "tidegate.rate_limit.by",
        "`by`",
        "What is told apart by it; `service` for a rate limit service.",
    ),
    field(
        "tidegate.rate_limit.retry_after",
        "`retry_after`",
        "Seconds after which there is room again.",
    ),
    field(
        "tidegate.detail",
        "`detail`",
        "More about the reason, in words.",
    ),
    field("user_agent.original", "", "`User-Agent`."),
    field("trace_id", "", "From `traceparent` (W3C Trace Context)."),
    field("span_id", "", "From `traceparent`: the caller's span."),
];
