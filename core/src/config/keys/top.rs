//! The top of a file: node, shards, admin, access log and limits.

use super::*;

pub(in super::super) static ROOT: Section = Section {
    name: "file",
    place: "",
    doc: "The top of the file.",
    fields: &[
        Field::new("version", Kind::Integer(1, 1), "Version of the format.").required(),
        Field::new("node", Kind::Section(&NODE), "Who this proxy is.").absent("all its defaults"),
        Field::new(
            "shards",
            Kind::Any(&[SHARD_COUNT, Kind::Section(&SHARDS)]),
            "How many shards run, and where. A shard is a thread with its own ring, pools and limits; \
             a number is short for `{ count: … }`.",
        )
        .absent("one shard per CPU that the process may use"),
        Field::new(
            "admin",
            Kind::Any(&[Kind::Text("an address", 64), Kind::Off]),
            "Where the admin server listens. It has no authentication in this version, so only \
             loopback addresses are accepted.",
        )
        .default("127.0.0.1:9901", "the commands that look at a running proxy connect to it; Envoy's usual port"),
        Field::new(
            "access_log",
            Kind::Any(&[Kind::Section(&ACCESS_LOG), Kind::Off]),
            "One line per request.",
        )
        .default("off", "costs time per request; Envoy and HAProxy have none until asked"),
        Field::new("limits", Kind::Section(&LIMITS), "Limits of each shard.").absent("all its defaults"),
        Field::new(
            "drain_timeout",
            Kind::Duration(seconds(0), DAY),
            "How long requests in flight may take to end when the proxy stops. `0s` stops at once.",
        )
        .default("25s", "ends before the 30 s after which Kubernetes kills a process"),
        Field::new(
            "upgrade_timeout",
            Kind::Duration(seconds(1), seconds(3600)),
            "How long the new process of a hot upgrade may take to be ready. After that it is ended, and the \
             old one serves on.",
        )
        .default("20s", "a start takes tens of milliseconds; the rest is for slow disks and name servers"),
        Field::new(
            "listeners",
            Kind::Map("name", &Kind::Section(&LISTENER), LISTENERS_MAX),
            "What is listened on, by name.",
        )
        .absent("none"),
        Field::new(
            "clusters",
            Kind::Map("name", &Kind::Section(&CLUSTER), CLUSTERS_MAX),
            "Groups of endpoints, by name.",
        )
        .absent("none"),
        Field::new(
            "secrets",
            Kind::Map("name", &Kind::Section(&SECRET), SECRETS_MAX),
            "Certificates with their keys, and authorities that are trusted, by name.",
        )
        .absent("none"),
        Field::new(
            "center",
            Kind::Section(&CENTER),
            "The healing center that ejections are reported to. Read once, when the process starts.",
        )
        .absent("nobody is told"),
        Field::new(
            "rate_limit_service",
            Kind::Section(&RATE_LIMIT_SERVICE),
            "The service that keeps limits for many proxies.",
        )
        .absent("no route has `global_rate_limits`"),
        Field::new(
            "xds",
            Kind::Section(&XDS),
            "The control plane that brings further listeners and clusters. Read once, when the process starts.",
        )
        .absent("the file is all there is"),
        Field::new(
            "steering",
            Kind::Section(&STEERING),
            "Rules that move requests away from where their route leads.",
        )
        .absent("every request goes where its route leads"),
    ],
    planned: &[
        ("adaptive_limit", "adaptive limiting"),
        ("limit", "adaptive limiting"),
        ("heal", "self-healing"),
        ("registry", "service registries"),
        ("tracing", "exported traces"),
        ("stats", "naming of metrics"),
        ("stats_names", "naming of metrics"),
        ("runtime", "runtime overrides"),
    ],
};

pub(in super::super) static NODE: Section = Section {
    name: "node",
    place: "node",
    doc: "Who this proxy is. Shown in metrics and dumps.",
    fields: &[
        Field::new("id", NAME, "Unique in the fleet.").absent("the name of the host"),
        Field::new("app", NAME, "The application that the proxy fronts.").absent("none"),
        Field::new("zone", NAME, "The failure domain that it runs in.").absent("none"),
        Field::new(
            "labels",
            LABELS,
            "What else is known of it: a `canary` chooses by it.",
        )
        .absent("none"),
    ],
    planned: &[
        ("metadata", "metadata of the node"),
        ("region", "regions"),
        ("unit", "units"),
    ],
};

