//! Step 4: a limit becomes slots on each shard, and a request takes one or is refused (L6).
//!
//! A shard counts on its own; the coordinator re-divides each tick by what the shards could use. A shard that
//! runs out before the next tick may borrow from one [`Spare`] word a unit, with a single compare-and-swap.
//! So the slots in use over all shards never exceed the limit, but for what was in flight already
//! when it was lowered.

use crate::{
    steering::mix,
    sync::{AtomicI32, Ordering},
};

/// What one shard may use of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Requests in flight.
    pub slots: u32,
}

/// The part of a limit that no shard owns: an eighth, so that a burst on one shard finds something.
const SPARE: u32 = 8;

/// Divides `total` slots by `demands`, each shard getting its part of `floor` whatever it asks for. The
/// sum is `total` less [`spare`].
pub fn split(total: u32, floor: u32, demands: &[u64]) -> Vec<Share> {
    let owned = u64::from(total - spare(total));
    let shards = demands.len().max(1) as u64;
    let base = u64::from(floor).min(owned) / shards;
    let rest = owned - base * shards;
    let parts = divide(rest, demands).into_iter();
    parts
        .map(|part| Share {
            slots: u32::try_from(base + part).unwrap_or(u32::MAX),
        })
        .collect()
}

/// Divides `whole` in proportion to `weights`; evenly, if all of them are 0.
pub(super) fn divide(whole: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u64 = weights.iter().sum();
    let all = if sum == 0 { weights.len() as u64 } else { sum };
    // Cumulative rounding: each part is at most one from the exact one, and the sum is exact.
    let (mut upto, mut given) = (0u64, 0u64);
    let parts = weights.iter().map(|weight| {
        upto += if sum == 0 { 1 } else { *weight };
        let target = (u128::from(whole) * u128::from(upto) / u128::from(all)) as u64;
        let part = target - given;
        given = target;
        part
    });
    parts.collect()
}

/// Takes room from shards while others have more in flight than their part: else a limit that has just been lowered, or
/// moved to other shards, would be exceeded by what is still in flight on the old ones. `held` is what each has in
/// flight on slots of its own, `lent` what all have on borrowed ones.
pub fn make_way(total: u32, shares: &mut [Share], held: &[u32], lent: u32) {
    let pairs = || shares.iter().zip(held);
    let over: u64 = pairs()
        .map(|(share, held)| u64::from(held.saturating_sub(share.slots)))
        .sum::<u64>()
        + u64::from(lent.saturating_sub(spare(total)));
    let room: u64 = pairs()
        .map(|(share, held)| u64::from(share.slots.saturating_sub(*held)))
        .sum();
    if over == 0 || room == 0 {
        return;
    }
    let left = room.saturating_sub(over);
    let (mut upto, mut given) = (0u64, 0u64);
    for (share, held) in shares.iter_mut().zip(held) {
        let Some(own) = share.slots.checked_sub(*held) else {
            continue;
        };
        upto += u64::from(own);
        let target = (u128::from(left) * u128::from(upto) / u128::from(room)) as u64;
        let own = u32::try_from(target - given).unwrap_or(own);
        given = target;
        share.slots = held + own;
    }
}

/// How much of a limit is spare.
pub fn spare(total: u32) -> u32 {
    match total {
        // So few that they would not go round: whoever comes first has them.
        0..SPARE => total,
        _ => total / SPARE,
    }
}

/// Slots that shards may borrow of a limit, with so many lent and so many requests in flight: those that are spare
/// and not lent, and no more than the limit has left. Less than none is what has to come back first.
pub fn free(total: u32, lent: u64, in_flight: u64) -> i32 {
    let slots = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let spare = i64::from(spare(total)).saturating_sub(slots(lent));
    let below = i64::from(total).saturating_sub(slots(in_flight));
    let free = spare.min(below).max(i64::from(i32::MIN));
    i32::try_from(free).unwrap_or(i32::MAX)
}

/// Slots of one unit that any shard may borrow. The one word of the data path that shards share; it is
/// touched only when a shard has run out.
#[derive(Debug, Default)]
pub struct Spare(AtomicI32);

