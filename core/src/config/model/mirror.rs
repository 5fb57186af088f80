//! Copies of requests.

use std::sync::Arc;

use super::Chance;

/// Sends copies of requests to another cluster, whose answers are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Of which requests.
    pub chance: Chance,
    /// Whether the host has `-shadow` behind its name, so that whoever gets the copy knows what it is.
    pub host_suffix: bool,
}
