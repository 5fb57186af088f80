//! Envoy's outlier detection, for those who know its fields (`envoy.config.cluster.v3.OutlierDetection`): failures
//! in a row, and rates of an interval against the mean of all, or against a number.
//!
//! It stands in the place of our own detectors and nowhere else: what it finds goes through the same guards, and a
//! node that is out comes back in the same way.
//!
//! Failures in a row are counted by the shards, since a row may begin and end within a tick; a row that is spread
//! over shards is put together from ticks in which nothing ended it. A row that one shard has all by itself counts
//! whatever the others see meanwhile: it is no likelier than one of all. *Local* failures are those that are no answer:
//! connections refused, reset, or not made in time, broken protocol, deadlines. Unless they are split off, they
//! count as answers of 5xx, and as gateway failures. A refusal of the endpoint's own proxy for overload counts for
//! nothing (H13).

use std::time::Duration;

use super::{
    counter::Fault,
    detector::{Calls, Rate},
    event::Cause,
};
use crate::stats::{Counter, EndpointCounters};

/// The fields, named as Envoy's, with its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Failures in a row.
    pub consecutive_5xx: u32,
    /// In percent of the times that it is found: how often it is acted on. 0 does not look for it.
    pub enforcing_consecutive_5xx: u32,
    /// Answers of 502, 503 or 504 in a row.
    pub consecutive_gateway_failure: u32,
    /// As above.
    pub enforcing_consecutive_gateway_failure: u32,
    /// Whether failures that are no answer are looked at apart.
    pub split_external_local_origin_errors: bool,
    /// Those in a row.
    pub consecutive_local_origin_failure: u32,
    /// As above.
    pub enforcing_consecutive_local_origin_failure: u32,
    /// Time over which rates are taken.
    pub interval: Duration,
    /// Nodes with enough calls without which success rates are not looked at.
    pub success_rate_minimum_hosts: u32,
    /// Calls of an interval that are enough.
    pub success_rate_request_volume: u32,
    /// So many thousandths of the standard deviation below the mean is too low.
    pub success_rate_stdev_factor: u32,
    /// As above.
    pub enforcing_success_rate: u32,
    /// The same for local failures, split off.
    pub enforcing_local_origin_success_rate: u32,
    /// So many failures of a hundred calls are too many.
    pub failure_percentage_threshold: u32,
    /// Nodes with enough calls without which it is not looked at.
    pub failure_percentage_minimum_hosts: u32,
    /// Calls of an interval that are enough.
    pub failure_percentage_request_volume: u32,
    /// As above.
    pub enforcing_failure_percentage: u32,
    /// The same for local failures, split off.
    pub enforcing_failure_percentage_local_origin: u32,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            consecutive_5xx: 5,
            enforcing_consecutive_5xx: 100,
            consecutive_gateway_failure: 5,
            enforcing_consecutive_gateway_failure: 0,
            split_external_local_origin_errors: false,
            consecutive_local_origin_failure: 5,
            enforcing_consecutive_local_origin_failure: 100,
            interval: Duration::from_secs(10),
            success_rate_minimum_hosts: 5,
            success_rate_request_volume: 100,
            success_rate_stdev_factor: 1900,
            enforcing_success_rate: 100,
            enforcing_local_origin_success_rate: 100,
            failure_percentage_threshold: 85,
            failure_percentage_minimum_hosts: 5,
            failure_percentage_request_volume: 50,
            enforcing_failure_percentage: 0,
            enforcing_failure_percentage_local_origin: 0,
        }
    }
}

impl Outlier {
    /// In percent, how often what is found is acted on.
    pub fn enforcing(&self, cause: Cause) -> u32 {
        let is_split = self.split_external_local_origin_errors;
        match cause {
            Cause::Consecutive5xx => self.enforcing_consecutive_5xx,
            Cause::ConsecutiveGatewayFailure => self.enforcing_consecutive_gateway_failure,
            Cause::SuccessRate => self.enforcing_success_rate,
            Cause::FailurePercentage => self.enforcing_failure_percentage,
            Cause::ConsecutiveLocalOriginFailure if is_split => {
                self.enforcing_consecutive_local_origin_failure
            }
            Cause::SuccessRateLocalOrigin if is_split => self.enforcing_local_origin_success_rate,
            Cause::FailurePercentageLocalOrigin if is_split => {
                self.enforcing_failure_percentage_local_origin
            }
            Cause::ConsecutiveLocalOriginFailure
            | Cause::SuccessRateLocalOrigin
            | Cause::FailurePercentageLocalOrigin => 0,
            _ => 100,
        }
    }

