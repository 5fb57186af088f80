//! Why a request goes where it goes (S16): the decision of [`RouteTable::find`] with, for every route of
//! the listener, whether it matches and if not, because of what; then what the route does with the
//! request.
//!
//! The decision is the data path's, from the same tables. The reasons are found one route at a time and
//! cross-checked: should they lead elsewhere, [`Explanation::consistent`] is false, and that is a bug.
//!
//! [`RouteTable::find`]: super::RouteTable::find

mod outcome;
#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;

pub use self::outcome::{
    ClusterShare, EndpointShare, Forwarding, HedgePlan, Outcome, RetryPlan, Sticky,
};
use super::{
    RequestView, RouteScratch,
    condition::{Conditions, Failed, query_parameter},
    path::canonical,
    path_table::{Candidate, PathTable, Search},
    pattern::Searches,
};
use crate::{
    config::model,
    id::RouteId,
    snapshot::{Http, Listener, Protocol, Snapshot},
};

/// What a request alone does not say.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The client's address, for stickiness by it.
    pub client: Option<IpAddr>,
    /// Endpoints that are not available, by name of cluster and address.
    pub unavailable: BTreeSet<(Arc<str>, SocketAddr)>,
    /// Now, in seconds since the Unix epoch, for steering rules that expire.
    pub now_unix_s: u64,
}

/// Why there is nothing to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NothingToExplain {
    /// No listener has this name.
    NoSuchListener(String),
    /// The listener of this name relays bytes: its connections are not looked into.
    NotHttp(String),
    /// No listener speaks HTTP.
    NoHttpListener,
}

impl fmt::Display for NothingToExplain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchListener(name) => write!(f, "there is no listener `{name}`"),
            Self::NotHttp(name) => write!(f, "listener `{name}` relays bytes and has no routes"),
            Self::NoHttpListener => f.write_str("no listener speaks HTTP"),
        }
    }
}

impl std::error::Error for NothingToExplain {}

/// Why a request goes where it goes. Serializes to JSON; displays for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The snapshot that decided.
    pub epoch: u64,
    /// Name of the listener.
    pub listener: String,
    /// Its address.
    pub bind: SocketAddr,
    /// Method, as asked.
    pub method: String,
    /// Host, as asked.
    pub host: String,
    /// Path, as asked.
    pub path: String,
    /// The path in the form that routes are matched against; `None` if it has a dot segment, so that no
    /// route is looked for.
    pub matched_path: Option<String>,
    /// The most specific host pattern that claims the host, of the routes that name hosts.
    pub host_pattern: Option<String>,
    /// Every route of the listener, in file order.
    pub routes: Vec<RouteVerdict>,
    /// What happens to the request.
    pub outcome: Outcome,
    /// Whether reasons and decision agree; `false` is a fault of ours.
    pub consistent: bool,
}

/// What one route says to a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteVerdict {
    /// Name of the route.
    pub name: String,
    /// Where it stands in the file.
    pub origin: String,
    /// Whether it is taken, and why not.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether a route is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Taken,
    /// It matches, but one before it was taken.
    Later,
    /// It does not match.
    Unmatched {
        /// What does not hold: `host`, `path`, `method`, `header`, `query`.
        part: &'static str,
        /// In words.
        because: String,
    },
}

/// Explains what happens to `request` on the listener of this name; without a name, on the first HTTP
/// listener that has a route for it, or else on the first.
pub fn explain(
    snapshot: &Snapshot,
    listener: Option<&str>,
    request: &dyn RequestView,
    circumstances: &Circumstances,
) -> Result<Explanation, NothingToExplain> {
    let scratch = &mut RouteScratch::default();
    let (listener, http) = match listener {
        Some(name) => named_listener(snapshot, name)?,
        None => first_listener(snapshot, request, scratch)?,
    };
    let taken = http.table.find(scratch, request);
    let matched_path = matched_path(request);
    let judge = Judge {
        http,
        request,
        path: matched_path.as_deref(),
        host_pattern: http.table.host_pattern(request.host()),
    };
    let mut first = None;
    let routes = config_routes(snapshot, listener).iter().enumerate();
    let routes = routes.map(|(position, route)| {
        let id = RouteId(position as u32);
        let unmatched = judge.unmatched(id, route, &mut scratch.searches);
        if unmatched.is_none() && first.is_none() {
            first = Some(id);
        }
        RouteVerdict {
            name: route.name.to_string(),
            origin: route.origin.to_string(),
            verdict: match unmatched {
                Some(unmatched) => unmatched,
                None if taken == Some(id) => Verdict::Taken,
                None => Verdict::Later,
            },
        }
    });
    let routes = routes.collect();
    let route = taken.and_then(|id| http.routes.get(id.index()));
    Ok(Explanation {
        epoch: snapshot.epoch.0,
        listener: listener.name.to_string(),
        bind: listener.bind,
        method: lossy(request.method()),
        host: lossy(request.host()),
        path: lossy(request.path()),
        matched_path: matched_path.as_deref().map(lossy),
        host_pattern: judge.host_pattern.map(text::host_pattern),
        routes,
        outcome: outcome::of(snapshot, route, request, circumstances),
        consistent: first == taken,
    })
}

