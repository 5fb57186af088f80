//! The control-plane edge of Tidegate: whatever speaks to a control plane, translated to the plain types of
//! `tidegate-core`.
//!
//! 1. xDS, from the wire to a part of a configuration. [`ads`] keeps a stream to a control plane, or asks it by REST, and
//!    `files` watches those that bring resources ([`source`]); [`resources`] is all that is known, pure: a
//!    [`subscription`] for each type (what is asked for and answered), [`translate`] (what a resource means, or why it
//!    is refused), and the [`graph`] (what may be used yet). [`document`] reads the same resources from a text,
//!    and [`bootstrap`] makes a file of our own of an Envoy's.
//!    [`client_status`] says all of that to whoever asks by the protocol (CSDS).
//! 2. [`server`], the other end of xDS: what a control plane serves, and the streams on which it does.
//! 3. [`healing`]: the protocol `tidegate.healing.v1`, both ends: the client of a proxy, with the hooks that
//!    restart its application, and the server that a center stands on.
//!    [`listen`] is the port before both servers.
//! 4. [`etcd`]: the little of etcd that a center needs to elect a leader and keep its state.
//!
//! Architecture invariant: policy is elsewhere; the machines here know no socket, clock or task, and the
//! transports around them decide nothing. Only `pb.rs` names the protos and the gRPC library.
#![forbid(unsafe_code)]

pub mod ads;
mod backoff;
pub mod bootstrap;
mod cache;
pub mod client_status;
pub mod document;
pub mod etcd;
mod files;
pub mod graph;
pub mod healing;
mod kept;
pub mod listen;
mod pb;
pub mod resources;
mod response;
pub mod server;
pub mod source;
pub mod subscription;
pub mod translate;
