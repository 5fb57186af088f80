//! Randomness, for jitter and for seeds.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits: the standard library's hasher keys come from the system's randomness, which spares a
/// dependency.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
