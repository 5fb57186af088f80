//! One application's rule at work: what shards count goes in tick by tick, and what they are told comes out.

use std::{collections::BTreeMap, mem, sync::Arc, time::Duration};

use super::{
    Decided, Limiter, Priority, UnitView,
    baseline::Usage,
    decision::{self, Share, cohort},
    hand::{Cap, Ended, HandLimit, Whose},
    interface::{Meter, Shared},
    watermark::{Phase, Reading, Sample, Signal},
};
use crate::{
    config::model::{AdaptiveLimit, PolicyMode},
    id::InterfaceId,
    snapshot,
};

/// A rule, and what it has seen.
#[derive(Debug)]
pub struct Application {
    rule: AdaptiveLimit,
    limiter: Limiter,
    /// By position in the limiter. A unit is there once it was seen.
    units: Vec<Unit>,
    /// By [`InterfaceId`] of the snapshot that is followed.
    interfaces: Vec<Known>,
    /// Shards hold limits, and must be told when they end.
    is_limiting: bool,
    last: Option<Decided>,
    sample: Sample,
    load: Load,
    by_hand: BTreeMap<Whose, HandLimit>,
    /// Limits by hand that are no more, and were not told of yet.
    ended: Vec<(Whose, Ended)>,
}

/// Ticks for which what an application last said of its load is believed: an application under little load has
/// little to say it in.
const LOAD_TICKS: u32 = 20;

/// What the application says of its load, as the mean of the answers of a tick.
#[derive(Debug, Default)]
struct Load {
    last: f64,
    /// Ticks that are left of it.
    lasts: u32,
}

impl Load {
    fn step<'a>(&mut self, usages: impl Iterator<Item = &'a Usage>) -> Option<f64> {
        let (reports, permille) = usages.fold((0, 0), |(reports, permille), usage| {
            (reports + usage.load_reports, permille + usage.load_permille)
        });
        if reports > 0 {
            self.last = permille as f64 / reports as f64 / 1000.0;
            self.lasts = LOAD_TICKS;
        }
        let is_known = self.lasts > 0;
        self.lasts = self.lasts.saturating_sub(1);
        is_known.then_some(self.last)
    }
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    shared: Arc<Shared>,
    /// Priorities that are units already.
    seen: Vec<Priority>,
}

#[derive(Debug)]
struct Unit {
    interface: InterfaceId,
    name: Arc<str>,
    priority: Priority,
    shared: Arc<Shared>,
    meter: Meter,
}

/// What shards are told of one application.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// How full the machine is, and of what.
    pub reading: Reading,
    /// Whether limits tighten.
    pub phase: Phase,
    /// Of these limits: it grows when they change.
    pub epoch: u64,
    /// Whether requests are refused.
    pub enforced: bool,
    /// The units that are limited; the others are not.
    pub limits: Vec<UnitLimit>,
}

/// The limit of one interface at one priority.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitLimit {
    /// Which interface.
    pub interface: InterfaceId,
    /// Its name, `listener/route`.
    pub name: Arc<str>,
    /// Which priority.
    pub priority: Priority,
    /// Requests in flight that it may have over all shards.
    pub total: u32,
    /// Those that it had.
    pub in_flight: u64,
    /// Those that it would have had.
    pub demand: u64,
    /// The same by shard.
    pub shares: Vec<Share>,
    /// Callers that are let in while slots are scarce, in basis points.
    pub cohort: u16,
    /// An operator's limit is the lower one.
    pub by_hand: bool,
}

/// One unit, for those who look.
#[derive(Clone, Debug)]
pub struct UnitStatus {
    /// The interface's name, `listener/route`.
    pub name: Arc<str>,
    /// At this priority.
    pub priority: Priority,
    /// What is known of it.
    pub view: UnitView,
    /// Requests refused so far.
    pub refused: u64,
    /// Requests that would have been, so far.
    pub would_refuse: u64,
    /// Requests without a good answer, so far.
    pub failed: u64,
}

impl Application {
    /// A rule that has seen nothing.
    pub fn new(cluster: &snapshot::Cluster, rule: &AdaptiveLimit) -> Application {
        let mut application = Application {
            limiter: Limiter::new(rule.policy.clone()),
            rule: rule.clone(),
            units: Vec::new(),
            interfaces: Vec::new(),
            is_limiting: false,
            last: None,
            sample: Sample::default(),
            load: Load::default(),
            by_hand: BTreeMap::new(),
            ended: Vec::new(),
        };
        application.follow(cluster, rule);
        application
    }

