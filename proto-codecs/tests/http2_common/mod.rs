//! What the tests of HTTP/2 share: frames from their parts and back, and a connection fed with them.
#![allow(dead_code)] // Each test takes what it needs.
#![allow(clippy::indexing_slicing)]

use tidegate_codecs::{
    http2::{
        Connection, ConnectionError, ErrorCode, Event, FieldLine, MessageError, Options, PREFACE,
        StreamId, hpack::Encoder,
    },
    limits::Http2Limits,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;
/// HEADERS that are all of a request.
pub(crate) const WHOLE: u8 = END_HEADERS | END_STREAM;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A block that leaves the tables as they are.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::new(0);
    let mut out = Vec::new();
    for (name, value) in fields {
        // The encoder would write names in lower case: here they are written as they are.
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            out.extend([0, name.len() as u8]);
            out.extend(name.bytes());
            out.push(value.len() as u8);
            out.extend(value.bytes());
        } else {
            let line = FieldLine::new(name.as_bytes(), value.as_bytes());
            encoder.encode(line, &mut out);
        }
    }
    out
}

pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a"),
];

pub(crate) const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a"),
];

/// HEADERS with a whole block.
pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

pub(crate) fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in list {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn reset(stream: u32, code: ErrorCode) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// Takes frames apart; a client's preface before them is left out.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Sent> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        frames.push(Sent {
            kind: rest[3],
            flags: rest[4],
            stream: u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]),
            payload: rest[9..9 + len].to_vec(),
        });
        rest = &rest[9 + len..];
    }
    frames
}

/// An event that owns what it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Request(u32, String, bool),
    Refused(u32, MessageError),
    Response(u32, String, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32, String),
    Reset(u32, ErrorCode),
    Broken(u32, MessageError),
    GoAway(u32, ErrorCode),
    Settings,
}

/// A connection and what has come of it.
pub(crate) struct Wire {
    pub(crate) connection: Connection,
    pub(crate) seen: Vec<Seen>,
    /// What it has sent.
    pub(crate) sent: Vec<u8>,
    pub(crate) error: Option<ConnectionError>,
    pub(crate) now_ns: u64,
    /// DATA is consumed as it comes.
    pub(crate) consumes: bool,
    /// The streams of the heads that came.
    pub(crate) streams: Vec<StreamId>,
}

impl Wire {
    pub(crate) fn new(connection: Connection) -> Wire {
        Wire {
            connection,
            seen: Vec::new(),
            sent: Vec::new(),
            error: None,
            now_ns: 0,
            consumes: true,
            streams: Vec::new(),
        }
    }

    /// A server whose client has sent its preface, and acknowledged ours.
    pub(crate) fn server(options: &Options) -> Wire {
        let mut wire = Wire::new(Connection::server(options, 0));
        wire.feed(PREFACE);
        wire.feed(&settings(&[]));
        wire.feed(&frame(SETTINGS, ACK, 0, &[]));
        wire.start_over();
        wire
    }

    pub(crate) fn server_with(limits: Http2Limits) -> Wire {
        Wire::server(&Options {
            limits,
            ..Options::default()
        })
    }

    /// A client whose server has done the same.
    pub(crate) fn client(options: &Options) -> Wire {
        let mut wire = Wire::new(Connection::client(options, 0));
        wire.feed(&settings(&[]));
        wire.feed(&frame(SETTINGS, ACK, 0, &[]));
        wire.start_over();
        wire
    }

    /// Forgets what was sent and seen.
    pub(crate) fn start_over(&mut self) {
        assert_eq!(self.error, None);
        self.take_output();
        self.sent.clear();
        self.seen.clear();
    }

    pub(crate) fn take_output(&mut self) {
        self.connection.take_output(&mut self.sent);
    }

    /// The frames sent since the last call.
    pub(crate) fn take_frames(&mut self) -> Vec<Sent> {
        self.take_output();
        frames(&core::mem::take(&mut self.sent))
    }

    /// Feeds bytes in one piece.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while !input.is_empty() && self.error.is_none() {
            match self.connection.receive(input, self.now_ns) {
                Ok(received) => {
                    assert!(received.consumed > 0, "no progress");
                    input = &input[received.consumed..];
                    if let Some(event) = received.event {
                        self.see(event);
                    }
                }
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Feeds bytes in pieces.
    pub(crate) fn feed_by(&mut self, bytes: &[u8], sizes: &mut impl Iterator<Item = usize>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = sizes.next().unwrap_or(1).clamp(1, rest.len());
            self.feed(&rest[..len]);
            rest = &rest[len..];
        }
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.connection.head().text()).into_owned()
    }

    fn see(&mut self, event: Event<'_>) {
        if let Event::Request { stream, .. }
        | Event::Refused { stream, .. }
        | Event::Response { stream, .. } = event
        {
            self.streams.push(stream);
        }
        let seen = match event {
            Event::Request { stream, end_stream } => {
                Seen::Request(stream.number(), self.text(), end_stream)
            }
            Event::Refused { stream, error, .. } => Seen::Refused(stream.number(), error),
            Event::Response { stream, end_stream } => {
                Seen::Response(stream.number(), self.text(), end_stream)
            }
            Event::Data {
                stream,
                payload,
                end_stream,
            } => {
                if self.consumes {
                    self.connection.consume(stream, payload.len());
                }
                return self.see_data(stream, payload, end_stream);
            }
            Event::Trailers { stream } => Seen::Trailers(stream.number(), self.text()),
            Event::Reset { stream, code } => Seen::Reset(stream.number(), code),
            Event::Broken { stream, error } => Seen::Broken(stream.number(), error),
            Event::GoAway { last, code } => Seen::GoAway(last.number(), code),
            Event::Settings => Seen::Settings,
        };
        self.seen.push(seen);
    }

    /// Pieces of a body that follow each other are one.
    fn see_data(&mut self, stream: StreamId, payload: &[u8], end_stream: bool) {
        match self.seen.last_mut() {
            Some(Seen::Data(last, bytes, ended)) if *last == stream.number() => {
                bytes.extend(payload);
                *ended |= end_stream;
            }
            _ => self
                .seen
                .push(Seen::Data(stream.number(), payload.to_vec(), end_stream)),
        }
    }

    /// The stream that the last head came on.
    pub(crate) fn last_stream(&self) -> StreamId {
        *self.streams.last().expect("a head")
    }
}
