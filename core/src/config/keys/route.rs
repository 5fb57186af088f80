//! Routes: what they match and what they do.

use super::*;
use crate::limiter::bucket::{BURST_MAX, KEYS_MAX};

pub(in super::super) static ROUTE: Section = Section {
    name: "route",
    place: "listeners.<name>.routes[]",
    doc: "One route: what it matches, and exactly one of `to`, `split`, `redirect` and `respond`.",
    fields: &[
        Field::new(
            "name",
            NAME,
            "Unique within the listener; counters go by it over reloads.",
        )
        .absent("`<listener>/<position>`, from 1"),
        Field::new(
            "match",
            Kind::Section(&MATCH),
            "Which requests take it. All parts must hold.",
        )
        .absent("every request"),
        Field::new("to", CLUSTER_NAME, "The cluster that requests go to.").absent("see above"),
        Field::new(
            "split",
            SPLIT,
            "Clusters and their shares, which sum to 100 %; or a list of destinations.",
        )
        .absent("see above"),
        Field::new(
            "subset",
            LABELS,
            "The subset of the cluster, by labels: see `subsets` of clusters. Those of a split that are written as a list \
             may say more.",
        )
        .absent("none: the cluster's `fallback` holds, if it has `subsets`"),
        Field::new(
            "redirect",
            Kind::Any(&[
                Kind::Text("a URL or a path", TEXT_MAX),
                Kind::Section(&REDIRECT),
            ]),
            "Answers with a redirect. A URL or path is short for the map, with status 302.",
        )
        .absent("see above"),
        Field::new("respond", Kind::Section(&RESPOND), "Answers by itself.").absent("see above"),
        Field::new(
            "timeout",
            TIMEOUT_OR_OFF,
            "For the whole exchange with the endpoint, retries included. Then: 504.",
        )
        .default("15s", "as Envoy"),
        Field::new(
            "retry",
            Kind::Section(&RETRY),
            "When a request is tried again.",
        )
        .absent("another endpoint is tried when no connection could be made"),
        Field::new(
            "hedge",
            Kind::Section(&HEDGE),
            "When a request is tried on another endpoint while a try goes on.",
        )
        .absent("one try at a time"),
        Field::new(
            "grpc_statistics",
            Kind::Flag,
            "Counts calls of gRPC by method: statuses, messages, durations; 192 methods of the route, and all others \
             together.",
        )
        .default("false", "names come from clients, and each has twenty series and more"),
        Field::new(
            "hash",
            Kind::Any(&[
                Kind::Word(&[("client_ip", "the client's IP address")]),
                Kind::Section(&HASH),
            ]),
            "What splits and the hashing balancers go by, so that the same client gets the same \
             endpoint.",
        )
        .absent("splits go by chance"),
        Field::new(
            "rewrite",
            Kind::Section(&REWRITE),
            "Changes the path or the host.",
        )
        .absent("both pass as they are"),
        Field::new(
            "priority",
            Kind::Word(&[
                ("critical", "refused last"),
                ("normal", "as most are"),
                ("batch", "work that can wait"),
                (
                    "stress",
                    "test traffic: none of it while the machine is over its watermark",
                ),
                (
                    "exempt",
                    "never refused, and not counted: health checks, heart-beats",
                ),
            ]),
            "Which requests the cluster's `adaptive_limit` refuses first.",
        )
        .default("normal", "all alike"),
        Field::new("mirror", Kind::List(&Kind::Section(&MIRROR), MIRRORS_MAX), "Sends copies of requests to other clusters, whose answers are dropped.")
            .absent("none"),
        Field::new("fault", Kind::Section(&FAULT), "Delays or refuses requests on purpose.").absent("none"),
        Field::new(
            "rate_limits",
            Kind::List(&Kind::Section(&RATE_LIMIT), RATE_LIMITS_MAX),
            "How many requests may take the route; above: 429. Each of them has to let a request in.",
        )
        .absent("any number"),
        Field::new(
            "global_rate_limits",
            Kind::List(&Kind::Section(&GLOBAL_RATE_LIMIT), DESCRIPTORS_MAX),
            "What `rate_limit_service` is asked about each request of the route, behind `rate_limits`; above a limit \
             of its: 429.",
        )
        .absent("it is not asked"),
        Field::new(
            "request_headers",
            Kind::Section(&HEADER_EDITS),
            "Edits of the request.",
        )
        .absent("none"),
        Field::new(
            "response_headers",
            Kind::Section(&HEADER_EDITS),
            "Edits of the answer.",
        )
        .absent("none"),
    ],
    planned: &[
        ("adaptive_limit", "adaptive limiting"),
        ("limit", "adaptive limiting"),
        ("cors", "CORS"),
        ("auth", "authentication"),
        ("idle_timeout", "time-outs of streams per route"),
        ("heal", "self-healing"),
        ("steering", "steering between zones and units"),
    ],
};