    /// What shards count rows by.
    pub fn rows(&self) -> Rows {
        Rows {
            lengths: [
                self.consecutive_5xx,
                self.consecutive_gateway_failure,
                self.consecutive_local_origin_failure,
            ],
            is_split: self.split_external_local_origin_errors,
            are_enforced: KINDS.map(|cause| self.enforcing(cause) >= 100),
        }
    }
}

/// The kinds of rows, in the order in which they are looked at.
const KINDS: [Cause; ROWS] = [
    Cause::Consecutive5xx,
    Cause::ConsecutiveGatewayFailure,
    Cause::ConsecutiveLocalOriginFailure,
];
/// How many there are.
const ROWS: usize = 3;

/// How long rows of failures have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    lengths: [u32; ROWS],
    is_split: bool,
    /// Whether they are acted on whenever they are found.
    are_enforced: [bool; ROWS],
}

/// What a call is to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Longer,
    Ended,
    Untouched,
}

impl Rows {
    /// What a call is to each row: `None` is one without fault.
    fn steps(&self, fault: Option<Fault>) -> [Step; ROWS] {
        use Step::{Ended, Longer, Untouched};
        match fault {
            None => [Ended; ROWS],
            Some(Fault::Status) => [Longer, Ended, Ended],
            Some(Fault::Gateway) => [Longer, Longer, Ended],
            Some(Fault::Overloaded) => [Untouched; ROWS],
            Some(_) if self.is_split => [Untouched, Untouched, Longer],
            Some(_) => [Longer, Longer, Untouched],
        }
    }

    /// Counts a call of an endpoint on this shard. Says whether a row is long enough to act on it here, until
    /// the coordinator has decided (H3).
    pub fn count(&self, fault: Option<Fault>, counters: &EndpointCounters) -> bool {
        let rows = counters.rows().into_iter().zip(self.lengths);
        let kinds = rows.zip(self.steps(fault)).zip(self.are_enforced);
        let full = kinds.map(|(((row, length), step), is_enforced)| {
            row.count(step, u64::from(length)) && is_enforced
        });
        // Each of them is to be counted.
        full.fold(false, |any, is_full| any | is_full)
    }
}

/// One kind of row on one shard.
pub(super) struct Row<'a> {
    /// Failures in a row at the moment.
    pub(super) length: &'a Counter,
    /// Rows that were long enough.
    pub(super) full: &'a Counter,
}

impl Row<'_> {
    /// Whether it is long enough now; then the next one begins.
    fn count(&self, step: Step, length: u64) -> bool {
        match step {
            Step::Untouched => return false,
            Step::Ended => {
                self.length.set(0);
                return false;
            }
            Step::Longer => self.length.add(1),
        }
        let is_full = self.length.get() >= length;
        if is_full {
            self.length.set(0);
            self.full.add(1);
        }
        is_full
    }
}

impl EndpointCounters {
    /// The endpoint is taken back in: what it did before ends no row.
    pub fn forget_rows(&self) {
        self.rows().iter().for_each(|row| row.length.set(0));
    }

    pub(super) fn rows(&self) -> [Row<'_>; ROWS] {
        let row = |length, full| Row { length, full };
        [
            row(&self.errors_in_row, &self.rows_5xx),
            row(&self.gateway_failures_in_row, &self.rows_gateway_failure),
            row(&self.local_failures_in_row, &self.rows_local_failure),
        ]
    }
}

/// What one tick brought of a kind of row, over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCalls {
    /// Rows that were long enough on one shard.
    pub full: u64,
    /// Of the shards that saw a row end, what the one with the shortest has of the next: which was the last is not
    /// known, and this is the kindest reading. `None`: no shard saw one end.
    pub trailing: Option<u64>,
}

/// One node's rows, and its calls of the interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    in_row: [u64; ROWS],
    /// The longest that was found: for those who look.
    pub(super) longest: u64,
    external: Rate,
    local: Rate,
}

impl Watch {
    /// Takes one tick. What is found of rows.
    pub(super) fn step(&mut self, calls: &Calls, settings: &Outlier) -> Option<Cause> {
        self.add(calls, settings);
        let rows = settings.rows();
        let steps = |fault| rows.steps(Some(fault));
        let counts = [
            (steps(Fault::Status), calls.failed_status()),
            (steps(Fault::Gateway), calls.failed_gateway),
            (steps(Fault::Connect), calls.failed_hard),
        ];
        let mut found = None;
        self.longest = 0;
        for (k, cause) in KINDS.into_iter().enumerate() {
            let row = self.in_row.get_mut(k).zip(calls.rows.get(k));
            let Some(((in_row, row), length)) = row.zip(rows.lengths.get(k)) else {
                continue;
            };
            let is_longer = |(steps, _): &&([Step; ROWS], u64)| steps.get(k) == Some(&Step::Longer);
            let longer = counts.iter().filter(is_longer).map(|(_, count)| count);
            *in_row = row.trailing.unwrap_or(*in_row + longer.sum::<u64>());
            let length = u64::from(*length);
            let is_full = row.full > 0 || *in_row >= length;
            self.longest = self.longest.max(*in_row);
            if !is_full {
                continue;
            }
            self.longest = self.longest.max(length);
            *in_row = 0;
            if settings.enforcing(cause) > 0 {
                found = found.or(Some(cause));
            }
        }
        found
    }

