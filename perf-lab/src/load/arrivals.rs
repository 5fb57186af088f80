//! When requests are due in an open loop: a stream of times that depends on nothing that happens.

use std::{collections::VecDeque, fmt};

use crate::clock::Nanos;

/// When nothing falls due any more: centuries away.
const NEVER_NS: f64 = 1e19;

/// An arrival process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrivals {
    /// Requests per second; positive.
    pub rate: f64,
    /// How they are spread.
    pub spacing: Spacing,
    /// For the random spacings.
    pub seed: u64,
}

/// How arrivals are spread.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Evenly.
    Constant,
    /// Independently of each other, as many clients' requests are.
    Poisson,
}

/// A stretch of a measurement with a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// How long it lasts; the last one lasts for ever.
    pub time: Nanos,
    /// Its rate, as a multiple of the arrivals'.
    pub times: f64,
}

/// The due times, ascending.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    random: fastrand::Rng,
    /// The next due time, as a float so that rounding does not add up.
    next_ns: f64,
    /// Rate and end of the stretches to come, the present one first; empty is the plain rate.
    stretches: VecDeque<(f64, f64)>,
}

impl Schedule {
    /// The first arrival is one gap after `start`.
    pub fn new(arrivals: Arrivals, start: Nanos) -> Schedule {
        let mut schedule = Schedule {
            arrivals,
            random: fastrand::Rng::with_seed(arrivals.seed),
            next_ns: start.0 as f64,
            stretches: VecDeque::new(),
        };
        schedule.advance();
        schedule
    }

    /// Begins with the first of `stretches` at `now`: what has not fallen due yet is drawn again.
    pub fn stretch(&mut self, stretches: &[Stretch], now: Nanos) {
        let mut end_ns = now.0 as f64;
        self.stretches.clear();
        for stretch in stretches {
            end_ns += stretch.time.0 as f64;
            self.stretches.push_back((stretch.times, end_ns));
        }
        if !stretches.is_empty() && self.next_ns > now.0 as f64 {
            self.next_ns = now.0 as f64;
            self.advance();
        }
    }

    /// The next due time.
    pub fn peek(&self) -> Nanos {
        Nanos(self.next_ns as u64)
    }

    /// Takes the next due time.
    pub fn take(&mut self) -> Nanos {
        let due = self.peek();
        self.advance();
        due
    }

    fn advance(&mut self) {
        // So many mean gaps of the plain rate have to pass; a stretch lets them pass faster or slower.
        let mut gaps = match self.arrivals.spacing {
            Spacing::Constant => 1.0,
            // The inverse of the exponential distribution; 1 - u is never zero.
            Spacing::Poisson => -(1.0 - self.random.f64()).ln(),
        };
        let mean_ns = 1e9 / self.arrivals.rate;
        while let Some(&(times, end_ns)) = self.stretches.front() {
            let possible = ((end_ns - self.next_ns) / mean_ns * times).max(0.0);
            // The last one goes on, unless nothing happens in it.
            if gaps <= possible || (self.stretches.len() == 1 && times > 0.0) {
                self.next_ns += gaps * mean_ns / times.max(f64::MIN_POSITIVE);
                return;
            }
            gaps -= possible;
            self.next_ns = self.next_ns.max(end_ns);
            if self.stretches.len() == 1 {
                self.next_ns = NEVER_NS;
                return;
            }
            self.stretches.pop_front();
        }
        self.next_ns += gaps * mean_ns;
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spacing::Constant => "constant",
            Spacing::Poisson => "Poisson",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(spacing: Spacing, seed: u64) -> Schedule {
        let arrivals = Arrivals {
            rate: 30_000.0,
            spacing,
            seed,
        };
        Schedule::new(arrivals, Nanos::from_millis(1))
    }

    /// A constant schedule neither drifts nor bunches: the n-th arrival is n gaps after the start.
    #[test]
    fn constant_does_not_drift() {
        let mut schedule = schedule(Spacing::Constant, 0);
        for n in 1..=300_000u64 {
            let expected = 1_000_000 + n * 1_000_000_000 / 30_000;
            assert!(schedule.take().0.abs_diff(expected) <= 1, "arrival {n}");
        }
    }

    /// Poisson arrivals have the asked rate, and gaps whose deviation equals their mean; the same
    /// seed gives the same times.
    #[test]
    fn poisson_is_poisson() {
        let count = 100_000;
        let mut schedule_a = schedule(Spacing::Poisson, 7);
        let mut schedule_b = schedule(Spacing::Poisson, 7);
        let mut last = Nanos::from_millis(1);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..count {
            let due = schedule_a.take();
            assert_eq!(due, schedule_b.take());
            let gap = (due - last).as_micros();
            (sum, squares) = (sum + gap, squares + gap * gap);
            last = due;
        }
        let mean = sum / f64::from(count);
        let deviation = (squares / f64::from(count) - mean * mean).sqrt();
        assert!((mean / 33.33 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((deviation / mean - 1.0).abs() < 0.02, "{deviation} {mean}");
    }

    /// With a rate of 1,000/s that is doubled in the second of three stretches of 100 ms and zero in the
    /// third, 100 requests fall due in the first, 200 in the second, and none after.
    #[test]
    fn stretches_change_the_rate() {
        for spacing in [Spacing::Constant, Spacing::Poisson] {
            let arrivals = Arrivals {
                rate: 1_000.0,
                spacing,
                seed: 3,
            };
            let start = Nanos::from_millis(50);
            let mut schedule = Schedule::new(arrivals, Nanos::ZERO);
            let time = Nanos::from_millis(100);
            let stretches = [1.0, 2.0, 0.0].map(|times| Stretch { time, times });
            while schedule.peek() < start {
                schedule.take();
            }
            schedule.stretch(&stretches, start);
            let mut counts = [0u32; 3];
            while schedule.peek() < Nanos::from_millis(10_000) {
                let due = schedule.take();
                let which = ((due - start).0 / time.0) as usize;
                // A request at the very end of a stretch may be rounded into the next.
                let which = if due == start + time { 0 } else { which };
                if let Some(count) = counts.get_mut(which) {
                    *count += 1;
                }
            }
            let near = |count: u32, wanted: u32| match spacing {
                Spacing::Constant => count.abs_diff(wanted) <= 1,
                Spacing::Poisson => count.abs_diff(wanted) <= 45,
            };
            assert!(near(counts[0], 100), "{spacing}: {counts:?}");
            assert!(near(counts[1], 200), "{spacing}: {counts:?}");
            assert!(counts[2] <= 1, "{spacing}: {counts:?}");
        }
    }
}
