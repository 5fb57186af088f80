//! Smooth weighted round robin: earliest deadline first.
//!
//! In virtual time an endpoint of weight w is due every 1/w. The one due first is chosen and is due again
//! 1/w later, so a heavy endpoint's turns lie between those of the light ones rather than in a row.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{
    members::{Members, scale},
    pool::Draw,
    slots::{Slots, WEIGHT_UNIT},
};

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

    /// The pool changed. Those that stay keep their turn; others are due one period from now: one that was
    /// out meanwhile must not make up for the turns it missed. Virtual time starts over.
    pub(super) fn refill(&mut self, members: &Members, slots: &Slots, now: Duration) {
        if self.fresh {
            return;
        }
        let time = std::mem::take(&mut self.time);
        let turns = self.queue.drain();
        let mut turns: Vec<(u32, u64)> = turns.map(|Reverse((due, e))| (e, due)).collect();
        turns.sort_unstable();
        for endpoint in members.pool() {
            let period = period(slots, *endpoint, now);
            let at = turns.partition_point(|(e, _)| e < endpoint);
            let turn = turns.get(at).filter(|(e, _)| e == endpoint);
            let wait = turn.and_then(|(_, due)| due.checked_sub(time));
            let wait = wait.filter(|wait| *wait <= period).unwrap_or(period);
            self.queue.push(Reverse((wait, *endpoint)));
        }
        self.passed.reserve(self.queue.len());
    }

    /// Endpoints have other places now; those without one are gone.
    pub(super) fn renumber(&mut self, moved: &[Option<u32>]) {
        let turns = std::mem::take(&mut self.queue).into_iter();
        let turns = turns.filter_map(|Reverse((due, endpoint))| {
            let now_at = moved.get(endpoint as usize).copied().flatten()?;
            Some(Reverse((due, now_at)))
        });
        self.queue = turns.collect();
    }

    pub(super) fn pick(
        &mut self,
        members: &Members,
        slots: &Slots,
        draw: &Draw<'_>,
    ) -> Option<u32> {
        let now = draw.now;
        if self.fresh {
            self.lay_out(members, slots, draw);
        } else if self.time > TIME_MAX {
            self.refill(members, slots, now);
        }
        let mut chosen = None;
        while let Some(Reverse((deadline, endpoint))) = self.queue.pop() {
            if !draw.has_tried(endpoint) {
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
        self.queue.push(Reverse((next, endpoint)));
        Some(endpoint)
    }

    /// Spreads the first turns evenly, beginning anywhere: shards that start together must not all send
    /// their first request to the first endpoint.
    fn lay_out(&mut self, members: &Members, slots: &Slots, draw: &Draw<'_>) {
        self.fresh = false;
        let n = members.pool().len() as u64;
        let begin = scale(draw.random, n.max(1));
        for (i, endpoint) in (0..).zip(members.pool()) {
            let turn = (i + n - begin) % n + 1;
            let period = period(slots, *endpoint, draw.now);
            let due = (u128::from(period) * u128::from(turn) / u128::from(n)) as u64;
            self.queue.push(Reverse((due, *endpoint)));
        }
        self.passed.reserve(self.queue.len());
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
        let inputs = [1, 2, 3].map(|key| EndpointInput::new(key, 1));
        let now = Duration::ZERO;
        let mut slots = Slots::default();
        slots.replace(&inputs, now, false, now);
        let mut members = Members::new(vec![0, 1, 2]);
        members.refill(&slots, false, now);
        let draw = Draw {
            random: 0,
            place: 0,
            tried: &[],
            now,
        };
        let mut schedule = Schedule::new();
        let before: Vec<_> = (0..3)
            .map(|_| schedule.pick(&members, &slots, &draw))
            .collect();
        schedule.time += TIME_MAX;
        let turns = std::mem::take(&mut schedule.queue).into_iter();
        schedule.queue = turns
            .map(|Reverse((due, endpoint))| Reverse((due + TIME_MAX, endpoint)))
            .collect();
        let after: Vec<_> = (0..3)
            .map(|_| schedule.pick(&members, &slots, &draw))
            .collect();
        assert_eq!(before, after);
        assert!(schedule.time < TIME_MAX);
    }
}
