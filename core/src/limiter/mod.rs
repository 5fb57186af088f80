//! Adaptive rate limiting, the policy of it: limits that nobody has to set.
//!
//! Four steps, one file each (spec: L1–L13). Every 100 ms:
//!
//! 1. [`watermark`]: how much of the machine is in use, as one number; 1 is full. [`orca`] is what the application
//!    says of itself.
//! 2. [`baseline`]: what each unit costs and which of them push; the concurrency that was healthy.
//!    [`backlog`]: whether requests pile up, which a signal at its ceiling does not say.
//! 3. [`regulator`]: limits move with the watermark.
//! 4. [`decision`]: a limit becomes slots on each shard, and a request takes one or is refused.
//!
//! [`Limiter`] is the four of them in a row: samples and counts in, limits out. No clock, no I/O: an hour
//! of it is a unit test.
//!
//! [`application`] is one rule at work over the counters of [`interface`]; [`pressure`] is what the center learns
//! of it.
//!
//! [`hand`] is what operators set by hand.
//!
//! [`bucket`] stands beside them: plain limits, for those who want to set them (L13).
//!
//! A *unit* is what is limited: one interface (what a caller calls) at one [`Priority`].

pub mod application;
pub mod backlog;
pub mod baseline;
pub mod bucket;
pub mod decision;
pub mod hand;
pub mod interface;
pub mod orca;
pub mod pressure;
pub mod regulator;
pub mod watermark;

