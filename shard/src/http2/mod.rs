//! HTTP/2 on a socket: what joins [`tidegate_codecs::http2`], which knows no socket, to the tasks that do.
//!
//! * `session.rs`: [`Session`], a connection: bytes in, bytes out, and whom they concern.
//! * `stream.rs`: [`Stream`], one of its streams, as the task of its exchange sees it.
//! * `inbox.rs`: what has come on a stream and was not read yet.
//! * `waiter.rs`: a task that waits for another one.
//!
//! # Who runs what
//!
//! The connection has a task, which alone reads and writes the socket; each stream has one of its own, which
//! runs an exchange and nothing else. So a stream is woken by what concerns it (its endpoint, its own
//! frames), through the executor's queue, which every other task goes through as well: a set of futures
//! inside the connection's task would need wakers and a queue of its own to do the same.
//!
//! What streams send lies in one buffer until the task of the connection runs, in the same turn: the frames
//! of many streams go out in one piece, and are encrypted as one. A stream that finds the buffer full waits
//! in line, so that all get their turn, and a peer that does not read is not sent to.
//!
//! # Whose memory
//!
//! * A body that comes is copied out of the socket's buffer, which holds frames of many streams. Its bytes
//!   count against the shard's budget; at most the stream's window lies there.
//! * A body that goes is copied into the connection's buffer, at most [`OUTPUT_BYTES_MAX`] of it. What a
//!   window does not let through stays with the socket that it came from.

mod inbox;
mod session;
mod stream;
mod waiter;

pub(crate) use inbox::Framing;
pub(crate) use session::{End, Notice, Session};
pub(crate) use stream::Stream;
pub(crate) use waiter::Waiter;

/// Output beyond which no stream adds to it: a large buffer's worth, as bodies come from endpoints.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
