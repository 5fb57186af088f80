//! Further tries of a request.

use super::*;

/// Above it, a body is not one that is cheap to send again.
const BUFFER_MAX: u64 = 1 << 20;
const BUFFER: Field = Field::new(
    "buffer",
    Kind::Size(0, BUFFER_MAX),
    "Bytes of a request's body that are kept for another try, until its answer begins. What outgrows it, or a \
     quarter of `limits.buffers` with others, is not tried again from there on.",
)
.default("64KiB", "a call's message; Envoy keeps 1 MiB");

pub(in super::super) static RETRY: Section = Section {
    name: "retry",
    place: "listeners.<name>.routes[].retry",
    doc: "When a request is tried again, on another endpoint if there is one: before anything of an answer was sent, \
          and if as much of its body was kept as has come.",
    fields: &[
        Field::new(
            "on",
            Kind::List(
                &Kind::Any(&[
                    Kind::Word(&[
                        ("connect", "the connection could not be made"),
                        ("reset", "it broke before a byte of the answer; idempotent methods only"),
                        ("timeout", "`per_try_timeout` ran out; idempotent methods only"),
                        ("5xx", "statuses 500 to 599"),
                        ("cancelled", "a call of gRPC came to CANCELLED"),
                        ("deadline-exceeded", "to DEADLINE_EXCEEDED, `per_try_timeout` included"),
                        ("internal", "to INTERNAL"),
                        ("resource-exhausted", "to RESOURCE_EXHAUSTED"),
                        ("unavailable", "to UNAVAILABLE, lost connections included"),
                    ]),
                    Kind::Integer(400, 599),
                ]),
                ROUTE_LIST_MAX,
            ),
            "Outcomes on which it is.",
        )
        .default("[connect, reset]", "neither does anything twice that must not be"),
        Field::new("times", Kind::Integer(1, 10), "At most this often.")
            .default("1", "as Envoy; a second retry seldom helps and doubles the load"),
        Field::new(
            "budget",
            Kind::Share(0, 10_000),
            "Retries in flight, as a share of the route's active requests. Three are always allowed.",
        )
        .default("20%", "as Envoy's retry budget: an outage is not made worse by its retries"),
        Field::new("per_try_timeout", TIMEOUT, "For each try.").absent("only the route's `timeout`"),
        Field::new("backoff", Kind::Duration(seconds(0), seconds(60)), "The first pause; doubled for each further try, with full jitter. A server of gRPC may say another (`grpc-retry-pushback-ms`).")
            .default("25ms", "as Envoy"),
        BUFFER,
    ],
    planned: &[],
};

pub(in super::super) static HEDGE: Section = Section {
    name: "hedge",
    place: "listeners.<name>.routes[].hedge",
    doc: "A request that has no answer after `delay` is sent to another endpoint as well, once its body has come. \
          The first good answer is taken, the others are given up.",
    fields: &[
        Field::new(
            "delay",
            Kind::Duration(millis(1), seconds(60)),
            "From a try to the next beside it: a time that few requests take, as the 95th percentile.",
        )
        .required(),
        Field::new("times", Kind::Integer(1, 4), "Further tries beside the first, at most.")
            .default("1", "the second rarely meets the same pause; a third costs as much again"),
        Field::new(
            "budget",
            Kind::Share(0, 10_000),
            "Hedged requests in flight, as a share of the route's active requests, retries included. Three are \
             always allowed.",
        )
        .default("10%", "twice as many as should come to it"),
        Field::new(
            "unsafe_methods",
            Kind::Flag,
            "Also of methods that are not safe, such as POST, and so of gRPC: the work may be done twice.",
        )
        .default("false", "only who knows the service can say so"),
        BUFFER,
    ],
    planned: &[],
};
