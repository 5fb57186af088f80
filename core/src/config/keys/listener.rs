//! Listeners.

use super::*;

pub(in super::super) static LISTENER: Section = Section {
    name: "listener",
    place: "listeners.<name>",
    doc: "One address that is listened on.",
    fields: &[
        Field::new(
            "bind",
            Kind::Text("an address", 64),
            "Address and port, `IP:PORT`. Port 0 lets the kernel choose.",
        )
        .required(),
        Field::new(
            "protocol",
            Kind::Any(&[
                Kind::Word(&[("http", "HTTP/1.1 and HTTP/2, with `routes`"), ("tcp", "a byte relay, with `to` or `split`")]),
                Kind::Planned(&[
                    ("bolt", "Bolt"),
                    ("dubbo", "Dubbo"),
                    ("http2", "HTTP/2"),
                    ("h2", "HTTP/2"),
                    ("h2c", "HTTP/2"),
                    ("http3", "HTTP/3"),
                    ("grpc", "gRPC"),
                    ("udp", "UDP"),
                ]),
            ]),
            "What is spoken.",
        )
        .default("http", "what most listeners speak"),
        Field::new(
            "proxy_protocol",
            Kind::Any(&[
                Kind::Word(&[("require", "every connection begins with a header, v1 or v2, or is closed")]),
                Kind::Off,
                Kind::Planned(&[("optional", "an optional PROXY protocol header")]),
            ]),
            "Whether connections begin with a PROXY protocol header. Required, it is believed: let only \
             your load balancer reach the address.",
        )
        .default("off", "who may send the header may claim any address"),
        Field::new("tls", Kind::Section(&LISTENER_TLS), "TLS on this address.").absent("none: plaintext only"),
        Field::new(
            "routes",
            Kind::List(&Kind::Section(&ROUTE), ROUTES_MAX),
            "Of an HTTP listener. The first that matches is taken, of those with the most specific host for the request \
             (exact, then the longest wildcard, then `*`) and those that name no host. None: 404.",
        )
        .absent("needed for `http`, not allowed for `tcp`"),
        Field::new("to", CLUSTER_NAME, "Of a TCP listener: the cluster that connections go to.")
            .absent("see `split`"),
        Field::new("split", SPLIT, "Of a TCP listener: clusters and their shares, which sum to 100 %.")
            .absent("see `to`"),
        Field::new(
            "timeouts",
            Kind::Any(&[Kind::Section(&HTTP_TIMEOUTS), Kind::Section(&TCP_TIMEOUTS)]),
            "Time-outs on the client's side.",
        )
        .absent("all its defaults"),
        Field::new(
            "limits",
            Kind::Section(&HTTP_LIMITS),
            "Of an HTTP listener: what a client may send.",
        )
        .absent("all its defaults"),
        Field::new(
            "forwarded",
            Kind::Section(&FORWARDED),
            "Of an HTTP listener: what endpoints are told about the client.",
        )
        .absent("all its defaults"),
    ],
    planned: &[
        ("access_log", "access logs per listener"),
        ("adaptive_limit", "adaptive limiting"),
        ("limit", "adaptive limiting"),
        ("heal", "self-healing"),
        ("transparent", "transparent interception"),
        ("headers", "header edits per listener"),
    ],
};

pub(in super::super) static HTTP_TIMEOUTS: Section = Section {
    name: "HTTP timeouts",
    place: "listeners.<name>.timeouts",
    doc: "Time-outs on the client's side of an HTTP listener.",
    fields: &[
        Field::new("header", TIMEOUT, "For the whole head of a request.").default(
            "10s",
            "slow heads are an attack; a few seconds cover lost packets",
        ),
        Field::new(
            "keep_alive",
            TIMEOUT,
            "For the next request on a kept connection.",
        )
        .default(
            "60s",
            "as browsers and nginx (75 s) expect; idle connections are cheap",
        ),
        Field::new(
            "idle",
            TIMEOUT,
            "For any movement while a body or an upgraded connection flows.",
        )
        .default(
            "60s",
            "as nginx; Envoy's 5 minutes keep dead clients for long",
        ),
    ],
    planned: &[
        ("max_age", "the age of HTTP connections"),
        ("request", "a time-out for whole requests of clients"),
    ],
};

pub(in super::super) static TCP_TIMEOUTS: Section = Section {
    name: "TCP timeouts",
    place: "listeners.<name>.timeouts",
    doc: "Time-outs of a TCP listener.",
    fields: &[
        Field::new("idle", TIMEOUT, "For any movement in either direction.")
            .default("1h", "as Envoy: database connections rest for long"),
        Field::new(
            "max_age",
            Kind::Any(&[Kind::Duration(seconds(1), seconds(30 * 86_400)), Kind::Off]),
            "After which a connection is closed, whatever it does.",
        )
        .default("off", "only its owner knows when a connection may be cut"),
    ],
    planned: &[],
};

