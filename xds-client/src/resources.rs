//! All that is known on a stream of a control plane: a subscription for each type, and the graph of what is held.
//! Responses go in, as bytes with names; requests and parts of a configuration come out. Pure: a transport moves the
//! bytes, and says what time it is. What files bring goes the same way; see `files`.

mod decode;
mod files;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    graph::{Graph, Part, State},
    kept::Kept,
    subscription::{Claim, Request, ResourceType, Subscription, Update, Variant},
    translate,
};

pub use files::FileStatus;

use decode::{Decoded, decode, read};
use files::Files;

/// A response as it came: nothing of it is decoded.
#[derive(Clone, Debug, Default)]
pub struct RawResponse {
    /// The type of its resources.
    pub type_url: String,
    /// Its version.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// Its resources.
    pub resources: Vec<RawResource>,
    /// Names of what is no more.
    pub removed: Vec<String>,
}

/// A resource as it came.
#[derive(Clone, Debug, Default)]
pub struct RawResource {
    /// The name that stands beside it; empty in a response of the state of the world.
    pub name: String,
    /// Its version; empty in a response of the state of the world.
    pub version: String,
    /// For how long it is good, if it has an end: seconds and nanoseconds.
    pub ttl: Option<(i64, i32)>,
    /// It has no content: the one of this version lives on.
    pub is_heartbeat: bool,
    /// Its type.
    pub type_url: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Why it could not even be put into bytes, if it came as text.
    pub fault: Option<String>,
}

/// What became of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of it was wrong, or something of it was good.
    Taken,
    /// Nothing of it could be taken, and it was not empty.
    Refused,
}

/// How a type is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStatus {
    /// The type.
    pub resource_type: ResourceType,
    /// The version accepted last.
    pub version: String,
    /// The nonce of the newest response on this stream.
    pub nonce: String,
    /// Responses received.
    pub responses: u64,
    /// Resources accepted.
    pub accepted: u64,
    /// Resources refused.
    pub rejected: u64,
    /// What was wrong with the newest response that was refused in part.
    pub last_error: Option<String>,
    /// Every resource that is held, asked for or was refused, by name.
    pub resources: Vec<ResourceStatus>,
}

/// How a resource is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its name.
    pub name: String,
    /// The version accepted last; empty if there is none.
    pub version: String,
    /// What that one is doing; nothing if there is none.
    pub state: Option<State>,
    /// Why the newest one was refused, if it was.
    pub error: Option<String>,
    /// What is ignored in the one in use.
    pub warnings: Vec<String>,
    /// When the accepted one came.
    pub taken: Option<Duration>,
    /// The version of the one that was refused, and when it came.
    pub refused: Option<(String, Duration)>,
}

/// What is counted, and told of single resources.
#[derive(Debug, Default)]
struct Told {
    responses: u64,
    accepted: u64,
    rejected: u64,
    last_error: Option<String>,
    /// By name: why the newest was refused. No more of them than resources may be held.
    errors: BTreeMap<String, Refusal>,
    /// By name.
    warnings: BTreeMap<String, Vec<String>>,
    /// By name: when the one that is held came.
    taken: BTreeMap<String, Duration>,
}

/// A resource that was refused.
#[derive(Debug)]
struct Refusal {
    why: String,
    version: String,
    at: Duration,
}

impl Told {
    /// A response was taken, or parts of it.
    fn count<T>(&mut self, updates: &[Update<T>], refused: usize, error: Option<&str>) {
        self.responses += 1;
        self.rejected += refused as u64;
        let accepted = updates.iter();
        let accepted = accepted.filter(|one| matches!(one, Update::Set { .. }));
        self.accepted += accepted.count() as u64;
        if let Some(error) = error {
            self.last_error = Some(error.to_owned());
        }
    }

    /// Nobody wants to know of a resource any more.
    fn forget(&mut self, name: &str) {
        self.errors.remove(name);
        self.warnings.remove(name);
        self.taken.remove(name);
    }
}

/// All that is known.
#[derive(Debug)]
pub struct Resources {
    /// On the stream, in the order of [`ResourceType::ALL`], which is the order of requests.
    subscriptions: Vec<Subscription>,
    /// Whether there is to be a stream: what could only come by it is missing otherwise.
    is_streamed: bool,
    files: Files,
    told: BTreeMap<ResourceType, Told>,
    graph: Graph,
    /// What the stream brought and was accepted.
    kept: Kept,
    /// Clusters that the file brings.
    of_file: Arc<BTreeSet<Arc<str>>>,
}