    fn add(&mut self, calls: &Calls, settings: &Outlier) {
        let of = |succeeded: u64, failed: u64| Rate {
            calls: (succeeded + failed) as f64,
            failed: failed as f64,
        };
        let answers = calls.failed_status() + calls.failed_gateway;
        let (external, local) = match settings.split_external_local_origin_errors {
            true => (
                of(calls.succeeded, answers),
                of(calls.succeeded + answers, calls.failed_hard),
            ),
            false => (
                of(calls.succeeded, answers + calls.failed_hard),
                Rate::default(),
            ),
        };
        self.external = self.external.with(external);
        self.local = self.local.with(local);
    }
}

/// Looks at the rates of all nodes, once in an interval.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweep {
    since: Duration,
}

impl Sweep {
    /// One tick of `tick` since the last: what is found of each node's rates, if the interval is over.
    pub(super) fn step<'a>(
        &mut self,
        tick: Duration,
        settings: &Outlier,
        watches: impl Iterator<Item = &'a mut Watch>,
    ) -> Vec<Option<Cause>> {
        self.since += tick;
        if self.since < settings.interval {
            return Vec::new();
        }
        self.since = Duration::ZERO;
        let rates = watches.map(|watch| {
            let rates = (watch.external, watch.local);
            (watch.external, watch.local) = Default::default();
            rates
        });
        let (external, local): (Vec<Rate>, Vec<Rate>) = rates.unzip();
        let low = [
            (Cause::SuccessRate, too_low(&external, settings)),
            (Cause::SuccessRateLocalOrigin, too_low(&local, settings)),
        ];
        let high = [
            (Cause::FailurePercentage, too_high(&external, settings)),
            (
                Cause::FailurePercentageLocalOrigin,
                too_high(&local, settings),
            ),
        ];
        let looked_for: Vec<_> = low
            .into_iter()
            .chain(high)
            .filter(|(cause, _)| settings.enforcing(*cause) > 0)
            .collect();
        let found = |k: usize| {
            let mut causes = looked_for.iter();
            let is_it = |found: &Vec<bool>| found.get(k).copied().unwrap_or_default();
            causes
                .find(|(_, found)| is_it(found))
                .map(|(cause, _)| *cause)
        };
        (0..external.len()).map(found).collect()
    }
}

fn success_percent(rate: Rate) -> f64 {
    100.0 * (1.0 - rate.mean())
}

/// Those whose success rate is below the mean by too many standard deviations, of those with enough calls.
fn too_low(rates: &[Rate], settings: &Outlier) -> Vec<bool> {
    let is_judged =
        |rate: &Rate| rate.calls >= f64::from(settings.success_rate_request_volume.max(1));
    let judged: Vec<f64> = rates
        .iter()
        .filter(|rate| is_judged(rate))
        .map(|rate| success_percent(*rate))
        .collect();
    if judged.is_empty() || judged.len() < settings.success_rate_minimum_hosts as usize {
        return Vec::new();
    }
    let count = judged.len() as f64;
    let mean = judged.iter().sum::<f64>() / count;
    let variance = judged.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / count;
    let factor = f64::from(settings.success_rate_stdev_factor) / 1000.0;
    let least = mean - factor * variance.sqrt();
    let rates = rates.iter();
    rates
        .map(|rate| is_judged(rate) && success_percent(*rate) < least)
        .collect()
}

/// Those of which too many of a hundred fail, of those with enough calls.
fn too_high(rates: &[Rate], settings: &Outlier) -> Vec<bool> {
    let is_judged =
        |rate: &Rate| rate.calls >= f64::from(settings.failure_percentage_request_volume.max(1));
    let judged = rates.iter().filter(|rate| is_judged(rate)).count();
    if judged < settings.failure_percentage_minimum_hosts as usize {
        return Vec::new();
    }
    let most = f64::from(settings.failure_percentage_threshold);
    let rates = rates.iter();
    rates
        .map(|rate| is_judged(rate) && 100.0 * rate.mean() >= most)
        .collect()
}

#[cfg(test)]
mod tests;
