//! What a step comes to. Pure.
//!
//! A request is *good* if it was answered with a 200 within the objective, counted from when it was due:
//! what comes later, nobody waits for. Figures are of the *held* part of a step, after the time that
//! everybody has to settle; what happened until then is told apart.

use serde::{Deserialize, Serialize};

use crate::{
    clients::{Fate, Request},
    clock::Nanos,
    cost::Cost,
    statistics::percentile,
};

use super::{CLASSES, OBJECTIVE, SETTLE, class_of};

/// Goodput is looked at over stretches of this length: hundreds of requests, so that chance is small.
const WINDOW: Nanos = Nanos::from_millis(1_000);
/// From one to the next.
const SLIDE: Nanos = Nanos::from_millis(100);
/// Settled is what stays above this part of what is held. Over a second, and at the rates that a step
/// has, chance moves goodput by a few in a hundred.
const SETTLED_PART: f64 = 0.8;

/// All that a step leaves behind.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it began.
    pub start: Nanos,
    /// When it ended.
    pub end: Nanos,
    /// What the clients sent, before and in it, by due time.
    pub requests: Vec<Request>,
    /// What the proxy consumed in the held part; `None` without a proxy.
    pub cost: Option<Cost>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Requests that were due per second.
    pub offered_per_s: f64,
    /// Good ones per second.
    pub good_per_s: f64,
    /// The part of each class that was good.
    pub success: [f64; CLASSES],
    /// The part of the critical ones that was good until it had settled.
    pub success_before: f64,
    /// The 99th percentile of the time to an answer with a 200, from due; `None` if there was none.
    pub p99_ms: Option<f64>,
    /// Answers with another status per second.
    pub refused_per_s: f64,
    /// Requests without any answer per second.
    pub lost_per_s: f64,
    /// From the beginning of the step until goodput stayed at what is held; `None` if nothing is.
    pub settled_ms: Option<f64>,
    /// CPU time of the proxy in the held part, in microseconds.
    pub cpu_us: Option<f64>,
    /// Requests that the proxy refused in it.
    pub refused: usize,
    /// Those that it did not.
    pub proxied: usize,
}

/// Sums up a record.
pub fn outcome(record: &Record) -> Outcome {
    let held = record.start + SETTLE;
    let of = |from, to| between(&record.requests, from, to);
    let (before, requests) = (of(record.start, held), of(held, record.end));
    let seconds = (record.end - held).as_secs().max(f64::MIN_POSITIVE);
    let count = |is: &dyn Fn(&Request) -> bool| requests.iter().filter(|it| is(it)).count();
    let refused = count(&|it| it.fate == Fate::Refused);
    let lost = count(&|it| !matches!(it.fate, Fate::Answered | Fate::Refused));
    let good = count(&is_good);
    Outcome {
        offered_per_s: requests.len() as f64 / seconds,
        good_per_s: good as f64 / seconds,
        success: std::array::from_fn(|class| success(requests, class)),
        success_before: success(before, 0),
        p99_ms: p99_ms(requests),
        refused_per_s: refused as f64 / seconds,
        lost_per_s: lost as f64 / seconds,
        settled_ms: settled(record, good as f64 / seconds),
        cpu_us: record.cost.map(|cost| cost.cpu_us),
        refused,
        proxied: requests.len() - refused,
    }
}

/// Those due in a stretch of time.
fn between(requests: &[Request], from: Nanos, to: Nanos) -> &[Request] {
    let from = requests.partition_point(|it| it.due < from);
    let to = requests.partition_point(|it| it.due < to);
    requests.get(from..to).unwrap_or_default()
}

fn is_good(request: &Request) -> bool {
    request.fate == Fate::Answered && request.ended - request.due <= OBJECTIVE
}

