//! What is valid, and probably not meant: needs the whole model.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    codes,
    decode::Origins,
    diagnostic::{Problem, Report},
    model::{
        Balance, Cluster, ClusterTls, Config, Endpoints, Forward, HostPattern, Http, PathPattern,
        Protocol, Route, RouteAction, RouteMatch, UpstreamProtocol, UpstreamTls, ValuePattern,
        WeightedCluster,
    },
};

/// Pairs of routes that are compared in search of unreachable ones. Enough for 3,000 routes of one
/// host; what lies beyond is not looked at, so that a large file is checked in time.
const COMPARISONS_MAX: usize = 4_000_000;

/// Reports what is doubtful about a valid configuration, and what only the whole shows to be wrong.
pub(super) fn lint(config: &Config, origins: &Origins, report: &Report<'_>) {
    // What a control plane brings is not known here.
    let is_all = config.xds.is_none();
    if config.listeners.is_empty() && is_all {
        let problem = Problem::new(codes::NO_LISTENER, 0..0, "no listener is defined");
        report.add(
            problem
                .label("nobody is served")
                .help("add one under `listeners`"),
        );
    }
    let mut used: BTreeSet<&str> = BTreeSet::new();
    let mut relayed: BTreeSet<&str> = BTreeSet::new();
    for (name, listener) in &config.listeners {
        let places = origins
            .routes
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        match &listener.protocol {
            Protocol::Tcp(tcp) => relayed.extend(tcp.to.iter().map(|to| to.cluster.as_ref())),
            Protocol::Http(http) => {
                let routes: Vec<Placed<'_>> = http.routes.iter().zip(places).collect();
                for placed in &routes {
                    if let RouteAction::Forward(forward) = &placed.0.action {
                        used.extend(forward.clusters().map(AsRef::<str>::as_ref));
                        exclusive(config, forward, placed, report);
                        hashing(config, forward, placed, report);
                        proxy_protocol(config, forward, placed, report);
                    }
                }
                unreachable(http, places, report);
            }
        }
    }
    let only_relayed = relayed.iter().filter(|name| !used.contains(*name));
    only_relayed.for_each(|name| unlimited(config, origins, name, report));
    used.extend(relayed);
    used.extend(rate_limit_service(config, origins, report));
    let steered = config
        .steering
        .iter()
        .flat_map(|steering| steering.applications.values());
    used.extend(steered.flat_map(|one| one.places().map(|(_, cluster, _)| &**cluster)));
    encryption(config, origins, report);
    for (name, place) in &origins.clusters {
        if !used.contains(name.as_ref()) && is_all {
            let message = format!("cluster `{name}` is not used");
            let problem = Problem::new(codes::UNUSED_CLUSTER, place.clone(), message);
            report.add(
                problem
                    .label("no route leads here")
                    .help("remove it, or send something to it"),
            );
        }
    }
}

/// The cluster that global limits are asked by, which has to speak what gRPC does.
fn rate_limit_service<'c>(
    config: &'c Config,
    origins: &Origins,
    report: &Report<'_>,
) -> Option<&'c str> {
    let name = &config.rate_limit_service.as_ref()?.cluster;
    let cluster = config.clusters.get(name)?;
    if cluster.protocol != UpstreamProtocol::Http2 {
        let message = format!("cluster `{name}` of `rate_limit_service` does not speak HTTP/2");
        let place = origins.rate_limit_service.clone();
        report.add(
            Problem::new(codes::NOT_HERE, place, message)
                .label("gRPC needs HTTP/2")
                .help("add `protocol: http2` to the cluster"),
        );
    }
    Some(name)
}

/// A route to a group that gets nothing but what rules send there (S9).
fn exclusive(config: &Config, forward: &Forward, (route, place): &Placed<'_>, report: &Report<'_>) {
    let steering = config.steering.iter();
    let applications = steering.flat_map(|steering| steering.applications.values());
    let groups = applications.flat_map(|application| &application.groups);
    let led_to = |cluster: &Arc<str>| forward.to.iter().any(|to| to.cluster == *cluster);
    let copied_to = |cluster: &Arc<str>| forward.mirrors.iter().any(|to| to.cluster == *cluster);
    let closed = groups.filter(|(_, group)| group.exclusive);
    for (group, _) in closed
        .clone()
        .filter(|(_, group)| copied_to(&group.cluster))
    {
        let message = format!(
            "route `{}` copies requests to the exclusive group `{group}`",
            route.name
        );
        let problem = Problem::new(codes::NOT_HERE, (*place).clone(), message);
        let help =
            "an exclusive group gets what a rule names, and only that: copy to another cluster";
        report.add(problem.label("no rule names it").help(help));
    }
    for (group, _) in closed.filter(|(_, group)| led_to(&group.cluster)) {
        let message = format!(
            "route `{}` leads to the exclusive group `{group}`",
            route.name
        );
        report.add(
            Problem::new(codes::NOT_NAMED, (*place).clone(), message)
                .label("refused, unless a trusted peer has sent it here")
                .help("lead it to a unit and name the group in a rule; keep it only in front of the group's own instances"),
        );
    }
}

