//! What the admin server shows, as JSON: pure functions over [`Status`].

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Map, Value, json};
use tidegate_core::{
    config,
    healing::prior::WHOLE,
    message::Availability,
    reason::Reason,
    snapshot::{Cluster, Endpoint, Protocol, Snapshot},
    stats::{
        EndpointCounters, HistogramCounts, MetricInfo, PerShard, Phase, RouteCounters,
        ShardCounters,
    },
};

use super::balance;
use crate::{
    healing::is_out,
    status::{Live, Status},
};

/// `/server_info`
pub(crate) fn server_info(status: &Status) -> Value {
    let live = status.live();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": status.state().word(),
        "pid": std::process::id(),
        "uptime_s": status.started.elapsed().as_secs(),
        "started_unix_s": status.started_unix_s,
        "shards": status.cpus.len(),
        "admin": live.admin.map(|address| address.to_string()),
        "generation": live.ancestry.generation,
        "started_by": live.ancestry.started_by,
        "upgrade": {
            "under_way": live.ancestry.under_way,
            "last_error": live.ancestry.last_error,
        },
        "config": config_info(&live),
    })
}

fn config_info(live: &Live) -> Value {
    json!({
        "source": live.source.name,
        "fingerprint": format!("{:016x}", live.source.fingerprint),
        "epoch": epoch(live),
        "installed_unix_s": live.source.installed_unix_s,
        "last_error": live.last_error,
    })
}

fn epoch(live: &Live) -> u64 {
    live.snapshot
        .as_ref()
        .map_or(0, |snapshot| snapshot.epoch.0)
}

/// `/config_dump`: the configuration in use as a file would say it, defaults written out, what may be
/// secret redacted; and where each route stands in the file.
pub(crate) fn config_dump(status: &Status) -> Value {
    let live = status.live();
    let snapshot = live.snapshot.as_ref();
    json!({
        "source": config_info(&live),
        "config": snapshot.map(|snapshot| config::to_json(&snapshot.config)),
        "origins": snapshot.map(|snapshot| config::origins(&snapshot.config)),
    })
}

/// `/listeners`
pub(crate) fn listeners(status: &Status) -> Value {
    let live = status.live();
    let Some(snapshot) = &live.snapshot else {
        return json!([]);
    };
    let listener = |l: &tidegate_core::snapshot::Listener| {
        let routes = match &l.protocol {
            Protocol::Http(http) => Some(http.routes.iter().map(route).collect::<Vec<_>>()),
            Protocol::Tcp(_) => None,
        };
        json!({
            "name": &*l.name,
            "protocol": if routes.is_some() { "http" } else { "tcp" },
            "configured": l.bind.to_string(),
            "address": live.bound.get(&l.bind).unwrap_or(&l.bind).to_string(),
            "routes": routes,
        })
    };
    Value::Array(snapshot.listeners.iter().map(listener).collect())
}

fn route(route: &tidegate_core::snapshot::Route) -> Value {
    json!({
        "name": &*route.name,
        "requests": route.counters.sum(|c| c.requests.get()),
        "failed_5xx": route.counters.sum(|c| c.failed_5xx.get()),
    })
}

/// `/clusters`
pub(crate) fn clusters(status: &Status) -> Value {
    let live = status.live();
    let Some(snapshot) = &live.snapshot else {
        return json!([]);
    };
    Value::Array(
        snapshot
            .clusters
            .iter()
            .map(|c| cluster(c, &live))
            .collect(),
    )
}

