//! Endpoints among which one is chosen by the policy: those of a priority, or of a locality of it.

use std::time::Duration;

use super::{
    edf::Schedule,
    maglev::Table,
    members::{self, Members},
    mix,
    ring::Ring,
    slots::Slots,
};
use crate::{config::model::Balance, id::EndpointId};

/// What a choice is made by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw<'a> {
    /// A fresh random number.
    pub(super) random: u64,
    /// Where the consistent policies look: mixed from the route's hash, or from `random`.
    pub(super) place: u64,
    /// Endpoints that the request has failed on, avoided while there is another.
    pub(super) tried: &'a [EndpointId],
    pub(super) now: Duration,
}

impl Draw<'_> {
    pub(super) fn has_tried(&self, endpoint: u32) -> bool {
        self.tried.contains(&EndpointId(endpoint))
    }
}

/// Endpoints with a policy.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) members: Members,
    policy: Policy,
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

impl Pool {
    pub(super) fn new(policy: Balance, members: Vec<u32>, slots: &Slots) -> Pool {
        let policy = match policy {
            Balance::RoundRobin => Policy::RoundRobin(Schedule::new()),
            Balance::Random => Policy::Random,
            Balance::LeastRequest => Policy::LeastRequest,
            Balance::PeakEwma => Policy::PeakEwma,
            Balance::RingHash => Policy::RingHash(Ring::new(slots, &members)),
            Balance::Maglev => Policy::Maglev(Table::new(slots, &members)),
        };
        Pool {
            members: Members::new(members),
            policy,
        }
    }

    /// Takes over from the pool in its place before what is still good: turns, and tables of the same
    /// endpoints (`same`). `moved` says which endpoint is which now.
    pub(super) fn inherit(&mut self, before: Pool, moved: &[Option<u32>], same: bool) {
        let same = same && self.members.all() == before.members.all();
        match (&mut self.policy, before.policy) {
            (Policy::RoundRobin(schedule), Policy::RoundRobin(mut old)) => {
                old.renumber(moved);
                *schedule = old;
            }
            (Policy::RingHash(ring), Policy::RingHash(old)) if same => *ring = old,
            (Policy::Maglev(table), Policy::Maglev(old)) if same => *table = old,
            _ => {}
        }
    }

    /// Who may be chosen changed.
    pub(super) fn refill(&mut self, slots: &Slots, panics: bool, now: Duration) {
        self.members.refill(slots, panics, now);
        if let Policy::RoundRobin(schedule) = &mut self.policy {
            schedule.refill(&self.members, slots, now);
        }
    }

    /// Weights changed.
    pub(super) fn weigh(&mut self, slots: &Slots, now: Duration) {
        self.members.weigh(slots, now);
        if let Policy::RoundRobin(schedule) = &mut self.policy {
            schedule.refill(&self.members, slots, now);
        }
    }

    /// `None` only if nobody may be chosen.
    #[inline]
    pub(super) fn pick(&mut self, slots: &Slots, draw: &Draw<'_>) -> Option<u32> {
        let Pool { members, policy } = self;
        let now = draw.now;
        match policy {
            Policy::RoundRobin(schedule) => schedule.pick(members, slots, draw),
            Policy::Random => draw_untried(members, slots, draw),
            Policy::LeastRequest => lower_of_two(members, slots, draw, |members, endpoint| {
                members.relative_load(slots, endpoint, now)
            }),
            Policy::PeakEwma => lower_of_two(members, slots, draw, |members, endpoint| {
                let load = members.relative_load(slots, endpoint, now);
                let slot = slots.slots.get(endpoint as usize);
                slot.map_or(0.0, |slot| slot.latency.cost(load, now))
            }),
            Policy::RingHash(ring) => ring
                .find(draw.place, |e| may_choose(members, slots, e, draw))
                .or_else(|| any_place(members, draw)),
            Policy::Maglev(table) => table
                .find(draw.place, |e| may_choose(members, slots, e, draw))
                .or_else(|| any_place(members, draw)),
        }
    }
}

/// How often a draw is repeated that hit endpoints already tried, before their neighbour is taken.
const REDRAWS_MAX: usize = 4;

fn draw_untried(members: &mut Members, slots: &Slots, draw: &Draw<'_>) -> Option<u32> {
    let mut random = draw.random;
    let mut drawn = members.draw(slots, random, draw.now)?;
    for _ in 0..REDRAWS_MAX {
        if !draw.has_tried(drawn) {
            return Some(drawn);
        }
        random = mix(random);
        drawn = members.draw(slots, random, draw.now)?;
    }
    Some(members.untried_after(drawn, draw.tried))
}

/// Power of two choices (Mitzenmacher 2001). Both are drawn by weight, and the first wins a tie: without
/// load the draw alone decides, so that shares follow the weights; under load `cost` does.
fn lower_of_two(
    members: &mut Members,
    slots: &Slots,
    draw: &Draw<'_>,
    cost: impl Fn(&Members, u32) -> f64,
) -> Option<u32> {
    let (mut first, mut second) = members.draw_two(slots, draw.random, draw.now)?;
    if !draw.tried.is_empty() {
        let mut random = draw.random;
        for _ in 0..REDRAWS_MAX {
            if !draw.has_tried(first) || !draw.has_tried(second) {
                break;
            }
            random = mix(random);
            (first, second) = members.draw_two(slots, random, draw.now)?;
        }
        match (draw.has_tried(first), draw.has_tried(second)) {
            (true, true) => return Some(members.untried_after(first, draw.tried)),
            (true, false) => return Some(second),
            (false, true) => return Some(first),
            (false, false) => {}
        }
    }
    if cost(members, second) < cost(members, first) {
        return Some(second);
    }
    Some(first)
}

fn may_choose(members: &Members, slots: &Slots, endpoint: u32, draw: &Draw<'_>) -> bool {
    members.is_pooled(slots, endpoint) && !draw.has_tried(endpoint)
}

/// Where a consistent policy found nobody: almost all endpoints are out, or all in the pool were tried.
fn any_place(members: &Members, draw: &Draw<'_>) -> Option<u32> {
    let pool = members.pool();
    let at = members::scale(draw.place, pool.len() as u64);
    let endpoint = pool.get(at as usize).copied()?;
    Some(members.untried_after(endpoint, draw.tried))
}
