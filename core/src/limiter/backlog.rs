//! Whether requests pile up before the application, and how long it will be busy with them.
//!
//! A signal that has a ceiling cannot say how far above it the machine is asked: the CPU of a control group is at
//! most its quota, which is no more than 1.25 of a target of 80 %. What is in flight can (L3): ten times what was
//! usual is no burst. And what waits already is work for a while even if nothing more comes: divided by what is
//! done per second, it is how long whoever comes next will wait (Little's law).

use super::baseline::Usage;

/// Ticks that are looked back on: 6.4 s, as [`baseline`](super::baseline) does.
const HISTORY: usize = 64;
/// How many times the most of a healthy tick is a surge: above, chance does not explain it.
const SURGE: f64 = 2.0;
/// On top of it, so that single requests of an idle application are none.
const SURGE_SLOTS: f64 = 4.0;
/// Seconds over which what is done is averaged.
const RATE_S: f64 = 1.0;
/// Seconds of waiting from which on a backlog is long: what people notice, and more than four turns of a tick.
const LONG_S: f64 = 0.25;

/// What is in flight of all units together, tick by tick.
#[derive(Clone, Debug)]
pub struct Backlog {
    in_flight: f64,
    /// At the tick before.
    before: f64,
    /// Requests per second that ended, averaged.
    done: f64,
    /// In flight at the end of the last healthy ticks.
    healthy: [f32; HISTORY],
    next: usize,
    /// The same of the last tick, if that was a healthy one: it counts once the next one is healthy, too. A surge
    /// begins in the middle of a tick.
    candidate: Option<f32>,
}

impl Default for Backlog {
    fn default() -> Self {
        Backlog {
            in_flight: 0.0,
            before: 0.0,
            done: 0.0,
            healthy: [0.0; HISTORY],
            next: 0,
            candidate: None,
        }
    }
}

impl Backlog {
    /// Takes what the shards saw in a tick of `tick_s` seconds.
    pub fn record<'a>(&mut self, usages: impl Iterator<Item = &'a Usage>, tick_s: f64) {
        let (admitted, in_flight) = usages.fold((0, 0), |(admitted, in_flight), usage| {
            (
                admitted + usage.admitted,
                in_flight + u64::from(usage.in_flight),
            )
        });
        self.before = self.in_flight;
        self.in_flight = in_flight as f64;
        let done = (self.before + admitted as f64 - self.in_flight).max(0.0) / tick_s;
        self.done += (done - self.done) * (tick_s / RATE_S).min(1.0);
    }

    /// Whether the machine was well in that tick.
    pub fn judge(&mut self, is_healthy: bool) {
        let now = is_healthy.then_some(self.in_flight as f32);
        let before = std::mem::replace(&mut self.candidate, now);
        if let (Some(before), Some(_), Some(slot)) = (before, now, self.healthy.get_mut(self.next))
        {
            *slot = before;
            self.next = (self.next + 1) % HISTORY;
        }
    }

    /// Whether far more is in flight than a machine that is well ever has, and ever more.
    pub fn surges(&self) -> bool {
        self.in_flight > self.before && self.in_flight > SURGE * self.usual() + SURGE_SLOTS
    }

    /// Whether whoever comes now waits for long, beyond the time that requests take while all is well.
    pub fn is_long(&self) -> bool {
        self.in_flight - self.usual() > LONG_S * self.done
    }

    /// The most that a machine that is well had in flight.
    fn usual(&self) -> f64 {
        f64::from(self.healthy.iter().copied().fold(0.0, f32::max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_S: f64 = 0.1;

    fn record(backlog: &mut Backlog, admitted: u64, in_flight: u32) {
        let usage = Usage {
            admitted,
            in_flight,
            ..Usage::default()
        };
        backlog.record([usage].iter(), TICK_S);
    }

    /// Ten ticks with ten requests each, five of them in flight at the end.
    fn well() -> Backlog {
        let mut backlog = Backlog::default();
        for _ in 0..10 {
            record(&mut backlog, 10, 5);
            backlog.judge(true);
        }
        backlog
    }

    /// Goal: what never was so while all was well is a surge, as long as it grows, and what an idle application
    /// has is none (L3). Method: at the threshold and one above, of one that is used to five and of a new one.
    #[test]
    fn surges_are_beyond_what_is_usual() {
        for (usual, most) in [(well(), 14), (Backlog::default(), 4)] {
            for (in_flight, surges) in [(most, false), (most + 1, true)] {
                let mut backlog = usual.clone();
                record(&mut backlog, 20, in_flight);
                assert_eq!(backlog.surges(), surges, "{in_flight}");
                record(&mut backlog, 20, in_flight);
                assert!(!backlog.surges(), "it is no more than before");
            }
        }
    }

    /// Goal: what a surge brings is not taken for usual, though it begins in a tick that is well (L4). Method: a
    /// healthy tick with fifty in flight before one that is not; then two healthy ones.
    #[test]
    fn usual_is_what_stays_well() {
        let mut backlog = well();
        record(&mut backlog, 50, 50);
        backlog.judge(true);
        backlog.judge(false);
        record(&mut backlog, 100, 90);
        assert!(backlog.surges());
        for _ in 0..2 {
            record(&mut backlog, 10, 50);
            backlog.judge(true);
        }
        record(&mut backlog, 100, 104);
        assert!(!backlog.surges());
    }

    /// Goal: a backlog is long if it takes a quarter of a second beyond what is usual (L7). Method: a hundred
    /// requests per second are done.
    #[test]
    fn backlogs_are_measured_by_what_is_done() {
        let mut backlog = well();
        (0..50).for_each(|_| record(&mut backlog, 10, 5));
        record(&mut backlog, 10 + 24, 5 + 24);
        assert!(!backlog.is_long());
        record(&mut backlog, 10 + 2, 5 + 26);
        assert!(backlog.is_long());
    }
}
