//! Faults that a route injects on purpose: a delay, a refusal, or both.

use std::{pin::pin, task::Poll, time::Duration};

use tidegate_core::{
    reason::Reason,
    snapshot::Route,
    stats::RouteCounters,
    steering::fault::{Abort, Faults, Injected},
};

use super::exchange::{Exchange, Refusal, View};

/// A request with a fault, counted until it ends.
pub(super) struct Active<'a>(&'a RouteCounters);

impl<'a> Active<'a> {
    /// `None` if there are as many as there may be.
    fn begin(counters: &'a RouteCounters, faults: &Faults) -> Option<Active<'a>> {
        let is_full = |max| counters.faults_active.get() >= u64::from(max);
        if faults.active_max().is_some_and(is_full) {
            counters.faults_over_limit.add(1);
            return None;
        }
        counters.faults_active.add(1);
        Some(Active(counters))
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.faults_active.sub(1);
    }
}

impl<'a> Exchange<'a> {
    /// Delays the request, or refuses it, if its route says so and chance has it.
    pub(super) async fn inject_fault(&mut self, route: &'a Route) -> Result<(), Refusal> {
        let Some(faults) = &route.faults else {
            return Ok(());
        };
        let local = &self.client.local;
        let view = View {
            head: &self.scratch.request,
            bytes: &self.scratch.bytes,
        };
        let random = || local.random();
        let injected = local.with_route_scratch(|scratch| faults.decide(&view, scratch, random));
        let counters = route.counters.get(local.id);
        let Some(counters) = counters.filter(|_| !injected.is_none()) else {
            return Ok(());
        };
        let Some(active) = Active::begin(counters, faults) else {
            return Ok(());
        };
        self.fault = Some(active);
        let Injected { delay, abort } = injected;
        if let Some(delay) = delay {
            counters.faults_delayed.add(1);
            self.delay(delay).await?;
        }
        let Some(abort) = abort else {
            return Ok(());
        };
        counters.faults_aborted.add(1);
        let status = match abort {
            Abort::Http(status) => status,
            Abort::Grpc(status) => {
                self.grpc_abort = Some(status);
                200
            }
        };
        Err(Refusal {
            status,
            ..Reason::FaultInjected.into()
        })
    }

    /// Nothing of this counts as ours, nor against the route's time-out.
    async fn delay(&mut self, delay: Duration) -> Result<(), Refusal> {
        let driver = &self.client.local.driver;
        let began_ns = driver.clock_ns();
        let deadline = self.caller.deadline();
        deadline.set_after(delay);
        let caller = self.caller;
        let gone = std::future::poll_fn(|cx| match caller.is_http2() {
            true => caller.poll_failed(cx),
            // In HTTP/1 it cannot be told from a client that sends no more.
            false => Poll::Pending,
        });
        let gone = deadline.bound(pin!(gone)).await;
        self.times.ready_ns = driver.clock_ns();
        self.fault_delay_ns = self.times.ready_ns.saturating_sub(began_ns);
        match gone {
            Ok(_) => Err(Reason::ClientGone.into()),
            Err(_) => Ok(()),
        }
    }
}
