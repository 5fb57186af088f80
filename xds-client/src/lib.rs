//! The control-plane edge of Tidegate. What is here so far is [`subscription`]: the state machine of one
//! resource type on an xDS stream, pure. Transports (ADS, REST), the protos and their translation to
//! `tidegate-core` are not written yet.
//!
//! Architecture invariant: the machine knows no socket, clock or task; time is an argument, and what
//! is sent is asked for. Only `pb.rs` will name the protos.
#![forbid(unsafe_code)]

pub mod subscription;
