//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): a table in which each endpoint has places in
//! proportion to its weight, taken in turn in the order of its own permutation. One look-up, and a change
//! of the endpoints moves few keys beyond those it must.

use super::{mix, slots::Slots};

/// Table sizes: primes, so that every step walks all places. The largest is the paper's.
const SIZES: [u32; 5] = [251, 1021, 4093, 16_381, 65_537];

/// Places that the endpoint of least weight should have: the paper's 100, so that shares are right
/// within 1 %.
const PLACES_MIN: u64 = 100;

/// How often a key is hashed anew while its endpoint may not be chosen. With half of the endpoints out,
/// one key in 2^32 is left without.
const REHASHES_MAX: usize = 32;

/// The table of one balancer: endpoint by place.
#[derive(Debug)]
pub(super) struct Table(Vec<u32>);

impl Table {
    pub(super) fn new(slots: &Slots, members: &[u32]) -> Table {
        let weights = || slots.of(members).map(|(_, slot)| slot.weight);
        let (Some(weight_min), Some(weight_max)) = (weights().min(), weights().max()) else {
            return Table(Vec::new());
        };
        let aim = weights().sum::<u64>() * PLACES_MIN / weight_min.max(1);
        let [.., largest] = SIZES;
        let size = SIZES.into_iter().find(|size| u64::from(*size) >= aim);
        let size = size.unwrap_or(largest);
        let mut turns: Vec<Turn> = slots
            .of(members)
            .map(|(endpoint, slot)| Turn::new(endpoint, slot.key, slot.weight, size))
            .collect();
        // Whose turn comes first must not depend on the order of the configuration.
        turns.sort_by_key(|turn| turn.key);
        let mut places = vec![u32::MAX; size as usize];
        let mut free = size;
        while free > 0 {
            for turn in &mut turns {
                // A weight is the share of rounds that an endpoint takes part in.
                turn.credit += turn.weight;
                if turn.credit < weight_max {
                    continue;
                }
                turn.credit -= weight_max;
                turn.take_place(&mut places, size);
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        Table(places)
    }

    /// The endpoint of `hash`; while it may not be chosen, that of the hash hashed again, so that only
    /// the keys of that endpoint move, and spread over all others.
    pub(super) fn find(&self, hash: u64, may: impl Fn(u32) -> bool) -> Option<u32> {
        let size = self.0.len() as u64;
        if size == 0 {
            return None;
        }
        std::iter::successors(Some(hash), |hash| Some(mix(*hash)))
            .take(REHASHES_MAX)
            .filter_map(|hash| self.0.get((hash % size) as usize).copied())
            .find(|endpoint| may(*endpoint))
    }
}

/// One endpoint while the table is filled.
struct Turn {
    endpoint: u32,
    key: u64,
    weight: u64,
    credit: u64,
    /// The next place of its permutation: `offset + n * step`.
    next: u32,
    step: u32,
}

impl Turn {
    fn new(endpoint: u32, key: u64, weight: u64, size: u32) -> Turn {
        let (offset, step) = (mix(key), mix(mix(key)));
        Turn {
            endpoint,
            key,
            weight,
            credit: 0,
            next: (offset % u64::from(size)) as u32,
            step: (step % u64::from(size - 1)) as u32 + 1,
        }
    }

    /// Takes the next free place of the permutation; there is one.
    fn take_place(&mut self, places: &mut [u32], size: u32) {
        for _ in 0..size {
            let at = self.next;
            self.next = (at + self.step) % size;
            if let Some(place) = places.get_mut(at as usize)
                && *place == u32::MAX
            {
                *place = self.endpoint;
                return;
            }
        }
    }
}
