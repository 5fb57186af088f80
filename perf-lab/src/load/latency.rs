//! What is recorded of each request, and how it is summed up.
//!
//! Three times make three histograms. *From due* is what a user feels: it counts the wait for a free
//! connection, so a stall is charged to everyone who would have come during it. *From send* is what
//! closed-loop tools report. *Lag* is the generator's own lateness: how long a request was due, and
//! had a connection, and was not sent; it says whether the other two can be believed.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{
    distribution::{Distribution, Distributions},
    series::{Moment, Series},
};
use crate::clock::Nanos;

/// Three digits: a bucket is at most 0.1 % wide.
const DIGITS: u8 = 3;
/// Anything slower than this is recorded as this.
const LATENCY_MAX: Nanos = Nanos(60_000_000_000);

/// The times of one answered request.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it was due.
    pub due: Nanos,
    /// Since when its connection was free.
    pub free: Nanos,
    /// When it was sent.
    pub sent: Nanos,
    /// When its answer was complete.
    pub done: Nanos,
}

/// The histograms of a run.
#[derive(Clone, Debug)]
pub struct Recorder {
    from_due: Histogram<u64>,
    from_send: Histogram<u64>,
    lag: Histogram<u64>,
    series: Series,
    start: Nanos,
    unfinished: u64,
}

impl Recorder {
    /// Records nothing yet. `None` only if the histogram's bounds are wrong, which they are not.
    pub fn new() -> Option<Recorder> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX.0, DIGITS).ok()?;
        Some(Recorder {
            from_due: histogram.clone(),
            from_send: histogram.clone(),
            lag: histogram,
            series: Series::default(),
            start: Nanos::ZERO,
            unfinished: 0,
        })
    }

    /// The measurement begins: times over its course count from here.
    pub fn begin(&mut self, start: Nanos) {
        self.start = start;
    }

    /// Records an answered request.
    pub fn record(&mut self, times: Times) {
        let from_due = times.done - times.due;
        self.from_due.saturating_record(from_due.0);
        self.series.record(times.due - self.start, from_due);
        self.from_send
            .saturating_record((times.done - times.sent).0);
        self.lag
            .saturating_record((times.sent - times.due.max(times.free)).0);
    }

    /// Records a request that was due and had no answer when the run ended: it took at least
    /// this long, and leaving it out would reward whoever answers never.
    pub fn record_unfinished(&mut self, due: Nanos, end: Nanos) {
        self.from_due.saturating_record((end - due).0);
        self.series.record(due - self.start, end - due);
        self.unfinished += 1;
    }

    /// Sums up.
    pub fn summary(&self) -> LatencySummary {
        LatencySummary {
            from_due: Percentiles::of(&self.from_due),
            from_send: Percentiles::of(&self.from_send),
            lag: Percentiles::of(&self.lag),
            unfinished: self.unfinished,
        }
    }

    /// The whole distributions, and latency over time.
    pub fn into_distributions(self) -> (Distributions, Vec<Moment>) {
        let distributions = Distributions {
            from_due: Distribution::new(self.from_due),
            from_send: Distribution::new(self.from_send),
            lag: Distribution::new(self.lag),
        };
        (distributions, self.series.moments())
    }
}

/// The percentiles of a run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LatencySummary {
    /// From due time to answer.
    pub from_due: Percentiles,
    /// From send to answer.
    pub from_send: Percentiles,
    /// From when the request could have been sent until it was.
    pub lag: Percentiles,
    /// Requests without an answer, counted in `from_due` with the time they had waited.
    pub unfinished: u64,
}

/// The lag that a run may have, as a share of its median latency.
const LAG_SHARE_MAX: f64 = 0.10;

