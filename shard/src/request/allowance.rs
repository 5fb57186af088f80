//! What a request needs before it goes on: a token of each rate limit of its route, the word of the service for
//! global limits, and a slot of its interface.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tidegate_codecs::grpc::{
    health,
    rate_limit_service::{self, Answer},
};
use tidegate_core::{
    config::model::PolicyMode,
    id::SubsetId,
    limiter::{
        Priority,
        bucket::{Rate, Taken},
    },
    message::RateLimitRecord,
    reason::Reason,
    snapshot::{Forward, RateLimit, Route},
    steering::{bucket_key, describe, hash_address, hash_bytes},
};

use super::exchange::{Exchange, Refusal, View};
use crate::{
    local::Plane,
    upstream::{self, Destination, Question},
};

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
                rate: Some(rule.rate),
                by: rule.by_word(),
                retry_after: Some(retry_after),
            })),
        }
    }

    /// The word of the service for global limits, where the route has it asked (L13).
    pub(super) async fn ask_rate_limit_service(
        &mut self,
        plane: &Rc<Plane>,
        route: &Route,
    ) -> Result<(), Refusal> {
        let Some(service) = &plane.snapshot.rate_limit_service else {
            return Ok(());
        };
        let local = &self.client.local;
        let (Some(message), Some((settings, cluster)), Some(counters)) = (
            self.question(&service.rule.domain, route),
            plane.cluster(service.cluster),
            service.counters.get(local.id),
        ) else {
            return Ok(());
        };
        let to = Destination {
            local,
            settings,
            cluster,
            subset: SubsetId::ALL,
            hash: None,
            preface: None,
        };
        let question = Question {
            path: rate_limit_service::PATH,
            message: &message,
            timeout: service.rule.timeout,
            answer_bytes_max: rate_limit_service::ANSWER_BYTES_MAX,
        };
        counters.asked.add(1);
        // Boxed, since it is larger than all that a request without such a service needs.
        let answer = Box::pin(upstream::ask(to, question)).await;
        match answer.and_then(|bytes| Answer::decode(&bytes).ok()) {
            Some(Answer::Admit) => Ok(()),
            Some(Answer::Limited { .. }) if service.rule.mode == PolicyMode::Shadow => {
                counters.would_limit.add(1);
                Ok(())
            }
            Some(Answer::Limited { limit, retry_after }) => {
                counters.limited.add(1);
                let rate = limit.map(|(requests, per)| Rate {
                    requests,
                    per,
                    burst: requests,
                });
                self.over_rate = Some(Box::new(RateLimitRecord {
                    rate,
                    by: "service",
                    retry_after,
                }));
                Err(Reason::RateLimited.into())
            }
            None => {
                counters.failed.add(1);
                match service.rule.fail_open || service.rule.mode == PolicyMode::Shadow {
                    true => Ok(()),
                    false => Err(Reason::RateLimitService.into()),
                }
            }
        }
    }

    /// What the service is asked about the request; `None` if there is nothing to ask.
    fn question(&self, domain: &str, route: &Route) -> Option<Vec<u8>> {
        if route.global_rate_limits.is_empty() {
            return None;
        }
        let view = View {
            head: &self.scratch.request,
            bytes: &self.scratch.bytes,
        };
        let client_ip = self.client.peer_ip();
        let known = route.global_rate_limits.iter();
        let mut known = known
            .filter_map(|one| describe(one, &view, client_ip))
            .peekable();
        known.peek()?;
        let mut question = rate_limit_service::Question::new(domain, 1);
        for entries in known {
            question.descriptor(entries.iter().map(|(key, value)| (*key, &**value)));
        }
        Some(question.finish())
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
        if self.is_health_check() {
            return Ok(());
        }
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

    /// Whether this is a health check by a name that all have for it (L9): neither refused nor counted, as on routes
    /// that are `exempt`. A `Watch` is in flight for as long as its client lives, which says nothing of load.
    fn is_health_check(&self) -> bool {
        let (head, bytes) = self.head();
        health::is_check(head.path.of(bytes)) && self.is_grpc()
    }
}
