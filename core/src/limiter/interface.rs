//! What the requests of an interface came to, as shards count it and as the coordinator reads it.

use std::sync::Arc;

use super::{ByPriority, Priority, baseline::Usage, decision::Spare};
use crate::stats::{InterfaceCounters, PerShard};

/// One shard's counters of one interface, by priority.
pub type InterfaceSlab = ByPriority<InterfaceCounters>;

/// An interface over all shards: its counters, and the slots that shards may borrow.
#[derive(Debug)]
pub struct Shared {
    /// By shard.
    pub counters: PerShard<InterfaceSlab>,
    spare: ByPriority<Spare>,
}

impl Shared {
    /// An interface without requests.
    pub fn new(shards: usize) -> Arc<Shared> {
        Arc::new(Shared {
            counters: PerShard::new(shards),
            spare: ByPriority::default(),
        })
    }

    /// Slots that any shard may borrow.
    pub fn spare(&self, priority: Priority) -> &Spare {
        self.spare.of(priority)
    }

    /// Whether a request of this priority was ever seen.
    pub fn is_used(&self, priority: Priority) -> bool {
        let seen = |slab: &InterfaceSlab| {
            let counters = slab.of(priority);
            counters.admitted.get() + counters.refused.get()
        };
        self.counters.sum(seen) > 0
    }

    /// Requests in flight.
    pub fn in_flight(&self, priority: Priority) -> u64 {
        self.counters.sum(|slab| slab.of(priority).in_flight.get())
    }

    /// Requests in flight on borrowed slots.
    pub fn borrowed(&self, priority: Priority) -> u64 {
        self.counters.sum(|slab| slab.of(priority).borrowed.get())
    }
}

/// What one shard's counters said at the last tick.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    admitted: u64,
    refused: u64,
    completed: u64,
    in_flight: u64,
    borrowed: u64,
    in_flight_ns: u64,
    cpu_ns: u64,
    load_reports: u64,
    load_permille: u64,
}

impl Seen {
    fn of(counters: &InterfaceCounters) -> Seen {
        Seen {
            admitted: counters.admitted.get(),
            refused: counters.refused.get(),
            completed: counters.completed.get(),
            in_flight: counters.in_flight.get(),
            borrowed: counters.borrowed.get(),
            in_flight_ns: counters.in_flight_ns.get(),
            cpu_ns: counters.cpu_ns.get(),
            load_reports: counters.load_reports.get(),
            load_permille: counters.load_permille.get(),
        }
    }
}

/// Reads the counters of an interface at one priority, tick by tick.
#[derive(Clone, Debug)]
pub struct Meter {
    priority: Priority,
    shards: Vec<Seen>,
}

impl Meter {
    /// Begins where nothing was counted: the first step has all that was.
    pub fn new(priority: Priority, shards: usize) -> Meter {
        Meter {
            priority,
            shards: vec![Seen::default(); shards],
        }
    }

    /// What was counted since the last step, `tick_s` seconds ago, by shard.
    pub fn step(&mut self, counters: &PerShard<InterfaceSlab>, tick_s: f64) -> Vec<Usage> {
        let shards = self.shards.iter_mut().zip(counters.iter());
        shards
            .map(|(seen, slab)| {
                let now = Seen::of(slab.of(self.priority));
                let usage = usage(seen, &now, tick_s);
                *seen = now;
                usage
            })
            .collect()
    }
}

fn usage(before: &Seen, now: &Seen, tick_s: f64) -> Usage {
    let admitted = now.admitted.saturating_sub(before.admitted);
    let completed = now.completed.saturating_sub(before.completed);
    let tick_ns = tick_s * 1e9;
    let in_flight_ns = match admitted + completed {
        // A shard adds the time up when something changes: nothing has, so it is what it was.
        0 => now.in_flight as f64 * tick_ns,
        // That of ticks without change comes in one piece, and was counted already.
        _ => {
            let added = now.in_flight_ns.saturating_sub(before.in_flight_ns) as f64;
            added.min((before.in_flight + admitted) as f64 * tick_ns)
        }
    };
    Usage {
        admitted,
        refused: now.refused.saturating_sub(before.refused),
        in_flight: u32::try_from(now.in_flight).unwrap_or(u32::MAX),
        borrowed: u32::try_from(now.borrowed).unwrap_or(u32::MAX),
        in_flight_ns: in_flight_ns as u64,
        cpu_ns: now.cpu_ns.saturating_sub(before.cpu_ns),
        load_reports: now.load_reports.saturating_sub(before.load_reports),
        load_permille: now.load_permille.saturating_sub(before.load_permille),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ShardId;

    /// Goal: concurrency is what it was, also over ticks in which nothing changes (L4). Method: two requests
    /// for three ticks, counted when they begin and end.
    #[test]
    fn time_in_flight_is_counted_once() {
        let shared = Shared::new(1);
        let mut meter = Meter::new(Priority::Normal, 1);
        let counters = shared
            .counters
            .get(ShardId(0))
            .unwrap_or_else(|| unreachable!())
            .of(Priority::Normal);
        let mut step = || meter.step(&shared.counters, 0.1).remove(0);
        counters.admitted.add(2);
        counters.in_flight.set(2);
        assert_eq!(step().admitted, 2);
        let concurrency = |usage: Usage| usage.in_flight_ns as f64 / 1e8;
        assert_eq!(concurrency(step()), 2.0);
        // In the middle of the third tick both end.
        counters.in_flight_ns.add(2 * 250_000_000);
        counters.in_flight.set(0);
        counters.completed.add(2);
        assert_eq!(concurrency(step()), 2.0);
        assert_eq!(concurrency(step()), 0.0);
        assert!(shared.is_used(Priority::Normal) && !shared.is_used(Priority::Batch));
    }
}
