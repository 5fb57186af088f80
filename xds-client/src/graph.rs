//! What is held of a control plane's resources, and what of it may be used: a listener refers to routes, routes to
//! clusters, clusters to endpoints, and each waits for what it refers to while the version before it goes on
//! serving. Pure: updates go in, a [`Part`] of a configuration comes out.
//!
//! The order is that of make before break, whatever order the server sends things in:
//!
//! ```text
//! a cluster is used once its endpoints are known, or known not to exist
//! a listener is used once its routes are there, and all clusters they name are used
//! a cluster that was removed goes when no listener in use names it
//! ```
//!
//! Waiting is bounded. For endpoints and routes by the subscription, which says what is missing; for clusters that
//! routes name by [`CLUSTER_WAIT`], after which such routes answer 503, as Envoy's do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tidegate_core::config::model::{self, Protocol, RouteAction};

use crate::{
    source::FileSource,
    subscription::{ResourceType, Update},
    translate::{self, Resource},
};

/// How long routes wait for a cluster that they name, and a removed cluster for the routes that name it. As long as
/// a named resource is waited for.
pub const CLUSTER_WAIT: Duration = Duration::from_secs(15);

/// The part of a configuration that a control plane brings. Every cluster that it names is in it, or among those of
/// the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// By name.
    pub listeners: BTreeMap<Arc<str>, model::Listener>,
    /// By name.
    pub clusters: BTreeMap<Arc<str>, model::Cluster>,
}

/// What a resource is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its newest version is in use.
    Active,
    /// It waits for what it refers to; the version before it is in use, if there is one.
    Warming,
    /// The server has none of this name.
    Missing,
}

impl State {
    /// The word in views.
    pub const fn word(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Warming => "warming",
            State::Missing => "missing",
        }
    }
}

/// A resource that others refer to.
#[derive(Clone, Debug)]
enum Referred<T> {
    Here(T),
    Missing,
}

/// What is held.
#[derive(Debug, Default)]
pub struct Graph {
    /// The newest version of each.
    clusters: BTreeMap<Arc<str>, translate::Cluster>,
    listeners: BTreeMap<Arc<str>, translate::Listener>,
    assignments: BTreeMap<Arc<str>, Referred<translate::Assignment>>,
    routes: BTreeMap<Arc<str>, Referred<Vec<model::Route>>>,
    /// What is in use.
    active: Part,
    /// Clusters that do not exist and are named nevertheless: without endpoints.
    placeholders: BTreeSet<Arc<str>>,
    /// Resources whose newest version is not in use.
    warming: BTreeSet<(ResourceType, Arc<str>)>,
    /// Listeners that wait for clusters, and until when.
    waiting: BTreeMap<Arc<str>, Duration>,
    /// Clusters that were removed and are named still, and until when they stay.
    leaving: BTreeMap<Arc<str>, Duration>,
    /// Something came since the last look.
    dirty: bool,
    /// When that was.
    looked: Duration,
}

impl Graph {
    /// Takes an update in.
    pub fn apply(&mut self, resource_type: ResourceType, update: Update<Resource>) {
        self.dirty = true;
        match update {
            Update::Set { name, value } => self.set(name.into(), value),
            Update::Removed { name } => match resource_type {
                ResourceType::Cluster => drop(self.clusters.remove(name.as_str())),
                ResourceType::Listener => drop(self.listeners.remove(name.as_str())),
                // Something refers to them still, and serves with what it has, as in Envoy.
                ResourceType::Endpoint | ResourceType::Route => {}
            },
            Update::Expired { name } => match resource_type {
                ResourceType::Cluster => drop(self.clusters.remove(name.as_str())),
                ResourceType::Listener => drop(self.listeners.remove(name.as_str())),
                // Whoever gives an end wants it to be one: the last ones do not stay.
                ResourceType::Endpoint => {
                    self.assignments.insert(name.into(), Referred::Missing);
                }
                ResourceType::Route => {
                    self.routes.insert(name.into(), Referred::Here(Vec::new()));
                }
            },
            Update::Missing { name } => match resource_type {
                ResourceType::Endpoint => {
                    self.assignments
                        .entry(name.into())
                        .or_insert(Referred::Missing);
                }
                ResourceType::Route => {
                    self.routes.entry(name.into()).or_insert(Referred::Missing);
                }
                // Nothing refers to them by name.
                ResourceType::Cluster | ResourceType::Listener => {}
            },
        }
    }