pub(in super::super) static MATCH: Section = Section {
    name: "match",
    place: "listeners.<name>.routes[].match",
    doc: "Which requests a route takes. All parts must hold.",
    fields: &[
        Field::new(
            "host",
            Kind::Any(&[Kind::Text("a host", 255), Kind::List(&Kind::Text("a host", 255), ROUTE_LIST_MAX)]),
            "One or several of `pay.example`, `\"*.example\"` (any name below), `pay.*` and `\"*\"` (every \
             host that no other route of the listener names). Compared without case and port.",
        )
        .absent("takes part for every host"),
        Field::new(
            "path",
            Kind::Text("a path", TEXT_MAX),
            "`/a/b` is that path; `/a/**` is `/a` and everything below; `/users/{id}` has one segment per \
             placeholder, and `{rest=**}` as the last takes all that follows; `~^/v[12]/.*` is a regular \
             expression over the whole path. The query is not part of it.",
        )
        .absent("any path"),
        Field::new(
            "method",
            Kind::Any(&[Kind::Text("a method", 32), Kind::List(&Kind::Text("a method", 32), ROUTE_LIST_MAX)]),
            "One or several methods, in capitals.",
        )
        .absent("any method"),
        Field::new("header", Kind::Map("header", &VALUE, ROUTE_LIST_MAX), "Conditions on header fields, by name: a value, or a map as below.")
            .absent("none"),
        Field::new("query", Kind::Map("parameter", &VALUE, ROUTE_LIST_MAX), "Conditions on query parameters, by name: a value, or a map as below.")
            .absent("none"),
    ],
    planned: &[
        ("service", "services of RPC protocols"),
        ("sni", "TLS server names"),
        ("client_ip", "matching by the client's address"),
        ("source_ip", "matching by the client's address"),
        ("cookie", "matching by cookies"),
        ("percent", "matching by chance"),
    ],
};

pub(in super::super) static VALUE_MATCH: Section = Section {
    name: "value match",
    place: "…match.header.<name>, …match.query.<name>",
    doc: "A condition on a value: exactly one of these keys. Plain text is short for the exact value.",
    fields: &[
        Field::new("exact", TEXT, "Is this.").absent("see above"),
        Field::new("prefix", TEXT, "Begins with this.").absent("see above"),
        Field::new("suffix", TEXT, "Ends with this.").absent("see above"),
        Field::new("contains", TEXT, "Holds this.").absent("see above"),
        Field::new(
            "regex",
            Kind::Text("a regular expression", TEXT_MAX),
            "Matches this as a whole.",
        )
        .absent("see above"),
        Field::new(
            "present",
            Kind::Flag,
            "`true`: is there, whatever its value. `false` is `absent: true`.",
        )
        .absent("see above"),
        Field::new(
            "absent",
            Kind::Flag,
            "`true`: is not there. `false` is `present: true`.",
        )
        .absent("see above"),
    ],
    planned: &[
        ("range", "numeric ranges"),
        ("not", "negated conditions"),
        ("invert", "negated conditions"),
    ],
};

pub(in super::super) static REDIRECT: Section = Section {
    name: "redirect",
    place: "listeners.<name>.routes[].redirect",
    doc: "A redirect. What is not replaced stays as the client sent it.",
    fields: &[
        Field::new("status", Kind::Among(&[301, 302, 303, 307, 308]), "301 and 308 are permanent, 302 and 307 for now; 303 asks for a GET, 307 and 308 keep the method.")
        .default(
            "302",
            "a wrong permanent redirect stays in browsers for ever",
        ),
        Field::new(
            "scheme",
            Kind::Word(&[("http", "plaintext"), ("https", "TLS")]),
            "Replaces the scheme.",
        )
        .absent("the scheme stays"),
        Field::new(
            "host",
            Kind::Text("a host, with or without port", 261),
            "Replaces the host and port.",
        )
        .absent("the host stays"),
        Field::new(
            "path",
            Kind::Text("a path, with or without query", TEXT_MAX),
            "Replaces the path.",
        )
        .absent("the path stays"),
        Field::new("strip_query", Kind::Flag, "Drops the query.")
            .default("false", "links keep working"),
    ],
    planned: &[
        ("prefix", "redirects that replace a prefix"),
        ("regex", "redirects by expression"),
        ("port", "redirects that replace the port alone"),
    ],
};

