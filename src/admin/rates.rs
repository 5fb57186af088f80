//! `/limits/rates`: the rate limits of routes, and how much was over each; `/limits/service`: the service for global
//! limits, and what came of asking it (L13). As JSON for programs, and as text for people.

use std::fmt::Write;

use serde_json::{Value, json};
use tidegate_core::{
    snapshot::{Listener, Protocol, RateLimit, RateLimitService, Route, Snapshot},
    stats::{RateLimitCounters, RateLimitServiceCounters},
};

use crate::{status::Status, text::Span};

/// `/limits/rates`
pub(crate) fn view(status: &Status) -> Value {
    let snapshot = status.snapshot();
    let all = snapshot.iter().flat_map(|snapshot| limits(snapshot));
    Value::Array(
        all.map(|(listener, route, limit)| {
            let [limited, would_limit, evicted] = COUNTS.map(|c| limit.buckets.counters.sum(c));
            json!({
                "listener": *listener.name,
                "route": *route.name,
                "mode": limit.rule.mode.word(),
                "requests": limit.rule.rate.requests,
                "per_s": limit.rule.rate.per.as_secs_f64(),
                "burst": limit.rule.rate.burst,
                "by": limit.rule.by_word(),
                "limited": limited,
                "would_limit": would_limit,
                "evicted": evicted,
            })
        })
        .collect(),
    )
}

type Count = fn(&RateLimitCounters) -> u64;

/// What is shown of a limit: requests over it, refused and not, and clients forgotten.
const COUNTS: [Count; 3] = [
    |counters| counters.limited.get(),
    |counters| counters.would_limit.get(),
    |counters| counters.evicted.get(),
];

/// `/limits/service`: `null` if there is none.
pub(crate) fn service_view(status: &Status) -> Value {
    let snapshot = status.snapshot();
    let service = snapshot
        .as_ref()
        .and_then(|s| s.rate_limit_service.as_ref());
    service.map_or(Value::Null, |service| {
        let [asked, limited, would_limit, failed] = service_counts(service);
        json!({
            "mode": service.rule.mode.word(),
            "cluster": *service.rule.cluster,
            "domain": *service.rule.domain,
            "timeout_s": service.rule.timeout.as_secs_f64(),
            "on_failure": service.rule.on_failure_word(),
            "asked": asked,
            "limited": limited,
            "would_limit": would_limit,
            "failed": failed,
        })
    })
}

/// Requests that it was asked about, that it refused, that it would have refused, and that it had no answer for.
fn service_counts(service: &RateLimitService) -> [u64; 4] {
    let counts: [fn(&RateLimitServiceCounters) -> u64; 4] = [
        |counters| counters.asked.get(),
        |counters| counters.limited.get(),
        |counters| counters.would_limit.get(),
        |counters| counters.failed.get(),
    ];
    counts.map(|count| service.counters.sum(count))
}

/// Appends the same as text; nothing where there is none.
pub(crate) fn write_text(out: &mut String, status: &Status) -> std::fmt::Result {
    let snapshot = status.snapshot();
    for (listener, route, limit) in snapshot.iter().flat_map(|snapshot| limits(snapshot)) {
        let rate = limit.rule.rate;
        let [limited, would_limit, evicted] = COUNTS.map(|c| limit.buckets.counters.sum(c));
        writeln!(
            out,
            "rate limit {}/{} by {}: {} requests in {}, burst {}, {}; {} over it, {evicted} clients forgotten",
            listener.name,
            route.name,
            limit.rule.by_word(),
            rate.requests,
            Span::ns(rate.per.as_nanos() as u64),
            rate.burst,
            limit.rule.mode.word(),
            limited + would_limit,
        )?;
    }
    let snapshot = snapshot.as_ref();
    let Some(service) = snapshot.and_then(|s| s.rate_limit_service.as_ref()) else {
        return Ok(());
    };
    let [asked, limited, would_limit, failed] = service_counts(service);
    writeln!(
        out,
        "rate limit service {} domain {}: {}, on failure {}; asked {asked}, {} over a limit, {failed} without answer",
        service.rule.cluster,
        service.rule.domain,
        service.rule.mode.word(),
        service.rule.on_failure_word(),
        limited + would_limit,
    )
}

/// Every rate limit.
pub(super) fn limits(snapshot: &Snapshot) -> impl Iterator<Item = (&Listener, &Route, &RateLimit)> {
    snapshot.listeners.iter().flat_map(|listener| {
        let routes = match &listener.protocol {
            Protocol::Http(http) => http.routes.as_slice(),
            Protocol::Tcp(_) => &[],
        };
        routes.iter().flat_map(move |route| {
            let limits = route.rate_limits.iter();
            limits.map(move |limit| (listener, route, limit))
        })
    })
}
