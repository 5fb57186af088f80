//! What a balancer knows of its endpoints: weight, load, availability, slow start; and weighted draws
//! among those that may be chosen.

use std::time::Duration;

use super::{EndpointInput, ewma::Latency};
use crate::{healing::prior::WHOLE, id::EndpointId, message::Availability};

/// The share of its weight that an endpoint begins a slow start with, in the unit of
/// [`WEIGHT_UNIT`]: Envoy's default of 10 %, so that it gets traffic to warm up with at all.
const SLOW_START_MIN: u64 = WEIGHT_UNIT / 10;

/// One unit of weight, in the fixed point of effective weights: fine enough for a ramp without steps.
pub(super) const WEIGHT_UNIT: u64 = 1 << 16;

/// How often the table of weights follows a ramp: a hundredth of it moves a weight by less than 1 %.
const RAMP_STEPS: u32 = 100;

/// One endpoint.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) key: u64,
    pub(super) weight: u64,
    pub(super) availability: Availability,
    /// Requests in flight.
    pub(super) active: u32,
    pub(super) latency: Latency,
    /// The part of its load that it is to get, in basis points.
    prior: u32,
    /// Its slow start; `None` once it is over.
    pub(super) ramp: Option<Ramp>,
    /// The next request is for it, to see how it does, though it may not be chosen.
    pub(super) trial: bool,
    /// Its next turn in virtual time (round robin).
    pub(super) deadline: u64,
}

/// A slow start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp {
    since: Duration,
    over: Duration,
}

/// The endpoints of one balancer.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) slots: Vec<Slot>,
    /// For endpoints that are new.
    slow_start: Duration,
    /// For endpoints that come back; at least `slow_start`.
    pub(super) return_ramp: Duration,
    /// How many have `trial` set.
    trials: u32,
    /// Those that may be chosen: the available ones, or all if none is (panic).
    pool: Vec<u32>,
    /// By place in `pool`: the sum of effective weights up to and including it.
    sums: Vec<u64>,
    /// When `sums` must follow a ramp; `None` while no endpoint is in slow start.
    sums_due: Option<Duration>,
}

impl Slots {
    /// Takes new endpoints over. Those whose key stays keep load, latency, availability and ramp; others
    /// are available, and slow-start if `ramp`. Says whether any key or weight changed.
    pub(super) fn replace(
        &mut self,
        endpoints: &[EndpointInput],
        slow_start: Duration,
        ramp: bool,
        now: Duration,
    ) -> bool {
        let same = self
            .slots
            .iter()
            .map(Slot::input)
            .eq(endpoints.iter().copied());
        let mut before: Vec<(u64, Option<Slot>)> = std::mem::take(&mut self.slots)
            .into_iter()
            .map(|slot| (slot.key, Some(slot)))
            .collect();
        before.sort_by_key(|(key, _)| *key);
        let mut kept = |key: u64| {
            // Two endpoints may share a key: each takes one of the slots before.
            let from = before.partition_point(|(k, _)| *k < key);
            let same = before.get_mut(from..)?.iter_mut();
            same.take_while(|(k, _)| *k == key)
                .find_map(|(_, slot)| slot.take())
        };
        self.slots = endpoints
            .iter()
            .map(|input| {
                let slot = kept(input.key).unwrap_or(Slot {
                    key: input.key,
                    weight: 0,
                    availability: Availability::Available,
                    active: 0,
                    latency: Latency::default(),
                    prior: WHOLE,
                    ramp: (ramp && !slow_start.is_zero()).then_some(Ramp {
                        since: now,
                        over: slow_start,
                    }),
                    trial: false,
                    deadline: 0,
                });
                Slot {
                    weight: u64::from(input.weight.max(1)),
                    ..slot
                }
            })
            .collect();
        self.slow_start = slow_start;
        self.trials = self.slots.iter().filter(|slot| slot.trial).count() as u32;
        self.refill(now);
        !same
    }