pub(in super::super) static RESPOND: Section = Section {
    name: "respond",
    place: "listeners.<name>.routes[].respond",
    doc: "An answer of the proxy itself.",
    fields: &[
        Field::new("status", Kind::Integer(200, 599), "Its status.").required(),
        Field::new("body", Kind::Text("text", BODY_MAX), "Its body.")
            .default("\"\"", "most need none"),
        Field::new(
            "content_type",
            Kind::Text("a media type", 255),
            "Its `Content-Type`.",
        )
        .default("text/plain", "what a body in a configuration usually is"),
    ],
    planned: &[
        ("file", "bodies from files"),
        ("headers", "headers of answers; use `response_headers`"),
    ],
};

pub(in super::super) static HASH: Section = Section {
    name: "hash",
    place: "listeners.<name>.routes[].hash",
    doc: "What is hashed: exactly one of these keys, or the word `client_ip` in place of the map.",
    fields: &[
        Field::new(
            "header",
            Kind::Text("a header name", 255),
            "A header field.",
        )
        .absent("see above"),
        Field::new("cookie", Kind::Text("a cookie name", 255), "A cookie.").absent("see above"),
        Field::new(
            "query",
            Kind::Text("a parameter name", 255),
            "A query parameter.",
        )
        .absent("see above"),
    ],
    planned: &[("path", "hashing by path")],
};

pub(in super::super) static RATE_LIMIT: Section = Section {
    name: "rate limit",
    place: "listeners.<name>.routes[].rate_limits[]",
    doc: "A token bucket over all shards: `{ requests: 100, per: 1s }`.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("enforce", "requests above it are refused"),
                ("shadow", "they are counted, and let in"),
            ]),
            "Whether it acts.",
        )
        .default("enforce", "who writes it down wants it"),
        Field::new(
            "requests",
            Kind::Integer(1, BURST_MAX as u64),
            "How many in the time of `per`; at most 1,000,000 a second.",
        )
        .required(),
        Field::new("per", Kind::Duration(millis(1), DAY), "In what time.")
            .default("1s", "as rates are mostly told"),
        Field::new(
            "burst",
            Kind::Integer(1, BURST_MAX as u64),
            "How many at once, after a pause.",
        )
        .absent("as `requests`"),
        Field::new(
            "by",
            Kind::Any(&[
                Kind::Word(&[("client_ip", "each client's IP address, of IPv6 the first 64 bits")]),
                Kind::Section(&HASH),
            ]),
            "What has a bucket of its own. Requests that do not carry it share one.",
        )
        .absent("one for all that take the route"),
        Field::new(
            "keys",
            Kind::Integer(8, KEYS_MAX as u64),
            "With `by`: buckets there is room for, 8 bytes each. With more clients over their limit at once, \
             some are forgotten, and have their burst again.",
        )
        .default("65536", "half a mebibyte"),
    ],
    planned: &[("status", "another status than 429")],
};

pub(in super::super) static REWRITE: Section = Section {
    name: "rewrite",
    place: "listeners.<name>.routes[].rewrite",
    doc: "Changes what the endpoint sees. At most one of `path`, `prefix` and `regex`.",
    fields: &[
        Field::new(
            "path",
            Kind::Text("a path", TEXT_MAX),
            "Replaces the whole path.",
        )
        .absent("the path stays"),
        Field::new(
            "prefix",
            Kind::Text("a path", TEXT_MAX),
            "Replaces what the route's `/a/**` matched as `/a`; `/` takes it away.",
        )
        .absent("the path stays"),
        Field::new(
            "regex",
            Kind::Text("a regular expression", TEXT_MAX),
            "Replaces what it matches of the path by `replacement`.",
        )
        .absent("the path stays"),
        Field::new(
            "replacement",
            TEXT,
            "With `regex`: `$1` and `${name}` stand for its groups, `$$` for a dollar sign.",
        )
        .absent("needed with `regex`"),
        Field::new(
            "host",
            Kind::Text("a host, with or without port", 261),
            "Replaces the host.",
        )
        .absent("the host stays"),
    ],
    planned: &[("query", "rewrites of the query")],
};

const HEADER_LINES: Kind = Kind::Map("header", &TEXT, ROUTE_LIST_MAX);

pub(in super::super) static HEADER_EDITS: Section = Section {
    name: "header edits",
    place: "listeners.<name>.routes[].request_headers, …response_headers",
    doc: "Edits of header fields, in the order `remove`, `set`, `append`.",
    fields: &[
        Field::new(
            "remove",
            Kind::List(&Kind::Text("a header name", 255), ROUTE_LIST_MAX),
            "Names of fields to take away.",
        )
        .absent("none"),
        Field::new("set", HEADER_LINES, "Replaces all fields of the name.").absent("none"),
        Field::new("append", HEADER_LINES, "Added beside what is there.").absent("none"),
    ],
    planned: &[("add", "this spelling; use `append`")],
};
