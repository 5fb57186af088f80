//! This shard's side of a cluster: which endpoint, which connection, how much is in flight.
//!
//! * `mod.rs`: [`Cluster`] and [`Endpoint`], kept over snapshots.
//! * `connection.rs`: [`Connection`], from check-out to check-in.
//! * `shared.rs`: connections in HTTP/2, and requests on them.
//! * `unary.rs`: questions of our own.
//! * `callee.rs`: what a request goes over, whichever of both it is.
//! * `link.rs`: where a connection stands in its life.
//! * `endpoint.rs`: [`Endpoint`], with its links.
//! * `replace.rs`: links that are replaced, in the background.

mod callee;
mod connection;
mod endpoint;
mod link;
mod replace;
mod shared;
mod unary;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tidegate_core::{
    balancer::{Balancer, Outcome},
    config::model,
    healing::{counter::Fault, detector::RUN, outlier::Rows},
    id::{EndpointId, ShardId, SubsetId},
    message::{Availability, Choice},
    snapshot,
    stats::EndpointCounters,
};

pub(crate) use callee::{Callee, Leg};
pub(crate) use connection::Connection;
pub(crate) use endpoint::Endpoint;
pub(crate) use replace::{follow, sweep};
pub(crate) use shared::Call;
pub(crate) use unary::{Question, ask};

use crate::{limit::Interfaces, local::Local};

/// Where a request goes: a cluster's settings and this shard's state of it.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) local: &'a Rc<Local>,
    pub(crate) settings: &'a snapshot::Cluster,
    pub(crate) cluster: &'a Rc<Cluster>,
    /// The endpoints of it that the request is for.
    pub(crate) subset: SubsetId,
    /// The hash of the request's sticky key, if its route names one.
    pub(crate) hash: Option<u64>,
    /// Sent first on a new connection, before TLS: the PROXY protocol header.
    pub(crate) preface: Option<&'a [u8]>,
}

impl Destination<'_> {
    /// Counts a request of the cluster, unless `circuit.requests` are in flight.
    pub(crate) fn admit(&self) -> Option<Admission> {
        let in_flight = &self.cluster.requests;
        if in_flight.get() >= self.settings.config.circuit.requests {
            return None;
        }
        in_flight.set(in_flight.get() + 1);
        Some(Admission {
            cluster: self.cluster.clone(),
            retrying: false,
        })
    }
}

/// A cluster on this shard. It outlives snapshots as long as its name stays.
pub(crate) struct Cluster {
    shard: ShardId,
    /// Whether endpoints that fail may be taken out here, before the coordinator has decided.
    heals: Cell<bool>,
    balancer: RefCell<Balancer>,
    /// By [`EndpointId`] of the snapshot in use.
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
    /// What is limited, if it is.
    pub(crate) interfaces: Interfaces,
    requests: Cell<u32>,
    connections: Cell<u32>,
    /// Retries in flight.
    retries: Cell<u32>,
}

impl Cluster {
    pub(crate) fn new(cluster: &snapshot::Cluster, shard: ShardId, now: Duration) -> Rc<Cluster> {
        let endpoints: Vec<_> = cluster
            .endpoints
            .iter()
            .map(|e| Endpoint::new(e, shard))
            .collect();
        let config = &cluster.config;
        endpoints.iter().for_each(|e| e.set_rows(rows(config)));
        let (inputs, subsets) = (cluster.inputs(), cluster.subsets.members());
        let mut balancer = Balancer::new(&cluster.rules(), &inputs, subsets, now);
        balancer.set_return_ramp(return_ramp(config));
        let interfaces = Interfaces::default();
        interfaces.update(cluster, shard);
        Rc::new(Cluster {
            shard,
            interfaces,
            heals: Cell::new(heals(config)),
            balancer: RefCell::new(balancer),
            endpoints: RefCell::new(endpoints),
            requests: Cell::new(0),
            connections: Cell::new(0),
            retries: Cell::new(0),
        })
    }

    /// Takes over the endpoints of a new snapshot. Those that stay keep their connections and loads;
    /// idle connections of those that are gone are closed, busy ones finish.
    pub(crate) fn update(&self, cluster: &snapshot::Cluster, shard: ShardId, now: Duration) {
        let old = self.endpoints.take();
        let new: Vec<_> = cluster
            .endpoints
            .iter()
            .map(|endpoint| {
                let same = old.iter().find(|o| o.address == endpoint.address);
                same.cloned()
                    .unwrap_or_else(|| Endpoint::new(endpoint, shard))
            })
            .collect();
        old.iter()
            .filter(|o| !new.iter().any(|n| Rc::ptr_eq(o, n)))
            .for_each(|gone| gone.leave(now));
        for (endpoint, described) in new.iter().zip(&cluster.endpoints) {
            endpoint.stay(described.id);
            endpoint.set_rows(rows(&cluster.config));
        }
        *self.endpoints.borrow_mut() = new;
        let config = &cluster.config;
        self.heals.set(heals(config));
        self.interfaces.update(cluster, shard);
        let mut balancer = self.balancer.borrow_mut();
        balancer.set_return_ramp(return_ramp(config));
        let (inputs, subsets) = (cluster.inputs(), cluster.subsets.members());
        balancer.update(&cluster.rules(), &inputs, subsets, now);
    }

