//! One stream of the aggregated protocol, as the server knows it: what the client asked for, what it was sent, what it
//! said of that. Requests and worlds go in ([`Session::receive`], [`Session::publish`]), responses come out
//! ([`Session::poll_response`]). Pure: a transport moves the messages.
//!
//! The order of responses keeps the client whole while the world changes (make before break):
//!
//! 1. what is new or changed goes out in the order of [`ResourceType::ALL`]; listeners and routes wait until the clusters and
//!    endpoints before them were answered, since a client answers those when they can be used;
//! 2. what is no more goes in the order of [`BREAKING`], each kind only when those that may still refer to it
//!    are settled: acknowledged, and nothing of them refused. A client that refused its new routes keeps the old
//!    ones, and needs the clusters that they name.
//!
//! A NACK speaks of a whole response. Where the protocol lets a response carry a part of a kind, what was refused is
//! sent again by halves, until those that are bad stand alone and all others are taken: one bad resource then costs
//! itself, also with clients that refuse all that came with it.
//!
//! Source of the rules: Envoy's `xds_protocol.rst`, and what a stock Envoy does.

mod subscribed;

use std::{collections::BTreeMap, fmt, sync::Arc};

use tidegate_core::config::CLUSTERS_MAX;

use super::world::{Resource, World};
use crate::{
    subscription::{ResourceType, Variant},
    translate::NAME_MAX,
};
use subscribed::{Step, Subscribed};

/// Names that a client may ask for, of each kind: as many as there may be clusters.
pub const NAMES_MAX: usize = CLUSTERS_MAX;

/// Bytes of a version that a client says it has. Ours have 16.
pub const VERSION_MAX: usize = 256;

/// Responses of a kind that wait for their answer; no further one is sent before. One would do, if clients did not
/// hold an answer back while a cluster warms: what mends it must reach them meanwhile.
pub const UNANSWERED_MAX: usize = 4;

/// Bytes of the resources of a response that may be split. gRPC's own limit for a message is 4 MiB in most languages.
pub const RESPONSE_BYTES: usize = 2 << 20;

/// Bytes of the reason of a NACK that are kept.
pub const ERROR_TEXT_MAX: usize = 4096;

/// The order in which resources are taken away: who refers to another goes first.
pub const BREAKING: [ResourceType; 4] = [
    ResourceType::Route,
    ResourceType::Listener,
    ResourceType::Cluster,
    ResourceType::Endpoint,
];

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Of which kind it speaks.
    pub kind: ResourceType,
    /// Which response it answers; empty if none.
    pub nonce: String,
    /// Why it refuses that response, if it does.
    pub error: Option<String>,
    /// What it asks for.
    pub asked: Asked,
}

/// What a client asks for, in the words of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// State of the world: these, and nothing else.
    Names(Vec<String>),
    /// Delta: these too, these no more.
    Changes {
        /// Names it wants from now on.
        subscribe: Vec<String>,
        /// Names it wants no more.
        unsubscribe: Vec<String>,
        /// Names and versions of what it has from an earlier stream.
        held: Vec<(String, String)>,
    },
}

/// What a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The kind.
    pub kind: ResourceType,
    /// The version of all of the kind.
    pub version: Arc<str>,
    /// By this it is answered.
    pub nonce: String,
    /// What it brings.
    pub resources: Vec<Arc<Resource>>,
    /// Names of what is no more; in delta alone.
    pub removed: Vec<Arc<str>>,
}

/// What a request said of an earlier response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: it asks, or answers what was answered.
    Nothing,
    /// It was taken.
    Acknowledged,
    /// It was refused.
    Refused {
        /// The world that it was of.
        world: Arc<str>,
        /// Why.
        error: String,
    },
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// More than [`NAMES_MAX`] names of this kind.
    TooManyNames(ResourceType),
    /// A name longer than [`NAME_MAX`], or a version longer than [`VERSION_MAX`].
    TooLong(ResourceType),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::TooManyNames(kind) => {
                write!(f, "more than {NAMES_MAX} names of kind {}", kind.word())
            }
            Wrong::TooLong(kind) => write!(
                f,
                "a name of kind {} with more than {NAME_MAX} bytes, or a version with more than {VERSION_MAX}",
                kind.word()
            ),
        }
    }
}

