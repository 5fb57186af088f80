//! Clusters.

use super::*;

pub(in super::super) static CLUSTER: Section = Section {
    name: "cluster",
    place: "clusters.<name>",
    doc: "A group of endpoints that serve the same.",
    fields: &[
        Field::new("endpoints", Kind::Section(&ENDPOINTS), "Where its endpoints come from: exactly one of `static` and `dns`.")
            .required(),
        Field::new(
            "balance",
            Kind::Word(&[
                ("round_robin", "in turn, by weight"),
                ("weighted", "the same, for those who look for it"),
                ("random", "by chance, by weight"),
                ("least_request", "the less loaded of two drawn by chance"),
                ("peak_ewma", "the lower of two by latency times load"),
                ("ring_hash", "consistent: points on a ring, by the route's `hash`"),
                ("maglev", "consistent: Maglev's table, by the route's `hash`"),
            ]),
            "How an endpoint is chosen.",
        )
        .default("round_robin", "as Envoy and HAProxy"),
        Field::new("slow_start", Kind::Duration(seconds(0), seconds(3600)), "A new or recovered endpoint gets its share little by little over this time.")
            .default("0s", "as Envoy and HAProxy"),
        Field::new("connect_timeout", Kind::Duration(TICK, seconds(300)), "For making a connection.")
            .default("5s", "as Envoy"),
        Field::new("idle_timeout", TIMEOUT, "A kept connection is closed after this long without a request.")
            .default("60s", "as nginx; keep it below the endpoint's own, or requests meet a closing connection"),
        Field::new("idle_connections", Kind::Integer(0, 1_000_000), "Idle connections kept per endpoint and shard.")
            .default("1024", "enough that a busy shard never reconnects"),
        Field::new("requests_per_connection", Kind::Any(&[Kind::Integer(1, u32::MAX as u64), Kind::Off]), "Requests over one connection, after which it is closed.")
            .default("off", "as Envoy"),
        Field::new("circuit", Kind::Section(&CIRCUIT), "Limits on what is in flight.").absent("all its defaults"),
        Field::new("health", Kind::Section(&HEALTH), "Active health checks.").absent("none: every endpoint counts as healthy"),
        Field::new(
            "proxy_protocol",
            Kind::Word(&[("v1", "the text form"), ("v2", "the binary form")]),
            "A PROXY protocol header sent first on every connection. Only for clusters of TCP listeners.",
        )
        .absent("none"),
        Field::new("tls", Kind::Section(&CLUSTER_TLS), "TLS towards the endpoints.").absent("none: plaintext only"),
        Field::new(
            "max_connection_age",
            Kind::Any(&[Kind::Duration(seconds(1), seconds(30 * 86_400)), Kind::Off]),
            "A connection that is older is replaced, with jitter, and nothing waits for it. With TLS, two thirds of \
             the certificate's life apply as well.",
        )
        .default("off", "as Envoy"),
        Field::new(
            "heal",
            Kind::Section(&HEAL),
            "Takes endpoints out that fail, are slow or hang, as their calls show, and lets them back in with care. \
             `{}` is complete.",
        )
        .absent("endpoints are judged by `health` alone"),
    ],
    planned: &[
        ("zones", "steering between zones"),
        ("locality", "steering between zones"),
        ("priority", "priorities of endpoints"),
        ("subsets", "subsets of endpoints"),
        ("http2", "HTTP/2"),
        ("h2", "HTTP/2"),
        ("protocol", "protocols other than HTTP/1.1 and TCP"),
        ("adaptive_limit", "adaptive limiting"),
    ],
};

pub(in super::super) static ENDPOINTS: Section = Section {
    name: "endpoints",
    place: "clusters.<name>.endpoints",
    doc: "Where endpoints come from: exactly one of `static` and `dns`.",
    fields: &[
        Field::new(
            "static",
            Kind::List(&ENDPOINT_ITEM, ENDPOINTS_MAX),
            "Addresses, `IP:PORT`, or maps with a weight and more.",
        )
        .absent("see `dns`"),
        Field::new(
            "dns",
            Kind::Text("`HOST:PORT`", 261),
            "A name that is looked up for all its addresses.",
        )
        .absent("see `static`"),
        Field::new(
            "refresh",
            Kind::Duration(seconds(1), DAY),
            "With `dns`: how often.",
        )
        .default("30s", "addresses of services seldom change faster"),
    ],
    planned: &[
        ("eds", "endpoints from xDS"),
        ("registry", "endpoints from a registry"),
        ("srv", "DNS SRV records"),
        ("file", "endpoints from a file"),
    ],
};

pub(in super::super) static ENDPOINT: Section = Section {
    name: "endpoint",
    place: "clusters.<name>.endpoints.static[]",
    doc: "One endpoint. An address alone is short for it.",
    fields: &[
        Field::new(
            "address",
            Kind::Text("an address", 64),
            "Its address, `IP:PORT`.",
        )
        .required(),
        Field::new(
            "weight",
            Kind::Integer(0, 128),
            "Its weight; 0 leaves it out.",
        )
        .default("1", "all alike"),
        Field::new("zone", NAME, "The failure domain that it runs in.").absent("not told"),
        Field::new("labels", LABELS, "What else is known of it.").absent("none"),
        Field::new(
            "tls",
            ENDPOINT_TLS_KIND,
            "What it announces about TLS; `follow_peer` clusters go by it.",
        )
        .default("off", "who does not announce TLS is not asked for it"),
    ],
    planned: &[
        ("priority", "priorities of endpoints"),
        ("metadata", "metadata of endpoints"),
        ("backup", "priorities of endpoints"),
    ],
};