use backlog::Backlog;
use baseline::{Baseline, Cost, Usage};
use decision::{Share, make_way, split};
use hand::{Cap, caps_by_unit};
use regulator::{DRAIN_PATIENCE, Regulator};
use watermark::{AT_ONCE, Phase, Reading, Sample, Signal, Targets, Trend, Trigger};

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
    /// `critical_pays`: what must go on has to give way otherwise. A single slot may be all that a small
    /// application has.
    fn floor_of(&self, priority: Priority, critical_pays: bool) -> u32 {
        match priority {
            Priority::Critical => self.floor,
            Priority::Normal if !critical_pays => self.floor,
            Priority::Normal | Priority::Batch | Priority::Stress => 0,
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
    /// An operator's limit is the lower one.
    pub by_hand: bool,
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
    /// The same over ten seconds.
    pub rate_10s: f64,
    /// The same over five minutes.
    pub usual_rate: f64,
    /// CPUs that it keeps busy, by what the application says; 0 if it says nothing.
    pub cpu: f64,
    /// Its part of the cost of all units, by what was short last.
    pub share: f64,
    /// Requests in flight at the last tick.
    pub in_flight: f64,
    /// Concurrency while the machine was well, with some headroom.
    pub baseline: f64,
    /// Requests in flight that it may have.
    pub limit: Option<u32>,
    /// An operator's limit is the lower one.
    pub by_hand: bool,
}

/// The four steps in a row.
#[derive(Clone, Debug)]
pub struct Limiter {
    policy: Policy,
    trigger: Trigger,
    baselines: Vec<Baseline>,
    /// What units' costs are counted in, by what is short.
    cost: Cost,
    regulators: Vec<Regulator>,
    /// Limits by hand.
    caps: Vec<Cap>,
    /// What they left to each unit at the last tick.
    capped: Vec<Option<u32>>,
    /// Ticks in a row above the watermark.
    over_ticks: u32,
    trend: Trend,
    backlog: Backlog,
    /// Ticks for which a backlog has been waited for.
    drain_ticks: u32,
    /// Ticks in a row above the watermark in which nobody but critical traffic had anything to give.
    critical_ticks: u32,
    epoch: u64,
    last: Vec<Limit>,
}

/// What a tick's units are looked at by.
struct Situation {
    /// The watermark as limits follow it.
    followed: f64,
    /// The same of critical requests.
    followed_by_critical: f64,
    phase: Phase,
    /// Whether this tick was above the watermark.
    is_over: bool,
    /// Long enough for another unit to be limited.
    lasts: bool,
    /// Requests pile up: units that have part in it may be limited at once.
    surges: bool,
    /// What came in before there were limits is still worked on: what comes now would wait behind it for longer
    /// than it is worth, and so would whoever comes after it.
    drains: bool,
    critical_pays: bool,
    /// Others are limited already, and little is left of the overload: who is limited next has not much to give.
    joins: bool,
    /// The class that gives way.
    turn: Priority,
    /// The class that is given back to.
    first: Priority,
    /// Positions of the units whose limits help.
    victims: Vec<usize>,
}

/// Ticks in a row above the watermark after which another unit is limited, while some are already.
const BEGIN_TICKS: u32 = 3;
/// The same for what must go on, from when nobody else has anything to give.
const CRITICAL_TICKS: u32 = 5;

impl Limiter {
    /// A limiter that has seen nothing.
    pub fn new(policy: Policy) -> Limiter {
        Limiter {
            trigger: Trigger::new(policy.trigger_ticks),
            policy,
            baselines: Vec::new(),
            cost: Cost::default(),
            regulators: Vec::new(),
            caps: Vec::new(),
            capped: Vec::new(),
            over_ticks: 0,
            trend: Trend::default(),
            backlog: Backlog::default(),
            drain_ticks: 0,
            critical_ticks: 0,
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
        let (mut baseline, mut regulator, mut capped) = (0, 0, 0);
        self.baselines.retain(|_| is_kept(&mut baseline));
        self.regulators.retain(|_| is_kept(&mut regulator));
        self.capped.retain(|_| is_kept(&mut capped));
    }

    /// Takes the limits by hand, in place of those before, from the next tick on.
    pub fn set_caps(&mut self, caps: Vec<Cap>) {
        self.caps = caps;
    }

    /// Every unit, by position.
    pub fn units(&self) -> impl Iterator<Item = UnitView> {
        let all = self.cost_of_all();
        self.baselines
            .iter()
            .enumerate()
            .map(move |(k, baseline)| UnitView {
                limit: self.limit_of(k).map(|(total, _)| total),
                by_hand: self.limit_of(k).is_some_and(|(_, by_hand)| by_hand),
                rate: baseline.rate_1s(),
                rate_10s: baseline.rate_10s(),
                usual_rate: baseline.rate_5min(),
                cpu: baseline.cpu(),
                share: part(baseline.cost(self.cost), all),
                in_flight: baseline.in_flight(),
                baseline: baseline.start(),
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
        let usages = units.iter().flat_map(|(_, shards)| shards);
        self.backlog.record(usages, tick_s);
        let phase = self.trigger.step(reading.watermark, self.backlog.surges());
        self.record(units, tick_s, phase, reading);
        let situation = self.situation(units, phase, reading);
        for (k, (priority, _)) in units.iter().enumerate() {
            self.regulate(k, *priority, &situation);
        }
        self.capped = caps_by_unit(&self.caps, units);
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

    fn record(
        &mut self,
        units: &[(Priority, Vec<Usage>)],
        tick_s: f64,
        phase: Phase,
        reading: Reading,
    ) {
        let watermark = reading.watermark;
        let is_healthy = phase == Phase::Healthy && watermark < 1.0;
        self.backlog.judge(is_healthy);
        self.baselines
            .resize_with(units.len(), || Baseline::new(self.policy.floor));
        self.regulators.resize_with(units.len(), Regulator::default);
        for (baseline, (_, usage)) in self.baselines.iter_mut().zip(units) {
            baseline.record(usage, tick_s, is_healthy);
        }
        self.cost = self.measure_of_cost(reading);
        let is_over = phase == Phase::Overloaded && watermark > 1.0;
        let all = self.cost_of_all();
        for (regulator, baseline) in self.regulators.iter_mut().zip(&self.baselines) {
            let is_most = is_over && baseline.cost(self.cost) >= baseline::HEAVY * all;
            regulator.watch(baseline, is_most);
        }
    }

    /// What costs are counted in.
    fn measure_of_cost(&self, reading: Reading) -> Cost {
        match is_queue(reading.dominant) {
            true => Cost::of_cpu(&self.baselines),
            false => Cost::Time,
        }
    }

    fn cost_of_all(&self) -> f64 {
        self.baselines.iter().map(|one| one.cost(self.cost)).sum()
    }

    /// What all units are looked at by.
    fn situation(
        &mut self,
        units: &[(Priority, Vec<Usage>)],
        phase: Phase,
        reading: Reading,
    ) -> Situation {
        let watermark = reading.watermark;
        let is_over = watermark > 1.0;
        count_while(is_over, &mut self.over_ticks);
        // What waits for a CPU, everybody waits behind. What waits for something else may be in nobody's way.
        let is_over_cpu = phase == Phase::Overloaded && is_over && is_queue(reading.dominant);
        count_while(is_over_cpu && self.backlog.is_long(), &mut self.drain_ticks);
        // Around the watermark single ticks are over it: noise is no reason to hold back who was not.
        let lasts = self.over_ticks >= BEGIN_TICKS || watermark > AT_ONCE;
        let victims = baseline::victims(&self.baselines, self.cost);
        let critical_pays = self.critical_pays(units, &victims, lasts);
        let turn = match phase {
            Phase::Healthy => Priority::Critical,
            Phase::Overloaded => self.turn(units, &victims, critical_pays),
        };
        let is_last = is_over && turn == Priority::Critical;
        count_while(is_last, &mut self.critical_ticks);
        self.trend.step(watermark);
        Situation {
            followed: self.trend.long(),
            followed_by_critical: self.trend.short(),
            phase,
            is_over,
            lasts,
            surges: self.backlog.surges(),
            drains: (1..=DRAIN_PATIENCE).contains(&self.drain_ticks),
            critical_pays,
            joins: self.trend.is_near() && self.regulators.iter().any(|r| r.limit().is_some()),
            turn,
            first: self.first_served(units),
            victims,
        }
    }

    /// One unit's part of a tick.
    fn regulate(&mut self, k: usize, priority: Priority, now: &Situation) {
        let (Some(baseline), Some(regulator)) = (self.baselines.get(k), self.regulators.get_mut(k))
        else {
            return;
        };
        let is_critical = priority == Priority::Critical;
        // It is another class's turn to give way, or what was decided has not taken effect yet. A limit
        // at what was healthy may begin at any time, except on what must go on.
        let waits = now.is_over
            && (priority > now.turn || regulator.is_draining())
            && (is_critical || regulator.limit().is_some())
            && !regulator.is_alone();
        if priority == Priority::Stress && now.phase == Phase::Overloaded {
            return regulator.refuse_all();
        }
        if is_critical && now.drains {
            return regulator.pause(baseline.start());
        }
        if regulator.is_paused() {
            return regulator.resume();
        }
        if waits || (!now.is_over && priority < now.first) {
            return regulator.hold();
        }
        let lasts = match is_critical {
            true => self.critical_ticks >= CRITICAL_TICKS,
            false => now.lasts || (now.surges && baseline.in_flight() > baseline.start()),
        };
        let begins = lasts && now.phase == Phase::Overloaded && now.victims.contains(&k);
        let begins = begins.then(|| match now.joins {
            true => baseline.start().max(baseline.in_flight()),
            false => baseline.start(),
        });
        let floor = self.policy.floor_of(priority, now.critical_pays);
        let watermark = match is_critical {
            true => now.followed_by_critical,
            false => now.followed,
        };
        regulator.step(watermark, priority, baseline, begins, floor);
    }

    /// Whether critical requests are held back, or would be next.
    fn critical_pays(
        &self,
        units: &[(Priority, Vec<Usage>)],
        victims: &[usize],
        lasts: bool,
    ) -> bool {
        let mut regulators = self.regulators.iter().zip(units).enumerate();
        regulators.any(|(k, (regulator, (priority, _)))| {
            // One that waits for a backlog is let in with its end, whatever others give.
            let is_limited = regulator.limit().is_some() && !regulator.is_paused();
            let would_be = lasts && victims.contains(&k);
            *priority == Priority::Critical && (is_limited || would_be)
        })
    }

    /// The class that gives way now: the lowest that has something to give, or has begun to and still has
    /// more in flight than it may. Those below are at their floors already.
    fn turn(
        &self,
        units: &[(Priority, Vec<Usage>)],
        victims: &[usize],
        critical_pays: bool,
    ) -> Priority {
        let gives = |k: usize, priority: Priority| {
            let Some(regulator) = self.regulators.get(k) else {
                return false;
            };
            let floor = self.policy.floor_of(priority, critical_pays);
            match regulator.limit() {
                Some(limit) => limit > floor || regulator.is_draining(),
                None => victims.contains(&k),
            }
        };
        let priorities = units.iter().map(|(priority, _)| *priority).enumerate();
        let giving = priorities.filter(|(k, priority)| gives(*k, *priority));
        giving
            .map(|(_, priority)| priority)
            .min()
            .unwrap_or(Priority::Critical)
    }

    /// The class that is given back to first: the highest whose limit binds.
    fn first_served(&self, units: &[(Priority, Vec<Usage>)]) -> Priority {
        let states = self.regulators.iter().zip(&self.baselines).zip(units);
        let bound = states
            .filter(|((regulator, baseline), (priority, _))| regulator.binds(*priority, baseline));
        bound
            .map(|(_, (priority, _))| *priority)
            .max()
            .unwrap_or(Priority::Stress)
    }

    /// What a unit may have in flight, and whether that is what an operator says: the lower limit of the two.
    fn limit_of(&self, k: usize) -> Option<(u32, bool)> {
        let found = self.regulators.get(k).and_then(Regulator::limit);
        let by_hand = self.capped.get(k).copied().flatten();
        let by_hand = by_hand.filter(|hand| found.is_none_or(|found| *hand < found));
        let hand = by_hand.map(|total| (total, true));
        hand.or(found.map(|total| (total, false)))
    }

    fn limits(&self, units: &[(Priority, Vec<Usage>)]) -> Vec<Limit> {
        let limited = units.iter().enumerate();
        limited
            .filter_map(|(unit, (_, usage))| {
                let (total, by_hand) = self.limit_of(unit)?;
                let floor = self.policy.floor.min(total);
                let demands = baseline::demands(usage);
                let demand = demands.iter().sum::<f64>();
                let demands: Vec<u64> = demands.iter().map(|d| (d * 1000.0) as u64).collect();
                let held: Vec<u32> = usage.iter().map(Usage::held).collect();
                let mut shares = split(total, floor, &demands);
                let lent = usage.iter().map(|u| u.borrowed).sum();
                make_way(total, &mut shares, &held, lent);
                Some(Limit {
                    unit,
                    total,
                    demand: demand.ceil() as u64,
                    shares,
                    by_hand,
                })
            })
            .collect()
    }
}

/// Whether what is short is the CPU, before which there is a queue.
fn is_queue(signal: Option<Signal>) -> bool {
    matches!(signal, Some(Signal::Cpu | Signal::PsiCpu))
}

fn part(one: f64, all: f64) -> f64 {
    if all > 0.0 { one / all } else { 0.0 }
}

fn count_while(is_so: bool, ticks: &mut u32) {
    *ticks = match is_so {
        true => ticks.saturating_add(1),
        false => 0,
    };
}
