//! The capacity at a latency objective: the highest rate at which a percentile stays below a limit.
//!
//! "Requests per second" without a latency is the rate at which nobody would want to be served. The
//! search is a bisection over the rate, on a logarithmic scale, since what matters is the ratio:
//!
//! ```text
//! rate := start
//! while not exceeded: rate := 2 × rate          (or halved, while never met)
//! while exceeded / met > 1 + tolerance: rate := √(met × exceeded); measure
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a peer must keep: `p99=5ms`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// Which percentile, as a part: 0.99.
    pub quantile: f64,
    /// What it may be at most, in microseconds.
    pub limit_us: f64,
}

/// Whether a rate kept the objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It did.
    Met,
    /// It did not, or the measurement was void.
    Exceeded,
}

/// How far apart the two ends may be at the end.
pub const TOLERANCE: f64 = 0.03;
/// Steps of a search: four to find both ends, seven to close in from a factor of 2 to 3 %, and some.
pub const STEPS_MAX: usize = 14;

/// A bisection.
#[derive(Clone, Debug)]
pub struct Search {
    start: f64,
    met: Option<f64>,
    exceeded: Option<f64>,
    steps: usize,
}

impl Search {
    /// Begins at a rate that is about right; positive.
    pub fn new(start: f64) -> Search {
        Search {
            start,
            met: None,
            exceeded: None,
            steps: 0,
        }
    }

    /// The rate to measure next, or none when the search is over.
    pub fn next_rate(&self) -> Option<f64> {
        if self.steps >= STEPS_MAX {
            return None;
        }
        match (self.met, self.exceeded) {
            (None, None) => Some(self.start),
            (Some(met), None) => Some(met * 2.0),
            (None, Some(exceeded)) => Some(exceeded / 2.0),
            (Some(met), Some(exceeded)) if exceeded / met > 1.0 + TOLERANCE => {
                Some((met * exceeded).sqrt())
            }
            _ => None,
        }
    }

    /// What a rate came to. A rate below one that was met is met, and one above one that was exceeded
    /// exceeds, whatever chance says: the ends only close in.
    pub fn note(&mut self, rate: f64, kept: Kept) {
        self.steps += 1;
        match kept {
            Kept::Met => self.met = Some(self.met.map_or(rate, |met| met.max(rate))),
            Kept::Exceeded => {
                self.exceeded = Some(self.exceeded.map_or(rate, |end| end.min(rate)));
            }
        }
    }

    /// The highest rate that was met.
    pub fn capacity(&self) -> Option<f64> {
        self.met
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Objective, String> {
        let shape = || "it should look like p99=5ms or p99.9=800us".to_owned();
        let (percentile, limit) = text.split_once('=').ok_or_else(shape)?;
        let percent: f64 = percentile
            .strip_prefix('p')
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(shape)?;
        if !(1.0..=99.99).contains(&percent) {
            return Err("the percentile should be between p1 and p99.99".to_owned());
        }
        let unit = limit.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = limit.strip_suffix(unit).unwrap_or(limit);
        let factor = match unit {
            "us" | "µs" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return Err(shape()),
        };
        let number: f64 = number.parse().map_err(|_| shape())?;
        if number <= 0.0 {
            return Err("the limit should be more than nothing".to_owned());
        }
        Ok(Objective {
            quantile: percent / 100.0,
            limit_us: number * factor,
        })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded, since 0.999 × 100 is not quite 99.9.
        let percent = (self.quantile * 1e6).round() / 1e4;
        match self.limit_us {
            limit if limit >= 1e6 => write!(f, "p{percent}={}s", limit / 1e6),
            limit if limit >= 1e3 => write!(f, "p{percent}={}ms", limit / 1e3),
            limit => write!(f, "p{percent}={limit}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        clock::Nanos,
        load::{
            arrivals::{Arrivals, Schedule, Spacing},
            latency::{Recorder, Times},
        },
    };

    /// One server with exponential service times, in virtual time.
    fn queue_p99_us(rate: f64, service_rate: f64) -> f64 {
        let arrivals = Arrivals {
            rate,
            spacing: Spacing::Poisson,
            seed: 3,
        };
        let mut schedule = Schedule::new(arrivals, Nanos::ZERO);
        let mut random = fastrand::Rng::with_seed(5);
        let mut recorder = Recorder::new().unwrap();
        let mut free = Nanos::ZERO;
        for _ in 0..200_000 {
            let due = schedule.take();
            let sent = due.max(free);
            let service = -1e9 / service_rate * (1.0 - random.f64()).ln();
            let done = sent + Nanos(service as u64);
            recorder.record(Times {
                due,
                free,
                sent,
                done,
            });
            free = done;
        }
        recorder.summary().from_due.p99_us
    }

    /// Of an M/M/1 queue the capacity is known: the time in the system is exponential with rate
    /// μ - λ, so its p99 stays below L up to λ = μ - ln(100) / L. The search finds it, from wherever
    /// it starts.
    #[test]
    fn finds_the_capacity_of_a_queue() {
        let (service_rate, limit_us) = (10_000.0, 2_000.0);
        let known = service_rate - 100f64.ln() / (limit_us / 1e6);
        for start in [500.0, 7_000.0, 60_000.0] {
            let mut search = Search::new(start);
            let mut steps = 0;
            while let Some(rate) = search.next_rate() {
                let kept = match queue_p99_us(rate, service_rate) <= limit_us {
                    true => Kept::Met,
                    false => Kept::Exceeded,
                };
                search.note(rate, kept);
                steps += 1;
            }
            let found = search.capacity().unwrap();
            assert!(
                (found / known - 1.0).abs() < 0.06,
                "{start}: {found} {known}"
            );
            assert!(steps <= STEPS_MAX);
        }
    }

    /// A peer that never meets the objective has no capacity, and the search ends.
    #[test]
    fn gives_up() {
        let mut search = Search::new(1_000.0);
        for _ in 0..STEPS_MAX {
            let rate = search.next_rate().unwrap();
            search.note(rate, Kept::Exceeded);
        }
        assert_eq!((search.next_rate(), search.capacity()), (None, None));
    }

    /// Objectives are read as people write them, and written so that they read back.
    #[test]
    fn objectives_parse() {
        for (text, quantile, limit_us) in [
            ("p99=5ms", 0.99, 5_000.0),
            ("p99.9=800us", 0.999, 800.0),
            ("p50=1.5s", 0.5, 1.5e6),
        ] {
            let objective: Objective = text.parse().unwrap();
            assert!((objective.quantile - quantile).abs() < 1e-12);
            assert!((objective.limit_us - limit_us).abs() < 1e-9);
            assert_eq!(objective.to_string(), text);
        }
        for text in [
            "p99", "99=5ms", "p99=5", "p100=5ms", "p99=0ms", "p99=ms", "p0=1s",
        ] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
