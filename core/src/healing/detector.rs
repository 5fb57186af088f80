//! Is a node sick? Pure functions of what its calls came to, against what the calls of its peers came to.
//!
//! * [`Run`]: nothing but failures, several in a row: a dead process.
//! * [`Sequential`]: more failures than the others have: a node that is half sick. A sequential probability
//!   ratio test (Wald 1945, restarted at its lower bound as in Page's CUSUM 1954): it decides with the
//!   fewest samples for the error that is allowed, has no window, and compares with the **leave-one-out**
//!   rate, since a rate compared with an average that contains the node itself cannot fire for two nodes.
//! * [`Slow`]: answers, but far later than the others: a grey failure.
//! * [`Stalled`]: takes requests and answers none: it hangs, which a deadline would tell much later.

use super::outlier::RowCalls;

/// What a node's calls came to in one tick, all shards together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Calls {
    /// Answers that were not a failure.
    pub succeeded: u64,
    /// Failures that are the node's own, of every class (H2).
    pub failed: u64,
    /// Of these, the ones that a healthy process does not show: refused, reset, timed out, broken protocol.
    pub failed_hard: u64,
    /// Of the failures, the answers of 502, 503 and 504.
    pub failed_gateway: u64,
    /// Of the failures, the ones by which the node's own proxy refused for overload (H13).
    pub overloaded: u64,
    /// Failures since the last success, on the shard that saw that success.
    pub trailing: u64,
    /// Median latency of the tick in seconds, if there were answers.
    pub latency_s: Option<f64>,
    /// Requests that waited for an answer at the end of the tick.
    pub waiting: u64,
    /// Of the calls, those that the node was tried out with after it had been ejected.
    pub trials_succeeded: u64,
    /// The same, failed.
    pub trials_failed: u64,
    /// Failures in a row, as Envoy counts them.
    pub rows: [RowCalls; 3],
}

impl Calls {
    /// Calls in all.
    pub fn total(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// Failures that are answers of 5xx, those that count apart aside.
    pub fn failed_status(&self) -> u64 {
        let others = self.failed_hard + self.failed_gateway + self.overloaded;
        self.failed.saturating_sub(others)
    }

    /// Calls that were answered, whatever with.
    pub fn answered(&self) -> u64 {
        self.succeeded + self.failed - self.failed_hard.min(self.failed)
    }
}

/// Hard failures in a row that are enough, for the coordinator as for a shard that sees them alone.
pub const RUN: u64 = 5;

/// Hard failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run(u64);

impl Run {
    /// Takes one tick; true when there are enough.
    pub fn step(&mut self, calls: &Calls) -> bool {
        self.0 = match calls.succeeded {
            0 => self.0 + calls.failed_hard,
            _ => calls.trailing.min(calls.failed_hard),
        };
        self.0 >= RUN
    }

    /// Hard failures in a row so far.
    pub fn len(&self) -> u64 {
        self.0
    }

    /// Whether the last call was a success.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// The evidence at which a node is called sick: a healthy one gets there once in e^18 calls, 6·10^7
/// (H9 asks for 10^6; the rest covers that the peers' rate is an estimate).
const THRESHOLD: f64 = 18.0;
/// A sick node fails this much more often than its peers, at least.
const STEP: f64 = 0.15;
/// Or so many times as often.
const FACTOR: f64 = 3.0;
/// Below this no rate is believed: a peer that has never failed may fail tomorrow.
const RATE_MIN: f64 = 0.01;

/// A node's failures against those of its peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential(f64);

impl Sequential {
    /// Takes one tick of the node; `peers` is what the others' calls came to lately. True when there is
    /// enough evidence.
    pub fn step(&mut self, calls: &Calls, peers: Rate) -> bool {
        let usual = peers.at_most().clamp(RATE_MIN, 0.9);
        let sick = (usual + STEP).max(usual * FACTOR).min(0.98);
        let failed = calls.failed as f64 * (sick / usual).ln();
        let succeeded = calls.succeeded as f64 * ((1.0 - sick) / (1.0 - usual)).ln();
        self.0 = (self.0 + failed + succeeded).max(0.0);
        self.0 >= THRESHOLD
    }