    fn set(&mut self, name: Arc<str>, value: Resource) {
        match value {
            Resource::Cluster(cluster) => drop(self.clusters.insert(name, *cluster)),
            Resource::Listener(listener) => drop(self.listeners.insert(name, *listener)),
            Resource::Assignment(assignment) => {
                self.assignments.insert(name, Referred::Here(assignment));
            }
            Resource::Routes(routes) => drop(self.routes.insert(name, Referred::Here(routes))),
        }
    }

    /// Names of a type that something held refers to and the stream brings. What is held of others is let go of.
    pub fn wanted(&mut self, resource_type: ResourceType) -> BTreeSet<Arc<str>> {
        let referred = self.referred(resource_type);
        match resource_type {
            ResourceType::Endpoint => self
                .assignments
                .retain(|name, _| referred.contains_key(name)),
            ResourceType::Route => self.routes.retain(|name, _| referred.contains_key(name)),
            ResourceType::Cluster | ResourceType::Listener => {}
        }
        let of_stream = referred.into_iter().filter(|(_, file)| file.is_none());
        of_stream.map(|(name, _)| name).collect()
    }

    /// Names of a type that something held refers to and files bring, by file.
    pub fn wanted_of_files(
        &self,
        resource_type: ResourceType,
    ) -> BTreeMap<FileSource, BTreeSet<String>> {
        let mut wanted: BTreeMap<FileSource, BTreeSet<String>> = BTreeMap::new();
        for (key, file) in self.referred(resource_type) {
            let Some(file) = file else { continue };
            let name = file.name(&key).to_owned();
            wanted.entry(file).or_default().insert(name);
        }
        wanted
    }

    /// Each that is referred to, with the file that it is in.
    fn referred(&self, resource_type: ResourceType) -> BTreeMap<Arc<str>, Option<FileSource>> {
        match resource_type {
            ResourceType::Endpoint => {
                let all = self.clusters.values();
                all.filter_map(|one| Some((one.assignment.clone()?, one.file.clone())))
                    .collect()
            }
            ResourceType::Route => {
                let all = self.listeners.values();
                all.filter_map(|one| Some((one.routes.clone()?, one.file.clone())))
                    .collect()
            }
            ResourceType::Cluster | ResourceType::Listener => BTreeMap::new(),
        }
    }

    /// What a resource is doing.
    pub fn state(&self, resource_type: ResourceType, name: &str) -> State {
        let is_missing = match resource_type {
            ResourceType::Endpoint => matches!(self.assignments.get(name), Some(Referred::Missing)),
            ResourceType::Route => matches!(self.routes.get(name), Some(Referred::Missing)),
            ResourceType::Cluster | ResourceType::Listener => false,
        };
        match () {
            () if is_missing => State::Missing,
            () if self.warming.contains(&(resource_type, name.into())) => State::Warming,
            () => State::Active,
        }
    }

    /// The assignment that brings a cluster's endpoints, if one does.
    pub fn assignment(&self, cluster: &str) -> Option<Arc<str>> {
        self.clusters.get(cluster)?.assignment.clone()
    }

    /// What is in use.
    pub fn active(&self) -> &Part {
        &self.active
    }

    /// Clusters that are named and do not exist.
    pub fn placeholders(&self) -> &BTreeSet<Arc<str>> {
        &self.placeholders
    }

