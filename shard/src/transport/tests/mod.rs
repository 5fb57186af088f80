//! TLS without sockets, and on a shard with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

mod fixtures;
mod links;
mod memory;
mod on_a_shard;
mod policy;
mod secrets;
