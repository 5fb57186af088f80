//! How load goes over a cluster's priorities, zones and subsets, as the coordinator knows its endpoints. Shards may know
//! more for a tick: they take out by themselves what fails in a row.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_core::{
    balancer::priority::{Health, loads},
    snapshot::{Cluster, Endpoint},
};

/// Priorities with their loads.
pub(super) fn priorities(cluster: &Cluster, is_healthy: impl Fn(&Endpoint) -> bool) -> Value {
    let mut levels = BTreeMap::<u32, Health>::new();
    for endpoint in &cluster.endpoints {
        let level = levels.entry(endpoint.priority).or_default();
        level.endpoints += 1;
        level.available += u32::from(is_healthy(endpoint));
    }
    let health: Vec<Health> = levels.values().copied().collect();
    let failover = &cluster.config.failover;
    let loads = loads(&health, failover.overprovisioning, failover.panic_threshold);
    let views = levels.iter().zip(loads).map(|((priority, health), load)| {
        json!({
            "priority": priority,
            "endpoints": health.endpoints,
            "healthy": health.available,
            "load_percent": load.percent,
            "panic": load.panics,
        })
    });
    views.collect()
}

/// Subsets with the number of their endpoints.
pub(super) fn subsets(cluster: &Cluster) -> Value {
    let subsets = cluster.subsets.iter();
    subsets
        .map(|(labels, endpoints)| {
            let labels = labels
                .iter()
                .map(|(key, value)| (key.to_string(), json!(**value)));
            let labels: serde_json::Map<String, Value> = labels.collect();
            json!({ "labels": labels, "endpoints": endpoints.len() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_core::{
        config,
        id::Epoch,
        snapshot::{Resolution, Snapshot},
    };

    use super::*;

    /// Goal: the view says where load goes, and which subsets there are. Method: half of the first priority is out.
    #[test]
    fn loads_and_subsets_are_shown() {
        let text = "
version: 1
clusters:
  app:
    endpoints:
      static:
        - { address: 10.0.0.1:80, labels: { version: a } }
        - { address: 10.0.0.2:80, labels: { version: b } }
        - { address: 10.0.0.3:80, labels: { version: b }, priority: 1 }
    subsets: { selectors: [ { keys: [version] } ] }
";
        let Ok((config, _)) = config::parse("test", text) else {
            unreachable!("the text is in the format")
        };
        let snapshot = Snapshot::compile(Arc::new(config), &Resolution::new(), None, 1, Epoch(1));
        let Some(cluster) = snapshot.cluster_by_name("app") else {
            unreachable!("it is in the text")
        };
        let is_healthy = |endpoint: &Endpoint| endpoint.id.0 != 0;
        assert_eq!(
            priorities(cluster, is_healthy),
            json!([
                { "priority": 0, "endpoints": 2, "healthy": 1, "load_percent": 70, "panic": false },
                { "priority": 1, "endpoints": 1, "healthy": 1, "load_percent": 30, "panic": false },
            ])
        );
        assert_eq!(
            subsets(cluster),
            json!([
                { "labels": { "version": "a" }, "endpoints": 1 },
                { "labels": { "version": "b" }, "endpoints": 2 },
            ])
        );
    }
}