    /// When [`Self::poll`] wants to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let untils = self.waiting.values().chain(self.leaving.values());
        // Whoever has waited long enough waits for no other cluster either.
        untils.filter(|until| **until > self.looked).min().copied()
    }

    /// Looks what may be used now. Returns the part of the configuration if it is another than before. `of_file` are
    /// the clusters that the file brings.
    pub fn poll(&mut self, now: Duration, of_file: &BTreeSet<Arc<str>>) -> Option<Part> {
        let is_overdue = self.deadline().is_some_and(|deadline| deadline <= now);
        if !std::mem::take(&mut self.dirty) && !is_overdue {
            return None;
        }
        self.looked = now;
        let before = self.active.clone();
        self.warming.clear();
        self.warm_clusters();
        self.warm_listeners(now, of_file);
        self.let_clusters_go(now);
        self.fill_in(of_file);
        (self.active != before).then(|| self.active.clone())
    }

    /// The file has other clusters now.
    pub fn file_changed(&mut self) {
        self.dirty = true;
    }

    fn warm_clusters(&mut self) {
        for (name, cluster) in &self.clusters {
            let mut config = cluster.config.clone();
            let assignment = match &cluster.assignment {
                None => None,
                Some(assignment) => match self.assignments.get(assignment) {
                    Some(Referred::Here(assignment)) => Some(assignment.clone()),
                    Some(Referred::Missing) => Some(translate::Assignment::default()),
                    None => {
                        self.warming
                            .insert((ResourceType::Cluster, Arc::clone(name)));
                        continue;
                    }
                },
            };
            if let Some(assignment) = assignment {
                assignment.fill(&mut config);
            }
            self.placeholders.remove(name);
            self.active.clusters.insert(Arc::clone(name), config);
        }
    }

    fn warm_listeners(&mut self, now: Duration, of_file: &BTreeSet<Arc<str>>) {
        self.active
            .listeners
            .retain(|name, _| self.listeners.contains_key(name));
        self.waiting
            .retain(|name, _| self.listeners.contains_key(name));
        for (name, listener) in &self.listeners {
            let Some(config) = with_routes(listener, &self.routes, self.active.listeners.get(name))
            else {
                self.warming
                    .insert((ResourceType::Listener, Arc::clone(name)));
                continue;
            };
            let is_there = |cluster: &Arc<str>| {
                of_file.contains(cluster)
                    || (self.active.clusters.contains_key(cluster)
                        && !self.placeholders.contains(cluster))
            };
            let complete = clusters_of(&config).iter().all(is_there);
            let until = match complete {
                true => now,
                false => *self
                    .waiting
                    .entry(Arc::clone(name))
                    .or_insert(now.saturating_add(CLUSTER_WAIT)),
            };
            if until > now {
                self.warming
                    .insert((ResourceType::Listener, Arc::clone(name)));
                continue;
            }
            if complete {
                self.waiting.remove(name);
            }
            self.active.listeners.insert(Arc::clone(name), config);
        }
    }

    /// Removed clusters go with the last route that names them.
    fn let_clusters_go(&mut self, now: Duration) {
        let named = self.named();
        let removed = self.active.clusters.keys();
        let removed = removed.filter(|name| !self.clusters.contains_key(*name));
        let removed: Vec<Arc<str>> = removed.cloned().collect();
        self.leaving.retain(|name, _| removed.contains(name));
        for name in removed {
            let is_named = named.contains(&name) && !self.placeholders.contains(&name);
            let until = match is_named {
                true => *self
                    .leaving
                    .entry(Arc::clone(&name))
                    .or_insert(now.saturating_add(CLUSTER_WAIT)),
                false => now,
            };
            if until <= now {
                self.leaving.remove(&name);
                self.active.clusters.remove(&name);
            }
        }
    }

    /// Clusters that are named and do not exist stand in without endpoints.
    fn fill_in(&mut self, of_file: &BTreeSet<Arc<str>>) {
        let missing = self.named().into_iter();
        let missing = missing
            .filter(|name| !of_file.contains(name) && !self.active.clusters.contains_key(name));
        self.placeholders = missing.collect();
        for name in &self.placeholders {
            self.active
                .clusters
                .insert(Arc::clone(name), translate::empty_cluster());
        }
    }

    /// Clusters that listeners in use name.
    fn named(&self) -> BTreeSet<Arc<str>> {
        self.active
            .listeners
            .values()
            .flat_map(clusters_of)
            .collect()
    }
}

/// The listener with its routes; nothing while they are not there. Routes that do not exist never take the place of
/// routes that do.
fn with_routes(
    listener: &translate::Listener,
    routes: &BTreeMap<Arc<str>, Referred<Vec<model::Route>>>,
    before: Option<&model::Listener>,
) -> Option<model::Listener> {
    let mut config = listener.config.clone();
    let Some(name) = &listener.routes else {
        if let Protocol::Http(http) = &mut config.protocol {
            listener.faults.apply(&mut http.routes);
        }
        return Some(config);
    };
    let found = match routes.get(name)? {
        Referred::Here(routes) => routes.clone(),
        Referred::Missing if before.is_some() => return None,
        Referred::Missing => Vec::new(),
    };
    if let Protocol::Http(http) = &mut config.protocol {
        http.routes = found;
        listener.faults.apply(&mut http.routes);
    }
    Some(config)
}

/// Clusters that a listener names.
pub fn clusters_of(listener: &model::Listener) -> BTreeSet<Arc<str>> {
    let names = |to: &[model::WeightedCluster]| -> Vec<Arc<str>> {
        to.iter().map(|one| Arc::clone(&one.cluster)).collect()
    };
    match &listener.protocol {
        Protocol::Tcp(tcp) => names(&tcp.to).into_iter().collect(),
        Protocol::Http(http) => {
            let forwards = http.routes.iter().filter_map(|route| match &route.action {
                RouteAction::Forward(forward) => Some(forward.clusters().cloned()),
                _ => None,
            });
            forwards.flatten().collect()
        }
    }
}

#[cfg(test)]
mod tests;