/// A limit on a cluster that has no interfaces: only relayed connections go there.
fn unlimited(config: &Config, origins: &Origins, name: &str, report: &Report<'_>) {
    let cluster = config.clusters.get(name);
    if cluster.is_none_or(|cluster| cluster.adaptive_limit.is_none()) {
        return;
    }
    let place = origins.clusters.get(name).cloned().unwrap_or_default();
    let message = format!("`adaptive_limit` has no effect on cluster `{name}`");
    report.add(
        Problem::new(codes::NO_EFFECT, place, message)
            .label("only TCP listeners lead here, and it limits requests")
            .help("remove it, or use an HTTP listener"),
    );
}

/// Secrets that nothing refers to, and links that will hardly be what is meant.
fn encryption(config: &Config, origins: &Origins, report: &Report<'_>) {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for tls in config.listeners.values().filter_map(|one| one.tls.as_ref()) {
        used.extend(tls.certificates.iter().map(|name| name.as_ref()));
        used.extend(tls.client.trusted_ca.as_deref());
    }
    for (name, cluster) in &config.clusters {
        let Some(tls) = &cluster.tls else { continue };
        used.extend(tls.certificate.as_deref());
        used.insert(&tls.trusted_ca);
        let place = origins.clusters.get(name).cloned().unwrap_or_default();
        links(name, cluster, tls, place, report);
    }
    if let Some(tls) = config.xds.as_ref().and_then(|xds| xds.tls.as_ref()) {
        used.extend(tls.certificate.as_deref());
        used.insert(&tls.trusted_ca);
    }
    for (name, place) in &origins.secrets {
        if !used.contains(name.as_ref()) {
            let message = format!("secret `{name}` is not used");
            let problem = Problem::new(codes::UNUSED_SECRET, place.clone(), message);
            report.add(
                problem
                    .label("nothing refers to it")
                    .help("remove it, or name it in a `tls` section"),
            );
        }
    }
}

/// Links that stay plaintext for want of an announcement, and servers that are known by address alone.
fn links(
    name: &str,
    cluster: &Cluster,
    tls: &ClusterTls,
    place: std::ops::Range<usize>,
    report: &Report<'_>,
) {
    let looked_up = matches!(cluster.endpoints, Endpoints::Dns { .. });
    let is_named = looked_up || tls.server_name.is_some() || !tls.subject_alt_names.is_empty();
    match tls.mode {
        UpstreamTls::Disabled => {}
        UpstreamTls::FollowPeer if looked_up => {
            let message = format!("cluster `{name}` follows endpoints that announce nothing");
            let problem = Problem::new(codes::NEVER_ENCRYPTED, place, message);
            report.add(problem.label("stays plaintext").help(
                "write `mode: required`, or list the endpoints under `static` with `tls: on`",
            ));
        }
        _ if is_named => {}
        _ => {
            let message =
                format!("cluster `{name}` takes certificates for the addresses of its endpoints");
            let problem = Problem::new(codes::NAMED_BY_ADDRESS, place, message);
            report.add(problem.label("no name is asked for").help(
                "write what their certificates say: `server_name: NAME`, or `subject_alt_names: [ { uri: … } ]`",
            ));
        }
    }
}

/// A route and where it begins.
type Placed<'a> = (&'a Route, &'a std::ops::Range<usize>);

/// A hash that nothing uses, and a balancer that lacks one.
fn hashing(config: &Config, forward: &Forward, (route, place): &Placed<'_>, report: &Report<'_>) {
    let by_hash = |to: &&WeightedCluster| {
        let cluster = config.clusters.get(&to.cluster);
        cluster.is_some_and(|c| matches!(c.balance, Balance::RingHash | Balance::Maglev))
    };
    let hashed = forward.to.iter().find(by_hash);
    match (&forward.hash, hashed) {
        (None, Some(to)) => {
            let message = format!(
                "route `{}` hashes nothing, and cluster `{}` is balanced by hash",
                route.name, to.cluster
            );
            let problem = Problem::new(codes::NO_HASH, (*place).clone(), message);
            report.add(
                problem
                    .label("spread by chance")
                    .help("add `hash: client_ip` or the like to the route"),
            );
        }
        (Some(_), None) if forward.to.len() < 2 => {
            let message = format!("`hash` of route `{}` has no effect", route.name);
            let problem = Problem::new(codes::NO_EFFECT, (*place).clone(), message);
            report.add(
                problem
                    .label("`hash` is not used")
                    .help("splits use it, and clusters with `balance: ring_hash` or `maglev`"),
            );
        }
        _ => {}
    }
}

