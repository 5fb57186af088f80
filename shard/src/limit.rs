//! Adaptive limiting on this shard: a request takes a slot of its interface, or is refused (L6, L8).
//!
//! A shard decides on its own numbers. What it shares with others is one word an interface, and that only
//! when its own slots are used up.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tidegate_core::{
    config::model::{AdaptiveLimit, PolicyMode},
    id::{InterfaceId, ShardId},
    limiter::{
        ByPriority, Priority,
        decision::{Slots, Verdict},
        interface::Shared,
        orca,
        watermark::Signal,
    },
    message::{LimitCause, LimitRecord, ShardLimit},
    snapshot,
    stats::InterfaceCounters,
};

/// The interfaces of one cluster.
#[derive(Default)]
pub(crate) struct Interfaces {
    /// By [`InterfaceId`] of the snapshot in use.
    all: RefCell<Vec<Rc<Interface>>>,
    cause: Cell<LimitCause>,
    /// Whether it matters what the application says of its load.
    reads_load: Cell<bool>,
}

/// One interface on this shard. It outlives snapshots as long as its names stay.
struct Interface {
    name: Arc<str>,
    shared: Arc<Shared>,
    shard: ShardId,
    gates: ByPriority<Cell<Gate>>,
}

/// Requests of one priority.
#[derive(Clone, Copy, Default)]
struct Gate {
    slots: Slots,
    /// The limit over all shards, for the record.
    total: u32,
    /// An operator has set it.
    by_hand: bool,
    /// In flight, borrowed slots and those of shadow included.
    in_flight: u32,
    /// When that changed, on the driver's clock.
    changed_ns: u64,
}

/// A request that was let in. Dropping it gives its slot back.
pub(crate) struct Pass {
    interface: Rc<Interface>,
    priority: Priority,
    verdict: Verdict,
    reads_load: bool,
    /// The last answer was none of 5xx.
    is_good: Cell<bool>,
    driver: Rc<crate::ring::Driver>,
}

impl Interfaces {
    /// Takes over the interfaces of a new snapshot. Those that stay keep their slots.
    pub(crate) fn update(&self, cluster: &snapshot::Cluster, shard: ShardId) {
        let old = self.all.take();
        let kept = |shared: &Arc<Shared>| old.iter().find(|i| Arc::ptr_eq(&i.shared, shared));
        let new = cluster.interfaces.iter().map(|interface| {
            let known = kept(&interface.shared).cloned();
            known.unwrap_or_else(|| {
                Rc::new(Interface {
                    name: interface.name.clone(),
                    shared: interface.shared.clone(),
                    shard,
                    gates: ByPriority::default(),
                })
            })
        });
        self.all.replace(new.collect());
        let rule = cluster.config.adaptive_limit.as_deref();
        let target = rule.and_then(|rule| rule.policy.targets.get(Signal::App));
        self.reads_load.set(target.is_some());
    }

    /// Takes new limits, in place of all before.
    pub(crate) fn set(&self, cause: LimitCause, limits: &[ShardLimit]) {
        self.cause.set(cause);
        let all = self.all.borrow();
        for interface in all.iter() {
            for gate in interface.gates.iter() {
                let mut now = gate.get();
                now.slots.limit = None;
                gate.set(now);
            }
        }
        for limit in limits {
            let Some(interface) = all.get(limit.interface.index()) else {
                continue;
            };
            let gate = interface.gates.of(limit.priority);
            let mut now = gate.get();
            now.slots.limit = Some(limit.share);
            now.slots.cohort = limit.cohort;
            now.total = limit.total;
            now.by_hand = limit.by_hand;
            gate.set(now);
        }
    }

    /// Lets a request in, or says what limit it is over. `caller` is a hash of who calls.
    pub(crate) fn enter(
        &self,
        rule: &AdaptiveLimit,
        id: InterfaceId,
        priority: Priority,
        caller: u64,
        driver: &Rc<crate::ring::Driver>,
    ) -> Option<Result<Pass, Box<LimitRecord>>> {
        let interface = self.all.borrow().get(id.index())?.clone();
        let counters = interface.counters(priority)?;
        let gate = interface.gates.of(priority);
        let mut now = gate.get();
        let cause = self.cause.get();
        // The epoch in it: another caller is the unlucky one when limits change.
        let caller = caller ^ cause.epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut verdict = now.slots.take(caller, interface.shared.spare(priority));
        if verdict == Verdict::Shed && rule.mode == PolicyMode::Shadow {
            counters.would_refuse.add(1);
            now.slots.in_flight += 1;
            verdict = Verdict::Admit;
        }
        match verdict {
            Verdict::Shed => {
                counters.refused.add(1);
                return Some(Err(Box::new(LimitRecord {
                    interface: interface.name.clone(),
                    priority,
                    limit: now.total,
                    in_flight: now.in_flight,
                    cause,
                    by_hand: now.by_hand,
                })));
            }
            Verdict::AdmitBorrowed => counters.borrowed.add(1),
            Verdict::Admit => {}
        }
        now.moves(driver.now_ns(), counters);
        now.in_flight += 1;
        counters.admitted.add(1);
        counters.in_flight.set(u64::from(now.in_flight));
        gate.set(now);
        Some(Ok(Pass {
            driver: driver.clone(),
            interface,
            priority,
            verdict,
            reads_load: self.reads_load.get(),
            is_good: Cell::new(false),
        }))
    }
}

impl Pass {
    /// The application answered; `load` is what it says of its load in that, if it does.
    pub(crate) fn answered<'a>(&self, status: u16, load: impl FnOnce() -> Option<&'a [u8]>) {
        self.is_good.set(status < 500);
        if !self.reads_load {
            return;
        }
        let Some((counters, said)) = self.interface.counters(self.priority).zip(load()) else {
            return;
        };
        let said = orca::read(said);
        if let Some(permille) = said.permille {
            counters.load_reports.add(1);
            counters.load_permille.add(u64::from(permille));
        }
        counters.cpu_ns.add(said.cpu_ns.unwrap_or_default());
    }
}

impl Interface {
    fn counters(&self, priority: Priority) -> Option<&InterfaceCounters> {
        Some(self.shared.counters.get(self.shard)?.of(priority))
    }
}

impl Gate {
    /// Counts the time up to now in which nothing changed.
    fn moves(&mut self, now_ns: u64, counters: &InterfaceCounters) {
        let passed = now_ns.saturating_sub(self.changed_ns);
        counters
            .in_flight_ns
            .add(passed * u64::from(self.in_flight));
        self.changed_ns = now_ns;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let gate = self.interface.gates.of(self.priority);
        let mut now = gate.get();
        now.slots
            .give_back(self.verdict, self.interface.shared.spare(self.priority));
        if let Some(counters) = self.interface.counters(self.priority) {
            now.moves(self.driver.now_ns(), counters);
            now.in_flight = now.in_flight.saturating_sub(1);
            counters.completed.add(1);
            counters.failed.add(u64::from(!self.is_good.get()));
            counters.in_flight.set(u64::from(now.in_flight));
            if self.verdict == Verdict::AdmitBorrowed {
                counters.borrowed.sub(1);
            }
        }
        gate.set(now);
    }
}
