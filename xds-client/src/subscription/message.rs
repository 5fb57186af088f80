//! What is said on a stream, free of its encoding: requests, responses, and what they change.

use std::{collections::BTreeMap, time::Duration};

use super::ResourceType;

/// What to send: a `DiscoveryRequest` or a `DeltaDiscoveryRequest` without `node`, which the transport adds to the
/// first of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The type.
    pub resource_type: ResourceType,
    /// The nonce of the response that is answered; empty before the first, and in a delta request that answers
    /// nothing.
    pub nonce: String,
    /// Why that response was refused, wholly or in part: this request is a NACK.
    pub error: Option<String>,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What is wanted, in the words of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// State of the world.
    Names {
        /// The version accepted last; empty before the first.
        version: String,
        /// Everything that is wanted, ascending; empty is "everything" for a wildcard subscription and "nothing any
        /// more" for a named one.
        names: Vec<String>,
    },
    /// Delta.
    Changes {
        /// Names that are wanted from now on.
        subscribe: Vec<String>,
        /// Names that are wanted no more.
        unsubscribe: Vec<String>,
        /// What is held, with its version: in the first request of a stream alone.
        versions: BTreeMap<String, String>,
    },
}

/// A received and decoded response.
#[derive(Clone, Debug)]
pub struct Response<T> {
    /// Its version; of no meaning in a delta response.
    pub version: String,
    /// Its nonce.
    pub nonce: String,
    /// Its resources, each validated or refused.
    pub resources: Vec<Resource<T>>,
    /// What is held and lives on.
    pub heartbeats: Vec<Heartbeat>,
    /// Names of what is no more; only in a delta response.
    pub removed: Vec<String>,
}

/// One resource of a response.
#[derive(Clone, Debug)]
pub struct Resource<T> {
    /// Its name; empty if not even that could be read.
    pub name: String,
    /// Its own version; the response's in state of the world.
    pub version: String,
    /// For how long it is good; for ever if nothing is said.
    pub ttl: Option<Duration>,
    /// The value, or why it was refused.
    pub value: Result<T, String>,
}

/// A resource without content: the one of this version is good for longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// For how long, from now on; for ever if nothing is said.
    pub ttl: Option<Duration>,
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
    /// The resource was good until now, and nobody said that it is any longer.
    Expired {
        /// Its name.
        name: String,
    },
    /// The server has not sent it in time, or says that it has none: it is taken not to exist, until it comes.
    Missing {
        /// Its name.
        name: String,
    },
}
