//! One resource type on one xDS stream: which names are wanted, what was accepted, what is sent next. Events go in
//! ([`Subscription::subscribe`], [`Subscription::receive`], [`Subscription::connected`],
//! [`Subscription::elapsed`]), requests and updates come out. Both variants of the protocol are here: they differ in
//! how a request is put and in what removes a resource, and share all else.
//!
//! The machine does not decode: a resource arrives as a name and either a validated value or the reason
//! why it was refused. It does not reconnect either: the transport says when a stream is up or down. What may be used
//! of what was accepted is the business of the [graph](crate::graph).
//!
//! Source of the rules: Envoy's `xds_protocol.rst`, and gRPC proposals A46 (partial acceptance) and A57
//! (the timer for missing resources).

mod message;
mod nack;
mod resource_type;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

pub use message::{Heartbeat, Request, Resource, Response, Update, Wanted};
pub use resource_type::{Absence, ResourceType, Variant};

use nack::ErrorText;

/// How long a named resource may stay unanswered before it counts as missing (A57). Only connected
/// time counts.
pub const MISSING_AFTER: Duration = Duration::from_secs(15);

/// Resources in one response. A control plane with more is broken, or not ours: at 100,000 the names
/// alone are some 10 MB.
pub const RESOURCES_MAX: usize = 100_000;

/// Bytes of the error text in a NACK. It travels in a gRPC message and lands in the log of the control
/// plane; past the first few resources it says nothing new.
pub const ERROR_TEXT_MAX: usize = 4096;

/// The subscription to one resource type.
#[derive(Debug)]
pub struct Subscription {
    resource_type: ResourceType,
    variant: Variant,
    /// Whether everything is wanted. A flag of its own: an empty set of names means "nothing any more"
    /// once a name was sent on the stream.
    wildcard: bool,
    names: BTreeSet<String>,
    /// The accepted resources with their versions. Invariant: of a named subscription, a subset of `names`.
    held: BTreeMap<String, String>,
    /// Until when those of `held` are good that have an end. It is kept while no stream is up, too: that is
    /// what an end is for.
    expiries: BTreeMap<String, Duration>,
    /// The version accepted last, over all streams.
    version: String,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Down,
    Up(Up),
}

/// What a new stream says of what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Its versions, so that only what changed comes again.
    #[default]
    Versions,
    /// Its names alone, so that all of it comes again, and what is no more is told.
    Names,
}

/// What is said on a stream.
#[derive(Debug, Default)]
struct Up {
    /// The nonce of the newest response.
    nonce: String,
    /// Why it was refused.
    error: Option<String>,
    /// Responses that wait for their answer, with why they were refused. Delta alone: there each has its own. Its
    /// bound is the transport's, which reads no further while there are many.
    unanswered: VecDeque<(String, Option<String>)>,
    /// What the first request says of what is held.
    claim: Claim,
    /// A request is due, whatever is unanswered.
    due: bool,
    /// A request went out on this stream: from then on an empty set of names has to be said.
    spoken: bool,
    /// Names that the server knows to be wanted. Delta alone.
    told: BTreeSet<String>,
    /// Names that were asked for and not answered, with the time at which they count as missing.
    waiting: BTreeMap<String, Duration>,
}

impl Subscription {
    /// A subscription to what is asked for of a type: everything where absence removes, names of others.
    pub fn usual(resource_type: ResourceType, variant: Variant) -> Self {
        match resource_type.absence() {
            Absence::Removes => Self::wildcard(resource_type, variant),
            Absence::Keeps => Self::named(resource_type, variant),
        }
    }

    /// A subscription to single resources by name.
    pub fn named(resource_type: ResourceType, variant: Variant) -> Self {
        Self::new(resource_type, variant, false)
    }

    /// A subscription to everything of a type.
    pub fn wildcard(resource_type: ResourceType, variant: Variant) -> Self {
        Self::new(resource_type, variant, true)
    }

    fn new(resource_type: ResourceType, variant: Variant, wildcard: bool) -> Self {
        Subscription {
            resource_type,
            variant,
            wildcard,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            expiries: BTreeMap::new(),
            version: String::new(),
            stream: Stream::Down,
        }
    }

    /// The type.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// The version accepted last; empty before the first.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The nonce of the newest response on this stream.
    pub fn nonce(&self) -> &str {
        match &self.stream {
            Stream::Down => "",
            Stream::Up(up) => &up.nonce,
        }
    }

