//! What is the same for every load, however its connections work: the phase, when requests are due,
//! what is recorded of them, and what went wrong.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Failures, LoadSpec, Pace,
    arrivals::{Schedule, Stretch},
    distribution::Distributions,
    latency::{LatencySummary, Recorder, Times},
    series::Moment,
};
use crate::{
    clock::{Clock, Nanos},
    control::{Control, Phase},
    error::Error,
};

/// After so many failed exchanges the load gives up: the run is void anyway.
const FAILURES_MAX: u64 = 1_000;
/// How long outstanding answers are waited for after the measurement.
const DRAIN_MAX: Nanos = Nanos::from_millis(2_000);

/// What a load came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadOutcome {
    /// The latencies.
    pub latency: LatencySummary,
    /// Every latency.
    #[serde(default)]
    pub distributions: Distributions,
    /// Latency from due time over the course of the measurement.
    #[serde(default)]
    pub series: Vec<Moment>,
    /// Exchanges that went wrong, over the whole run; any makes it void.
    pub failures: u64,
    /// What went wrong first.
    pub first_failure: Option<String>,
    /// Kept connections that the peer closed between two exchanges.
    pub reconnects: u64,
    /// Exchanges that were recorded on a resumed session.
    #[serde(default)]
    pub resumed: u64,
}

/// Requests due in here are recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    start: Nanos,
    end: Nanos,
}

impl Window {
    const NEVER: Window = Window {
        start: Nanos(u64::MAX),
        end: Nanos(u64::MAX),
    };

    pub(super) fn holds(&self, due: Nanos) -> bool {
        self.start <= due && due < self.end
    }
}

/// The state that all loads share.
pub(super) struct Tally {
    pub(super) control: Arc<Control>,
    pub(super) clock: Clock,
    pub(super) phase: Phase,
    pub(super) window: Window,
    /// An open loop's, from the warm-up on.
    pub(super) schedule: Option<Schedule>,
    pub(super) reconnects: u64,
    pace: Pace,
    stretches: Vec<Stretch>,
    policy: Failures,
    recorder: Recorder,
    failures: u64,
    first_failure: Option<String>,
    resumed: u64,
}

impl Tally {
    pub(super) fn new(
        spec: &LoadSpec,
        control: Arc<Control>,
        clock: Clock,
    ) -> Result<Tally, Error> {
        let recorder = Recorder::new()
            .ok_or_else(|| Error::Load("the histogram's bounds are wrong".to_owned()))?;
        Ok(Tally {
            control,
            clock,
            phase: Phase::Origin,
            window: Window::NEVER,
            schedule: None,
            reconnects: 0,
            pace: spec.pace,
            stretches: spec.stretches.clone(),
            policy: spec.failures,
            recorder,
            failures: 0,
            first_failure: None,
            resumed: 0,
        })
    }

    /// The next phase, if another is asked for. Step by step: who leads may have gone on before the first
    /// step was seen.
    pub(super) fn next_phase(&self) -> Option<Phase> {
        (self.phase < self.control.phase()).then(|| self.phase.next())
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Nanos) {
        self.phase = phase;
        match phase {
            Phase::Origin | Phase::Open | Phase::Stop => {}
            Phase::WarmUp => {
                if let Pace::Due(arrivals) = self.pace {
                    self.schedule = Some(Schedule::new(arrivals, now));
                }
            }
            Phase::Measure => {
                self.recorder.begin(now);
                self.window = Window {
                    start: now,
                    end: Nanos(u64::MAX),
                };
                if let Some(schedule) = &mut self.schedule {
                    schedule.stretch(&self.stretches, now);
                }
            }
            Phase::Drain => self.window.end = now,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::WarmUp | Phase::Measure)
    }

    /// Whether an exchange follows the one before it at once.
    pub(super) fn is_saturating(&self) -> bool {
        self.is_running() && self.pace == Pace::Saturate
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase == Phase::Drain
    }

    /// Whether what is outstanding is not waited for any more.
    pub(super) fn has_waited(&self, now: Nanos) -> bool {
        now > self.window.end + DRAIN_MAX
    }

    /// Whether a request is due.
    pub(super) fn is_due(&self, now: Nanos) -> bool {
        let schedule = self.schedule.as_ref();
        schedule.is_some_and(|schedule| schedule.peek() <= now)
    }

    /// Counts a completed exchange, and records it if it was due in the measurement.
    pub(super) fn complete(&mut self, times: Times, is_resumed: bool) {
        self.control.count_completed();
        if self.window.holds(times.due) {
            self.recorder.record(times);
            self.resumed += u64::from(is_resumed);
        }
    }

    pub(super) fn count_failure(&mut self, problem: &str) {
        self.failures += 1;
        if self.first_failure.is_none() {
            self.first_failure = Some(problem.to_owned());
        }
        if self.failures >= FAILURES_MAX && self.policy == Failures::GiveUp {
            self.control.set_failed();
        }
    }

    /// Sums up; `outstanding` are the due times of what was sent and not answered.
    pub(super) fn outcome(mut self, outstanding: impl Iterator<Item = Nanos>) -> LoadOutcome {
        let end = self.window.end;
        for due in outstanding {
            self.recorder.record_unfinished(due, end);
        }
        if let Some(schedule) = &mut self.schedule {
            // Never sent: the connections were all busy.
            while schedule.peek() < end && end != Window::NEVER.end {
                let due = schedule.take();
                if self.window.holds(due) {
                    self.recorder.record_unfinished(due, end);
                }
            }
        }
        let latency = self.recorder.summary();
        let (distributions, series) = self.recorder.into_distributions();
        LoadOutcome {
            latency,
            distributions,
            series,
            failures: self.failures,
            first_failure: self.first_failure,
            reconnects: self.reconnects,
            resumed: self.resumed,
        }
    }
}
