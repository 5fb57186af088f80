//! `/grpc`: calls of gRPC by method, of routes with `grpc_statistics`. As JSON for programs, and as text for people.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Value, json};
use tidegate_codecs::grpc;
use tidegate_core::{
    sketch,
    snapshot::{Protocol, Snapshot},
    stats::{Counter, GRPC_STATUSES, MethodCounters},
};

use crate::{status::Status, text::Span};

/// What methods without a row of their own are called.
pub(super) const OTHER: &str = "other";

/// Whose calls they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) listener: String,
    pub(super) route: String,
    /// [`OTHER`] for those that have no row of their own.
    pub(super) service: String,
    pub(super) method: String,
}

/// Calls of all shards.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) calls: [u64; GRPC_STATUSES],
    pub(super) request_messages: u64,
    pub(super) response_messages: u64,
    pub(super) latency: [u64; sketch::BUCKETS],
    pub(super) latency_ns: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Calls {
            calls: [0; GRPC_STATUSES],
            request_messages: 0,
            response_messages: 0,
            latency: [0; sketch::BUCKETS],
            latency_ns: 0,
        }
    }
}

impl Calls {
    fn add(&mut self, counters: &MethodCounters) {
        add_all(&mut self.calls, &counters.calls);
        add_all(&mut self.latency, &counters.latency);
        self.request_messages += counters.request_messages.get();
        self.response_messages += counters.response_messages.get();
        self.latency_ns += counters.latency_ns.get();
    }

    /// Calls by the name of their status, those that there were.
    pub(super) fn by_status(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = self.calls.iter().enumerate();
        all.filter(|(_, count)| **count > 0).map(|(number, count)| {
            let status = grpc::Status::parse(number.to_string().as_bytes());
            (status.name(), *count)
        })
    }
}

fn add_all(sums: &mut [u64], counters: &[Counter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.get();
    }
}

/// Every method that is counted, with what it came to.
pub(super) fn methods(snapshot: Option<&Snapshot>) -> BTreeMap<Place, Calls> {
    let mut found = BTreeMap::<Place, Calls>::new();
    for listener in snapshot.map_or(&[][..], |snapshot| &snapshot.listeners) {
        let Protocol::Http(http) = &listener.protocol else {
            continue;
        };
        for route in &http.routes {
            let place = |service: &str, method: &str| Place {
                listener: listener.name.to_string(),
                route: route.name.to_string(),
                service: service.to_owned(),
                method: method.to_owned(),
            };
            for shard in route.methods.iter().flat_map(|methods| methods.iter()) {
                for (path, counters) in shard.iter() {
                    let path = path.trim_start_matches('/');
                    let (service, method) = path.split_once('/').unwrap_or((path, ""));
                    found
                        .entry(place(service, method))
                        .or_default()
                        .add(counters);
                }
                let other = place(OTHER, OTHER);
                found.entry(other).or_default().add(shard.other());
            }
        }
    }
    found
}

/// `/grpc`
pub(crate) fn view(status: &Status) -> Value {
    let snapshot = status.snapshot();
    let all = methods(snapshot.as_deref()).into_iter();
    let rows = all.map(|(place, calls)| {
        let by_status: BTreeMap<_, _> = calls.by_status().collect();
        json!({
            "listener": place.listener,
            "route": place.route,
            "service": place.service,
            "method": place.method,
            "calls": calls.calls.iter().sum::<u64>(),
            "statuses": by_status,
            "request_messages": calls.request_messages,
            "response_messages": calls.response_messages,
            "p50_s": sketch::quantile_s(&calls.latency, 0.5),
            "p99_s": sketch::quantile_s(&calls.latency, 0.99),
        })
    });
    Value::Array(rows.collect())
}

/// The same as text.
pub(crate) fn text(status: &Status) -> String {
    let mut out = String::new();
    let snapshot = status.snapshot();
    for (place, calls) in methods(snapshot.as_deref()) {
        // Writing to a String does not fail.
        let _ = write_row(&mut out, &place, &calls);
    }
    out
}

fn write_row(out: &mut String, place: &Place, calls: &Calls) -> std::fmt::Result {
    let Place {
        listener,
        route,
        service,
        method,
    } = place;
    let total: u64 = calls.calls.iter().sum();
    write!(out, "{listener}/{route} {service}/{method}: {total} calls")?;
    for (name, count) in calls.by_status() {
        write!(out, ", {count} {name}")?;
    }
    write!(
        out,
        "; {} messages in, {} out",
        calls.request_messages, calls.response_messages
    )?;
    for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
        if let Some(seconds) = sketch::quantile_s(&calls.latency, q) {
            write!(out, ", {name} {}", Span::ns((seconds * 1e9) as u64))?;
        }
    }
    writeln!(out)
}
