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
        Field::new(
            "protocol",
            Kind::Any(&[
                Kind::Word(&[
                    ("http1", "HTTP/1.1"),
                    ("http2", "HTTP/2, for gRPC and others: by ALPN in TLS, by prior knowledge in plaintext; requests share connections"),
                ]),
                Kind::Planned(&[("bolt", "Bolt"), ("dubbo", "Dubbo"), ("http3", "HTTP/3")]),
            ]),
            "What is spoken with the endpoints, by HTTP routes.",
        )
        .default("http1", "what every server speaks"),
        Field::new("failover", Kind::Section(&FAILOVER), "How load leaves priorities and zones whose endpoints are out.")
            .absent("all its defaults"),
        Field::new(
            "zone_weights",
            ZONE_WEIGHTS,
            "Zones of endpoints get load by these weights, whatever the number of endpoints in them; a zone whose endpoints \
             are out loses its load to the others.",
        )
        .absent("endpoints get load whatever their zone"),
        Field::new("subsets", Kind::Section(&SUBSETS), "Subsets of the endpoints by labels, that routes ask for.")
            .absent("every request is for all endpoints"),
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
        Field::new(
            "outlier_detection",
            Kind::Section(&OUTLIER_DETECTION),
            "Self-healing by Envoy's fields, in place of `heal`.",
        )
        .absent("see `heal`"),
        Field::new(
            "adaptive_limit",
            Kind::Section(&ADAPTIVE_LIMIT),
            "Holds back the requests that push the application's machine over its watermark, and only those. `{}` is \
             complete. For clusters of HTTP routes.",
        )
        .absent("no request is refused for overload"),
    ],
    planned: &[
        ("zones", "steering between zones"),
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
        Field::new(
            "priority",
            Kind::Integer(0, PRIORITY_MAX),
            "0 is the highest. Others get load as far as higher ones cannot take it: see `failover`.",
        )
        .default("0", "all alike"),
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

pub(in super::super) static ADAPTIVE_LIMIT: Section = Section {
    name: "adaptive limit",
    place: "clusters.<name>.adaptive_limit",
    doc: "Adaptive limiting: each route that leads to the cluster is an interface, and has a limit on what is in flight \
          when, and as far as, it pushes the machine over its watermark. At most one of `scope`, `cgroup` and `pid`.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("enforce", "requests are refused"),
                ("shadow", "limits are computed, shown and counted, and nothing is refused"),
            ]),
            "Whether it acts.",
        )
        .default("enforce", "who writes it down wants it"),
        Field::new(
            "canary",
            Kind::Any(&[CANARY_SHARE, Kind::Section(&CANARY)]),
            "Acts on some of the proxies, and is in shadow on the others. A percentage is short for `{ share: … }`.",
        )
        .default("100%", "a rule is for all unless it is being tried out"),
        Field::new(
            "scope",
            Kind::Word(&[
                ("host", "the whole machine"),
                ("own", "the control group that this process is in"),
            ]),
            "Whose resources are measured.",
        )
        .default("host", "on bare metal the application has the machine, with its sidecar"),
        Field::new(
            "cgroup",
            Kind::Text("the path of a control group, `/system.slice/app.service`", TEXT_MAX),
            "Measures that control group instead.",
        )
        .absent("see `scope`"),
        Field::new(
            "pid",
            Kind::Integer(1, 1 << 22),
            "Measures the control group of that process instead.",
        )
        .absent("see `scope`"),
        Field::new("targets", Kind::Section(&TARGETS), "What counts as full.").absent("all its defaults"),
        Field::new(
            "trigger_ticks",
            Kind::Integer(1, 600),
            "Ticks of 100 ms in a row above the watermark that begin an overload; at half as much again, or with requests \
             that pile up, it begins at once.",
        )
        .default("5", "half a second is no burst any more"),
        Field::new(
            "floor",
            Kind::Integer(1, 1_000_000),
            "Requests in flight that every interface keeps, but for batch and stress traffic, and for normal traffic where \
             critical traffic would have to give way.",
        )
        .default("1", "nobody is starved"),
        Field::new(
            "priority_header",
            Kind::Text("the name of a header", 256),
            "A request whose header of this name is `critical`, `normal`, `batch` or `stress` has that priority, \
             whatever its route says. Take it from strangers only through a proxy that sets it.",
        )
        .absent("the route's `priority` holds"),
        Field::new(
            "caller_header",
            Kind::Text("the name of a header", 256),
            "Says who calls: the same caller has the same fate for as long as limits stay the same.",
        )
        .absent("the client's address"),
    ],
    planned: &[
        ("interfaces", "a table of interfaces beside the routes"),
    ],
};

