//! What an episode's record comes to. Pure.
//!
//! An endpoint is *left alone* when for half a second at least nothing reached it while others got their
//! requests: at least [`PASSED_BY`] times as many as there are endpoints. Two conditions, since at a low
//! rate half a second is a usual gap, and a machine that stands still sends nothing to anybody. What
//! reached it last before that is *the last request on the bad endpoint*; whatever reaches it later,
//! while it is still sick, is a *trial*.

use serde::{Deserialize, Serialize};

use super::endpoints::Hit;
use crate::{
    clients::{Fate, Request},
    clock::Nanos,
};

/// Less than the shortest time out of any peer (a second), so that a trial is not taken for the last
/// request.
pub const GAP: Nanos = Nanos::from_millis(500);
/// With endpoints taking turns, eight rounds without one are no chance: a Poisson process in which each
/// of two gets every second request makes such a gap once in 5·10⁵.
pub const PASSED_BY: usize = 8;

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
}

/// What was sent, and what arrived where; both ascending.
#[derive(Clone, Copy, Debug)]
pub struct Traffic<'a> {
    /// What reached endpoints.
    pub hits: &'a [Hit],
    /// What was sent to the proxy.
    pub requests: &'a [Request],
    /// How many endpoints there are.
    pub endpoints: usize,
}

/// All that an episode leaves behind.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its seed.
    pub seed: u64,
    /// The endpoint that fell sick.
    pub victim: usize,
    /// How many there are.
    pub endpoints: usize,
    /// When the load began.
    pub start: Nanos,
    /// When the fault began.
    pub struck: Nanos,
    /// When it ended.
    pub recovered: Nanos,
    /// Requests due from the fault until then are counted.
    pub counted_until: Nanos,
    /// When the endpoint took traffic again.
    pub returned: Option<Nanos>,
    /// What reached the endpoints.
    pub hits: Vec<Hit>,
    /// What the clients sent.
    pub requests: Vec<Request>,
}

/// What an episode came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The endpoint that fell sick.
    pub victim: usize,
    /// From the first request to the fault.
    pub struck_ms: f64,
    /// Requests lost before it, as a part of all: what is too busy to serve when all is well proves nothing.
    pub lost_before: f64,
    /// How long the fault lasted.
    pub sick_ms: f64,
    /// From the fault to the last request on the bad endpoint; `None` if it was not left alone.
    pub last_ms: Option<f64>,
    /// What reached it later, while it was still sick.
    pub trials: usize,
    /// Requests that were due in the counted part of the fault.
    pub due: usize,
    /// Those of them that were not answered with a 200 in time.
    pub lost: Lost,
    /// Healthy endpoints that were left alone: others, or this one before the fault.
    pub falsely_out: usize,
    /// From the end of the fault until it took traffic again, if it did.
    pub returned_ms: Option<f64>,
}

/// Lost requests, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Answered with another status.
    pub refused: usize,
    /// Their connection broke.
    pub broken: usize,
    /// Not answered in time.
    pub timed_out: usize,
}

impl Lost {
    /// All of them.
    pub fn all(&self) -> usize {
        self.refused + self.broken + self.timed_out
    }
}

/// Sums up a record.
pub fn outcome(record: &Record) -> Outcome {
    let traffic = Traffic {
        hits: &record.hits,
        requests: &record.requests,
        endpoints: record.endpoints,
    };
    let (healthy, sick) = (
        Span {
            from: record.start,
            to: record.struck,
        },
        Span {
            from: record.struck,
            to: record.recovered,
        },
    );
    let before = traffic.requests_in(healthy);
    let last = traffic.left_alone(record.victim, sick);
    let counted = traffic.requests_in(Span {
        from: record.struck,
        to: record.counted_until,
    });
    let falsely_out = (0..record.endpoints).filter(|&i| {
        let is_out = |span| traffic.left_alone(i, span).is_some();
        is_out(healthy) || i != record.victim && is_out(sick)
    });
    let ms = |time: Nanos| time.as_micros() / 1e3;
    Outcome {
        seed: record.seed,
        victim: record.victim,
        struck_ms: ms(record.struck - record.start),
        lost_before: lost(before).all() as f64 / before.len().max(1) as f64,
        sick_ms: ms(record.recovered - record.struck),
        last_ms: last.map(|at| ms(at - record.struck)),
        trials: last.map_or(0, |last| {
            let later = traffic.hits_of(record.victim, sick);
            later.filter(|at| *at > last).count()
        }),
        due: counted.len(),
        lost: lost(counted),
        falsely_out: falsely_out.count(),
        returned_ms: record.returned.map(|at| ms(at - record.recovered)),
    }
}

impl<'a> Traffic<'a> {
    /// When something reached the endpoint last before it was left alone; the beginning of the span if
    /// nothing did any more. `None` if it was not left alone in the span.
    pub fn left_alone(&self, endpoint: usize, span: Span) -> Option<Nanos> {
        let mut last = span.from;
        let ends = self.hits_of(endpoint, span).chain([span.to]);
        for next in ends {
            let gap = Span {
                from: last,
                to: next,
            };
            let passed_by = PASSED_BY * self.endpoints;
            if next - last >= GAP && self.requests_in(gap).len() >= passed_by {
                return Some(last);
            }
            last = next;
        }
        None
    }

    fn hits_of(&self, endpoint: usize, span: Span) -> impl Iterator<Item = Nanos> + use<'a> {
        let from = self.hits.partition_point(|hit| hit.at < span.from);
        let to = self.hits.partition_point(|hit| hit.at < span.to);
        let hits = self.hits.get(from..to).unwrap_or_default().iter();
        hits.filter(move |hit| hit.endpoint == endpoint)
            .map(|hit| hit.at)
    }

    fn requests_in(&self, span: Span) -> &'a [Request] {
        let from = self.requests.partition_point(|it| it.due < span.from);
        let to = self.requests.partition_point(|it| it.due < span.to);
        self.requests.get(from..to).unwrap_or_default()
    }
}

