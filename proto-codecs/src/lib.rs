//! Wire formats of Tidegate, sans-IO: bytes go in, heads, ranges and errors come out.
//!
//! Architecture invariant: this crate knows no socket, clock, thread or task, and nothing of policy. It
//! borrows what it reads: a parsed head is a list of offsets into the caller's bytes, and a body is
//! followed, never collected.
//!
//! Two rules hold for every parser here:
//!
//! - **Split-proof**: feeding the same bytes in one piece or one by one gives the same outcome.
//! - **Bounded**: whatever a peer can make grow has a limit in [`limits`], or a constant beside the code.
//!
//! In reading order:
//!
//! 1. [`limits`]: what a peer may send.
//! 2. [`sniff`]: which protocol the first bytes are.
//! 3. [`proxy_protocol`]: who the client is, as told by the balancer in front.
//! 4. [`http1`]: heads, framing, bodies, forwarding, own replies.
//! 5. [`http2`]: connections, streams, header compression.
//! 6. [`grpc`]: the messages, methods and statuses of calls; calls of our own.
#![forbid(unsafe_code)]

pub mod grpc;
pub mod http1;
pub mod http2;
pub mod limits;
pub mod proxy_protocol;
pub mod sniff;
