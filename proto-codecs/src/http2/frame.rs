//! Frames: from bytes, wherever they are cut, and to bytes (RFC 9113, 4 and 6).
//!
//! DATA is handed on as it arrives, in the caller's own bytes; other frames when they are whole, from the
//! caller's bytes if all of it lies there, else from a copy. Frames of unknown types are passed over.

use super::{
    StreamId,
    error::{ConnectionError, ErrorCode},
    settings::{FRAME_BYTES_LEAST, SETTING_BYTES},
};

/// Bytes before a frame's payload.
pub(super) const HEADER_BYTES: usize = 9;

/// What a client sends first (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A copy that a frame in pieces made larger than this is freed behind it.
const PARTIAL_BYTES_KEPT: usize = 1024;

/// The types of frames.
mod kind {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const HEADERS: u8 = 0x1;
    pub(super) const PRIORITY: u8 = 0x2;
    pub(super) const RST_STREAM: u8 = 0x3;
    pub(super) const SETTINGS: u8 = 0x4;
    pub(super) const PUSH_PROMISE: u8 = 0x5;
    pub(super) const PING: u8 = 0x6;
    pub(super) const GOAWAY: u8 = 0x7;
    pub(super) const WINDOW_UPDATE: u8 = 0x8;
    pub(super) const CONTINUATION: u8 = 0x9;
}

mod flag {
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// A frame other than DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// HEADERS.
    Headers {
        /// Never 0.
        stream: StreamId,
        /// The beginning of the block.
        fragment: &'a [u8],
        /// END_STREAM.
        end_stream: bool,
        /// END_HEADERS: the block is whole.
        end_headers: bool,
        /// Its priority makes the stream depend on itself.
        depends_on_itself: bool,
    },
    /// CONTINUATION.
    Continuation {
        /// Never 0.
        stream: StreamId,
        /// More of the block.
        fragment: &'a [u8],
        /// END_HEADERS: the block is whole.
        end_headers: bool,
    },
    /// RST_STREAM.
    Reset {
        /// Never 0.
        stream: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// SETTINGS.
    Settings(SettingsFrame<'a>),
    /// SETTINGS with ACK.
    SettingsAck,
    /// PUSH_PROMISE: an error for us, whatever it says.
    PushPromise,
    /// PING.
    Ping {
        /// To be sent back.
        payload: [u8; 8],
    },
    /// PING with ACK.
    PingAck {
        /// As it was sent.
        payload: [u8; 8],
    },
    /// GOAWAY.
    GoAway {
        /// The last stream that may have been acted upon.
        last: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// 0 for the connection.
        stream: StreamId,
        /// May be 0, which is an error of the stream or the connection.
        increment: u32,
    },
    /// PRIORITY, or a frame of an unknown type.
    Ignored,
}

/// A stretch of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataPiece<'a> {
    /// Never 0.
    pub(super) stream: StreamId,
    /// In the caller's bytes.
    pub(super) payload: &'a [u8],
    /// This is the first piece of the frame.
    pub(super) begins: Option<DataFrame>,
    /// This is the last piece, and the stream ends with it.
    pub(super) end_stream: bool,
}

/// A whole DATA frame, as its header tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataFrame {
    /// What flow control counts: payload and padding.
    pub(super) flow_bytes: u32,
    /// The payload.
    pub(super) payload_bytes: u32,
    /// The stream ends with this frame.
    pub(super) end_stream: bool,
}

/// The settings of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SettingsFrame<'a>(&'a [u8]);

impl<'a> SettingsFrame<'a> {
    /// How many there are.
    pub(super) fn len(self) -> usize {
        self.0.len() / SETTING_BYTES
    }

    /// Identifiers and values, in order.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, u32)> + 'a {
        let (settings, _) = self.0.as_chunks::<SETTING_BYTES>();
        settings.iter().map(|&[i0, i1, v0, v1, v2, v3]| {
            let id = u16::from_be_bytes([i0, i1]);
            (id, u32::from_be_bytes([v0, v1, v2, v3]))
        })
    }
}

/// One step of reading.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// Bytes of the input that are dealt with; something, unless the input is empty.
    pub(super) consumed: usize,
    pub(super) found: Found<'a>,
}

