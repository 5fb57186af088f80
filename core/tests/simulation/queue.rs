//! A small application, request by request: one thread that computes for one after the other within the quota of
//! its control group, then waits as for a database. What `tidegate-lab overload` has, in virtual time.
//!
//! Nothing but its CPU time is known of it, as in a control group of version 1; and that cannot exceed its quota.

use std::collections::VecDeque;

use tidegate_core::limiter::{
    Limiter, Policy, Priority,
    baseline::Usage,
    decision::{Slots, Spare, Verdict, cohort, free},
    watermark::{Sample, Signal},
};

use super::{Random, machine::TICK};

/// Seconds of a step of the machine.
const STEP: f64 = 0.000_5;
/// An answer is worth something for so long after its request was due.
const OBJECTIVE: f64 = 0.25;
/// A client hangs up after this; the application computes for it all the same.
const PATIENCE: f64 = 1.0;
/// Callers of each class.
const CALLERS: usize = 64;
/// The classes, what matters most first.
pub const CLASSES: [Priority; 4] = [
    Priority::Critical,
    Priority::Normal,
    Priority::Batch,
    Priority::Stress,
];

/// What the application costs and gets.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// CPU time of a request, in seconds.
    pub cpu: f64,
    /// Time that each waits for something else.
    pub wait: f64,
    /// CPUs that it may use, at most one.
    pub quota: f64,
    /// The quota is for each of these.
    pub period: f64,
    /// The part of the requests that is critical; the others are 45 %, 35 % and 20 % of the rest.
    pub critical: f64,
}

impl Needs {
    /// Requests per second that it can answer.
    pub fn capacity(&self) -> f64 {
        self.quota / self.cpu
    }

    fn parts(&self) -> [f64; 4] {
        let rest = 1.0 - self.critical;
        [self.critical, 0.45 * rest, 0.35 * rest, 0.2 * rest]
    }
}

/// What became of the requests of a class that were due in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fates {
    pub offered: u32,
    /// Answered in time.
    pub good: u32,
    pub refused: u32,
}

struct Request {
    class: usize,
    shard: usize,
    due: f64,
    verdict: Verdict,
    /// Whether it still holds its slot.
    is_open: bool,
}

/// One shard's counts of one class, since the last tick.
#[derive(Clone, Copy, Default)]
struct Gate {
    slots: Slots,
    in_flight: u32,
    borrowed: u32,
    usage: Usage,
}

/// The application, behind a proxy of some shards.
pub struct Queue {
    needs: Needs,
    now: f64,
    random: Random,
    next_arrival: f64,
    requests: Vec<Request>,
    /// Those for which is to be computed, with what is left of it.
    computing: VecDeque<(usize, f64)>,
    /// Those that wait, and until when.
    waiting: VecDeque<(f64, usize)>,
    /// Those whose client may hang up, the oldest first: all that are open are among them.
    patient: VecDeque<usize>,
    /// CPU time used in this period of the quota, and in this tick.
    used_of_period: f64,
    used_of_tick: f64,
    next_period: f64,
    next_tick: f64,
    limiter: Option<Limiter>,
    gates: Vec<[Gate; 4]>,
    spares: [Spare; 4],
    lent: [u32; 4],
    /// By class: the most that it may have in flight as of the last tick, the limit or what was there already.
    limits: [Option<u32>; 4],
    /// The most that a request let in was above that, in slots, and what that was.
    pub most_over: (u32, u32),
    fates: [Fates; 4],
    /// Of those that are due from here on, fates are counted.
    counted_from: f64,
    counted_to: f64,
}