/// PROXY protocol headers towards endpoints belong to byte relays: a pooled connection has many clients.
fn proxy_protocol(
    config: &Config,
    forward: &Forward,
    (route, place): &Placed<'_>,
    report: &Report<'_>,
) {
    let sends = |to: &&Arc<str>| {
        let cluster = config.clusters.get(*to);
        cluster.is_some_and(|cluster| cluster.proxy_protocol.is_some())
    };
    if let Some(to) = forward.clusters().find(sends) {
        let message = format!(
            "HTTP route `{}` leads to cluster `{to}`, which has `proxy_protocol`",
            route.name
        );
        let problem = Problem::new(codes::NOT_HERE, (*place).clone(), message);
        report.add(problem.label("only for TCP listeners").help(
            "HTTP connections are shared by clients; endpoints find them in `X-Forwarded-For`: make a second cluster without `proxy_protocol`",
        ));
    }
}

/// Routes behind earlier ones that take all they would match.
fn unreachable(http: &Http, places: &[std::ops::Range<usize>], report: &Report<'_>) {
    // By host pattern; `None` holds the routes that name no host, which take part for all of them.
    let mut earlier: HashMap<Option<&HostPattern>, Vec<usize>> = HashMap::new();
    let mut comparisons = 0;
    for (index, route) in http.routes.iter().enumerate() {
        let hosts: Vec<Option<&HostPattern>> = match route.matches.hosts.as_slice() {
            [] => vec![None],
            hosts => hosts.iter().map(Some).collect(),
        };
        let mut covering = Vec::with_capacity(hosts.len());
        for host in &hosts {
            let alike = earlier.get(host).into_iter().flatten();
            let hostless = earlier
                .get(&None)
                .into_iter()
                .flatten()
                .filter(|_| host.is_some());
            let found = alike.chain(hostless).find(|other| {
                comparisons += 1;
                let other = http.routes.get(**other);
                other.is_some_and(|other| covers(&other.matches, &route.matches))
            });
            covering.push(found.copied());
            if comparisons > COMPARISONS_MAX {
                return;
            }
        }
        let first = covering.iter().flatten().next().copied();
        if let (Some(first), true) = (first, covering.iter().all(Option::is_some)) {
            report.add(unreachable_problem(http, places, index, first));
        }
        for host in hosts {
            earlier.entry(host).or_default().push(index);
        }
    }
}

fn unreachable_problem(
    http: &Http,
    places: &[std::ops::Range<usize>],
    index: usize,
    by: usize,
) -> Problem {
    let name = |index: usize| {
        http.routes
            .get(index)
            .map_or("", |route| route.name.as_ref())
    };
    let place = |index: usize| places.get(index).cloned().unwrap_or_default();
    let message = format!(
        "nothing reaches route `{}`: `{}` takes it all",
        name(index),
        name(by)
    );
    Problem::new(codes::UNREACHABLE, place(index), message)
        .label("never taken")
        .related(place(by), "this route takes all that it would match")
        .help("move it before the other route, or remove it")
}

/// Whether every request that `b` matches is matched by `a`, hosts aside.
fn covers(a: &RouteMatch, b: &RouteMatch) -> bool {
    let methods = a.methods.is_empty()
        || (!b.methods.is_empty() && b.methods.iter().all(|method| a.methods.contains(method)));
    methods
        && conditions_cover(&a.headers, &b.headers)
        && conditions_cover(&a.query, &b.query)
        && path_covers(&a.path, &b.path)
}

type Conditions = [(std::sync::Arc<str>, ValuePattern)];

/// Whether `b` asks for all that `a` asks for.
fn conditions_cover(a: &Conditions, b: &Conditions) -> bool {
    a.iter().all(|(name, pattern)| {
        b.iter().any(|(other, asked)| {
            let there = *pattern == ValuePattern::Present && *asked != ValuePattern::Absent;
            name == other && (pattern == asked || there)
        })
    })
}

fn path_covers(a: &PathPattern, b: &PathPattern) -> bool {
    let below = |path: &str, prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match (a, b) {
        (PathPattern::Any, _) => true,
        (PathPattern::Prefix(prefix), PathPattern::Exact(path) | PathPattern::Prefix(path)) => {
            below(path, prefix)
        }
        (PathPattern::Prefix(prefix), PathPattern::Template(template)) => {
            // Only what stands before the first placeholder is known.
            let literal = template.split('{').next().unwrap_or("");
            literal
                .strip_prefix(prefix.as_ref())
                .is_some_and(|rest| rest.starts_with('/'))
        }
        (PathPattern::Template(a), PathPattern::Template(b) | PathPattern::Exact(b)) => {
            template_covers(a, b)
        }
        (a, b) => a == b,
    }
}

/// Whether template `a` matches all that template or path `b` does.
fn template_covers(a: &str, b: &str) -> bool {
    let (mut left, mut right) = (a.split('/').skip(1), b.split('/').skip(1));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(a), Some(_)) if a.ends_with("=**}") => return true,
            (Some(_), Some(b)) if b.ends_with("=**}") => return false,
            (Some(a), Some(b)) if a.starts_with('{') && !b.is_empty() => continue,
            (Some(a), Some(b)) if a == b => continue,
            _ => return false,
        }
    }
}