pub(in super::super) static HTTP_LIMITS: Section = Section {
    name: "HTTP limits",
    place: "listeners.<name>.limits",
    doc: "What a client of an HTTP listener may send.",
    fields: &[
        Field::new(
            "header_list",
            Kind::Size(1 << 10, 1 << 20),
            "Bytes of a request head, and of trailers. Above: 431.",
        )
        .default("64KiB", "Envoy's 60 KiB, rounded"),
        Field::new(
            "header_fields",
            Kind::Integer(4, 1024),
            "Fields of a request head. Above: 431.",
        )
        .default("128", "Envoy and HAProxy have about 100"),
        Field::new(
            "target",
            Kind::Size(64, 64 << 10),
            "Bytes of the request target (path and query). Above: 414.",
        )
        .default("8KiB", "RFC 9110, 4.1 recommends at least 8,000"),
        Field::new(
            "body",
            Kind::Any(&[Kind::Size(0, 1 << 50), Kind::Off]),
            "Bytes of a request body. Above: 413. Bodies stream, and are never held.",
        )
        .default("off", "the application knows its own limit"),
        Field::new(
            "requests_per_connection",
            Kind::Any(&[Kind::Integer(1, u32::MAX as u64), Kind::Off]),
            "After which a connection is closed.",
        )
        .default("off", "as Envoy"),
        Field::new(
            "http2",
            Kind::Section(&HTTP2_LIMITS),
            "What a connection in HTTP/2 may do.",
        )
        .absent("all its defaults"),
    ],
    planned: &[],
};

/// A budget for ten seconds.
const HTTP2_BUDGET: Kind = Kind::Integer(1, 1_000_000);

pub(in super::super) static HTTP2_LIMITS: Section = Section {
    name: "http2",
    place: "listeners.<name>.limits.http2",
    doc: "What a client may do on one connection in HTTP/2. From `resets` on the numbers are for ten seconds; whoever \
          goes beyond is told ENHANCE_YOUR_CALM, and the connection ends (reason `http2_flood`).",
    fields: &[
        Field::new(
            "streams",
            Kind::Integer(1, 10_000),
            "Requests at once. Above: the request is refused, and the client may send it again.",
        )
        .default("100", "RFC 9113, 6.5.2 advises no less; browsers and gRPC expect it"),
        Field::new(
            "stream_window",
            Kind::Size(1 << 10, 1 << 30),
            "Bytes of a request body that are taken ahead of the endpoint.",
        )
        .default("64KiB", "half a gigabit a second for each stream at a round trip of a millisecond"),
        Field::new(
            "connection_window",
            Kind::Size(64 << 10, 1 << 30),
            "The same for all requests of the connection together.",
        )
        .default("6400KiB", "as large as the windows of all streams: none holds up another"),
        Field::new("resets", HTTP2_BUDGET, "Requests that the client gives up (rapid reset); one is taken off for each that ends well.")
            .default("200", "twenty a second, beyond what hedging clients give up"),
        Field::new("stream_errors", HTTP2_BUDGET, "Requests that are reset since they break a rule.")
            .default("100", "no honest client breaks any"),
        Field::new("settings", HTTP2_BUDGET, "SETTINGS frames.")
            .default("50", "one at the beginning, a few when windows are tuned"),
        Field::new("pings", HTTP2_BUDGET, "PING frames; one is taken off for each frame of an answer's body.")
            .default("200", "keep-alive is one in seconds; some clients measure round trips"),
        Field::new("empty_frames", HTTP2_BUDGET, "Frames of a request body with nothing in them.")
            .default("200", "some libraries flush with one"),
        Field::new("idle_frames", HTTP2_BUDGET, "PRIORITY, unknown frames, and frames for requests that are over.")
            .default("1000", "browsers re-prioritise while they load"),
        Field::new("window_updates", HTTP2_BUDGET, "WINDOW_UPDATE frames; ten are taken off for each frame of an answer's body.")
            .default("1000", "two a frame are usual"),
        Field::new("tiny_frames", HTTP2_BUDGET, "Frames of fewer than 64 bytes that the client's windows force us to send.")
            .default("200", "a client that tests us, not one that reads"),
    ],
    planned: &[],
};

pub(in super::super) static FORWARDED: Section = Section {
    name: "forwarded",
    place: "listeners.<name>.forwarded",
    doc: "What endpoints are told about the client.",
    fields: &[
        Field::new(
            "x_forwarded",
            Kind::Word(&[
                ("append", "the client's address is appended to `X-Forwarded-For`; `X-Forwarded-Proto` is set where absent"),
                ("replace", "both are replaced: for an edge whose clients are not trusted"),
                ("preserve", "both are passed on as they came"),
            ]),
            "What happens to `X-Forwarded-For` and `X-Forwarded-Proto`.",
        )
        .default("append", "as HAProxy's `option forwardfor` and Envoy inside a mesh"),
        Field::new("via", Kind::Text("a token", NAME_MAX), "Adds `Via: 1.1 NAME` to requests.")
            .absent("no `Via`"),
    ],
    planned: &[("header", "RFC 7239 `Forwarded`")],
};
