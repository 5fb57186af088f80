//! This shard's side of a cluster: which endpoint, which connection, how much is in flight.
//!
//! * `mod.rs`: [`Cluster`] and [`Endpoint`], kept over snapshots.
//! * `connection.rs`: [`Connection`], from check-out to check-in.
//! * `link.rs`: where a connection stands in its life.
//! * `endpoint.rs`: [`Endpoint`], with its links.
//! * `replace.rs`: links that are replaced, in the background.

mod connection;
mod endpoint;
mod link;
mod replace;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tidegate_core::{
    balancer::{Balancer, EndpointInput, Outcome},
    config::model,
    id::{EndpointId, ShardId},
    message::Availability,
    snapshot,
    steering::hash_address,
};

pub(crate) use connection::Connection;
pub(crate) use endpoint::Endpoint;
pub(crate) use replace::{follow, sweep};

use crate::local::Local;

/// Where a request goes: a cluster's settings and this shard's state of it.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) local: &'a Rc<Local>,
    pub(crate) settings: &'a snapshot::Cluster,
    pub(crate) cluster: &'a Rc<Cluster>,
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
    balancer: RefCell<Balancer>,
    /// By [`EndpointId`] of the snapshot in use.
    endpoints: RefCell<Vec<Rc<Endpoint>>>,
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
        let inputs = inputs(cluster);
        Rc::new(Cluster {
            balancer: RefCell::new(Balancer::new(
                config.balance,
                config.slow_start,
                &inputs,
                now,
            )),
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
        }
        *self.endpoints.borrow_mut() = new;
        let config = &cluster.config;
        self.balancer
            .borrow_mut()
            .update(config.balance, config.slow_start, &inputs(cluster), now);
    }

    /// The cluster is gone: its idle connections are closed, busy ones finish.
    pub(crate) fn retire(&self, now: Duration) {
        self.endpoints.borrow().iter().for_each(|e| e.leave(now));
    }

    /// Whether `endpoint` may be chosen from now on.
    pub(crate) fn set_availability(
        &self,
        endpoint: EndpointId,
        availability: Availability,
        now: Duration,
    ) {
        self.balancer
            .borrow_mut()
            .set_availability(endpoint, availability, now);
    }

    /// Chooses an endpoint for a request, and counts the request until the ticket is dropped.
    pub(crate) fn pick(
        self: &Rc<Self>,
        hash: Option<u64>,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<Ticket> {
        let id = self.balancer.borrow_mut().pick(hash, random, tried, now)?;
        let endpoint = self.endpoints.borrow().get(id.index())?.clone();
        self.balancer.borrow_mut().started(id);
        if let Some(counters) = endpoint.counters() {
            counters.requests.add(1);
            counters.requests_active.add(1);
        }
        Some(Ticket {
            cluster: self.clone(),
            endpoint,
            id,
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

/// A request at one endpoint. Dropping it tells the balancer how it ended.
pub(crate) struct Ticket {
    cluster: Rc<Cluster>,
    pub(crate) endpoint: Rc<Endpoint>,
    /// The endpoint's id when it was picked; a later snapshot may number it otherwise.
    pub(crate) id: EndpointId,
    outcome: Outcome,
    /// Latency, and when it ended.
    ended: Option<(Duration, Duration)>,
}

impl Ticket {
    /// Says how the request ended; without it, nothing is learned from it.
    pub(crate) fn end(&mut self, outcome: Outcome, latency: Duration, now: Duration) {
        self.outcome = outcome;
        self.ended = Some((latency, now));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
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

/// What the balancer is told. The key is a hash of the address alone, so that the consistent policies
/// agree on every shard and every host.
fn inputs(cluster: &snapshot::Cluster) -> Vec<EndpointInput> {
    cluster
        .endpoints
        .iter()
        .map(|e| EndpointInput {
            key: hash_address(e.address),
            weight: e.weight,
        })
        .collect()
}
