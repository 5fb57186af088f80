//! The expected cost of an endpoint, for the peak-EWMA policy.
//!
//! The latency is a peak-sensitive moving average: a sample above it replaces it, a sample below pulls it
//! down with a time constant (Finagle's `PeakEwma`, Linkerd's `tower::load::PeakEwma`). It decays while no
//! sample comes, so that an endpoint that was slow once is tried again.
//!
//! Latency alone makes a black hole of an endpoint that fails fast. So a failed request never lowers the
//! latency, and the share of failures multiplies the cost: with failure rate e, an answer takes
//! 1/(1 − e) tries; squared, since a try that fails costs the caller more than time.

use std::time::Duration;

/// How fast the latency forgets: Finagle's and Linkerd's default.
const DECAY: Duration = Duration::from_secs(10);

/// How much one request moves the failure rate: about 16 requests tell.
const FAILURE_STEP: f64 = 1.0 / 16.0;

/// How much one failure right after another moves it: those are rare among background errors, and all
/// there is from an endpoint that is broken.
const FAILURE_STEP_REPEATED: f64 = 1.0 / 2.0;

/// The largest failure rate that counts, so that a cost stays finite.
const FAILURE_RATE_MAX: f64 = 0.99;

/// The cost of one request more on an endpoint that has requests in flight and has never answered. It
/// gets one request to show what it is like, and no second one while another endpoint is known.
const UNKNOWN_COST_NS: f64 = 1e15;

/// Latency and failures of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latency {
    /// Nanoseconds; 0 while unknown.
    average_ns: f64,
    failure_rate: f64,
    /// Whether the last request failed.
    failed: bool,
    at: Duration,
}

impl Latency {
    pub(super) fn record(&mut self, latency: Duration, failed: bool, now: Duration) {
        let keep = self.keep(now);
        let sample = latency.as_nanos() as f64;
        let outcome = if failed { 1.0 } else { 0.0 };
        if self.average_ns == 0.0 {
            // Nothing better is known than the first answer.
            self.failure_rate = outcome;
        } else {
            let repeated = failed && self.failed;
            let step = if repeated {
                FAILURE_STEP_REPEATED
            } else {
                FAILURE_STEP
            };
            self.failure_rate *= keep;
            self.failure_rate += (outcome - self.failure_rate) * step;
        }
        if sample >= self.average_ns {
            self.average_ns = sample.max(1.0);
        } else if !failed {
            self.average_ns = self.average_ns * keep + sample * (1.0 - keep);
        }
        self.failed = failed;
        self.at = now;
    }

    /// What one request more costs with `load` in flight, 1 standing for one request on an endpoint of
    /// mean weight.
    pub(super) fn cost(&self, load: f64, now: Duration) -> f64 {
        if self.average_ns == 0.0 {
            return if load > 0.0 {
                UNKNOWN_COST_NS * (load + 1.0)
            } else {
                0.0
            };
        }
        let keep = self.keep(now);
        let failure_rate = (self.failure_rate * keep).min(FAILURE_RATE_MAX);
        let answered = 1.0 - failure_rate;
        self.average_ns * keep * (load + 1.0) / (answered * answered)
    }

    /// The part of an old value that is still worth something.
    fn keep(&self, now: Duration) -> f64 {
        let idle = now.saturating_sub(self.at);
        (-idle.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Goal: a peak counts at once and is forgotten slowly. Method: one slow answer among fast ones.
    #[test]
    fn peaks_count_at_once() {
        let mut latency = Latency::default();
        let mut now = Duration::ZERO;
        latency.record(MS, false, now);
        latency.record(100 * MS, false, now);
        assert!(latency.cost(0.0, now) > 99e6);
        for _ in 0..1000 {
            now += 10 * MS;
            latency.record(MS, false, now);
        }
        let after = latency.cost(0.0, now);
        assert!((30e6..45e6).contains(&after), "{after}");
    }

    /// Goal: failing fast is no advantage. Method: an endpoint that fails in a tenth of the time of one
    /// that answers costs more, and is cheaper again after a pause.
    #[test]
    fn fast_failures_cost_more() {
        let (mut good, mut bad) = (Latency::default(), Latency::default());
        let now = Duration::ZERO;
        good.record(10 * MS, false, now);
        bad.record(10 * MS, false, now);
        for _ in 0..16 {
            good.record(10 * MS, false, now);
            bad.record(MS, true, now);
        }
        assert!(bad.cost(0.0, now) > 4.0 * good.cost(0.0, now));
        let later = Duration::from_secs(60);
        good.record(10 * MS, false, later);
        assert!(bad.cost(0.0, later) < good.cost(0.0, later));
    }

    /// Goal: an unknown endpoint is tried, once. Method: its cost without and with a request in flight.
    #[test]
    fn unknown_endpoint_is_tried_once() {
        let mut known = Latency::default();
        known.record(50 * MS, false, MS);
        let unknown = Latency::default();
        assert!(unknown.cost(0.0, MS) < known.cost(0.0, MS));
        assert!(unknown.cost(1.0, MS) > known.cost(100.0, MS));
    }
}
