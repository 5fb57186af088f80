//! One resource type on one xDS stream, state-of-the-world variant: which names are wanted, what was
//! accepted, what is sent next. Events go in ([`Subscription::subscribe`], [`Subscription::receive`],
//! [`Subscription::connected`], [`Subscription::elapsed`]), requests and updates come out.
//!
//! The machine does not decode: a resource arrives as a name and either a validated value or the reason
//! why it was refused. It does not reconnect either: the transport says when a stream is up or down.
//! The delta variant, TTLs and warming are not here yet.
//!
//! Source of the rules: Envoy's `xds_protocol.rst`, and gRPC proposals A46 (partial acceptance) and A57
//! (the timer for missing resources).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// How long a named resource may stay unanswered before it counts as missing (A57). Only connected
/// time counts.
pub const MISSING_AFTER: Duration = Duration::from_secs(15);

/// Resources in one response. A control plane with more is broken, or not ours: at 100,000 the names
/// alone are some 10 MB.
pub const RESOURCES_MAX: usize = 100_000;

/// Bytes of the error text in a NACK. It travels in a gRPC message and lands in the log of the control
/// plane; past the first few resources it says nothing new.
pub const ERROR_TEXT_MAX: usize = 4096;

/// The kinds of resources this proxy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoint,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`
    Secret,
}

impl ResourceType {
    /// Every type, in the order in which they are made before they are used (make before break).
    pub const ALL: [ResourceType; 5] = [
        ResourceType::Cluster,
        ResourceType::Endpoint,
        ResourceType::Listener,
        ResourceType::Route,
        ResourceType::Secret,
    ];

    /// The URL that names the type on the wire.
    pub const fn url(self) -> &'static str {
        match self {
            ResourceType::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ResourceType::Endpoint => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            ResourceType::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            ResourceType::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            ResourceType::Secret => {
                "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
            }
        }
    }

    /// What a resource's absence from a response means.
    pub const fn absence(self) -> Absence {
        match self {
            ResourceType::Cluster | ResourceType::Listener => Absence::Removes,
            ResourceType::Endpoint | ResourceType::Route | ResourceType::Secret => Absence::Keeps,
        }
    }
}

/// What it means that a response leaves a resource out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is gone: responses of this type carry everything.
    Removes,
    /// Nothing: it goes when its parent does.
    Keeps,
}

/// What to send: a `DiscoveryRequest` without `node`, which the transport adds to the first of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The type.
    pub resource_type: ResourceType,
    /// The version accepted last; empty before the first.
    pub version: String,
    /// The nonce of the newest response on this stream; empty before the first.
    pub nonce: String,
    /// The names wanted, ascending; empty is "everything" for a wildcard subscription and "nothing any
    /// more" for a named one.
    pub names: Vec<String>,
    /// Why the newest response was refused, wholly or in part: this request is a NACK.
    pub error: Option<String>,
}

/// A received and decoded `DiscoveryResponse`.
#[derive(Clone, Debug)]
pub struct Response<T> {
    /// Its version.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// Its resources, each validated or refused.
    pub resources: Vec<Resource<T>>,
}

/// One resource of a response.
#[derive(Clone, Debug)]
pub struct Resource<T> {
    /// Its name; empty if not even that could be read.
    pub name: String,
    /// The value, or why it was refused.
    pub value: Result<T, String>,
}

/// What changed for whoever uses the resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update<T> {
    /// The resource is now this.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: T,
    },
    /// The resource is no more.
    Removed {
        /// Its name.
        name: String,
    },
    /// The server has not sent it in time: it is taken not to exist, until it comes.
    Missing {
        /// Its name.
        name: String,
    },
}

/// The subscription to one resource type.
#[derive(Debug)]
pub struct Subscription {
    resource_type: ResourceType,
    /// Whether everything is wanted. A flag of its own: an empty set of names means "nothing any more"
    /// once a name was sent on the stream.
    wildcard: bool,
    names: BTreeSet<String>,
    /// Names of the accepted resources. Invariant: of a named subscription, a subset of `names`.
    held: BTreeSet<String>,
    /// The version accepted last, over all streams.
    version: String,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Down,
    Up {
        nonce: String,
        /// Why the newest response was refused.
        error: Option<String>,
        /// A request is due.
        due: bool,
        /// A request went out on this stream: from then on an empty set of names has to be said.
        spoken: bool,
        /// Names that were asked for and not answered, with the time at which they count as missing.
        waiting: BTreeMap<String, Duration>,
    },
}

impl Subscription {
    /// A subscription to single resources by name.
    pub fn named(resource_type: ResourceType) -> Self {
        Self::new(resource_type, false)
    }

    /// A subscription to everything of a type.
    pub fn wildcard(resource_type: ResourceType) -> Self {
        Self::new(resource_type, true)
    }

