//! Priorities, zones and subsets, in words of the file.

use super::*;
use crate::config::model::{Labels, Subsets};

/// `failover`, `zone_weights` and `subsets`.
pub(super) fn put(object: &mut Object, cluster: &Cluster) {
    let mut failover = Object::default();
    failover.put(
        "overprovisioning_percent",
        cluster.failover.overprovisioning,
    );
    failover.put("panic_percent", cluster.failover.panic_threshold);
    object.put("failover", failover);
    if let (true, Endpoints::Static(endpoints)) = (cluster.failover.by_locality, &cluster.endpoints)
    {
        let weighted = endpoints
            .iter()
            .filter(|endpoint| endpoint.locality.weight > 0);
        let weights = weighted.map(|e| (e.zone.to_string(), json!(e.locality.weight)));
        object.put("zone_weights", Object(weights.collect()));
    }
    object.put_opt("subsets", cluster.subsets.as_deref().map(subsets));
}

fn subsets(subsets: &Subsets) -> Object {
    let selectors = subsets.selectors.iter().map(|selector| {
        let mut object = Object::default();
        object.put("keys", texts(&selector.keys));
        object.put_opt(
            "fallback",
            selector.fallback.map(|fallback| fallback.word()),
        );
        Value::from(object)
    });
    let mut object = Object::default();
    object.put("selectors", selectors.collect::<Vec<_>>());
    object.put("fallback", subsets.fallback.word());
    object.put_filled("default", labels(&subsets.default));
    object.put("zone_weights", subsets.by_locality);
    object
}

/// `to` or `split`.
pub(super) fn put_destinations(object: &mut Object, to: &[WeightedCluster]) {
    if to.iter().any(|to| !to.subset.is_empty()) {
        let split = to.iter().map(|to| {
            let mut object = Object::default();
            object.put("to", &*to.cluster);
            object.put("share", format_share(to.share));
            object.put_filled("subset", labels(&to.subset));
            Value::from(object)
        });
        return object.put("split", split.collect::<Vec<_>>());
    }
    if let [only] = to {
        return object.put("to", &*only.cluster);
    }
    let split = to
        .iter()
        .map(|to| (to.cluster.to_string(), format_share(to.share).into()));
    object.put("split", Value::Object(split.collect()));
}

fn labels(labels: &Labels) -> Object {
    tls::labels(labels)
}
