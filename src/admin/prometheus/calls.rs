//! Metrics of calls of gRPC by method, of routes with `grpc_statistics`; none of the others. So how many there are is
//! bounded: `METHODS_MAX` methods of a route on each shard.

use std::fmt::{self, Write};

use tidegate_core::sketch;

use super::{Family, Label, Sample, Source};
use crate::{
    admin::calls::{Calls, Place, methods},
    status::Status,
};

/// Every so many buckets of the sketch one is exposed: at the powers of two.
const STEP: usize = 2;
const LABELS: &[&str] = &["listener", "route", "service", "method"];

pub(super) fn families() -> Vec<Family> {
    let messages = |name, help, read| Family::labelled(name, "counter", help, LABELS, read);
    vec![
        Family::labelled(
            "tidegate_grpc_calls_total",
            "counter",
            "Calls of gRPC by method and by the status that they came to, on routes with `grpc_statistics`.",
            &["listener", "route", "service", "method", "status"],
            calls,
        ),
        messages(
            "tidegate_grpc_request_messages_total",
            "Messages of gRPC that clients have sent, by method.",
            |status| samples(status, |calls| calls.request_messages),
        ),
        messages(
            "tidegate_grpc_response_messages_total",
            "Messages of gRPC that clients were sent, by method.",
            |status| samples(status, |calls| calls.response_messages),
        ),
        Family {
            name: "tidegate_grpc_call_seconds".into(),
            kind: "histogram",
            help: "Durations of calls of gRPC, by method.".into(),
            labels: LABELS,
            source: Source::CallSeconds,
        },
    ]
}

fn calls(status: &Status) -> Vec<Sample> {
    let snapshot = status.snapshot();
    let mut samples = Vec::new();
    for (place, calls) in methods(snapshot.as_deref()) {
        for (name, count) in calls.by_status() {
            let mut labels = labels(&place);
            labels.push(name.to_owned());
            samples.push((labels, count as f64));
        }
    }
    samples
}

fn samples(status: &Status, count: fn(&Calls) -> u64) -> Vec<Sample> {
    let snapshot = status.snapshot();
    let all = methods(snapshot.as_deref()).into_iter();
    all.map(|(place, calls)| (labels(&place), count(&calls) as f64))
        .collect()
}

fn labels(place: &Place) -> Vec<String> {
    let Place {
        listener,
        route,
        service,
        method,
    } = place.clone();
    vec![listener, route, service, method]
}

/// The durations as a histogram.
pub(super) fn write_seconds(out: &mut String, name: &str, status: &Status) -> fmt::Result {
    let snapshot = status.snapshot();
    for (place, calls) in methods(snapshot.as_deref()) {
        let mut series = String::new();
        for (label, text) in LABELS.iter().zip(labels(&place)) {
            write!(series, "{label}=\"{}\",", Label(&text))?;
        }
        let mut below = 0;
        for (bucket, count) in calls.latency.iter().enumerate() {
            below += count;
            if bucket % STEP == 0 && bucket < sketch::BUCKETS - 1 {
                let upper = sketch::upper_ns(bucket) as f64 / 1e9;
                writeln!(out, "{name}_bucket{{{series}le=\"{upper}\"}} {below}")?;
            }
        }
        writeln!(out, "{name}_bucket{{{series}le=\"+Inf\"}} {below}")?;
        let series = series.trim_end_matches(',');
        let sum = calls.latency_ns as f64 / 1e9;
        writeln!(out, "{name}_sum{{{series}}} {sum}")?;
        writeln!(out, "{name}_count{{{series}}} {below}")?;
    }
    Ok(())
}