impl LatencySummary {
    /// Whether the generator was late enough to have made the latencies itself.
    pub fn lag_is_too_large(&self) -> bool {
        self.lag.p99_us > LAG_SHARE_MAX * self.from_due.p50_us
    }
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Number of samples. A percentile p says something if count × (1 − p) is 100 or more.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// One in ten is slower.
    pub p90_us: f64,
    /// One in a hundred is slower.
    pub p99_us: f64,
    /// One in a thousand is slower.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Percentiles {
        let at = |quantile| Nanos(histogram.value_at_quantile(quantile)).as_micros();
        Percentiles {
            count: histogram.len(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: Nanos(histogram.max()).as_micros(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::load::arrivals::{Arrivals, Schedule, Spacing};

    /// A server with one connection that takes `service` per request and stands still once.
    /// The generator sends each request `late` after it could.
    fn simulate(service: Nanos, stall: (Nanos, Nanos), late: Nanos) -> LatencySummary {
        let arrivals = Arrivals {
            rate: 1_000.0,
            spacing: Spacing::Constant,
            seed: 0,
        };
        let mut schedule = Schedule::new(arrivals, Nanos::ZERO);
        let mut recorder = Recorder::new().unwrap();
        let mut free = Nanos::ZERO;
        for _ in 0..10_000 {
            let due = schedule.take();
            let sent = due.max(free) + late;
            let begins = if sent >= stall.0 && sent < stall.1 {
                stall.1
            } else {
                sent
            };
            let done = begins + service;
            recorder.record(Times {
                due,
                free,
                sent,
                done,
            });
            free = done;
        }
        recorder.summary()
    }

    /// A stall of a second in ten (virtual time) hits one request seen from its send, and more than
    /// one in ten seen from their due times; the generator is not blamed for it.
    #[test]
    fn a_stall_is_charged_to_all_who_were_due() {
        let stall = (Nanos::from_millis(4_000), Nanos::from_millis(5_000));
        let summary = simulate(Nanos::from_micros(100), stall, Nanos::ZERO);
        assert!(summary.from_send.p999_us < 110.0, "{summary:?}");
        assert!(summary.from_due.p90_us > 10_000.0, "{summary:?}");
        assert!(summary.from_due.p99_us > 850_000.0, "{summary:?}");
        assert!(!summary.lag_is_too_large(), "{summary:?}");
    }

    /// Latencies from due time are what others' correction for coordinated omission comes to, where that is
    /// exact: at constant spacing, with a server that is much faster than requests come. Method: the same
    /// stall seen by a closed loop that sends every millisecond or as soon as it can, and HdrHistogram's
    /// correction of its latencies, as wrk2's author wrote it.
    #[test]
    fn it_agrees_with_the_correction_of_others() {
        let (service, gap) = (Nanos::from_micros(1), Nanos::from_millis(1));
        let stall = (Nanos::from_millis(4_000), Nanos::from_millis(5_000));
        let ours = simulate(service, stall, Nanos::ZERO);
        let mut theirs = Histogram::<u64>::new_with_bounds(1, LATENCY_MAX.0, DIGITS).unwrap();
        let mut sent = gap;
        while sent <= Nanos::from_millis(10_000) {
            let begins = match sent >= stall.0 && sent < stall.1 {
                true => stall.1,
                false => sent,
            };
            let done = begins + service;
            theirs.record_correct((done - sent).0, gap.0).unwrap();
            sent = (sent + gap).max(done);
        }
        let theirs = Percentiles::of(&theirs);
        assert!(
            theirs.count.abs_diff(ours.from_due.count) <= 1,
            "{theirs:?}"
        );
        for (ours, theirs) in [
            (ours.from_due.p50_us, theirs.p50_us),
            (ours.from_due.p90_us, theirs.p90_us),
            (ours.from_due.p99_us, theirs.p99_us),
            (ours.from_due.p999_us, theirs.p999_us),
            (ours.from_due.max_us, theirs.max_us),
        ] {
            assert!((ours / theirs - 1.0).abs() < 0.02, "{ours} {theirs}");
        }
    }

    /// A generator that is 9 % of the median late passes, one that is 11 % late does not.
    #[test]
    fn lateness_of_the_generator_is_told_apart() {
        let never = (Nanos::ZERO, Nanos::ZERO);
        let on_time = simulate(Nanos::from_micros(91), never, Nanos::from_micros(9));
        let late = simulate(Nanos::from_micros(89), never, Nanos::from_micros(11));
        assert!(!on_time.lag_is_too_large(), "{on_time:?}");
        assert!(late.lag_is_too_large(), "{late:?}");
    }

    /// Requests that were never answered count with the time they waited.
    #[test]
    fn unfinished_requests_count() {
        let mut recorder = Recorder::new().unwrap();
        recorder.record_unfinished(Nanos::from_millis(1), Nanos::from_millis(5));
        let summary = recorder.summary();
        assert_eq!(summary.unfinished, 1);
        assert!((summary.from_due.p50_us / 4_000.0 - 1.0).abs() < 0.002);
    }
}
