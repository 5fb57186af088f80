//! Smooth weighted round robin: earliest deadline first.
//!
//! In virtual time an endpoint of weight w is due every 1/w. The one due first is chosen and is due again
//! 1/w later, so a heavy endpoint's turns lie between those of the light ones rather than in a row.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::slots::{Slots, WEIGHT_UNIT, scale};
use crate::id::EndpointId;

/// The period of an endpoint of weight 1: that of weight 128 is still exact to 1 in 8000.
const PERIOD: u64 = 1 << 20;

/// When virtual time starts over, far from overflow.
const TIME_MAX: u64 = 1 << 60;

/// The schedule of one balancer.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Next turn and endpoint, of those in the pool.
    queue: BinaryHeap<Reverse<(u64, u32)>>,
    /// Those passed over within one pick.
    passed: Vec<Reverse<(u64, u32)>>,
    /// The virtual time: the last turn taken.
    time: u64,
    /// Whether the first turns still have to be laid out.
    fresh: bool,
}

impl Schedule {
    pub(super) fn new() -> Self {
        Schedule {
            fresh: true,
            ..Schedule::default()
        }
    }

    /// The pool changed. Those that stay keep their turn; others are due one period from now. Virtual
    /// time starts over.
    pub(super) fn refill(&mut self, slots: &mut Slots, now: Duration) {
        if self.fresh {
            return;
        }
        let time = std::mem::take(&mut self.time);
        self.queue.clear();
        for at in 0..slots.pool().len() {
            let Some(endpoint) = slots.pool().get(at).copied() else {
                break;
            };
            let period = period(slots, endpoint, now);
            let Some(slot) = slots.slots.get_mut(endpoint as usize) else {
                continue;
            };
            // One that was out of the pool meanwhile must not make up for the turns it missed.
            slot.deadline = match slot.deadline.checked_sub(time) {
                Some(wait) if wait <= period => wait,
                _ => period,
            };
            self.queue.push(Reverse((slot.deadline, endpoint)));
        }
        self.passed.reserve(self.queue.len());
    }

    pub(super) fn pick(
        &mut self,
        slots: &mut Slots,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<u32> {
        if self.fresh {
            self.lay_out(slots, random, now);
        } else if self.time > TIME_MAX {
            self.refill(slots, now);
        }
        let mut chosen = None;
        while let Some(Reverse((deadline, endpoint))) = self.queue.pop() {
            if !tried.contains(&EndpointId(endpoint)) {
                chosen = Some((deadline, endpoint));
                break;
            }
            self.passed.push(Reverse((deadline, endpoint)));
        }
        // All tried: the one that is due first after all.
        let chosen = chosen.or_else(|| {
            self.passed.reverse();
            self.passed.pop().map(|Reverse(due)| due)
        });
        self.queue.extend(self.passed.drain(..));
        let (deadline, endpoint) = chosen?;
        self.time = self.time.max(deadline);
        let next = deadline + period(slots, endpoint, now);
        if let Some(slot) = slots.slots.get_mut(endpoint as usize) {
            slot.deadline = next;
        }
        self.queue.push(Reverse((next, endpoint)));
        Some(endpoint)
    }

    /// Spreads the first turns evenly, beginning anywhere: shards that start together must not all send
    /// their first request to the first endpoint.
    fn lay_out(&mut self, slots: &mut Slots, random: u64, now: Duration) {
        self.fresh = false;
        let n = slots.slots.len() as u64;
        let begin = scale(random, n.max(1));
        for i in 0..n {
            let turn = (i + n - begin) % n + 1;
            let period = period(slots, i as u32, now);
            if let Some(slot) = slots.slots.get_mut(i as usize) {
                slot.deadline = (u128::from(period) * u128::from(turn) / u128::from(n)) as u64;
            }
        }
        self.refill(slots, now);
    }
}

fn period(slots: &Slots, endpoint: u32, now: Duration) -> u64 {
    PERIOD * WEIGHT_UNIT / slots.effective_weight(endpoint, now).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::EndpointInput;

    /// Goal: turns go on when virtual time starts over. Method: three endpoints, with time set to where
    /// it would be after years.
    #[test]
    fn virtual_time_starts_over() {
        let inputs = [1, 2, 3].map(|key| EndpointInput { key, weight: 1 });
        let now = Duration::ZERO;
        let mut slots = Slots::default();
        slots.replace(&inputs, now, false, now);
        let mut schedule = Schedule::new();
        let before: Vec<_> = (0..3)
            .map(|_| schedule.pick(&mut slots, 0, &[], now))
            .collect();
        schedule.time += TIME_MAX;
        for slot in &mut slots.slots {
            slot.deadline += TIME_MAX;
        }
        let after: Vec<_> = (0..3)
            .map(|_| schedule.pick(&mut slots, 0, &[], now))
            .collect();
        assert_eq!(before, after);
        assert!(schedule.time < TIME_MAX);
    }
}
