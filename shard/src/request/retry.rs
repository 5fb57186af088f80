//! What can fail in a try, and whether it is worth another.

use std::time::Duration;

use tidegate_codecs::grpc::Pushback;
use tidegate_core::{
    config::model::{Retry, UpstreamProtocol},
    reason::Reason,
    snapshot::Forward,
};

use super::{
    exchange::{Exchange, Refusal},
    wanted::Wanted,
};
use crate::{
    local::Plane,
    ring::Chunk,
    upstream::{Admission, Destination, Leg},
};

/// Endpoints tried beside the first when no connection can be made, unasked: with three of a cluster down
/// the fault is not one endpoint's.
const REDISPATCHES_MAX: u8 = 2;
/// Their budget, in basis points of the requests in flight: all of them. A refused connection costs
/// next to nothing, and one endpoint's death must not show.
const REDISPATCH_BUDGET: u32 = 10_000;
/// A server that wants to be left alone for longer has its answer passed on: no route has a longer pause either.
const PUSHBACK_MAX: Duration = Duration::from_secs(60);

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
    /// The answer's status is one to retry on, and the server may have said when.
    Status(Option<Pushback>),
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
            Failure::Reset | Failure::NotProcessed | Failure::Stale | Failure::Status(_) => {
                Reason::UpstreamReset.into()
            }
            Failure::Refused(refusal) => refusal,
        }
    }
}

impl Exchange<'_> {
    /// Has the body kept that is to come, if there may be a try that needs it.
    pub(super) fn keep_body(&mut self, plane: &Plane, forward: &Forward, to: Destination<'_>) {
        let retry = forward
            .retry
            .as_ref()
            .filter(|retry| self.needs_body(retry, to));
        let hedge = forward.hedge.as_ref().filter(|hedge| self.may_hedge(hedge));
        let buffers = [
            retry.map(|retry| retry.buffer),
            hedge.map(|hedge| hedge.buffer),
        ];
        let bytes_max = buffers.into_iter().flatten().max().unwrap_or(0);
        if bytes_max > 0 {
            let limit = plane.snapshot.config.limits.buffers;
            self.upload
                .keep(&self.client.local, bytes_max as usize, limit);
        }
    }

    /// Whether the policy knows an outcome of this request by which the body has begun to flow.
    fn needs_body(&self, retry: &Retry, to: Destination<'_>) -> bool {
        let on = &retry.on;
        let is_call = !on.grpc_statuses.is_empty() && self.is_grpc();
        // In HTTP/2 an endpoint can say that it did nothing, and then the method is not asked.
        let by_reset = on.reset && to.settings.config.protocol == UpstreamProtocol::Http2;
        let by_loss = (on.reset || on.timeout) && self.scratch.request.idempotent();
        !on.statuses.is_empty() || is_call || by_reset || by_loss
    }

    /// Whether sending the request again can do no harm: it can be sent from its beginning, and doing it twice means
    /// what doing it once means (RFC 9110, 9.2.2).
    pub(super) fn is_repeatable(&self) -> bool {
        self.has_whole_body() && self.scratch.request.idempotent()
    }

    /// Whether the request can be sent from its beginning.
    pub(super) fn has_whole_body(&self) -> bool {
        self.upload.is_at_hand()
    }

    /// What is wrong with the answer, if the route would rather have another.
    pub(super) fn unwanted(&self, forward: &Forward, leg: &Leg, head: &Chunk) -> Option<Failure> {
        self.wanted(forward)
            .refuse(&self.scratch.response, leg, head)
    }

    /// What the route wants of this request's answer.
    pub(super) fn wanted<'f>(&self, forward: &'f Forward) -> Wanted<'f> {
        let retry = forward.retry.as_ref();
        // Only routes that retry ask.
        Wanted::new(retry, retry.is_some() && self.is_grpc())
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
        let is_call_wanted = || self.wanted(forward).refuses_as_call(failure);
        let wanted = match failure {
            Failure::Connect(Reason::CircuitConnections) => false,
            Failure::Connect(_) => retry.on.connect || is_call_wanted(),
            Failure::Reset | Failure::NotProcessed | Failure::Stale => {
                retry.on.reset && self.is_repeatable() || is_call_wanted()
            }
            Failure::TryTimeout => retry.on.timeout && self.is_repeatable() || is_call_wanted(),
            // The operator named the status, so the method is not asked.
            Failure::Status(None) => true,
            Failure::Status(Some(pushback)) => self.may_wait(*pushback),
            Failure::Protocol(_) | Failure::Refused(_) => false,
        };
        if !wanted || !self.has_whole_body() || self.retries >= retry.times {
            return false;
        }
        self.count_retry(admission, retry.budget)
    }

    /// Whether there is time for the pause that the endpoint wants, which is then the next.
    fn may_wait(&mut self, pushback: Pushback) -> bool {
        let Pushback::After(pause) = pushback else {
            return false;
        };
        let until_ns = self.client.local.driver.now_ns() + pause.as_nanos() as u64;
        let has_time = pause <= PUSHBACK_MAX && until_ns < self.until_ns;
        self.pushback = has_time.then_some(pause);
        has_time
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

    /// Pauses before the next try, within the time that is left.
    pub(super) async fn back_off(&mut self, forward: &Forward) -> Result<(), Refusal> {
        let local = &self.client.local;
        let asked = self.pushback.take();
        let pause = asked.unwrap_or_else(|| self.own_pause(forward));
        if pause.is_zero() {
            self.times.ready_ns = local.driver.clock_ns();
            return Ok(());
        }
        let until = local.now() + pause;
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

    /// Exponential, with full jitter.
    fn own_pause(&self, forward: &Forward) -> Duration {
        let base = forward.retry.as_ref().map_or(Duration::ZERO, |r| r.backoff);
        if base.is_zero() {
            return base;
        }
        let ceiling = base.saturating_mul(1 << u32::from(self.retries.saturating_sub(1)).min(16));
        let share = (self.client.local.random() >> 32) as f64 / (1u64 << 32) as f64;
        ceiling.mul_f64(share)
    }
}
