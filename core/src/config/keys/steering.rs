//! The steering program: applications, their places, and rules.

use super::*;
use crate::{
    config::model::steering::{PLACES_MAX, RULES_MAX},
    limiter::bucket::BURST_MAX,
};

const PLACE: Kind = Kind::Text("the name of a place", NAME_MAX);
const SHARE: Kind = Kind::Share(0, 10_000);
/// Places and their shares.
const ROW: Kind = Kind::Map("place", &SHARE, PLACES_MAX);
/// A network whose hop mark is believed.
pub(in super::super) const NETWORK: Kind =
    Kind::Text("an IP address, or a network such as `10.0.0.0/8`", 64);
/// A header.
const HEADER_NAME: Kind = Kind::Text("a header name", 255);
/// What is hashed.
const HASHED: Kind = Kind::Any(&[
    Kind::Word(&[("client_ip", "the client's IP address")]),
    Kind::Section(&HASH),
]);

pub(in super::super) static STEERING: Section = Section {
    name: "steering",
    place: "steering",
    doc: "Moves requests away from the cluster that their route leads to, rule by rule. See docs/steering.md.",
    fields: &[
        Field::new(
            "applications",
            Kind::Map("name", &Kind::Section(&STEERED_APPLICATION), CLUSTERS_MAX),
            "What may be steered.",
        )
        .absent("none"),
        Field::new(
            "rules",
            Kind::List(&Kind::Section(&STEERING_RULE), RULES_MAX),
            "In order: of those that choose a place, the first that matches decides.",
        )
        .absent("none"),
        Field::new("marks", Kind::Section(&STEERING_MARKS), "Where requests carry what rules ask about.")
            .absent("all its defaults"),
        Field::new(
            "trusted_peers",
            Kind::List(&NETWORK, ROUTE_LIST_MAX),
            "Proxies whose hop mark is believed: a request that they have moved is not moved again. The mark is \
             taken from what anybody else sends.",
        )
        .absent("nobody"),
        Field::new(
            "response_header",
            Kind::Flag,
            "Says in each answer what was decided: `x-tidegate-steer: rule42@17:unit1>unit2`.",
        )
        .default("false", "clients need not know where a request went"),
    ],
    planned: &[("shards", "shards of its own for a group")],
};

pub(in super::super) static STEERED_APPLICATION: Section = Section {
    name: "steered application",
    place: "steering.applications.<name>",
    doc: "The places that its requests may go to. Each is a cluster of its own, and so has its own connections, \
          circuit and limits. A request whose route leads to one of them has it as its home.",
    fields: &[
        Field::new(
            "units",
            Kind::Map("name", &CLUSTER_NAME, PLACES_MAX),
            "Deployment units and their clusters.",
        )
        .absent("none"),
        Field::new(
            "groups",
            Kind::Map(
                "name",
                &Kind::Any(&[CLUSTER_NAME, Kind::Section(&STEERED_GROUP)]),
                PLACES_MAX,
            ),
            "Groups of instances and their clusters; a name is short for `{ cluster: … }`.",
        )
        .absent("none"),
    ],
    planned: &[(
        "labels",
        "places by labels of endpoints: give each a cluster of its own",
    )],
};

pub(in super::super) static STEERED_GROUP: Section = Section {
    name: "steered group",
    place: "steering.applications.<name>.groups.<name>",
    doc: "A group of instances.",
    fields: &[
        Field::new("cluster", CLUSTER_NAME, "Its cluster.").required(),
        Field::new(
            "exclusive",
            Kind::Flag,
            "It gets what rules name it for, and nothing else: a request that a route leads here is refused with \
             `steer_not_named`, unless a trusted peer has sent it here.",
        )
        .default("false", "a group may have a route of its own"),
    ],
    planned: &[],
};

pub(in super::super) static STEERING_MARKS: Section = Section {
    name: "steering marks",
    place: "steering.marks",
    doc: "Where requests carry what rules ask about.",
    fields: &[
        Field::new("user", HASHED, "Who the user is.").absent("the header `x-user-id`"),
        Field::new(
            "colour",
            HEADER_NAME,
            "The header that holds a request's colour.",
        )
        .default("x-colour", "ours; there is no common name"),
        Field::new(
            "stress",
            HEADER_NAME,
            "The header that marks test traffic by being there.",
        )
        .default("x-stress", "ours; there is no common name"),
        Field::new(
            "request_id",
            HEADER_NAME,
            "The header that shares go by for want of a sticky key.",
        )
        .default("x-request-id", "as Envoy"),
    ],
    planned: &[],
};