    /// Evidence so far, as a part of what is enough.
    pub fn evidence(&self) -> f64 {
        self.0 / THRESHOLD
    }
}

/// A failure rate: an exponentially weighted count of calls and failures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Calls.
    pub calls: f64,
    /// Failures among them.
    pub failed: f64,
}

impl Rate {
    /// Forgets a part and adds a tick's calls. `keep` is the part that is kept, 0 to 1.
    pub fn step(&mut self, calls: &Calls, keep: f64) {
        self.calls = self.calls * keep + calls.total() as f64;
        self.failed = self.failed * keep + calls.failed as f64;
    }

    /// The sum of two.
    pub fn with(self, other: Rate) -> Rate {
        Rate {
            calls: self.calls + other.calls,
            failed: self.failed + other.failed,
        }
    }

    /// One less the other, which it contains.
    pub fn without(self, other: Rate) -> Rate {
        Rate {
            calls: (self.calls - other.calls).max(0.0),
            failed: (self.failed - other.failed).max(0.0),
        }
    }

    /// The rate itself; 0 without calls.
    pub fn mean(self) -> f64 {
        if self.calls > 0.0 {
            self.failed / self.calls
        } else {
            0.0
        }
    }

    /// What the rate is at most, three standard deviations up: with few calls nearly anything, so that a
    /// quiet group does not eject by chance.
    pub fn at_most(self) -> f64 {
        // Agresti and Coull: two calls and one failure more than there were keep it honest at the edges.
        let calls = self.calls + 4.0;
        let mean = (self.failed + 1.0) / calls;
        (mean + 3.0 * (mean * (1.0 - mean) / calls).sqrt()).min(1.0)
    }
}

/// So many times the peers' median is slow.
const SLOW_FACTOR: f64 = 4.0;
/// And so much in absolute terms: a factor between microseconds hurts nobody.
const SLOW_MIN_S: f64 = 0.005;
/// Ticks in a row.
const SLOW_TICKS: u32 = 10;

/// A node's latency against that of its peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slow(u32);

impl Slow {
    /// Takes one tick; `peers_s` is the median of the peers' medians. True when it has been slow for long
    /// enough. A tick without answers says nothing.
    pub fn step(&mut self, calls: &Calls, peers_s: Option<f64>) -> bool {
        if let (Some(own), Some(peers)) = (calls.latency_s, peers_s) {
            let is_slow = own > SLOW_FACTOR * peers && own - peers > SLOW_MIN_S;
            self.0 = if is_slow { self.0 + 1 } else { 0 };
        }
        self.0 >= SLOW_TICKS
    }
}

/// So many requests must wait in vain: fewer may be slow ones that came together.
const STALLED_WAITING: u64 = 5;
/// And so many times as long as an answer usually takes.
const STALLED_FACTOR: f64 = 20.0;
/// Weight of a tick's median in what is usual.
const USUAL_WEIGHT: f64 = 0.1;

/// A node that takes requests and answers none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stalled {
    silent_s: f64,
    usual_s: Option<f64>,
}

impl Stalled {
    /// Takes one tick of `tick_s` seconds. True when it has been silent for a whole tick, and for many times
    /// what an answer usually takes: a node that always answers late is not called stalled.
    pub fn step(&mut self, calls: &Calls, tick_s: f64) -> bool {
        if let Some(median) = calls.latency_s {
            let usual = self.usual_s.unwrap_or(median);
            self.usual_s = Some(usual + (median - usual) * USUAL_WEIGHT);
        }
        let is_silent = calls.answered() == 0 && calls.waiting >= STALLED_WAITING;
        self.silent_s = if is_silent {
            self.silent_s + tick_s
        } else {
            0.0
        };
        let usual = |usual_s| is_silent && self.silent_s >= STALLED_FACTOR * usual_s;
        self.usual_s.is_some_and(usual)
    }

