//! The whole program, compiled, and the decision about one request.
//!
//! The rules that may match are found by the home of the request and by its interface, each with one look
//! into a hash table; the others cost nothing. What is found is passed by in the order of the program.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;

use super::{
    super::{RequestView, RouteScratch, path::canonical},
    rule::{Action, CompiledRule, Mismatch, To},
};
use crate::{
    config::model::steering::{Interface, Network, PLACES_MAX, PlaceKind, Rule, Steering, Verb},
    id::{ClusterId, Epoch, ShardId},
    limiter::bucket::Buckets,
    reason::Reason,
    stats::{Histogram, PerShard, PlaceCounters, RuleCounters},
};

/// The program of one snapshot.
#[derive(Debug)]
pub struct Table {
    /// The snapshot that it belongs to: a request is decided by exactly one (S14).
    pub epoch: Epoch,
    /// In the order of the program.
    pub rules: Box<[CompiledRule]>,
    /// By [`ClusterId`]: the place that a cluster is.
    places: Box<[Option<Place>]>,
    trusted: Box<[Network]>,
    /// Whether answers say what was decided.
    pub response_header: bool,
}

/// A place, which is a cluster of an application.
#[derive(Debug)]
pub struct Place {
    /// Its name, unique in its application.
    pub name: Arc<str>,
    /// Its application.
    pub application: Arc<str>,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What it is.
    pub kind: PlaceKind,
    /// Its place in the application's list.
    pub ordinal: usize,
    /// What came here, and where it went; carried over from the snapshot before while the names stay.
    pub counters: Arc<PerShard<PlaceCounters>>,
    /// Rules for any interface, by position, ascending.
    any: Box<[u32]>,
    /// Rules for `/service/method`, and for every method of `/service/`.
    interfaces: HashMap<Box<[u8]>, Box<[u32]>, foldhash::fast::FixedState>,
}

/// A request, and what else a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a, R: ?Sized> {
    /// The request.
    pub request: &'a R,
    /// Its client.
    pub client: Option<IpAddr>,
    /// What a share goes by that has nothing better: drawn once for the request.
    pub random: u64,
    /// Now, in seconds since the Unix epoch.
    pub now_unix_s: u64,
    /// It was moved already, by a peer that is trusted (S12).
    pub is_moved: bool,
}

/// What only a shard knows.
pub trait Surroundings {
    /// Whether a cluster has an endpoint that may be chosen.
    fn is_usable(&self, cluster: ClusterId) -> bool;
    /// Takes a token of a `cap`; if there is none, when there will be one.
    fn take_token(&self, rule: &CompiledRule) -> Option<Duration>;
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'t> {
    /// Where it would have gone.
    pub from: &'t Place,
    /// Where it goes.
    pub to: &'t Place,
    /// The rule that decided; `None` if none did.
    pub rule: Option<&'t CompiledRule>,
    /// The place that was chosen first had no endpoint.
    pub fell_back: bool,
}

impl Decision<'_> {
    /// Whether it goes elsewhere than its route says.
    pub fn is_moved(&self) -> bool {
        self.from.cluster != self.to.cluster
    }
}

/// Why a request goes nowhere.
#[derive(Clone, Copy, Debug)]
pub enum Refused<'t> {
    /// The place that a rule chose for a request of the first has no endpoint, and no other is named (S17).
    NoTarget(&'t CompiledRule, &'t Place, &'t Place),
    /// Its route leads to a group that only rules may send to, and none did (S9).
    NotNamed(&'t Place),
    /// A request of this place is over the rate of a rule, for so long.
    Capped(&'t CompiledRule, &'t Place, Duration),
}

impl Refused<'_> {
    /// The word for it.
    pub const fn reason(&self) -> Reason {
        match self {
            Refused::NoTarget(..) => Reason::SteerNoTarget,
            Refused::NotNamed(_) => Reason::SteerNotNamed,
            Refused::Capped(..) => Reason::SteerCapped,
        }
    }
}

/// What became of a request.
pub type Decided<'t> = Result<Decision<'t>, Refused<'t>>;

