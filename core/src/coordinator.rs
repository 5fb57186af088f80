//! What the coordinator decides, as a pure state machine: reports in, orders out, time as an argument.
//!
//! It knows the results of health checks, what DNS says, and which epoch each shard uses. The thread
//! around it does the probing, the look-ups and the sending; limiter and healing will be decided here
//! too.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    config::model::HealthCheck,
    healing::probe::Checker,
    id::{ClusterId, EndpointId, Epoch, ShardId},
    message::Availability,
    snapshot::{Resolution, Snapshot},
};

/// Something that happened since the last tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// An endpoint was probed.
    Probed {
        /// Name of its cluster.
        cluster: Arc<str>,
        /// Its address.
        address: SocketAddr,
        /// Whether it passed.
        succeeded: bool,
    },
    /// A name was looked up. A failed look-up is not reported: the last good answer stays.
    Resolved {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// All its addresses. None at all changes nothing.
        addresses: Vec<SocketAddr>,
    },
    /// A shard uses this epoch.
    Acknowledged {
        /// The shard.
        shard: ShardId,
        /// The epoch in use.
        epoch: Epoch,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Tell every shard.
    Health {
        /// The epoch that the ids belong to.
        epoch: Epoch,
        /// Endpoint and whether it may be chosen.
        verdicts: Vec<(ClusterId, EndpointId, Availability)>,
    },
    /// Addresses changed: compile a snapshot with [`Coordinator::resolution`] and install it.
    Recompile,
    /// Every shard uses this epoch.
    Applied {
        /// The epoch.
        epoch: Epoch,
        /// The time since it was installed (S14).
        after: Duration,
    },
}

/// The state between ticks.
#[derive(Debug)]
pub struct Coordinator {
    /// The snapshot that shards were told to use, and when.
    installed: Option<(Arc<Snapshot>, Duration)>,
    /// By shard: the epoch in use.
    epochs: Vec<Epoch>,
    /// Whether [`Order::Applied`] is still owed for the installed epoch.
    applying: bool,
    /// By name of cluster and address.
    health: BTreeMap<(Arc<str>, SocketAddr), Checker>,
    /// Endpoints whose verdict shards have to be told.
    untold: BTreeSet<(Arc<str>, SocketAddr)>,
    resolution: Resolution,
}

impl Coordinator {
    /// A coordinator of `shards` shards.
    pub fn new(shards: usize) -> Self {
        Coordinator {
            installed: None,
            epochs: vec![Epoch::default(); shards],
            applying: false,
            health: BTreeMap::new(),
            untold: BTreeSet::new(),
            resolution: Resolution::new(),
        }
    }

    /// Shards were told to use `snapshot`. What is known of the health of its endpoints is told again at
    /// the next tick, since verdicts belong to an epoch.
    pub fn installed(&mut self, snapshot: Arc<Snapshot>, now: Duration) {
        let mut before = std::mem::take(&mut self.health);
        self.untold.clear();
        for cluster in &snapshot.clusters {
            for endpoint in &cluster.endpoints {
                let key = (Arc::clone(&cluster.name), endpoint.address);
                let known = before.remove(&key);
                if known.is_some() {
                    // Also where it is no longer checked: it may have to come back.
                    self.untold.insert(key.clone());
                }
                if let Some(check) = &cluster.config.health {
                    self.health.insert(key, checker(known, check));
                }
            }
        }
        let dns = |name: &Arc<str>| snapshot.config.clusters.contains_key(name);
        self.resolution.retain(|name, _| dns(name));
        self.installed = Some((snapshot, now));
        self.applying = true;
    }

    /// Takes what happened and says what to do.
    pub fn tick(&mut self, now: Duration, reports: impl IntoIterator<Item = Report>) -> Vec<Order> {
        let mut recompile = false;
        for report in reports {
            match report {
                Report::Probed {
                    cluster,
                    address,
                    succeeded,
                } => self.probed((cluster, address), succeeded),
                Report::Resolved { cluster, addresses } => {
                    recompile |= self.resolved(cluster, addresses);
                }
                Report::Acknowledged { shard, epoch } => {
                    if let Some(entry) = self.epochs.get_mut(shard.index()) {
                        *entry = (*entry).max(epoch);
                    }
                }
            }
        }
        let orders = [
            self.applied(now),
            self.verdicts(),
            recompile.then_some(Order::Recompile),
        ];
        orders.into_iter().flatten().collect()
    }