pub(in super::super) static STEERING_RULE: Section = Section {
    name: "steering rule",
    place: "steering.rules[]",
    doc: "One rule: which requests, and exactly one of `set_unit`, `set_group`, `split`, `shift`, `divert`, `cap`, \
          `fail_to` and `matrix`.",
    fields: &[
        Field::new("id", NAME, "Unique; counters go by it over reloads.").required(),
        Field::new("owner", NAME, "Who may change it by hand.").required(),
        Field::new(
            "epoch",
            Kind::Integer(1, 1 << 53),
            "Its version. A change by hand has to bring a higher one.",
        )
        .default("1", "the first"),
        Field::new("expires", Kind::Text("a time such as `2026-12-31T23:59:59Z`", 32), "From then on it matches nothing.")
            .absent("never"),
        Field::new("match", Kind::Section(&STEERING_MATCH), "Which requests. All parts must hold.").required(),
        Field::new("set_unit", PLACE, "Sends them to this unit.").absent("see above"),
        Field::new("set_group", PLACE, "Sends them to this group.").absent("see above"),
        Field::new("split", ROW, "Shares them out; sums to 100 %.").absent("see above"),
        Field::new("shift", Kind::Section(&SHIFT), "Sends a share of them to a place.").absent("see above"),
        Field::new(
            "divert",
            Kind::Section(&DIVERT),
            "Sends a share of what reaches this server to another place; callers need not know.",
        )
        .absent("see above"),
        Field::new("cap", Kind::Section(&STEERING_CAP), "Refuses what is more than that, over all shards together.")
            .absent("see above"),
        Field::new(
            "fail_to",
            Kind::List(&PLACE, PLACES_MAX),
            "Where to if the place of a request has no endpoint that may be chosen: the first that has one.",
        )
        .absent("see above"),
        Field::new(
            "matrix",
            Kind::Map("place", &ROW, PLACES_MAX),
            "By home: what it keeps and what it gives to whom. Each row sums to 100 %; a home without row is left \
             to the next rule.",
        )
        .absent("see above"),
        Field::new(
            "hash",
            HASHED,
            "What shares go by, so that the same client always falls the same way.",
        )
        .absent("the request's id (`steering.marks.request_id`), or chance where it has none"),
        Field::new(
            "fallback",
            Kind::Text("`home`, `refuse`, or the name of a place", NAME_MAX),
            "What happens if the chosen place has no endpoint that may be chosen.",
        )
        .absent("a `fail_to` that matches, or else `refuse`"),
        Field::new("ramp", Kind::Section(&RAMP), "Lets the share grow step by step, and stops by itself.")
            .absent("all of its share at once"),
    ],
    planned: &[("mirror", "mirroring by rule")],
};

pub(in super::super) static STEERING_MATCH: Section = Section {
    name: "steering match",
    place: "steering.rules[].match",
    doc: "Which requests a rule is about.",
    fields: &[
        Field::new("application", Kind::Text("the name of an application", NAME_MAX), "Whose requests.").required(),
        Field::new(
            "interface",
            Kind::Text("`SERVICE` or `SERVICE/METHOD`", TEXT_MAX),
            "Of one interface: the path without its last segment, and that; `pay.Transfer/Create` is the path \
             `/pay.Transfer/Create`, as gRPC has it.",
        )
        .absent("any"),
        Field::new("from", PLACE, "That go to this place without steering.").absent("any"),
        Field::new("colour", Kind::Text("a colour", NAME_MAX), "Of this colour.").absent("any"),
        Field::new(
            "users",
            Kind::Text("a range such as `00-49`", 5),
            "Of users whose last two digits lie in this range.",
        )
        .absent("any"),
        Field::new("stress", Kind::Flag, "Whether they are marked as test traffic.").absent("either"),
        Field::new("header", Kind::Map("header name", &VALUE, ROUTE_LIST_MAX), "With these headers.").absent("any"),
        Field::new("cookie", Kind::Map("cookie name", &TEXT, ROUTE_LIST_MAX), "With these cookies, exactly.")
            .absent("any"),
        Field::new(
            "percent",
            SHARE,
            "This part of those that match otherwise; the others are left to the next rule.",
        )
        .absent("all"),
    ],
    planned: &[],
};

