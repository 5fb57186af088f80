//! What self-healing found and did, kept for those who look: where every endpoint stands, the last events, and
//! totals.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use tidegate_core::{
    config::model::PolicyMode,
    coordinator::Healing as Order,
    healing::{
        ejection::{Cause, Event, Guard, State},
        ward::{NodeView, Ward},
    },
};

/// Events that are kept: hours of a bad day, in 50 KiB.
pub(crate) const EVENTS_MAX: usize = 256;

/// All clusters that heal.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    /// By name.
    pub(crate) clusters: BTreeMap<Arc<str>, ClusterHealing>,
    /// The last events, the newest first.
    pub(crate) events: VecDeque<Noted>,
}

/// One cluster.
#[derive(Debug)]
pub(crate) struct ClusterHealing {
    /// Whether what is found is acted on.
    pub(crate) mode: PolicyMode,
    /// By which section of the file endpoints are judged.
    pub(crate) judged_by: &'static str,
    /// In the order of the snapshot.
    pub(crate) nodes: Vec<NodeView>,
    /// Ejections by [`Cause`].
    pub(crate) ejections: BTreeMap<&'static str, u64>,
    /// Sick endpoints that were kept in, by [`Guard`].
    pub(crate) kept_in: BTreeMap<&'static str, u64>,
    /// Endpoints that came back.
    pub(crate) recoveries: u64,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Noted {
    /// When, in milliseconds since the Unix epoch.
    pub(crate) unix_ms: u64,
    /// Name of the cluster.
    pub(crate) cluster: Arc<str>,
    /// The endpoint.
    pub(crate) address: SocketAddr,
    /// What.
    pub(crate) event: Event,
    /// Whether it was acted on.
    pub(crate) enforced: bool,
}

impl Healing {
    /// Takes an event.
    pub(crate) fn note(&mut self, order: &Order, unix_ms: u64) {
        let cluster = self
            .clusters
            .entry(order.cluster.clone())
            .or_insert_with(ClusterHealing::unseen);
        match order.event {
            Event::Ejected { cause, .. } => {
                *cluster.ejections.entry(cause.word()).or_default() += 1
            }
            Event::Suspected { guard, .. } => {
                *cluster.kept_in.entry(guard.word()).or_default() += 1
            }
            Event::Recovered { .. } => cluster.recoveries += 1,
            Event::Probation { .. } => {}
        }
        self.events.truncate(EVENTS_MAX - 1);
        self.events.push_front(Noted {
            unix_ms,
            cluster: order.cluster.clone(),
            address: order.address,
            event: order.event,
            enforced: order.enforced,
        });
    }

    /// Takes where everyone stands. Clusters that heal no more are forgotten, totals and all.
    pub(crate) fn show(&mut self, wards: &BTreeMap<Arc<str>, Ward>) {
        self.clusters.retain(|name, _| wards.contains_key(name));
        for (name, ward) in wards {
            let cluster = self
                .clusters
                .entry(name.clone())
                .or_insert_with(ClusterHealing::unseen);
            cluster.mode = ward.heal().mode;
            cluster.judged_by = ward.heal().section();
            cluster.nodes.clear();
            cluster.nodes.extend(ward.nodes());
        }
    }
}

impl Healing {
    /// The endpoints of a cluster that are taken out by what their calls say; none of one that is only watched, or not
    /// at all.
    pub(crate) fn nodes(&self, cluster: &str) -> BTreeMap<SocketAddr, &NodeView> {
        let cluster = self.clusters.get(cluster);
        let enforced = cluster.filter(|cluster| cluster.mode == PolicyMode::Enforce);
        let nodes = enforced.iter().flat_map(|cluster| &cluster.nodes);
        nodes.map(|node| (node.address, node)).collect()
    }
}

/// Whether an endpoint in this state takes no requests but a trial.
pub(crate) const fn is_out(state: State) -> bool {
    matches!(state, State::Ejected { .. } | State::Probation { .. })
}

impl ClusterHealing {
    /// Every total at zero: a series that begins with its first event has no rate.
    fn unseen() -> ClusterHealing {
        let zeros = |words: &[&'static str]| words.iter().map(|word| (*word, 0)).collect();
        ClusterHealing {
            ejections: zeros(&Cause::ALL.map(Cause::word)),
            kept_in: zeros(&Guard::ALL.map(Guard::word)),
            mode: PolicyMode::default(),
            judged_by: "",
            nodes: Vec::new(),
            recoveries: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a storm of events grows nothing. Method: at the limit, and one above.
    #[test]
    fn events_have_a_limit() {
        let mut healing = Healing::default();
        let order = |port| Order {
            cluster: "c".into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            event: Event::Recovered { node: 0 },
            enforced: true,
        };
        for port in 0..=EVENTS_MAX as u16 {
            healing.note(&order(port), 0);
            assert_eq!(
                healing.events.len(),
                (usize::from(port) + 1).min(EVENTS_MAX)
            );
        }
        let newest = healing.events.front().map(|noted| noted.address.port());
        assert_eq!(newest, Some(EVENTS_MAX as u16));
    }
}
