//! How load goes over a cluster's priorities, localities and subsets.

use std::{collections::BTreeMap, sync::Arc};

use crate::balancer::{OVERPROVISIONING, PANIC_THRESHOLD};

/// Labels by key.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// How load goes over priorities and localities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How much less than all of a priority, or of a locality, is enough, in percent: 140 is 72 %.
    pub overprovisioning: u32,
    /// Below so many healthy endpoints of a priority, in percent, all of it are used; 0 never.
    pub panic_threshold: u32,
    /// Localities get load by their weights.
    pub by_locality: bool,
}

impl Default for Failover {
    fn default() -> Self {
        Failover {
            overprovisioning: OVERPROVISIONING,
            panic_threshold: PANIC_THRESHOLD,
            by_locality: false,
        }
    }
}

/// The locality of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locality {
    /// Tells it from others of the same priority.
    pub number: u32,
    /// Its weight; 0 gets nothing as long as another one has a weight.
    pub weight: u32,
}

impl Default for Locality {
    fn default() -> Self {
        Locality {
            number: 0,
            weight: 1,
        }
    }
}

/// Subsets of a cluster by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subsets {
    /// Which labels make subsets.
    pub selectors: Vec<SubsetSelector>,
    /// What becomes of requests that find none.
    pub fallback: Fallback,
    /// The labels of [`Fallback::Default`].
    pub default: Labels,
    /// Localities get load by their weights within subsets, too.
    pub by_locality: bool,
}

/// Labels that make subsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsetSelector {
    /// Their keys, ascending.
    pub keys: Vec<Arc<str>>,
    /// In place of the cluster's.
    pub fallback: Option<Fallback>,
}

/// What becomes of a request that finds no subset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// It is refused.
    #[default]
    None,
    /// Any endpoint takes it.
    AnyEndpoint,
    /// An endpoint of the default subset takes it.
    Default,
}

impl Fallback {
    /// Its word in a file.
    pub const fn word(self) -> &'static str {
        match self {
            Fallback::None => "none",
            Fallback::AnyEndpoint => "any",
            Fallback::Default => "default",
        }
    }

    /// The one of a word.
    pub fn of(word: &str) -> Option<Fallback> {
        [Fallback::None, Fallback::AnyEndpoint, Fallback::Default]
            .into_iter()
            .find(|fallback| fallback.word() == word)
    }
}
