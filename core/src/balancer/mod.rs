//! Choosing an endpoint. A balancer belongs to one cluster on one shard; it holds the weights, the
//! loads and the availability of its endpoints, and is told of each request's start and end.
//! Time and randomness are arguments.

use std::time::Duration;

use crate::{config::model::Balance, id::EndpointId, message::Availability};

/// What a balancer is told of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointInput {
    /// Hash of its address: what the consistent policies place.
    pub key: u64,
    /// Its weight, 1 to 128.
    pub weight: u32,
}

/// How a request ended, as far as balancing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Success,
    /// Failed in a way that is the endpoint's fault.
    Failure,
    /// Says nothing about the endpoint (the client went away).
    Neutral,
}

/// The balancer of one cluster on one shard.
#[derive(Debug)]
pub struct Balancer {}

impl Balancer {
    /// A balancer over `endpoints`, whose positions are their [`EndpointId`]s. `now` is any monotonic
    /// clock; endpoints present here do not slow-start.
    pub fn new(
        policy: Balance,
        slow_start: Duration,
        endpoints: &[EndpointInput],
        now: Duration,
    ) -> Self {
        let _ = (policy, slow_start, endpoints, now);
        Balancer {}
    }

    /// The endpoints changed. Loads and latencies of endpoints whose key stays are kept; endpoints that
    /// are new slow-start.
    pub fn update(
        &mut self,
        policy: Balance,
        slow_start: Duration,
        endpoints: &[EndpointInput],
        now: Duration,
    ) {
        let _ = (policy, slow_start, endpoints, now);
    }

    /// Chooses an endpoint. `hash` is what the route hashed, `random` a fresh random number; `tried`
    /// are endpoints that this request has already failed on, avoided while there is another.
    /// `None` if there is no endpoint, or none is available (a cluster that is unavailable as a whole
    /// is used as if all were available: panic).
    pub fn pick(
        &mut self,
        hash: Option<u64>,
        random: u64,
        tried: &[EndpointId],
        now: Duration,
    ) -> Option<EndpointId> {
        let _ = (hash, random, tried, now);
        None
    }

    /// A request was sent to `endpoint`.
    pub fn started(&mut self, endpoint: EndpointId) {
        let _ = endpoint;
    }

    /// A request to `endpoint` ended after `latency`.
    pub fn finished(
        &mut self,
        endpoint: EndpointId,
        outcome: Outcome,
        latency: Duration,
        now: Duration,
    ) {
        let _ = (endpoint, outcome, latency, now);
    }

    /// Whether `endpoint` may be chosen from now on; one that comes back slow-starts.
    pub fn set_availability(
        &mut self,
        endpoint: EndpointId,
        availability: Availability,
        now: Duration,
    ) {
        let _ = (endpoint, availability, now);
    }
}
