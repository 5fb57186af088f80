//! Metrics of the census: how much of what listeners serve is encrypted (E1), by listener, and by peer
//! application where that is asked for.

use tidegate_core::{
    encryption::{
        census::{Count, Counts, OTHER, Report},
        rollout::LinkKind,
    },
    snapshot::Snapshot,
};

use super::{Family, Sample, Source};
use crate::admin::encryption;

/// The kinds of links, as the label `encryption` says them.
const KINDS: [(&str, LinkKind); 2] = [("tls", LinkKind::Tls), ("plaintext", LinkKind::Plaintext)];

/// What is exposed of a [`Count`].
pub(super) type Number = fn(&Count) -> u64;

/// Numbers that are exposed: end of the name, kind, help, and where it is taken from.
const NUMBERS: [(&str, &str, &str, Number); 6] = [
    (
        "requests_total",
        "counter",
        "Requests and relayed connections that are over",
        |count| count.requests,
    ),
    (
        "received_bytes_total",
        "counter",
        "Bytes received from clients",
        |count| count.received_bytes,
    ),
    (
        "sent_bytes_total",
        "counter",
        "Bytes sent to clients",
        |count| count.sent_bytes,
    ),
    (
        "connections_total",
        "counter",
        "Connections of clients",
        |count| count.connections,
    ),
    (
        "connections_open",
        "gauge",
        "Connections of clients that are open now",
        |count| count.connections_open,
    ),
    (
        "last_seen_timestamp_seconds",
        "gauge",
        "When clients were seen last",
        |count| count.last_unix_ms / 1000,
    ),
];

/// By listener; and, shown if asked for, by application: up to
/// [`APPLICATIONS_MAX`](tidegate_core::encryption::census::APPLICATIONS_MAX) a shard of each.
pub(super) fn families() -> Vec<Family> {
    let listener = NUMBERS.map(|(end, kind, help, number)| Family {
        name: format!("tidegate_listener_{end}"),
        kind,
        help: format!("{help}, by listener and encryption."),
        labels: &["listener", "encryption"],
        source: Source::Census(number),
    });
    let application = NUMBERS.map(|(end, kind, help, number)| Family {
        name: format!("tidegate_application_{end}"),
        kind,
        help: format!("{help}, by listener, peer application and encryption."),
        labels: &["listener", "application", "encryption"],
        source: Source::CensusApplication(number),
    });
    listener.into_iter().chain(application).collect()
}

/// The census, read once for all families.
pub(super) struct Listeners(Vec<(String, Report)>);

impl Listeners {
    pub(super) fn read(snapshot: Option<&Snapshot>) -> Listeners {
        let listeners = snapshot.into_iter().flat_map(encryption::census);
        Listeners(
            listeners
                .map(|(listener, report)| (listener.name.to_string(), report))
                .collect(),
        )
    }

    pub(super) fn by_listener(&self, number: Number) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (listener, report) in &self.0 {
            add(&mut samples, &[listener], &report.total, number);
        }
        samples
    }

    pub(super) fn by_application(&self, number: Number) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (listener, report) in &self.0 {
            for (name, counts) in &report.applications {
                add(&mut samples, &[listener, name], counts, number);
            }
            add(&mut samples, &[listener, OTHER], &report.other, number);
        }
        samples
    }
}

fn add(samples: &mut Vec<Sample>, names: &[&str], counts: &Counts, number: Number) {
    for (word, kind) in KINDS {
        let count = match kind {
            LinkKind::Tls => &counts.tls,
            LinkKind::Plaintext => &counts.plaintext,
        };
        let labels = names.iter().copied().chain([word]).map(str::to_owned);
        samples.push((labels.collect(), number(count) as f64));
    }
}
