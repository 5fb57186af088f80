//! Faults that are injected on purpose.

use std::{sync::Arc, time::Duration};

use super::ValuePattern;

/// Which requests of a route are delayed or refused on purpose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// Delays them.
    pub delay: Option<FaultDelay>,
    /// Refuses them, delayed or not.
    pub abort: Option<FaultAbort>,
    /// Only requests that meet all of these conditions; names are lower case.
    pub headers: Vec<(Arc<str>, ValuePattern)>,
    /// Requests with a fault at once, per shard, beyond which there is none; `None` is without limit.
    pub active_max: Option<u32>,
}

/// A delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// How long; `None` is what the request asks for in its header.
    pub fixed: Option<Duration>,
    /// Of which requests.
    pub chance: Chance,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    /// With what.
    pub with: AbortWith,
    /// Of which requests.
    pub chance: Chance,
}

/// What a request is refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortWith {
    /// A status of HTTP.
    Http(u16),
    /// A status of gRPC, in an answer with 200.
    Grpc(u16),
    /// What the request asks for in its header.
    Header,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance {
    /// So many.
    pub numerator: u32,
    /// Of so many.
    pub denominator: u32,
}

impl Chance {
    /// All of them.
    pub const ALWAYS: Chance = Chance {
        numerator: 1,
        denominator: 1,
    };

    /// A share in basis points.
    pub const fn of_share(share: u32) -> Chance {
        Chance {
            numerator: share,
            denominator: 10_000,
        }
    }

    /// Whether a request is one of them, by a random number.
    pub fn hits(self, random: u64) -> bool {
        let drawn = (u128::from(random) * u128::from(self.denominator)) >> 64;
        drawn < u128::from(self.numerator)
    }
}
