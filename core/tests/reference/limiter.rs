//! What adaptive limiting should make of what it has seen, computed anew at every tick from all of that: slow, and nothing
//! to get wrong in it. Averages are sums over the whole history, who is heavy is found among all sets of units, a phase is
//! what the last ticks say. The rules are those of `docs/limiting.md`.
//!
//! Limits themselves are held against bounds: how a limit moves is the policy, and a second policy would prove nothing.

use tidegate_core::limiter::{
    Decided, Limiter, Priority, UnitView,
    baseline::{Usage, demands},
    decision::spare,
    watermark::{Phase, Sample, Signal, Targets},
};

/// Of numbers that are the same sum in another order, single precision among them.
const TOLERANCE: f64 = 1e-4;

/// What a unit keeps, where critical requests do not have to give way.
const FLOOR: u32 = 1;

/// A tick of one unit, over all shards.
struct Seen {
    offered_s: f64,
    concurrency: f64,
    cpu: f64,
    in_flight: f64,
}

struct Tick {
    watermark: f64,
    phase: Phase,
    is_healthy: bool,
    units: Vec<Seen>,
    /// By unit.
    limits: Vec<Option<u32>>,
}

/// All that was seen, the oldest first.
pub struct Model {
    ticks: Vec<Tick>,
    tick_s: f64,
    /// How often limits began, and moved.
    pub began: u32,
    pub moved: u32,
}

impl Model {
    pub fn new(tick_s: f64) -> Model {
        Model {
            ticks: Vec::new(),
            tick_s,
            began: 0,
            moved: 0,
        }
    }

    /// Compares a tick with what should come of it; the first thing that is wrong.
    pub fn check(
        &mut self,
        sample: &Sample,
        units: &[(Priority, Vec<Usage>)],
        decided: &Decided,
        limiter: &Limiter,
    ) -> Result<(), String> {
        let (watermark, dominant) = fullest(sample);
        same("watermark", decided.reading.watermark, watermark)?;
        let seen: Vec<Seen> = units.iter().map(|(_, shards)| self.seen(shards)).collect();
        let phase = self.phase(watermark, &seen);
        if decided.phase != phase {
            return Err(format!("{:?}, not {phase:?}", decided.phase));
        }
        let limit = |k: usize| decided.limits.iter().find(|l| l.unit == k).map(|l| l.total);
        self.ticks.push(Tick {
            watermark,
            phase,
            is_healthy: phase == Phase::Healthy && watermark < 1.0,
            units: seen,
            limits: (0..units.len()).map(limit).collect(),
        });
        let views: Vec<UnitView> = limiter.units().collect();
        for (k, view) in views.iter().enumerate() {
            self.check_unit(k, view)?;
        }
        self.check_begins(units, &views, dominant)?;
        self.check_moves(units, &views)?;
        decided.limits.iter().try_for_each(|limit| {
            let shares: Vec<u32> = limit.shares.iter().map(|share| share.slots).collect();
            divided(limit.total, &shares, &units[limit.unit].1)
        })
    }

    fn seen(&self, shards: &[Usage]) -> Seen {
        let sum = |read: fn(&Usage) -> u64| shards.iter().map(read).sum::<u64>() as f64;
        Seen {
            offered_s: (sum(|u| u.admitted) + sum(|u| u.refused)) / self.tick_s,
            concurrency: sum(|u| u.in_flight_ns) / self.tick_s / 1e9,
            cpu: sum(|u| u.cpu_ns) / self.tick_s / 1e9,
            in_flight: sum(|u| u64::from(u.in_flight)),
        }
    }

    /// Five ticks in a row above 1 begin an overload, five below 0.9 end it; 1.5, or a surge, begins it at once.
    fn phase(&self, watermark: f64, seen: &[Seen]) -> Phase {
        let before = self.ticks.last().map_or(Phase::Healthy, |tick| tick.phase);
        let since = self
            .ticks
            .iter()
            .rev()
            .take_while(|tick| tick.phase == before);
        let since = since.map(|tick| tick.watermark);
        let last: Vec<f64> = std::iter::once(watermark).chain(since).take(5).collect();
        let all = |speaks: fn(f64) -> bool| last.len() == 5 && last.iter().all(|w| speaks(*w));
        let at_once = watermark > 1.5 || (watermark > 1.0 && self.surges(seen));
        match before {
            Phase::Healthy if at_once || all(|w| w > 1.0) => Phase::Overloaded,
            Phase::Overloaded if all(|w| w < 0.9) => Phase::Healthy,
            phase => phase,
        }
    }