    /// Gives the next request to an endpoint that may not be chosen.
    pub(super) fn offer_trial(&mut self, endpoint: EndpointId) {
        if let Some(slot) = self.slots.get_mut(endpoint.index())
            && slot.availability == Availability::Unavailable
            && !slot.trial
        {
            slot.trial = true;
            self.trials += 1;
        }
    }

    /// The endpoint that this request is to try out, if there is one that it has not failed on.
    #[inline]
    pub(super) fn take_trial(&mut self, tried: &[EndpointId]) -> Option<EndpointId> {
        if self.trials == 0 {
            return None;
        }
        let mut numbered = (0u32..).map(EndpointId).zip(&mut self.slots);
        let (id, slot) = numbered.find(|(id, slot)| slot.trial && !tried.contains(id))?;
        slot.trial = false;
        self.trials -= 1;
        Some(id)
    }

    /// Whether the availability of `endpoint` changed.
    pub(super) fn set_availability(
        &mut self,
        endpoint: EndpointId,
        availability: Availability,
        now: Duration,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(endpoint.index()) else {
            return false;
        };
        if slot.availability == availability {
            return false;
        }
        slot.availability = availability;
        let over = self.slow_start.max(self.return_ramp);
        let ramps = availability == Availability::Available && !over.is_zero();
        slot.ramp = ramps.then_some(Ramp { since: now, over });
        self.trials -= u32::from(std::mem::take(&mut slot.trial));
        self.refill(now);
        true
    }

    /// Whether the part of its load that `endpoint` is to get changed.
    pub(super) fn set_prior(&mut self, endpoint: EndpointId, share: u32, now: Duration) -> bool {
        let slot = self.slots.get_mut(endpoint.index());
        let Some(slot) = slot.filter(|slot| slot.prior != share) else {
            return false;
        };
        slot.prior = share;
        self.weigh(now);
        true
    }

    /// Those that may be chosen.
    pub(super) fn pool(&self) -> &[u32] {
        &self.pool
    }

    /// Whether no endpoint is available, so that all are used.
    pub(super) fn is_panicking(&self) -> bool {
        let mut slots = self.slots.iter();
        !self.slots.is_empty() && slots.all(|s| s.availability == Availability::Unavailable)
    }

    /// Whether `endpoint` may be chosen.
    pub(super) fn is_pooled(&self, endpoint: u32) -> bool {
        // The pool is all slots, in panic; else the available ones.
        match self.slots.get(endpoint as usize) {
            Some(slot) => {
                slot.availability == Availability::Available || self.pool.len() == self.slots.len()
            }
            None => false,
        }
    }

    /// Weight times its prior, times the ramp of slow start: linear from 10 % (aggression 1).
    pub(super) fn effective_weight(&self, endpoint: u32, now: Duration) -> u64 {
        self.slots
            .get(endpoint as usize)
            .map_or(WEIGHT_UNIT, |slot| slot.effective_weight(now))
    }

    /// Requests in flight, as if the endpoint had the mean weight of the pool.
    pub(super) fn relative_load(&self, endpoint: u32, now: Duration) -> f64 {
        let Some(slot) = self.slots.get(endpoint as usize) else {
            return 0.0;
        };
        if slot.active == 0 {
            return 0.0;
        }
        let sum = self.sums.last().copied().unwrap_or_default();
        let mean = sum as f64 / self.pool.len().max(1) as f64;
        f64::from(slot.active) * mean / slot.effective_weight(now) as f64
    }

    /// Draws by weight: `None` only from an empty pool.
    #[inline]
    pub(super) fn draw(&mut self, random: u64, now: Duration) -> Option<u32> {
        self.follow_ramps(now);
        let total = *self.sums.last()?;
        let at = self.place(scale(random, total));
        self.pool.get(at).copied()
    }

