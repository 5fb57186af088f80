//! Faults that are injected on purpose.

use super::*;

pub(in super::super) static FAULT: Section = Section {
    name: "fault",
    place: "listeners.<name>.routes[].fault",
    doc: "Delays or refuses requests on purpose, to see what becomes of those who depend on them. As Envoy's HTTP fault \
          filter, before anything else is done with the request.",
    fields: &[
        Field::new("delay", Kind::Section(&FAULT_DELAY), "Delays requests.")
            .absent("none is delayed"),
        Field::new(
            "abort",
            Kind::Section(&FAULT_ABORT),
            "Refuses requests, those that were delayed too.",
        )
        .absent("none is refused"),
        Field::new(
            "header",
            Kind::Map("header", &VALUE, ROUTE_LIST_MAX),
            "Only requests whose header fields meet these conditions, as in `match`.",
        )
        .absent("every request of the route"),
        Field::new(
            "max_active",
            Kind::Any(&[Kind::Integer(0, 1_000_000), Kind::Off]),
            "Requests with a fault at once, per shard; others are spared.",
        )
        .default("off", "as Envoy"),
    ],
    planned: &[("rate_limit", "slow answers")],
};

pub(in super::super) static FAULT_DELAY: Section = Section {
    name: "fault delay",
    place: "listeners.<name>.routes[].fault.delay",
    doc: "A delay: exactly one of `fixed` and `by_header`. The route's `timeout` counts from its end.",
    fields: &[
        Field::new("fixed", Kind::Duration(TICK, seconds(300)), "How long.").absent("see `by_header`"),
        Field::new(
            "by_header",
            Kind::Flag,
            "As many milliseconds as the request's `x-envoy-fault-delay-request` says, at most five minutes; \
             `x-envoy-fault-delay-request-percentage` lowers `share`, in its own unit.",
        )
        .absent("see `fixed`"),
        FAULT_SHARE,
    ],
    planned: &[],
};

pub(in super::super) static FAULT_ABORT: Section = Section {
    name: "fault abort",
    place: "listeners.<name>.routes[].fault.abort",
    doc: "A refusal: exactly one of `status`, `grpc_status` and `by_header`.",
    fields: &[
        Field::new("status", Kind::Integer(200, 599), "The status. A call of gRPC is told the one of gRPC that goes with it.")
            .absent("see above"),
        Field::new("grpc_status", Kind::Integer(0, 16), "The status of gRPC; others than gRPC see 200.")
            .absent("see above"),
        Field::new(
            "by_header",
            Kind::Flag,
            "The status that the request's `x-envoy-fault-abort-request` says, or the one of gRPC of \
             `x-envoy-fault-abort-grpc-request`; `x-envoy-fault-abort-request-percentage` lowers `share`.",
        )
        .absent("see above"),
        FAULT_SHARE,
    ],
    planned: &[],
};

/// Of which requests.
const FAULT_SHARE: Field = Field::new(
    "share",
    Kind::Share(0, 10_000),
    "Of which requests, by chance.",
)
.default("100%", "who has it in mind for some only says of how many");
