//! What makes an origin less than perfect: it takes its time, stands still, and fails. Pure: the time
//! is an argument, and the same seed gives the same answers.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    clock::Nanos,
    scenario::{ServiceTime, Upstream},
};

/// Draws answers' delays and failures, and keeps the times at which they are due.
#[derive(Debug)]
pub struct Behaviour {
    upstream: Upstream,
    random: fastrand::Rng,
    /// When a connection's answer is due, by slot and by the connection's serial number.
    due: BinaryHeap<Reverse<(Nanos, usize, u64)>>,
}

impl Behaviour {
    /// `None` if the upstream answers everything at once.
    pub fn of(upstream: &Upstream, seed: u64) -> Option<Behaviour> {
        let is_plain = upstream.service_time == ServiceTime::None
            && upstream.stall.is_none()
            && upstream.errors.0 == 0.0;
        (!is_plain).then(|| Behaviour {
            upstream: upstream.clone(),
            random: fastrand::Rng::with_seed(seed),
            due: BinaryHeap::new(),
        })
    }

    /// Whether the next answer is a failure.
    pub fn fails(&mut self) -> bool {
        self.upstream.errors.0 > 0.0 && self.random.f64() < self.upstream.errors.0
    }

    /// When an answer to a request that came at `now` is ready.
    pub fn ready(&mut self, now: Nanos) -> Nanos {
        let service = match self.upstream.service_time {
            ServiceTime::None => Nanos::ZERO,
            ServiceTime::Constant(time) => Nanos::from(time.0),
            // The inverse of the exponential distribution; 1 - u is never zero.
            ServiceTime::Exponential(mean) => {
                let mean = Nanos::from(mean.0).0 as f64;
                Nanos((-mean * (1.0 - self.random.f64()).ln()) as u64)
            }
        };
        let ready = now + service;
        let Some(stall) = self.upstream.stall else {
            return ready;
        };
        // Whatever becomes ready while it stands still waits for the end of that.
        let every = Nanos::from(stall.every.0).0.max(1);
        let (round, into) = (ready.0 / every, Nanos(ready.0 % every));
        let time = Nanos::from(stall.time.0);
        match round > 0 && into < time {
            true => Nanos(round * every) + time,
            false => ready,
        }
    }

    /// Remembers a connection until its answer is due.
    pub fn hold(&mut self, until: Nanos, slot: usize, serial: u64) {
        self.due.push(Reverse((until, slot, serial)));
    }

    /// A connection whose answer is due.
    pub fn take_due(&mut self, now: Nanos) -> Option<(usize, u64)> {
        let Reverse((until, slot, serial)) = *self.due.peek()?;
        if until > now {
            return None;
        }
        self.due.pop();
        Some((slot, serial))
    }

    /// Whether answers wait, so that the loop must not sleep past them.
    pub fn is_waiting(&self) -> bool {
        !self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::scenario::{
        Stall,
        units::{Share, Time},
    };

    fn time(ms: u64) -> Time {
        Time(Duration::from_millis(ms))
    }

    /// An upstream without peculiarities costs nothing; a constant time is added; a stall of 50 ms in
    /// each second but the first holds back what falls into it, and nothing else.
    #[test]
    fn answers_take_their_time() {
        assert!(Behaviour::of(&Upstream::default(), 1).is_none());
        let mut behaviour = Behaviour::of(
            &Upstream {
                service_time: ServiceTime::Constant(time(2)),
                stall: Some(Stall {
                    every: time(1_000),
                    time: time(50),
                }),
                ..Upstream::default()
            },
            1,
        )
        .unwrap();
        for (now_ms, ready_ms) in [
            (0, 2),
            (997, 999),
            (998, 1_050),
            (1_047, 1_050),
            (1_048, 1_050),
            (1_049, 1_051),
        ] {
            let ready = behaviour.ready(Nanos::from_millis(now_ms));
            assert_eq!(ready, Nanos::from_millis(ready_ms), "{now_ms}");
        }
    }

    /// Over ten thousand draws the mean service time and the share of failures are what was asked for.
    #[test]
    fn means_are_right() {
        let upstream = Upstream {
            service_time: ServiceTime::Exponential(time(2)),
            errors: Share(0.1),
            ..Upstream::default()
        };
        let mut behaviour = Behaviour::of(&upstream, 7).unwrap();
        let draws = 10_000;
        let sum: f64 = (0..draws)
            .map(|_| behaviour.ready(Nanos::ZERO).as_micros())
            .sum();
        assert!(
            (sum / f64::from(draws) / 2_000.0 - 1.0).abs() < 0.05,
            "{sum}"
        );
        let failures = (0..draws).filter(|_| behaviour.fails()).count();
        assert!((900..1_100).contains(&failures), "{failures}");
    }

    /// Answers come back in the order in which they are due, and not before.
    #[test]
    fn due_times_are_kept() {
        let upstream = Upstream {
            service_time: ServiceTime::Constant(time(1)),
            ..Upstream::default()
        };
        let mut behaviour = Behaviour::of(&upstream, 1).unwrap();
        behaviour.hold(Nanos(20), 2, 5);
        behaviour.hold(Nanos(10), 1, 4);
        assert_eq!(behaviour.take_due(Nanos(9)), None);
        assert_eq!(behaviour.take_due(Nanos(10)), Some((1, 4)));
        assert_eq!(behaviour.take_due(Nanos(19)), None);
        assert!(behaviour.is_waiting());
        assert_eq!(behaviour.take_due(Nanos(30)), Some((2, 5)));
        assert!(!behaviour.is_waiting());
    }
}
