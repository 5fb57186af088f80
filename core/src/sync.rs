//! The words that threads share. In the model checks of `tests/races.rs` they are [loom's], which tries every
//! order in which threads may see them.
//!
//! [loom's]: https://docs.rs/loom

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicI32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
