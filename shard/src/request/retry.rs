//! What can fail in a try, and whether it is worth another.

use std::time::Duration;

use tidegate_core::{reason::Reason, snapshot::Forward};

use super::exchange::{Exchange, Refusal};
use crate::upstream::Admission;

/// Endpoints tried beside the first when no connection can be made, unasked: with three of a cluster down
/// the fault is not one endpoint's.
const REDISPATCHES_MAX: u8 = 2;
/// Their budget, in basis points of the requests in flight: all of them. A refused connection costs
/// next to nothing, and one endpoint's death must not show.
const REDISPATCH_BUDGET: u32 = 10_000;

/// Why a try brought no answer that can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection.
    Connect(Reason),
    /// The connection ended or broke before the head of an answer.
    Reset,
    /// The endpoint says that it did nothing about the request (REFUSED_STREAM, GOAWAY).
    NotProcessed,
    /// The answer breaks the protocol.
    Protocol(&'static str),
    /// The try took longer than `per_try_timeout`.
    TryTimeout,
    /// The answer's status is one to retry on.
    Status,
    /// A pooled connection turned out to be closed.
    Stale,
    /// Not the endpoint's doing, or nothing that another try could mend.
    Refused(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl Failure {
    /// What the client is told.
    pub(super) fn into_refusal(self) -> Refusal {
        match self {
            Failure::Connect(reason) => reason.into(),
            Failure::Protocol(detail) => Refusal::with_detail(Reason::UpstreamProtocol, detail),
            Failure::TryTimeout => {
                Refusal::with_detail(Reason::RequestTimeout, "the try's own time-out")
            }
            Failure::Reset | Failure::NotProcessed | Failure::Stale | Failure::Status => {
                Reason::UpstreamReset.into()
            }
            Failure::Refused(refusal) => refusal,
        }
    }
}

impl Exchange<'_> {
    /// Whether sending the request again can do no harm: nothing of its body was taken from the client,
    /// and doing it twice means what doing it once means (RFC 9110, 9.2.2).
    pub(super) fn is_repeatable(&self) -> bool {
        self.has_whole_body() && self.scratch.request.idempotent()
    }

    /// Whether the request can be sent from its beginning: nothing of its body was taken from the client.
    pub(super) fn has_whole_body(&self) -> bool {
        !self.upload.has_taken_body()
    }

    /// The answer's status, if the route would rather have another.
    pub(super) fn unwanted_status(&self, forward: &Forward) -> Option<Failure> {
        let on = &forward.retry.as_ref()?.on;
        on.statuses
            .contains(&self.scratch.response.status)
            .then_some(Failure::Status)
    }

    /// Whether to try again after `failure`; counts the retry if so.
    pub(super) fn may_retry(
        &mut self,
        forward: &Forward,
        failure: &Failure,
        admission: &mut Admission,
    ) -> bool {
        let Some(retry) = &forward.retry else {
            return self.may_redispatch(failure, admission);
        };
        let wanted = match failure {
            Failure::Connect(Reason::CircuitConnections) => false,
            Failure::Connect(_) => retry.on.connect,
            Failure::Reset | Failure::NotProcessed | Failure::Stale => {
                retry.on.reset && self.is_repeatable()
            }
            Failure::TryTimeout => retry.on.timeout && self.is_repeatable(),
            // The operator named the status, so the method is not asked.
            Failure::Status => !self.upload.has_taken_body(),
            Failure::Protocol(_) | Failure::Refused(_) => false,
        };
        if !wanted || self.retries >= retry.times {
            return false;
        }
        self.count_retry(admission, retry.budget)
    }

    /// Without a policy of its own, a route tries another endpoint when no connection could be made:
    /// nothing was sent, so nothing can be done twice. HAProxy and nginx do the same unasked.
    fn may_redispatch(&mut self, failure: &Failure, admission: &mut Admission) -> bool {
        let endpoints = self.cluster.map_or(0, |cluster| cluster.endpoints.len());
        let wanted = match failure {
            Failure::Connect(Reason::CircuitConnections) => false,
            Failure::Connect(_) => usize::from(self.retries) + 1 < endpoints,
            _ => false,
        };
        wanted && self.retries < REDISPATCHES_MAX && self.count_retry(admission, REDISPATCH_BUDGET)
    }

    fn count_retry(&mut self, admission: &mut Admission, budget: u32) -> bool {
        let counters = self.client.local.counters();
        if !admission.may_retry(budget) {
            counters.retries_over_budget.add(1);
            return false;
        }
        counters.retries.add(1);
        self.retries += 1;
        true
    }

    /// Pauses before the next try: exponential, with full jitter, within the time that is left.
    pub(super) async fn back_off(&mut self, forward: &Forward) -> Result<(), Refusal> {
        let base = forward.retry.as_ref().map_or(Duration::ZERO, |r| r.backoff);
        let local = &self.client.local;
        if base.is_zero() {
            self.times.ready_ns = local.driver.clock_ns();
            return Ok(());
        }
        let ceiling = base.saturating_mul(1 << u32::from(self.retries.saturating_sub(1)).min(16));
        let share = (local.random() >> 32) as f64 / (1u64 << 32) as f64;
        let until = local.now() + ceiling.mul_f64(share);
        let until_ns = until.as_nanos() as u64;
        if until_ns >= self.until_ns {
            return Err(Reason::RequestTimeout.into());
        }
        let deadline = self.caller.deadline();
        deadline.set(until_ns);
        deadline.reached().await;
        self.times.ready_ns = local.driver.clock_ns();
        Ok(())
    }
}
