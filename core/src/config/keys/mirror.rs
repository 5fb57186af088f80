//! Copies of requests.

use super::*;

/// Mirrors of a route: each multiplies its requests.
pub const MIRRORS_MAX: usize = 4;

pub(in super::super) static MIRROR: Section = Section {
    name: "mirror",
    place: "listeners.<name>.routes[].mirror[]",
    doc: "Sends copies of requests, bodies of up to 64 KiB included, to another cluster. The request itself neither waits for \
          them nor fails for them; what they are answered with is counted and dropped.",
    fields: &[
        Field::new("to", CLUSTER_NAME, "The cluster.").required(),
        Field::new("share", Kind::Share(0, 10_000), "Of which requests, by chance.")
            .default("100%", "who has it in mind for some only says of how many"),
        Field::new(
            "host_suffix",
            Kind::Flag,
            "Whether the host of a copy is told from that of the request: `pay.example:80` is `pay.example-shadow:80`.",
        )
        .default("true", "as Envoy: whoever gets it sees what it is"),
    ],
    planned: &[],
};
