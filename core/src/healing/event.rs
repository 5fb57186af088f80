//! What is found of a node and becomes of it, in words and numbers; and the settings of that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{detector::Rate, outlier::Outlier};

/// Settings of a group. The defaults are complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Nodes that may be out at once, in percent; the last one never is.
    pub max_ejection_percent: u32,
    /// More nodes than this sick at once, in percent, is not a matter of nodes.
    pub common_mode_percent: u32,
    /// The first time out.
    pub base_ejection: Duration,
    /// How it grows with every further one.
    pub backoff: Backoff,
    /// The longest.
    pub max_ejection: Duration,
    /// How long a node must be well before its times out are forgotten, one by one.
    pub forgive_after: Duration,
    /// How long a node on probation may wait for a request to be tried with.
    pub probation: Duration,
    /// Nodes are judged as Envoy does, and not by our own detectors.
    pub outlier: Option<Outlier>,
}

/// How the time out of a node grows that fails again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// Twice as long each time, and up to a quarter longer, so that nodes that went together do not come back
    /// together.
    Doubled,
    /// Once more the first time, each time, as Envoy does.
    Multiplied {
        /// Up to so much longer.
        jitter: Duration,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            // Envoy's default of 10 % lets half of a pair of nodes never be ejected; one node always may.
            max_ejection_percent: 50,
            common_mode_percent: 30,
            base_ejection: Duration::from_secs(1),
            backoff: Backoff::Doubled,
            max_ejection: Duration::from_secs(300),
            forgive_after: Duration::from_secs(60),
            probation: Duration::from_secs(30),
            outlier: None,
        }
    }
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Takes requests.
    #[default]
    Healthy,
    /// A detector has fired, and a guard keeps the node in.
    Suspect,
    /// Takes no requests until then.
    Ejected {
        /// On the clock that is passed to [`Group::tick`](super::ejection::Group::tick).
        until: Duration,
    },
    /// Takes one request, to be tried with.
    Probation {
        /// Until then.
        until: Duration,
    },
}

/// Which detector fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Hard failures in a row.
    #[serde(rename = "failures_in_row")]
    Run,
    /// More failures than the peers.
    #[serde(rename = "failure_rate")]
    Rate,
    /// Slower than the peers.
    Latency,
    /// Requests wait, and none is answered.
    Stall,
    /// Envoy's: failures in a row.
    #[serde(rename = "consecutive_5xx")]
    Consecutive5xx,
    /// Envoy's: answers of 502, 503 or 504 in a row.
    ConsecutiveGatewayFailure,
    /// Envoy's: failures in a row that are no answers.
    ConsecutiveLocalOriginFailure,
    /// Envoy's: far less successful than the mean of all.
    SuccessRate,
    /// The same, of what is no answer.
    SuccessRateLocalOrigin,
    /// Envoy's: so many of a hundred fail.
    FailurePercentage,
    /// The same, of what is no answer.
    FailurePercentageLocalOrigin,
    /// It failed on probation.
    Probation,
    /// An operator asked for it.
    #[serde(rename = "by_hand")]
    Hand,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 13] = [
        Cause::Run,
        Cause::Rate,
        Cause::Latency,
        Cause::Stall,
        Cause::Consecutive5xx,
        Cause::ConsecutiveGatewayFailure,
        Cause::ConsecutiveLocalOriginFailure,
        Cause::SuccessRate,
        Cause::SuccessRateLocalOrigin,
        Cause::FailurePercentage,
        Cause::FailurePercentageLocalOrigin,
        Cause::Probation,
        Cause::Hand,
    ];

    /// The word in metrics, logs and reports.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Run => "failures_in_row",
            Cause::Rate => "failure_rate",
            Cause::Latency => "latency",
            Cause::Stall => "stall",
            Cause::Consecutive5xx => "consecutive_5xx",
            Cause::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Cause::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Cause::SuccessRate => "success_rate",
            Cause::SuccessRateLocalOrigin => "success_rate_local_origin",
            Cause::FailurePercentage => "failure_percentage",
            Cause::FailurePercentageLocalOrigin => "failure_percentage_local_origin",
            Cause::Probation => "probation",
            Cause::Hand => "by_hand",
        }
    }
}

/// Why a sick node is kept in (H10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// There would be none left.
    LastNode,
    /// `max_ejection_percent` are out.
    #[serde(rename = "max_ejection_percent")]
    Percent,
    /// The rest could not bear the load.
    Capacity,
    /// Too many are sick at once: what they depend on is.
    #[serde(rename = "dependency")]
    CommonMode,
    /// Envoy's `enforcing_…`: it is not among those that are acted on.
    Enforcing,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Guard; 5] = [
        Guard::LastNode,
        Guard::Percent,
        Guard::Capacity,
        Guard::CommonMode,
        Guard::Enforcing,
    ];

    /// The word in metrics, logs and reports. A common fault is one of a `dependency`, as far as is known
    /// here; one of `capacity` if it is of load.
    pub const fn word(self) -> &'static str {
        match self {
            Guard::LastNode => "last_node",
            Guard::Percent => "max_ejection_percent",
            Guard::Capacity => "capacity",
            Guard::CommonMode => "dependency",
            Guard::Enforcing => "enforcing",
        }
    }
}

/// What the decision rests on, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Calls of the last seconds, and failures among them.
    pub own: Rate,
    /// The same of the peers.
    pub peers: Rate,
    /// Hard failures in a row; of any kind where nodes are judged as Envoy does.
    pub run: u64,
    /// Median latency of the last answers, in seconds.
    pub latency_s: Option<f64>,
    /// The same of the peers.
    pub peers_latency_s: Option<f64>,
    /// Requests that waited for an answer.
    pub waiting: u64,
}

/// Why a node is not simply healthy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// What was found of it.
    pub cause: Cause,
    /// What keeps it in, if something does.
    pub guard: Option<Guard>,
    /// The numbers when that was decided.
    pub evidence: Evidence,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Sick, but kept in.
    Suspected {
        /// Position in the group.
        node: usize,
        /// What was found.
        cause: Cause,
        /// What keeps it in.
        guard: Guard,
        /// The numbers.
        evidence: Evidence,
    },
    /// Out.
    Ejected {
        /// Position in the group.
        node: usize,
        /// What was found.
        cause: Cause,
        /// For how long.
        penalty: Duration,
        /// How often lately, this time included.
        times: u32,
        /// The numbers.
        evidence: Evidence,
    },
    /// May take one request.
    Probation {
        /// Position in the group.
        node: usize,
    },
    /// In again.
    Recovered {
        /// Position in the group.
        node: usize,
    },
}

impl Event {
    /// Position in the group.
    pub fn node(&self) -> usize {
        match self {
            Event::Suspected { node, .. }
            | Event::Ejected { node, .. }
            | Event::Probation { node }
            | Event::Recovered { node } => *node,
        }
    }
}