    /// The cluster is gone: its idle connections are closed, busy ones finish.
    pub(crate) fn retire(&self, now: Duration) {
        self.endpoints.borrow().iter().for_each(|e| e.leave(now));
    }

    /// Whether `endpoint` may be chosen from now on. That ends what this shard had decided on its own.
    pub(crate) fn set_availability(
        &self,
        endpoint: EndpointId,
        availability: Availability,
        now: Duration,
    ) {
        let mut balancer = self.balancer.borrow_mut();
        match availability {
            Availability::Trial(shard) => {
                balancer.set_availability(endpoint, Availability::Unavailable, now);
                if shard == self.shard {
                    balancer.offer_trial(endpoint);
                }
            }
            decided => balancer.set_availability(endpoint, decided, now),
        }
        let endpoints = self.endpoints.borrow();
        let counters = endpoints.get(endpoint.index()).and_then(|e| e.counters());
        if availability == Availability::Available {
            counters.iter().for_each(|c| c.forget_rows());
        }
        if let Some(counters) = counters.filter(|c| c.quarantined.get() > 0) {
            counters.quarantined.set(0);
            counters.failures_in_row.set(0);
        }
    }

    /// Whether it has an endpoint that may be chosen, without panic.
    pub(crate) fn is_usable(&self) -> bool {
        self.balancer.borrow().has_available()
    }

    /// The part of its load that `endpoint` is to get, in basis points.
    pub(crate) fn set_prior(&self, endpoint: EndpointId, share: u32, now: Duration) {
        self.balancer.borrow_mut().set_prior(endpoint, share, now);
    }

    /// Keeps requests from an endpoint that failed often enough in a row, if another one is there, until the
    /// coordinator confirms or reverts it at its next tick (H3).
    fn quarantine(&self, id: EndpointId, counters: &EndpointCounters, now: Duration) {
        if counters.quarantined.get() > 0 {
            return;
        }
        let mut balancer = self.balancer.borrow_mut();
        if balancer.has_another(id) {
            balancer.set_availability(id, Availability::Unavailable, now);
            counters.quarantined.set(1);
        }
    }

    /// Chooses an endpoint for a request, and counts the request until the ticket is dropped.
    pub(crate) fn pick(
        self: &Rc<Self>,
        subset: SubsetId,
        hash: Option<u64>,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<Ticket> {
        let mut balancer = self.balancer.borrow_mut();
        let trial = balancer.take_trial(subset, tried);
        let id = trial.or_else(|| balancer.pick_in(subset, hash, random, tried, now))?;
        let in_panic = trial.is_none() && !balancer.is_available(id);
        let endpoint = self.endpoints.borrow().get(id.index())?.clone();
        balancer.started(id);
        if let Some(counters) = endpoint.counters() {
            counters.requests.add(1);
            counters.requests_active.add(1);
            counters.picked_in_panic.add(u64::from(in_panic));
        }
        drop(balancer);
        Some(Ticket {
            cluster: self.clone(),
            endpoint,
            id,
            in_panic,
            is_trial: trial.is_some(),
            is_waiting: false,
            outcome: Outcome::Neutral,
            ended: None,
        })
    }

    fn endpoints(&self) -> Vec<Rc<Endpoint>> {
        self.endpoints.borrow().clone()
    }
}

/// A request that is counted against the cluster's circuit.
pub(crate) struct Admission {
    cluster: Rc<Cluster>,
    retrying: bool,
}

impl Admission {
    /// Counts the request as a retry, unless the budget is used up: retries in flight may be `budget`
    /// basis points of the requests in flight, and a few are always allowed.
    pub(crate) fn may_retry(&mut self, budget: u32) -> bool {
        if self.retrying {
            return true;
        }
        let share = u64::from(self.cluster.requests.get()) * u64::from(budget) / 10_000;
        let allowed = share.max(u64::from(model::Retry::BUDGET_MIN));
        if u64::from(self.cluster.retries.get()) >= allowed {
            return false;
        }
        self.cluster.retries.set(self.cluster.retries.get() + 1);
        self.retrying = true;
        true
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.cluster
            .requests
            .set(self.cluster.requests.get().saturating_sub(1));
        if self.retrying {
            self.cluster
                .retries
                .set(self.cluster.retries.get().saturating_sub(1));
        }
    }
}

/// What came of a request at an endpoint, as far as the endpoint is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// An answer that is no failure of the endpoint.
    Answered,
    /// It failed, by the endpoint's fault.
    Failed(Fault),
    /// No connection could be made, which was counted where it was tried.
    NotConnected,
    /// It says nothing about the endpoint: the client went away.
    Unknown,
}

