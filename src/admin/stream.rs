//! `/stream`: what the dashboard draws, once a second, as server-sent events. One task samples for all
//! readers, and only while there is one.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde_json::{Map, Value, json};
use tidegate_core::{
    reason::Reason,
    stats::{EndpointCounters, HistogramCounts, Phase, ShardCounters},
};
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

use super::{Phases, encryption, healing, limits, steering, view};
use crate::status::Status;

/// Readers at a time. Each costs a connection and one copy of a few KiB a second.
pub(super) const READERS_MAX: usize = 16;

/// How often.
const PERIOD: Duration = Duration::from_secs(1);

/// Endpoints sent per cluster; the rest is counted. Keeps an event in the tens of KiB.
const ENDPOINTS_SHOWN: usize = 64;

/// The sampling task's output and its readers.
#[derive(Clone)]
pub(super) struct Stream {
    events: watch::Receiver<Arc<str>>,
    readers: Arc<Semaphore>,
}

impl Stream {
    /// Starts the task; when the server closes, it ends, and so does what readers read. To be called on the admin
    /// server's runtime.
    pub(super) fn start(status: Arc<Status>, phases: Phases) -> Stream {
        let (sender, events) = watch::channel(Arc::from(""));
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        let sampling = sample_forever(status, sender, readers.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = sampling => {}
                _ = phases.until(|phase| *phase == super::Phase::Closed) => {}
            }
        });
        Stream { events, readers }
    }

    /// One reader's answer; 503 when there are too many.
    pub(super) fn response(&self) -> Response {
        let Ok(permit) = self.readers.clone().try_acquire_owned() else {
            let sorry = format!("{READERS_MAX} readers already: close another dashboard\n");
            return (StatusCode::SERVICE_UNAVAILABLE, sorry).into_response();
        };
        let mut events = self.events.clone();
        events.mark_unchanged();
        let stream = futures_lite::stream::unfold((events, permit), |(mut events, permit)| async {
            events.changed().await.ok()?;
            let event = Event::default().data(&**events.borrow_and_update());
            Some((Ok::<_, Infallible>(event), (events, permit)))
        });
        Sse::new(stream)
            .keep_alive(KeepAlive::default())
            .into_response()
    }
}

async fn sample_forever(
    status: Arc<Status>,
    events: watch::Sender<Arc<str>>,
    readers: Arc<Semaphore>,
) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before: Option<Sample> = None;
    loop {
        period.tick().await;
        if readers.available_permits() == READERS_MAX {
            // A difference over a time that nobody watched would be drawn as one second.
            before = None;
            continue;
        }
        let now = Sample::take(&status);
        if let Some(before) = before.replace(now.clone()) {
            let event = now.since(&before, &status).to_string();
            events.send_replace(event.into());
        }
    }
}

/// The counters of one moment.
#[derive(Clone)]
struct Sample {
    at: Instant,
    shards: Vec<Vec<u64>>,
    refused: Vec<u64>,
    phases: Vec<HistogramCounts>,
    /// By cluster and endpoint, in the order of the snapshot with this epoch.
    endpoints: Vec<Vec<Vec<u64>>>,
    epoch: u64,
}

impl Sample {
    fn take(status: &Status) -> Sample {
        let snapshot = status.snapshot();
        let refused = |reason: &Reason| {
            let one = |s: &ShardCounters| s.refused.get(*reason as usize).map_or(0, |c| c.get());
            status.counters.sum(one)
        };
        let endpoints = view::clusters_of(snapshot.as_ref()).iter().map(|cluster| {
            let endpoints = cluster.endpoints.iter().take(ENDPOINTS_SHOWN);
            endpoints.map(|e| view::sum_endpoint(&e.counters)).collect()
        });
        Sample {
            at: Instant::now(),
            shards: status.counters.iter().map(ShardCounters::values).collect(),
            refused: Reason::ALL.iter().map(refused).collect(),
            phases: Phase::ALL
                .iter()
                .map(|phase| status.phase(*phase))
                .collect(),
            endpoints: endpoints.collect(),
            epoch: snapshot.as_ref().map_or(0, |snapshot| snapshot.epoch.0),
        }
    }

