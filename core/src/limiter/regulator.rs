//! Step 3: a unit's limit moves with the watermark (L5).
//!
//! ```text
//! w > 1      B ← B · (w + D·max(0, Δw))^(−a)      a: 0.5 critical, 1 normal, 2 batch and stress
//! w < 0.95   B ← B · (1 + R·(1 − w))              R: 1 critical, 0.35 the others
//! between    B stays: the dead band is what keeps it from swinging
//! ```
//!
//! `B` is held between the floor and twice what was healthy, so that it does not run away while it does not
//! bind (anti-windup). A limit that has been well above demand for a while is dropped.

use super::{Priority, baseline::Baseline};

/// Weight of the watermark's rise: a fast one is met early.
const DERIVATIVE: f64 = 0.25;
/// How fast a limit is given back: at half the watermark, by a sixth a tick.
const RECOVERY: f64 = 0.35;
/// The same for what must go on: by half. What it takes above the watermark, others give.
const RECOVERY_CRITICAL: f64 = 1.0;
/// Above this, and up to 1, a limit stays as it is.
const DEAD_BAND: f64 = 0.95;
/// Twice the healthy concurrency: more is not known to be bearable.
const HIGHEST: f64 = 2.0;
/// A limit below this lets nobody in.
const NO_SLOT: f64 = 0.5;
/// A limit is above demand if that uses less than this part of it.
const SLACK: f64 = 0.8;
/// Requests above the limit that are no backlog any more.
const DRAINED: f64 = 0.5;
/// Ticks for which a backlog is waited for: 3 s, in which one that drains has drained.
pub(super) const DRAIN_PATIENCE: u32 = 30;
/// Ticks after which a unit that makes up nearly all of the cost is the overload by itself: 1 s.
const ALONE_TICKS: u32 = 10;
/// Ticks of slack after which a limit is dropped: 3 s.
const RELEASE_TICKS: u32 = 30;

/// The limit of one unit, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Regulator {
    limit: Option<f64>,
    last_watermark: f64,
    slack_ticks: u32,
    /// Ticks in a row in which more was in flight than the limit allows.
    drain_ticks: u32,
    /// The limit is there until a backlog has drained, and no longer.
    is_paused: bool,
    /// Ticks in a row in which the unit had no limit and made up nearly all of the cost.
    alone_ticks: u32,
}

impl Regulator {
    /// The limit in force, in requests in flight.
    pub fn limit(&self) -> Option<u32> {
        // Rounded up: a limit that is in force lets somebody in, unless it is 0.
        self.limit.map(|limit| limit.ceil() as u32)
    }

    /// Lets nothing in.
    pub fn refuse_all(&mut self) {
        self.limit = Some(0.0);
        self.slack_ticks = 0;
    }

    /// Lets no more in than `limit`, until [`resume`](Regulator::resume).
    pub fn pause(&mut self, limit: f64) {
        self.is_paused |= self.limit.is_none();
        self.limit = Some(self.limit.map_or(limit, |known| known.min(limit)));
        self.slack_ticks = 0;
    }

    /// Whether the limit is one of [`pause`](Regulator::pause) alone.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Takes it back.
    pub fn resume(&mut self) {
        *self = Regulator::default();
    }

    /// Looks at what is in flight, once a tick. `is_most`: the machine is overloaded, and nearly all of the cost
    /// is this unit's.
    pub fn watch(&mut self, baseline: &Baseline, is_most: bool) {
        self.alone_ticks = match is_most && self.limit.is_none() {
            true => self.alone_ticks.saturating_add(1),
            false => 0,
        };
        let above = |limit: f64| baseline.in_flight() > limit.ceil() + DRAINED;
        self.drain_ticks = match self.limit.is_some_and(above) {
            true => self.drain_ticks.saturating_add(1),
            false => 0,
        };
    }

    /// Whether more is in flight than the limit allows: a lower one would change nothing yet. What does not drain
    /// for long is kept by what others have in flight, and waiting for it would be waiting for ever.
    pub fn is_draining(&self) -> bool {
        (1..=DRAIN_PATIENCE).contains(&self.drain_ticks)
    }

    /// Whether the unit is the overload, all by itself: that others give way helps nobody then.
    pub fn is_alone(&self) -> bool {
        self.alone_ticks >= ALONE_TICKS
    }

    /// Whether requests were refused for the limit, and it may be raised.
    pub fn binds(&self, priority: Priority, baseline: &Baseline) -> bool {
        self.limit.is_some_and(|limit| {
            baseline.demand() > limit.ceil() && limit < highest(priority, baseline)
        })
    }

    /// One tick in which the limit stays as it is.
    pub fn hold(&mut self) {
        self.slack_ticks = 0;
    }