/// What a step has found.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// Nothing is whole yet.
    Nothing,
    /// A stretch of DATA.
    Data(DataPiece<'a>),
    /// Another frame, in the caller's bytes.
    Frame(Frame<'a>),
    /// Gathered from pieces; its memory should be [given back](FrameReader::recycle).
    Gathered(Gathered),
}

/// A frame that came in pieces.
#[derive(Debug)]
pub(super) struct Gathered {
    header: FrameHeader,
    payload: Vec<u8>,
}

impl Gathered {
    pub(super) fn frame(&self) -> Result<Frame<'_>, ConnectionError> {
        parse(self.header, &self.payload)
    }
}

impl Read<'_> {
    fn nothing(consumed: usize) -> Self {
        Read {
            consumed,
            found: Found::Nothing,
        }
    }
}

/// Reads the frames of one connection's direction.
#[derive(Debug)]
pub(super) struct FrameReader {
    state: State,
    frame_bytes_max: u32,
    /// The header at hand, as far as it has arrived: `filled` bytes of it.
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// The payload at hand, as far as it has arrived.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client's preface; so much of it has come.
    Preface(usize),
    Header,
    /// The payload of a frame that must be whole.
    Payload(FrameHeader),
    /// The pad length of a DATA frame.
    PadLength(FrameHeader),
    /// The payload of a DATA frame: what is left of it, and of the padding.
    Data {
        header: FrameHeader,
        begins: Option<DataFrame>,
        left: usize,
        padding: usize,
    },
    /// What nobody reads.
    Skip(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHeader {
    len: u32,
    kind: u8,
    flags: u8,
    stream: StreamId,
}

impl FrameHeader {
    fn parse(bytes: [u8; HEADER_BYTES]) -> FrameHeader {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        FrameHeader {
            len: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: StreamId::from_wire([s0, s1, s2, s3]),
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What can be said before the payload is there: lengths and kinds of streams (RFC 9113, 6).
    fn check(self, frame_bytes_max: u32) -> Result<(), ConnectionError> {
        if self.len > frame_bytes_max {
            return Err(ConnectionError::FrameSize);
        }
        let on_stream = self.stream != StreamId::CONNECTION;
        let (belongs, fits) = match self.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION | kind::PUSH_PROMISE => {
                (on_stream, true)
            }
            kind::PRIORITY => (on_stream, self.len == 5),
            kind::RST_STREAM => (on_stream, self.len == 4),
            kind::SETTINGS if self.has(flag::ACK) => (!on_stream, self.len == 0),
            kind::SETTINGS => (!on_stream, self.len.is_multiple_of(SETTING_BYTES as u32)),
            kind::PING => (!on_stream, self.len == 8),
            kind::GOAWAY => (!on_stream, self.len >= 8),
            kind::WINDOW_UPDATE => (true, self.len == 4),
            _ => (true, true),
        };
        if !belongs {
            return Err(ConnectionError::StreamZero);
        }
        if !fits {
            return Err(ConnectionError::FrameSize);
        }
        Ok(())
    }

    /// What comes behind the header.
    fn next_state(self) -> State {
        match self.kind {
            kind::DATA if self.has(flag::PADDED) => State::PadLength(self),
            kind::DATA => self.data(0, self.len as usize, 0),
            _ => State::Payload(self),
        }
    }

    fn data(self, pad_length_bytes: u32, left: usize, padding: usize) -> State {
        debug_assert_eq!(
            self.len as usize,
            pad_length_bytes as usize + left + padding
        );
        State::Data {
            header: self,
            begins: Some(DataFrame {
                flow_bytes: self.len,
                payload_bytes: left as u32,
                end_stream: self.has(flag::END_STREAM),
            }),
            left,
            padding,
        }
    }

    /// Whether its payload is read at all.
    fn is_known(self) -> bool {
        self.kind <= kind::CONTINUATION
    }
}

impl FrameReader {
    /// A reader at the first frame.
    pub(super) fn new(frame_bytes_max: u32) -> FrameReader {
        FrameReader {
            state: State::Header,
            frame_bytes_max: frame_bytes_max.max(FRAME_BYTES_LEAST),
            header: [0; HEADER_BYTES],
            filled: 0,
            partial: Vec::new(),
        }
    }

    /// A reader at the client's preface.
    pub(super) fn at_preface(frame_bytes_max: u32) -> FrameReader {
        FrameReader {
            state: State::Preface(0),
            ..FrameReader::new(frame_bytes_max)
        }
    }

    /// Reads on: at most to the end of one frame. To be called with the rest of the input until that is
    /// empty. After an error the reader must not be used.
    pub(super) fn read<'a>(&mut self, input: &'a [u8]) -> Result<Read<'a>, ConnectionError> {
        match self.state {
            State::Preface(matched) => self.read_preface(matched, input),
            State::Header => self.read_header(input),
            State::Payload(header) => self.read_payload(header, input, 0),
            State::PadLength(_) | State::Data { .. } => self.read_data(input, 0),
            State::Skip(left) => Ok(self.skip(left, input, 0)),
        }
    }

    fn read_preface(
        &mut self,
        matched: usize,
        input: &[u8],
    ) -> Result<Read<'static>, ConnectionError> {
        let expected = PREFACE.get(matched..).unwrap_or_default();
        let len = expected.len().min(input.len());
        if input.get(..len) != expected.get(..len) {
            return Err(ConnectionError::Preface);
        }
        self.state = match matched + len {
            whole if whole == PREFACE.len() => State::Header,
            part => State::Preface(part),
        };
        Ok(Read::nothing(len))
    }