pub(in super::super) static CIRCUIT: Section = Section {
    name: "circuit",
    place: "clusters.<name>.circuit",
    doc: "Limits on what a cluster has in flight, per shard. Above: 503.",
    fields: &[
        Field::new(
            "connections",
            Kind::Integer(1, 10_000_000),
            "Open connections. Links that replace others stand beside them for a moment: they may pass it by 2 for each endpoint.",
        )
        .default(
            "10000",
            "Envoy's 1,024 is what people meet first by accident",
        ),
        Field::new(
            "requests",
            Kind::Integer(1, 10_000_000),
            "Requests in flight.",
        )
        .default("10000", "as many as connections"),
    ],
    planned: &[
        ("pending", "queues of pending requests"),
        ("retries", "limits on retries; see `retry.budget`"),
    ],
};

pub(in super::super) static HEAL: Section = Section {
    name: "heal",
    place: "clusters.<name>.heal",
    doc: "Self-healing: endpoints are judged by what their calls come to, against their peers.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("enforce", "sick endpoints are taken out"),
                ("shadow", "they are found and told of, and stay in"),
            ]),
            "Whether it acts.",
        )
        .default("enforce", "who writes it down wants it"),
        Field::new(
            "max_ejection_percent",
            Kind::Integer(1, 100),
            "Endpoints that may be out at once, in percent. One always may; the last one never is.",
        )
        .default("50", "Envoy's 10 keeps a sick node of a small cluster in"),
        Field::new(
            "common_mode_percent",
            Kind::Integer(1, 100),
            "When more endpoints than this are sick at once, in percent, none is taken out: it is what they depend on.",
        )
        .default("30", "two of ten may die by chance, four do not"),
        Field::new(
            "base_ejection",
            Kind::Duration(millis(100), seconds(3600)),
            "How long an endpoint is out the first time, with jitter. Doubled each time that it fails again.",
        )
        .default("1s", "a restart takes longer, and a trial costs one request"),
        Field::new(
            "max_ejection",
            Kind::Duration(millis(100), DAY),
            "The longest time out.",
        )
        .default("5m", "as Envoy"),
        Field::new(
            "forgive_after",
            Kind::Duration(seconds(1), DAY),
            "For each such time that an endpoint is well, one time out is forgotten.",
        )
        .default("60s", "longer than most relapses take"),
        Field::new(
            "slow_start",
            Kind::Duration(seconds(0), seconds(3600)),
            "An endpoint that comes back gets its share little by little over this time; not with `ring_hash` and `maglev`.",
        )
        .default("5s", "its caches and pools are cold"),
    ],
    planned: &[
        ("consecutive_5xx", "Envoy's fields of outlier detection"),
        ("interval", "Envoy's fields of outlier detection"),
        ("base_ejection_time", "Envoy's fields of outlier detection; see `base_ejection`"),
        ("max_ejection_time", "Envoy's fields of outlier detection; see `max_ejection`"),
        ("split_external_local_origin_errors", "Envoy's fields of outlier detection"),
        ("success_rate_minimum_hosts", "Envoy's fields of outlier detection"),
    ],
};

pub(in super::super) static HEALTH: Section = Section {
    name: "health",
    place: "clusters.<name>.health",
    doc: "Active health checks: exactly one of `tcp` and `http`. Done once per process, not per shard.",
    fields: &[
        Field::new(
            "tcp",
            Kind::Section(&TCP_PROBE),
            "`{}`: a connection is made and closed.",
        )
        .absent("see `http`"),
        Field::new("http", Kind::Section(&HTTP_PROBE), "A GET is sent.").absent("see `tcp`"),
        Field::new(
            "interval",
            Kind::Duration(millis(100), seconds(3600)),
            "How often, with jitter.",
        )
        .default("2s", "as HAProxy"),
        Field::new(
            "timeout",
            Kind::Duration(TICK, seconds(300)),
            "For one try.",
        )
        .default("1s", "half the interval"),
        Field::new(
            "healthy_after",
            Kind::Integer(1, 100),
            "Successes in a row that bring an endpoint back.",
        )
        .default("2", "as HAProxy's `rise`"),
        Field::new(
            "unhealthy_after",
            Kind::Integer(1, 100),
            "Failures in a row that take it out.",
        )
        .default("3", "as HAProxy's `fall`"),
    ],
    planned: &[
        ("grpc", "gRPC health checks"),
        ("port", "health checks on another port"),
    ],
};

pub(in super::super) static TCP_PROBE: Section = Section {
    name: "TCP probe",
    place: "clusters.<name>.health.tcp",
    doc: "A connection is made and closed. It has no keys yet: `{}`.",
    fields: &[],
    planned: &[
        ("send", "checks that send bytes"),
        ("expect", "checks that expect bytes"),
    ],
};

pub(in super::super) static HTTP_PROBE: Section = Section {
    name: "HTTP probe",
    place: "clusters.<name>.health.http",
    doc: "A GET is sent; its answer must have one of the statuses.",
    fields: &[
        Field::new(
            "path",
            Kind::Text("a path, with or without query", TEXT_MAX),
            "What is asked for.",
        )
        .default("/", "every server has it"),
        Field::new(
            "host",
            Kind::Text("a host, with or without port", 261),
            "The `Host` field.",
        )
        .absent("the endpoint's address"),
        Field::new(
            "expect",
            Kind::List(
                &Kind::Any(&[
                    Kind::Integer(100, 599),
                    Kind::Text("a range as `200-299`", 16),
                ]),
                32,
            ),
            "Statuses that are healthy.",
        )
        .default(
            "[200-299]",
            "a redirect to a login page is no health; HAProxy takes 2xx and 3xx",
        ),
    ],
    planned: &[
        ("method", "health checks with other methods"),
        ("headers", "headers of health checks"),
        ("body", "health checks that read the body"),
    ],
};