/// One center.
pub(in super::super) const CENTER_ADDRESS: Kind = Kind::Text("`HOST:PORT`", 261);
/// Where the fronted application is reached.
pub(in super::super) const FRONT_ADDRESS: Kind = Kind::Text("an address", 64);
/// A program, or one of its arguments.
pub(in super::super) const COMMAND_WORD: Kind = Kind::Text("text", TEXT_MAX);

pub(in super::super) static CENTER: Section = Section {
    name: "center",
    place: "center",
    doc: "The healing center: told of every ejection, with its numbers; it may confirm or clear one, and have the \
          application restarted that this proxy fronts. `node: { id, app }` say who reports.",
    fields: &[
        Field::new(
            "addresses",
            Kind::List(&CENTER_ADDRESS, 16),
            "Where the centers listen. One that does not lead says who does.",
        )
        .required(),
        Field::new(
            "token_file",
            Kind::Text("a path", TEXT_MAX),
            "A file whose first line is the token that the centers ask for.",
        )
        .absent("none is shown"),
        Field::new(
            "fronts",
            Kind::List(&FRONT_ADDRESS, 64),
            "Where others reach the application `node.app` that this proxy fronts.",
        )
        .absent("it fronts nothing: nothing is restarted"),
        Field::new(
            "restart",
            Kind::Section(&RESTART),
            "How that application is restarted, or taken off line.",
        )
        .absent("the center is refused"),
    ],
    planned: &[(
        "tls",
        "TLS to the center; put a Tidegate with mTLS in front of it",
    )],
};

/// One control plane.
pub(in super::super) const XDS_ADDRESS: Kind = Kind::Text("`HOST:PORT`", 261);

pub(in super::super) static XDS: Section = Section {
    name: "xds",
    place: "xds",
    doc: "A control plane that speaks xDS v3 (ADS over gRPC, or REST), or files in its place: it brings listeners, routes, \
          clusters and endpoints beside those of the file, which go before others of the same name. \
          `node: { id, app, zone }` say who asks.",
    fields: &[
        Field::new(
            "addresses",
            Kind::List(&XDS_ADDRESS, 16),
            "Where control planes listen, the preferred first. One that fails three times in a row is followed by the \
             next; the ones before it are looked for each minute.",
        )
        .absent("`files` bring everything; one of both is needed"),
        Field::new(
            "protocol",
            Kind::Word(&[
                ("delta", "a response carries what changed"),
                (
                    "state_of_the_world",
                    "a response carries all listeners, or all clusters",
                ),
                (
                    "rest",
                    "each type is asked for with a POST, again and again",
                ),
            ]),
            "The variant of the protocol.",
        )
        .default("delta", "one endpoint that changes costs one endpoint"),
        Field::new(
            "refresh_delay",
            Kind::Duration(millis(10), seconds(3600)),
            "Between two times that a type is asked for by REST; up to a quarter longer, by chance.",
        )
        .default("1s", "a fleet of a thousand asks a control plane four thousand times a second"),
        Field::new(
            "request_timeout",
            Kind::Duration(millis(10), seconds(600)),
            "For an answer by REST to come whole.",
        )
        .default("1s", "as Envoy's"),
        Field::new(
            "files",
            Kind::Section(&XDS_FILES),
            "Files that bring all clusters, or all listeners, instead of a control plane.",
        )
        .absent("none do"),
        Field::new(
            "cluster",
            NAME,
            "`node.cluster`, by which a control plane knows what this proxy is a part of.",
        )
        .absent("`node.app`"),
        Field::new(
            "token_file",
            Kind::Text("a path", TEXT_MAX),
            "A file whose first line is the token that the control planes ask for.",
        )
        .absent("none is shown"),
        Field::new("tls", Kind::Section(&XDS_TLS), "TLS to the control planes.").absent("plaintext"),
        Field::new(
            "cache",
            Kind::Text("a path", TEXT_MAX),
            "A file where the last good resources are kept: a start while no control plane answers begins with them.",
        )
        .absent("such a start has the file's part alone"),
    ],
    planned: &[],
};

