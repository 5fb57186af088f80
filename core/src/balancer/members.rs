//! The endpoints that a pool chooses among, and weighted draws from those of them that may be chosen.

use std::time::Duration;

use super::{mix, slots::Slots};
use crate::id::EndpointId;

/// How often the table of weights follows a ramp: a hundredth of it moves a weight by less than 1 %.
const RAMP_STEPS: u32 = 100;

/// Some of the endpoints of a balancer.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// All of them, ascending.
    all: Vec<u32>,
    /// Those that may be chosen: the available ones; all of them in panic.
    pool: Vec<u32>,
    /// By place in `pool`: the sum of effective weights up to and including it.
    sums: Vec<u64>,
    /// When `sums` must follow a ramp; `None` while no endpoint is in slow start.
    sums_due: Option<Duration>,
    panics: bool,
}

impl Members {
    pub(super) fn new(all: Vec<u32>) -> Members {
        Members {
            all,
            ..Members::default()
        }
    }

    pub(super) fn all(&self) -> &[u32] {
        &self.all
    }

    /// Those that may be chosen.
    pub(super) fn pool(&self) -> &[u32] {
        &self.pool
    }

    /// Whether an endpoint is one of them.
    pub(super) fn contains(&self, endpoint: u32) -> bool {
        self.all.binary_search(&endpoint).is_ok()
    }

    /// Whether a member may be chosen.
    pub(super) fn is_pooled(&self, slots: &Slots, endpoint: u32) -> bool {
        self.panics || slots.is_available(endpoint)
    }

    /// Availability changed. In panic, everybody may be chosen.
    pub(super) fn refill(&mut self, slots: &Slots, panics: bool, now: Duration) {
        self.panics = panics;
        self.pool.clear();
        let chosen = self
            .all
            .iter()
            .filter(|e| panics || slots.is_available(**e));
        self.pool.extend(chosen);
        self.sums.reserve(self.pool.len());
        self.weigh(slots, now);
    }

    /// Sums the effective weights up.
    pub(super) fn weigh(&mut self, slots: &Slots, now: Duration) {
        let mut shortest: Option<Duration> = None;
        let mut sum = 0;
        self.sums.clear();
        for endpoint in &self.pool {
            if let Some(over) = slots.ramp(*endpoint, now) {
                shortest = Some(shortest.map_or(over, |shortest| shortest.min(over)));
            }
            sum += slots.effective_weight(*endpoint, now);
            self.sums.push(sum);
        }
        self.sums_due = shortest.map(|over| now + over / RAMP_STEPS);
    }

    /// Requests in flight, as if the endpoint had the mean weight of the pool.
    pub(super) fn relative_load(&self, slots: &Slots, endpoint: u32, now: Duration) -> f64 {
        let Some(slot) = slots.slots.get(endpoint as usize) else {
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
    pub(super) fn draw(&mut self, slots: &Slots, random: u64, now: Duration) -> Option<u32> {
        self.follow_ramps(slots, now);
        let total = *self.sums.last()?;
        let at = self.place(scale(random, total));
        self.pool.get(at).copied()
    }

    /// Draws two different ones by weight, the second from what the first leaves; the same one twice
    /// from a pool of one.
    #[inline]
    pub(super) fn draw_two(
        &mut self,
        slots: &Slots,
        random: u64,
        now: Duration,
    ) -> Option<(u32, u32)> {
        self.follow_ramps(slots, now);
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
        let point = scale(mix(random), rest);
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

    #[inline]
    fn follow_ramps(&mut self, slots: &Slots, now: Duration) {
        if self.sums_due.is_some_and(|due| now >= due) {
            self.weigh(slots, now);
        }
    }
}

/// `random` scaled to `0..n` (Lemire's multiplication; its bias is below n / 2^64).
#[inline]
pub(super) fn scale(random: u64, n: u64) -> u64 {
    ((u128::from(random) * u128::from(n)) >> 64) as u64
}
