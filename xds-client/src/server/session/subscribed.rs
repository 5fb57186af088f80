//! One kind of resources on one stream: who wants what of it, what was sent, and what came of that.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    Asked, ERROR_TEXT_MAX, Heard, NAMES_MAX, RESPONSE_BYTES, Request, Response, Status,
    UNANSWERED_MAX, VERSION_MAX, Wrong,
};
use crate::{
    server::world::{Named, Resource, World},
    subscription::{Absence, ResourceType, Variant},
    translate::NAME_MAX,
};

/// Asks for everything of a kind.
const WILDCARD: &str = "*";

/// Refused resources that a status tells of. There may be as many as there are resources.
const REFUSED_TOLD_MAX: usize = 16;

/// Making goes before breaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is new or changed.
    Make,
    /// What is no more.
    Break,
}

/// What a client has under a name, as far as we know.
#[derive(Clone, Debug)]
enum Held {
    /// It was sent this.
    Sent(Arc<Resource>),
    /// It said so itself: this version.
    Kept(Arc<str>),
    /// It was told that there is none.
    Missing,
}

impl Held {
    fn version(&self) -> Option<&Arc<str>> {
        match self {
            Held::Sent(resource) => Some(&resource.version),
            Held::Kept(version) => Some(version),
            Held::Missing => None,
        }
    }
}

/// A name and a version of it.
type Versioned = (Arc<str>, Arc<str>);

/// Resources that are sent, and names of what is no more.
type News = (Vec<Arc<Resource>>, Vec<Arc<str>>);

/// A response that waits for its answer.
#[derive(Debug)]
struct Flight {
    nonce: String,
    /// Of the kind.
    version: Arc<str>,
    world: Arc<str>,
    resources: Vec<Versioned>,
}

#[derive(Debug)]
pub(super) struct Subscribed {
    kind: ResourceType,
    variant: Variant,
    /// Whether the first request was there.
    is_begun: bool,
    everything: bool,
    /// Whether a name was ever said: after that, none means none.
    is_named: bool,
    names: BTreeSet<Arc<str>>,
    /// By name.
    held: BTreeMap<Arc<str>, Held>,
    /// The oldest first.
    flights: VecDeque<Flight>,
    /// The nonce of the newest response.
    newest: String,
    /// Parts of responses that were refused, each to be sent on its own.
    again: VecDeque<Vec<Versioned>>,
    /// By name: the version that was refused alone, and why.
    refused: BTreeMap<Arc<str>, (Arc<str>, String)>,
    error: Option<String>,
    acknowledged: Arc<str>,
    /// A whole response is owed, even if it says nothing new.
    is_owed: bool,
}

impl Subscribed {
    pub(super) fn new(kind: ResourceType, variant: Variant) -> Subscribed {
        Subscribed {
            kind,
            variant,
            is_begun: false,
            everything: false,
            is_named: false,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            flights: VecDeque::new(),
            newest: String::new(),
            again: VecDeque::new(),
            refused: BTreeMap::new(),
            error: None,
            acknowledged: Arc::default(),
            is_owed: false,
        }
    }

    /// Whether responses carry all of the kind.
    fn is_whole(&self) -> bool {
        self.variant == Variant::StateOfTheWorld && is_whole(self.kind)
    }

    /// Whether nothing waits for its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether all that was sent is taken.
    pub(super) fn is_settled(&self) -> bool {
        self.is_answered() && self.again.is_empty() && self.error.is_none()
    }

    pub(super) fn receive(&mut self, request: Request) -> Result<Heard, Wrong> {
        let is_newest = request.nonce == self.newest;
        let (nonce, error) = (request.nonce, request.error);
        let is_spontaneous = nonce.is_empty() || error.is_none();
        let heard = self.answer(&nonce, error);
        match request.asked {
            Asked::Changes {
                subscribe,
                unsubscribe,
                held,
            } => self.change(subscribe, &unsubscribe, held)?,
            // What was asked before the newest response came is asked again in its answer.
            Asked::Names(names) if is_newest || nonce.is_empty() => {
                let is_again = heard == Heard::Nothing && is_spontaneous && self.is_begun;
                self.replace(names, is_again)?;
            }
            Asked::Names(_) => {}
        }
        self.is_begun = true;
        Ok(heard)
    }

