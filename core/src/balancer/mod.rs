//! Choosing an endpoint. A balancer belongs to one cluster on one shard; it holds the weights, the
//! loads and the availability of its endpoints, and is told of each request's start and end.
//! Time and randomness are arguments: the same calls choose the same endpoints.
//!
//! In reading order: `slots` (what is known of endpoints, weighted draws, slow start), `edf` (round
//! robin), `ewma` (cost of an endpoint), `ring` and `maglev` (consistent hashing). A pick allocates nothing
//! and costs O(1) or O(log n), whatever the policy.
//!
//! Slow start and the consistent policies exclude each other, as in Envoy: a key has its place from the
//! beginning.

mod edf;
mod ewma;
mod maglev;
mod ring;
mod slots;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::{edf::Schedule, maglev::Table, ring::Ring, slots::Slots};
use crate::{
    config::model::Balance, id::EndpointId, message::Availability, steering::destination::mix,
};

/// What a balancer is told of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointInput {
    /// Hash of its address: what the consistent policies place.
    pub key: u64,
    /// Its weight, 1 to 128.
    pub weight: u32,
}

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
    policy: Policy,
    slots: Slots,
}

/// The policy, with what it keeps.
#[derive(Debug)]
enum Policy {
    RoundRobin(Schedule),
    Random,
    LeastRequest,
    PeakEwma,
    RingHash(Ring),
    Maglev(Table),
}

impl Balancer {
    /// A balancer over `endpoints`, whose positions are their [`EndpointId`]s. `now` is any monotonic
    /// clock; endpoints present here do not slow-start.
    pub fn new(
        policy: Balance,
        slow_start: Duration,
        endpoints: &[EndpointInput],
        now: Duration,
    ) -> Self {
        let mut slots = Slots::default();
        slots.replace(endpoints, slow_start, false, now);
        Balancer {
            policy: Policy::new(policy, &slots),
            slots,
        }
    }

    /// The endpoints changed. Loads, latencies and availability of endpoints whose key stays are kept;
    /// endpoints that are new slow-start.
    pub fn update(
        &mut self,
        policy: Balance,
        slow_start: Duration,
        endpoints: &[EndpointInput],
        now: Duration,
    ) {
        // The first endpoints of a cluster (DNS has answered) have nobody to be gentler than.
        let ramp = !self.slots.slots.is_empty();
        let changed = self.slots.replace(endpoints, slow_start, ramp, now);
        match (&mut self.policy, policy) {
            (Policy::RoundRobin(schedule), Balance::RoundRobin) => {
                schedule.refill(&mut self.slots, now);
            }
            (Policy::RingHash(_), Balance::RingHash) | (Policy::Maglev(_), Balance::Maglev)
                if !changed => {}
            _ => self.policy = Policy::new(policy, &self.slots),
        }
    }

