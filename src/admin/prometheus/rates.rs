//! Metrics of rate limits, by listener and route, and what has a bucket of its own; and of the service for global
//! limits (L13).

use tidegate_core::stats::{RateLimitCounters, RateLimitServiceCounters};

use super::{Family, Sample};
use crate::{admin::rates, status::Status};

/// Of routes with `rate_limits`; none of the others.
pub(super) fn families() -> Vec<Family> {
    let by_limit: &[&str] = &["listener", "route", "by"];
    let family = |name, help, read| Family::labelled(name, "counter", help, by_limit, read);
    let service = |name, help, read| Family::labelled(name, "counter", help, &["cluster"], read);
    vec![
        service(
            "tidegate_rate_limit_service_asked_total",
            "Requests that the service for global limits was asked about.",
            |status| of_service(status, |counters| counters.asked.get()),
        ),
        service(
            "tidegate_rate_limit_service_limited_total",
            "Requests refused, since the service for global limits said so.",
            |status| of_service(status, |counters| counters.limited.get()),
        ),
        service(
            "tidegate_rate_limit_service_would_limit_total",
            "Requests that the service for global limits, in shadow, would have had refused.",
            |status| of_service(status, |counters| counters.would_limit.get()),
        ),
        service(
            "tidegate_rate_limit_service_failed_total",
            "Requests that the service for global limits had no answer for: none in time, or none that can be read.",
            |status| of_service(status, |counters| counters.failed.get()),
        ),
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

fn of_service(status: &Status, count: fn(&RateLimitServiceCounters) -> u64) -> Vec<Sample> {
    let snapshot = status.snapshot();
    let service = snapshot
        .as_ref()
        .and_then(|s| s.rate_limit_service.as_ref());
    let sample = service.map(|service| {
        let labels = vec![service.rule.cluster.to_string()];
        (labels, service.counters.sum(count) as f64)
    });
    Vec::from_iter(sample)
}