impl Resources {
    /// Nothing yet; everything of listeners and clusters is wanted, and what they refer to.
    pub fn new(variant: Variant, of_file: Arc<BTreeSet<Arc<str>>>) -> Resources {
        let subscription = |resource_type| Subscription::usual(resource_type, variant);
        Resources {
            subscriptions: ResourceType::ALL.map(subscription).into(),
            is_streamed: true,
            files: Files::default(),
            told: ResourceType::ALL.map(|one| (one, Told::default())).into(),
            graph: Graph::default(),
            kept: Kept::default(),
            of_file,
        }
    }

    /// What the stream brought, was accepted and is held, as it came.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Holds what was kept in an earlier life, as far as it is taken today. How much that was.
    pub fn restore(&mut self, kept: Vec<RawResource>, now: Duration) -> usize {
        let mut restored = 0;
        // What others refer to is asked for by them, so that they come first.
        for resource_type in [
            ResourceType::Cluster,
            ResourceType::Listener,
            ResourceType::Endpoint,
            ResourceType::Route,
        ] {
            let of_type = kept.iter();
            for raw in of_type.filter(|raw| raw.type_url == resource_type.url()) {
                let told = self.told.entry(resource_type).or_default();
                let read = read(resource_type, raw, told, None, now);
                let Ok(value) = read.value else { continue };
                let subscription = self.subscription(resource_type);
                if !subscription.is_some_and(|one| one.restore(&read.name, &raw.version)) {
                    continue;
                }
                restored += 1;
                let name = read.name;
                let until = read.ttl.map(|ttl| now.saturating_add(ttl));
                if let (Some(ttl), Some(subscription)) =
                    (read.ttl, self.subscription(resource_type))
                {
                    subscription.good_for(&name, ttl, now);
                }
                self.kept.put(resource_type, &name, raw.clone(), until);
                self.apply(resource_type, vec![Update::Set { name, value }]);
            }
        }
        restored
    }

    /// A stream was made.
    pub fn connected(&mut self, claim: Claim) {
        self.subscriptions
            .iter_mut()
            .for_each(|one| one.connected(claim));
    }

    /// It broke.
    pub fn disconnected(&mut self) {
        self.subscriptions
            .iter_mut()
            .for_each(Subscription::disconnected);
    }

    /// Whether the file has other clusters now: these.
    pub fn file_changed(&mut self, of_file: Arc<BTreeSet<Arc<str>>>) -> bool {
        let is_other = self.of_file != of_file;
        if is_other {
            self.of_file = of_file;
            self.graph.file_changed();
        }
        is_other
    }

    /// Asks for the endpoints of a cluster again; whether there is a server to ask, and they come from it.
    pub fn ask_again(&mut self, cluster: &str) -> bool {
        let Some(assignment) = self.graph.assignment(cluster) else {
            return false;
        };
        self.subscription(ResourceType::Endpoint)
            .is_some_and(|one| one.ask_again(&assignment))
    }

    /// Whether [`Self::poll_request`] has something to send.
    pub fn is_due(&self) -> bool {
        self.subscriptions.iter().any(Subscription::is_due)
    }

    /// Responses that wait for their answer.
    pub fn unanswered(&self) -> usize {
        self.subscriptions
            .iter()
            .map(Subscription::unanswered)
            .sum()
    }

    /// The request to send now, if one is due: clusters before endpoints before listeners before routes.
    pub fn poll_request(&mut self, now: Duration) -> Option<Request> {
        self.subscriptions
            .iter_mut()
            .find_map(|one| one.poll_request(now))
    }

    /// Takes a response in. Its answer is due then, and what it refers to is asked for.
    ///
    /// # Errors
    ///
    /// The type that it is of, if nobody asked for that.
    pub fn receive(&mut self, response: RawResponse, now: Duration) -> Result<Verdict, String> {
        let of_type = |one: &&mut Subscription| one.resource_type().url() == response.type_url;
        let Some(subscription) = self.subscriptions.iter_mut().find(of_type) else {
            return Err(response.type_url);
        };
        let resource_type = subscription.resource_type();
        let told = self.told.entry(resource_type).or_default();
        let Decoded {
            response,
            raw,
            refused,
        } = decode(resource_type, response, told, None, now);
        let updates = subscription.receive(response, now);
        told.count(&updates, refused, subscription.error());
        let is_refused_in_part = subscription.error().is_some();
        let verdict = match is_refused_in_part && updates.is_empty() {
            true => Verdict::Refused,
            false => Verdict::Taken,
        };
        (self.kept).accept(resource_type, &updates, raw, subscription.expiries());
        self.apply(resource_type, updates);
        Ok(verdict)
    }