    /// A new snapshot describes the application: what is known of interfaces that stay is kept. Shards are
    /// told at the next tick, as ids may have changed.
    pub fn follow(&mut self, cluster: &snapshot::Cluster, rule: &AdaptiveLimit) {
        self.rule = rule.clone();
        self.limiter.set_policy(rule.policy.clone());
        let interfaces = cluster.interfaces.iter();
        self.interfaces = interfaces
            .map(|interface| Known {
                name: interface.name.clone(),
                shared: interface.shared.clone(),
                seen: Vec::new(),
            })
            .collect();
        let numbered = self.interfaces.iter().enumerate();
        // By name: one that came again under its old name counts from zero, and is another.
        let by_name: BTreeMap<&str, usize> = numbered.map(|(k, i)| (&*i.name, k)).collect();
        let place = |unit: &Unit| {
            let place = by_name.get(&*unit.name).copied()?;
            let interface = self.interfaces.get(place)?;
            Arc::ptr_eq(&interface.shared, &unit.shared).then_some(place)
        };
        let places: Vec<Option<usize>> = self.units.iter().map(place).collect();
        let kept: Vec<usize> = (0..self.units.len())
            .filter(|k| places.get(*k).is_some_and(Option::is_some))
            .collect();
        self.limiter.keep(&kept);
        let mut places = places.into_iter();
        self.units.retain_mut(|unit| {
            let place = places.next().flatten();
            unit.interface = InterfaceId(place.unwrap_or_default() as u32);
            place.is_some()
        });
        for unit in &self.units {
            if let Some(interface) = self.interfaces.get_mut(unit.interface.index()) {
                interface.seen.push(unit.priority);
            }
        }
        let interfaces = &self.interfaces;
        let is_there = |name: &Arc<str>| interfaces.iter().any(|known| known.name == *name);
        end_where(
            &mut self.by_hand,
            &mut self.ended,
            Ended::Gone,
            |whose, _| whose.interface.as_ref().is_some_and(|name| !is_there(name)),
        );
    }