const CANARY_SHARE: Kind = Kind::Share(1, 10_000);

pub(in super::super) static CANARY: Section = Section {
    name: "canary",
    place: "clusters.<name>.adaptive_limit.canary",
    doc: "Which proxies the rule acts on.",
    fields: &[
        Field::new(
            "share",
            CANARY_SHARE,
            "The share of them, chosen by their node's id.",
        )
        .default("100%", "`labels` choose, too"),
        Field::new(
            "labels",
            LABELS,
            "Only those whose `node` has all of these labels.",
        )
        .absent("with any"),
    ],
    planned: &[],
};

pub(in super::super) static TARGETS: Section = Section {
    name: "targets",
    place: "clusters.<name>.adaptive_limit.targets",
    doc: "What counts as full. The watermark is the largest of what is measured over its target; what cannot be \
          measured is left out.",
    fields: &[
        Field::new("cpu", SIGNAL, "CPU time, of the quota or of all CPUs.")
            .default("80%", "what autoscalers aim at leaves room for a burst"),
        Field::new(
            "psi_cpu",
            SIGNAL,
            "Time in which some task waited for a CPU (PSI).",
        )
        .default(
            "65%",
            "what a single queue has in front of a CPU that is 80 % busy",
        ),
        Field::new(
            "psi_memory",
            SIGNAL,
            "Time in which some task waited for memory (PSI).",
        )
        .default("10%", "the machine is about to thrash"),
        Field::new(
            "memory",
            SIGNAL,
            "Memory, of the limit or of the machine's.",
        )
        .default("90%", "one allocation from the OOM killer"),
        Field::new(
            "loop_lag",
            Kind::Any(&[Kind::Duration(millis(1), seconds(10)), Kind::Off]),
            "How late a shard's loop runs what is due, 99 of 100 times.",
        )
        .default("20ms", "queued for longer than most requests take"),
        Field::new(
            "in_flight",
            Kind::Any(&[Kind::Integer(1, 10_000_000), Kind::Off]),
            "Requests in flight to the cluster, over all shards.",
        )
        .default("off", "nobody knows it in advance"),
        Field::new(
            "app",
            SIGNAL,
            "What the application says of its load in its answers: `application_utilization`, or else \
             `cpu_utilization`, of the field `endpoint-load-metrics` (ORCA, as text or JSON).",
        )
        .default("100%", "it knows best what is full"),
    ],
    planned: &[],
};

/// A share of what there is; off leaves the signal out.
const SIGNAL: Kind = Kind::Any(&[Kind::Share(1, 10_000), Kind::Off]);

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
    planned: &[],
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
            "grpc",
            Kind::Section(&GRPC_PROBE),
            "`grpc.health.v1.Health/Check` is called. Needs `protocol: http2`.",
        )
        .absent("see `tcp`"),
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
    planned: &[("port", "health checks on another port")],
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

pub(in super::super) static GRPC_PROBE: Section = Section {
    name: "gRPC probe",
    place: "clusters.<name>.health.grpc",
    doc: "gRPC's own health service is asked; it has to answer SERVING.",
    fields: &[
        Field::new(
            "service",
            Kind::Text("text", 255),
            "Which service it is asked about.",
        )
        .absent("the server as a whole"),
        Field::new(
            "host",
            Kind::Text("a host, with or without port", 261),
            "The authority.",
        )
        .absent("the endpoint's address"),
    ],
    planned: &[],
};