    /// One tick. `begins` is the limit that is put in force where there is none.
    pub fn step(
        &mut self,
        watermark: f64,
        priority: Priority,
        baseline: &Baseline,
        begins: Option<f64>,
        floor: u32,
    ) {
        let rise = (watermark - self.last_watermark).max(0.0);
        self.last_watermark = watermark;
        let Some(limit) = self.limit.or(begins) else {
            return;
        };
        let moved = match watermark {
            w if w > 1.0 => limit * (w + DERIVATIVE * rise).powf(-exponent(priority)),
            // From nothing at all, something.
            w if w < DEAD_BAND => (limit * (1.0 + recovery(priority) * (1.0 - w))).max(1.0),
            _ => limit,
        };
        let floor = f64::from(floor);
        let held = moved.clamp(floor, highest(priority, baseline).max(floor));
        // Less than half a slot is none: rounded up it would be one for ever, and the next class would wait for
        // this one to give way.
        self.limit = Some(if held < NO_SLOT { 0.0 } else { held });
        let has_slack = watermark < DEAD_BAND && baseline.demand() < SLACK * moved;
        self.slack_ticks = if has_slack { self.slack_ticks + 1 } else { 0 };
        if self.slack_ticks >= RELEASE_TICKS {
            *self = Regulator::default();
        }
    }
}

fn highest(priority: Priority, baseline: &Baseline) -> f64 {
    match priority {
        // Held back by the watermark alone.
        Priority::Critical => f64::MAX,
        _ => HIGHEST * baseline.start(),
    }
}

fn recovery(priority: Priority) -> f64 {
    match priority {
        Priority::Critical => RECOVERY_CRITICAL,
        _ => RECOVERY,
    }
}

fn exponent(priority: Priority) -> f64 {
    match priority {
        Priority::Critical => 0.5,
        Priority::Normal => 1.0,
        Priority::Batch | Priority::Stress => 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::baseline::Usage;

    fn healthy(in_flight: u32) -> Baseline {
        let mut baseline = Baseline::new(1);
        let usage = Usage {
            in_flight,
            in_flight_ns: u64::from(in_flight) * 100_000_000,
            ..Usage::default()
        };
        (0..20).for_each(|_| baseline.record(&[usage], 0.1, true));
        baseline
    }

    fn limited(baseline: &Baseline) -> Regulator {
        let mut regulator = Regulator::default();
        regulator.step(1.0, Priority::Normal, baseline, Some(baseline.start()), 1);
        regulator
    }

    /// Goal: limits tighten by class, rest in the dead band and recover (L5). Method: one step each from
    /// the same limit.
    #[test]
    fn moves_with_the_watermark() {
        let baseline = healthy(100);
        assert_eq!(limited(&baseline).limit(), Some(111));
        let after = |watermark, priority| {
            let mut regulator = limited(&baseline);
            regulator.step(watermark, priority, &baseline, None, 1);
            regulator.limit().unwrap_or(0)
        };
        let by_class = [Priority::Critical, Priority::Normal, Priority::Batch]
            .map(|priority| after(1.2, priority));
        assert!(by_class.is_sorted_by(|a, b| a > b), "{by_class:?}");
        assert_eq!(after(0.97, Priority::Normal), 111);
        assert!(after(0.5, Priority::Normal) > 120);
    }

    /// Goal: what must go on is given back to soon, and others with care (L5). Method: ticks at a tenth of the
    /// watermark, from a single slot to twenty.
    #[test]
    fn critical_is_given_back_first() {
        let baseline = healthy(100);
        let ticks = |priority| {
            let mut regulator = Regulator::default();
            regulator.refuse_all();
            let mut ticks = 0;
            while regulator.limit() < Some(20) {
                regulator.step(0.1, priority, &baseline, None, 1);
                ticks += 1;
            }
            ticks
        };
        assert_eq!(
            (ticks(Priority::Critical), ticks(Priority::Normal)),
            (6, 12)
        );
    }

    /// Goal: a pause ends with the backlog, and leaves no limit behind, but for one that was there already (L5).
    /// Method: one without and one with a limit are paused and go on.
    #[test]
    fn pauses_leave_nothing_behind() {
        let mut free = Regulator::default();
        free.pause(2.0);
        assert_eq!((free.limit(), free.is_paused()), (Some(2), true));
        free.resume();
        assert_eq!((free.limit(), free.is_paused()), (None, false));
        let mut held = limited(&healthy(100));
        held.pause(2.0);
        assert_eq!((held.limit(), held.is_paused()), (Some(2), false));
    }

    /// Goal: a limit neither starves a unit nor runs away. Method: a hundred ticks far above and far below
    /// the watermark, with demand.
    #[test]
    fn stays_between_floor_and_twice_healthy() {
        let baseline = healthy(100);
        let mut regulator = limited(&baseline);
        for _ in 0..100 {
            regulator.step(3.0, Priority::Batch, &baseline, None, 4);
        }
        assert_eq!(regulator.limit(), Some(4));
        for _ in 0..25 {
            regulator.step(0.2, Priority::Batch, &baseline, None, 4);
        }
        assert_eq!(regulator.limit(), Some(221));
    }

    /// Goal: a limit that is not needed any more goes away, and one that was never begun does not appear.
    /// Method: ticks with a low watermark and little demand.
    #[test]
    fn is_dropped_when_not_needed() {
        let baseline = healthy(10);
        let mut regulator = limited(&baseline);
        for _ in 0..60 {
            regulator.step(0.5, Priority::Normal, &baseline, None, 1);
        }
        assert_eq!(regulator.limit(), None);
        regulator.step(2.0, Priority::Normal, &baseline, None, 1);
        assert_eq!(regulator.limit(), None);
    }
}
