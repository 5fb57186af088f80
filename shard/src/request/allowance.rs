//! What a request needs before it goes on: a token of each rate limit of its route, and a slot of its interface.

use std::{net::SocketAddr, sync::Arc};

use tidegate_core::{
    config::model::PolicyMode,
    limiter::{Priority, bucket::Taken},
    message::RateLimitRecord,
    reason::Reason,
    snapshot::{Forward, RateLimit, Route},
    steering::{bucket_key, hash_address, hash_bytes},
};

use super::exchange::{Exchange, Refusal, View};
use crate::upstream::Destination;

impl Exchange<'_> {
    /// A token of each rate limit of the route (L13).
    pub(super) fn rate_limit(&mut self, route: &Route) -> Result<(), Refusal> {
        for limit in &route.rate_limits {
            let Some(over) = self.is_over(limit) else {
                continue;
            };
            let Some(counters) = limit.buckets.counters.get(self.client.local.id) else {
                continue;
            };
            if limit.rule.mode == PolicyMode::Shadow {
                counters.would_limit.add(1);
                continue;
            }
            counters.limited.add(1);
            self.over_rate = Some(over);
            return Err(Reason::RateLimited.into());
        }
        Ok(())
    }

    /// Takes a token; else says what limit there is none of.
    fn is_over(&self, limit: &RateLimit) -> Option<Box<RateLimitRecord>> {
        let (local, rule) = (&self.client.local, &limit.rule);
        let view = View {
            head: &self.scratch.request,
            bytes: &self.scratch.bytes,
        };
        let client = || self.client.peer().map(|peer| peer.ip());
        let by = rule.by.as_ref();
        let key = by.map_or(0, |by| bucket_key(local.hash_key, by, &view, client));
        // Unix time, since the drivers' clocks begin when their shards do.
        let now_ns = local.unix_ns(local.driver.now_ns());
        match limit.buckets.take(local.id, key, now_ns) {
            Taken::Admit => None,
            Taken::Limited { retry_after } => Some(Box::new(RateLimitRecord {
                rate: rule.rate,
                by: rule.by_word(),
                retry_after,
            })),
        }
    }

    /// A slot of the interface that the route is of the cluster, where that is limited (L6).
    pub(super) fn limit(&mut self, to: Destination<'_>, forward: &Forward) -> Result<(), Refusal> {
        let Some(rule) = to.settings.config.adaptive_limit.as_deref() else {
            return Ok(());
        };
        let (Some(interface), Some(usual)) = (forward.interface(to.settings.id), forward.priority)
        else {
            return Ok(());
        };
        let header = |name: &Option<Arc<str>>| {
            let (head, bytes) = self.head();
            head.field(bytes, name.as_deref()?)
        };
        let priority = header(&rule.priority_header).and_then(Priority::of);
        let caller = match header(&rule.caller_header) {
            Some(name) => hash_bytes(0, name),
            None => self.client.peer().map_or(0, |peer| {
                // The port says nothing about who the client is.
                hash_address(SocketAddr::new(peer.ip(), 0))
            }),
        };
        let interfaces = &to.cluster.interfaces;
        let driver = &to.local.driver;
        match interfaces.enter(rule, interface, priority.unwrap_or(usual), caller, driver) {
            Some(Err(record)) => {
                self.over_limit = Some(record);
                Err(Reason::Overloaded.into())
            }
            entered => {
                self.pass = entered.and_then(Result::ok);
                Ok(())
            }
        }
    }
}