fn cluster(cluster: &Cluster, live: &Live) -> Value {
    let healing = live.healing.nodes(&cluster.name);
    let is_available = |endpoint: &Endpoint| {
        let health = live.health.get(&(cluster.name.clone(), endpoint.address));
        let healing = healing.get(&endpoint.address).copied();
        let available = health.is_none_or(|h| h.availability == Availability::Available);
        available && healing.is_none_or(|node| !is_out(node.state)) && !endpoint.is_out
    };
    let endpoints: Vec<Value> = cluster
        .endpoints
        .iter()
        .map(|endpoint| {
            let mut view = numbers(EndpointCounters::METRICS, &sum_endpoint(&endpoint.counters));
            view.insert("address".into(), json!(endpoint.address.to_string()));
            view.insert("weight".into(), json!(endpoint.weight));
            let health = live.health.get(&(cluster.name.clone(), endpoint.address));
            let healing = healing.get(&endpoint.address).copied();
            view.insert("available".into(), json!(is_available(endpoint)));
            view.insert("priority".into(), json!(endpoint.priority));
            if cluster.config.failover.by_locality {
                let weight = endpoint.locality.weight;
                view.insert("zone_weight".into(), json!(weight));
            }
            if endpoint.is_out {
                // As the control plane says.
                view.insert("out_of_rotation".into(), json!(true));
            }
            if let Some((share, _)) = live.priors.get(&endpoint.address) {
                // Of its load, as the healing center says.
                view.insert("prior".into(), json!(f64::from(*share) / f64::from(WHOLE)));
            }
            if let Some(node) = healing {
                let cause = node.found.map(|found| found.cause.word());
                view.insert("healing".into(), json!(super::healing::word(node.state)));
                view.insert("healing_cause".into(), json!(cause));
            }
            if let Some(health) = health {
                let check = json!({ "last": health.last, "since_unix_s": health.since_unix_s });
                view.insert("health_check".into(), check);
            }
            Value::Object(view)
        })
        .collect();
    json!({
        "name": &*cluster.name,
        // In HTTP/2 what is active on an endpoint are streams, which share its connections.
        "protocol": cluster.config.protocol.word(),
        "dns_error": live.dns_errors.get(&cluster.name),
        "endpoints": endpoints,
        "priorities": balance::priorities(cluster, is_available),
        "subsets": balance::subsets(cluster),
        "subsets_dropped": cluster.subsets.dropped(),
    })
}

/// `/shards`
pub(crate) fn shards(status: &Status) -> Value {
    let shard = |(id, cpu, counters): (_, Option<usize>, &ShardCounters)| {
        let id: tidegate_core::id::ShardId = id;
        let mut view = numbers(ShardCounters::METRICS, &counters.values());
        view.insert("shard".into(), json!(id.0));
        view.insert("cpu".into(), json!(cpu));
        view.insert(
            "refused".into(),
            refused(|reason| counters.refused.get(reason as usize).map_or(0, |c| c.get())),
        );
        Value::Object(view)
    };
    Value::Array(status.shards().map(shard).collect())
}

/// `/stats`: the sums over the shards.
pub(crate) fn stats(status: &Status) -> Value {
    let mut view = numbers(ShardCounters::METRICS, &sum_shards(&status.counters));
    // The sum of an epoch or of a longest turn says nothing.
    for name in ["epoch", "loop_longest_turn_ns"] {
        view.remove(name);
    }
    let count = |reason: Reason| {
        let one = |shard: &ShardCounters| shard.refused.get(reason as usize).map_or(0, |c| c.get());
        status.counters.sum(one)
    };
    view.insert("refused".into(), refused(count));
    let phases = Phase::ALL
        .iter()
        .map(|phase| (phase.name().to_owned(), quantiles(&status.phase(*phase))));
    view.insert("phases".into(), Value::Object(phases.collect()));
    Value::Object(view)
}

/// Count and quantiles of a histogram, in seconds.
pub(crate) fn quantiles(counts: &HistogramCounts) -> Value {
    let seconds = |q| counts.quantile_ns(q) as f64 / 1e9;
    json!({
        "count": counts.count(),
        "p50_s": seconds(0.5), "p99_s": seconds(0.99), "p999_s": seconds(0.999),
    })
}

/// `/memory`: what the kernel says of this process, in bytes.
pub(crate) fn memory() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| kib_field(&status, name).map(|kib| kib * 1024);
    json!({
        "resident_bytes": field("VmRSS"),
        "resident_bytes_max": field("VmHWM"),
        "virtual_bytes": field("VmSize"),
        "locked_bytes": field("VmLck"),
        "threads": plain_field(&status, "Threads"),
    })
}

/// Everything, for a dump of the state into the log.
pub(crate) fn dump(status: &Status) -> Value {
    json!({
        "server": server_info(status),
        "memory": memory(),
        "listeners": listeners(status),
        "clusters": clusters(status),
        "shards": shards(status),
    })
}

