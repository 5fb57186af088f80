//! What a balancer knows of each of its endpoints: weight, load, availability, slow start.

use std::time::Duration;

use super::{EndpointInput, ewma::Latency};
use crate::{healing::prior::WHOLE, id::EndpointId, message::Availability};

/// The share of its weight that an endpoint begins a slow start with, in the unit of
/// [`WEIGHT_UNIT`]: Envoy's default of 10 %, so that it gets traffic to warm up with at all.
const SLOW_START_MIN: u64 = WEIGHT_UNIT / 10;

/// One unit of weight, in the fixed point of effective weights: fine enough for a ramp without steps.
pub(super) const WEIGHT_UNIT: u64 = 1 << 16;

/// One endpoint.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) key: u64,
    pub(super) weight: u64,
    pub(super) availability: Availability,
    /// Out of rotation by what the configuration says of it.
    is_out: bool,
    /// Requests in flight.
    pub(super) active: u32,
    pub(super) latency: Latency,
    /// The part of its load that it is to get, in basis points.
    prior: u32,
    /// Its slow start; `None` once it is over.
    pub(super) ramp: Option<Ramp>,
    /// The next request is for it, to see how it does, though it may not be chosen.
    pub(super) trial: bool,
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
}

impl Slots {
    /// Takes new endpoints over. Those whose key stays keep load, latency, availability and ramp; others
    /// are available, and slow-start if `ramp`. Says of each endpoint before where it is now.
    pub(super) fn replace(
        &mut self,
        endpoints: &[EndpointInput],
        slow_start: Duration,
        ramp: bool,
        now: Duration,
    ) -> Vec<Option<u32>> {
        let mut moved = vec![None; self.slots.len()];
        let mut before: Vec<(u64, Option<(u32, Slot)>)> = (0u32..)
            .zip(std::mem::take(&mut self.slots))
            .map(|(at, slot)| (slot.key, Some((at, slot))))
            .collect();
        before.sort_by_key(|(key, _)| *key);
        let mut kept = |key: u64| {
            // Two endpoints may share a key: each takes one of the slots before.
            let from = before.partition_point(|(k, _)| *k < key);
            let same = before.get_mut(from..)?.iter_mut();
            same.take_while(|(k, _)| *k == key)
                .find_map(|(_, slot)| slot.take())
        };
        self.slots = (0u32..)
            .zip(endpoints)
            .map(|(at, input)| {
                let known = kept(input.key).map(|(before, slot)| {
                    if let Some(place) = moved.get_mut(before as usize) {
                        *place = Some(at);
                    }
                    slot
                });
                let slot = known.unwrap_or(Slot {
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
                    is_out: false,
                });
                Slot {
                    weight: u64::from(input.weight.max(1)),
                    is_out: input.is_out,
                    ..slot
                }
            })
            .collect();
        self.slow_start = slow_start;
        self.trials = self.slots.iter().filter(|slot| slot.trial).count() as u32;
        moved
    }

    /// Those of `members`, with their places.
    pub(super) fn of(&self, members: &[u32]) -> impl Iterator<Item = (u32, &Slot)> {
        let slot = |member: &u32| Some((*member, self.slots.get(*member as usize)?));
        members.iter().filter_map(slot)
    }

    /// Whether `endpoint` counts as healthy.
    pub(super) fn is_available(&self, endpoint: u32) -> bool {
        let slot = self.slots.get(endpoint as usize);
        slot.is_some_and(|slot| slot.availability == Availability::Available && !slot.is_out)
    }

    /// How long the slow start of `endpoint` takes, if it is in one.
    pub(super) fn ramp(&self, endpoint: u32, now: Duration) -> Option<Duration> {
        let ramp = self.slots.get(endpoint as usize)?.ramp?;
        (now.saturating_sub(ramp.since) < ramp.over).then_some(ramp.over)
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

    /// The endpoint that is to be tried out, if there is one that this request `may` try.
    #[inline]
    pub(super) fn take_trial(&mut self, may: impl Fn(EndpointId) -> bool) -> Option<EndpointId> {
        if self.trials == 0 {
            return None;
        }
        let mut numbered = (0u32..).map(EndpointId).zip(&mut self.slots);
        let (id, slot) = numbered.find(|(id, slot)| slot.trial && may(*id))?;
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
        true
    }

    /// Whether the part of its load that `endpoint` is to get changed.
    pub(super) fn set_prior(&mut self, endpoint: EndpointId, share: u32) -> bool {
        let slot = self.slots.get_mut(endpoint.index());
        let Some(slot) = slot.filter(|slot| slot.prior != share) else {
            return false;
        };
        slot.prior = share;
        true
    }

    /// Weight times its prior, times the ramp of slow start: linear from 10 % (aggression 1).
    pub(super) fn effective_weight(&self, endpoint: u32, now: Duration) -> u64 {
        self.slots
            .get(endpoint as usize)
            .map_or(WEIGHT_UNIT, |slot| slot.effective_weight(now))
    }
}

impl Slot {
    pub(super) fn effective_weight(&self, now: Duration) -> u64 {
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