impl Table {
    /// Compiles a program that was [checked](super::check()). `clusters` are the names of the snapshot's, by
    /// id; `previous` lends its counters.
    pub fn compile(
        steering: &Steering,
        clusters: &BTreeMap<&str, ClusterId>,
        previous: Option<&Table>,
        shards: usize,
        epoch: Epoch,
    ) -> Table {
        let previous = previous.filter(|table| table.shards() == Some(shards));
        let mut places: Vec<Option<Place>> = (0..clusters.len()).map(|_| None).collect();
        for (application, described) in &steering.applications {
            for (ordinal, (name, cluster, kind)) in described.places().take(PLACES_MAX).enumerate()
            {
                let Some(id) = clusters.get(&**cluster).copied() else {
                    continue;
                };
                let kept = previous.and_then(|table| table.place_by_name(application, name));
                let place = Place {
                    name: name.clone(),
                    application: application.clone(),
                    cluster: id,
                    kind,
                    ordinal,
                    counters: kept.map_or_else(
                        || Arc::new(PerShard::new(shards)),
                        |place| place.counters.clone(),
                    ),
                    any: Box::default(),
                    interfaces: HashMap::default(),
                };
                if let Some(slot) = places.get_mut(id.index()) {
                    *slot = Some(place);
                }
            }
        }
        let mut rules: Vec<CompiledRule> = Vec::with_capacity(steering.rules.len());
        let mut sources: Vec<&Rule> = Vec::with_capacity(steering.rules.len());
        for rule in &steering.rules {
            let application = steering.applications.get(&rule.matches.application);
            let cluster = |place: &str| clusters.get(&**application?.place(place)?.0).copied();
            let kept = previous.and_then(|table| table.rule(&rule.id));
            let counters = kept.map_or_else(
                || Arc::new(PerShard::new(shards)),
                |kept| kept.counters.clone(),
            );
            let compiled = CompiledRule::compile(
                rule,
                &steering.marks,
                &cluster,
                counters,
                buckets(rule, kept, shards),
            );
            if let Some(mut compiled) = compiled {
                compiled.latency = latency(rule, kept, shards);
                rules.push(compiled);
                sources.push(rule);
            }
        }
        for place in places.iter_mut().flatten() {
            place.index(&sources);
        }
        Table {
            epoch,
            rules: rules.into(),
            places: places.into(),
            trusted: steering.trusted_peers.clone().into(),
            response_header: steering.response_header,
        }
    }

    /// The place that a cluster is.
    #[inline]
    pub fn place(&self, cluster: ClusterId) -> Option<&Place> {
        self.places.get(cluster.index())?.as_ref()
    }

