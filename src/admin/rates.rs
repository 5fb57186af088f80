//! `/limits/rates`: the rate limits of routes, and how much was over each (L13). As JSON for programs, and as
//! text for people.

use std::fmt::Write;

use serde_json::{Value, json};
use tidegate_core::{
    snapshot::{Listener, Protocol, RateLimit, Route, Snapshot},
    stats::RateLimitCounters,
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
    Ok(())
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
