//! A share that grows by itself, and stops by itself (S5, S11): a loop of step, watch, decide.
//!
//! A step is followed by another when its time is over and what it moved was well. It is judged by what was moved
//! since the last step; too few requests say nothing, and then there is no next step either. A stop is final: an
//! operator who wants to go on sets the rule again.

use std::time::Duration;

use super::share::{WHOLE, own_fraction, percent, threshold};
use crate::{
    config::model::steering::{OnStop, Ramp as Settings, Rule, Verb},
    stats::HistogramCounts,
};

/// Requests that an error rate or a percentile is read from, at least.
pub const SAMPLE_MIN: u64 = 20;

/// The ramp of one rule.
#[derive(Debug)]
pub struct Ramp {
    settings: Settings,
    /// The rule's own share, where it ends.
    goal: u32,
    reached: u32,
    /// When the last step was.
    since: Option<Duration>,
    /// What was counted then.
    before: Observed,
    state: State,
}

/// Where a ramp stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It grows.
    Running,
    /// It has reached the rule's own share, and is watched on.
    Finished,
    /// It has stopped, for this reason, in numbers.
    Stopped(String),
}

/// What was counted of a rule so far, and how full its targets are.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Moved requests that are over.
    pub completed: u64,
    /// Of those, the ones that failed.
    pub failed: u64,
    /// How long they took.
    pub latency: HistogramCounts,
    /// The fullest target, of its watermark, with its name; `None` if none is limited.
    pub fullest: Option<(String, f64)>,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This share is moved from now on, in basis points.
    Step(u32),
    /// The rule's own share is reached.
    Finished(u32),
    /// It stops: this share is moved from now on, for this reason.
    Stopped(u32, String),
}

impl Ramp {
    /// The ramp of a rule that has one.
    pub fn new(rule: &Rule) -> Option<Ramp> {
        let settings = rule.ramp?;
        let goal = goal(&rule.verb);
        Some(Ramp {
            settings,
            goal,
            reached: rule.reached.unwrap_or(settings.start).min(goal),
            since: None,
            before: Observed::default(),
            state: State::Running,
        })
    }

    /// What is moved, in basis points.
    pub const fn reached(&self) -> u32 {
        self.reached
    }

    /// Where it stands.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Looks at what was counted.
    pub fn tick(&mut self, now: Duration, observed: &Observed) -> Option<Event> {
        let Some(since) = self.since else {
            self.since = Some(now);
            self.before = observed.clone();
            return None;
        };
        if matches!(self.state, State::Stopped(_)) {
            return None;
        }
        if let Some(why) = self.why_stop(observed) {
            return Some(self.stop(why));
        }
        if self.state == State::Finished
            || now.saturating_sub(since) < self.settings.every
            || !self.is_shown(observed)
        {
            return None;
        }
        self.since = Some(now);
        self.before = observed.clone();
        self.reached = (self.reached + self.settings.step).min(self.goal);
        if self.reached < self.goal {
            return Some(Event::Step(self.reached));
        }
        self.state = State::Finished;
        Some(Event::Finished(self.reached))
    }

    fn stop(&mut self, why: String) -> Event {
        if self.settings.on_stop == OnStop::Back {
            self.reached = 0;
        }
        self.state = State::Stopped(why.clone());
        Event::Stopped(self.reached, why)
    }

    /// Whether what was moved since the last step is enough to judge it by.
    fn is_shown(&self, observed: &Observed) -> bool {
        let stop = &self.settings.stop;
        let by_requests = stop.error_rate.is_some() || stop.p99.is_some();
        !by_requests
            || self.reached == 0
            || observed.completed - self.before.completed >= SAMPLE_MIN
    }

    fn why_stop(&self, observed: &Observed) -> Option<String> {
        let stop = &self.settings.stop;
        let share = |points: u32| percent(f64::from(points) / f64::from(WHOLE));
        if let (Some(limit), Some((target, fullness))) = (stop.watermark, &observed.fullest)
            && *fullness * f64::from(WHOLE) > f64::from(limit)
        {
            let (fullness, limit) = (percent(*fullness), share(limit));
            return Some(format!(
                "`{target}` is at {fullness} of its watermark, over {limit}"
            ));
        }
        let completed = observed.completed.saturating_sub(self.before.completed);
        if completed < SAMPLE_MIN {
            return None;
        }
        let failed = observed.failed.saturating_sub(self.before.failed);
        if let Some(limit) = stop.error_rate
            && failed * u64::from(WHOLE) > completed * u64::from(limit)
        {
            let rate = percent(failed as f64 / completed as f64);
            return Some(format!(
                "{failed} of {completed} moved requests failed, {rate}, over {}",
                share(limit)
            ));
        }
        let limit = stop.p99?;
        let p99 = Duration::from_nanos(self.since_last_step(observed).quantile_ns(0.99));
        (p99 > limit).then(|| {
            format!(
                "the 99th percentile of {completed} moved requests is {p99:.1?}, over {limit:.1?}"
            )
        })
    }

    fn since_last_step(&self, observed: &Observed) -> HistogramCounts {
        let mut counts = observed.latency.clone();
        for (count, before) in counts.buckets.iter_mut().zip(self.before.latency.buckets) {
            *count = count.saturating_sub(before);
        }
        counts
    }
}