impl Queue {
    pub fn new(needs: Needs, shards: usize, limited: bool, seed: u64) -> Queue {
        let mut random = Random::new(seed);
        // Ticks and periods are not in step with anything.
        let next_tick = random.between(0.0, TICK);
        let next_period = random.between(0.0, needs.period);
        Queue {
            needs,
            now: 0.0,
            random,
            next_arrival: 0.0,
            requests: Vec::new(),
            computing: VecDeque::new(),
            waiting: VecDeque::new(),
            patient: VecDeque::new(),
            used_of_period: 0.0,
            used_of_tick: 0.0,
            next_period,
            next_tick,
            limiter: limited.then(|| Limiter::new(Policy::default())),
            gates: vec![[Gate::default(); 4]; shards],
            spares: Default::default(),
            lent: [0; 4],
            limits: [None; 4],
            most_over: (0, 0),
            fates: Default::default(),
            counted_from: 0.0,
            counted_to: f64::MAX,
        }
    }

    /// Runs for `seconds` at `times` the capacity; the fates of what was due in them so far.
    pub fn run(&mut self, seconds: f64, times: f64) {
        let until = self.now + seconds;
        let rate = times * self.needs.capacity();
        self.next_arrival = self.now + self.exponential(rate);
        while self.now < until {
            self.now += STEP;
            while self.next_arrival <= self.now {
                self.arrive();
                self.next_arrival += self.exponential(rate);
            }
            self.compute();
            self.answer();
            self.hang_up();
            if self.now >= self.next_tick {
                self.next_tick += TICK;
                self.tick();
            }
        }
    }

    /// The same, and what became of what was due in it, of which the last has its time.
    pub fn measured(&mut self, seconds: f64, times: f64) -> [Fates; 4] {
        self.fates = Default::default();
        self.counted_from = self.now;
        self.counted_to = self.now + seconds;
        self.run(seconds, times);
        self.run(PATIENCE, times);
        self.fates
    }

    /// Another part of the requests is critical from now on.
    pub fn set_critical(&mut self, critical: f64) {
        self.needs.critical = critical;
    }

    fn exponential(&mut self, rate: f64) -> f64 {
        match rate > 0.0 {
            true => -(1.0 - self.random.next()).ln() / rate,
            false => f64::INFINITY,
        }
    }

    fn counts(&self, due: f64) -> bool {
        (self.counted_from..self.counted_to).contains(&due)
    }

    fn arrive(&mut self) {
        let mut drawn = self.random.next();
        let parts = self.needs.parts();
        let class = parts.iter().position(|part| {
            drawn -= part;
            drawn < 0.0
        });
        let class = class.unwrap_or(1);
        let shard = self.random.below(self.gates.len());
        let caller = (class * CALLERS + self.random.below(CALLERS)) as u64;
        let due = self.next_arrival;
        let is_counted = self.counts(due);
        let gate = &mut self.gates[shard][class];
        let verdict = gate.slots.take(caller, &self.spares[class]);
        let fates = &mut self.fates[class];
        fates.offered += u32::from(is_counted);
        if verdict == Verdict::Shed {
            fates.refused += u32::from(is_counted);
            gate.usage.refused += 1;
            return;
        }
        gate.usage.admitted += 1;
        gate.in_flight += 1;
        let is_borrowed = u32::from(verdict == Verdict::AdmitBorrowed);
        gate.borrowed += is_borrowed;
        self.lent[class] += is_borrowed;
        if let Some(limit) = self.limits[class] {
            let in_flight: u32 = self.gates.iter().map(|gates| gates[class].in_flight).sum();
            let over = (in_flight.saturating_sub(limit), limit);
            self.most_over = self.most_over.max(over);
        }
        let id = self.requests.len();
        self.requests.push(Request {
            class,
            shard,
            due,
            verdict,
            is_open: true,
        });
        self.computing.push_back((id, self.needs.cpu));
        self.patient.push_back(id);
    }

