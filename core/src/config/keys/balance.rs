//! How load goes over a cluster's priorities, zones and subsets.

use super::*;

/// Selectors of a cluster's subsets. Each endpoint is looked at once for each of them.
pub(in super::super) const SUBSET_SELECTORS_MAX: usize = 16;

/// Keys of a selector.
pub(in super::super) const SUBSET_KEYS_MAX: usize = 16;

/// The lowest priority: as in Envoy, at most 128 of them.
pub(in super::super) const PRIORITY_MAX: u64 = 127;

/// The greatest weight of a zone.
pub(in super::super) const ZONE_WEIGHT_MAX: u64 = 1_000_000;

pub(in super::super) static FAILOVER: Section = Section {
    name: "failover",
    place: "clusters.<name>.failover",
    doc: "How load leaves priorities and zones whose endpoints are out. The arithmetic is Envoy's.",
    fields: &[
        Field::new(
            "overprovisioning_percent",
            Kind::Integer(100, 1000),
            "How much more than its load a priority, or a zone, can take. At 140, endpoints may be out until 72 % are \
             left before any of the load goes to the next one.",
        )
        .default("140", "as Envoy"),
        Field::new(
            "panic_percent",
            Kind::Integer(0, 100),
            "With fewer healthy endpoints than this, of a priority whose load no other one can take, all of its endpoints \
             are used, healthy or not. 0 never does: without a healthy endpoint, requests are refused.",
        )
        .default(
            "50",
            "as Envoy: half a cluster that gets all of the load is soon down, too, and health checks are wrong more often \
             than half of the endpoints are",
        ),
    ],
    planned: &[("zone_aware", "preferring endpoints of the own zone")],
};

/// Weights of zones.
pub(in super::super) const ZONE_WEIGHTS: Kind =
    Kind::Map("zone", &Kind::Integer(1, ZONE_WEIGHT_MAX), ENDPOINTS_MAX);

pub(in super::super) static SUBSETS: Section = Section {
    name: "subsets",
    place: "clusters.<name>.subsets",
    doc: "Subsets of the endpoints by their labels. A request is for the subset of exactly the labels that its route's \
          `subset` names.",
    fields: &[
        Field::new(
            "selectors",
            Kind::List(&Kind::Section(&SUBSET_SELECTOR), SUBSET_SELECTORS_MAX),
            "Keys of labels: endpoints that have all keys of a selector make a subset for each set of their values.",
        )
        .required(),
        Field::new(
            "fallback",
            FALLBACK,
            "What becomes of a request that names no subset, or one that has no endpoint.",
        )
        .default("none", "as Envoy: an empty target is an error that somebody sees"),
        Field::new("default", LABELS, "The labels of the default subset; with `fallback: default`.")
            .absent("every endpoint"),
        Field::new(
            "zone_weights",
            Kind::Flag,
            "Whether the cluster's `zone_weights` hold within subsets, too.",
        )
        .default("false", "as Envoy: a subset may have endpoints in one zone only"),
    ],
    planned: &[],
};

pub(in super::super) static SUBSET_SELECTOR: Section = Section {
    name: "subset selector",
    place: "clusters.<name>.subsets.selectors[]",
    doc: "Labels that make subsets.",
    fields: &[
        Field::new(
            "keys",
            Kind::List(
                &Kind::Text("the key of a label", LABEL_MAX),
                SUBSET_KEYS_MAX,
            ),
            "The keys of the labels.",
        )
        .required(),
        Field::new(
            "fallback",
            FALLBACK,
            "What becomes of a request that names these keys and finds no endpoint.",
        )
        .absent("as the cluster's"),
    ],
    planned: &[],
};

const FALLBACK: Kind = Kind::Word(&[
    ("none", "it is refused with 503"),
    ("any", "any endpoint takes it"),
    ("default", "an endpoint of the default subset takes it"),
]);

/// Clusters and shares.
pub(in super::super) const SPLIT: Kind = Kind::Any(&[
    Kind::Map("cluster", &SHARE, ROUTE_LIST_MAX),
    Kind::List(&Kind::Section(&DESTINATION), ROUTE_LIST_MAX),
]);

/// The share of a destination.
pub(in super::super) const SHARE: Kind = Kind::Share(0, 10_000);

pub(in super::super) static DESTINATION: Section = Section {
    name: "destination",
    place: "….split[]",
    doc: "A part of a split, where it is written as a list: so that one cluster can be there with several subsets.",
    fields: &[
        Field::new("to", CLUSTER_NAME, "The cluster.").required(),
        Field::new("share", SHARE, "Its share of the split.").required(),
        Field::new(
            "subset",
            LABELS,
            "The subset of it, beside what the route's `subset` says.",
        )
        .absent("what the route says"),
    ],
    planned: &[],
};