fn lost(requests: &[Request]) -> Lost {
    let mut lost = Lost::default();
    for request in requests {
        match request.fate {
            Fate::Answered => {}
            Fate::Refused => lost.refused += 1,
            Fate::Broken => lost.broken += 1,
            Fate::TimedOut | Fate::Pending(_) => lost.timed_out += 1,
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        from: Nanos::from_millis(1_000),
        to: Nanos::from_millis(3_000),
    };

    fn hits(endpoint: usize, times_ms: &[u64]) -> Vec<Hit> {
        let at = |ms: &u64| Hit {
            endpoint,
            at: Nanos::from_millis(*ms),
        };
        times_ms.iter().map(at).collect()
    }

    /// A request every so many milliseconds from the second 0 to 4, with this fate.
    fn requests(every_ms: usize, fate: Fate) -> Vec<Request> {
        let due = |ms| Request {
            due: Nanos::from_millis(ms as u64),
            kind: 0,
            fate,
            ended: Nanos::from_millis(ms as u64),
        };
        (0..4_000).step_by(every_ms).map(due).collect()
    }

    fn left_alone_ms(hits: &[Hit], requests: &[Request]) -> Option<u64> {
        let traffic = Traffic {
            hits,
            requests,
            endpoints: 2,
        };
        let last = traffic.left_alone(0, SPAN)?;
        Some((last - SPAN.from).0 / 1_000_000)
    }

    /// Goal: the last request is the one before the first gap of half a second, and no later trial.
    /// Method: gaps of one millisecond less than the least, of the least, at the end of the span, and from
    /// its beginning on.
    #[test]
    fn the_last_request_comes_before_the_gap() {
        let requests = requests(10, Fate::Answered);
        for (times_ms, last_ms) in [
            (&[1_000, 1_200, 1_699, 2_198, 2_697][..], None),
            (&[1_000, 1_200, 1_700, 2_600, 2_900], Some(200)),
            (&[1_400, 1_800, 2_200, 2_500], Some(1_500)),
            (&[1_400, 1_800, 2_200, 2_501], None),
            (&[900, 1_500, 1_600], Some(0)),
            (&[], Some(0)),
        ] {
            let found = left_alone_ms(&hits(0, times_ms), &requests);
            assert_eq!(found, last_ms, "{times_ms:?}");
        }
        // What reaches another endpoint does not count.
        assert_eq!(left_alone_ms(&hits(1, &[1_400, 1_800]), &requests), Some(0));
    }

    /// Goal: silence that everybody shares is nobody's. Method: a gap of 800 ms in which sixteen requests
    /// are sent to two endpoints, and one in which fifteen are.
    #[test]
    fn a_gap_needs_requests_that_went_elsewhere() {
        let hits = hits(0, &[1_000, 1_200, 2_000, 2_400, 2_800]);
        let mut sent = requests(50, Fate::Answered);
        assert_eq!(left_alone_ms(&hits, &sent), Some(200));
        sent.retain(|request| request.due != Nanos::from_millis(1_500));
        assert_eq!(left_alone_ms(&hits, &sent), None);
        sent.retain(|request| request.due < Nanos::from_millis(1_000));
        assert_eq!(left_alone_ms(&hits, &sent), None);
    }

    /// Goal: an outcome counts trials, losses of the counted part by kind, and healthy endpoints that were
    /// left alone. Method: two endpoints, of which one falls sick and the other is left alone meanwhile.
    #[test]
    fn an_episode_is_summed_up() {
        let mut requests = requests(10, Fate::Answered);
        let fates = [
            Fate::Refused,
            Fate::Broken,
            Fate::TimedOut,
            Fate::Pending(3),
        ];
        // One before the fault, four in the counted part, one after it.
        for (due_ms, fate) in [990, 1_000, 1_010, 1_020, 1_990, 2_000].into_iter().zip(
            [Fate::Broken]
                .into_iter()
                .chain(fates)
                .chain([Fate::Broken]),
        ) {
            let same = |it: &&mut Request| it.due == Nanos::from_millis(due_ms);
            requests
                .iter_mut()
                .filter(same)
                .for_each(|it| it.fate = fate);
        }
        let regular: Vec<u64> = (0..100).map(|i| i * 10).collect();
        let mut all = hits(0, &regular);
        all.extend(hits(1, &regular));
        all.extend(hits(0, &[1_000, 1_150, 2_300, 2_800]));
        all.extend(hits(1, &[1_100, 1_400, 1_899, 2_500]));
        all.sort_by_key(|hit| hit.at);
        let outcome = outcome(&Record {
            seed: 5,
            victim: 0,
            endpoints: 2,
            start: Nanos::ZERO,
            struck: SPAN.from,
            recovered: SPAN.to,
            counted_until: Nanos::from_millis(2_000),
            returned: Some(Nanos::from_millis(3_250)),
            hits: all,
            requests,
        });
        let expected = Outcome {
            seed: 5,
            victim: 0,
            struck_ms: 1_000.0,
            lost_before: 0.01,
            sick_ms: 2_000.0,
            last_ms: Some(150.0),
            trials: 2,
            due: 100,
            lost: Lost {
                refused: 1,
                broken: 1,
                timed_out: 2,
            },
            falsely_out: 1,
            returned_ms: Some(250.0),
        };
        assert_eq!(outcome, expected);
    }
}