    /// Takes the answer to a response. Those before it are answered with it: some clients answer the newest alone.
    fn answer(&mut self, nonce: &str, error: Option<String>) -> Heard {
        let place = self.flights.iter().position(|one| one.nonce == nonce);
        let Some(place) = place else {
            return Heard::Nothing;
        };
        let mut answered = self.flights.drain(..=place);
        let Some(flight) = answered.next_back() else {
            return Heard::Nothing;
        };
        drop(answered);
        match error {
            Some(error) => self.refuse(flight, cut(error)),
            None => self.acknowledge(flight),
        }
    }

    fn acknowledge(&mut self, flight: Flight) -> Heard {
        for (name, _) in &flight.resources {
            self.refused.remove(name);
        }
        if self.is_whole() || (self.refused.is_empty() && self.again.is_empty()) {
            self.error = None;
            self.acknowledged = flight.version;
        }
        Heard::Acknowledged
    }

    fn refuse(&mut self, flight: Flight, error: String) -> Heard {
        self.error = Some(error.clone());
        let mut resources = flight.resources;
        if !self.is_whole() {
            match &*resources {
                [] => {}
                [(name, version)] => {
                    let refused = (version.clone(), error.clone());
                    self.refused.insert(name.clone(), refused);
                }
                [_, _, ..] => {
                    let half = resources.split_off(resources.len() / 2);
                    self.again.extend([resources, half]);
                }
            }
        }
        let world = flight.world;
        Heard::Refused { world, error }
    }

    /// State of the world: `names` instead of what was asked for. `is_again`: the client asks although it has an
    /// answer; if it asks for the same, it wants that once more, as Envoy does for the endpoints of a cluster that was
    /// updated.
    fn replace(&mut self, names: Vec<String>, is_again: bool) -> Result<(), Wrong> {
        let everything = names.iter().any(|name| name == WILDCARD);
        let names = self.checked(names.into_iter().filter(|name| name != WILDCARD))?;
        self.is_named |= everything || !names.is_empty();
        let everything = everything || (!self.is_named && is_whole(self.kind));
        let is_same = names == self.names && everything == self.everything;
        if is_same && is_again {
            self.held.clear();
        }
        self.is_owed |= !is_same || is_again || !self.is_begun;
        (self.names, self.everything) = (names, everything);
        if !everything {
            let wanted = &self.names;
            self.held.retain(|name, _| wanted.contains(name));
            self.refused.retain(|name, _| wanted.contains(name));
        }
        Ok(())
    }

    fn change(
        &mut self,
        subscribe: Vec<String>,
        unsubscribe: &[String],
        held: Vec<(String, String)>,
    ) -> Result<(), Wrong> {
        let is_first = !self.is_begun;
        self.everything |= is_first && subscribe.is_empty() && is_whole(self.kind);
        self.everything |= subscribe.iter().any(|name| name == WILDCARD);
        let names = self.checked(subscribe.into_iter().filter(|name| name != WILDCARD))?;
        if self.names.union(&names).count() > NAMES_MAX || held.len() > NAMES_MAX {
            return Err(Wrong::TooManyNames(self.kind));
        }
        for name in names {
            // Who asks again has lost it, or wants it although it was refused.
            self.held.remove(&name);
            self.refused.remove(&name);
            self.names.insert(name);
        }
        self.everything &= !unsubscribe.iter().any(|name| name == WILDCARD);
        for name in unsubscribe {
            self.names.remove(&**name);
        }
        if is_first {
            self.keep(held)?;
        }
        let (wanted, everything) = (&self.names, self.everything);
        let is_wanted = |name: &Arc<str>| everything || wanted.contains(name);
        self.held.retain(|name, _| is_wanted(name));
        self.refused.retain(|name, _| is_wanted(name));
        Ok(())
    }

