//! A control plane's end of xDS: what is served, what a stream knows of it, and the streams themselves.
//!
//! 1. [`world`]: everything that is served at one moment, immutable, with a version for each resource.
//! 2. [`session`]: one stream of the aggregated protocol, both variants, pure: requests and worlds go in, responses
//!    come out, and what the client said of them.
//! 3. [`streams`]: sockets, tokens and limits around the sessions.

pub mod session;
pub mod streams;
pub mod world;