    /// Takes back the memory of a frame that was dealt with.
    pub(super) fn recycle(&mut self, gathered: Gathered) {
        let mut payload = gathered.payload;
        payload.clear();
        payload.shrink_to(PARTIAL_BYTES_KEPT);
        self.partial = payload;
    }

    fn read_header<'a>(&mut self, input: &'a [u8]) -> Result<Read<'a>, ConnectionError> {
        let (consumed, bytes) = match input.first_chunk::<HEADER_BYTES>() {
            Some(bytes) if self.filled == 0 => (HEADER_BYTES, *bytes),
            _ => {
                let wanted = self.header.get_mut(self.filled..).unwrap_or_default();
                let len = wanted.len().min(input.len());
                for (to, from) in wanted.iter_mut().zip(input) {
                    *to = *from;
                }
                self.filled += len;
                if self.filled < HEADER_BYTES {
                    return Ok(Read::nothing(len));
                }
                (len, self.header)
            }
        };
        self.filled = 0;
        let header = FrameHeader::parse(bytes);
        header.check(self.frame_bytes_max)?;
        self.state = header.next_state();
        match self.state {
            State::Payload(header) => self.read_payload(header, input, consumed),
            _ => self.read_data(input, consumed),
        }
    }

    /// Reads the payload, from offset `start` of the input on.
    fn read_payload<'a>(
        &mut self,
        header: FrameHeader,
        input: &'a [u8],
        start: usize,
    ) -> Result<Read<'a>, ConnectionError> {
        let len = header.len as usize;
        if !header.is_known() {
            let mut read = self.skip(len, input, start);
            read.found = Found::Frame(Frame::Ignored);
            return Ok(read);
        }
        let available = input.get(start..).unwrap_or_default();
        if self.partial.is_empty()
            && let Some(payload) = available.get(..len)
        {
            self.state = State::Header;
            return Ok(Read {
                consumed: start + len,
                found: Found::Frame(parse(header, payload)?),
            });
        }
        let taken = available.len().min(len - self.partial.len());
        self.partial
            .extend_from_slice(available.get(..taken).unwrap_or_default());
        if self.partial.len() < len {
            return Ok(Read::nothing(start + taken));
        }
        self.state = State::Header;
        Ok(Read {
            consumed: start + taken,
            found: Found::Gathered(Gathered {
                header,
                payload: core::mem::take(&mut self.partial),
            }),
        })
    }

    /// Reads on in a DATA frame, from offset `start` of the input on.
    fn read_data<'a>(
        &mut self,
        input: &'a [u8],
        mut start: usize,
    ) -> Result<Read<'a>, ConnectionError> {
        if let State::PadLength(header) = self.state {
            // RFC 9113, 6.1: without room for its length, the padding is too long.
            let rest = header.len.checked_sub(1).ok_or(ConnectionError::Padding)? as usize;
            let Some(padding) = input.get(start).map(|&byte| usize::from(byte)) else {
                return Ok(Read::nothing(start));
            };
            let left = rest.checked_sub(padding).ok_or(ConnectionError::Padding)?;
            self.state = header.data(1, left, padding);
            start += 1;
        }
        let State::Data {
            header,
            begins,
            left,
            padding,
        } = self.state
        else {
            return Ok(Read::nothing(start));
        };
        let available = input.get(start..).unwrap_or_default();
        if available.is_empty() && left > 0 {
            return Ok(Read::nothing(start));
        }
        let payload = available.get(..left).unwrap_or(available);
        let left = left - payload.len();
        self.state = match left {
            0 if padding == 0 => State::Header,
            0 => State::Skip(padding),
            _ => State::Data {
                header,
                begins: None,
                left,
                padding,
            },
        };
        Ok(Read {
            consumed: start + payload.len(),
            found: Found::Data(DataPiece {
                stream: header.stream,
                payload,
                begins,
                end_stream: left == 0 && header.has(flag::END_STREAM),
            }),
        })
    }

    fn skip<'a>(&mut self, left: usize, input: &[u8], start: usize) -> Read<'a> {
        let taken = left.min(input.len().saturating_sub(start));
        self.state = match left - taken {
            0 => State::Header,
            left => State::Skip(left),
        };
        Read::nothing(start + taken)
    }
}