    /// Whether anything that is asked for is not held, so that a server has something to say.
    pub fn lacks(&self) -> bool {
        self.subscriptions.iter().any(Subscription::lacks)
    }

    /// When [`Self::elapsed`] wants to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let missing = self.subscriptions.iter().filter_map(Subscription::deadline);
        let missing = missing.chain(self.files.deadline());
        missing.chain(self.graph.deadline()).min()
    }

    /// Time passed.
    pub fn elapsed(&mut self, now: Duration) {
        let mut updates: Vec<(ResourceType, Vec<_>)> = Vec::new();
        for subscription in &mut self.subscriptions {
            updates.push((subscription.resource_type(), subscription.elapsed(now)));
        }
        updates.extend(self.files.elapsed(now));
        for (resource_type, updates) in updates {
            self.apply(resource_type, updates);
        }
    }

    /// The part of the configuration, if it is another than before.
    pub fn poll(&mut self, now: Duration) -> Option<Part> {
        self.graph.poll(now, &self.of_file)
    }

    /// How each type is doing.
    pub fn status(&self) -> Vec<TypeStatus> {
        ResourceType::ALL.map(|one| self.status_of(one)).into()
    }

    /// Clusters that routes name and that do not exist.
    pub fn unknown_clusters(&self) -> Vec<Arc<str>> {
        self.graph.placeholders().iter().cloned().collect()
    }

    fn status_of(&self, resource_type: ResourceType) -> TypeStatus {
        let of_type = |one: &&Subscription| one.resource_type() == resource_type;
        let subscription = self.subscriptions.iter().find(of_type);
        let nothing = Told::default();
        let told = self.told.get(&resource_type).unwrap_or(&nothing);
        // By name: the version that is held, if one is.
        let mut known: BTreeMap<String, Option<&String>> = self.files.known(resource_type);
        if let Some(one) = subscription {
            known.extend(one.names().iter().map(|name| (name.clone(), None)));
            let held = one.held().iter();
            known.extend(held.map(|(name, version)| (name.clone(), Some(version))));
        }
        for name in told.errors.keys() {
            known.entry(name.clone()).or_default();
        }
        let resources = known.into_iter().map(|(name, version)| {
            let state = self.graph.state(resource_type, &name);
            ResourceStatus {
                version: version.cloned().unwrap_or_default(),
                state: (version.is_some() || state == State::Missing).then_some(state),
                error: told.errors.get(&name).map(|one| one.why.clone()),
                warnings: told.warnings.get(&name).cloned().unwrap_or_default(),
                taken: told.taken.get(&name).copied(),
                refused: told
                    .errors
                    .get(&name)
                    .map(|one| (one.version.clone(), one.at)),
                name,
            }
        });
        TypeStatus {
            resource_type,
            version: subscription.map_or(String::new(), |one| one.version().to_owned()),
            nonce: subscription.map_or(String::new(), |one| one.nonce().to_owned()),
            responses: told.responses,
            accepted: told.accepted,
            rejected: told.rejected,
            last_error: told.last_error.clone(),
            resources: resources.collect(),
        }
    }

    fn apply(&mut self, resource_type: ResourceType, updates: Vec<Update<translate::Resource>>) {
        if updates.is_empty() {
            return;
        }
        for update in updates {
            if let (Update::Removed { name } | Update::Expired { name }, Some(told)) =
                (&update, self.told.get_mut(&resource_type))
            {
                told.forget(name);
                self.kept.remove(resource_type, name);
            }
            self.graph.apply(resource_type, update);
        }
        let refers_to = match resource_type {
            ResourceType::Cluster => ResourceType::Endpoint,
            ResourceType::Listener => ResourceType::Route,
            ResourceType::Endpoint | ResourceType::Route => return,
        };
        let wanted = self.graph.wanted(refers_to);
        let Some(subscription) = self.subscription(refers_to) else {
            return;
        };
        let gone = subscription.want(&wanted);
        if let Some(told) = self.told.get_mut(&refers_to) {
            for name in gone {
                told.forget(&name);
                self.kept.remove(refers_to, &name);
            }
        }
        if !self.is_streamed {
            self.nobody_brings(refers_to, &wanted);
        }
        self.follow_files(refers_to);
    }

    /// That of a type on the stream, unless the type comes from a file.
    fn subscription(&mut self, resource_type: ResourceType) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|one| one.resource_type() == resource_type)
    }
}

#[cfg(test)]
mod tests;
