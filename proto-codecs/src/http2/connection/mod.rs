//! One connection: frames in, events out; commands in, frames out.
//!
//! * `mod.rs`: [`Connection`], what it knows, its output.
//! * `receiving.rs`: what each frame of the peer does; `heads.rs`: what its header blocks do.
//! * `sending.rs`: what each command of ours does.
//! * `lifetime.rs`: keep-alive, time-outs, the drain, the end.

mod heads;
mod lifetime;
mod receiving;
mod sending;

use core::time::Duration;
use std::collections::VecDeque;

use super::{
    StreamId,
    budget::Budgets,
    error::{ConnectionError, ErrorCode, Flood, MessageError},
    flow::{ReceiveWindow, SendWindow, WINDOW_BYTES_INITIAL},
    frame::{self, FrameReader},
    head::HeaderBlock,
    hpack::{Decoder, Encoder},
    settings::{self, PeerSettings},
    stream::{Closed, Closing, Stream, StreamState, Streams, Wait},
};
use crate::limits::Http2Limits;

use lifetime::{Life, Liveness};
pub use sending::RequestLine;

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We have opened it, and ask.
    Client,
    /// We have accepted it, and answer.
    Server,
}

/// How a connection is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the peer may do.
    pub limits: Http2Limits,
    /// A server offers extended CONNECT (RFC 8441).
    pub extended_connect: bool,
    /// PINGs while streams are open; `None` sends none.
    pub keep_alive: Option<KeepAlive>,
    /// How long the peer may take to acknowledge our settings.
    pub settings_timeout: Duration,
    /// How long a drain waits for the peer to have heard of it, before it refuses streams.
    pub drain_notice: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            limits: Http2Limits::default(),
            extended_connect: false,
            keep_alive: None,
            // Several round trips of the slowest links.
            settings_timeout: Duration::from_secs(10),
            // One of them; the PING that goes along ends it sooner.
            drain_notice: Duration::from_secs(1),
        }
    }
}

/// When a silent peer is asked whether it is there, and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before a PING.
    pub interval: Duration,
    /// Silence after it before the connection ends.
    pub timeout: Duration,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Server: a request. Its head is [`Connection::head`], until the next event.
    Request {
        /// A new one.
        stream: StreamId,
        /// There is no body.
        end_stream: bool,
    },
    /// Server: a request that is well-formed, but to be refused with the status of this error.
    Refused {
        /// A new one; the answer is owed.
        stream: StreamId,
        /// [`MessageError::status`] has the status.
        error: MessageError,
        /// There is no body.
        end_stream: bool,
    },
    /// Client: an answer. Its head is [`Connection::head`], until the next event. After an
    /// [interim](HeaderBlock::is_interim) one another follows.
    Response {
        /// Of the request.
        stream: StreamId,
        /// There is no body.
        end_stream: bool,
    },
    /// More of a body. To be [consumed](Connection::consume).
    Data {
        /// Of the message.
        stream: StreamId,
        /// In the input; empty only at the end of the stream.
        payload: &'a [u8],
        /// The message ends here.
        end_stream: bool,
    },
    /// Trailers, the end of the message. They are in [`Connection::head`], until the next event.
    Trailers {
        /// Of the message.
        stream: StreamId,
    },
    /// The peer has reset the stream. What was received of it and not consumed needs not be.
    Reset {
        /// It is gone.
        stream: StreamId,
        /// Why; an answer that has ended is whole with NO_ERROR (RFC 9113, 8.1).
        code: ErrorCode,
    },
    /// The peer broke a rule on a stream, and it was reset. The caller may never have heard of it.
    Broken {
        /// It is gone.
        stream: StreamId,
        /// The rule.
        error: MessageError,
    },
    /// The peer is going away: no stream can be opened. Ours above `last` are gone, and were not acted
    /// upon: they may be tried elsewhere.
    GoAway {
        /// The last stream that the peer may have acted upon.
        last: StreamId,
        /// Why.
        code: ErrorCode,
    },
    /// The peer's settings have changed: more, or fewer, streams can perhaps be opened.
    Settings,
}

