//! Limits that a service keeps for many proxies.

use super::*;

/// Descriptors of a route, and entries of a descriptor: each is sent with every request.
pub(super) const DESCRIPTORS_MAX: usize = 16;
/// A key of a descriptor, or its value.
const KEY: Kind = Kind::Text("text", 255);

pub(in super::super) static RATE_LIMIT_SERVICE: Section = Section {
    name: "rate limit service",
    place: "rate_limit_service",
    doc: "The service that routes with `global_rate_limits` ask, by Envoy's Rate Limit Service protocol \
          (`envoy.service.ratelimit.v3`): limits over many proxies, usually kept in Redis.",
    fields: &[
        Field::new(
            "mode",
            Kind::Word(&[
                ("enforce", "requests above a limit are refused"),
                ("shadow", "they are counted, and let in"),
            ]),
            "Whether it acts.",
        )
        .default("enforce", "who writes it down wants it"),
        Field::new(
            "cluster",
            CLUSTER_NAME,
            "The cluster that it is reached by. It needs `protocol: http2`, as gRPC does.",
        )
        .required(),
        Field::new("domain", KEY, "Which of its configurations is asked for.").required(),
        Field::new("timeout", TIMEOUT, "For its answer.").default(
            "20ms",
            "what Envoy waits; every request of the route waits for it",
        ),
        Field::new(
            "on_failure",
            Kind::Word(&[
                ("allow", "the request goes on"),
                ("refuse", "it is refused with 503"),
            ]),
            "What becomes of a request that the service has no answer for.",
        )
        .default(
            "allow",
            "an outage of the limiter is not one of the application",
        ),
    ],
    planned: &[("headers", "headers that the service adds")],
};

pub(in super::super) static GLOBAL_RATE_LIMIT: Section = Section {
    name: "global rate limit",
    place: "listeners.<name>.routes[].global_rate_limits[]",
    doc: "What `rate_limit_service` is told of a request, to limit it by: a descriptor.",
    fields: &[Field::new(
        "entries",
        Kind::List(&Kind::Section(&DESCRIPTOR_ENTRY), DESCRIPTORS_MAX),
        "Its entries, in the order of the service's configuration. If the request does not have what one of them \
         names, nothing is asked about this descriptor.",
    )
    .required()],
    planned: &[("stage", "stages of rate limiting"), ("hits", "hits by request")],
};

pub(in super::super) static DESCRIPTOR_ENTRY: Section = Section {
    name: "descriptor entry",
    place: "listeners.<name>.routes[].global_rate_limits[].entries[]",
    doc: "A key, and its value: exactly one of `value` and `by`.",
    fields: &[
        Field::new("key", KEY, "The key, as the service's configuration has it.").absent(
            "`remote_address` for `by: client_ip`, `generic_key` for `value`, else the name of what is looked at",
        ),
        Field::new("value", KEY, "A text that is always the same.").absent("see `by`"),
        Field::new(
            "by",
            Kind::Any(&[
                Kind::Word(&[("client_ip", "the client's IP address")]),
                Kind::Section(&HASH),
            ]),
            "What of the request.",
        )
        .absent("see `value`"),
    ],
    planned: &[
        ("path", "descriptors by path"),
        ("method", "descriptors by method"),
    ],
};
