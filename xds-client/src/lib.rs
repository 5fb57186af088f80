//! The control-plane edge of Tidegate: whatever speaks to a control plane, translated to the plain types of
//! `tidegate-core`.
//!
//! 1. [`subscription`]: the state machine of one resource type on an xDS stream, pure. Transports (ADS, REST)
//!    and the translation of resources are not written yet.
//! 2. [`healing`]: the protocol `tidegate.healing.v1`, both ends: the client of a proxy, with the hooks that
//!    restart its application, and the server that a center stands on.
//! 3. [`etcd`]: the little of etcd that a center needs to elect a leader and keep its state.
//!
//! Architecture invariant: policy is elsewhere; the machines here know no socket, clock or task, and the
//! transports around them decide nothing. Only `pb.rs` names the protos and the gRPC library.
#![forbid(unsafe_code)]

pub mod etcd;
pub mod healing;
mod pb;
pub mod subscription;
