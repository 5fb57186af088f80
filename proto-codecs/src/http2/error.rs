//! What can go wrong: with the connection, with a message, with a command of our own.

use core::fmt;

use super::hpack::HpackError;
use crate::http1::HeadError;

/// Why a stream or a connection ends (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

#[allow(missing_docs)] // The names are those of the RFC.
impl ErrorCode {
    pub const NO_ERROR: ErrorCode = ErrorCode(0x0);
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(0x1);
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(0x2);
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(0x3);
    pub const SETTINGS_TIMEOUT: ErrorCode = ErrorCode(0x4);
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(0x5);
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(0x6);
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(0x7);
    pub const CANCEL: ErrorCode = ErrorCode(0x8);
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(0x9);
    pub const CONNECT_ERROR: ErrorCode = ErrorCode(0xa);
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(0xb);
    pub const INADEQUATE_SECURITY: ErrorCode = ErrorCode(0xc);
    pub const HTTP_1_1_REQUIRED: ErrorCode = ErrorCode(0xd);
}

/// The rule by which a connection ends. GOAWAY is in the output; it is to be sent, then the connection
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The first bytes are not the client's preface, or the first frame is not SETTINGS (RFC 9113, 3.4).
    Preface,
    /// A frame above SETTINGS_MAX_FRAME_SIZE, or of a length that its type does not have (RFC 9113, 4.2).
    FrameSize,
    /// A frame on stream 0 that needs a stream, or the other way round (RFC 9113, 6).
    StreamZero,
    /// Padding as long as the frame, or longer (RFC 9113, 6.1 and 6.2).
    Padding,
    /// A frame inside a header block of another stream or type (RFC 9113, 4.3 and 6.10).
    BlockInterrupted,
    /// CONTINUATION with nothing to continue (RFC 9113, 6.10).
    ContinuationUnexpected,
    /// A frame on a stream that nobody has opened (RFC 9113, 5.1).
    StreamIdle,
    /// A stream of the wrong parity, or below one that was opened before (RFC 9113, 5.1.1).
    StreamIdInvalid,
    /// A frame on a stream whose end was sent (RFC 9113, 5.1).
    StreamClosed,
    /// PUSH_PROMISE, which a client cannot send and a server was told not to (RFC 9113, 6.6 and 8.4).
    Push,
    /// PRIORITY of a stream on itself (RFC 7540, 5.3.1).
    PriorityInvalid,
    /// A setting with a value it cannot have (RFC 9113, 6.5.2; RFC 8441, 3).
    SettingInvalid,
    /// An acknowledgement of settings that were not sent (RFC 9113, 6.5.3).
    SettingsAckUnexpected,
    /// A window beyond 2^31-1 bytes (RFC 9113, 6.9.1 and 6.9.2).
    WindowOverflow,
    /// More DATA than the connection's window allowed (RFC 9113, 6.9.1).
    WindowExceeded,
    /// WINDOW_UPDATE of nothing for the connection (RFC 9113, 6.9).
    WindowIncrementZero,
    /// A GOAWAY that takes back what an earlier one had let go (RFC 9113, 6.8).
    GoAwayInvalid,
    /// A header block that cannot be decoded (RFC 9113, 4.3).
    Hpack(HpackError),
    /// The peer did not acknowledge our settings in time (RFC 9113, 6.5.3).
    SettingsTimeout,
    /// The peer did not answer a PING in time.
    PingTimeout,
    /// More of something than its limit allows.
    Flood(Flood),
}

impl ConnectionError {
    /// What GOAWAY says.
    pub fn code(&self) -> ErrorCode {
        match self {
            ConnectionError::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
            ConnectionError::StreamClosed => ErrorCode::STREAM_CLOSED,
            ConnectionError::WindowOverflow | ConnectionError::WindowExceeded => {
                ErrorCode::FLOW_CONTROL_ERROR
            }
            ConnectionError::Hpack(_) => ErrorCode::COMPRESSION_ERROR,
            ConnectionError::SettingsTimeout => ErrorCode::SETTINGS_TIMEOUT,
            ConnectionError::PingTimeout => ErrorCode::NO_ERROR,
            ConnectionError::Flood(_) => ErrorCode::ENHANCE_YOUR_CALM,
            _ => ErrorCode::PROTOCOL_ERROR,
        }
    }