pub(in super::super) static XDS_FILES: Section = Section {
    name: "xds files",
    place: "xds.files",
    doc: "Files that bring resources, each a `DiscoveryResponse` in YAML or JSON, or in protobuf if its name ends in \
          `.pb`. One that is replaced by a rename is read at once; what is wrong with it is told, and the last good \
          stays.",
    fields: &[
        Field::new(
            "clusters",
            Kind::Text("a path", TEXT_MAX),
            "The file that brings all clusters. Endpoints are in it, or come by `eds_config`, which may name a file.",
        )
        .absent("a control plane does"),
        Field::new(
            "listeners",
            Kind::Text("a path", TEXT_MAX),
            "The file that brings all listeners. Routes are in it, or come by `rds`, which may name a file.",
        )
        .absent("a control plane does"),
        Field::new(
            "watched_directory",
            Kind::Text("a path", TEXT_MAX),
            "A directory: the files are read again when something is moved into it, and then alone. For files behind \
             links that change together, as those of a ConfigMap.",
        )
        .absent("each file is looked at"),
    ],
    planned: &[],
};

pub(in super::super) static XDS_TLS: Section = Section {
    name: "xds tls",
    place: "xds.tls",
    doc: "TLS to the control planes, by `secrets` of the file. A secret that is renewed holds from the next connection on.",
    fields: &[
        Field::new(
            "trusted_ca",
            SECRET_NAME,
            "The secret with the authorities that their certificates must come from.",
        )
        .required(),
        Field::new(
            "certificate",
            SECRET_NAME,
            "The secret with the certificate that is shown to them.",
        )
        .absent("none"),
        Field::new(
            "server_name",
            Kind::Text("a host", 255),
            "The server name that is asked for, and that their certificates must have.",
        )
        .absent("the host of the address"),
    ],
    planned: &[],
};

pub(in super::super) static RESTART: Section = Section {
    name: "restart",
    place: "center.restart",
    doc: "A hook that restarts the fronted application, or takes it off line: exactly one of `command`, `http` and \
          `unix`. A command has the order in `TIDEGATE_ACTION` and its like, the others in a JSON body.",
    fields: &[
        Field::new(
            "command",
            Kind::List(&COMMAND_WORD, 64),
            "A program and its arguments, without a shell.",
        )
        .absent("see `http`"),
        Field::new(
            "http",
            Kind::Text("an address", 64),
            "`IP:PORT` of who is asked by POST.",
        )
        .absent("see `command`"),
        Field::new(
            "unix",
            Kind::Text("a path", TEXT_MAX),
            "The Unix socket of who is asked by POST.",
        )
        .absent("see `command`"),
        Field::new(
            "path",
            Kind::Text("a path", TEXT_MAX),
            "With `http` and `unix`: what is asked for.",
        )
        .default("/", "there is nothing shorter"),
        Field::new(
            "timeout",
            Kind::Duration(millis(10), seconds(600)),
            "After which it has failed.",
        )
        .default(
            "30s",
            "a process that stops in an orderly way needs some seconds",
        ),
    ],
    planned: &[("headers", "headers of hooks")],
};

const SHARD_COUNT: Kind = Kind::Integer(1, SHARDS_MAX as u64);

pub(in super::super) static SHARDS: Section = Section {
    name: "shards",
    place: "shards",
    doc: "How many shards run, on which CPUs, and how large their rings are.",
    fields: &[
        Field::new(
            "cpus",
            Kind::Any(&[
                Kind::Text("CPUs as `2-15,18`", TEXT_MAX),
                Kind::List(&Kind::Integer(0, SHARDS_MAX as u64 - 1), SHARDS_MAX),
            ]),
            "CPUs that get a shard each.",
        )
        .absent("every CPU that the process may use"),
        Field::new("count", SHARD_COUNT, "At most this many shards.").absent("one per CPU"),
        Field::new(
            "ring",
            Kind::Section(&RING),
            "Sizes of each shard's ring and of its buffers.",
        )
        .absent("all its defaults"),
    ],
    planned: &[
        ("pin", "shards that are not pinned"),
        ("steering", "steering of connections to shards"),
    ],
};