    /// What DNS said last, for [`Snapshot::compile`].
    pub fn resolution(&self) -> &Resolution {
        &self.resolution
    }

    /// By shard: the epoch in use.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    fn probed(&mut self, key: (Arc<str>, SocketAddr), succeeded: bool) {
        // One that is not known was removed while its probe was under way.
        let Some(checker) = self.health.get_mut(&key) else {
            return;
        };
        if checker.record(succeeded).is_some() {
            self.untold.insert(key);
        }
    }

    fn resolved(&mut self, cluster: Arc<str>, mut addresses: Vec<SocketAddr>) -> bool {
        // Name servers rotate their answers: order and repeats are no change.
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() || self.resolution.get(&cluster) == Some(&addresses) {
            return false;
        }
        self.resolution.insert(cluster, addresses);
        true
    }

    fn applied(&mut self, now: Duration) -> Option<Order> {
        let (snapshot, since) = self.installed.as_ref()?;
        let epoch = snapshot.epoch;
        if !self.applying || self.epochs.iter().any(|e| *e < epoch) {
            return None;
        }
        self.applying = false;
        let after = now.saturating_sub(*since);
        Some(Order::Applied { epoch, after })
    }

    /// Verdicts to be told, all in one order.
    fn verdicts(&mut self) -> Option<Order> {
        let (snapshot, _) = self.installed.as_ref()?;
        let health = &self.health;
        let verdicts: Vec<_> = std::mem::take(&mut self.untold)
            .into_iter()
            .filter_map(|key| {
                let cluster = snapshot.cluster_by_name(&key.0)?;
                let mut endpoints = cluster.endpoints.iter();
                let endpoint = endpoints.find(|e| e.address == key.1)?;
                let verdict = health.get(&key).map(Checker::verdict);
                let verdict = verdict.unwrap_or(Availability::Available);
                Some((cluster.id, endpoint.id, verdict))
            })
            .collect();
        (!verdicts.is_empty()).then_some(Order::Health {
            epoch: snapshot.epoch,
            verdicts,
        })
    }
}