    /// The rule in words, for a log line.
    pub fn detail(&self) -> &'static str {
        match self {
            ConnectionError::Preface => "no HTTP/2 preface",
            ConnectionError::FrameSize => "invalid frame size",
            ConnectionError::StreamZero => "frame on the wrong kind of stream",
            ConnectionError::Padding => "invalid padding",
            ConnectionError::BlockInterrupted => "frame inside a header block",
            ConnectionError::ContinuationUnexpected => "CONTINUATION outside of a header block",
            ConnectionError::StreamIdle => "frame on an idle stream",
            ConnectionError::StreamIdInvalid => "invalid stream identifier",
            ConnectionError::StreamClosed => "frame on a closed stream",
            ConnectionError::Push => "unexpected PUSH_PROMISE",
            ConnectionError::PriorityInvalid => "stream depends on itself",
            ConnectionError::SettingInvalid => "invalid setting",
            ConnectionError::SettingsAckUnexpected => "unexpected acknowledgement of settings",
            ConnectionError::WindowOverflow => "flow-control window overflows",
            ConnectionError::WindowExceeded => "flow-control window exceeded",
            ConnectionError::WindowIncrementZero => "window increment of zero",
            ConnectionError::GoAwayInvalid => "GOAWAY takes back a stream",
            ConnectionError::Hpack(error) => error.detail(),
            ConnectionError::SettingsTimeout => "settings not acknowledged in time",
            ConnectionError::PingTimeout => "PING not answered in time",
            ConnectionError::Flood(flood) => flood.detail(),
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl core::error::Error for ConnectionError {}

impl From<HpackError> for ConnectionError {
    fn from(error: HpackError) -> ConnectionError {
        ConnectionError::Hpack(error)
    }
}

/// What a peer sent too much of; each has its limit in
/// [`Http2Limits`](crate::limits::Http2Limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Requests taken back (rapid reset, CVE-2023-44487).
    Resets,
    /// Violations that had us reset streams (MadeYouReset, CVE-2025-8671).
    StreamErrors,
    /// Frames of one header block (CVE-2024-27316).
    Continuations,
    /// Encoded bytes of one header block.
    BlockBytes,
    /// SETTINGS frames (CVE-2019-9515), or settings in one frame.
    Settings,
    /// PING frames (CVE-2019-9512).
    Pings,
    /// DATA without data, or header blocks without content (CVE-2019-9518).
    EmptyFrames,
    /// PRIORITY and frames of unknown types (CVE-2019-9513).
    IdleFrames,
    /// WINDOW_UPDATE frames, beyond what the DATA sent explains.
    WindowUpdates,
    /// Windows so small that DATA goes out by a few bytes (CVE-2019-9511).
    TinyWindows,
    /// Frames that must be answered, while the answers are not read.
    Unread,
}

impl Flood {
    /// In words, for a log line.
    pub fn detail(&self) -> &'static str {
        match self {
            Flood::Resets => "too many streams reset",
            Flood::StreamErrors => "too many stream errors",
            Flood::Continuations => "too many CONTINUATION frames",
            Flood::BlockBytes => "header block too large",
            Flood::Settings => "too many settings",
            Flood::Pings => "too many PING frames",
            Flood::EmptyFrames => "too many empty frames",
            Flood::IdleFrames => "too many frames without effect",
            Flood::WindowUpdates => "too many WINDOW_UPDATE frames",
            Flood::TinyWindows => "flow-control windows too small",
            Flood::Unread => "too many answers unread",
        }
    }
}

/// The rule that a message broke. It concerns its stream alone (RFC 9113, 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// A pseudo-header field that does not exist, or not for this kind of message (RFC 9113, 8.3).
    PseudoUnknown,
    /// A pseudo-header field twice (RFC 9113, 8.3).
    PseudoRepeated,
    /// A pseudo-header field behind a regular one (RFC 9113, 8.3).
    PseudoMisplaced,
    /// A pseudo-header field is missing (RFC 9113, 8.3.1, 8.3.2, 8.5; RFC 8441, 4).
    PseudoMissing,
    /// `:protocol` without CONNECT, or although extended CONNECT was not offered (RFC 8441, 4).
    ProtocolUnexpected,
    /// A field name with an upper-case letter, or that is no token (RFC 9113, 8.2.1).
    NameInvalid,
    /// A field value with a control byte, or with white space around it (RFC 9113, 8.2.1).
    ValueInvalid,
    /// A field of the connection (RFC 9113, 8.2.2).
    ConnectionField,
    /// A `TE` other than `trailers` (RFC 9113, 8.2.2).
    TeInvalid,
    /// `:authority` and `Host` differ (RFC 9113, 8.3.1).
    AuthorityDiffers,
    /// A `:status` that is no status, or 101 (RFC 9113, 8.3.2 and 8.6).
    StatusInvalid,
    /// An interim answer that ends the stream (RFC 9113, 8.1).
    InterimEnds,
    /// DATA before the head (RFC 9113, 8.1).
    DataBeforeHead,
    /// More or less DATA than `Content-Length` says, or DATA where there can be none (RFC 9113, 8.1.1).
    LengthDiffers,
    /// A second header block that does not end the stream (RFC 9113, 8.1).
    TrailersContinue,
    /// A trailer that frames, routes or authorises (RFC 9110, 6.5.1).
    TrailerForbidden,
    /// A header block inside a tunnel (RFC 9113, 8.5).
    HeadersInTunnel,
    /// A frame after the end of the stream (RFC 9113, 5.1).
    StreamEnded,
    /// More DATA than the stream's window allowed (RFC 9113, 6.9.1).
    WindowExceeded,
    /// The stream's window would pass 2^31-1 bytes (RFC 9113, 6.9.1).
    WindowOverflow,
    /// WINDOW_UPDATE of nothing for a stream (RFC 9113, 6.9).
    WindowIncrementZero,
    /// HEADERS that make a stream depend on itself (RFC 7540, 5.3.1).
    DependsOnItself,
    /// More streams at once than allowed (RFC 9113, 5.1.2): it may be tried again.
    StreamsTooMany,
    /// Heads of open streams that hold too much for what they were sent as: it may be tried again.
    HeadsExpand,
    /// Another rule on heads, which HTTP/1 has as well.
    Head(HeadError),
}

