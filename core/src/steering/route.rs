//! The route table of one listener.
//!
//! **Which route is taken.** Of the routes whose host, path and conditions all match, the first in the
//! file; but of the routes that name hosts, only those with the most specific pattern for the request's
//! host take part (exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`), as with
//! Envoy's virtual hosts.
//!
//! A route that names no host takes part for every host, at its place in the file. Envoy has no such
//! route: its `*` virtual host is a group of its own, asked only when no other claims the host. Read like
//! that, a health check or a default written once without `host` would stop working for every host that
//! gets a route of its own, which is not what the file seems to say. Whoever wants Envoy's meaning
//! writes `host: "*"` ([`HostPattern::Any`]), and so does the translation from xDS.
//!
//! Neither kind of pattern hides a match in another group: `pay.example` with no matching path does not
//! fall back to the routes of `*.example`.

use hashbrown::HashMap;

use super::{
    condition::Conditions,
    host::HostTable,
    path,
    path_table::{Candidate, PathTable, Search},
    pattern::RouteScratch,
};
use crate::{
    config::model::{HostPattern, Route},
    id::RouteId,
};

/// What routing may look at of a request. Implemented by the data path over the bytes as received,
/// and by `explain` over what an operator typed.
pub trait RequestView {
    /// The method, as sent.
    fn method(&self) -> &[u8];
    /// The host of the request, as sent, without port.
    fn host(&self) -> &[u8];
    /// The path, beginning with `/` (or `*`), without query.
    fn path(&self) -> &[u8];
    /// The query, without `?`.
    fn query(&self) -> Option<&[u8]>;
    /// The first field of this name (lower case), without surrounding white space.
    fn header(&self, name: &str) -> Option<&[u8]>;
}

/// The routes of one listener, compiled.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// From a host to a position in `patterns`.
    hosts: HostTable,
    /// Every host pattern, with the position of its group.
    patterns: Vec<(HostPattern, usize)>,
    /// The paths of the routes of one host pattern; patterns with the same routes share one.
    groups: Vec<PathTable>,
    /// The paths of the routes without host.
    hostless: PathTable,
    /// By [`RouteId`].
    conditions: Vec<Conditions>,
}

impl RouteTable {
    /// Compiles routes, which come in file order.
    pub fn compile(routes: &[Route]) -> RouteTable {
        let conditions: Vec<_> = routes
            .iter()
            .map(|route| Conditions::compile(&route.matches))
            .collect();
        let candidate = |position: usize| Candidate {
            position: position as u32,
            conditional: conditions.get(position).is_some_and(|c| !c.is_empty()),
        };
        let paths = |positions: &[usize]| {
            PathTable::compile(positions.iter().filter_map(|position| {
                Some((candidate(*position), &routes.get(*position)?.matches.path))
            }))
        };

        let mut table = RouteTable::default();
        let mut groups: HashMap<Vec<usize>, usize, foldhash::fast::FixedState> = HashMap::default();
        for (pattern, positions) in routes_by_host(routes) {
            let next = table.groups.len();
            let group = *groups.entry(positions).or_insert_with_key(|positions| {
                table.groups.push(paths(positions));
                next
            });
            table.hosts.insert(&pattern, table.patterns.len() as u32);
            table.patterns.push((pattern, group));
        }
        let hostless = positions(routes, |route| route.matches.hosts.is_empty());
        table.hostless = paths(&hostless);
        table.conditions = conditions;
        table
    }

    /// The route that `request` takes. Allocates nothing, except in `scratch` for the first escaped path
    /// and for paths that lead an expression into a state it has not been in (bounded, and kept).
    #[inline]
    pub fn find<R: RequestView + ?Sized>(
        &self,
        scratch: &mut RouteScratch,
        request: &R,
    ) -> Option<RouteId> {
        let path = path::canonical(request.path(), &mut scratch.path)?;
        let mut search = Search {
            request,
            conditions: &self.conditions,
            searches: &mut scratch.searches,
            best: u32::MAX,
        };
        if let Some(group) = self.group(request.host()) {
            group.find(path, &mut search);
        }
        self.hostless.find(path, &mut search);
        (search.best != u32::MAX).then_some(RouteId(search.best))
    }

    /// The most specific pattern for `host`, among the routes that name hosts.
    pub fn host_pattern(&self, host: &[u8]) -> Option<&HostPattern> {
        let at = self.hosts.find(host)?;
        self.patterns.get(at as usize).map(|(pattern, _)| pattern)
    }

    #[inline]
    fn group(&self, host: &[u8]) -> Option<&PathTable> {
        let at = self.hosts.find(host)?;
        let (_, group) = self.patterns.get(at as usize)?;
        self.groups.get(*group)
    }

    /// What the route asks for besides host and path.
    pub(super) fn conditions(&self, route: RouteId) -> Option<&Conditions> {
        self.conditions.get(route.index())
    }
}

/// Every host pattern with the positions of its routes, in order of first appearance.
fn routes_by_host(routes: &[Route]) -> Vec<(HostPattern, Vec<usize>)> {
    let mut order: HashMap<&HostPattern, usize, foldhash::fast::FixedState> = HashMap::default();
    let mut groups: Vec<(HostPattern, Vec<usize>)> = Vec::new();
    for (position, route) in routes.iter().enumerate() {
        for host in &route.matches.hosts {
            let next = groups.len();
            let at = *order.entry(host).or_insert(next);
            match groups.get_mut(at) {
                Some((_, positions)) if positions.last() == Some(&position) => {}
                Some((_, positions)) => positions.push(position),
                None => groups.push((host.clone(), vec![position])),
            }
        }
    }
    groups
}

fn positions(routes: &[Route], keep: impl Fn(&Route) -> bool) -> Vec<usize> {
    let numbered = routes.iter().enumerate();
    numbered
        .filter(|(_, route)| keep(route))
        .map(|(position, _)| position)
        .collect()
}