fn checker(known: Option<Checker>, check: &HealthCheck) -> Checker {
    let Some(mut known) = known else {
        return Checker::new(check);
    };
    known.set_thresholds(check);
    known
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        config::model::{
            Balance, Circuit, Cluster, Config, Endpoints, Limits, Node, Probe, Ring, Shards,
            StaticEndpoint,
        },
        snapshot::Snapshot,
    };

    const NOW: Duration = Duration::from_secs(100);

    fn snapshot(epoch: u64, addresses: &[&str], checked: bool) -> Arc<Snapshot> {
        let endpoints = addresses
            .iter()
            .map(|address| StaticEndpoint::new(address.parse().unwrap(), 1));
        let second = Duration::from_secs(1);
        let cluster = Cluster {
            endpoints: Endpoints::Static(endpoints.collect()),
            balance: Balance::RoundRobin,
            slow_start: Duration::ZERO,
            connect_timeout: second,
            idle_timeout: second,
            idle_connections: 1,
            requests_per_connection: None,
            circuit: Circuit::default(),
            health: checked.then_some(HealthCheck {
                probe: Probe::Tcp,
                interval: second,
                timeout: second,
                healthy_after: 2,
                unhealthy_after: 2,
            }),
            proxy_protocol: None,
            tls: None,
            max_connection_age: None,
        };
        let config = Config {
            node: Node::default(),
            shards: Shards {
                cpus: Vec::new(),
                count: None,
                ring: Ring::default(),
            },
            admin: None,
            access_log: None,
            limits: Limits::default(),
            drain_timeout: second,
            listeners: BTreeMap::new(),
            clusters: BTreeMap::from([("c".into(), cluster)]),
            secrets: BTreeMap::new(),
        };
        let none = Resolution::new();
        Arc::new(Snapshot::compile(
            Arc::new(config),
            &none,
            None,
            2,
            Epoch(epoch),
        ))
    }

    fn probed(address: &str, succeeded: bool) -> Report {
        Report::Probed {
            cluster: "c".into(),
            address: address.parse().unwrap(),
            succeeded,
        }
    }

    fn health(epoch: u64, verdicts: &[(u32, Availability)]) -> Order {
        let ids = verdicts
            .iter()
            .map(|(e, v)| (ClusterId(0), EndpointId(*e), *v));
        Order::Health {
            epoch: Epoch(epoch),
            verdicts: ids.collect(),
        }
    }

    const A: &str = "10.0.0.1:80";
    const B: &str = "10.0.0.2:80";
    use Availability::{Available, Unavailable};

    /// Goal: changed verdicts are told once, together, and again under a new epoch with new ids.
    /// Method: two endpoints fail, the snapshot is replaced by one where one of them moved.
    #[test]
    fn verdicts_follow_the_epoch() {
        let mut coordinator = Coordinator::new(0);
        coordinator.installed(snapshot(1, &[A, B], true), NOW);
        let applied = |epoch| Order::Applied {
            epoch: Epoch(epoch),
            after: Duration::ZERO,
        };
        assert_eq!(
            coordinator.tick(NOW, [probed(A, false), probed(B, false)]),
            [applied(1), health(1, &[(0, Unavailable), (1, Unavailable)])]
        );
        assert_eq!(
            coordinator.tick(NOW, [probed(A, true), probed(B, false)]),
            []
        );
        assert_eq!(
            coordinator.tick(NOW, [probed(A, true), probed("10.9.9.9:1", true)]),
            [health(1, &[(0, Available)])]
        );
        coordinator.installed(snapshot(2, &[B], true), NOW);
        assert_eq!(
            coordinator.tick(NOW, []),
            [applied(2), health(2, &[(0, Unavailable)])]
        );
        // Checks are switched off: the endpoint comes back.
        coordinator.installed(snapshot(3, &[B], false), NOW);
        assert_eq!(
            coordinator.tick(NOW, []),
            [applied(3), health(3, &[(0, Available)])]
        );
        assert_eq!(coordinator.tick(NOW, [probed(B, false)]), []);
    }

    /// Goal: an epoch is applied when the last shard uses it, and the time is measured (S14). Method:
    /// two shards acknowledge at different times, one of them late for another epoch.
    #[test]
    fn epoch_is_applied_by_the_last_shard() {
        let acknowledged = |shard, epoch| Report::Acknowledged {
            shard: ShardId(shard),
            epoch: Epoch(epoch),
        };
        let mut coordinator = Coordinator::new(2);
        coordinator.installed(snapshot(5, &[A], true), NOW);
        assert_eq!(
            coordinator.tick(NOW, [acknowledged(0, 5), acknowledged(1, 4)]),
            []
        );
        let later = NOW + Duration::from_millis(7);
        assert_eq!(
            coordinator.tick(later, [acknowledged(1, 5), acknowledged(9, 5)]),
            [Order::Applied {
                epoch: Epoch(5),
                after: Duration::from_millis(7)
            }]
        );
        assert_eq!(coordinator.tick(later, [acknowledged(1, 5)]), []);
        assert_eq!(coordinator.epochs(), [Epoch(5), Epoch(5)]);
    }

    /// Goal: only a real change of addresses asks for a snapshot. Method: rotated, repeated and empty
    /// answers between two that differ.
    #[test]
    fn resolution_changes_are_told_once() {
        let resolved = |addresses: &[&str]| Report::Resolved {
            cluster: "c".into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        };
        let mut coordinator = Coordinator::new(1);
        assert_eq!(
            coordinator.tick(NOW, [resolved(&[B, A])]),
            [Order::Recompile]
        );
        assert_eq!(
            coordinator.tick(NOW, [resolved(&[A, B, A]), resolved(&[])]),
            []
        );
        assert_eq!(coordinator.resolution().get("c").unwrap().len(), 2);
        assert_eq!(coordinator.tick(NOW, [resolved(&[A])]), [Order::Recompile]);
    }
}