fn parse(header: FrameHeader, payload: &[u8]) -> Result<Frame<'_>, ConnectionError> {
    let stream = header.stream;
    Ok(match header.kind {
        kind::HEADERS => return parse_headers(header, payload),
        kind::CONTINUATION => Frame::Continuation {
            stream,
            fragment: payload,
            end_headers: header.has(flag::END_HEADERS),
        },
        kind::PRIORITY if dependency(payload) == Some(stream) => {
            return Err(ConnectionError::PriorityInvalid);
        }
        kind::RST_STREAM => Frame::Reset {
            stream,
            code: ErrorCode(number(payload, 0)?),
        },
        kind::SETTINGS if header.has(flag::ACK) => Frame::SettingsAck,
        kind::SETTINGS => Frame::Settings(SettingsFrame(payload)),
        kind::PUSH_PROMISE => Frame::PushPromise,
        kind::PING => {
            let payload = *payload.first_chunk().ok_or(ConnectionError::FrameSize)?;
            if header.has(flag::ACK) {
                Frame::PingAck { payload }
            } else {
                Frame::Ping { payload }
            }
        }
        kind::GOAWAY => Frame::GoAway {
            last: StreamId::from_number(number(payload, 0)?),
            code: ErrorCode(number(payload, 4)?),
        },
        kind::WINDOW_UPDATE => Frame::WindowUpdate {
            stream,
            increment: number(payload, 0)? & 0x7fff_ffff,
        },
        _ => Frame::Ignored,
    })
}

/// RFC 9113, 6.2: padding, and what was the priority.
fn parse_headers(header: FrameHeader, payload: &[u8]) -> Result<Frame<'_>, ConnectionError> {
    let mut fragment = payload;
    let mut padding = 0;
    if header.has(flag::PADDED) {
        let (&pad_length, rest) = fragment.split_first().ok_or(ConnectionError::FrameSize)?;
        padding = usize::from(pad_length);
        fragment = rest;
    }
    let mut depends_on_itself = false;
    if header.has(flag::PRIORITY) {
        let (priority, rest) = fragment
            .split_at_checked(5)
            .ok_or(ConnectionError::FrameSize)?;
        depends_on_itself = dependency(priority) == Some(header.stream);
        fragment = rest;
    }
    let len = fragment
        .len()
        .checked_sub(padding)
        .ok_or(ConnectionError::Padding)?;
    Ok(Frame::Headers {
        stream: header.stream,
        fragment: fragment.get(..len).unwrap_or_default(),
        end_stream: header.has(flag::END_STREAM),
        end_headers: header.has(flag::END_HEADERS),
        depends_on_itself,
    })
}

