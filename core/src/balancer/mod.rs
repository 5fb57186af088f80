//! Choosing an endpoint. A balancer belongs to one cluster on one shard; it holds the weights, the
//! loads and the availability of its endpoints, and is told of each request's start and end.
//! Time and randomness are arguments: the same calls choose the same endpoints.
//!
//! In reading order: `slots` (what is known of endpoints), `priority` (how load goes to priorities and
//! localities), `group` (a cluster or a subset of it, by priority and locality), `pool` (endpoints with a
//! policy), `members` (weighted draws), `edf` (round robin), `ewma` (cost of an endpoint), `ring` and
//! `maglev` (consistent hashing). A pick allocates nothing and costs O(1) or O(log n), whatever the policy.
//!
//! Slow start and the consistent policies exclude each other, as in Envoy: a key has its place from the
//! beginning.

mod edf;
mod ewma;
mod group;
mod maglev;
mod members;
mod pool;
pub mod priority;
mod ring;
mod slots;
pub mod subset;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::{group::Group, pool::Draw, priority::Load, slots::Slots};
use crate::{
    config::model::Balance,
    id::{EndpointId, SubsetId},
    message::Availability,
    steering::destination::mix,
};

/// What a balancer is told of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointInput {
    /// Hash of its address: what the consistent policies place.
    pub key: u64,
    /// Its weight, 1 to 128.
    pub weight: u32,
    /// 0 is the highest.
    pub priority: u32,
    /// Its locality, told apart within the priority.
    pub locality: u32,
    /// The weight of that.
    pub locality_weight: u32,
    /// Counts as unavailable, whatever is found out.
    pub is_out: bool,
}

impl EndpointInput {
    /// An endpoint of a cluster that has one priority and one locality.
    pub fn new(key: u64, weight: u32) -> EndpointInput {
        EndpointInput {
            key,
            weight,
            ..EndpointInput::default()
        }
    }
}

/// What a balancer goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How an endpoint is chosen.
    pub policy: Balance,
    /// New endpoints get their share little by little over this time.
    pub slow_start: Duration,
    /// How much less than all of a priority is enough, in percent.
    pub overprovisioning: u32,
    /// Below so many available endpoints of a priority, in percent, all of it are used; 0 never.
    pub panic_threshold: u32,
    /// Localities get load by their weights.
    pub by_locality: bool,
    /// They do so within subsets, too.
    pub subsets_by_locality: bool,
}

impl Rules {
    /// Those of a cluster that says nothing but how an endpoint is chosen.
    pub fn new(policy: Balance) -> Rules {
        Rules {
            policy,
            slow_start: Duration::ZERO,
            overprovisioning: OVERPROVISIONING,
            panic_threshold: PANIC_THRESHOLD,
            by_locality: false,
            subsets_by_locality: false,
        }
    }
}

/// Envoy's: 72 % of a priority are as good as all of it.
pub const OVERPROVISIONING: u32 = 140;

/// Envoy's.
pub const PANIC_THRESHOLD: u32 = 50;

/// How a request ended, as far as balancing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Success,
    /// Failed in a way that is the endpoint's fault.
    Failure,
    /// Says nothing about the endpoint (the client went away).
    Neutral,
}

/// The balancer of one cluster on one shard.
#[derive(Debug)]
pub struct Balancer {
    rules: Rules,
    slots: Slots,
    inputs: Vec<EndpointInput>,
    /// By [`SubsetId`]; the first is the whole cluster.
    groups: Vec<Group>,
}

impl Balancer {
    /// A balancer over `endpoints`, whose positions are their [`EndpointId`]s, and over subsets of them.
    /// `now` is any monotonic clock; endpoints present here do not slow-start.
    pub fn new(
        rules: &Rules,
        endpoints: &[EndpointInput],
        subsets: &[Vec<EndpointId>],
        now: Duration,
    ) -> Self {
        let mut balancer = Balancer {
            rules: rules.clone(),
            slots: Slots::default(),
            inputs: Vec::new(),
            groups: Vec::new(),
        };
        balancer.update(rules, endpoints, subsets, now);
        balancer
    }

    /// The endpoints changed. Loads, latencies and availability of endpoints whose key stays are kept;
    /// endpoints that are new slow-start.
    pub fn update(
        &mut self,
        rules: &Rules,
        endpoints: &[EndpointInput],
        subsets: &[Vec<EndpointId>],
        now: Duration,
    ) {
        // The first endpoints of a cluster (DNS has answered) have nobody to be gentler than.
        let ramp = !self.slots.slots.is_empty();
        let moved = self.slots.replace(endpoints, rules.slow_start, ramp, now);
        let placed = |input: &EndpointInput| (input.key, input.weight);
        let before = self.inputs.iter().map(placed);
        let same = before.eq(endpoints.iter().map(placed));
        self.rules.clone_from(rules);
        self.inputs = endpoints.to_vec();
        let mut before = std::mem::take(&mut self.groups).into_iter();
        let all = (0..endpoints.len() as u32).collect();
        let subsets = subsets.iter().map(|subset| {
            let mut members: Vec<u32> = subset.iter().map(|id| id.0).collect();
            members.sort_unstable();
            (rules.by_locality && rules.subsets_by_locality, members)
        });
        let groups = std::iter::once((rules.by_locality, all)).chain(subsets);
        let groups = groups.map(|(by_locality, members)| {
            let mut group = Group::new(rules, by_locality, endpoints, members, &self.slots);
            if let Some(old) = before.next() {
                group.inherit(old, &moved, same);
            }
            group.refill(rules, &self.slots, now);
            group
        });
        self.groups = groups.collect();
    }

