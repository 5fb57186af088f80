//! Routes: which requests they take, and what becomes of these.

use std::{sync::Arc, time::Duration};

use super::{Descriptor, Fault, Hedge, Labels, Mirror, RateLimit, Retry};
use crate::limiter::Priority;

/// One cluster of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Its share in units of 1/10000 (basis points); the shares of a split sum to 10000.
    pub share: u32,
    /// The subset of it, by labels; empty asks for none.
    pub subset: Labels,
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Unique within its listener: as given, or `<listener>/<position>`.
    pub name: Arc<str>,
    /// Which requests take it.
    pub matches: RouteMatch,
    /// How many may take it: each of these has to let a request in.
    pub rate_limits: Vec<RateLimit>,
    /// What the [`RateLimitService`](super::RateLimitService) is asked about them.
    pub global_rate_limits: Vec<Descriptor>,
    /// Which of them are delayed or refused on purpose; `None` are not.
    pub fault: Option<Box<Fault>>,
    /// What happens to them.
    pub action: RouteAction,
    /// Edits of the request before it is sent.
    pub request_headers: HeaderEdits,
    /// Edits of the answer before it is sent.
    pub response_headers: HeaderEdits,
    /// Where it stands in the file: `edge.yaml:12:9`.
    pub origin: Arc<str>,
}

/// Which requests a route takes. All parts must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteMatch {
    /// Hosts, any of them; empty is any host.
    pub hosts: Vec<HostPattern>,
    /// The path, without query.
    pub path: PathPattern,
    /// Methods, any of them; empty is any method.
    pub methods: Vec<Arc<str>>,
    /// Header conditions, all of them; names are lower case.
    pub headers: Vec<(Arc<str>, ValuePattern)>,
    /// Query parameter conditions, all of them.
    pub query: Vec<(Arc<str>, ValuePattern)>,
}

/// A host, lower case, without port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `pay.example`
    Exact(Arc<str>),
    /// `*.example`: holds the suffix with its dot, `.example`.
    Suffix(Arc<str>),
    /// `pay.*`: holds the prefix with its dot, `pay.`.
    Prefix(Arc<str>),
    /// `*`: every host that no other pattern of the listener claims. Not the same as a route without
    /// hosts, which takes part for every host.
    Any,
}

/// A path condition. Matching is by bytes, after the target's absolute form was taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PathPattern {
    /// Any path.
    #[default]
    Any,
    /// `/a/b`
    Exact(Arc<str>),
    /// `/a/**`: holds `/a`; matches `/a`, `/a/` and everything below, never `/ab`.
    Prefix(Arc<str>),
    /// `/users/{id}/orders`: one segment per placeholder; `{rest=**}` as the last takes all that follows.
    Template(Arc<str>),
    /// `~^/v[12]/`: a regular expression over the whole path (anchored on both ends unless it says `.*`).
    Regex(Arc<str>),
}

/// A condition on a header's or a query parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValuePattern {
    /// Is there.
    Present,
    /// Is not there.
    Absent,
    /// Is exactly this.
    Exact(Arc<str>),
    /// Begins with this.
    Prefix(Arc<str>),
    /// Ends with this.
    Suffix(Arc<str>),
    /// Holds this.
    Contains(Arc<str>),
    /// Matches this regular expression as a whole.
    Regex(Arc<str>),
}

/// What a route does.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most routes forward")]
pub enum RouteAction {
    /// Sends the request to a cluster.
    Forward(Forward),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
}

/// Sends the request to a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Where to; one cluster with a share of 10000, or a split.
    pub to: Vec<WeightedCluster>,
    /// What a sticky split and the hashing balancers hash; `None` hashes nothing (splits are random).
    pub hash: Option<HashOn>,
    /// Replaces the path.
    pub path_rewrite: Option<PathRewrite>,
    /// Replaces the host.
    pub host_rewrite: Option<Arc<str>>,
    /// For the whole exchange, retries included; `None` is without limit.
    pub timeout: Option<Duration>,
    /// When to try again.
    pub retry: Option<Retry>,
    /// Who gets copies of requests.
    pub mirrors: Vec<Mirror>,
    /// When to try while a try goes on.
    pub hedge: Option<Hedge>,
    /// Calls of gRPC are counted by method.
    pub grpc_statistics: bool,
    /// Which requests adaptive limiting refuses last; `None` for those that it never refuses (L9).
    pub priority: Option<Priority>,
}

impl Forward {
    /// Names of all clusters that it sends to, copies included.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let to = self.to.iter().map(|to| &to.cluster);
        to.chain(self.mirrors.iter().map(|mirror| &mirror.cluster))
    }
}

/// What is hashed for stickiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header, by lower-case name.
    Header(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
    /// A query parameter.
    Query(Arc<str>),
    /// The client's IP address.
    ClientIp,
}

/// How the path is replaced.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// The whole path.
    Full(Arc<str>),
    /// The part that the route's prefix matched.
    Prefix(Arc<str>),
    /// What the regular expression matches, with `$1` or `${name}` in the replacement.
    Regex {
        /// The expression.
        pattern: Arc<str>,
        /// The replacement.
        replacement: Arc<str>,
    },
}

/// A redirect.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Replaces the scheme.
    pub scheme: Option<Arc<str>>,
    /// Replaces the host and port.
    pub host: Option<Arc<str>>,
    /// Replaces the path.
    pub path: Option<Arc<str>>,
    /// Drops the query.
    pub strip_query: bool,
}

/// A direct answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// The body.
    pub body: Arc<str>,
    /// Its type.
    pub content_type: Arc<str>,
}

/// Edits of a field section, applied in the order remove, set, append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names, lower case.
    pub remove: Vec<Arc<str>>,
    /// Replaces all fields of the name.
    pub set: Vec<(Arc<str>, Arc<str>)>,
    /// Added beside what is there.
    pub append: Vec<(Arc<str>, Arc<str>)>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }
}
