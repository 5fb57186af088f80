//! Limits: adaptive ones of an application, and plain ones of a route.

use std::{collections::BTreeMap, sync::Arc};

use super::{HashOn, Node, PolicyMode};
use crate::{
    limiter::{Policy, bucket::Rate},
    steering::hash_bytes,
};

/// The rule of one application. The default is complete (L2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdaptiveLimit {
    /// Whether requests are refused.
    pub mode: PolicyMode,
    /// The proxies that it acts on; `None` is all.
    pub canary: Option<Canary>,
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
    /// The rule as it is for `cluster` on the proxy `node`: in shadow, where that is not among its canaries (L11).
    #[must_use]
    pub fn on(&self, node: &Node, cluster: &str) -> AdaptiveLimit {
        let mut rule = self.clone();
        if self
            .canary
            .as_ref()
            .is_some_and(|canary| !canary.has(node, cluster))
        {
            rule.mode = PolicyMode::Shadow;
        }
        rule
    }
}

/// The proxies that a rule is tried out on: those with the labels, and of them a share.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// The share, in basis points.
    pub basis_points: u32,
    /// Labels that a proxy's node has to have, all of them.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

impl Canary {
    /// Whether the proxy is one. Another cluster has other canaries of the share, so that not always the same proxies
    /// try things out.
    fn has(&self, node: &Node, cluster: &str) -> bool {
        let sample = hash_bytes(hash_bytes(0, cluster.as_bytes()), node.id.as_bytes()) % 10_000;
        let mut labels = self.labels.iter();
        sample < u64::from(self.basis_points)
            && labels.all(|(key, value)| node.labels.get(key) == Some(value))
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

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<Arc<str>, Arc<str>> {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn node(id: &str, pairs: &[(&str, &str)]) -> Node {
        Node {
            id: id.into(),
            labels: labels(pairs),
            ..Node::default()
        }
    }

    fn acts(canary: Option<Canary>, node: &Node, cluster: &str) -> bool {
        let rule = AdaptiveLimit {
            canary,
            ..AdaptiveLimit::default()
        };
        rule.on(node, cluster).mode == PolicyMode::Enforce
    }

    /// Goal: a rule acts on proxies that have all of its labels, and of those on its share (L11). Method: table.
    #[test]
    fn canaries_have_labels() {
        let wanted = [("stage", "canary"), ("rack", "7")];
        for (has, expected) in [
            (&[][..], false),
            (&[("stage", "canary")], false),
            (&[("stage", "canary"), ("rack", "8")], false),
            (&[("stage", "canary"), ("rack", "7"), ("team", "a")], true),
        ] {
            let canary = |basis_points| Canary {
                basis_points,
                labels: labels(&wanted),
            };
            assert_eq!(
                acts(Some(canary(10_000)), &node("gw", has), "pay"),
                expected,
                "{has:?}"
            );
            assert!(!acts(Some(canary(0)), &node("gw", has), "pay"), "{has:?}");
        }
    }

    /// Goal: a rule acts on the share of the proxies that it is for, always the same, and on all without one (L11).
    /// Method: ten thousand proxies, two clusters.
    #[test]
    fn canaries_are_a_share() {
        let acts = |share: Option<u32>, cluster: &str, k: u32| {
            let canary = share.map(|basis_points| Canary {
                basis_points,
                labels: BTreeMap::new(),
            });
            acts(canary, &node(&format!("gw-{k}"), &[]), cluster)
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