    fn new(resource_type: ResourceType, wildcard: bool) -> Self {
        Subscription {
            resource_type,
            wildcard,
            names: BTreeSet::new(),
            held: BTreeSet::new(),
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

    /// Whether a resource of this name was accepted and not removed since.
    pub fn holds(&self, name: &str) -> bool {
        self.held.contains(name)
    }

    /// Asks for a resource.
    pub fn subscribe(&mut self, name: &str) {
        if self.names.insert(name.to_owned()) {
            self.request_is_due();
        }
    }

    /// No longer asks for a resource; what was held under the name is forgotten without an update,
    /// since the caller has just let go of it.
    pub fn unsubscribe(&mut self, name: &str) {
        if !self.names.remove(name) {
            return;
        }
        if !self.wildcard {
            self.held.remove(name);
        }
        if let Stream::Up { waiting, .. } = &mut self.stream {
            waiting.remove(name);
        }
        self.request_is_due();
    }

    /// A stream was made. Nonces are valid on their stream only, so that the first request repeats the
    /// names and the accepted version with an empty nonce.
    pub fn connected(&mut self) {
        self.stream = Stream::Up {
            nonce: String::new(),
            error: None,
            due: self.wildcard || !self.names.is_empty(),
            spoken: false,
            waiting: BTreeMap::new(),
        };
    }

    /// The stream broke. What was accepted stays in use; nothing is missing while nobody can answer.
    pub fn disconnected(&mut self) {
        self.stream = Stream::Down;
    }

    /// The request to send now, if one is due. Whatever changed since the last call goes into one.
    pub fn poll_request(&mut self, now: Duration) -> Option<Request> {
        let Stream::Up {
            nonce,
            error,
            due,
            spoken,
            waiting,
        } = &mut self.stream
        else {
            return None;
        };
        if !std::mem::take(due) {
            return None;
        }
        *spoken = true;
        for name in self.names.difference(&self.held) {
            waiting
                .entry(name.clone())
                .or_insert(now.saturating_add(MISSING_AFTER));
        }
        let mut names: Vec<String> = self.names.iter().cloned().collect();
        if self.wildcard && !names.is_empty() {
            // A list that names resources must name the wildcard too, or it ends it.
            names.insert(0, "*".to_owned());
        }
        Some(Request {
            resource_type: self.resource_type,
            version: self.version.clone(),
            nonce: nonce.clone(),
            names,
            error: error.clone(),
        })
    }

    /// Takes a response in: returns what changed, and makes the ACK or NACK due. Good resources of a
    /// response are taken even when others of it are refused (A46). A refused resource keeps its last
    /// good value, whatever its type says about absence.
    pub fn receive<T>(&mut self, response: Response<T>) -> Vec<Update<T>> {
        let Stream::Up { due, .. } = &mut self.stream else {
            // A response of a stream that is gone.
            return Vec::new();
        };
        *due = true;
        let (updates, error) = self.apply(response.resources);
        if error.is_none() {
            self.version = response.version;
        }
        if let Stream::Up {
            nonce,
            error: last_error,
            waiting,
            ..
        } = &mut self.stream
        {
            *nonce = response.nonce;
            *last_error = error;
            for update in &updates {
                if let Update::Set { name, .. } = update {
                    waiting.remove(name);
                }
            }
        }
        updates
    }

    /// When [`Self::elapsed`] wants to be called, if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.stream {
            Stream::Down => None,
            Stream::Up { waiting, .. } => waiting.values().min().copied(),
        }
    }

    /// Time passed: names whose answer is overdue. Each is told once per stream.
    pub fn elapsed<T>(&mut self, now: Duration) -> Vec<Update<T>> {
        let Stream::Up { waiting, .. } = &mut self.stream else {
            return Vec::new();
        };
        let overdue: Vec<String> = waiting
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &overdue {
            // Kept with an unreachable deadline, so that the next request does not start the timer anew.
            waiting.insert(name.clone(), Duration::MAX);
        }
        overdue
            .into_iter()
            .map(|name| Update::Missing { name })
            .collect()
    }

    /// The changes that `resources` make, and the text of the NACK if any of them is refused.
    fn apply<T>(&mut self, resources: Vec<Resource<T>>) -> (Vec<Update<T>>, Option<String>) {
        let mut refused = ErrorText::default();
        if resources.len() > RESOURCES_MAX {
            refused.add(
                "",
                format_args!("{} resources, at most {RESOURCES_MAX}", resources.len()),
            );
            return (Vec::new(), refused.finish());
        }
        let mut seen = BTreeSet::new();
        let mut updates = Vec::new();
        for Resource { name, value } in resources {
            if !seen.insert(name.clone()) {
                // Which of the two is meant cannot be known; the first one was taken.
                refused.add(&name, format_args!("named twice in one response"));
                continue;
            }
            match value {
                Err(reason) => refused.add(&name, format_args!("{reason}")),
                // A server may send more than was asked for; it is not an error, and not ours.
                Ok(_) if !self.wants(&name) => {}
                Ok(value) => {
                    self.held.insert(name.clone());
                    updates.push(Update::Set { name, value });
                }
            }
        }
        if self.resource_type.absence() == Absence::Removes {
            let gone: Vec<String> = self.held.difference(&seen).cloned().collect();
            for name in gone {
                self.held.remove(&name);
                updates.push(Update::Removed { name });
            }
        }
        (updates, refused.finish())
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn request_is_due(&mut self) {
        let nothing_wanted = !self.wildcard && self.names.is_empty();
        if let Stream::Up { due, spoken, .. } = &mut self.stream {
            // Before the first request an empty list would mean "everything" (legacy wildcard).
            *due = *spoken || !nothing_wanted;
        }
    }
}

/// The text of a NACK: `name: reason`, one a line, cut at [`ERROR_TEXT_MAX`].
#[derive(Default)]
struct ErrorText {
    text: String,
    left_out: usize,
}

impl ErrorText {
    fn add(&mut self, name: &str, reason: fmt::Arguments<'_>) {
        let name = if name.is_empty() { "(no name)" } else { name };
        let line = format!("{name}: {reason}");
        // Room is kept for the last line, which counts what was left out.
        if self.text.len() + line.len() + 32 > ERROR_TEXT_MAX {
            self.left_out += 1;
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&line);
    }

    fn finish(mut self) -> Option<String> {
        if self.left_out > 0 {
            self.text.push_str(&format!("\nand {} more", self.left_out));
        }
        (!self.text.is_empty()).then_some(self.text)
    }
}

#[cfg(test)]
mod tests;
