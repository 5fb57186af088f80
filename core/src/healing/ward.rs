//! One cluster's nodes, watched: what shards count goes in tick by tick, and what becomes of which node
//! comes out.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    counter::{Fault, Tally},
    detector::Calls,
    ejection::{self, Event, Evidence, Group, Guard, State, WINDOW},
};
use crate::{
    config::model::{Heal, PolicyMode},
    id::ShardId,
    message::Availability,
    snapshot,
    stats::{EndpointCounters, PerShard},
};

/// A trial that brought no result within this time is given to another request: its own may have been given up
/// by the client, or the shard has nothing to send.
const TRIAL_PATIENCE: Duration = Duration::from_secs(1);

/// The nodes of one cluster.
#[derive(Debug)]
pub struct Ward {
    heal: Heal,
    group: Group,
    /// By [`EndpointId`](crate::id::EndpointId) of the snapshot that is followed.
    nodes: Vec<Node>,
    /// Requests that the cluster's circuits have room for.
    room: u64,
}

#[derive(Debug)]
struct Node {
    address: SocketAddr,
    counters: Arc<PerShard<EndpointCounters>>,
    tally: Tally,
    /// On probation: when a shard was told to try it out.
    tried_at: Option<Duration>,
    /// Failures by class as of `classes_at`, to tell those of the last seconds.
    classes: [u64; Fault::ALL.len()],
    classes_at: Duration,
}

impl Node {
    fn new(endpoint: &snapshot::Endpoint) -> Node {
        Node {
            address: endpoint.address,
            tally: Tally::new(&endpoint.counters),
            classes: by_class(&endpoint.counters),
            classes_at: Duration::ZERO,
            counters: endpoint.counters.clone(),
            tried_at: None,
        }
    }
}

fn by_class(counters: &PerShard<EndpointCounters>) -> [u64; Fault::ALL.len()] {
    Fault::ALL.map(|fault| counters.sum(|shard| shard.failures(fault).get()))
}

/// What a tick brought.
#[derive(Debug, Default)]
pub struct Found {
    /// What changed.
    pub events: Vec<Event>,
    /// Nodes of which shards have to be told again, changed or not.
    pub untold: Vec<SocketAddr>,
}

/// What is known of one node, for those who look.
#[derive(Clone, Copy, Debug)]
pub struct NodeView {
    /// Its address.
    pub address: SocketAddr,
    /// Where it stands.
    pub state: State,
    /// How often it was ejected lately.
    pub times: u32,
    /// The numbers of the last seconds.
    pub evidence: Evidence,
    /// Why it is not healthy, with the numbers of then.
    pub found: Option<ejection::Found>,
}

impl Ward {
    /// Begins to watch a cluster.
    pub fn new(cluster: &snapshot::Cluster, heal: &Heal) -> Ward {
        Ward {
            group: Group::new(heal.ejection.clone(), cluster.endpoints.len()),
            nodes: cluster.endpoints.iter().map(Node::new).collect(),
            heal: heal.clone(),
            room: room(cluster),
        }
    }

    /// A new snapshot describes the cluster: what is known of nodes that stay is kept.
    pub fn follow(&mut self, cluster: &snapshot::Cluster, heal: &Heal) {
        let numbered = self.nodes.iter().enumerate();
        let places: BTreeMap<SocketAddr, usize> = numbered.map(|(k, n)| (n.address, k)).collect();
        let place = |e: &snapshot::Endpoint| places.get(&e.address).copied();
        let kept: Vec<Option<usize>> = cluster.endpoints.iter().map(place).collect();
        self.group.renumber(&kept);
        self.group.set_settings(heal.ejection.clone());
        let mut before: Vec<Option<Node>> = std::mem::take(&mut self.nodes)
            .into_iter()
            .map(Some)
            .collect();
        self.nodes = cluster
            .endpoints
            .iter()
            .zip(kept)
            .map(|(endpoint, old)| {
                let node = old.and_then(|old| before.get_mut(old)?.take());
                node.unwrap_or_else(|| Node::new(endpoint))
            })
            .collect();
        self.heal = heal.clone();
        self.room = room(cluster);
    }

    /// What active checks say of every node (H14).
    pub fn set_down_where(&mut self, is_down: impl Fn(SocketAddr) -> bool) {
        for (k, node) in self.nodes.iter().enumerate() {
            self.group.set_down(k, is_down(node.address));
        }
    }

    /// What an active check says of a node.
    pub fn set_down(&mut self, address: SocketAddr, is_down: bool) {
        if let Some(k) = self.place(address) {
            self.group.set_down(k, is_down);
        }
    }

    /// One tick of `tick` since the last.
    pub fn tick(
        &mut self,
        now: Duration,
        tick: Duration,
        random: &mut impl FnMut() -> u64,
    ) -> Found {
        let calls: Vec<Calls> = self
            .nodes
            .iter_mut()
            .map(|node| node.tally.step(&node.counters))
            .collect();
        let watermark = self.in_flight() as f64 / self.room as f64;
        let events = self.group.tick(now, tick, &calls, Some(watermark), random);
        let states: Vec<State> = self.group.states().collect();
        let mut untold: Vec<SocketAddr> = events
            .iter()
            .filter_map(|event| Some(self.nodes.get(event.node())?.address))
            .collect();
        for (node, state) in self.nodes.iter_mut().zip(states) {
            if now.saturating_sub(node.classes_at) >= WINDOW {
                node.classes = by_class(&node.counters);
                node.classes_at = now;
            }
            let quarantined = node.counters.sum(|c| c.quarantined.get()) > 0;
            let is_due = match state {
                State::Probation { .. } => node
                    .tried_at
                    .is_none_or(|at| now.saturating_sub(at) >= TRIAL_PATIENCE),
                // A shard took it out on its own, and it is not confirmed.
                _ => quarantined,
            };
            node.tried_at = match state {
                State::Probation { .. } if is_due => Some(now),
                State::Probation { .. } => node.tried_at,
                _ => None,
            };
            if is_due && !untold.contains(&node.address) {
                untold.push(node.address);
            }
        }
        Found { events, untold }
    }