/// The stream that a priority depends on; its first bit says something else.
fn dependency(priority: &[u8]) -> Option<StreamId> {
    priority
        .first_chunk()
        .map(|bytes| StreamId::from_wire(*bytes))
}

fn number(payload: &[u8], at: usize) -> Result<u32, ConnectionError> {
    payload
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or(ConnectionError::FrameSize)
}

fn header(len: usize, kind: u8, flags: u8, stream: StreamId) -> [u8; HEADER_BYTES] {
    let [_, l0, l1, l2] = (len as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.number().to_be_bytes();
    [l0, l1, l2, kind, flags, s0, s1, s2, s3]
}

fn push_header(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: StreamId) {
    out.extend_from_slice(&header(len, kind, flags, stream));
}

/// Appends the header of a DATA frame; `len` bytes of payload follow.
pub(super) fn push_data_header(out: &mut Vec<u8>, stream: StreamId, len: usize, end_stream: bool) {
    let flags = if end_stream { flag::END_STREAM } else { 0 };
    push_header(out, len, kind::DATA, flags, stream);
}

/// Appends a header block that `write` appends: HEADERS, and CONTINUATION as needed for frames of
/// `frame_bytes_max`.
pub(super) fn push_block(
    out: &mut Vec<u8>,
    stream: StreamId,
    end_stream: bool,
    frame_bytes_max: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    push_header(out, 0, kind::HEADERS, 0, stream);
    write(out);
    let stream_flag = if end_stream { flag::END_STREAM } else { 0 };
    let len = out.len() - start - HEADER_BYTES;
    if len <= frame_bytes_max {
        let flags = stream_flag | flag::END_HEADERS;
        let header = header(len, kind::HEADERS, flags, stream);
        for (to, from) in out.iter_mut().skip(start).zip(header) {
            *to = from;
        }
        return;
    }
    // Rare: a block that one frame does not hold is cut, and written again.
    let block = out.split_off(start + HEADER_BYTES);
    out.truncate(start);
    let mut kind = kind::HEADERS;
    let mut flags = stream_flag;
    let mut rest = block.as_slice();
    while !rest.is_empty() {
        let len = rest.len().min(frame_bytes_max);
        let (fragment, tail) = rest.split_at_checked(len).unwrap_or_default();
        if tail.is_empty() {
            flags |= flag::END_HEADERS;
        }
        push_header(out, len, kind, flags, stream);
        out.extend_from_slice(fragment);
        (kind, flags, rest) = (kind::CONTINUATION, 0, tail);
    }
}

/// Appends SETTINGS.
pub(super) fn push_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let len = settings.len() * SETTING_BYTES;
    push_header(out, len, kind::SETTINGS, 0, StreamId::CONNECTION);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends the acknowledgement of SETTINGS.
pub(super) fn push_settings_ack(out: &mut Vec<u8>) {
    push_header(out, 0, kind::SETTINGS, flag::ACK, StreamId::CONNECTION);
}

/// Appends PING.
pub(super) fn push_ping(out: &mut Vec<u8>, payload: [u8; 8]) {
    push_header(out, 8, kind::PING, 0, StreamId::CONNECTION);
    out.extend_from_slice(&payload);
}

/// Appends the answer to PING.
pub(super) fn push_ping_ack(out: &mut Vec<u8>, payload: [u8; 8]) {
    push_header(out, 8, kind::PING, flag::ACK, StreamId::CONNECTION);
    out.extend_from_slice(&payload);
}

/// Appends RST_STREAM.
pub(super) fn push_reset(out: &mut Vec<u8>, stream: StreamId, code: ErrorCode) {
    push_header(out, 4, kind::RST_STREAM, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends GOAWAY.
pub(super) fn push_go_away(out: &mut Vec<u8>, last: StreamId, code: ErrorCode) {
    push_header(out, 8, kind::GOAWAY, 0, StreamId::CONNECTION);
    out.extend_from_slice(&last.number().to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Appends WINDOW_UPDATE.
pub(super) fn push_window_update(out: &mut Vec<u8>, stream: StreamId, increment: u32) {
    push_header(out, 4, kind::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}