/// Refusals that happened, by word.
fn refused(count: impl Fn(Reason) -> u64) -> Value {
    let counted = Reason::ALL
        .iter()
        .map(|reason| (reason.word().to_owned(), count(*reason)))
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| (word, json!(count)));
    Value::Object(counted.collect())
}

fn numbers(metrics: &[MetricInfo], values: &[u64]) -> Map<String, Value> {
    let named = metrics.iter().zip(values);
    named
        .map(|(info, value)| (info.name.to_owned(), json!(value)))
        .collect()
}

/// The counters of one endpoint, summed over the shards.
pub(crate) fn sum_endpoint(counters: &Arc<PerShard<EndpointCounters>>) -> Vec<u64> {
    add(
        EndpointCounters::METRICS.len(),
        counters.iter().map(EndpointCounters::values),
    )
}

/// The counters of one route, summed over the shards.
pub(crate) fn sum_route(counters: &PerShard<RouteCounters>) -> Vec<u64> {
    let rows = counters.iter().map(RouteCounters::values);
    add(RouteCounters::METRICS.len(), rows)
}

/// The counters of a cluster: the sum over its endpoints.
pub(crate) fn sum_cluster(cluster: &Cluster) -> Vec<u64> {
    let endpoints = cluster.endpoints.iter().map(|e| sum_endpoint(&e.counters));
    add(EndpointCounters::METRICS.len(), endpoints)
}

fn sum_shards(counters: &PerShard<ShardCounters>) -> Vec<u64> {
    add(
        ShardCounters::METRICS.len(),
        counters.iter().map(ShardCounters::values),
    )
}

fn add(width: usize, rows: impl Iterator<Item = Vec<u64>>) -> Vec<u64> {
    let mut sum = vec![0; width];
    for row in rows {
        for (into, value) in sum.iter_mut().zip(row) {
            *into += value;
        }
    }
    sum
}

/// A line `Name:  123 kB` of `/proc/self/status`.
pub(crate) fn kib_field(status: &str, name: &str) -> Option<u64> {
    plain_field(status, name)
}

fn plain_field(status: &str, name: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
}

/// Whether an endpoint may be chosen, as far as active checks know.
pub(crate) fn is_available(live: &Live, cluster: &Cluster, address: SocketAddr) -> bool {
    live.health
        .get(&(cluster.name.clone(), address))
        .is_none_or(|health| health.availability == Availability::Available)
}

/// The clusters of the snapshot in use.
pub(crate) fn clusters_of(snapshot: Option<&Arc<Snapshot>>) -> &[Cluster] {
    snapshot.map_or(&[], |snapshot| &snapshot.clusters)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    /// Goal: a process without a configuration answers too. Method: every view of a fresh status.
    #[test]
    fn views_of_a_starting_process() {
        let status = Status::new(vec![Some(0), None]);
        assert_eq!(listeners(&status), json!([]));
        assert_eq!(clusters(&status), json!([]));
        assert_eq!(server_info(&status)["state"], "starting");
        assert_eq!(config_dump(&status)["config"], Value::Null);
        assert_eq!(shards(&status).as_array().map(Vec::len), Some(2));
        assert!(dump(&status).is_object());
    }

    /// Goal: sums are over shards, refusals by word. Method: count on two shards.
    #[test]
    fn stats_sum_over_shards() {
        let status = Status::new(vec![None, None]);
        for shard in status.counters.iter() {
            shard.requests.add(2);
            shard.refuse(Reason::NoRoute);
            shard.phase(Phase::Total, 1000);
        }
        let stats = stats(&status);
        assert_eq!(stats["requests"], 4);
        assert_eq!(stats["refused"], json!({ "no_route": 2 }));
        assert_eq!(stats["phases"]["total"]["count"], 2);
        assert!(stats.get("epoch").is_none());
    }

    /// Goal: fields of /proc/self/status are found. Method: a cut of one.
    #[test]
    fn proc_status_fields() {
        let status = "Name:\ttidegate\nVmRSS:\t    5120 kB\nThreads:\t4\n";
        assert_eq!(kib_field(status, "VmRSS"), Some(5120));
        assert_eq!(plain_field(status, "Threads"), Some(4));
        assert_eq!(plain_field(status, "Vm"), None);
    }
}
