//! Ring hash: each endpoint owns points on a circle of 2^64; a request goes to the next point clockwise.
//! An endpoint that leaves gives its keys to its neighbours and moves no other.

use super::{mix, slots::Slots};

/// The most points of a ring, 16 bytes each, unless the weights alone sum to more.
const POINTS_MAX: u64 = 1 << 15;

/// The most points per unit of weight: the load of equal endpoints then deviates by about 1/16.
const POINTS_PER_WEIGHT_MAX: u64 = 256;

/// How far is looked for a point whose endpoint may be chosen. With half of the endpoints out, not one
/// key in 2^64 is left without.
const WALK_MAX: usize = 64;

/// The points of one balancer, ascending.
#[derive(Debug)]
pub(super) struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// The points of an endpoint depend on its key and weight alone as long as the sum of weights stays
    /// within a power of two, so that others do not move when one joins or leaves.
    pub(super) fn new(slots: &Slots, members: &[u32]) -> Ring {
        let total: u64 = slots.of(members).map(|(_, slot)| slot.weight).sum();
        let per_weight =
            (POINTS_MAX / total.next_power_of_two().max(1)).clamp(1, POINTS_PER_WEIGHT_MAX);
        let mut points: Vec<(u64, u32)> = slots
            .of(members)
            .flat_map(|(i, slot)| {
                (0..slot.weight * per_weight).map(move |n| (mix(mix(slot.key) ^ n), i))
            })
            .collect();
        points.sort_unstable();
        Ring(points)
    }

    /// The first endpoint clockwise from `hash` that `may` be chosen, within a bounded walk.
    pub(super) fn find(&self, hash: u64, may: impl Fn(u32) -> bool) -> Option<u32> {
        let from = self.0.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.0.split_at_checked(from)?;
        let clockwise = after.iter().chain(before).map(|(_, endpoint)| *endpoint);
        clockwise.take(WALK_MAX).find(|endpoint| may(*endpoint))
    }
}
