//! Which route a request takes, and which cluster that route sends it to.
//!
//! `route` compiles the routes of a listener into one table and finds the first that matches;
//! `destination` splits exactly; `rewrite` compiles path rewrites; `explain` says why, from the same
//! tables.

pub mod destination;
pub mod route;

pub use destination::Split;
pub use route::{PathRewriter, RequestView, RouteTable};
