//! What the coordinator decides, as a pure state machine: reports in, orders out, time as an argument.
//!
//! It knows the results of health checks, what the calls of endpoints came to, what DNS says, and which
//! epoch each shard uses. The thread around it does the probing, the look-ups and the sending.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

mod hand;

use crate::{
    config::model::{HealthCheck, PolicyMode, Scope},
    healing::{
        directive::Action, ejection::Event, prior::Priors, probe::Checker, report::Overload,
        ward::Ward,
    },
    id::{ClusterId, EndpointId, Epoch, ShardId},
    limiter::{
        application::{Application, Told},
        hand::{Ended, Whose},
        pressure::Pressure,
        watermark::Sample,
    },
    message::Availability,
    snapshot::{Resolution, Snapshot},
};

/// How often the world is looked at (L3, H3).
pub const TICK: Duration = Duration::from_millis(100);

/// Least time between two looks at what calls came to: a tick may be early by a timer's inaccuracy. One that comes
/// earlier, as with an event in between, looks at nothing. One that is late looks at more, and divides by the time
/// that has passed.
const WATCH_PERIOD: Duration = Duration::from_millis(90);

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
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Tell every shard.
    Health {
        /// The epoch that the ids belong to.
        epoch: Epoch,
        /// Endpoint and whether it may be chosen.
        verdicts: Vec<(ClusterId, EndpointId, Availability)>,
    },
    /// Tell operators and the center.
    Healing(Healing),
    /// Tell every shard.
    Priors {
        /// The epoch that the ids belong to.
        epoch: Epoch,
        /// Endpoint and the part of its load that it is to get, in basis points.
        priors: Vec<(ClusterId, EndpointId, u32)>,
    },
    /// Tell the center that the application is over its watermark.
    Overload(Overload),
    /// Tell every shard its limits, and operators.
    Limits {
        /// The epoch that the ids belong to.
        epoch: Epoch,
        /// The cluster.
        cluster: ClusterId,
        /// Its name.
        name: Arc<str>,
        /// What was decided.
        told: Told,
    },
    /// Tell operators that a limit by hand is no more.
    LimitEnded {
        /// Name of the cluster.
        cluster: Arc<str>,
        /// What it was of.
        whose: Whose,
        /// Why.
        why: Ended,
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

/// What was measured since the last tick, by scope.
pub type Samples = BTreeMap<Scope, Sample>;

/// What was found of an endpoint, or became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Healing {
    /// Name of its cluster.
    pub cluster: Arc<str>,
    /// Its address.
    pub address: SocketAddr,
    /// What changed.
    pub event: Event,
    /// Whether it was acted on, or only told.
    pub enforced: bool,
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
    /// By name of cluster: those that heal.
    wards: BTreeMap<Arc<str>, Ward>,
    /// By name of cluster: those that are limited.
    applications: BTreeMap<Arc<str>, Application>,
    pressure: Pressure,
    priors: Priors,
    /// When they were looked at last.
    watched_at: Duration,
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
            wards: BTreeMap::new(),
            applications: BTreeMap::new(),
            pressure: Pressure::default(),
            priors: Priors::default(),
            watched_at: Duration::ZERO,
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
        self.follow_wards(&snapshot);
        self.follow_applications(&snapshot);
        self.priors
            .follow(|address| has_endpoint(&snapshot, address));
        let dns = |name: &Arc<str>| snapshot.config.clusters.contains_key(name);
        self.resolution.retain(|name, _| dns(name));
        self.installed = Some((snapshot, now));
        self.applying = true;
    }

    /// Takes what happened and what was measured, and says what to do; `random` gives 64 random bits.
    pub fn tick(
        &mut self,
        now: Duration,
        samples: &Samples,
        reports: impl IntoIterator<Item = Report>,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Order> {
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
        let mut orders = Vec::new();
        if self.is_due(now) {
            let since = now.saturating_sub(self.watched_at);
            self.watched_at = now;
            self.heal(now, since, random, &mut orders);
            self.limit(now, since, samples, &mut orders);
            let pressure = self.pressure.step(now, &self.applications);
            orders.extend(pressure.map(Order::Overload));
        }
        let others = [
            self.applied(now),
            self.verdicts(),
            self.weights(now),
            recompile.then_some(Order::Recompile),
        ];
        orders.extend(others.into_iter().flatten());
        orders
    }

    /// Whether a tick at `now` looks at what was measured.
    pub fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.watched_at) >= WATCH_PERIOD
    }

    /// The clusters that are limited, by name.
    pub fn applications(&self) -> &BTreeMap<Arc<str>, Application> {
        &self.applications
    }

    /// The clusters that heal, by name.
    pub fn wards(&self) -> &BTreeMap<Arc<str>, Ward> {
        &self.wards
    }

    /// What part of its load an endpoint is to get.
    pub fn priors(&self) -> &Priors {
        &self.priors
    }

    /// Obeys the center, in every cluster that has the endpoint, and has it ejected if that is what it is about.
    /// Whether there is one. `until` is when the directive ends.
    pub fn obey(&mut self, action: &Action, now: Duration, until: Duration) -> bool {
        if let Action::Prior { endpoint, weight } = action {
            let installed = self.installed.as_ref();
            let is_known = installed.is_some_and(|(snapshot, _)| has_endpoint(snapshot, *endpoint));
            if is_known {
                self.priors.set(*endpoint, *weight, until);
            }
            return is_known;
        }
        let acts = self.wards.values_mut();
        let acted = acts.map(|ward| match action {
            Action::Confirm { endpoint, extend } => ward.extend(*endpoint, *extend),
            Action::Clear { endpoint } => ward.release(*endpoint, now),
            _ => false,
        });
        acted.fold(false, |any, acted| any | acted)
    }

    /// Clusters that heal in `snapshot`, and no others, are watched from now on. Who was out under the ids
    /// before is told again under the new ones.
    fn follow_wards(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.wards);
        for cluster in &snapshot.clusters {
            let known = before.remove(&cluster.name);
            for node in known.iter().flat_map(Ward::nodes) {
                self.untold.insert((cluster.name.clone(), node.address));
            }
            let Some(heal) = &cluster.config.heal else {
                continue;
            };
            let mut ward = match known {
                Some(mut known) => {
                    known.follow(cluster, heal);
                    known
                }
                None => Ward::new(cluster, heal),
            };
            ward.set_down_where(|address| {
                let probed = self.probed_as(&(cluster.name.clone(), address));
                probed == Availability::Unavailable
            });
            self.wards.insert(cluster.name.clone(), ward);
        }
    }

    /// Clusters that are limited in `snapshot`, and no others, are from now on.
    fn follow_applications(&mut self, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.applications);
        for cluster in &snapshot.clusters {
            let Some(rule) = cluster.config.adaptive_limit.as_deref() else {
                continue;
            };
            let application = match before.remove(&cluster.name) {
                Some(mut known) => {
                    known.follow(cluster, rule);
                    known
                }
                None => Application::new(cluster, rule),
            };
            self.applications.insert(cluster.name.clone(), application);
        }
    }

    /// Looks at what was measured since the last look.
    fn limit(
        &mut self,
        now: Duration,
        since: Duration,
        samples: &Samples,
        orders: &mut Vec<Order>,
    ) {
        let Some((snapshot, _)) = &self.installed else {
            return;
        };
        for (name, application) in &mut self.applications {
            for (whose, why) in application.end_by_hand(now) {
                let cluster = name.clone();
                orders.push(Order::LimitEnded {
                    cluster,
                    whose,
                    why,
                });
            }
            let sample = samples.get(&application.rule().scope);
            let sample = sample.copied().unwrap_or_default();
            let told = application.tick(&sample, since.as_secs_f64());
            let Some((told, cluster)) = told.zip(snapshot.cluster_by_name(name)) else {
                continue;
            };
            orders.push(Order::Limits {
                epoch: snapshot.epoch,
                cluster: cluster.id,
                name: name.clone(),
                told,
            });
        }
    }

    /// Looks at what calls came to since the last look.
    fn heal(
        &mut self,
        now: Duration,
        since: Duration,
        random: &mut impl FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        for (name, ward) in &mut self.wards {
            let found = ward.tick(now, since, random);
            let untold = found.untold.into_iter();
            self.untold
                .extend(untold.map(|address| (name.clone(), address)));
            let enforced = ward.heal().mode == PolicyMode::Enforce;
            for event in found.events {
                let Some(address) = ward.address(event.node()) else {
                    continue;
                };
                orders.push(Order::Healing(Healing {
                    cluster: name.clone(),
                    address,
                    event,
                    enforced,
                }));
            }
        }
    }

    /// What active checks say of an endpoint.
    pub fn probed_as(&self, key: &(Arc<str>, SocketAddr)) -> Availability {
        let verdict = self.health.get(key).map(Checker::verdict);
        verdict.unwrap_or(Availability::Available)
    }

    /// What shards are to be told: out if either finds so.
    fn availability(&self, key: &(Arc<str>, SocketAddr)) -> Availability {
        match self.probed_as(key) {
            Availability::Available => self
                .wards
                .get(&key.0)
                .map_or(Availability::Available, |ward| ward.availability(key.1)),
            out => out,
        }
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
        if let Some(verdict) = checker.record(succeeded) {
            if let Some(ward) = self.wards.get_mut(&key.0) {
                ward.set_down(key.1, verdict == Availability::Unavailable);
            }
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

    /// Parts of loads to be told, all in one order.
    fn weights(&mut self, now: Duration) -> Option<Order> {
        let untold = self.priors.take_untold(now);
        let (snapshot, _) = self.installed.as_ref().filter(|_| !untold.is_empty())?;
        let clusters = snapshot.clusters.iter();
        let endpoints = clusters.flat_map(|c| c.endpoints.iter().map(|e| (c.id, e)));
        let told = endpoints.filter(|(_, endpoint)| untold.contains(&endpoint.address));
        Some(Order::Priors {
            epoch: snapshot.epoch,
            priors: told
                .map(|(cluster, e)| (cluster, e.id, self.priors.share(e.address)))
                .collect(),
        })
    }

    /// Verdicts to be told, all in one order.
    fn verdicts(&mut self) -> Option<Order> {
        let untold = std::mem::take(&mut self.untold);
        let (snapshot, _) = self.installed.as_ref()?;
        let names: BTreeSet<&Arc<str>> = untold.iter().map(|(name, _)| name).collect();
        let clusters = names
            .into_iter()
            .filter_map(|name| snapshot.cluster_by_name(name));
        // All endpoints of a cluster are passed by once, however many are untold.
        let verdicts: Vec<_> = clusters
            .flat_map(|cluster| {
                let keyed = cluster.endpoints.iter();
                let keyed = keyed.map(|e| (e.id, (cluster.name.clone(), e.address)));
                let told = keyed.filter(|(_, key)| untold.contains(key));
                told.map(|(id, key)| (cluster.id, id, self.availability(&key)))
            })
            .collect();
        (!verdicts.is_empty()).then_some(Order::Health {
            epoch: snapshot.epoch,
            verdicts,
        })
    }
}

/// Whether some cluster has an endpoint at this address.
fn has_endpoint(snapshot: &Snapshot, address: SocketAddr) -> bool {
    let mut endpoints = snapshot.clusters.iter().flat_map(|c| &c.endpoints);
    endpoints.any(|endpoint| endpoint.address == address)
}

fn checker(known: Option<Checker>, check: &HealthCheck) -> Checker {
    let Some(mut known) = known else {
        return Checker::new(check);
    };
    known.set_thresholds(check);
    known
}

#[cfg(test)]
mod tests;
