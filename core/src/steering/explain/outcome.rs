//! What the route that was taken does with the request.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{Circumstances, lossy};
use crate::{
    balancer::Balancer,
    config::model::{self, Balance, HashOn, HeaderEdits},
    id::ClusterId,
    message::Availability,
    reason::Reason,
    snapshot::{Action, Cluster, Forward, Route, Snapshot},
    steering::{
        RequestView, RouteScratch, Split,
        destination::SPLIT_WHOLE,
        program::{
            Asked, HOP_FIELD,
            explain::{Steered, explain},
        },
        sticky_hash,
    },
};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is sent to an endpoint of a cluster.
    Forward(Box<Forwarding>),
    /// It is answered with a redirect.
    Redirect {
        /// The route taken.
        route: String,
        /// The status.
        status: u16,
        /// Where to. The scheme is that of the request; `http` stands for it here.
        location: String,
    },
    /// It is answered by us.
    Respond {
        /// The route taken.
        route: String,
        /// The status.
        status: u16,
        /// The body's length in bytes.
        body_bytes: usize,
        /// The body's type.
        content_type: String,
    },
    /// It is refused: no route matches.
    Refuse {
        /// The word that log and metrics have for it.
        reason: &'static str,
        /// The status.
        status: u16,
    },
}

/// How a request is forwarded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forwarding {
    /// The route taken.
    pub route: String,
    /// The path sent to the endpoint, without query.
    pub path: String,
    /// The host sent to the endpoint.
    pub host: String,
    /// Edits of the request, one line each.
    pub request_headers: Vec<String>,
    /// Edits of the answer, one line each.
    pub response_headers: Vec<String>,
    /// For the whole exchange, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// When it is tried again.
    pub retry: Option<RetryPlan>,
    /// When it is tried while a try goes on.
    pub hedge: Option<HedgePlan>,
    /// What the route hashes; `None` if it hashes nothing.
    pub sticky: Option<Sticky>,
    /// Where it may go.
    pub clusters: Vec<ClusterShare>,
}

/// The key that splits and consistent balancers go by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sticky {
    /// What is hashed: `cookie session`.
    pub on: String,
    /// The hash of this request's key, in hexadecimal; `None` if it carries none, so that chance
    /// decides.
    pub hash: Option<String>,
    /// Where the key falls in the split, from 0 to 1.
    pub point: Option<f64>,
}

/// One cluster of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClusterShare {
    /// Name of the cluster.
    pub cluster: String,
    /// The part of requests that goes there, from 0 to 1.
    pub share: f64,
    /// Points from here on, of 2^32, belong to it.
    pub from: u64,
    /// Points from here on no longer do.
    pub to: u64,
    /// Whether this request goes there: `None` where chance decides.
    pub chosen: Option<bool>,
    /// How an endpoint is chosen.
    pub balance: &'static str,
    /// What is spoken with it: in `http2` requests are streams of shared connections.
    pub protocol: &'static str,
    /// Whether no endpoint is available, so that all are used.
    pub panic: bool,
    /// Who may be chosen.
    pub endpoints: Vec<EndpointShare>,
    /// The one that the key leads to, where the balancer goes by it.
    pub endpoint: Option<SocketAddr>,
    /// What the steering program says to a request that its route sends here; `None` if this is no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<Steered>,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointShare {
    /// Its address.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// Whether it is available.
    pub available: bool,
    /// The part of the cluster's requests that its weight entitles it to, from 0 to 1; load and
    /// latency may shift it, where the policy looks at them.
    pub share: f64,
}

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetryPlan {
    /// The outcomes: `connect`, `reset`, `timeout`, statuses of gRPC and of HTTP.
    pub on: Vec<String>,
    /// At most this often.
    pub times: u8,
    /// Retries in flight as a part of the requests in flight, from 0 to 1.
    pub budget: f64,
    /// For each try, in milliseconds.
    pub per_try_timeout_ms: Option<u64>,
    /// The first pause, in milliseconds.
    pub backoff_ms: u64,
}

/// When a request is tried on another endpoint while a try goes on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HedgePlan {
    /// From a try to the next beside it, in milliseconds.
    pub delay_ms: u64,
    /// Further tries at most.
    pub times: u8,
    /// Those in flight as a part of the requests in flight, from 0 to 1.
    pub budget: f64,
    /// Also of methods that are not safe.
    pub unsafe_methods: bool,
}