    /// Chooses an endpoint. `hash` is what the route hashed, `random` a fresh random number; `tried`
    /// are endpoints that this request has already failed on, avoided while there is another.
    /// `None` only if there is no endpoint: a cluster that is unavailable as a whole is used as if all
    /// were available (panic).
    pub fn pick(
        &mut self,
        hash: Option<u64>,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<EndpointId> {
        // A split may have sent us one range of hashes only: mixed, they cover all places again.
        let place = mix(hash.unwrap_or(random));
        let slots = &mut self.slots;
        let endpoint = match &mut self.policy {
            Policy::RoundRobin(schedule) => schedule.pick(slots, random, tried, now),
            Policy::Random => draw_untried(slots, random, tried, now),
            Policy::LeastRequest => lower_of_two(slots, random, tried, now, |slots, endpoint| {
                slots.relative_load(endpoint, now)
            }),
            Policy::PeakEwma => lower_of_two(slots, random, tried, now, |slots, endpoint| {
                let load = slots.relative_load(endpoint, now);
                let slot = slots.slots.get(endpoint as usize);
                slot.map_or(0.0, |slot| slot.latency.cost(load, now))
            }),
            Policy::RingHash(ring) => ring
                .find(place, |e| may_choose(slots, e, tried))
                .or_else(|| any_place(slots, place, tried)),
            Policy::Maglev(table) => table
                .find(place, |e| may_choose(slots, e, tried))
                .or_else(|| any_place(slots, place, tried)),
        };
        endpoint.map(EndpointId)
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
        if matches!(self.policy, Policy::PeakEwma) && outcome != Outcome::Neutral {
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
        let changed = self.slots.set_availability(endpoint, availability, now);
        if changed && let Policy::RoundRobin(schedule) = &mut self.policy {
            schedule.refill(&mut self.slots, now);
        }
    }

    /// `endpoint` is to get this part of its load, in basis points. The consistent policies do not follow: a key
    /// has its place.
    pub fn set_prior(&mut self, endpoint: EndpointId, share: u32, now: Duration) {
        let changed = self.slots.set_prior(endpoint, share, now);
        if changed && let Policy::RoundRobin(schedule) = &mut self.policy {
            schedule.refill(&mut self.slots, now);
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

    /// The endpoint that this request is to try out, instead of a [`pick`](Self::pick); most often none.
    #[inline]
    pub fn take_trial(&mut self, tried: &[EndpointId]) -> Option<EndpointId> {
        self.slots.take_trial(tried)
    }

    /// Whether another endpoint than this one is available.
    pub fn has_another(&self, endpoint: EndpointId) -> bool {
        let others = (0u32..).map(EndpointId).zip(&self.slots.slots);
        others
            .filter(|(id, _)| *id != endpoint)
            .any(|(_, slot)| slot.availability == Availability::Available)
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

    /// Whether no endpoint is available, so that all are used.
    pub fn is_panicking(&self) -> bool {
        self.slots.is_panicking()
    }
}

impl Policy {
    fn new(policy: Balance, slots: &Slots) -> Policy {
        match policy {
            Balance::RoundRobin => Policy::RoundRobin(Schedule::new()),
            Balance::Random => Policy::Random,
            Balance::LeastRequest => Policy::LeastRequest,
            Balance::PeakEwma => Policy::PeakEwma,
            Balance::RingHash => Policy::RingHash(Ring::new(slots)),
            Balance::Maglev => Policy::Maglev(Table::new(slots)),
        }
    }
}

/// How often a draw is repeated that hit endpoints already tried, before their neighbour is taken.
const REDRAWS_MAX: usize = 4;

fn draw_untried(
    slots: &mut Slots,
    random: u64,
    tried: &[EndpointId],
    now: Duration,
) -> Option<u32> {
    let mut random = random;
    let mut drawn = slots.draw(random, now)?;
    for _ in 0..REDRAWS_MAX {
        if !tried.contains(&EndpointId(drawn)) {
            return Some(drawn);
        }
        random = mix(random);
        drawn = slots.draw(random, now)?;
    }
    Some(slots.untried_after(drawn, tried))
}

/// Power of two choices (Mitzenmacher 2001). Both are drawn by weight, and the first wins a tie: without
/// load the draw alone decides, so that shares follow the weights; under load `cost` does.
fn lower_of_two(
    slots: &mut Slots,
    random: u64,
    tried: &[EndpointId],
    now: Duration,
    cost: impl Fn(&Slots, u32) -> f64,
) -> Option<u32> {
    let (mut first, mut second) = slots.draw_two(random, now)?;
    let is_tried = |endpoint| tried.contains(&EndpointId(endpoint));
    if !tried.is_empty() {
        let mut random = random;
        for _ in 0..REDRAWS_MAX {
            if !is_tried(first) || !is_tried(second) {
                break;
            }
            random = mix(random);
            (first, second) = slots.draw_two(random, now)?;
        }
        if is_tried(first) && is_tried(second) {
            return Some(slots.untried_after(first, tried));
        }
        if is_tried(first) {
            return Some(second);
        }
        if is_tried(second) {
            return Some(first);
        }
    }
    if cost(slots, second) < cost(slots, first) {
        return Some(second);
    }
    Some(first)
}

fn may_choose(slots: &Slots, endpoint: u32, tried: &[EndpointId]) -> bool {
    slots.is_pooled(endpoint) && !tried.contains(&EndpointId(endpoint))
}

/// Where a consistent policy found nobody: almost all endpoints are out, or all in the pool were tried.
fn any_place(slots: &Slots, place: u64, tried: &[EndpointId]) -> Option<u32> {
    let pool = slots.pool();
    let at = slots::scale(place, pool.len() as u64);
    let endpoint = pool.get(at as usize).copied()?;
    Some(slots.untried_after(endpoint, tried))
}