    /// More in flight than before, and than twice the most of the last healthy ticks, and four.
    fn surges(&self, seen: &[Seen]) -> bool {
        let of = |units: &[Seen]| units.iter().map(|unit| unit.in_flight).sum::<f64>();
        let before = self.ticks.last().map_or(0.0, |tick| of(&tick.units));
        let usual = self.healthy().take(64).map(|tick| of(&tick.units));
        let usual = usual.fold(0.0, f64::max);
        of(seen) > before && of(seen) > 2.0 * usual + 4.0
    }

    /// Healthy ticks that another one has followed, the newest first.
    fn healthy(&self) -> impl Iterator<Item = &Tick> {
        let pairs = self.ticks.iter().zip(self.ticks.iter().skip(1));
        let pairs = pairs.filter(|(tick, next)| tick.is_healthy && next.is_healthy);
        pairs.map(|(tick, _)| tick).rev()
    }

    fn check_unit(&self, k: usize, view: &UnitView) -> Result<(), String> {
        let offered = |unit: &Seen| unit.offered_s;
        for (what, shown, expected) in [
            ("rate", view.rate, self.average(k, 1.0, offered)),
            ("rate_10s", view.rate_10s, self.average(k, 10.0, offered)),
            (
                "usual rate",
                view.usual_rate,
                self.average(k, 300.0, offered),
            ),
            ("cpu", view.cpu, self.average(k, 1.0, |unit| unit.cpu)),
            ("baseline", view.baseline, self.baseline(k)),
        ] {
            same(&format!("{what} of unit {k}"), shown, expected)?;
        }
        Ok(())
    }

    /// The mean of all until the window is full; then each tick replaces its part of the window.
    fn average(&self, k: usize, window_s: f64, read: fn(&Seen) -> f64) -> f64 {
        let window = (window_s / self.tick_s).round() as usize;
        let values: Vec<f64> = self.ticks.iter().map(|tick| read(&tick.units[k])).collect();
        let (first, later) = values.split_at(values.len().min(window));
        let mean = first.iter().sum::<f64>() / first.len() as f64;
        let kept = 1.0 - 1.0 / window as f64;
        let aged = later.iter().rev().enumerate();
        let later_part: f64 = aged
            .map(|(age, value)| value * kept.powi(age as i32) / window as f64)
            .sum();
        mean * kept.powi(later.len() as i32) + later_part
    }

    /// A tenth above the mean of the last ten healthy ticks, and no less than the floor.
    fn baseline(&self, k: usize) -> f64 {
        let healthy: Vec<f64> = self
            .healthy()
            .take(10)
            .map(|tick| tick.units[k].concurrency)
            .collect();
        let mean = healthy.iter().sum::<f64>() / healthy.len().max(1) as f64;
        (1.1 * mean).max(f64::from(FLOOR))
    }

