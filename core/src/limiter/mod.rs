//! Adaptive rate limiting, the policy of it: limits that nobody has to set.
//!
//! Four steps, one file each (spec: L1–L13). Every 100 ms:
//!
//! 1. [`watermark`]: how much of the machine is in use, as one number; 1 is full. [`orca`] is what the application
//!    says of itself.
//! 2. [`baseline`]: what each unit costs and which of them push; the concurrency that was healthy.
//! 3. [`regulator`]: limits move with the watermark.
//! 4. [`decision`]: a limit becomes slots on each shard, and a request takes one or is refused.
//!
//! [`Limiter`] is the four of them in a row: samples and counts in, limits out. No clock, no I/O: an hour
//! of it is a unit test.
//!
//! [`application`] is one rule at work over the counters of [`interface`]; [`pressure`] is what the center learns
//! of it.
//!
//! [`bucket`] stands beside them: plain limits, for those who want to set them (L13).
//!
//! A *unit* is what is limited: one interface (what a caller calls) at one [`Priority`].

pub mod application;
pub mod baseline;
pub mod bucket;
pub mod decision;
pub mod interface;
pub mod orca;
pub mod pressure;
pub mod regulator;
pub mod watermark;

use baseline::{Baseline, Usage};
use decision::{Share, split};
use regulator::Regulator;
use watermark::{AT_ONCE, Phase, Reading, Sample, Targets, Trigger};

/// Which requests are refused last: the order of the variants is the order of shedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Stress-test traffic: none of it while the machine is over its watermark.
    Stress,
    /// Work that can wait.
    Batch,
    /// Everything that says nothing.
    #[default]
    Normal,
    /// What must go on.
    Critical,
}

impl Priority {
    /// Every priority, in the order of shedding.
    pub const ALL: [Priority; 4] = [
        Priority::Stress,
        Priority::Batch,
        Priority::Normal,
        Priority::Critical,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The priority of a word.
    pub fn of(word: &[u8]) -> Option<Priority> {
        Self::ALL.into_iter().find(|p| p.word().as_bytes() == word)
    }

    /// The word in configuration, metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Priority::Stress => "stress",
            Priority::Batch => "batch",
            Priority::Normal => "normal",
            Priority::Critical => "critical",
        }
    }
}

/// One `T` a priority.
#[derive(Debug, Default)]
pub struct ByPriority<T>([T; Priority::COUNT]);

impl<T> ByPriority<T> {
    /// The one of a priority.
    #[inline]
    pub fn of(&self, priority: Priority) -> &T {
        let [stress, batch, normal, critical] = &self.0;
        match priority {
            Priority::Stress => stress,
            Priority::Batch => batch,
            Priority::Normal => normal,
            Priority::Critical => critical,
        }
    }

    /// Every one.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// Settings of a limiter. The default is a complete rule (L2).
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What counts as full, by signal.
    pub targets: Targets,
    /// Ticks in a row above 1, or below 0.9, that begin and end an overload.
    pub trigger_ticks: u32,
    /// Slots that a unit always keeps, over all shards together; batch and stress traffic keeps none.
    pub floor: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            targets: Targets::default(),
            trigger_ticks: 5,
            floor: 1,
        }
    }
}

impl Policy {
    fn floor_of(&self, priority: Priority) -> u32 {
        match priority {
            Priority::Normal | Priority::Critical => self.floor,
            Priority::Batch | Priority::Stress => 0,
        }
    }
}

/// A limit on one unit, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Position of the unit in the reports.
    pub unit: usize,
    /// Requests in flight that it may have, over all shards.
    pub total: u32,
    /// Slots that it could use.
    pub demand: u64,
    /// The same, by shard.
    pub shares: Vec<Share>,
}

/// What a tick decided (L10: with the numbers that explain it).
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The watermark and what made it.
    pub reading: Reading,
    /// Whether limits are in force.
    pub phase: Phase,
    /// Grows with every tick whose limits differ from those before.
    pub epoch: u64,
    /// The units that are limited; the others are not.
    pub limits: Vec<Limit>,
}

/// What is known of one unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitView {
    /// Requests offered per second, over the last second.
    pub rate: f64,
    /// The same over five minutes.
    pub usual_rate: f64,
    /// Seconds of cost per second.
    pub cost: f64,
    /// Requests in flight at the last tick.
    pub in_flight: f64,
    /// Concurrency while the machine was well, with some headroom.
    pub baseline: f64,
    /// Requests in flight that it may have.
    pub limit: Option<u32>,
}

/// The four steps in a row.
#[derive(Clone, Debug)]
pub struct Limiter {
    policy: Policy,
    trigger: Trigger,
    baselines: Vec<Baseline>,
    regulators: Vec<Regulator>,
    /// Ticks in a row above the watermark.
    over_ticks: u32,
    epoch: u64,
    last: Vec<Limit>,
}

/// Ticks in a row above the watermark after which another unit is limited, while some are already.
const BEGIN_TICKS: u32 = 3;

impl Limiter {
    /// A limiter that has seen nothing.
    pub fn new(policy: Policy) -> Limiter {
        Limiter {
            trigger: Trigger::new(policy.trigger_ticks),
            policy,
            baselines: Vec::new(),
            regulators: Vec::new(),
            over_ticks: 0,
            epoch: 0,
            last: Vec::new(),
        }
    }

    /// Takes another policy; what was seen and decided stays.
    pub fn set_policy(&mut self, policy: Policy) {
        if policy.trigger_ticks != self.policy.trigger_ticks {
            self.trigger = Trigger::new(policy.trigger_ticks);
        }
        self.policy = policy;
    }