/// What `route` does with `request`.
pub(super) fn of(
    snapshot: &Snapshot,
    route: Option<&Route>,
    request: &dyn RequestView,
    circumstances: &Circumstances,
) -> Outcome {
    let Some(route) = route else {
        return Outcome::Refuse {
            reason: Reason::NoRoute.word(),
            status: Reason::NoRoute.status(),
        };
    };
    match &route.action {
        Action::Redirect(redirect) => Outcome::Redirect {
            route: route.name.to_string(),
            status: redirect.status,
            location: location(redirect, request),
        },
        Action::Respond(respond) => Outcome::Respond {
            route: route.name.to_string(),
            status: respond.status,
            body_bytes: respond.body.len(),
            content_type: respond.content_type.to_string(),
        },
        Action::Forward(forward) => Outcome::Forward(Box::new(forwarding(
            snapshot,
            route,
            forward,
            request,
            circumstances,
        ))),
    }
}

fn forwarding(
    snapshot: &Snapshot,
    route: &Route,
    forward: &Forward,
    request: &dyn RequestView,
    circumstances: &Circumstances,
) -> Forwarding {
    let hash = forward.hash.as_ref();
    let hash = hash.and_then(|on| sticky_hash(on, request, circumstances.client));
    let host = forward.host_rewrite.as_ref();
    Forwarding {
        route: route.name.to_string(),
        path: forwarded_path(forward, request),
        host: host.map_or_else(|| lossy(request.host()), |host| host.to_string()),
        request_headers: edits(&route.request_headers),
        response_headers: edits(&route.response_headers),
        timeout_ms: forward.timeout.map(millis),
        retry: forward.retry.as_ref().map(retry_plan),
        hedge: forward.hedge.as_ref().map(|hedge| HedgePlan {
            delay_ms: millis(hedge.delay),
            times: hedge.times,
            budget: f64::from(hedge.budget) / 10_000.0,
            unsafe_methods: hedge.unsafe_methods,
        }),
        sticky: forward.hash.as_ref().map(|on| Sticky {
            on: hashed(on),
            hash: hash.map(|hash| format!("{hash:016x}")),
            point: hash.map(|hash| part(forward.split.point(hash))),
        }),
        clusters: cluster_shares(snapshot, &forward.split, hash, request, circumstances),
    }
}

fn forwarded_path(forward: &Forward, request: &dyn RequestView) -> String {
    let Some(rewrite) = &forward.path_rewrite else {
        return lossy(request.path());
    };
    let mut path = Vec::new();
    rewrite.rewrite(&mut RouteScratch::default(), request.path(), &mut path);
    lossy(&path)
}

fn cluster_shares(
    snapshot: &Snapshot,
    split: &Split,
    hash: Option<u64>,
    request: &dyn RequestView,
    circumstances: &Circumstances,
) -> Vec<ClusterShare> {
    let only = split.shares().count() == 1;
    let chosen = hash.or(only.then_some(0)).and_then(|hash| split.pick(hash));
    let mut to = 0;
    let shares = split.shares().filter_map(|(id, share)| {
        let from = to;
        to += share;
        let cluster = snapshot.cluster(id)?;
        let chosen = chosen.map(|chosen| chosen == id);
        let is_home = chosen != Some(false);
        Some(ClusterShare {
            share: part(share),
            from,
            to,
            chosen,
            steering: is_home
                .then(|| steered(snapshot, id, request, circumstances))
                .flatten(),
            ..cluster_share(cluster, hash, circumstances)
        })
    });
    shares.collect()
}

/// What there is to say of a cluster apart from its share.
fn cluster_share(
    cluster: &Cluster,
    hash: Option<u64>,
    circumstances: &Circumstances,
) -> ClusterShare {
    let available = |address| {
        let key = (cluster.name.clone(), address);
        !circumstances.unavailable.contains(&key)
    };
    let panic =
        !cluster.endpoints.is_empty() && !cluster.endpoints.iter().any(|e| available(e.address));
    let usable = |address| panic || available(address);
    let weights = cluster.endpoints.iter().filter(|e| usable(e.address));
    let total: u32 = weights.map(|e| e.weight).sum();
    let endpoints = cluster.endpoints.iter().map(|endpoint| EndpointShare {
        address: endpoint.address,
        weight: endpoint.weight,
        available: available(endpoint.address),
        share: match usable(endpoint.address) {
            true => f64::from(endpoint.weight) / f64::from(total.max(1)),
            false => 0.0,
        },
    });
    ClusterShare {
        cluster: cluster.name.to_string(),
        share: 0.0,
        from: 0,
        to: 0,
        chosen: None,
        balance: cluster.config.balance.word(),
        protocol: cluster.config.protocol.word(),
        panic,
        endpoints: endpoints.collect(),
        endpoint: hash.and_then(|hash| endpoint_of_key(cluster, hash, available)),
        steering: None,
    }
}