    /// Whether shards may choose a node.
    pub fn availability(&self, address: SocketAddr) -> Availability {
        let state = self.place(address).and_then(|k| self.group.states().nth(k));
        match state {
            _ if self.heal.mode == PolicyMode::Shadow => Availability::Available,
            Some(State::Ejected { .. }) => Availability::Unavailable,
            Some(State::Probation { .. }) => Availability::Trial(self.busiest()),
            Some(State::Healthy | State::Suspect) | None => Availability::Available,
        }
    }

    /// Every node, in the order of the snapshot.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView> {
        let known = self.group.states().zip(self.group.times());
        let numbers = self.group.evidences().zip(self.group.found());
        let nodes = self.nodes.iter().zip(known).zip(numbers);
        nodes.map(|((node, (state, times)), (evidence, found))| NodeView {
            address: node.address,
            state,
            times,
            evidence,
            found,
        })
    }

    /// Failures of a node in the last seconds, at most [`WINDOW`], by class (H2); classes without any left out.
    pub fn failures(&self, node: usize) -> Vec<(Fault, u64)> {
        let Some(node) = self.nodes.get(node) else {
            return Vec::new();
        };
        let now = by_class(&node.counters);
        let counts = now.iter().zip(&node.classes);
        let counts = counts.map(|(now, before)| now.saturating_sub(*before));
        let named = Fault::ALL.into_iter().zip(counts);
        named.filter(|(_, count)| *count > 0).collect()
    }

    /// The center keeps an ejected node out for longer. Says whether it is ejected here.
    pub fn extend(&mut self, address: SocketAddr, by: Duration) -> bool {
        let k = self.place(address);
        k.is_some_and(|k| self.group.extend(k, by))
    }

    /// The center ends an ejection. Says whether the node is ejected here.
    pub fn release(&mut self, address: SocketAddr, now: Duration) -> bool {
        let k = self.place(address);
        k.is_some_and(|k| self.group.release(k, now))
    }

    /// The address of a node.
    pub fn address(&self, node: usize) -> Option<SocketAddr> {
        self.nodes.get(node).map(|node| node.address)
    }

    /// Its settings.
    pub fn heal(&self) -> &Heal {
        &self.heal
    }

    /// An operator takes a node out.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn eject(
        &mut self,
        address: SocketAddr,
        now: Duration,
        penalty: Duration,
    ) -> Result<Event, String> {
        let k = self.known(address)?;
        let ejected = self.group.eject_by_hand(k, now, penalty);
        ejected.map_err(|guard| kept_in(address, guard))
    }

    /// Whether [`Ward::eject`] would do it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_eject(&self, address: SocketAddr) -> Result<(), String> {
        let may = self.group.may_eject_by_hand(self.known(address)?);
        may.map_err(|guard| kept_in(address, guard))
    }

    /// Whether [`Ward::restore`] would do it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_restore(&self, address: SocketAddr) -> Result<(), String> {
        match self.group.may_restore(self.known(address)?) {
            true => Ok(()),
            false => Err(not_ejected(address)),
        }
    }

    /// An operator takes a node back in.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn restore(&mut self, address: SocketAddr, now: Duration) -> Result<Event, String> {
        let k = self.known(address)?;
        self.group
            .restore(k, now)
            .ok_or_else(|| not_ejected(address))
    }

    fn known(&self, address: SocketAddr) -> Result<usize, String> {
        self.place(address).ok_or_else(|| {
            let nodes: Vec<String> = self.nodes.iter().map(|n| n.address.to_string()).collect();
            format!("no endpoint {address}; there are {}", nodes.join(", "))
        })
    }

    fn place(&self, address: SocketAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node.address == address)
    }

    fn in_flight(&self) -> u64 {
        let active = |node: &Node| node.counters.sum(|c| c.requests_active.get());
        self.nodes.iter().map(active).sum()
    }

    /// The shard that sent most in the last tick: there a trial finds a request soonest.
    fn busiest(&self) -> ShardId {
        let shards = self.nodes.first().map_or(0, |n| n.tally.totals().len());
        let total = |shard: usize| -> u64 {
            let totals = self.nodes.iter().map(|n| n.tally.totals().get(shard));
            totals.flatten().sum()
        };
        let most = (0..shards).rev().max_by_key(|shard| total(*shard));
        ShardId(most.unwrap_or(0) as u16)
    }
}

fn kept_in(address: SocketAddr, guard: Guard) -> String {
    match guard {
        Guard::LastNode => format!("{address} is the last node in service: add one first"),
        guard => format!("{address} is kept in by {}", guard.word()),
    }
}

fn not_ejected(address: SocketAddr) -> String {
    format!("{address} is not ejected")
}

fn room(cluster: &snapshot::Cluster) -> u64 {
    let shards = cluster.endpoints.first().map_or(1, |e| e.counters.len());
    (u64::from(cluster.config.circuit.requests) * shards as u64).max(1)
}
