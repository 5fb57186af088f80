//! What a route does with a request.

use std::{sync::Arc, time::Duration};

use super::{Cluster, Split, Target, find_cluster};
use crate::{
    config::model,
    id::{ClusterId, InterfaceId},
    limiter::Priority,
    steering::PathRewriter,
};

/// What a compiled route does.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most routes forward")]
pub enum Action {
    /// Sends the request to a cluster.
    Forward(Forward),
    /// Answers with a redirect.
    Redirect(model::Redirect),
    /// Answers by itself.
    Respond(model::Respond),
}

/// Sends the request to a cluster, compiled.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub split: Split,
    /// What is hashed for stickiness.
    pub hash: Option<model::HashOn>,
    /// Replaces the path.
    pub path_rewrite: Option<PathRewriter>,
    /// Replaces the host.
    pub host_rewrite: Option<Arc<str>>,
    /// For the whole exchange.
    pub timeout: Option<Duration>,
    /// When to try again.
    pub retry: Option<model::Retry>,
    /// Who gets copies of requests.
    pub mirrors: Vec<Mirror>,
    /// When to try while a try goes on.
    pub hedge: Option<model::Hedge>,
    /// Which requests adaptive limiting refuses last; `None` for those that it never refuses.
    pub priority: Option<Priority>,
    /// The interface that the route is, of each cluster that is limited.
    pub interfaces: Vec<(ClusterId, InterfaceId)>,
}

/// Who gets copies of requests, compiled.
#[derive(Clone, Copy, Debug)]
pub struct Mirror {
    /// The cluster.
    pub cluster: ClusterId,
    /// Of which requests.
    pub chance: model::Chance,
    /// Whether the host has `-shadow` behind its name.
    pub host_suffix: bool,
}

impl Forward {
    /// The interface that the route is of a cluster.
    #[inline]
    pub fn interface(&self, cluster: ClusterId) -> Option<InterfaceId> {
        let mut interfaces = self.interfaces.iter();
        interfaces
            .find(|(id, _)| *id == cluster)
            .map(|(_, interface)| *interface)
    }
}

pub(super) fn compile_action(route: &model::Route, clusters: &[Cluster]) -> Action {
    match &route.action {
        model::RouteAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
        model::RouteAction::Respond(respond) => Action::Respond(respond.clone()),
        model::RouteAction::Forward(forward) => Action::Forward(Forward {
            split: compile_split(&route.name, &forward.to, clusters),
            hash: forward.hash.clone(),
            path_rewrite: forward
                .path_rewrite
                .as_ref()
                .map(|rewrite| PathRewriter::compile(rewrite, &route.matches.path)),
            host_rewrite: forward.host_rewrite.clone(),
            timeout: forward.timeout,
            retry: forward.retry.clone(),
            mirrors: compile_mirrors(&forward.mirrors, clusters),
            hedge: forward.hedge.clone(),
            priority: forward.priority,
            interfaces: Vec::new(),
        }),
    }
}

pub(super) fn compile_split(
    rule: &str,
    to: &[model::WeightedCluster],
    clusters: &[Cluster],
) -> Split {
    // Every cluster that is named is defined: a validated configuration loses none here.
    let shares = to.iter().filter_map(|to| {
        let cluster = find_cluster(clusters, &to.cluster)?;
        let target = Target {
            cluster: cluster.id,
            within: cluster.subsets.find(&to.subset),
        };
        Some((target, to.share))
    });
    Split::new(rule, shares)
}

fn compile_mirrors(mirrors: &[model::Mirror], clusters: &[Cluster]) -> Vec<Mirror> {
    let compiled = mirrors.iter().filter_map(|mirror| {
        Some(Mirror {
            cluster: find_cluster(clusters, &mirror.cluster)?.id,
            chance: mirror.chance,
            host_suffix: mirror.host_suffix,
        })
    });
    compiled.collect()
}
