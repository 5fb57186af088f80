//! HTTP/2 (RFC 9113), both roles, as a state machine: bytes and the time go in, events and bytes come out.
//!
//! In reading order:
//!
//! 1. [`error`]: every rule that a peer can break, by what it costs: its stream or the connection.
//! 2. [`frame`](self): bytes to frames and back; [`hpack`]: blocks to fields and back.
//! 3. [`settings`], [`flow`], `stream`: what is known of the peer, of windows, of each stream.
//! 4. [`head`]: what the fields of a message say, laid out as the HTTP/1 head that they stand for.
//! 5. [`forward`]: heads of HTTP/1 as fields.
//! 6. [`connection`]: [`Connection`], which puts them together.
//!
//! # How it is driven
//!
//! ```text
//!      socket                    Connection                         caller
//!        │  bytes                                                      │
//!        ├─────────► receive(input, now) ──► consumed, Event ─────────►│ until the input is empty:
//!        │                                     Request, Response,      │   head() after a head,
//!        │                                     Data, Trailers, Reset…  │   payload lies in the input
//!        │                                                             │
//!        │           consume(stream, bytes) ◄──────────────────────────┤ data went on: windows reopen
//!        │           send_response / send_request / send_trailers ◄────┤ heads
//!        │           send_data(stream, available, end) → granted ◄─────┤ then, in one write:
//!        │◄─────── output, taken by take_output ── then the payload ───┤   output, `granted` bytes
//!        │                                                             │
//!        │           next_writable() ─────────────────────────────────►│ a stream that waited may send
//!        │           next_timeout_ns(), on_timeout(now) ◄──────────────┤ the connection's one timer
//! ```
//!
//! - **Bodies stay where they lie.** [`Event::Data`] borrows from the input. [`Connection::send_data`]
//!   writes a frame's header only: the caller sends the output and, right behind it, as many bytes of the
//!   body as were granted, from wherever they are.
//! - **Back-pressure** is the caller's pace. Windows reopen by what it [consumes](Connection::consume).
//!   Output is to be taken when the socket takes it, not before, since what a peer demands and does not
//!   read is bounded here.
//! - **An error of a stream** is an event, and the stream is over; an error of the connection ends
//!   [`Connection::receive`], with GOAWAY in the output, to be sent before the connection is closed.
//! - **Nothing is allocated** for a frame once a connection has found its pace: streams have slots, a block
//!   is decoded into one [`HeaderBlock`] that is used again and [swaps](HeaderBlock::take_request) its
//!   memory with the caller's.
//!
//! ```
//! use tidegate_codecs::http2::{Connection, Event, FieldLine, Options, RequestLine};
//!
//! let (mut client, mut server) = (
//!     Connection::client(&Options::default(), 0),
//!     Connection::server(&Options::default(), 0),
//! );
//! let request = RequestLine {
//!     method: b"GET",
//!     scheme: b"https",
//!     authority: b"example.org",
//!     path: b"/",
//!     protocol: None,
//! };
//! client.send_request(request, [FieldLine::new(b"accept", b"*/*")], true)?;
//!
//! let mut bytes = Vec::new();
//! client.take_output(&mut bytes);
//! let mut input = bytes.as_slice();
//! while !input.is_empty() {
//!     let step = server.receive(input, 0)?;
//!     input = &input[step.consumed..];
//!     if let Some(Event::Request { stream, end_stream: true }) = step.event {
//!         assert_eq!(server.head().path(), b"/");
//!         server.send_response(stream, 204, [], true)?;
//!     }
//! }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Attacks
//!
//! Whatever a peer can make grow, or have us do for less than it costs the peer, has a limit in
//! [`Http2Limits`](crate::limits::Http2Limits); [`error::Flood`] names them.

mod budget;
pub mod connection;
pub mod error;
pub mod flow;
pub mod forward;
mod frame;
pub mod head;
pub mod hpack;
pub mod settings;
mod stream;

pub use connection::{Connection, Event, KeepAlive, Options, Received, RequestLine, Role};
pub use error::{ConnectionError, ErrorCode, Flood, MessageError, SendError};
pub use forward::{request_fields, response_fields};
pub use frame::PREFACE;
pub use head::{HeaderBlock, end_to_end};
pub use hpack::FieldLine;
pub use settings::PeerSettings;
pub use stream::StreamState;

/// The number of a stream (RFC 9113, 5.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// What concerns no stream: the connection.
    pub const CONNECTION: StreamId = StreamId(0);
    /// The highest there can be.
    pub const MAX: StreamId = StreamId((1 << 31) - 1);

    /// Without its reserved bit.
    fn from_wire(bytes: [u8; 4]) -> StreamId {
        StreamId::from_number(u32::from_be_bytes(bytes))
    }

    fn from_number(number: u32) -> StreamId {
        StreamId(number & StreamId::MAX.0)
    }

    /// As it stands in frames.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether a client opens it.
    fn is_clients(self) -> bool {
        !self.0.is_multiple_of(2)
    }
}