    /// A limit begins in an overload alone, and on who pushes.
    fn check_begins(
        &mut self,
        units: &[(Priority, Vec<Usage>)],
        views: &[UnitView],
        dominant: Option<Signal>,
    ) -> Result<(), String> {
        let phase = self.ticks.last().map(|tick| tick.phase);
        let victims = self.victims(views, dominant);
        for (k, (priority, _)) in units.iter().enumerate() {
            let [before, now] = self.last_limits(k);
            let (None, Some(total)) = (before, now) else {
                continue;
            };
            self.began += 1;
            let pushes = victims.contains(&k);
            match priority {
                _ if phase != Some(Phase::Overloaded) => {
                    return Err(format!("unit {k} is limited, and all is well"));
                }
                Priority::Stress if total != 0 => return Err(format!("stress may have {total}")),
                Priority::Normal | Priority::Batch if !pushes => {
                    return Err(format!("unit {k} is limited, and {victims:?} push"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn last_limits(&self, k: usize) -> [Option<u32>; 2] {
        let mut newest_first = self.ticks.iter().rev().map(|tick| tick.limits[k]);
        let now = newest_first.next().flatten();
        [newest_first.next().flatten(), now]
    }

    /// The smallest set of units that make up 80 % of the cost, and of those with as many the costliest; of it those that
    /// rise, if any do.
    fn victims(&self, views: &[UnitView], dominant: Option<Signal>) -> Vec<usize> {
        let costs = self.costs(views.len(), dominant);
        let all: f64 = costs.iter().sum();
        let members = |set: u32| (0..views.len()).filter(move |k| set & (1 << k) != 0);
        let cost = |set: &u32| members(*set).map(|k| costs[k]).sum::<f64>();
        let sets =
            (0..1u32 << views.len()).filter(|set| all > 0.0 && cost(set) >= 0.8 * all - 1e-9);
        let heavy = sets.min_by(|a, b| {
            let fewer = a.count_ones().cmp(&b.count_ones());
            fewer.then(cost(b).total_cmp(&cost(a)))
        });
        let heavy: Vec<usize> = heavy.into_iter().flat_map(members).collect();
        let rises =
            |k: &usize| views[*k].rate >= 1.3 * views[*k].usual_rate && views[*k].rate > 0.0;
        let rising: Vec<usize> = heavy.iter().copied().filter(rises).collect();
        if rising.is_empty() { heavy } else { rising }
    }

    /// Time in flight; where the CPU is short, CPU time, if the application has told it of all.
    fn costs(&self, units: usize, dominant: Option<Signal>) -> Vec<f64> {
        let of = |read: fn(&Seen) -> f64| -> Vec<f64> {
            (0..units).map(|k| self.average(k, 1.0, read)).collect()
        };
        let cpu = of(|unit| unit.cpu);
        let is_cpu = matches!(dominant, Some(Signal::Cpu | Signal::PsiCpu));
        match is_cpu && cpu.iter().all(|cpu| *cpu > 0.0) {
            true => cpu,
            false => of(|unit| unit.concurrency),
        }
    }

    /// A limit does not grow while the machine is over its watermark, but back to its floor, nor shrink while it is well
    /// below; and it stays within twice what was healthy.
    fn check_moves(
        &mut self,
        units: &[(Priority, Vec<Usage>)],
        views: &[UnitView],
    ) -> Result<(), String> {
        let newest = self.ticks.iter().rev().take(6).map(|tick| tick.watermark);
        let newest: Vec<f64> = newest.collect();
        let all = |is: fn(f64) -> bool| newest.len() == 6 && newest.iter().all(|w| is(*w));
        for (k, (priority, _)) in units.iter().enumerate() {
            let [Some(before), Some(now)] = self.last_limits(k) else {
                continue;
            };
            self.moved += u32::from(before != now);
            let most = (2.0 * views[k].baseline).ceil() as u32;
            match priority {
                Priority::Critical => {}
                _ if now > most.max(before) => {
                    return Err(format!("unit {k} may have {now}, of {most}"));
                }
                _ if all(|w| w > 1.0) && now > before.max(FLOOR) => {
                    return Err(format!("unit {k}: {before} grows to {now}"));
                }
                Priority::Stress => {}
                _ if all(|w| w < 0.95) && now < before.min(most) => {
                    return Err(format!("unit {k}: {before} shrinks to {now}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The largest of what is measured over its target.
fn fullest(sample: &Sample) -> (f64, Option<Signal>) {
    let targets = Targets::default();
    let parts = Signal::ALL.into_iter().filter_map(|signal| {
        let part = sample.get(signal)? / targets.get(signal)?;
        (part > 0.0).then_some((part, Some(signal)))
    });
    // The first of two that are as full.
    parts.fold(
        (0.0, None),
        |most, one| if one.0 > most.0 { one } else { most },
    )
}

/// Slots are neither lost nor invented: what is in flight and what may come are within the limit, but for what was there
/// already; and nobody is further than a slot from his part, while nobody has more than that.
fn divided(total: u32, shares: &[u32], usage: &[Usage]) -> Result<(), String> {
    let held: Vec<u32> = usage.iter().map(|u| u.in_flight - u.borrowed).collect();
    let owned = total - spare(total);
    let demands = demands(usage);
    let all: f64 = demands.iter().sum();
    let base = f64::from(owned.min(1) / shares.len() as u32);
    let rest = f64::from(owned) - base * shares.len() as f64;
    let part = |demand: &f64| match all > 0.0 {
        true => base + rest * demand / all,
        false => base + rest / shares.len() as f64,
    };
    let parts: Vec<f64> = demands.iter().map(part).collect();
    let mut above = held.iter().zip(&parts);
    let lent: u32 = usage.iter().map(|u| u.borrowed).sum();
    let is_over = lent > spare(total) || above.any(|(held, part)| f64::from(*held) > part - 1.0);
    let most: u32 = shares
        .iter()
        .zip(&held)
        .map(|(share, held)| *share.max(held))
        .sum();
    let there: u32 = held.iter().sum();
    if most > owned.max(there) {
        return Err(format!(
            "{most} may be in flight of {owned}: {shares:?}, {held:?}"
        ));
    }
    let is_near = |(share, part): (&u32, &f64)| (f64::from(*share) - part).abs() <= 1.001;
    if !is_over && !shares.iter().zip(&parts).all(is_near) {
        return Err(format!("{shares:?}, not {parts:.1?}"));
    }
    Ok(())
}

fn same(what: &str, is: f64, expected: f64) -> Result<(), String> {
    match (is - expected).abs() <= TOLERANCE * expected.abs().max(1.0) {
        true => Ok(()),
        false => Err(format!("{what} is {is}, not {expected}")),
    }
}