/// What the steering program says to a request whose route leads to `home`.
fn steered(
    snapshot: &Snapshot,
    home: ClusterId,
    request: &dyn RequestView,
    circumstances: &Circumstances,
) -> Option<Steered> {
    let table = &snapshot.steering.as_ref()?.table;
    let place = table.place(home)?;
    let mark = request.header(HOP_FIELD);
    let mark = mark.filter(|_| circumstances.client.is_some_and(|peer| table.trusts(peer)));
    let rest = mark.and_then(|mark| mark.strip_prefix(place.application.as_bytes()));
    let asked = Asked {
        request,
        client: circumstances.client,
        random: 0,
        now_unix_s: circumstances.now_unix_s,
        is_moved: rest.is_some_and(|rest| rest.starts_with(b"/")),
    };
    let usable = |id: ClusterId| {
        let cluster = snapshot.cluster(id);
        cluster.is_some_and(|cluster| {
            cluster.endpoints.iter().any(|endpoint| {
                let key = (cluster.name.clone(), endpoint.address);
                !circumstances.unavailable.contains(&key)
            })
        })
    };
    explain(table, home, &asked, usable)
}

/// Asks a balancer like the shards' own, where it goes by the key alone.
fn endpoint_of_key(
    cluster: &Cluster,
    hash: u64,
    available: impl Fn(SocketAddr) -> bool,
) -> Option<SocketAddr> {
    if !matches!(cluster.config.balance, Balance::RingHash | Balance::Maglev) {
        return None;
    }
    let now = Duration::ZERO;
    let (inputs, subsets) = (cluster.inputs(), cluster.subsets.members());
    let mut balancer = Balancer::new(&cluster.rules(), &inputs, subsets, now);
    for endpoint in &cluster.endpoints {
        if !available(endpoint.address) {
            balancer.set_availability(endpoint.id, Availability::Unavailable, now);
        }
    }
    let chosen = balancer.pick(Some(hash), 0, &[], now)?;
    cluster.endpoints.get(chosen.index()).map(|e| e.address)
}

fn location(redirect: &model::Redirect, request: &dyn RequestView) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let host = redirect.host.as_deref().map(str::to_owned);
    let path = redirect.path.as_deref().map(str::to_owned);
    let host = host.unwrap_or_else(|| lossy(request.host()));
    let path = path.unwrap_or_else(|| lossy(request.path()));
    match request.query() {
        Some(query) if !redirect.strip_query => format!("{scheme}://{host}{path}?{}", lossy(query)),
        _ => format!("{scheme}://{host}{path}"),
    }
}

fn edits(edits: &HeaderEdits) -> Vec<String> {
    let removed = edits.remove.iter().map(|name| format!("remove {name}"));
    let set = edits.set.iter().map(|(n, v)| format!("set {n}: {v}"));
    let appended = edits.append.iter().map(|(n, v)| format!("append {n}: {v}"));
    removed.chain(set).chain(appended).collect()
}

fn retry_plan(retry: &model::Retry) -> RetryPlan {
    let on = &retry.on;
    let words = on.words().map(str::to_owned);
    let statuses = on.statuses.iter().map(u16::to_string);
    RetryPlan {
        on: words.chain(statuses).collect(),
        times: retry.times,
        budget: f64::from(retry.budget) / 10_000.0,
        per_try_timeout_ms: retry.per_try_timeout.map(millis),
        backoff_ms: millis(retry.backoff),
    }
}

fn hashed(on: &HashOn) -> String {
    match on {
        HashOn::Header(name) => format!("header {name}"),
        HashOn::Cookie(name) => format!("cookie {name}"),
        HashOn::Query(name) => format!("query parameter {name}"),
        HashOn::ClientIp => "client address".to_owned(),
    }
}

fn part(points: u64) -> f64 {
    points as f64 / SPLIT_WHOLE as f64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