    /// Why the newest response on this stream was refused, wholly or in part.
    pub fn error(&self) -> Option<&str> {
        match &self.stream {
            Stream::Down => None,
            Stream::Up(up) => up.error.as_deref(),
        }
    }

    /// The accepted resources with their versions.
    pub fn held(&self) -> &BTreeMap<String, String> {
        &self.held
    }

    /// Whether a resource of this name was accepted and not removed since.
    pub fn holds(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// The names that are asked for.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Asks for a resource.
    pub fn subscribe(&mut self, name: &str) {
        if self.names.insert(name.to_owned()) {
            self.request_is_due();
        }
    }

    /// Holds a resource that was accepted in an earlier life. Whether it is held then: it has to be asked for.
    pub fn restore(&mut self, name: &str, version: &str) -> bool {
        let takes = self.wants(name) && !self.is_full(name);
        if takes {
            self.held.insert(name.to_owned(), version.to_owned());
        }
        takes
    }

    /// What was restored is good for so long.
    pub fn good_for(&mut self, name: &str, ttl: Duration, now: Duration) {
        if self.holds(name) {
            self.set_expiry(name, Some(ttl), now);
        }
    }

    /// Until when those that have an end are good.
    pub fn expiries(&self) -> &BTreeMap<String, Duration> {
        &self.expiries
    }

    /// Asks for these names, and for no others. Those that are no longer asked for.
    pub fn want<N: Borrow<str> + Ord>(&mut self, wanted: &BTreeSet<N>) -> Vec<String> {
        let gone = self.names.iter();
        let gone = gone.filter(|name| !wanted.contains(name.as_str()));
        let gone: Vec<String> = gone.cloned().collect();
        gone.iter().for_each(|name| self.unsubscribe(name));
        wanted.iter().for_each(|name| self.subscribe(name.borrow()));
        gone
    }

    /// No longer asks for a resource; what was held under the name is forgotten without an update,
    /// since the caller has just let go of it.
    pub fn unsubscribe(&mut self, name: &str) {
        if !self.names.remove(name) {
            return;
        }
        if !self.wildcard {
            self.held.remove(name);
            self.expiries.remove(name);
        }
        if let Stream::Up(up) = &mut self.stream {
            up.waiting.remove(name);
        }
        self.request_is_due();
    }

    /// Asks for a resource again that is asked for already: a server that lives answers (in delta it has to), and
    /// whoever calls sees to it that one that does not is left.
    /// Whether there is anybody to ask.
    pub fn ask_again(&mut self, name: &str) -> bool {
        match &mut self.stream {
            Stream::Up(up) if self.names.contains(name) => {
                up.told.remove(name);
                up.due = true;
                true
            }
            _ => false,
        }
    }

    /// Whether anything that is asked for is not held, so that a server has something to say.
    pub fn lacks(&self) -> bool {
        let lacks_all = self.wildcard && self.held.is_empty();
        lacks_all || self.names.iter().any(|name| !self.held.contains_key(name))
    }

    /// A stream was made. Nonces are valid on their stream only, so that the first request repeats the
    /// names and what was accepted with an empty nonce.
    ///
    /// With [`Claim::Names`] a server that lives has to answer.
    pub fn connected(&mut self, claim: Claim) {
        self.stream = Stream::Up(Up {
            due: self.wildcard || !self.names.is_empty(),
            claim,
            ..Up::default()
        });
    }

    /// The stream broke. What was accepted stays in use; nothing is missing while nobody can answer.
    pub fn disconnected(&mut self) {
        self.stream = Stream::Down;
    }

    /// Whether [`Self::poll_request`] has something to send.
    pub fn is_due(&self) -> bool {
        match &self.stream {
            Stream::Down => false,
            Stream::Up(up) => up.due || !up.unanswered.is_empty(),
        }
    }

    /// Responses that wait for their answer.
    pub fn unanswered(&self) -> usize {
        match &self.stream {
            Stream::Down => 0,
            Stream::Up(up) => up.unanswered.len(),
        }
    }

    /// The request to send now, if one is due. Whatever changed since the last call goes into one. To be called
    /// until there is none.
    pub fn poll_request(&mut self, now: Duration) -> Option<Request> {
        let Stream::Up(up) = &mut self.stream else {
            return None;
        };
        let due = std::mem::take(&mut up.due);
        let answered = up.unanswered.pop_front();
        if !due && answered.is_none() {
            return None;
        }
        for name in self
            .names
            .iter()
            .filter(|name| !self.held.contains_key(*name))
        {
            up.waiting
                .entry(name.clone())
                .or_insert(now.saturating_add(MISSING_AFTER));
        }
        let (nonce, error) = match self.variant {
            Variant::StateOfTheWorld => (up.nonce.clone(), up.error.clone()),
            Variant::Delta => answered.unwrap_or_default(),
        };
        let is_first = !std::mem::replace(&mut up.spoken, true);
        let wanted = match self.variant {
            Variant::StateOfTheWorld => Wanted::Names {
                version: match up.claim {
                    Claim::Names if is_first => String::new(),
                    _ => self.version.clone(),
                },
                names: with_wildcard(self.wildcard, self.names.iter().cloned().collect()),
            },
            Variant::Delta => {
                let subscribe: Vec<String> = self.names.difference(&up.told).cloned().collect();
                let unsubscribe = up.told.difference(&self.names).cloned().collect();
                up.told.clone_from(&self.names);
                Wanted::Changes {
                    // Later a list that names resources leaves the wildcard as it is.
                    subscribe: with_wildcard(self.wildcard && is_first, subscribe),
                    unsubscribe,
                    versions: match up.claim {
                        _ if !is_first => BTreeMap::new(),
                        Claim::Versions => self.held.clone(),
                        Claim::Names => {
                            let names = self.held.keys();
                            names.map(|name| (name.clone(), String::new())).collect()
                        }
                    },
                }
            }
        };
        Some(Request {
            resource_type: self.resource_type,
            nonce,
            error,
            wanted,
        })
    }

    /// Takes a response in: returns what changed, and makes the ACK or NACK due. Good resources of a
    /// response are taken even when others of it are refused (A46). A refused resource keeps its last
    /// good value, whatever its type says about absence.
    pub fn receive<T>(&mut self, response: Response<T>, now: Duration) -> Vec<Update<T>> {
        if let Stream::Down = self.stream {
            // A response of a stream that is gone.
            return Vec::new();
        }
        let (version, nonce) = (response.version.clone(), response.nonce.clone());
        let (updates, error) = self.apply(response, now);
        if error.is_none() {
            self.version = version;
        }
        if let Stream::Up(up) = &mut self.stream {
            up.nonce.clone_from(&nonce);
            up.error.clone_from(&error);
            match self.variant {
                Variant::StateOfTheWorld => up.due = true,
                Variant::Delta => up.unanswered.push_back((nonce, error)),
            }
            for update in &updates {
                match update {
                    Update::Set { name, .. } => {
                        up.waiting.remove(name);
                    }
                    Update::Missing { name } => {
                        up.waiting.insert(name.clone(), Duration::MAX);
                    }
                    Update::Removed { .. } | Update::Expired { .. } => {}
                }
            }
        }
        updates
    }

    /// When [`Self::elapsed`] wants to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let missing = match &self.stream {
            Stream::Down => None,
            Stream::Up(up) => up.waiting.values().min(),
        };
        let deadline = missing.into_iter().chain(self.expiries.values()).min();
        deadline
            .copied()
            .filter(|deadline| *deadline < Duration::MAX)
    }

    /// Time passed: what has come to its end, and names whose answer is overdue. Each is told once per stream.
    pub fn elapsed<T>(&mut self, now: Duration) -> Vec<Update<T>> {
        let mut updates = self.expire(now);
        let Stream::Up(up) = &mut self.stream else {
            return updates;
        };
        let overdue: Vec<String> = up
            .waiting
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &overdue {
            // Kept with an unreachable deadline, so that the next request does not start the timer anew.
            up.waiting.insert(name.clone(), Duration::MAX);
        }
        let missing = overdue.into_iter().map(|name| Update::Missing { name });
        updates.extend(missing);
        updates
    }

    /// Forgets what has come to its end, so that a new stream does not claim to hold it.
    fn expire<T>(&mut self, now: Duration) -> Vec<Update<T>> {
        let is_over = |(name, end): (&String, &Duration)| (*end <= now).then(|| name.clone());
        let over: Vec<String> = self.expiries.iter().filter_map(is_over).collect();
        for name in &over {
            self.forget(name);
            if let Stream::Up(up) = &mut self.stream {
                // It has not gone missing: nobody is asked for it anew.
                up.waiting.insert(name.clone(), Duration::MAX);
            }
        }
        over.into_iter()
            .map(|name| Update::Expired { name })
            .collect()
    }

    /// Whether it was held.
    fn forget(&mut self, name: &str) -> bool {
        self.expiries.remove(name);
        self.held.remove(name).is_some()
    }

    /// A resource that comes without an end has none any more.
    fn set_expiry(&mut self, name: &str, ttl: Option<Duration>, now: Duration) {
        match ttl {
            Some(ttl) => drop(
                self.expiries
                    .insert(name.to_owned(), now.saturating_add(ttl)),
            ),
            None => drop(self.expiries.remove(name)),
        }
    }

    /// The changes that a response makes, and the text of the NACK if any of it is refused.
    fn apply<T>(
        &mut self,
        response: Response<T>,
        now: Duration,
    ) -> (Vec<Update<T>>, Option<String>) {
        let Response {
            resources,
            heartbeats,
            removed,
            ..
        } = response;
        let mut refused = ErrorText::default();
        let count = resources.len() + heartbeats.len() + removed.len();
        if count > RESOURCES_MAX {
            refused.add(
                "",
                format_args!("{count} resources, at most {RESOURCES_MAX}"),
            );
            return (Vec::new(), refused.finish());
        }
        let mut seen = BTreeSet::new();
        let mut updates = Vec::new();
        for resource in resources {
            let Resource {
                name,
                version,
                ttl,
                value,
            } = resource;
            if !name.is_empty() && !seen.insert(name.clone()) {
                // Which of the two is meant cannot be known; the first one was taken.
                refused.add(&name, format_args!("named twice in one response"));
                continue;
            }
            match value {
                Err(reason) => {
                    // What has no name may be any of those that are held: none of them is gone.
                    if name.is_empty() {
                        seen.extend(self.held.keys().cloned());
                    }
                    refused.add(&name, format_args!("{reason}"));
                }
                // A server may send more than was asked for; it is not an error, and not ours.
                Ok(_) if !self.wants(&name) => {}
                Ok(_) if self.is_full(&name) => {
                    let most = self.resource_type.held_max();
                    refused.add(
                        &name,
                        format_args!("there are {most} already, and no more are taken"),
                    );
                }
                Ok(value) => {
                    self.set_expiry(&name, ttl, now);
                    self.held.insert(name.clone(), version);
                    updates.push(Update::Set { name, value });
                }
            }
        }
        for Heartbeat { name, version, ttl } in heartbeats {
            if !seen.insert(name.clone()) {
                refused.add(&name, format_args!("named twice in one response"));
            } else if self.held.get(&name) == Some(&version) {
                self.set_expiry(&name, ttl, now);
            } else if self.wants(&name) {
                // It is to live on, and is not here.
                let reason = format_args!("has no content, and version `{version}` is not held");
                refused.add(&name, reason);
            }
        }
        for name in removed {
            if !seen.insert(name.clone()) {
                refused.add(&name, format_args!("named twice in one response"));
            } else if self.forget(&name) {
                updates.push(Update::Removed { name });
            } else if self.names.contains(&name) {
                updates.push(Update::Missing { name });
            }
        }
        if self.variant == Variant::StateOfTheWorld
            && self.resource_type.absence() == Absence::Removes
        {
            let gone = self.held.keys().filter(|name| !seen.contains(*name));
            let gone: Vec<String> = gone.cloned().collect();
            for name in gone {
                self.forget(&name);
                updates.push(Update::Removed { name });
            }
        }
        (updates, refused.finish())
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn is_full(&self, name: &str) -> bool {
        self.held.len() >= self.resource_type.held_max() && !self.holds(name)
    }

    fn request_is_due(&mut self) {
        let nothing_wanted = !self.wildcard && self.names.is_empty();
        if let Stream::Up(up) = &mut self.stream {
            // Before the first request an empty list would mean "everything" (legacy wildcard). In delta, what comes
            // and goes between two requests is nothing to say.
            up.due = match self.variant {
                Variant::StateOfTheWorld => up.spoken || !nothing_wanted,
                Variant::Delta => {
                    up.told != self.names || (!up.spoken && (self.wildcard || !nothing_wanted))
                }
            };
        }
    }
}

/// A list that names resources must name the wildcard too, or it ends it.
fn with_wildcard(wildcard: bool, mut names: Vec<String>) -> Vec<String> {
    if wildcard && !names.is_empty() {
        names.insert(0, "*".to_owned());
    }
    names
}

#[cfg(test)]
mod tests;