/// How a kind stands on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The kind.
    pub kind: ResourceType,
    /// Whether everything of it is asked for.
    pub everything: bool,
    /// Names asked for.
    pub names: usize,
    /// Resources sent.
    pub sent: usize,
    /// Responses that wait for their answer.
    pub unanswered: usize,
    /// The version of the kind that was taken last; empty if there is none.
    pub acknowledged: Arc<str>,
    /// The reason of the newest NACK, until all is taken again.
    pub error: Option<String>,
    /// Resources that were refused, and not changed since: name, version, reason.
    pub refused: Vec<(Arc<str>, Arc<str>, String)>,
    /// Whether all that the world has of it for this client was taken.
    pub settled: bool,
}

/// A stream.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    world: Arc<World>,
    kinds: BTreeMap<ResourceType, Subscribed>,
    /// Responses so far: the newest nonce.
    responses: u64,
    /// Something happened since nothing was left to be sent.
    is_due: bool,
}

impl Session {
    /// A stream of a variant on which nothing was said yet.
    pub fn new(variant: Variant, world: Arc<World>) -> Session {
        Session {
            variant,
            world,
            kinds: BTreeMap::new(),
            responses: 0,
            is_due: false,
        }
    }

    /// This is served from now on.
    pub fn publish(&mut self, world: Arc<World>) {
        self.world = world;
        self.is_due = true;
    }

    /// The world that is served.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Takes a request in.
    ///
    /// # Errors
    ///
    /// It asks for more than is allowed; the stream has to end.
    pub fn receive(&mut self, request: Request) -> Result<Heard, Wrong> {
        let (kind, variant) = (request.kind, self.variant);
        let subscribed = self
            .kinds
            .entry(kind)
            .or_insert_with(|| Subscribed::new(kind, variant));
        self.is_due = true;
        subscribed.receive(request)
    }

    /// Whether there may be something to send.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// What is to be sent now, if anything is.
    pub fn poll_response(&mut self) -> Option<Response> {
        if !self.is_due {
            return None;
        }
        let made = ResourceType::ALL.into_iter().find_map(|kind| {
            let is_whole = self.are(made_after(kind), |one| one.is_answered());
            is_whole.then(|| self.poll(kind, Step::Make))?
        });
        let response = made.or_else(|| {
            BREAKING.into_iter().find_map(|kind| {
                let world = &self.world;
                let is_unused = self.are(outlived_by(kind), |one| {
                    one.is_settled() && one.is_current(world)
                });
                is_unused.then(|| self.poll(kind, Step::Break))?
            })
        });
        self.is_due = response.is_some();
        response
    }

    /// How each kind stands that was spoken of.
    pub fn status(&self) -> Vec<Status> {
        let kinds = self.kinds.values();
        kinds.map(|one| one.status(&self.world)).collect()
    }

    /// Whether all of these kinds that the client speaks of are so.
    fn are(&self, kinds: &[ResourceType], so: impl Fn(&Subscribed) -> bool) -> bool {
        let mut spoken_of = kinds.iter().filter_map(|kind| self.kinds.get(kind));
        spoken_of.all(so)
    }

    fn poll(&mut self, kind: ResourceType, step: Step) -> Option<Response> {
        let subscribed = self.kinds.get_mut(&kind)?;
        let nonce = self.responses + 1;
        let response = subscribed.poll(&self.world, step, nonce)?;
        self.responses = nonce;
        Some(response)
    }
}

/// What must be answered before one of this kind is made: a client answers those once they can be used.
const fn made_after(kind: ResourceType) -> &'static [ResourceType] {
    match kind {
        ResourceType::Listener | ResourceType::Route => {
            &[ResourceType::Cluster, ResourceType::Endpoint]
        }
        _ => &[],
    }
}

/// What must be settled before one of this kind is taken away: those that may still refer to it.
const fn outlived_by(kind: ResourceType) -> &'static [ResourceType] {
    match kind {
        ResourceType::Cluster => &[ResourceType::Listener, ResourceType::Route],
        ResourceType::Endpoint => &[
            ResourceType::Listener,
            ResourceType::Route,
            ResourceType::Cluster,
        ],
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