impl Spare {
    /// Makes `slots` the number of free ones. What is lent stays lent, and comes back on top: so the
    /// coordinator passes what is spare less what is lent. That is less than none where a limit was lowered:
    /// else each slot that comes back would be lent again before the next tick, and never be taken away.
    pub fn set(&self, slots: i32) {
        self.0.store(slots, Ordering::Relaxed);
    }

    /// Takes one, if there is one. One attempt: a shard that loses the race refuses.
    pub fn borrow(&self) -> bool {
        let free = self.0.load(Ordering::Relaxed);
        free > 0
            && self
                .0
                .compare_exchange(free, free - 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Gives one back.
    pub fn give_back(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a slot of this shard.
    Admit,
    /// It has a slot from the spare word.
    AdmitBorrowed,
    /// It is refused.
    Shed,
}

/// A shard's slots of one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slots {
    /// `None` is without limit.
    pub limit: Option<Share>,
    /// Requests in flight, borrowed slots not counted.
    pub in_flight: u32,
    /// Share of the callers that are let in while slots are scarce, in basis points.
    pub cohort: u16,
}

impl Slots {
    /// Decides on one request and counts it. `caller` is a hash of who calls and of the epoch, so that a
    /// caller has the same fate within an epoch, and another in the next.
    pub fn take(&mut self, caller: u64, spare: &Spare) -> Verdict {
        let Some(share) = self.limit else {
            self.in_flight += 1;
            return Verdict::Admit;
        };
        let is_scarce = self.in_flight >= share.slots.div_ceil(2);
        if is_scarce && share.slots > 0 && !in_cohort(caller, self.cohort) {
            return Verdict::Shed;
        }
        if self.in_flight < share.slots {
            self.in_flight += 1;
            return Verdict::Admit;
        }
        match spare.borrow() {
            true => Verdict::AdmitBorrowed,
            false => Verdict::Shed,
        }
    }

    /// The request has ended.
    pub fn give_back(&mut self, verdict: Verdict, spare: &Spare) {
        match verdict {
            Verdict::Admit => self.in_flight = self.in_flight.saturating_sub(1),
            Verdict::AdmitBorrowed => spare.give_back(),
            Verdict::Shed => {}
        }
    }
}

/// The share of the callers for whom `total` slots are enough, in basis points, with some to spare: the
/// slots themselves are the limit, the cohort only says whose they are.
pub fn cohort(total: u32, demand: u64) -> u16 {
    const MARGIN: u64 = 12_000;
    let share = u64::from(total) * MARGIN / demand.max(1);
    share.min(10_000) as u16
}

fn in_cohort(caller: u64, basis_points: u16) -> bool {
    mix(caller) % 10_000 < u64::from(basis_points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: slots are neither lost nor invented, and every shard keeps its floor (L6). Method:
        /// any totals, floors and demands.
        #[test]
        fn split_is_exact(
            total in 0u32..100_000,
            floor in 0u32..100,
            demands in prop::collection::vec(0u64..1_000_000, 1..64),
        ) {
            let floor = floor.min(total);
            let shares = split(total, floor, &demands);
            let owned: u32 = shares.iter().map(|s| s.slots).sum();
            prop_assert_eq!(owned + spare(total), total);
            let base = floor.min(total - spare(total)) / demands.len() as u32;
            prop_assert!(shares.iter().all(|s| s.slots >= base));
        }
    }

    proptest! {
        /// Goal: what is in flight and what may still be let in are within the limit over all shards, and no room is
        /// lost while nobody has more than his part (L6). Method: any totals, demands and requests in flight.
        #[test]
        fn ways_are_made(
            total in 0u32..1_000,
            shards in prop::collection::vec((0u64..1_000, 0u32..200), 1..16),
            lent in 0u32..300,
        ) {
            let (demands, held): (Vec<u64>, Vec<u32>) = shards.into_iter().unzip();
            let before = split(total, 0, &demands);
            let mut shares = before.clone();
            make_way(total, &mut shares, &held, lent);
            let owned: u32 = before.iter().map(|share| share.slots).sum();
            let all: u32 = held.iter().sum();
            let most: u32 = shares.iter().zip(&held).map(|(share, held)| share.slots.max(*held)).sum();
            let lent = lent.saturating_sub(spare(total));
            prop_assert_eq!(most + lent, owned.max(all + lent));
            for ((share, before), held) in shares.iter().zip(&before).zip(&held) {
                prop_assert!(share.slots <= before.slots);
                prop_assert!(share.slots == before.slots || share.slots >= *held);
            }
        }
    }

    /// Goal: all clients on one shard do not starve (L6). Method: demand on one of four shards.
    #[test]
    fn demand_draws_the_slots() {
        let shares = split(80, 4, &[100, 0, 0, 0]);
        assert_eq!(
            shares.iter().map(|s| s.slots).collect::<Vec<_>>(),
            [67, 1, 1, 1]
        );
    }

    /// Goal: a shard that ran out borrows, gives back where it took, and never exceeds what there is.
    /// Method: slots and spare used up and returned in another order.
    #[test]
    fn borrows_when_it_ran_out() {
        let spare = Spare::default();
        spare.set(1);
        let mut slots = Slots {
            limit: Some(Share { slots: 2 }),
            in_flight: 0,
            cohort: 10_000,
        };
        let taken: Vec<_> = (0..4).map(|caller| slots.take(caller, &spare)).collect();
        use Verdict::{Admit, AdmitBorrowed, Shed};
        assert_eq!(taken, [Admit, Admit, AdmitBorrowed, Shed]);
        slots.give_back(AdmitBorrowed, &spare);
        assert_eq!(slots.take(9, &spare), AdmitBorrowed);
        slots.give_back(Admit, &spare);
        assert_eq!(slots.take(9, &spare), Admit);
        slots.limit = None;
        assert_eq!(slots.take(9, &spare), Admit);
    }

    /// Goal: a lowered limit takes back what is lent, however many would like to have it (L6). Method: four are
    /// lent, one is left; each that comes back is asked for at once.
    #[test]
    fn what_is_lent_is_taken_back() {
        let spare = Spare::default();
        spare.set(free(4, 0, 0));
        let mut slots = Slots {
            limit: Some(Share::default()),
            ..Slots::default()
        };
        let lent: Vec<_> = (0..4).map(|caller| slots.take(caller, &spare)).collect();
        assert_eq!(lent, [Verdict::AdmitBorrowed; 4]);
        spare.set(free(1, 4, 4));
        for _ in 0..3 {
            slots.give_back(Verdict::AdmitBorrowed, &spare);
            assert_eq!(slots.take(0, &spare), Verdict::Shed);
        }
        slots.give_back(Verdict::AdmitBorrowed, &spare);
        assert_eq!(slots.take(0, &spare), Verdict::AdmitBorrowed);
        assert_eq!(slots.take(0, &spare), Verdict::Shed);
    }

    /// Goal: what is free is spare, not lent, and within the limit, whatever the numbers (L6). Method: table.
    #[test]
    fn free_slots_are_within_the_limit() {
        for (total, lent, in_flight, expected) in [
            (80, 0, 0, 10),
            (80, 4, 60, 6),
            (80, 4, 77, 3),
            (80, 12, 90, -10),
            (80, 12, 60, -2),
            (0, 1, 1, -1),
            (u32::MAX, 0, 0, i32::MAX / 4),
            (0, u64::MAX, u64::MAX, i32::MIN),
        ] {
            assert_eq!(
                free(total, lent, in_flight),
                expected,
                "{total} {lent} {in_flight}"
            );
        }
    }

    /// Goal: the same caller has the same fate within an epoch, and the share of callers let in is the one
    /// asked for. Method: ten thousand callers at scarce slots, each twice.
    #[test]
    fn cohorts_are_stable() {
        let admitted = (0..10_000u64)
            .filter(|caller| in_cohort(*caller, 3_000))
            .count();
        assert!((2_850..3_150).contains(&admitted), "{admitted}");
        assert!((0..100).all(|c| in_cohort(c, 10_000) && !in_cohort(c, 0)));
        assert_eq!(cohort(10, 0), 10_000);
        assert_eq!(cohort(10, 40), 3_000);
    }
}
