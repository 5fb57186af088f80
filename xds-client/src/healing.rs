//! The protocol `tidegate.healing.v1` (H4, H5): `protos/tidegate/healing/v1/healing.proto` says how it goes.
//!
//! * [`client`] is a proxy's end: it keeps a stream to the center that leads, and hands directives on.
//! * [`lifecycle`] restarts the application that a proxy fronts.
//! * [`server`] is a center's end.
//! * `translate` goes between the messages and the types of `tidegate_core::healing`.

pub mod client;
pub mod lifecycle;
pub mod server;
mod translate;

/// The trailer in which a center that does not lead names the one that does.
const LEADER: &str = "tidegate-leader";

/// Bytes of one message. The largest report, with every list at its limit, has some 40 KB.
pub const MESSAGE_MAX: usize = 64 * 1024;
