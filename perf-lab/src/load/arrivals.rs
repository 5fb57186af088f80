//! When requests are due in an open loop: a stream of times that depends on nothing that happens.

use std::fmt;

use crate::clock::Nanos;

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

/// The due times, ascending.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    random: fastrand::Rng,
    /// The next due time, as a float so that rounding does not add up.
    next_ns: f64,
}

impl Schedule {
    /// The first arrival is one gap after `start`.
    pub fn new(arrivals: Arrivals, start: Nanos) -> Schedule {
        let mut schedule = Schedule {
            arrivals,
            random: fastrand::Rng::with_seed(arrivals.seed),
            next_ns: start.0 as f64,
        };
        schedule.advance();
        schedule
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
        let mean_ns = 1e9 / self.arrivals.rate;
        self.next_ns += match self.arrivals.spacing {
            Spacing::Constant => mean_ns,
            // The inverse of the exponential distribution; 1 - u is never zero.
            Spacing::Poisson => -mean_ns * (1.0 - self.random.f64()).ln(),
        };
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
}