    /// Chooses an endpoint of the whole cluster: see [`pick_in`](Self::pick_in).
    pub fn pick(
        &mut self,
        hash: Option<u64>,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<EndpointId> {
        self.pick_in(SubsetId::ALL, hash, random, tried, now)
    }

    /// Chooses an endpoint of a subset. `hash` is what the route hashed, `random` a fresh random number;
    /// `tried` are endpoints that this request has already failed on, avoided while there is another.
    /// `None` if there is no endpoint, or none is available and there is no panic.
    #[inline]
    pub fn pick_in(
        &mut self,
        subset: SubsetId,
        hash: Option<u64>,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<EndpointId> {
        // A split may have sent us one range of hashes only: mixed, they cover all places again.
        let place = mix(hash.unwrap_or(random));
        let by = match self.rules.policy {
            Balance::RingHash | Balance::Maglev => place,
            _ => random,
        };
        let draw = Draw {
            random,
            place,
            tried,
            now,
        };
        let group = self.groups.get_mut(subset.index())?;
        group.pick(&self.slots, by, &draw).map(EndpointId)
    }

    /// A request was sent to `endpoint`.
    #[inline]
    pub fn started(&mut self, endpoint: EndpointId) {
        if let Some(slot) = self.slots.slots.get_mut(endpoint.index()) {
            slot.active += 1;
        }
    }

    /// A request to `endpoint` ended after `latency`.
    #[inline]
    pub fn finished(
        &mut self,
        endpoint: EndpointId,
        outcome: Outcome,
        latency: Duration,
        now: Duration,
    ) {
        let Some(slot) = self.slots.slots.get_mut(endpoint.index()) else {
            return;
        };
        slot.active = slot.active.saturating_sub(1);
        if self.rules.policy == Balance::PeakEwma && outcome != Outcome::Neutral {
            let failed = outcome == Outcome::Failure;
            slot.latency.record(latency, failed, now);
        }
    }

    /// Whether `endpoint` may be chosen from now on; one that comes back slow-starts.
    pub fn set_availability(
        &mut self,
        endpoint: EndpointId,
        availability: Availability,
        now: Duration,
    ) {
        if self.slots.set_availability(endpoint, availability, now) {
            let groups = self.groups.iter_mut();
            groups
                .filter(|group| group.contains(endpoint.0))
                .for_each(|group| group.refill(&self.rules, &self.slots, now));
        }
    }

    /// `endpoint` is to get this part of its load, in basis points. The consistent policies do not follow: a key
    /// has its place.
    pub fn set_prior(&mut self, endpoint: EndpointId, share: u32, now: Duration) {
        if self.slots.set_prior(endpoint, share) {
            let groups = self.groups.iter_mut();
            groups.for_each(|group| group.weigh(endpoint.0, &self.slots, now));
        }
    }

    /// Endpoints that come back get their share little by little over at least this time.
    pub fn set_return_ramp(&mut self, over: Duration) {
        self.slots.return_ramp = over;
    }

    /// The next request is for `endpoint`, which may not be chosen: to see how it does.
    pub fn offer_trial(&mut self, endpoint: EndpointId) {
        self.slots.offer_trial(endpoint);
    }

    /// The endpoint of a subset that this request is to try out, instead of a [pick](Self::pick_in); most
    /// often none.
    #[inline]
    pub fn take_trial(&mut self, subset: SubsetId, tried: &[EndpointId]) -> Option<EndpointId> {
        let group = self.groups.get(subset.index())?;
        let may = |id: EndpointId| !tried.contains(&id) && group.contains(id.0);
        self.slots.take_trial(may)
    }

    /// Whether `endpoint` may be chosen without panic.
    #[inline]
    pub fn is_available(&self, endpoint: EndpointId) -> bool {
        self.slots.is_available(endpoint.0)
    }

    /// Whether some endpoint may be chosen without panic.
    pub fn has_available(&self) -> bool {
        (0..self.slots.slots.len() as u32).any(|id| self.slots.is_available(id))
    }

    /// Whether another endpoint than this one is available.
    pub fn has_another(&self, endpoint: EndpointId) -> bool {
        let mut others = (0..self.slots.slots.len() as u32).filter(|id| *id != endpoint.0);
        others.any(|id| self.slots.is_available(id))
    }

    /// Where the endpoint of this key is now: for a request that ends after an [update](Self::update),
    /// which may have given its endpoint another id.
    pub fn endpoint_by_key(&self, key: u64) -> Option<EndpointId> {
        let at = self.slots.slots.iter().position(|slot| slot.key == key)?;
        Some(EndpointId(at as u32))
    }

    /// Requests in flight to `endpoint`.
    pub fn active(&self, endpoint: EndpointId) -> u32 {
        let slot = self.slots.slots.get(endpoint.index());
        slot.map_or(0, |slot| slot.active)
    }

    /// Whether some priority uses all of its endpoints, since too few are available.
    pub fn is_panicking(&self) -> bool {
        self.groups.first().is_some_and(Group::is_panicking)
    }

    /// The priorities of the whole cluster with their loads.
    pub fn loads(&self) -> impl Iterator<Item = (u32, Load)> {
        self.groups.iter().take(1).flat_map(Group::loads)
    }
}
