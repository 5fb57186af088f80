//! Metrics of self-healing, by cluster (H3, H10, H11).

use std::collections::BTreeMap;

use tidegate_core::healing::ejection::State;
use tidegate_xds::healing::client::Status as CenterStatus;

use super::{Family, Sample};
use crate::{admin::healing::word, healing::ClusterHealing, status::Status};

/// Of clusters that heal; none of the others.
pub(super) fn families() -> Vec<Family> {
    let family = Family::labelled;
    vec![
        family(
            "tidegate_healing_ejections_total",
            "counter",
            "Endpoints taken out for what their calls came to, by cluster and cause; in shadow, that would have been.",
            &["cluster", "cause"],
            |status| by_word(status, |cluster| &cluster.ejections),
        ),
        family(
            "tidegate_healing_kept_in_total",
            "counter",
            "Sick endpoints that were kept in, by cluster and what kept them.",
            &["cluster", "guard"],
            |status| by_word(status, |cluster| &cluster.kept_in),
        ),
        family(
            "tidegate_healing_recoveries_total",
            "counter",
            "Endpoints that came back, by cluster.",
            &["cluster"],
            |status| {
                each(status, |name, cluster| {
                    vec![(vec![name], cluster.recoveries as f64)]
                })
            },
        ),
        family(
            "tidegate_healing_endpoints",
            "gauge",
            "Endpoints of clusters that heal, by cluster and state.",
            &["cluster", "state"],
            |status| each(status, states),
        ),
        family(
            "tidegate_center_connected",
            "gauge",
            "1 while the healing center has a stream of this proxy; not there without a center.",
            &[],
            |status| reporting(status, |center| u64::from(center.center.is_some())),
        ),
        family(
            "tidegate_center_reports_waiting",
            "gauge",
            "Reports that the healing center has not acknowledged.",
            &[],
            |status| reporting(status, |center| center.waiting as u64),
        ),
        family(
            "tidegate_center_reports_dropped_total",
            "counter",
            "Reports dropped since too many waited for the healing center.",
            &[],
            |status| reporting(status, |center| center.counts.dropped),
        ),
    ]
}

fn reporting(status: &Status, value: impl Fn(&CenterStatus) -> u64) -> Vec<Sample> {
    let live = status.live();
    let center = live.center.iter();
    center
        .map(|center| (Vec::new(), value(&center.borrow()) as f64))
        .collect()
}

fn each(status: &Status, samples: impl Fn(String, &ClusterHealing) -> Vec<Sample>) -> Vec<Sample> {
    let live = status.live();
    let clusters = live.healing.clusters.iter();
    clusters
        .flat_map(|(name, cluster)| samples(name.to_string(), cluster))
        .collect()
}

fn by_word(
    status: &Status,
    totals: impl Fn(&ClusterHealing) -> &BTreeMap<&'static str, u64>,
) -> Vec<Sample> {
    each(status, |name, cluster| {
        let totals = totals(cluster).iter();
        totals
            .map(|(word, total)| (vec![name.clone(), (*word).to_owned()], *total as f64))
            .collect()
    })
}

fn states(name: String, cluster: &ClusterHealing) -> Vec<Sample> {
    let (until, mut samples) = (Default::default(), Vec::new());
    for state in [
        State::Healthy,
        State::Suspect,
        State::Ejected { until },
        State::Probation { until },
    ] {
        let nodes = cluster.nodes.iter();
        let count = nodes.filter(|node| word(node.state) == word(state)).count();
        samples.push((vec![name.clone(), word(state).to_owned()], count as f64));
    }
    samples
}