    /// What the client has from an earlier stream.
    fn keep(&mut self, held: Vec<(String, String)>) -> Result<(), Wrong> {
        for (name, version) in held {
            if name.len() > NAME_MAX || version.len() > VERSION_MAX {
                return Err(Wrong::TooLong(self.kind));
            }
            self.held.insert(name.into(), Held::Kept(version.into()));
        }
        Ok(())
    }

    fn checked(&self, names: impl Iterator<Item = String>) -> Result<BTreeSet<Arc<str>>, Wrong> {
        let names: BTreeSet<Arc<str>> = names.map(Into::into).collect();
        if names.len() > NAMES_MAX {
            return Err(Wrong::TooManyNames(self.kind));
        }
        match names.iter().any(|name| name.len() > NAME_MAX) {
            true => Err(Wrong::TooLong(self.kind)),
            false => Ok(names),
        }
    }

    /// What is to be sent in a step, if anything is.
    pub(super) fn poll(&mut self, world: &World, step: Step, nonce: u64) -> Option<Response> {
        if self.flights.len() >= UNANSWERED_MAX || !self.is_begun {
            return None;
        }
        let (resources, removed) = match (self.is_whole(), step) {
            (true, _) => (self.whole(world, step)?, Vec::new()),
            (false, Step::Make) => self.news(world)?,
            (false, Step::Break) => (Vec::new(), self.gone(world)?),
        };
        let nonce = nonce.to_string();
        self.newest.clone_from(&nonce);
        self.flights.push_back(Flight {
            nonce: nonce.clone(),
            version: world.version_of(self.kind),
            world: world.version().clone(),
            resources: resources.iter().map(versioned).collect(),
        });
        Some(Response {
            kind: self.kind,
            version: world.version_of(self.kind),
            nonce,
            resources,
            removed,
        })
    }

    /// All that the client is to have; in the step of making, with what it has and the world has no more.
    fn whole(&mut self, world: &World, step: Step) -> Option<Vec<Arc<Resource>>> {
        let mut target: Named = self.wanted(world);
        if step == Step::Make {
            for (name, held) in &self.held {
                if let Held::Sent(resource) = held {
                    target
                        .entry(name.clone())
                        .or_insert_with(|| resource.clone());
                }
            }
        }
        let is_same = target.len() == self.held.len()
            && target.iter().all(|(name, resource)| {
                let held = self.held.get(name).and_then(Held::version);
                held == Some(&resource.version)
            });
        if is_same && !self.is_owed {
            return None;
        }
        self.is_owed = false;
        let held = target
            .iter()
            .map(|(name, one)| (name.clone(), Held::Sent(one.clone())));
        self.held = held.collect();
        Some(target.into_values().collect())
    }

    /// What of the world is asked for.
    fn wanted(&self, world: &World) -> Named {
        let named = |resource: &Arc<Resource>| (resource.name.clone(), resource.clone());
        if self.everything {
            return world.resources(self.kind).map(named).collect();
        }
        let names = self.names.iter();
        let found = names.filter_map(|name| world.resource(self.kind, name));
        found.map(named).collect()
    }

    /// A part of what is new or changed, and names that are asked for and do not exist.
    fn news(&mut self, world: &World) -> Option<News> {
        self.forget(world);
        let mut resources = Vec::new();
        while resources.is_empty() {
            let Some(part) = self.again.pop_front() else {
                break;
            };
            resources = self.current(&part, world);
        }
        if resources.is_empty() {
            resources = self.changed(world);
        }
        let removed = match self.variant {
            Variant::Delta => self.missing(world),
            Variant::StateOfTheWorld => Vec::new(),
        };
        if resources.is_empty() && removed.is_empty() {
            return None;
        }
        for resource in &resources {
            let held = Held::Sent(resource.clone());
            self.held.insert(resource.name.clone(), held);
        }
        for name in &removed {
            self.held.insert(name.clone(), Held::Missing);
        }
        Some((resources, removed))
    }

    /// Forgets refusals of what changed since; and in the state of the world, what is no more: nobody is told of that,
    /// and if it comes back it is new.
    fn forget(&mut self, world: &World) {
        let kind = self.kind;
        self.refused.retain(|name, (version, _)| {
            world
                .resource(kind, name)
                .is_some_and(|one| one.version == *version)
        });
        if self.refused.is_empty() && self.again.is_empty() {
            self.error = None;
        }
        if self.variant == Variant::StateOfTheWorld {
            self.held
                .retain(|name, _| world.resource(kind, name).is_some());
        }
    }