pub(in super::super) static SHIFT: Section = Section {
    name: "shift",
    place: "steering.rules[].shift",
    doc: "A share that goes elsewhere; the rest stays at home.",
    fields: &[
        Field::new("to", PLACE, "Where to.").required(),
        Field::new("share", SHARE, "Of what matches.").required(),
    ],
    planned: &[],
};

pub(in super::super) static DIVERT: Section = Section {
    name: "divert",
    place: "steering.rules[].divert",
    doc: "How much of what reaches this server goes elsewhere: exactly one of `own_fraction` and `target_share`. \
          Needs `steering.trusted_peers`, so that nothing is diverted twice.",
    fields: &[
        Field::new("to", PLACE, "Where to.").required(),
        Field::new("own_fraction", SHARE, "Of what matches on this server.").absent("see above"),
        Field::new(
            "target_share",
            SHARE,
            "So much that the target gets this share of what all `servers` get. With n servers and the share t each \
             gives (n·t − 1) / (n − 1) of its own: 70 % for 80 % on one of 3.",
        )
        .absent("see above"),
        Field::new(
            "servers",
            Kind::Integer(2, 1 << 16),
            "With `target_share`: how many equal servers there are, the target included.",
        )
        .absent("as many as the application has units"),
    ],
    planned: &[],
};

pub(in super::super) static STEERING_CAP: Section = Section {
    name: "steering cap",
    place: "steering.rules[].cap",
    doc: "A token bucket over all shards.",
    fields: &[
        Field::new(
            "requests",
            Kind::Integer(1, BURST_MAX as u64),
            "Tokens that come back in `per`.",
        )
        .required(),
        Field::new("per", Kind::Duration(millis(1), DAY), "In what time.")
            .default("1s", "what most people count in"),
        Field::new(
            "burst",
            Kind::Integer(1, BURST_MAX as u64),
            "Tokens of a full bucket.",
        )
        .absent("as `requests`"),
    ],
    planned: &[],
};

pub(in super::super) static RAMP: Section = Section {
    name: "ramp",
    place: "steering.rules[].ramp",
    doc: "What is moved grows from `start` by `step` until the rule's own share is reached, or `stop` holds.",
    fields: &[
        Field::new("start", SHARE, "Of what matches, at the beginning.")
            .default("1%", "enough to see failures, little enough to bear them"),
        Field::new("step", Kind::Share(1, 10_000), "What each step adds.")
            .default("5%", "twenty steps to all"),
        Field::new(
            "every",
            Kind::Duration(seconds(1), DAY),
            "The time between two steps.",
        )
        .default("30s", "caches fill and queues show within it"),
        Field::new(
            "stop",
            Kind::Section(&RAMP_STOP),
            "When it stops by itself. At least one of its keys.",
        )
        .required(),
        Field::new(
            "on_stop",
            Kind::Word(&[
                ("back", "nothing is moved any more"),
                ("hold", "what is moved now still is"),
            ]),
            "What a stop does.",
        )
        .default("back", "what was well before is"),
    ],
    planned: &[],
};

pub(in super::super) static RAMP_STOP: Section = Section {
    name: "ramp stop",
    place: "steering.rules[].ramp.stop",
    doc: "Looked at ten times a second, over what the rule moved since the last step; error rate and latency once \
          there are 20 such requests.",
    fields: &[
        Field::new("error_rate", Kind::Share(1, 10_000), "More than this part of what was moved failed.")
            .absent("is not looked at"),
        Field::new("p99", TIMEOUT, "Of a hundred moved requests more than one took longer.").absent("is not looked at"),
        Field::new(
            "watermark",
            Kind::Share(1, 100_000),
            "A target is fuller than this part of its watermark. Needs `adaptive_limit` on its cluster.",
        )
        .absent("is not looked at"),
    ],
    planned: &[],
};