    /// Draws two different ones by weight, the second from what the first leaves; the same one twice
    /// from a pool of one.
    #[inline]
    pub(super) fn draw_two(&mut self, random: u64, now: Duration) -> Option<(u32, u32)> {
        self.follow_ramps(now);
        let total = *self.sums.last()?;
        let first = self.place(scale(random, total));
        let upper = *self.sums.get(first)?;
        let lower = match first {
            0 => 0,
            _ => *self.sums.get(first - 1)?,
        };
        let rest = total - (upper - lower);
        if rest == 0 {
            let only = *self.pool.get(first)?;
            return Some((only, only));
        }
        let point = scale(super::mix(random), rest);
        let point = if point < lower {
            point
        } else {
            point + (upper - lower)
        };
        Some((*self.pool.get(first)?, *self.pool.get(self.place(point))?))
    }

    /// The next in the pool after `endpoint` that is not `tried`; `endpoint` itself if all are.
    pub(super) fn untried_after(&self, endpoint: u32, tried: &[EndpointId]) -> u32 {
        let from = self.pool.partition_point(|e| *e < endpoint);
        let (before, after) = self.pool.split_at_checked(from).unwrap_or_default();
        let mut around = after.iter().chain(before);
        // At most `tried.len()` are passed over.
        around
            .find(|e| !tried.contains(&EndpointId(**e)))
            .copied()
            .unwrap_or(endpoint)
    }

    fn place(&self, point: u64) -> usize {
        self.sums.partition_point(|sum| *sum <= point)
    }

    fn refill(&mut self, now: Duration) {
        let available = |slot: &Slot| slot.availability == Availability::Available;
        let panicking = !self.slots.iter().any(available);
        self.pool.clear();
        let numbered = (0u32..).zip(&self.slots);
        let chosen = numbered.filter(|(_, slot)| panicking || available(slot));
        self.pool.extend(chosen.map(|(i, _)| i));
        self.sums.reserve(self.pool.len());
        self.weigh(now);
    }

    #[inline]
    fn follow_ramps(&mut self, now: Duration) {
        if self.sums_due.is_some_and(|due| now >= due) {
            self.weigh(now);
        }
    }

    /// Sums the effective weights up, and ends ramps that are over.
    fn weigh(&mut self, now: Duration) {
        let mut shortest: Option<Duration> = None;
        let mut sum = 0;
        self.sums.clear();
        for endpoint in &self.pool {
            let Some(slot) = self.slots.get_mut(*endpoint as usize) else {
                continue;
            };
            slot.ramp = slot
                .ramp
                .filter(|ramp| now.saturating_sub(ramp.since) < ramp.over);
            if let Some(ramp) = slot.ramp {
                shortest = Some(shortest.map_or(ramp.over, |over| over.min(ramp.over)));
            }
            sum += slot.effective_weight(now);
            self.sums.push(sum);
        }
        self.sums_due = shortest.map(|over| now + over / RAMP_STEPS);
    }
}

impl Slot {
    fn input(&self) -> EndpointInput {
        EndpointInput {
            key: self.key,
            weight: self.weight as u32,
        }
    }

    fn effective_weight(&self, now: Duration) -> u64 {
        let ramp = match self.ramp {
            Some(Ramp { since, over }) => {
                let elapsed = now.saturating_sub(since).as_nanos();
                let ramp = elapsed * u128::from(WEIGHT_UNIT) / over.as_nanos().max(1);
                (ramp.min(u128::from(WEIGHT_UNIT)) as u64).max(SLOW_START_MIN)
            }
            None => WEIGHT_UNIT,
        };
        let weight = self.weight * ramp;
        match self.prior {
            WHOLE => weight,
            // Nobody has no weight at all: it could not be drawn when it is alone.
            prior => (weight * u64::from(prior) / u64::from(WHOLE)).max(1),
        }
    }
}

/// `random` scaled to `0..n` (Lemire's multiplication; its bias is below n / 2^64).
#[inline]
pub(super) fn scale(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}