impl MessageError {
    /// The status to answer a request with, if it is well-formed and yet not to be served: the stream is
    /// kept for the answer. `None`: the message is malformed, and the stream was reset.
    pub fn status(&self) -> Option<u16> {
        match self {
            MessageError::Head(error) if error.status() != 400 => Some(error.status()),
            _ => None,
        }
    }

    /// What RST_STREAM says.
    pub fn code(&self) -> ErrorCode {
        match self {
            MessageError::StreamEnded => ErrorCode::STREAM_CLOSED,
            MessageError::WindowExceeded | MessageError::WindowOverflow => {
                ErrorCode::FLOW_CONTROL_ERROR
            }
            MessageError::StreamsTooMany | MessageError::HeadsExpand => ErrorCode::REFUSED_STREAM,
            MessageError::Head(HeadError::HeadTooLarge | HeadError::FieldsTooMany) => {
                ErrorCode::CANCEL
            }
            _ => ErrorCode::PROTOCOL_ERROR,
        }
    }

    /// The rule in words, for a log line.
    pub fn detail(&self) -> &'static str {
        match self {
            MessageError::PseudoUnknown => "unknown pseudo-header field",
            MessageError::PseudoRepeated => "pseudo-header field repeated",
            MessageError::PseudoMisplaced => "pseudo-header field behind a regular field",
            MessageError::PseudoMissing => "pseudo-header field missing",
            MessageError::ProtocolUnexpected => "unexpected :protocol",
            MessageError::NameInvalid => "invalid field name",
            MessageError::ValueInvalid => "invalid field value",
            MessageError::ConnectionField => "field of the connection in a message",
            MessageError::TeInvalid => "invalid TE",
            MessageError::AuthorityDiffers => ":authority and Host differ",
            MessageError::StatusInvalid => "invalid :status",
            MessageError::InterimEnds => "interim answer ends the stream",
            MessageError::DataBeforeHead => "DATA before the head",
            MessageError::LengthDiffers => "DATA differs from Content-Length",
            MessageError::TrailersContinue => "trailers do not end the stream",
            MessageError::TrailerForbidden => "a field that must not be a trailer",
            MessageError::HeadersInTunnel => "header block inside a tunnel",
            MessageError::StreamEnded => "frame after the end of the stream",
            MessageError::WindowExceeded => "flow-control window exceeded",
            MessageError::WindowOverflow => "flow-control window overflows",
            MessageError::WindowIncrementZero => "window increment of zero",
            MessageError::DependsOnItself => "stream depends on itself",
            MessageError::StreamsTooMany => "too many streams at once",
            MessageError::HeadsExpand => "heads that expand too much",
            MessageError::Head(error) => error.detail(),
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl core::error::Error for MessageError {}

impl From<HeadError> for MessageError {
    fn from(error: HeadError) -> MessageError {
        MessageError::Head(error)
    }
}

/// Why a command of ours was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No stream can be opened on this connection now: the peer allows no more, or it is going away.
    /// Another connection can.
    NoStream,
    /// The stream is gone: reset, or never there.
    StreamGone,
    /// Not at this point of the message: a second head, DATA before the head, anything after the end.
    OutOfOrder,
    /// The peer does not offer extended CONNECT (RFC 8441, 3).
    ExtendedConnectNotOffered,
    /// The connection ended with this; it may have been found only now.
    Connection(ConnectionError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::NoStream => "no stream can be opened",
            SendError::StreamGone => "the stream is gone",
            SendError::OutOfOrder => "not at this point of the message",
            SendError::ExtendedConnectNotOffered => "extended CONNECT is not offered",
            SendError::Connection(error) => error.detail(),
        })
    }
}

impl core::error::Error for SendError {}