    /// Those of a part that are still so.
    fn current(&self, part: &[Versioned], world: &World) -> Vec<Arc<Resource>> {
        let found = part.iter().filter_map(|(name, version)| {
            let resource = world.resource(self.kind, name)?;
            let is_wanted = self.everything || self.names.contains(name);
            (is_wanted && resource.version == *version).then(|| resource.clone())
        });
        found.collect()
    }

    /// As many of those that changed as fit into a response.
    fn changed(&self, world: &World) -> Vec<Arc<Resource>> {
        let mut bytes = 0;
        let due = self.wanted(world).into_values().filter(|resource| {
            let held = self.held.get(&resource.name).and_then(Held::version);
            held != Some(&resource.version)
        });
        let due = due.filter(|resource| {
            let refused = self.refused.get(&resource.name);
            refused.is_none_or(|(version, _)| *version != resource.version)
        });
        let fits = due.take_while(|resource| {
            let is_first = bytes == 0;
            bytes += resource.bytes.len().max(1);
            is_first || bytes <= RESPONSE_BYTES
        });
        fits.collect()
    }

    /// Names that are asked for, do not exist, and were not told.
    fn missing(&self, world: &World) -> Vec<Arc<str>> {
        let names = self.names.iter().filter(|name| {
            world.resource(self.kind, name).is_none() && !self.held.contains_key(*name)
        });
        names.cloned().collect()
    }

    /// What the client has and the world has no more.
    fn gone(&mut self, world: &World) -> Option<Vec<Arc<str>>> {
        if self.variant == Variant::StateOfTheWorld {
            return None;
        }
        let gone = self.held.iter().filter(|(name, held)| {
            held.version().is_some() && world.resource(self.kind, name).is_none()
        });
        let gone: Vec<Arc<str>> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            match self.names.contains(name) {
                true => self.held.insert(name.clone(), Held::Missing),
                false => self.held.remove(name),
            };
        }
        (!gone.is_empty()).then_some(gone)
    }

    pub(super) fn status(&self, world: &World) -> Status {
        let refused = self.refused.iter().take(REFUSED_TOLD_MAX);
        let refused =
            refused.map(|(name, (version, why))| (name.clone(), version.clone(), why.clone()));
        let sent = self
            .held
            .values()
            .filter(|held| held.version().is_some())
            .count();
        Status {
            kind: self.kind,
            everything: self.everything,
            names: self.names.len(),
            sent,
            unanswered: self.flights.len(),
            acknowledged: self.acknowledged.clone(),
            error: self.error.clone(),
            refused: refused.collect(),
            settled: self.is_settled() && self.is_current(world),
        }
    }

    /// Whether the client was sent all that the world has for it, and nothing else.
    pub(super) fn is_current(&self, world: &World) -> bool {
        let wanted = self.wanted(world);
        let has = |(name, resource): (&Arc<str>, &Arc<Resource>)| {
            self.held.get(name).and_then(Held::version) == Some(&resource.version)
        };
        let held = self
            .held
            .values()
            .filter(|held| held.version().is_some())
            .count();
        wanted.len() == held && wanted.iter().all(has)
    }
}

/// Whether a response of the state of the world carries all of the kind: what it leaves out is gone then. Of these kinds
/// everything may be asked for without naming it.
fn is_whole(kind: ResourceType) -> bool {
    kind.absence() == Absence::Removes
}

fn versioned(resource: &Arc<Resource>) -> Versioned {
    (resource.name.clone(), resource.version.clone())
}

/// At most [`ERROR_TEXT_MAX`] bytes of it, in one line.
fn cut(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(ERROR_TEXT_MAX));
    let words: Vec<&str> = error.split_whitespace().collect();
    match words.is_empty() {
        true => "refused without a reason".into(),
        false => words.join(" ").replace(char::is_control, "?"),
    }
}