/// The share that a rule asks for in the end, in basis points, rounded up.
fn goal(verb: &Verb) -> u32 {
    match verb {
        Verb::Shift { share, .. } => *share,
        Verb::Divert { share, .. } => {
            let fraction = own_fraction(*share) * u64::from(WHOLE);
            fraction.div_ceil(threshold(WHOLE)) as u32
        }
        _ => WHOLE,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{config, stats::Histogram};

    const FILE: &str = "version: 1\nclusters:\n  one: { endpoints: { static: [10.0.0.1:80] } }\n  \
        two: { endpoints: { static: [10.0.0.2:80] } }\n\
        steering: { applications: { pay: { units: { u1: one, u2: two } } } }\n";

    fn ramp(what: &str, ramp: &str) -> Ramp {
        let steering = config::parse("f.yaml", FILE).unwrap().0.steering.unwrap();
        let rule = format!("{{ owner: o, match: {{ application: pay }}, {what}, ramp: {ramp} }}");
        Ramp::new(&config::parse_steering_rule("r", &rule, &steering).unwrap()).unwrap()
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    /// `completed` requests, of which so many failed, and all took so long.
    fn seen(completed: u64, failed: u64, took: Duration) -> Observed {
        let latency = Histogram::default();
        (0..completed).for_each(|_| latency.record(took.as_nanos() as u64));
        let mut counts = HistogramCounts::default();
        latency.add_to(&mut counts);
        Observed {
            completed,
            failed,
            latency: counts,
            fullest: None,
        }
    }

    const FAST: Duration = Duration::from_millis(5);

    /// Goal: a healthy ramp reaches the rule's share and no more, step by step (S11). Method: a virtual clock; each step
    /// waits for its time and for enough requests.
    #[test]
    fn a_healthy_ramp_reaches_its_share() {
        let mut ramp = ramp(
            "shift: { to: u2, share: 12% }",
            "{ start: 2%, step: 4%, every: 10s, stop: { error_rate: 1% } }",
        );
        assert_eq!(
            (ramp.reached(), ramp.tick(at(0), &seen(0, 0, FAST))),
            (200, None)
        );
        assert_eq!(
            ramp.tick(at(9), &seen(100, 0, FAST)),
            None,
            "its time is not over"
        );
        assert_eq!(
            ramp.tick(at(10), &seen(19, 0, FAST)),
            None,
            "too few say nothing"
        );
        assert_eq!(
            ramp.tick(at(11), &seen(20, 0, FAST)),
            Some(Event::Step(600))
        );
        assert_eq!(ramp.tick(at(20), &seen(99, 0, FAST)), None);
        assert_eq!(
            ramp.tick(at(21), &seen(99, 0, FAST)),
            Some(Event::Step(1_000))
        );
        assert_eq!(
            ramp.tick(at(31), &seen(199, 1, FAST)),
            Some(Event::Finished(1_200))
        );
        assert_eq!(ramp.state(), &State::Finished);
        assert_eq!(ramp.tick(at(99), &seen(299, 1, FAST)), None);
    }

    /// Goal: it stops by itself, at once, for each reason, says why in numbers, and goes back or holds (S11). Method: each
    /// condition right at its limit and over it.
    #[test]
    fn a_sick_ramp_stops() {
        let settings = |stop: &str, on_stop: &str| {
            format!("{{ start: 5%, step: 5%, every: 10s, stop: {{ {stop} }}, on_stop: {on_stop} }}")
        };
        let full = |fullness: f64| Observed {
            fullest: Some(("u2".into(), fullness)),
            ..Observed::default()
        };
        for (stop, well, sick, why) in [
            (
                "error_rate: 10%",
                seen(100, 10, FAST),
                seen(100, 11, FAST),
                "11 of 100 moved requests failed, 11 %, over 10 %",
            ),
            (
                "p99: 50ms",
                seen(100, 0, FAST),
                seen(100, 0, Duration::from_millis(400)),
                "the 99th percentile of 100 moved requests is",
            ),
            (
                "watermark: 90%",
                full(0.9),
                full(0.93),
                "`u2` is at 93 % of its watermark, over 90 %",
            ),
        ] {
            for (on_stop, left) in [("back", 0), ("hold", 500)] {
                let mut ramp = ramp("set_unit: u2", &settings(stop, on_stop));
                ramp.tick(at(0), &Observed::default());
                assert_eq!(ramp.tick(at(1), &well), None, "{stop}");
                let Some(Event::Stopped(share, said)) = ramp.tick(at(2), &sick) else {
                    unreachable!("{stop}");
                };
                assert!(share == left && said.starts_with(why), "{share} {said}");
                assert_eq!(ramp.tick(at(99), &well), None, "a stop is final");
            }
        }
    }

    /// Goal: a ramp at its share is watched on, and what came before a step does not weigh on it. Method: failures in the
    /// first step, below its limit, then a good step, then a bad one.
    #[test]
    fn each_step_is_judged_alone() {
        let mut ramp = ramp(
            "set_unit: u2",
            "{ start: 50%, step: 50%, every: 1s, stop: { error_rate: 10% } }",
        );
        ramp.tick(at(0), &Observed::default());
        assert_eq!(
            ramp.tick(at(1), &seen(1_000, 100, FAST)),
            Some(Event::Finished(10_000))
        );
        assert_eq!(ramp.tick(at(2), &seen(1_020, 102, FAST)), None);
        assert!(matches!(
            ramp.tick(at(3), &seen(1_020, 103, FAST)),
            Some(Event::Stopped(0, _))
        ));
    }

    /// Goal: a ramp of a divert ends where its share trap was worked out to. Method: 80 % on one of three.
    #[test]
    fn a_divert_ends_at_its_fraction() {
        let stop = "{ stop: { error_rate: 1% } }";
        let ramp = ramp("divert: { to: u2, target_share: 80%, servers: 3 }", stop);
        assert_eq!(ramp.goal, 7_000);
    }
}
