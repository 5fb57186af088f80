//! Exact splits of traffic over clusters (S13).

use crate::id::ClusterId;

/// A split over clusters: thresholds in 2^32, the same on every shard.
#[derive(Debug, Default)]
pub struct Split {
    /// Upper threshold (exclusive, of 2^32) and cluster, ascending; the last threshold is 2^32.
    pub thresholds: Vec<(u64, ClusterId)>,
}

impl Split {
    /// The cluster for a hash or a random number; `None` only for an empty split.
    #[inline]
    pub fn pick(&self, hash: u64) -> Option<ClusterId> {
        let point = hash >> 32;
        self.thresholds
            .iter()
            .find(|(upper, _)| point < *upper)
            .map(|(_, cluster)| *cluster)
    }
}