pub(in super::super) static RING: Section = Section {
    name: "ring",
    place: "shards.ring",
    doc: "Sizes of a shard's io_uring and of the buffers that the kernel receives into. The defaults \
          are measured; small ones are for tests.",
    fields: &[
        Field::new(
            "submission_entries",
            Kind::PowerOfTwo(4, 32_768),
            "Entries of the submission queue.",
        )
        .default("1024", "more than a turn submits; no gain measured above"),
        Field::new(
            "completion_entries",
            Kind::PowerOfTwo(8, 65_536),
            "Entries of the completion queue. At least as many as `submission_entries`.",
        )
        .default("8192", "holds the completions of a burst without overflow"),
        Field::new(
            "head_buffers",
            Kind::PowerOfTwo(4, 32_768),
            "Buffers for heads and small messages.",
        )
        .default("256", "stays in the second-level cache with 4 KiB each"),
        Field::new(
            "head_buffer_bytes",
            Kind::Size(512, 64 << 10),
            "Bytes of each.",
        )
        .default("4KiB", "a page holds nearly every request head"),
        Field::new(
            "body_buffers",
            Kind::PowerOfTwo(2, 32_768),
            "Buffers for bodies.",
        )
        .default(
            "32",
            "2 MiB in all; a ring of 32 MiB was measured to be dearer",
        ),
        Field::new(
            "body_buffer_bytes",
            Kind::Size(512, 1 << 20),
            "Bytes of each.",
        )
        .default("64KiB", "a third of the cost of 8 KiB for large bodies"),
        Field::new(
            "busy_poll",
            Kind::Duration(seconds(0), millis(10)),
            "Keeps polling for this long before a shard sleeps; `0s` sleeps at once. Lowers the \
             median at low load, and burns a CPU for it.",
        )
        .default("0s", "a CPU at 100 % is nobody's default"),
    ],
    planned: &[],
};

pub(in super::super) static ACCESS_LOG: Section = Section {
    name: "access_log",
    place: "access_log",
    doc: "Where the access log goes. Lines are written off the data path; what does not fit is dropped and counted.",
    fields: &[
        Field::new(
            "path",
            Kind::Text("a path", TEXT_MAX),
            "The file to append to.",
        )
        .absent("standard output"),
        Field::new(
            "format",
            Kind::Any(&[
                Kind::Word(&[
                    ("short", "one line for a person"),
                    ("json", "one JSON object with OpenTelemetry names"),
                ]),
                Kind::Planned(&[
                    ("envoy", "Envoy's access-log format"),
                    ("custom", "own access-log formats"),
                ]),
            ]),
            "How a line looks.",
        )
        .default("short", "the first reader is a person"),
    ],
    planned: &[
        ("sample", "sampling of the access log"),
        ("fields", "own access-log formats"),
    ],
};

pub(in super::super) static LIMITS: Section = Section {
    name: "limits",
    place: "limits",
    doc: "Limits of each shard that no client can talk the proxy out of.",
    fields: &[
        Field::new(
            "connections",
            Kind::Integer(1, 10_000_000),
            "Client connections. Further ones are closed as they arrive, and counted.",
        )
        .default("50000", "1 KiB each while idle"),
        Field::new(
            "buffers",
            Kind::Size(1 << 20, 1 << 40),
            "Bytes received and not yet sent, over all connections.",
        )
        .default("64MiB", "2,000 stalled connections with a full buffer"),
        Field::new(
            "connection_buffer",
            Kind::Size(4 << 10, 64 << 20),
            "Bytes received and not yet sent, per connection.",
        )
        .default(
            "32KiB",
            "Envoy has 1 MiB, which a slow reader can make grow",
        ),
    ],
    planned: &[("memory", "limits by memory"), ("cpu", "limits by CPU")],
};
