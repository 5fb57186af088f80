//! Metrics of adaptive limiting, by cluster, and by interface and priority (L10).

use tidegate_core::limiter::{
    Priority,
    application::UnitStatus,
    watermark::{Phase, Signal},
};

use super::{Family, Sample};
use crate::{limits::ClusterLimits, status::Status};

/// Of clusters that are limited; none of the others.
pub(super) fn families() -> Vec<Family> {
    let family = Family::labelled;
    let interface: &[&str] = &["cluster", "interface", "priority"];
    vec![
        family(
            "tidegate_limits_watermark",
            "gauge",
            "How full the machine is, by cluster: the largest signal over its target; 1 is the watermark.",
            &["cluster"],
            |status| clusters(status, |c| c.reading.watermark),
        ),
        family(
            "tidegate_limits_overloaded",
            "gauge",
            "1 while the machine is overloaded, by cluster.",
            &["cluster"],
            |status| clusters(status, |c| f64::from(c.phase == Phase::Overloaded)),
        ),
        family(
            "tidegate_limits_overloads_total",
            "counter",
            "Overloads that began, by cluster.",
            &["cluster"],
            |status| clusters(status, |c| c.overloads as f64),
        ),
        family(
            "tidegate_limits_signal",
            "gauge",
            "What was measured over its target, by cluster and signal; a signal that cannot be measured is not there.",
            &["cluster", "signal"],
            signals,
        ),
        family(
            "tidegate_interface_limit",
            "gauge",
            "Requests in flight that an interface may have over all shards; without limit it is not there.",
            interface,
            |status| units(status, |unit| unit.view.limit.map(f64::from)),
        ),
        family(
            "tidegate_interface_baseline",
            "gauge",
            "Requests of an interface in flight while the machine was well, and a tenth more: where a limit begins.",
            interface,
            |status| units(status, |unit| Some(unit.view.baseline)),
        ),
        family(
            "tidegate_limits_by_hand",
            "gauge",
            "Limits that operators have set, in requests in flight over all shards, by cluster, interface and priority; an \
             empty label stands for all.",
            interface,
            by_hand,
        ),
        family(
            "tidegate_interface_in_flight",
            "gauge",
            "Requests of an interface in flight.",
            interface,
            |status| units(status, |unit| Some(unit.view.in_flight)),
        ),
        family(
            "tidegate_interface_failed_total",
            "counter",
            "Requests of an interface without an answer, or with one of 5xx.",
            interface,
            |status| units(status, |unit| Some(unit.failed as f64)),
        ),
        family(
            "tidegate_interface_cpu",
            "gauge",
            "CPUs that an interface keeps busy, where the application says so in its answers (ORCA).",
            interface,
            |status| units(status, |unit| Some(unit.view.cpu).filter(|cpu| *cpu > 0.0)),
        ),
        family(
            "tidegate_interface_refused_total",
            "counter",
            "Requests of an interface refused for overload.",
            interface,
            |status| units(status, |unit| Some(unit.refused as f64)),
        ),
        family(
            "tidegate_interface_would_refuse_total",
            "counter",
            "Requests of an interface that would have been refused, where the rule is in shadow.",
            interface,
            |status| units(status, |unit| Some(unit.would_refuse as f64)),
        ),
    ]
}

fn clusters(status: &Status, value: impl Fn(&ClusterLimits) -> f64) -> Vec<Sample> {
    let live = status.live();
    let clusters = live.limits.clusters.iter();
    clusters
        .map(|(name, cluster)| (vec![name.to_string()], value(cluster)))
        .collect()
}

fn signals(status: &Status) -> Vec<Sample> {
    let live = status.live();
    let mut samples = Vec::new();
    for (name, cluster) in &live.limits.clusters {
        for signal in Signal::ALL {
            let target = cluster.rule.policy.targets.get(signal);
            if let Some((value, target)) = cluster.sample.get(signal).zip(target) {
                let labels = vec![name.to_string(), signal.word().to_owned()];
                samples.push((labels, value / target));
            }
        }
    }
    samples
}

fn by_hand(status: &Status) -> Vec<Sample> {
    let live = status.live();
    let mut samples = Vec::new();
    for (name, cluster) in &live.limits.clusters {
        for (whose, limit) in &cluster.by_hand {
            let interface = whose.interface.as_deref().unwrap_or_default();
            let priority = whose.priority.map_or("", Priority::word);
            let labels = vec![name.to_string(), interface.to_owned(), priority.to_owned()];
            samples.push((labels, f64::from(limit.total)));
        }
    }
    samples
}

fn units(status: &Status, value: impl Fn(&UnitStatus) -> Option<f64>) -> Vec<Sample> {
    let live = status.live();
    let mut samples = Vec::new();
    for (name, cluster) in &live.limits.clusters {
        for unit in &cluster.units {
            if let Some(value) = value(unit) {
                let priority = unit.priority.word().to_owned();
                samples.push((
                    vec![name.to_string(), unit.name.to_string(), priority],
                    value,
                ));
            }
        }
    }
    samples
}
