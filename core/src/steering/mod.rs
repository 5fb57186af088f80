//! Which route a request takes, and which cluster that route sends it to.
//!
//! In reading order: [`route`] (the table of a listener, and which route wins) asks `host` for the group
//! of routes, `path` for the form that paths are compared in, `path_table` for candidates and
//! `condition` for the rest; `pattern` holds regular expressions. [`fault`] injects faults. [`destination`] splits exactly,
//! [`rewrite`] compiles path rewrites, [`program`] moves requests away from where their route leads,
//! [`explain`] says why, from the same tables.

mod condition;
pub mod destination;
pub mod explain;
pub mod fault;
mod host;
mod path;
mod path_table;
mod pattern;
pub mod program;
pub mod rewrite;
pub mod route;

pub(crate) use destination::mix;
pub use destination::{Split, bucket_key, describe, hash_address, hash_bytes, sticky_hash};
pub use host::HOST_LEN_MAX;
pub use path::is_ambiguous_path;
pub use pattern::{
    PATTERN_BYTES_MAX, PatternError, RouteScratch, check_pattern, check_rewrite_pattern,
};
pub use rewrite::PathRewriter;
pub use route::{RequestView, RouteTable};