    /// All places.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().flatten()
    }

    /// The clusters of all places of the application that `cluster` is a place of.
    pub fn siblings(&self, cluster: ClusterId) -> Vec<ClusterId> {
        let application = self.place(cluster).map(|place| &place.application);
        let of = |place: &&Place| Some(&place.application) == application;
        self.places()
            .filter(of)
            .map(|place| place.cluster)
            .collect()
    }

    /// The rule of this id.
    pub fn rule(&self, id: &str) -> Option<&CompiledRule> {
        self.rules.iter().find(|rule| &*rule.id == id)
    }

    /// Whether the hop mark of a peer is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }

    /// Decides about a request whose route leads to `home`; `None` if that is no place. Allocates nothing,
    /// except in `scratch` as [`RouteTable::find`](super::super::RouteTable::find) does.
    #[inline]
    pub fn decide<R: RequestView + ?Sized>(
        &self,
        home: ClusterId,
        asked: &Asked<'_, R>,
        scratch: &mut RouteScratch,
        around: &impl Surroundings,
    ) -> Option<Decided<'_>> {
        let from = self.place(home)?;
        Some(self.decide_at(from, asked, scratch, around))
    }

    fn decide_at<'t, R: RequestView + ?Sized>(
        &'t self,
        from: &'t Place,
        asked: &Asked<'_, R>,
        scratch: &mut RouteScratch,
        around: &impl Surroundings,
    ) -> Decided<'t> {
        let mut placed: Option<(&CompiledRule, Option<ClusterId>)> = None;
        let mut failover: Option<(&CompiledRule, &[ClusterId])> = None;
        for rule in self.candidates(from, asked.request, scratch) {
            let is_asked = match &rule.action {
                Action::Cap => true,
                Action::Place(..) => placed.is_none() && !asked.is_moved,
                Action::FailTo(_) => failover.is_none() && !asked.is_moved,
            };
            if !is_asked || rule.mismatch(asked, scratch).is_some() {
                continue;
            }
            match &rule.action {
                Action::Cap => {
                    if let Some(wait) = around.take_token(rule) {
                        return Err(Refused::Capped(rule, from, wait));
                    }
                }
                Action::Place(draw, targets) => {
                    placed = Some((rule, rule.target(draw, targets, from.cluster, asked)));
                }
                Action::FailTo(clusters) => failover = Some((rule, clusters)),
            }
        }
        self.arrive(from, placed, failover, asked.is_moved, around)
    }

    /// From what rules said to where the request goes.
    fn arrive<'t>(
        &'t self,
        from: &'t Place,
        placed: Option<(&'t CompiledRule, Option<ClusterId>)>,
        failover: Option<(&'t CompiledRule, &'t [ClusterId])>,
        is_moved: bool,
        around: &impl Surroundings,
    ) -> Decided<'t> {
        let rule = placed.map(|(rule, _)| rule);
        let chosen = placed.and_then(|(_, target)| target);
        let is_named = chosen.is_some() || is_moved;
        let to = chosen
            .and_then(|cluster| self.place(cluster))
            .unwrap_or(from);
        if to.kind == PlaceKind::Exclusive && !is_named {
            return Err(Refused::NotNamed(to));
        }
        let decision = Decision {
            from,
            to,
            rule,
            fell_back: false,
        };
        // Most programs name no way out, and most places have endpoints.
        if (chosen.is_none() && failover.is_none()) || around.is_usable(to.cluster) {
            return Ok(decision);
        }
        let instead =
            |cluster: ClusterId| Some(self.place(cluster)?).filter(|p| around.is_usable(p.cluster));
        let fallback = rule
            .filter(|_| chosen.is_some())
            .and_then(|rule| rule.fallback);
        let (rule, to) = match (fallback, failover) {
            (Some(To::Refuse), _) => (rule, None),
            (Some(To::Home), _) => (
                rule,
                instead(from.cluster).filter(|p| p.kind != PlaceKind::Exclusive),
            ),
            (Some(To::Cluster(cluster)), _) => (rule, instead(cluster)),
            (None, Some((rule, clusters))) => (
                Some(rule),
                clusters.iter().find_map(|cluster| instead(*cluster)),
            ),
            (None, None) => (rule, None),
        };
        match (to, rule) {
            (Some(to), _) => Ok(Decision {
                to,
                rule,
                fell_back: true,
                ..decision
            }),
            (None, Some(rule)) => Err(Refused::NoTarget(rule, from, decision.to)),
            (None, None) => Ok(decision),
        }
    }

    /// The rules that may match, in order.
    fn candidates<'t, R: RequestView + ?Sized>(
        &'t self,
        home: &'t Place,
        request: &R,
        scratch: &mut RouteScratch,
    ) -> impl Iterator<Item = &'t CompiledRule> + use<'t, R> {
        let lists = home.lists(request, scratch);
        lists.filter_map(|position| self.rules.get(position as usize))
    }

    /// How many rules are looked at for a request: what a decision costs.
    pub fn candidate_count<R: RequestView + ?Sized>(&self, home: ClusterId, request: &R) -> usize {
        let scratch = &mut RouteScratch::default();
        let place = self.place(home);
        place.map_or(0, |place| self.candidates(place, request, scratch).count())
    }

    /// What each candidate says of a request, in order.
    pub(super) fn verdicts<'t, R: RequestView + ?Sized>(
        &'t self,
        home: &'t Place,
        asked: &Asked<'_, R>,
    ) -> Vec<(&'t CompiledRule, Option<Mismatch<'t>>)> {
        let scratch = &mut RouteScratch::default();
        let candidates: Vec<_> = self.candidates(home, asked.request, scratch).collect();
        let verdict = |rule: &'t CompiledRule| (rule, rule.mismatch(asked, scratch));
        candidates.into_iter().map(verdict).collect()
    }

    /// Counts a decision. Called by the shard alone.
    pub fn count(&self, shard: ShardId, home: ClusterId, decided: &Decided<'_>) {
        let Some(from) = self.place(home).and_then(|place| place.counters.get(shard)) else {
            return;
        };
        from.arrived.add(1);
        let of = |rule: &CompiledRule, count: fn(&RuleCounters)| {
            rule.counters.get(shard).into_iter().for_each(count);
        };
        match decided {
            Ok(decision) => {
                if let Some(flow) = from.to.get(decision.to.ordinal) {
                    flow.add(1);
                }
                let Some(rule) = decision.rule else { return };
                of(
                    rule,
                    match (decision.fell_back, decision.is_moved()) {
                        (true, _) => |c| c.fell_back.add(1),
                        (false, true) => |c| c.moved.add(1),
                        (false, false) => |c| c.stayed.add(1),
                    },
                );
            }
            Err(Refused::NotNamed(_)) => from.turned_away.add(1),
            Err(Refused::NoTarget(rule, ..)) => of(rule, |c| c.refused.add(1)),
            Err(Refused::Capped(rule, ..)) => of(rule, |c| c.capped.add(1)),
        }
    }

    fn place_by_name(&self, application: &str, name: &str) -> Option<&Place> {
        let mut places = self.places();
        places.find(|place| &*place.application == application && &*place.name == name)
    }

    /// How many slots its counters have; `None` if it has none.
    fn shards(&self) -> Option<usize> {
        let place = self.places().next();
        place.map(|place| place.counters.len())
    }
}