    /// Keeps these units, by position and ascending, and moves them together.
    pub fn keep(&mut self, units: &[usize]) {
        let is_kept = |k: &mut usize| {
            let at = *k;
            *k += 1;
            units.binary_search(&at).is_ok()
        };
        let (mut baseline, mut regulator) = (0, 0);
        self.baselines.retain(|_| is_kept(&mut baseline));
        self.regulators.retain(|_| is_kept(&mut regulator));
    }

    /// Every unit, by position.
    pub fn units(&self) -> impl Iterator<Item = UnitView> {
        let units = self.baselines.iter().zip(&self.regulators);
        units.map(|(baseline, regulator)| UnitView {
            rate: baseline.rate_1s(),
            usual_rate: baseline.rate_5min(),
            cost: baseline.cost(),
            in_flight: baseline.in_flight(),
            baseline: baseline.start(),
            limit: regulator.limit(),
        })
    }

    /// One tick. `units` holds, for each unit, its priority and its counts by shard; a unit keeps its
    /// position for good. `tick_s` is the time since the last tick, in seconds.
    pub fn tick(
        &mut self,
        sample: &Sample,
        units: &[(Priority, Vec<Usage>)],
        tick_s: f64,
    ) -> Decided {
        let reading = watermark::read(sample, &self.policy.targets);
        let phase = self.trigger.step(reading.watermark);
        self.baselines
            .resize_with(units.len(), || Baseline::new(self.policy.floor));
        self.regulators.resize_with(units.len(), Regulator::default);
        for (baseline, (_, usage)) in self.baselines.iter_mut().zip(units) {
            baseline.record(
                usage,
                tick_s,
                phase == Phase::Healthy && reading.watermark < 1.0,
            );
        }
        let is_over = reading.watermark > 1.0;
        self.over_ticks = match is_over {
            true => self.over_ticks.saturating_add(1),
            false => 0,
        };
        // Around the watermark single ticks are over it: noise is no reason to hold back who was not.
        let lasts = self.over_ticks >= BEGIN_TICKS || reading.watermark > AT_ONCE;
        let cost: f64 = self.baselines.iter().map(Baseline::cost).sum();
        for (regulator, baseline) in self.regulators.iter_mut().zip(&self.baselines) {
            let is_most =
                phase == Phase::Overloaded && is_over && baseline.cost() >= baseline::HEAVY * cost;
            regulator.watch(baseline, is_most);
        }
        let victims = baseline::victims(&self.baselines);
        let turn = self.turn(units, &victims, phase);
        let first = self.first_served(units);
        for (k, (priority, _)) in units.iter().enumerate() {
            let (Some(baseline), Some(regulator)) =
                (self.baselines.get(k), self.regulators.get_mut(k))
            else {
                continue;
            };
            let priority = *priority;
            let is_limited = regulator.limit().is_some();
            // It is another class's turn to give way, or what was decided has not taken effect yet. A limit
            // at what was healthy may begin at any time, except on what must go on.
            let waits = is_over
                && (priority > turn || regulator.is_draining())
                && (is_limited || priority == Priority::Critical)
                && !regulator.is_alone();
            if priority == Priority::Stress && phase == Phase::Overloaded {
                regulator.refuse_all();
            } else if waits || (!is_over && priority < first) {
                regulator.hold();
            } else {
                let begins = lasts && phase == Phase::Overloaded && victims.contains(&k);
                let floor = self.policy.floor_of(priority);
                regulator.step(reading.watermark, priority, baseline, begins, floor);
            }
        }
        let limits = self.limits(units);
        if limits != self.last {
            self.epoch += 1;
            self.last = limits.clone();
        }
        Decided {
            reading,
            phase,
            epoch: self.epoch,
            limits,
        }
    }

    /// The class that gives way now: the lowest that has something to give, or has begun to and still has
    /// more in flight than it may. Those below are at their floors already.
    fn turn(&self, units: &[(Priority, Vec<Usage>)], victims: &[usize], phase: Phase) -> Priority {
        if phase == Phase::Healthy {
            return Priority::Critical;
        }
        let gives = |k: usize, priority: &Priority| {
            let Some(regulator) = self.regulators.get(k) else {
                return false;
            };
            match regulator.limit() {
                Some(limit) => limit > self.policy.floor_of(*priority) || regulator.is_draining(),
                None => victims.contains(&k),
            }
        };
        let giving = units
            .iter()
            .enumerate()
            .filter(|(k, (priority, _))| gives(*k, priority));
        giving
            .map(|(_, (priority, _))| *priority)
            .min()
            .unwrap_or(Priority::Critical)
    }

    /// The class that is given back to first: the highest whose limit binds.
    fn first_served(&self, units: &[(Priority, Vec<Usage>)]) -> Priority {
        let states = self.regulators.iter().zip(&self.baselines).zip(units);
        let bound = states.filter(|((regulator, baseline), _)| regulator.binds(baseline));
        bound
            .map(|(_, (priority, _))| *priority)
            .max()
            .unwrap_or(Priority::Stress)
    }

    fn limits(&self, units: &[(Priority, Vec<Usage>)]) -> Vec<Limit> {
        let limited = units.iter().zip(&self.regulators).enumerate();
        limited
            .filter_map(|(unit, ((_, usage), regulator))| {
                let total = regulator.limit()?;
                let floor = self.policy.floor.min(total);
                let demands: Vec<u64> =
                    usage.iter().map(|u| (u.demand() * 1000.0) as u64).collect();
                let demand = usage.iter().map(Usage::demand).sum::<f64>();
                Some(Limit {
                    unit,
                    total,
                    demand: demand.ceil() as u64,
                    shares: split(total, floor, &demands),
                })
            })
            .collect()
    }
}
