//! Limits: adaptive ones of an application, and plain ones of a route.

use std::sync::Arc;

use super::{HashOn, PolicyMode};
use crate::{
    limiter::{Policy, bucket::Rate},
    steering::hash_bytes,
};

/// The rule of one application. The default is complete (L2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdaptiveLimit {
    /// Whether requests are refused.
    pub mode: PolicyMode,
    /// The share of the proxies that it acts on, in basis points; `None` is all.
    pub canary: Option<u32>,
    /// What is measured.
    pub scope: Scope,
    /// What counts as full, and how limits begin.
    pub policy: Policy,
    /// A header whose value is a priority; stronger than the route's.
    pub priority_header: Option<Arc<str>>,
    /// A header that says who calls; the client's address without one.
    pub caller_header: Option<Arc<str>>,
}

impl AdaptiveLimit {
    /// The rule as it is for `cluster` on the proxy `node_id`: in shadow, where that is not among its canaries
    /// (L11). Another cluster has other canaries, so that not always the same proxies try things out.
    #[must_use]
    pub fn on(&self, node_id: &str, cluster: &str) -> AdaptiveLimit {
        let mut rule = self.clone();
        let sample = hash_bytes(hash_bytes(0, cluster.as_bytes()), node_id.as_bytes()) % 10_000;
        if self.canary.is_some_and(|share| sample >= u64::from(share)) {
            rule.mode = PolicyMode::Shadow;
        }
        rule
    }
}

/// A plain limit of a route: a token bucket, over all shards together (L13).
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Whether requests are refused.
    pub mode: PolicyMode,
    /// How many, and how fast they come back.
    pub rate: Rate,
    /// What has a bucket of its own; `None` has one for the route.
    pub by: Option<HashOn>,
    /// Buckets there is room for.
    pub keys: u32,
}

impl RateLimit {
    /// What has a bucket of its own, in a word.
    pub const fn by_word(&self) -> &'static str {
        match &self.by {
            None => "route",
            Some(HashOn::ClientIp) => "client_ip",
            Some(HashOn::Header(_)) => "header",
            Some(HashOn::Cookie(_)) => "cookie",
            Some(HashOn::Query(_)) => "query",
        }
    }
}

/// Whose resources are measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The whole machine.
    #[default]
    Host,
    /// The control group that this process is in.
    Own,
    /// A control group, by its path below the mount point, `/system.slice/app.service`.
    Cgroup(Arc<str>),
    /// The control group that a process is in.
    Pid(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a rule acts on the share of the proxies that it is for, always the same, and on all without one (L11).
    /// Method: ten thousand proxies, two clusters.
    #[test]
    fn canaries_are_a_share() {
        let rule = |canary| AdaptiveLimit {
            canary,
            ..AdaptiveLimit::default()
        };
        let acts = |canary, cluster: &str, k: u32| {
            rule(canary).on(&format!("gw-{k}"), cluster).mode == PolicyMode::Enforce
        };
        let count = |canary| (0..10_000).filter(|k| acts(canary, "pay", *k)).count();
        assert!(
            (2_350..2_650).contains(&count(Some(2_500))),
            "{}",
            count(Some(2_500))
        );
        assert_eq!(count(None), 10_000);
        let both = (0..10_000)
            .filter(|k| acts(Some(2_500), "pay", *k) && acts(Some(2_500), "shop", *k))
            .count();
        assert!((500..750).contains(&both), "{both}");
    }
}