/// A request at one endpoint. Dropping it tells the balancer how it ended.
pub(crate) struct Ticket {
    cluster: Rc<Cluster>,
    pub(crate) endpoint: Rc<Endpoint>,
    /// The endpoint's id when it was picked; a later snapshot may number it otherwise.
    pub(crate) id: EndpointId,
    /// It counts as unhealthy: too few endpoints are healthy.
    in_panic: bool,
    /// The endpoint is ejected, and this request shows how it does.
    is_trial: bool,
    /// It was sent in full, and its answer has not begun.
    is_waiting: bool,
    outcome: Outcome,
    /// Latency, and when it ended.
    ended: Option<(Duration, Duration)>,
}

impl Ticket {
    /// Says how the endpoint came to be chosen, of a cluster with these settings.
    pub(crate) fn describe(&self, settings: &snapshot::Cluster, choice: &mut Choice) {
        choice.in_panic = self.in_panic;
        // A snapshot that came meanwhile may have given the id to another one.
        let described = settings.endpoints.get(self.id.index());
        let described = described.filter(|e| e.address == self.endpoint.address);
        choice.priority = described.map_or(0, |endpoint| endpoint.priority);
    }

    /// The request was sent in full.
    pub(crate) fn wait(&mut self) {
        if let Some(counters) = self.endpoint.counters()
            && !std::mem::replace(&mut self.is_waiting, true)
        {
            counters.requests_waiting.add(1);
        }
    }

    /// Says what came of the request, or of a try of it; without it, nothing is learned from it.
    pub(crate) fn end(&mut self, fate: Fate, latency: Duration, now: Duration) {
        self.outcome = match fate {
            Fate::Answered => Outcome::Success,
            Fate::Failed(_) | Fate::NotConnected => Outcome::Failure,
            Fate::Unknown => Outcome::Neutral,
        };
        self.ended = Some((latency, now));
        self.stop_waiting();
        let Some(counters) = self.endpoint.counters() else {
            return;
        };
        let in_row = match fate {
            Fate::Answered => {
                counters.succeed(latency.as_nanos() as u64);
                self.endpoint.note_row(None);
                0
            }
            Fate::Failed(fault) => {
                self.endpoint.note_row(Some(fault));
                counters.fail(fault)
            }
            Fate::NotConnected => counters.failures_in_row.get(),
            Fate::Unknown => return,
        };
        if std::mem::take(&mut self.is_trial) {
            let trials = match self.outcome {
                Outcome::Success => &counters.trials_succeeded,
                _ => &counters.trials_failed,
            };
            trials.add(1);
        }
        let is_run = in_row >= RUN && self.cluster.heals.get();
        if (self.endpoint.take_full_row() || is_run)
            && let Some(id) = self.endpoint.id()
        {
            self.cluster.quarantine(id, counters, now);
        }
    }

    fn stop_waiting(&mut self) {
        if let Some(counters) = self.endpoint.counters()
            && std::mem::take(&mut self.is_waiting)
        {
            counters.requests_waiting.sub(1);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.stop_waiting();
        if let Some(counters) = self.endpoint.counters() {
            counters.requests_active.sub(1);
        }
        let Some(id) = self.endpoint.id() else {
            return;
        };
        let (latency, now) = self.ended.unwrap_or_default();
        self.cluster
            .balancer
            .borrow_mut()
            .finished(id, self.outcome, latency, now);
    }
}

/// Whether shards may act on what our own detectors would find of this cluster.
fn heals(config: &model::Cluster) -> bool {
    let heal = config.heal.as_ref();
    heal.is_some_and(|heal| {
        heal.mode == model::PolicyMode::Enforce && heal.ejection.outlier.is_none()
    })
}

/// What rows of failures are counted by, if Envoy's fields say so.
fn rows(config: &model::Cluster) -> Option<Rows> {
    let outlier = config.heal.as_ref()?.ejection.outlier.as_ref()?;
    Some(outlier.rows())
}

fn return_ramp(config: &model::Cluster) -> Duration {
    config
        .heal
        .as_ref()
        .map_or(Duration::ZERO, |heal| heal.slow_start)
}