    /// An operator sets a limit.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn limit_by_hand(&mut self, whose: Whose, limit: HandLimit) -> Result<(), String> {
        self.may_limit_by_hand(&whose)?;
        self.by_hand.insert(whose, limit);
        Ok(())
    }

    /// Whether an operator may set a limit.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_limit_by_hand(&self, whose: &Whose) -> Result<(), String> {
        if self.rule.mode == PolicyMode::Shadow {
            return Err("it limits in shadow: nothing is refused".into());
        }
        let names = self.interfaces.iter().map(|known| &known.name);
        match &whose.interface {
            Some(wanted) if !names.clone().any(|name| name == wanted) => {
                let mut known: Vec<&str> = names.take(NAMED_MAX).map(|name| &**name).collect();
                if self.interfaces.len() > NAMED_MAX {
                    known.push("…");
                }
                let known = known.join(", ");
                Err(format!("no interface `{wanted}`; there are {known}"))
            }
            _ => Ok(()),
        }
    }

    /// An operator takes a limit back.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn unlimit_by_hand(&mut self, whose: &Whose) -> Result<(), String> {
        let found = self.by_hand.remove(whose);
        found
            .map(drop)
            .ok_or_else(|| format!("no limit is set by hand on {whose}"))
    }

    /// The limits by hand in force.
    pub fn by_hand(&self) -> impl Iterator<Item = (&Whose, &HandLimit)> {
        self.by_hand.iter()
    }

    /// Ends the limits by hand whose time is over, and says which are no more since it was asked last.
    pub fn end_by_hand(&mut self, now: Duration) -> Vec<(Whose, Ended)> {
        end_where(
            &mut self.by_hand,
            &mut self.ended,
            Ended::Expired,
            |_, limit| now >= limit.until,
        );
        mem::take(&mut self.ended)
    }

    /// One tick of `tick_s` seconds. What shards are to be told, if they are.
    pub fn tick(&mut self, sample: &Sample, tick_s: f64) -> Option<Told> {
        self.meet_new_units();
        self.limiter.set_caps(self.caps());
        let usages: Vec<_> = self
            .units
            .iter_mut()
            .map(|unit| {
                (
                    unit.priority,
                    unit.meter.step(&unit.shared.counters, tick_s),
                )
            })
            .collect();
        self.sample = *sample;
        let shards = usages.iter().flat_map(|(_, shards)| shards);
        let in_flight: u64 = shards.map(|usage| u64::from(usage.in_flight)).sum();
        self.sample.set(Signal::InFlight, in_flight as f64);
        let usages_of_all = usages.iter().flat_map(|(_, shards)| shards);
        if let Some(load) = self.load.step(usages_of_all) {
            self.sample.set(Signal::App, load);
        }
        let decided = self.limiter.tick(&self.sample, &usages, tick_s);
        let told = self.tell(&decided);
        let is_limiting = !decided.limits.is_empty();
        let speaks = is_limiting || self.is_limiting;
        self.is_limiting = is_limiting;
        self.last = Some(decided);
        speaks.then_some(told)
    }

    /// The rule.
    pub fn rule(&self) -> &AdaptiveLimit {
        &self.rule
    }

    /// What the last tick decided.
    pub fn last(&self) -> Option<&Decided> {
        self.last.as_ref()
    }

    /// What was measured in the last tick.
    pub fn sample(&self) -> &Sample {
        &self.sample
    }

    /// Every unit that was seen.
    pub fn units(&self) -> impl Iterator<Item = UnitStatus> {
        self.units
            .iter()
            .zip(self.limiter.units())
            .map(|(unit, view)| {
                let sum = |read: fn(&crate::stats::InterfaceCounters) -> u64| {
                    unit.shared
                        .counters
                        .sum(|slab| read(slab.of(unit.priority)))
                };
                UnitStatus {
                    name: unit.name.clone(),
                    priority: unit.priority,
                    view,
                    refused: sum(|c| c.refused.get()),
                    would_refuse: sum(|c| c.would_refuse.get()),
                    failed: sum(|c| c.failed.get()),
                }
            })
    }

    /// What is set by hand, on units as they are now.
    fn caps(&self) -> Vec<Cap> {
        let caps = self.by_hand.iter().map(|(whose, limit)| {
            let units = self.units.iter().enumerate();
            let units = units.filter(|(_, unit)| whose.has(&unit.name, unit.priority));
            Cap {
                total: limit.total,
                units: units.map(|(k, _)| k).collect(),
            }
        });
        caps.collect()
    }

    fn meet_new_units(&mut self) {
        for (k, interface) in (0u32..).zip(&mut self.interfaces) {
            for priority in Priority::ALL {
                if interface.seen.contains(&priority) || !interface.shared.is_used(priority) {
                    continue;
                }
                interface.seen.push(priority);
                self.units.push(Unit {
                    interface: InterfaceId(k),
                    name: interface.name.clone(),
                    priority,
                    meter: Meter::new(priority, interface.shared.counters.len()),
                    shared: interface.shared.clone(),
                });
            }
        }
    }

    fn tell(&self, decided: &Decided) -> Told {
        let limits = decided.limits.iter().filter_map(|limit| {
            let unit = self.units.get(limit.unit)?;
            unit.shared
                .spare(unit.priority)
                .set(free(limit.total, unit));
            Some(UnitLimit {
                interface: unit.interface,
                name: unit.name.clone(),
                priority: unit.priority,
                total: limit.total,
                in_flight: unit.shared.in_flight(unit.priority),
                demand: limit.demand,
                shares: limit.shares.clone(),
                cohort: cohort(limit.total, limit.demand),
                by_hand: limit.by_hand,
            })
        });
        Told {
            reading: decided.reading,
            phase: decided.phase,
            epoch: decided.epoch,
            enforced: self.rule.mode == PolicyMode::Enforce,
            limits: limits.collect(),
        }
    }
}

/// Interfaces that a mistake is answered with.
const NAMED_MAX: usize = 16;

fn end_where(
    by_hand: &mut BTreeMap<Whose, HandLimit>,
    ended: &mut Vec<(Whose, Ended)>,
    why: Ended,
    ends: impl Fn(&Whose, &HandLimit) -> bool,
) {
    by_hand.retain(|whose, limit| {
        let ends = ends(whose, limit);
        if ends {
            ended.push((whose.clone(), why));
        }
        !ends
    });
}

fn free(total: u32, unit: &Unit) -> i32 {
    let lent = unit.shared.borrowed(unit.priority);
    let in_flight = unit.shared.in_flight(unit.priority);
    decision::free(total, lent, in_flight)
}

#[cfg(test)]
mod tests;