impl Place {
    /// Sorts the rules of its application by interface, those for another home left out.
    fn index(&mut self, rules: &[&Rule]) {
        let mut any = Vec::new();
        let mut interfaces: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        for (position, rule) in (0u32..).zip(rules) {
            let matches = &rule.matches;
            let is_elsewhere = matches.from.as_ref().is_some_and(|from| *from != self.name);
            if matches.application != self.application || is_elsewhere || self.keeps_all(&rule.verb)
            {
                continue;
            }
            match &matches.interface {
                None => any.push(position),
                Some(interface) => interfaces.entry(key(interface)).or_default().push(position),
            }
        }
        self.any = any.into();
        let interfaces = interfaces.into_iter();
        self.interfaces = interfaces
            .map(|(key, list)| (key.into(), list.into()))
            .collect();
    }

    /// Whether a matrix has no row for this home: it is then no decision, and the next rule is asked.
    fn keeps_all(&self, verb: &Verb) -> bool {
        matches!(verb, Verb::Matrix(rows) if !rows.iter().any(|(from, _)| *from == self.name))
    }

    fn lists<R: RequestView + ?Sized>(
        &self,
        request: &R,
        scratch: &mut RouteScratch,
    ) -> Merged<'_> {
        let mut lists = [&*self.any, &[], &[]];
        if !self.interfaces.is_empty()
            && let Some(path) = canonical(request.path(), &mut scratch.path)
        {
            let end = memchr::memrchr(b'/', path).map_or(0, |at| at + 1);
            let service = path.get(..end).unwrap_or_default();
            let of = |key: &[u8]| self.interfaces.get(key).map_or(&[][..], |list| &**list);
            // What ends with a slash is no method, and would be found twice.
            let method = if end < path.len() { of(path) } else { &[] };
            lists = [&*self.any, method, of(service)];
        }
        Merged(lists)
    }
}

/// `/service/method`, or `/service/` for every method: a path never ends with a method and a slash.
fn key(interface: &Interface) -> Vec<u8> {
    let method = interface.method.as_deref().unwrap_or_default();
    format!("/{}/{method}", interface.service).into_bytes()
}

/// Positions of three ascending lists, ascending.
struct Merged<'t>([&'t [u32]; 3]);

impl Iterator for Merged<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let heads = self.0.iter_mut().filter(|list| !list.is_empty());
        let least = heads.min_by_key(|list| list.first().copied())?;
        let (first, rest) = least.split_first()?;
        *least = rest;
        Some(*first)
    }
}

fn buckets(rule: &Rule, kept: Option<&CompiledRule>, shards: usize) -> Option<Arc<Buckets>> {
    let Verb::Cap(rate) = &rule.verb else {
        return None;
    };
    // Another rule, or another version of it, begins with a full bucket.
    let same = kept
        .filter(|kept| kept.epoch == rule.epoch)
        .and_then(|kept| kept.buckets.clone());
    Some(same.unwrap_or_else(|| Arc::new(Buckets::new(*rate, 1, shards))))
}

fn latency(
    rule: &Rule,
    kept: Option<&CompiledRule>,
    shards: usize,
) -> Option<Arc<PerShard<Histogram>>> {
    rule.ramp.as_ref()?;
    let same = kept.and_then(|kept| kept.latency.clone());
    Some(same.unwrap_or_else(|| Arc::new(PerShard::new(shards))))
}