/// One step of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Bytes of the input that are dealt with; something, unless the input is empty.
    pub consumed: usize,
    /// What they have brought about.
    pub event: Option<Event<'a>>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    limits: Http2Limits,
    extended_connect: bool,
    reader: FrameReader,
    decoder: Decoder,
    encoder: Encoder,
    block: HeaderBlock,
    /// A block whose end is to come.
    open_block: Option<OpenBlock>,
    /// What has come of it.
    fragments: Vec<u8>,
    streams: Streams,
    closed: Closed,
    /// The last stream that the peer has opened.
    last_peer: StreamId,
    /// The number of the next stream that we open.
    next_own: u32,
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// Streams that the connection's window will serve, in turn. Those that are [`Wait::Queued`].
    ready: VecDeque<StreamId>,
    peer: PeerSettings,
    /// It has sent them.
    has_peer_settings: bool,
    /// The last stream of ours that it may have acted upon, if it is going away.
    peer_last: Option<StreamId>,
    /// The windows that the peer knows streams to begin with.
    stream_window_bytes: u32,
    life: Life,
    liveness: Liveness,
    budgets: Budgets,
    output: Vec<u8>,
    /// How much of the output the peer has demanded.
    demanded_bytes: usize,
    /// The output ends with the header of a DATA frame, whose payload must be sent behind it.
    owes_payload: bool,
}

/// A header block that further frames continue.
#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    stream: StreamId,
    end_stream: bool,
    depends_on_itself: bool,
    continuations: u32,
}

impl Connection {
    /// The side that asks. The preface is in the output.
    pub fn client(options: &Options, now_ns: u64) -> Connection {
        Connection::new(Role::Client, options, now_ns)
    }

    /// The side that answers. Settings are in the output.
    pub fn server(options: &Options, now_ns: u64) -> Connection {
        Connection::new(Role::Server, options, now_ns)
    }

    fn new(role: Role, options: &Options, now_ns: u64) -> Connection {
        let limits = options.limits;
        let mut connection = Connection {
            role,
            limits,
            extended_connect: options.extended_connect && role == Role::Server,
            reader: match role {
                Role::Client => FrameReader::new(limits.frame_bytes_max),
                Role::Server => FrameReader::at_preface(limits.frame_bytes_max),
            },
            decoder: Decoder::default(),
            encoder: Encoder::new(limits.encoder_table_bytes_max as usize),
            block: HeaderBlock::default(),
            open_block: None,
            fragments: Vec::new(),
            streams: Streams::default(),
            closed: Closed::default(),
            last_peer: StreamId::CONNECTION,
            next_own: 1,
            send_window: SendWindow::new(WINDOW_BYTES_INITIAL),
            receive_window: ReceiveWindow::new(limits.connection_window_bytes),
            ready: VecDeque::new(),
            peer: PeerSettings::default(),
            has_peer_settings: false,
            peer_last: None,
            stream_window_bytes: WINDOW_BYTES_INITIAL,
            life: Life::Open,
            liveness: Liveness::new(options, now_ns),
            budgets: Budgets::new(&limits, now_ns),
            output: Vec::new(),
            demanded_bytes: 0,
            owes_payload: false,
        };
        connection.write_preface();
        connection
    }

    fn write_preface(&mut self) {
        if self.role == Role::Client {
            self.output.extend_from_slice(frame::PREFACE);
        }
        let limits = &self.limits;
        let mut list = [(0, 0); 8];
        let mut len = 0;
        for (id, value, default) in [
            (
                settings::HEADER_TABLE_SIZE,
                limits.decoder_table_bytes_max,
                4096,
            ),
            (
                settings::ENABLE_PUSH,
                u32::from(self.role == Role::Server),
                1,
            ),
            (
                settings::MAX_CONCURRENT_STREAMS,
                self.streams_offered(),
                u32::MAX,
            ),
            (
                settings::INITIAL_WINDOW_SIZE,
                limits.stream_window_bytes,
                WINDOW_BYTES_INITIAL,
            ),
            (
                settings::MAX_FRAME_SIZE,
                limits.frame_bytes_max,
                settings::FRAME_BYTES_LEAST,
            ),
            (
                settings::MAX_HEADER_LIST_SIZE,
                limits.header_list_bytes_max as u32,
                u32::MAX,
            ),
            (
                settings::ENABLE_CONNECT_PROTOCOL,
                u32::from(self.extended_connect),
                0,
            ),
            // RFC 9218, 2.1: the fields of that RFC go on as they are, the frames of the old one are ignored.
            (settings::NO_RFC7540_PRIORITIES, 1, 0),
        ] {
            if value != default
                && let Some(place) = list.get_mut(len)
            {
                *place = (id, value);
                len += 1;
            }
        }
        frame::push_settings(&mut self.output, list.get(..len).unwrap_or_default());
        let more = limits
            .connection_window_bytes
            .saturating_sub(WINDOW_BYTES_INITIAL);
        if more > 0 {
            frame::push_window_update(&mut self.output, StreamId::CONNECTION, more);
        }
    }