fn named_listener<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<(&'a Listener, &'a Http), NothingToExplain> {
    let Some(listener) = snapshot.listener_by_name(name) else {
        return Err(NothingToExplain::NoSuchListener(name.to_owned()));
    };
    match &listener.protocol {
        Protocol::Http(http) => Ok((listener, http)),
        Protocol::Tcp(_) => Err(NothingToExplain::NotHttp(name.to_owned())),
    }
}

fn first_listener<'a>(
    snapshot: &'a Snapshot,
    request: &dyn RequestView,
    scratch: &mut RouteScratch,
) -> Result<(&'a Listener, &'a Http), NothingToExplain> {
    let http = |listener: &'a Listener| match &listener.protocol {
        Protocol::Http(http) => Some((listener, http)),
        Protocol::Tcp(_) => None,
    };
    let listeners = || snapshot.listeners.iter().filter_map(http);
    listeners()
        .find(|(_, http)| http.table.find(scratch, request).is_some())
        .or_else(|| listeners().next())
        .ok_or(NothingToExplain::NoHttpListener)
}

fn config_routes<'a>(snapshot: &'a Snapshot, listener: &Listener) -> &'a [model::Route] {
    match snapshot.config.listeners.get(&listener.name) {
        Some(model::Listener {
            protocol: model::Protocol::Http(http),
            ..
        }) => &http.routes,
        _ => &[],
    }
}

fn matched_path(request: &dyn RequestView) -> Option<Vec<u8>> {
    canonical(request.path(), &mut Vec::new()).map(<[u8]>::to_vec)
}

/// Judges routes one at a time.
struct Judge<'a> {
    http: &'a Http,
    request: &'a dyn RequestView,
    /// In canonical form; `None` with a dot segment.
    path: Option<&'a [u8]>,
    host_pattern: Option<&'a model::HostPattern>,
}

impl Judge<'_> {
    /// The first part of the route that does not hold; `None` if it matches.
    fn unmatched(
        &self,
        id: RouteId,
        route: &model::Route,
        searches: &mut Searches,
    ) -> Option<Verdict> {
        let (part, because) = self
            .unmatched_host(&route.matches.hosts)
            .map(|because| ("host", because))
            .or_else(|| Some(("path", self.unmatched_path(&route.matches.path, searches)?)))
            .or_else(|| self.unmatched_condition(id, &route.matches, searches))?;
        Some(Verdict::Unmatched { part, because })
    }

    fn unmatched_host(&self, hosts: &[model::HostPattern]) -> Option<String> {
        if hosts.is_empty()
            || self
                .host_pattern
                .is_some_and(|chosen| hosts.contains(chosen))
        {
            return None;
        }
        let wanted = text::any_of(hosts.iter().map(text::host_pattern));
        let mut alone = super::host::HostTable::default();
        for pattern in hosts {
            alone.insert(pattern, 0);
        }
        Some(match (alone.find(self.request.host()), self.host_pattern) {
            (Some(_), Some(chosen)) => format!(
                "host matches {wanted}, but {} is more specific",
                text::host_pattern(chosen)
            ),
            _ => format!("host is not {wanted}"),
        })
    }

    fn unmatched_path(
        &self,
        pattern: &model::PathPattern,
        searches: &mut Searches,
    ) -> Option<String> {
        let Some(path) = self.path else {
            return Some("path has a dot segment".to_owned());
        };
        let candidate = Candidate {
            position: 0,
            conditional: false,
        };
        let mut search = Search {
            request: self.request,
            conditions: &[],
            searches,
            best: u32::MAX,
        };
        PathTable::compile([(candidate, pattern)]).find(path, &mut search);
        (search.best != 0).then(|| format!("path is not {}", text::path_pattern(pattern)))
    }

    fn unmatched_condition(
        &self,
        id: RouteId,
        matches: &model::RouteMatch,
        searches: &mut Searches,
    ) -> Option<(&'static str, String)> {
        let conditions: &Conditions = self.http.table.conditions(id)?;
        let wanted = |list: &[(Arc<str>, model::ValuePattern)], at: usize| {
            let pattern = list
                .get(at)
                .map(|(_, pattern)| text::value_pattern(pattern));
            pattern.unwrap_or_default()
        };
        Some(match conditions.failed(self.request, searches)? {
            Failed::Method => {
                let wanted = text::any_of(matches.methods.iter().map(|m| m.to_string()));
                ("method", format!("method is not {wanted}"))
            }
            Failed::Header(at, name) => {
                let found = text::found(self.request.header(name));
                let wanted = wanted(&matches.headers, at);
                ("header", format!("header {name} is {found}, not {wanted}"))
            }
            Failed::Query(at, name) => {
                let found = text::found(query_parameter(self.request.query(), name));
                let wanted = wanted(&matches.query, at);
                (
                    "query",
                    format!("query parameter {name} is {found}, not {wanted}"),
                )
            }
        })
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
