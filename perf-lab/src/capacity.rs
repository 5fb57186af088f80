//! A peer's capacity at a latency objective: the search of [`crate::knee`], carried out.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Nanos,
    error::Error,
    knee::{Kept, Objective, Search},
    measure::{Bench, Measurement, measure},
    run::{Candidate, RowResult},
    scenario::{Load, Scenario},
};

/// What a peer can bear at an objective.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Capacity {
    /// The objective.
    pub objective: Objective,
    /// The highest rate that kept it; none if no rate did.
    pub requests_per_s: Option<f64>,
    /// Whether the generator was late at some rate above it, so that the peer may bear more.
    pub is_lower_bound: bool,
    /// Everything that was tried, by rate.
    pub points: Vec<Point>,
}

/// One rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Requests per second that were due.
    pub rate: f64,
    /// Requests per second that were answered.
    pub requests_per_s: f64,
    /// Median latency from due time.
    pub p50_us: f64,
    /// Its 99th percentile.
    pub p99_us: f64,
    /// What it came to.
    pub outcome: Outcome,
}

/// What a rate came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The objective was kept. A generator that was late made latencies longer and not shorter, so it
    /// does not matter whether it was.
    Kept,
    /// It was not.
    Exceeded,
    /// It was not, and the generator was late: that may have been why.
    Unknown,
}

/// How often a rate is tried until it is known what it comes to.
const TRIES: usize = 3;
/// The generator's lag (99th percentile) may have made a latency of the limit if it was more than this
/// part of it.
const LAG_SHARE_MAX: f64 = 0.10;
/// The part of the requests that may have no answer at the end.
const UNFINISHED_MAX: f64 = 0.01;

/// Searches the highest rate at which a peer keeps an objective. It starts at half of what the peer
/// reached before, or of what it was driven at. `None` where there is no rate to search.
pub(crate) fn search(
    candidate: &Candidate,
    result: &RowResult,
    objective: Objective,
    bench: &Bench,
    progress: &mut impl FnMut(&str),
) -> Result<Option<Capacity>, Error> {
    let Some(reached) = result.capacity(&candidate.peer.name) else {
        return Ok(None);
    };
    if reached <= 0.0 {
        return Ok(None);
    }
    let mut capacity = Capacity {
        objective,
        requests_per_s: None,
        is_lower_bound: false,
        points: Vec::new(),
    };
    let mut search = Search::new(reached / 2.0);
    while let Some(rate) = search.next_rate() {
        // An open loop, whatever the scenario's own load is.
        let row = Scenario {
            load: Load::Rate(rate),
            ..result.row.clone()
        };
        let mut outcome = Outcome::Unknown;
        for _ in 0..TRIES {
            let round = capacity.points.len();
            let measurement = match measure(candidate.task(&row, Some(rate), round), bench) {
                Ok(measurement) => measurement,
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    progress(&format!("{}: {error}", row.name));
                    return Ok(None);
                }
            };
            let point = Point::of(&measurement, rate, objective);
            progress(&point.line(&row.name, &candidate.peer.name, objective));
            outcome = point.outcome;
            capacity.points.push(point);
            if outcome != Outcome::Unknown {
                break;
            }
        }
        capacity.is_lower_bound |= outcome == Outcome::Unknown;
        let kept = match outcome {
            Outcome::Kept => Kept::Met,
            Outcome::Exceeded | Outcome::Unknown => Kept::Exceeded,
        };
        search.note(rate, kept);
    }
    capacity.requests_per_s = search.capacity();
    capacity.points.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    Ok(Some(capacity))
}

impl Point {
    fn of(measurement: &Measurement, rate: f64, objective: Objective) -> Point {
        let latency = &measurement.load.latency;
        Point {
            rate,
            requests_per_s: measurement.requests_per_s(),
            p50_us: latency.from_due.p50_us,
            p99_us: latency.from_due.p99_us,
            outcome: outcome(measurement, objective),
        }
    }

    fn line(&self, row: &str, peer: &str, objective: Objective) -> String {
        let word = match self.outcome {
            Outcome::Kept => "kept",
            Outcome::Exceeded => "exceeded",
            Outcome::Unknown => "unknown: the generator was late",
        };
        let (rate, p99_us) = (self.rate, self.p99_us);
        format!("{row:<18} {objective}  {peer:<10} {rate:>8.0}/s  p99 {p99_us:>8.0} µs  {word}")
    }
}

fn outcome(measurement: &Measurement, objective: Objective) -> Outcome {
    let load = &measurement.load;
    let unfinished = load.latency.unfinished as f64;
    let is_whole =
        load.failures == 0 && unfinished <= UNFINISHED_MAX * load.latency.from_due.count as f64;
    let reached = load.distributions.from_due.at(objective.quantile);
    let is_within = reached.is_some_and(|reached| reached.as_micros() <= objective.limit_us);
    if is_whole && is_within {
        return Outcome::Kept;
    }
    let lag = load
        .distributions
        .lag
        .at(0.99)
        .map_or(0.0, Nanos::as_micros);
    match lag > LAG_SHARE_MAX * objective.limit_us {
        true => Outcome::Unknown,
        false => Outcome::Exceeded,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hdrhistogram::Histogram;

    use super::*;
    use crate::{load::distribution::Distribution, report::sample::measured};

    fn all(us: u64) -> Distribution {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record_n(us * 1_000, 1_000).unwrap();
        Distribution::new(histogram)
    }

    /// A rate is kept whatever the generator's lag; where it is not kept, a lag of more than a tenth of
    /// the limit leaves the reason open. Failures and requests without an answer keep nothing.
    #[test]
    fn lateness_is_not_held_against_the_peer() {
        let objective: Objective = "p99=1ms".parse().unwrap();
        for (latency_us, lag_us, failures, unfinished, expected) in [
            (900, 1, 0, 0, Outcome::Kept),
            (900, 500, 0, 0, Outcome::Kept),
            (1_100, 90, 0, 0, Outcome::Exceeded),
            (1_100, 110, 0, 0, Outcome::Unknown),
            (900, 1, 1, 0, Outcome::Exceeded),
            (900, 1, 0, 11, Outcome::Exceeded),
        ] {
            let mut measurement = measured("x", 0, 1.0, false);
            let load = &mut measurement.load;
            load.distributions.from_due = all(latency_us);
            load.distributions.lag = all(lag_us);
            load.latency.from_due.count = 1_000;
            load.latency.unfinished = unfinished;
            load.failures = failures;
            assert_eq!(
                outcome(&measurement, objective),
                expected,
                "{latency_us} {lag_us}"
            );
        }
    }
}
