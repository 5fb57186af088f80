//! Metrics of rate limits, by listener and route, and what has a bucket of its own (L13).

use tidegate_core::stats::RateLimitCounters;

use super::{Family, Sample, Source};
use crate::{admin::rates, status::Status};

/// Of routes with `rate_limits`; none of the others.
pub(super) fn families() -> Vec<Family> {
    let family = |name: &str, help: &str, source| Family {
        name: name.into(),
        kind: "counter",
        help: help.into(),
        labels: &["listener", "route", "by"],
        source: Source::Labelled(source),
    };
    vec![
        family(
            "tidegate_rate_limited_total",
            "Requests refused by a rate limit, by listener, route and what has a bucket of its own.",
            |status| samples(status, |counters| counters.limited.get()),
        ),
        family(
            "tidegate_rate_limit_would_limit_total",
            "Requests that a rate limit in shadow would have refused.",
            |status| samples(status, |counters| counters.would_limit.get()),
        ),
        family(
            "tidegate_rate_limit_evicted_total",
            "Clients forgotten by a rate limit while they were over it or near, since there was no room: raise `keys`.",
            |status| samples(status, |counters| counters.evicted.get()),
        ),
    ]
}

/// The limits of a route that differ only in numbers are one series.
fn samples(status: &Status, count: fn(&RateLimitCounters) -> u64) -> Vec<Sample> {
    let snapshot = status.snapshot();
    let mut samples: Vec<Sample> = Vec::new();
    for (listener, route, limit) in snapshot.iter().flat_map(|snapshot| rates::limits(snapshot)) {
        let names = [&*listener.name, &*route.name, limit.rule.by_word()];
        let labels: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let value = limit.buckets.counters.sum(count) as f64;
        match samples.last_mut().filter(|(known, _)| *known == labels) {
            Some((_, sum)) => *sum += value,
            None => samples.push((labels, value)),
        }
    }
    samples
}