/// The part of a class that was good; all of it, if there was nothing of it.
fn success(requests: &[Request], class: usize) -> f64 {
    let of_class = || requests.iter().filter(|it| class_of(it.kind) == class);
    match of_class().count() {
        0 => 1.0,
        all => of_class().filter(|it| is_good(it)).count() as f64 / all as f64,
    }
}

fn p99_ms(requests: &[Request]) -> Option<f64> {
    let answered = requests.iter().filter(|it| it.fate == Fate::Answered);
    let times = answered.map(|it| Some((it.ended - it.due).as_micros() / 1e3));
    percentile(times, 0.99)
}

/// The first moment from which on no window is much worse than what is held.
fn settled(record: &Record, held_per_s: f64) -> Option<f64> {
    if held_per_s == 0.0 {
        return None;
    }
    let least = held_per_s * SETTLED_PART * WINDOW.as_secs();
    let mut settled = record.start;
    let mut from = record.start;
    while from + WINDOW <= record.end {
        let window = between(&record.requests, from, from + WINDOW);
        let good = window.iter().filter(|it| is_good(it)).count();
        if (good as f64) < least {
            settled = from + SLIDE;
        }
        from = from + SLIDE;
    }
    Some((settled - record.start).as_micros() / 1e3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::overload::CALLERS;

    fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    /// A request every ten milliseconds of a class from one second to another, that ends after so long.
    fn requests(class: usize, span: (u64, u64), fate: Fate, after_ms: u64) -> Vec<Request> {
        let at = |due| Request {
            due: ms(due),
            kind: class * CALLERS,
            fate,
            ended: ms(due + after_ms),
        };
        (span.0 * 1_000..span.1 * 1_000)
            .step_by(10)
            .map(at)
            .collect()
    }

    fn record(requests: Vec<Vec<Request>>) -> Record {
        let mut requests = requests.concat();
        requests.sort_by_key(|it| it.due);
        Record {
            start: ms(3_000),
            end: ms(9_000),
            requests,
            cost: None,
        }
    }

    /// Goal: what is answered in time is good, what is late, refused or lost is not, each by its class, and
    /// what was before the step and until it settled is not in the figures. Method: a step of six seconds,
    /// of which four are held.
    #[test]
    fn a_step_is_summed_up() {
        let outcome = outcome(&record(vec![
            requests(0, (0, 3), Fate::Answered, 900),
            requests(0, (3, 5), Fate::Refused, 1),
            requests(0, (5, 9), Fate::Answered, 250),
            requests(1, (5, 9), Fate::Answered, 251),
            requests(2, (5, 9), Fate::Refused, 1),
            requests(3, (5, 9), Fate::TimedOut, 1_000),
        ]));
        assert_eq!(outcome.success, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(outcome.success_before, 0.0);
        let per_s = [
            outcome.offered_per_s,
            outcome.good_per_s,
            outcome.refused_per_s,
            outcome.lost_per_s,
        ];
        assert_eq!(per_s, [400.0, 100.0, 100.0, 100.0]);
        assert_eq!((outcome.refused, outcome.proxied), (400, 1_200));
        assert_eq!(outcome.p99_ms, Some(251.0));
    }

    /// Goal: settled is when goodput stays. Method: nothing is good for a second and a half of the step, and
    /// then everything is: the last window of a second that has less than four fifths of it begins 1.2 s into
    /// the step. And one in which nothing ever is.
    #[test]
    fn settled_is_when_it_stays() {
        let mut late = requests(0, (3, 9), Fate::Answered, 10);
        for request in late.iter_mut().filter(|it| it.due < ms(4_500)) {
            request.fate = Fate::TimedOut;
        }
        assert_eq!(outcome(&record(vec![late])).settled_ms, Some(1_300.0));
        let at_once = requests(0, (3, 9), Fate::Answered, 10);
        assert_eq!(outcome(&record(vec![at_once])).settled_ms, Some(0.0));
        let never = requests(0, (3, 9), Fate::Answered, 900);
        assert_eq!(outcome(&record(vec![never])).settled_ms, None);
    }
}