    /// Whether it answers nothing at the moment.
    pub fn is_silent(&self) -> bool {
        self.silent_s > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(succeeded: u64, failed: u64) -> Calls {
        Calls {
            succeeded,
            failed,
            ..Calls::default()
        }
    }

    /// Goal: failures in a row are counted over ticks, and one success ends them. Method: ticks with and
    /// without a success.
    #[test]
    fn run_needs_no_success() {
        let hard = |succeeded, failed_hard, trailing| Calls {
            succeeded,
            failed: failed_hard,
            failed_hard,
            trailing,
            ..Calls::default()
        };
        let mut run = Run::default();
        assert!(!run.step(&hard(0, 4, 4)));
        assert!(!run.step(&hard(1, 6, 2)));
        assert!(!run.step(&hard(0, 2, 2)));
        assert!(!run.step(&hard(0, 0, 0)));
        assert!(run.step(&hard(0, 1, 1)));
        assert_eq!(run.len(), 5);
    }

    /// Goal: it works for two nodes, and not on a rate that both share (H8, H10). Method: 30 % failures
    /// against none, and against as many.
    #[test]
    fn sequential_compares_with_the_others() {
        let healthy = Rate {
            calls: 1000.0,
            failed: 1.0,
        };
        let mut sick = Sequential::default();
        let ticks = (1..)
            .find(|_| sick.step(&calls(7, 3), healthy))
            .unwrap_or(0);
        assert!(ticks <= 4, "{ticks} ticks");
        let as_sick = Rate {
            calls: 1000.0,
            failed: 300.0,
        };
        let mut same = Sequential::default();
        assert!((0..10_000).all(|_| !same.step(&calls(7, 3), as_sick)));
    }

    /// Goal: peers of whom little is known prove little. Method: the bound of a rate by the number of
    /// calls.
    #[test]
    fn few_calls_bound_nothing() {
        let rate = |calls: f64| {
            Rate {
                calls,
                failed: calls * 0.01,
            }
            .at_most()
        };
        assert!(rate(0.0) > 0.8);
        assert!(rate(10.0) > 0.2);
        assert!(rate(10_000.0) < 0.014);
    }

    /// Goal: a factor in latency must last and be felt (H2). Method: ticks slow enough, then one that is
    /// not, then a factor between microseconds.
    #[test]
    fn slow_takes_a_while() {
        let at = |latency_s| Calls {
            latency_s: Some(latency_s),
            ..calls(10, 0)
        };
        let mut slow = Slow::default();
        assert!((0..9).all(|_| !slow.step(&at(0.1), Some(0.01))));
        assert!(!slow.step(&at(0.01), Some(0.01)));
        assert!((0..9).all(|_| !slow.step(&at(0.1), Some(0.01))));
        assert!(!slow.step(&calls(0, 0), Some(0.01)));
        assert!(slow.step(&at(0.1), Some(0.01)));
        let mut fast = Slow::default();
        assert!((0..100).all(|_| !fast.step(&at(0.001), Some(0.000_05))));
    }

    /// Goal: a hang is seen within a tick of silence, and a node that is always late, or has little to do, is
    /// not taken for one (H6). Method: fast and late nodes that fall silent with many and few waiting.
    #[test]
    fn silence_is_measured_by_what_is_usual() {
        let silent_after = |latency_s, waiting| {
            let mut stalled = Stalled::default();
            let well = Calls {
                latency_s: Some(latency_s),
                waiting,
                ..calls(10, 0)
            };
            assert!((0..100).all(|_| !stalled.step(&well, 0.1)));
            let silent = Calls {
                waiting,
                ..Calls::default()
            };
            (1..=100).find(|_| stalled.step(&silent, 0.1))
        };
        assert_eq!(silent_after(0.002, 5), Some(1));
        assert!(matches!(silent_after(0.05, 5), Some(10 | 11)));
        assert_eq!(silent_after(0.002, 4), None);
        let unknown = Calls {
            waiting: 100,
            ..Calls::default()
        };
        assert!(!Stalled::default().step(&unknown, 10.0));
    }
}
