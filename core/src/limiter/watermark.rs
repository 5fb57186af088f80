//! Step 1: how full the machine is, as one number.
//!
//! Each signal is divided by its target, and the largest quotient is the watermark: what is short first is
//! what counts. A signal that is missing is left out, never read as zero (L1).

/// What is measured: a fraction of what there is, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// CPU time used, of the quota or of all CPUs.
    Cpu,
    /// Share of time in which some task waited for a CPU (PSI, `some`).
    PsiCpu,
    /// Share of time in which some task waited for memory (PSI, `some`).
    PsiMemory,
    /// Memory used, of the limit.
    Memory,
    /// How late a shard's loop runs what is due, p99, in seconds.
    LoopLag,
    /// Requests in flight.
    InFlight,
    /// What the protected application says of itself (ORCA).
    App,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Signal; 7] = [
        Signal::Cpu,
        Signal::PsiCpu,
        Signal::PsiMemory,
        Signal::Memory,
        Signal::LoopLag,
        Signal::InFlight,
        Signal::App,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Signal::Cpu => "cpu",
            Signal::PsiCpu => "psi_cpu",
            Signal::PsiMemory => "psi_memory",
            Signal::Memory => "memory",
            Signal::LoopLag => "loop_lag",
            Signal::InFlight => "in_flight",
            Signal::App => "app",
        }
    }
}

/// One look at the machine: a value by signal, `None` where it could not be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample([Option<f64>; Signal::COUNT]);

impl Sample {
    /// Sets what one signal says. What is no number is as good as missing.
    pub fn set(&mut self, signal: Signal, value: f64) {
        if let Some(slot) = self.0.get_mut(signal as usize) {
            *slot = (value.is_finite() && value >= 0.0).then_some(value);
        }
    }

    /// What one signal said.
    pub fn get(&self, signal: Signal) -> Option<f64> {
        self.0.get(signal as usize).copied().flatten()
    }
}

/// What counts as full, by signal; a signal without target is not used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Targets([Option<f64>; Signal::COUNT]);

impl Default for Targets {
    /// 80 % of the CPU, as what autoscalers aim at leaves room for a burst; 65 % of the time with a queue in
    /// front of it, which is what a single queue has at 80 % (M/M/1: its square); a tenth of the time waiting
    /// for memory is felt by every caller; 90 % of the memory is one
    /// allocation from the OOM killer; a loop that is 20 ms late has queued requests for longer than most of
    /// them take. A guess to be revisited, all of them.
    fn default() -> Self {
        let mut targets = Targets([None; Signal::COUNT]);
        targets.set(Signal::Cpu, 0.8);
        targets.set(Signal::PsiCpu, 0.65);
        targets.set(Signal::PsiMemory, 0.1);
        targets.set(Signal::Memory, 0.9);
        targets.set(Signal::LoopLag, 0.02);
        targets.set(Signal::App, 1.0);
        targets
    }
}

impl Targets {
    /// Sets the target of one signal; one that is not positive switches it off.
    pub fn set(&mut self, signal: Signal, target: f64) {
        if let Some(slot) = self.0.get_mut(signal as usize) {
            *slot = (target.is_finite() && target > 0.0).then_some(target);
        }
    }

    /// The target of one signal.
    pub fn get(&self, signal: Signal) -> Option<f64> {
        self.0.get(signal as usize).copied().flatten()
    }
}

/// A watermark, and the signal that made it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The largest quotient; 0 if nothing could be measured.
    pub watermark: f64,
    /// Whose it is.
    pub dominant: Option<Signal>,
}

/// Reads the watermark of a sample.
pub fn read(sample: &Sample, targets: &Targets) -> Reading {
    let nothing = Reading {
        watermark: 0.0,
        dominant: None,
    };
    Signal::ALL.iter().fold(nothing, |highest, &signal| {
        match (sample.get(signal), targets.get(signal)) {
            (Some(value), Some(target)) if value / target > highest.watermark => Reading {
                watermark: value / target,
                dominant: Some(signal),
            },
            _ => highest,
        }
    })
}

/// Whether the machine is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No limit begins.
    #[default]
    Healthy,
    /// Limits begin and tighten.
    Overloaded,
}

/// Above this the machine is overloaded at once, without waiting for more ticks.
pub(super) const AT_ONCE: f64 = 1.5;
/// Below this it is on its way out of an overload.
const WELL: f64 = 0.9;

/// Tells a burst from an overload.
#[derive(Clone, Debug)]
pub struct Trigger {
    ticks: u32,
    phase: Phase,
    /// Ticks in a row that spoke for the other phase.
    streak: u32,
}

impl Trigger {
    /// A trigger that takes `ticks` in a row, in either direction.
    pub fn new(ticks: u32) -> Trigger {
        Trigger {
            ticks: ticks.max(1),
            phase: Phase::Healthy,
            streak: 0,
        }
    }

    /// The phase as of the last step.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes the watermark of one tick, and whether requests pile up as they never did while all was well.
    pub fn step(&mut self, watermark: f64, surges: bool) -> Phase {
        let (against, other) = match self.phase {
            Phase::Healthy => (watermark > 1.0, Phase::Overloaded),
            Phase::Overloaded => (watermark < WELL, Phase::Healthy),
        };
        self.streak = if against { self.streak + 1 } else { 0 };
        // At its ceiling, a signal says no more than that (see `backlog`).
        let is_clear = watermark > AT_ONCE || (watermark > 1.0 && surges);
        let at_once = self.phase == Phase::Healthy && is_clear;
        if self.streak >= self.ticks || at_once {
            self.phase = other;
            self.streak = 0;
        }
        self.phase
    }
}