    /// What happened since `before`, per second where it is a rate.
    fn since(&self, before: &Sample, status: &Status) -> Value {
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        let phases: Vec<HistogramCounts> = self
            .phases
            .iter()
            .zip(&before.phases)
            .map(|(now, then)| now.since(then))
            .collect();
        let phase = |phase: Phase| phases.get(phase as usize).map(view::quantiles);
        json!({
            "state": status.state().word(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": status.started.elapsed().as_secs(),
            "epoch": self.epoch,
            "config": status.live().source.name,
            "config_error": status.live().last_error,
            "added": phase(Phase::Added),
            "upstream": phase(Phase::FirstByte),
            "total": phase(Phase::Total),
            "heat": phases.get(Phase::Total as usize).map(heat),
            "refused": self.refusals(before),
            "shards": self.shard_rows(before, status, seconds),
            "clusters": self.cluster_rows(before, status, seconds),
            "encryption": encryption::summary(status),
            "healing": healing::summary(status),
            "limits": limits::summary(status),
            "steering": steering::summary(status),
        })
    }

    fn refusals(&self, before: &Sample) -> Value {
        let deltas = self.refused.iter().zip(&before.refused);
        let named = Reason::ALL
            .iter()
            .zip(deltas)
            .filter_map(|(reason, (now, then))| {
                let delta = now.saturating_sub(*then);
                (delta > 0).then(|| (reason.word().to_owned(), json!(delta)))
            });
        Value::Object(named.collect())
    }

    fn shard_rows(&self, before: &Sample, status: &Status, seconds: f64) -> Vec<Value> {
        let rows = self.shards.iter().zip(&before.shards).zip(&status.cpus);
        rows.enumerate()
            .map(|(id, ((now, then), cpu))| {
                let column = Columns { now, then, seconds };
                json!({
                    "id": id,
                    "cpu": cpu,
                    "requests_s": column.rate("requests"),
                    "failed_s": column.rate("responses_5xx"),
                    "connections_open": column.value("connections_open"),
                    "connections_s": column.rate("connections"),
                    "requests_active": column.value("requests_active"),
                    "busy": column.rate("loop_busy_ns") / 1e9,
                    "longest_turn_ns": column.value("loop_longest_turn_ns"),
                    "turns_s": column.rate("loop_turns"),
                    "starved_s": column.rate("ring_starved"),
                    "overflows": column.value("ring_overflows"),
                    "draining": column.value("draining"),
                    "epoch": column.value("epoch"),
                })
            })
            .collect()
    }

    fn cluster_rows(&self, before: &Sample, status: &Status, seconds: f64) -> Vec<Value> {
        let snapshot = status.snapshot();
        // Positions mean the same endpoints only within one snapshot.
        let same = self.epoch == before.epoch
            && snapshot
                .as_ref()
                .is_some_and(|snapshot| snapshot.epoch.0 == self.epoch);
        let live = status.live();
        let clusters = view::clusters_of(snapshot.as_ref()).iter().enumerate();
        clusters
            .map(|(c, cluster)| {
                let endpoints = cluster.endpoints.iter().take(ENDPOINTS_SHOWN).enumerate();
                let rows: Vec<Value> = endpoints
                    .map(|(e, endpoint)| {
                        let values = |sample: &Sample| {
                            let found = sample.endpoints.get(c).and_then(|all| all.get(e)).cloned();
                            found.filter(|_| same).unwrap_or_default()
                        };
                        let mut row = endpoint_row(&values(self), &values(before), seconds);
                        row.insert("address".into(), json!(endpoint.address.to_string()));
                        row.insert("weight".into(), json!(endpoint.weight));
                        let available = view::is_available(&live, cluster, endpoint.address);
                        row.insert("available".into(), json!(available));
                        let health = live.health.get(&(cluster.name.clone(), endpoint.address));
                        row.insert("check".into(), json!(health.map(|h| &h.last)));
                        Value::Object(row)
                    })
                    .collect();
                json!({
                    "name": &*cluster.name,
                    "endpoints": rows,
                    "endpoints_hidden": cluster.endpoints.len().saturating_sub(ENDPOINTS_SHOWN),
                    "dns_error": live.dns_errors.get(&cluster.name),
                })
            })
            .collect()
    }
}

fn endpoint_row(now: &[u64], then: &[u64], seconds: f64) -> Map<String, Value> {
    let delta = |name: &str| {
        let at = EndpointCounters::METRICS
            .iter()
            .position(|info| info.name == name);
        let value = |row: &[u64]| at.and_then(|at| row.get(at).copied()).unwrap_or(0);
        (value(now), value(now).saturating_sub(value(then)))
    };
    let failed: u64 = EndpointCounters::METRICS
        .iter()
        .filter(|info| info.name.starts_with("failed_"))
        .map(|info| delta(info.name).1)
        .sum();
    let mut row = Map::new();
    row.insert(
        "requests_s".into(),
        json!(delta("requests").1 as f64 / seconds),
    );
    row.insert("failed_s".into(), json!(failed as f64 / seconds));
    row.insert("requests_active".into(), json!(delta("requests_active").0));
    row.insert(
        "connections_open".into(),
        json!(delta("connections_open").0),
    );
    row
}

/// Two readings of one shard's slab.
struct Columns<'a> {
    now: &'a [u64],
    then: &'a [u64],
    seconds: f64,
}