    fn compute(&mut self) {
        if self.now >= self.next_period {
            self.next_period += self.needs.period;
            self.used_of_period = 0.0;
        }
        let of_period = self.needs.quota * self.needs.period - self.used_of_period;
        let mut budget = STEP.min(of_period);
        while budget > 1e-9 {
            let Some((id, left)) = self.computing.front_mut() else {
                return;
            };
            let used = budget.min(*left);
            *left -= used;
            budget -= used;
            self.used_of_period += used;
            self.used_of_tick += used;
            if *left <= 1e-9 {
                self.waiting.push_back((self.now + self.needs.wait, *id));
                self.computing.pop_front();
            }
        }
    }

    fn answer(&mut self) {
        while let Some((at, id)) = self.waiting.front().copied()
            && at <= self.now
        {
            self.waiting.pop_front();
            let request = &self.requests[id];
            let is_good = request.is_open && self.now - request.due <= OBJECTIVE;
            if is_good && self.counts(request.due) {
                self.fates[request.class].good += 1;
            }
            self.close(id);
        }
    }

    fn hang_up(&mut self) {
        while let Some(id) = self.patient.front().copied()
            && self.requests[id].due + PATIENCE <= self.now
        {
            self.patient.pop_front();
            self.close(id);
        }
    }

    fn close(&mut self, id: usize) {
        let request = &mut self.requests[id];
        if !std::mem::take(&mut request.is_open) {
            return;
        }
        let gate = &mut self.gates[request.shard][request.class];
        gate.in_flight -= 1;
        gate.slots
            .give_back(request.verdict, &self.spares[request.class]);
        let was_borrowed = u32::from(request.verdict == Verdict::AdmitBorrowed);
        gate.borrowed -= was_borrowed;
        self.lent[request.class] -= was_borrowed;
        // Time in flight is added up where it ends, or a tick does.
        gate.usage.in_flight_ns += in_flight_ns(request.due.max(self.next_tick - TICK), self.now);
    }

    fn tick(&mut self) {
        let mut sample = Sample::default();
        sample.set(Signal::Cpu, self.used_of_tick / TICK / self.needs.quota);
        self.used_of_tick = 0.0;
        let since = self.next_tick - 2.0 * TICK;
        let recent = self.patient.iter().map(|id| &self.requests[*id]);
        for request in recent.filter(|request| request.is_open) {
            let gate = &mut self.gates[request.shard][request.class];
            gate.usage.in_flight_ns += in_flight_ns(request.due.max(since), self.now);
        }
        let gates = &mut self.gates;
        let mut usage = |class: usize| -> Vec<Usage> {
            let shards = gates.iter_mut();
            shards
                .map(|gates| Usage {
                    in_flight: gates[class].in_flight,
                    borrowed: gates[class].borrowed,
                    ..std::mem::take(&mut gates[class].usage)
                })
                .collect()
        };
        let units: Vec<_> = (0..4).map(|class| (CLASSES[class], usage(class))).collect();
        let in_flight: [u32; 4] = std::array::from_fn(|class| {
            let shards = self.gates.iter();
            shards.map(|gates| gates[class].in_flight).sum()
        });
        let Some(limiter) = &mut self.limiter else {
            return;
        };
        let decided = limiter.tick(&sample, &units, TICK);
        let limits = &mut self.limits;
        for (class, limits) in limits.iter_mut().enumerate() {
            let limit = decided.limits.iter().find(|limit| limit.unit == class);
            *limits = limit.map(|limit| limit.total.max(in_flight[class]));
            for (shard, gates) in self.gates.iter_mut().enumerate() {
                gates[class].slots.limit = limit.map(|limit| limit.shares[shard]);
                let of_callers = limit.map(|limit| cohort(limit.total, limit.demand));
                gates[class].slots.cohort = of_callers.unwrap_or(10_000);
            }
            let total = limit.map_or(0, |limit| limit.total);
            let (lent, in_flight) = (self.lent[class].into(), in_flight[class].into());
            self.spares[class].set(free(total, lent, in_flight));
        }
    }
}

fn in_flight_ns(from: f64, to: f64) -> u64 {
    ((to - from).max(0.0) * 1e9) as u64
}