    /// A client that allows no push has no need to limit them.
    fn streams_offered(&self) -> u32 {
        match self.role {
            Role::Client => u32::MAX,
            Role::Server => self.limits.concurrent_streams_max,
        }
    }

    /// Which side we are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The head or the trailers that the last event has announced.
    pub fn head(&mut self) -> &mut HeaderBlock {
        &mut self.block
    }

    /// What the peer has set.
    pub fn peer(&self) -> &PeerSettings {
        &self.peer
    }

    /// Streams that are open or half-closed.
    pub fn streams_open(&self) -> usize {
        self.streams.open()
    }

    /// The state of a stream; `None` if it is idle or gone.
    pub fn stream_state(&self, stream: StreamId) -> Option<StreamState> {
        self.streams.get(stream).map(Stream::state)
    }

    /// Bytes to be sent.
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Whether there is something to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Moves what is to be sent behind `out`. After [`send_data`](Connection::send_data) the granted bytes
    /// of the body must follow, before anything else.
    ///
    /// To be called when the socket takes bytes, not ahead of it.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            core::mem::swap(out, &mut self.output);
        } else {
            out.append(&mut self.output);
        }
        self.demanded_bytes = 0;
        self.owes_payload = false;
    }

    /// The output, for anything but a payload.
    fn output(&mut self) -> &mut Vec<u8> {
        debug_assert!(!self.owes_payload, "a frame between DATA and its payload");
        &mut self.output
    }

    /// Writes what the peer has demanded; it must read at some time.
    fn answer(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ConnectionError> {
        let before = self.output.len();
        write(self.output());
        self.demanded_bytes += self.output.len() - before;
        if self.demanded_bytes > self.limits.unread_bytes_max {
            return Err(ConnectionError::Flood(Flood::Unread));
        }
        Ok(())
    }

    fn spend(&mut self, flood: Flood, now_ns: u64) -> Result<(), ConnectionError> {
        self.budgets
            .spend(flood, now_ns)
            .map_err(ConnectionError::Flood)
    }

    /// The application is done with `bytes` of DATA that it was given: the peer may send as many again,
    /// once they are worth an update.
    ///
    /// All DATA is to be consumed, also of a stream that has ended, or the stream to be
    /// [reset](Connection::reset).
    pub fn consume(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let bytes = stream
            .receive_window
            .unconsumed()
            .min(u32::try_from(bytes).unwrap_or(u32::MAX));
        stream.receive_window.consume(bytes);
        self.give_back(id, bytes);
        self.forget_if_done(id);
    }

    /// Reopens windows: by `bytes` the connection's, and the stream's by what it was told already.
    fn give_back(&mut self, id: StreamId, bytes: u32) {
        if self.is_closed() {
            return;
        }
        self.receive_window.consume(bytes);
        if let Some(increment) = self.receive_window.give_back() {
            frame::push_window_update(self.output(), StreamId::CONNECTION, increment);
        }
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if stream.receives()
            && let Some(increment) = stream.receive_window.give_back()
        {
            frame::push_window_update(self.output(), id, increment);
        }
    }

    /// A side of the stream has ended; if it was the second, the stream has ended well.
    fn end_if_closed(&mut self, id: StreamId) {
        if self.streams.get(id).is_some_and(Stream::is_closed) {
            self.streams.mark_closed();
            self.budgets.refund(Flood::Resets, 1);
            self.forget_if_done(id);
        }
    }

    /// Takes a closed stream out once its data are consumed.
    fn forget_if_done(&mut self, id: StreamId) {
        let is_done =
            |stream: &Stream| stream.is_closed() && stream.receive_window.unconsumed() == 0;
        if self.streams.get(id).is_some_and(is_done) {
            self.streams.remove(id);
            self.closed.add(id, Closing::ByPeer);
        }
    }

    /// Takes a stream out, whatever its state, and gives back what was not consumed of it.
    fn drop_stream(&mut self, id: StreamId, closing: Closing) {
        let Some(stream) = self.streams.remove(id) else {
            return;
        };
        if stream.wait == Wait::Queued {
            self.ready.retain(|queued| *queued != id);
        }
        self.closed.add(id, closing);
        self.give_back(id, stream.receive_window.unconsumed());
    }
}
