//! HTTP/1.1 (RFC 9110, RFC 9112), strict: request smuggling lives in leniency, so what two parsers could
//! read in two ways is refused, and the framing of a message is decided once, in [`framing`].
//!
//! In reading order:
//!
//! 1. [`fields`]: spans, fields and what each field means to a proxy.
//! 2. [`error`]: every rule that a head can break, with its status.
//! 3. [`target`]: the four forms of a request target, and authorities.
//! 4. [`framing`]: where a message ends.
//! 5. [`request`], [`response`]: a head, from bytes to offsets.
//! 6. [`body`]: a body, followed through its framing.
//! 7. [`forward`]: a head for the next hop.
//! 8. [`reply`]: answers of our own.
//!
//! Lexical parsing is `httparse`'s (SIMD); where it is more lenient than RFC 9112 its result is checked.

pub mod body;
pub mod error;
pub mod fields;
pub mod forward;
pub mod framing;
mod lexer;
pub mod reply;
pub mod request;
pub mod response;
pub mod target;

pub use body::{BodyError, BodyTracker, Piece, trailer_fields};
pub use error::HeadError;
pub use fields::{Field, FieldKind, Span};
pub use forward::{ForwardedFor, RequestEdits, ResponseEdits, forward_request, forward_response};
pub use framing::Framing;
pub use lexer::{LEADING_LINES_MAX, METHOD_BYTES_MAX};
pub use reply::{CONTINUE, reason_phrase, write_reply};
pub use request::{Method, RequestHead};
pub use response::{RequestKind, ResponseHead};
pub use target::TargetForm;

/// The version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// `HTTP/1.0`
    Http10,
    /// `HTTP/1.1`
    #[default]
    Http11,
    /// HTTP/2, whose heads are [laid out](crate::http2::head) as those of HTTP/1.1.
    Http2,
}

/// How far a head got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The head is there and well-formed.
    Complete,
    /// More bytes are needed; parse again from the first byte of the head when they are there.
    Partial,
}