impl Columns<'_> {
    fn value(&self, name: &str) -> u64 {
        column(self.now, name)
    }

    fn rate(&self, name: &str) -> f64 {
        column(self.now, name).saturating_sub(column(self.then, name)) as f64 / self.seconds
    }
}

fn column(values: &[u64], name: &str) -> u64 {
    let position = ShardCounters::METRICS
        .iter()
        .position(|info| info.name == name);
    debug_assert!(position.is_some(), "no counter `{name}`");
    position.and_then(|at| values.get(at).copied()).unwrap_or(0)
}

/// The buckets that hold something: position and count. Position `i` is bucket `i` of the histogram.
fn heat(counts: &HistogramCounts) -> Value {
    let filled = counts
        .buckets
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0);
    Value::Array(filled.map(|(i, count)| json!([i, count])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an event holds rates of what happened between two samples. Method: count in between.
    #[test]
    fn events_hold_rates() {
        let status = Status::new(vec![Some(3)]);
        let before = Sample::take(&status);
        for shard in status.counters.iter() {
            shard.requests.add(10);
            shard.refuse(Reason::NoRoute);
            shard.phase(Phase::Total, 300);
        }
        let mut now = Sample::take(&status);
        now.at = before.at + Duration::from_secs(2);
        let event = now.since(&before, &status);
        let shard = event.pointer("/shards/0").cloned().unwrap_or_default();
        assert_eq!(shard.get("requests_s"), Some(&json!(5.0)));
        assert_eq!(shard.get("cpu"), Some(&json!(3)));
        assert_eq!(event.get("refused"), Some(&json!({ "no_route": 1 })));
        assert_eq!(event.pointer("/total/count"), Some(&json!(1)));
        assert_eq!(event.pointer("/heat/0/1"), Some(&json!(1)));
    }

    /// Goal: every name asked for is a counter. Method: rows over zeros; `column` asserts.
    #[test]
    fn names_are_counters() {
        let status = Status::new(vec![None]);
        let sample = Sample::take(&status);
        assert_eq!(sample.shard_rows(&sample, &status, 1.0).len(), 1);
    }
}