/// Ticks whose mean limits follow near the watermark. With two of them an application that is asked for just what
/// it can do is held to nine tenths of what it could use of its target, as every limit that follows noise is: it
/// tightens faster than it is given back.
const TREND_TICKS: usize = 6;
/// The same while it is far off, and everybody waits for limits to move; and of critical requests always, which six
/// ticks let in again too late.
const TREND_TICKS_SHORT: usize = 2;
/// This is far.
const FAR: f64 = 0.2;

/// The watermark as limits follow it: of a single tick on a small application, most is chance.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    /// The last ticks, the newest first.
    ticks: [f64; TREND_TICKS],
    filled: usize,
}

impl Trend {
    /// Takes the watermark of one tick.
    pub fn step(&mut self, watermark: f64) {
        self.ticks.rotate_right(1);
        if let Some(newest) = self.ticks.first_mut() {
            *newest = watermark;
        }
        self.filled = (self.filled + 1).min(TREND_TICKS);
    }

    /// What limits of critical requests follow.
    pub fn short(&self) -> f64 {
        self.mean(TREND_TICKS_SHORT, |tick| tick)
    }

    /// What the others follow.
    pub fn long(&self) -> f64 {
        match self.is_near() {
            false => self.short(),
            // What was far has moved limits already: it must not do so for as long as it is remembered.
            true => self.mean(TREND_TICKS, |tick| tick.clamp(1.0 - FAR, 1.0 + FAR)),
        }
    }

    /// Whether the machine is about as full as it may be.
    pub fn is_near(&self) -> bool {
        (self.short() - 1.0).abs() <= FAR
    }

    fn mean(&self, ticks: usize, read: fn(f64) -> f64) -> f64 {
        let count = ticks.min(self.filled);
        let newest = self.ticks.iter().take(count);
        newest.map(|tick| read(*tick)).sum::<f64>() / count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the shortest resource decides, and a missing one counts for nothing (L1). Method: samples
    /// with one, two and no signals, one of them no number.
    #[test]
    fn shortest_resource_decides() {
        let targets = Targets::default();
        let mut sample = Sample::default();
        assert_eq!(read(&sample, &targets).dominant, None);
        sample.set(Signal::Cpu, 0.4);
        assert_eq!(read(&sample, &targets).watermark, 0.5);
        sample.set(Signal::Memory, 0.9);
        sample.set(Signal::PsiCpu, f64::NAN);
        let reading = read(&sample, &targets);
        assert_eq!(
            (reading.watermark, reading.dominant),
            (1.0, Some(Signal::Memory))
        );
        let mut off = targets;
        off.set(Signal::Memory, 0.0);
        assert_eq!(read(&sample, &off).dominant, Some(Signal::Cpu));
    }

    /// Goal: a surge is an overload at once, but only of a machine that is over its watermark (L3). Method: one of
    /// the two, then both.
    #[test]
    fn surge_needs_no_patience() {
        let mut trigger = Trigger::new(5);
        for (watermark, surges) in [(0.99, true), (1.25, false)] {
            assert_eq!(trigger.step(watermark, surges), Phase::Healthy);
        }
        assert_eq!(trigger.step(1.01, true), Phase::Overloaded);
    }

    /// Goal: near the watermark limits follow six ticks, far from it two, and what was far moves them once (L5).
    /// Method: ticks by hand.
    #[test]
    fn limits_follow_a_trend() {
        let mut trend = Trend::default();
        for (tick, short, long) in [
            (1.1, 1.1, 1.1),
            (0.9, 1.0, 1.0),
            (1.0, 0.95, 1.0),
            (1.0, 1.0, 1.0),
            (1.0, 1.0, 1.0),
            (1.0, 1.0, 1.0),
            (1.3, 1.15, (0.9 + 4.0 + 1.2) / 6.0),
            (3.0, 2.15, 2.15),
            (1.0, 2.0, 2.0),
            (1.0, 1.0, (4.0 + 1.2 + 1.2) / 6.0),
            (0.2, 0.6, 0.6),
        ] {
            trend.step(tick);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(
                near(trend.short(), short) && near(trend.long(), long),
                "{trend:?}"
            );
        }
    }

    /// Goal: a burst is no overload, half as much again is one at once, and it takes as long to be over
    /// (L3). Method: watermarks tick by tick.
    #[test]
    fn trigger_waits_both_ways() {
        let mut trigger = Trigger::new(5);
        for watermark in [1.1, 1.1, 1.1, 1.1, 0.99, 1.1, 1.1, 1.1, 1.1] {
            assert_eq!(trigger.step(watermark, false), Phase::Healthy);
        }
        assert_eq!(trigger.step(1.1, false), Phase::Overloaded);
        for watermark in [0.8, 0.8, 0.8, 0.8, 0.95, 0.8, 0.8, 0.8, 0.8] {
            assert_eq!(trigger.step(watermark, false), Phase::Overloaded);
        }
        assert_eq!(trigger.step(0.8, false), Phase::Healthy);
        assert_eq!(trigger.step(1.6, false), Phase::Overloaded);
    }
}
