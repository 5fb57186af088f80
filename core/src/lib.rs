//! The policy of Tidegate: pure functions and state machines over plain data.
//!
//! Architecture invariant: this crate knows no socket, clock, thread or task. Time and randomness are
//! arguments. `clippy.toml` beside `Cargo.toml` bans what would break that.
//!
//! In reading order:
//!
//! 1. [`id`], [`reason`]: the words everything else uses.
//! 2. [`config`]: what an operator writes, validated into [`config::model::Config`].
//! 3. [`snapshot`]: the configuration compiled, with an epoch.
//! 4. [`steering`]: which route, which cluster.
//! 5. [`balancer`]: which endpoint.
//! 6. [`healing`]: which endpoints may be chosen, by probes and by the traffic itself.
//! 7. [`encryption`]: which links are encrypted, and how one is replaced without losing a request.
//! 8. [`limiter`]: limits that follow what the machine can bear.
//! 9. [`stats`], [`sketch`]: what shards count.
//! 10. [`message`]: everything that crosses a thread.
//! 11. [`coordinator`]: what is decided for all shards together.
#![forbid(unsafe_code)]
#![warn(clippy::iter_over_hash_type)]

pub mod balancer;
pub mod config;
pub mod coordinator;
pub mod encryption;
pub mod healing;
pub mod id;
pub mod limiter;
pub mod message;
pub mod reason;
pub mod sketch;
pub mod snapshot;
pub mod stats;
pub mod steering;
mod sync;
