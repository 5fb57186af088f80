//! What each command of ours does.

use super::{Connection, Role, lifetime::Life};
use crate::{
    http2::{
        StreamId,
        error::{ConnectionError, ErrorCode, Flood, SendError},
        frame,
        hpack::FieldLine,
        stream::{Closing, Phase, Stream, Wait},
    },
    limits::Http2Limits,
};

/// Streams that are opened before the peer has limited them (RFC 9113, 6.5.2, advises it to allow them).
const STREAMS_ASSUMED: u32 = 100;

/// The pseudo-header fields of a request (RFC 9113, 8.3.1 and 8.5; RFC 8441, 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// `:method`. With `CONNECT` and no protocol, scheme and path are left out.
    pub method: &'a [u8],
    /// `:scheme`
    pub scheme: &'a [u8],
    /// `:authority`
    pub authority: &'a [u8],
    /// `:path`, with the query.
    pub path: &'a [u8],
    /// `:protocol`, for an extended CONNECT.
    pub protocol: Option<&'a [u8]>,
}

impl<'a> RequestLine<'a> {
    /// Whether it asks for a tunnel, to a host or to another protocol.
    fn is_connect(&self) -> bool {
        self.method == b"CONNECT"
    }

    fn fields(self) -> impl Iterator<Item = FieldLine<'a>> {
        let is_plain_connect = self.is_connect() && self.protocol.is_none();
        let unless_connect = |value| (!is_plain_connect).then_some(value);
        [
            (&b":method"[..], Some(self.method)),
            (b":scheme", unless_connect(self.scheme)),
            (b":authority", Some(self.authority)),
            (b":path", unless_connect(self.path)),
            (b":protocol", self.protocol),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(FieldLine::new(name, value?)))
    }
}

impl Connection {
    /// How many streams may be opened now: by the peer's limit and ours. None if the connection is going
    /// away; a connection that has none is full, and another must be made.
    pub fn streams_available(&self) -> usize {
        let is_used_up = self.next_own > StreamId::MAX.number();
        if self.role == Role::Server || self.is_going_away() || is_used_up {
            return 0;
        }
        let theirs = self.peer.concurrent_streams_max.unwrap_or(STREAMS_ASSUMED);
        let max = theirs.min(self.limits.concurrent_streams_max) as usize;
        max.saturating_sub(self.streams.open())
    }

    /// Opens a stream with a request. `fields` are those that [go on](crate::http2::end_to_end); their names
    /// are written in lower case.
    ///
    /// # Errors
    ///
    /// [`SendError::NoStream`] if none [is available](Connection::streams_available).
    pub fn send_request<'a>(
        &mut self,
        line: RequestLine<'a>,
        fields: impl IntoIterator<Item = FieldLine<'a>>,
        end_stream: bool,
    ) -> Result<StreamId, SendError> {
        self.check_open()?;
        if self.streams_available() == 0 {
            return Err(SendError::NoStream);
        }
        if line.protocol.is_some() && !self.peer.extended_connect {
            return Err(SendError::ExtendedConnectNotOffered);
        }
        let id = StreamId::from_number(self.next_own);
        self.next_own += 2;
        let mut stream = self.new_stream(id);
        stream.sending = if end_stream {
            Phase::Ended
        } else {
            Phase::Body
        };
        stream.answer_is_bodiless = line.method == b"HEAD";
        stream.is_connect = line.is_connect();
        self.streams.insert(stream);
        self.write_block(id, end_stream, line.fields(), fields);
        Ok(id)
    }

    /// Sends the head of an answer: an interim one (1xx), after which another follows, or the final one.
    ///
    /// # Errors
    ///
    /// [`SendError::StreamGone`] if the peer has reset the stream; [`SendError::OutOfOrder`] after a final
    /// head, or for an interim one that ends the stream.
    pub fn send_response<'a>(
        &mut self,
        id: StreamId,
        status: u16,
        fields: impl IntoIterator<Item = FieldLine<'a>>,
        end_stream: bool,
    ) -> Result<(), SendError> {
        let is_interim = (100..200).contains(&status);
        let stream = self.sending(id, Phase::Head)?;
        if is_interim && end_stream {
            return Err(SendError::OutOfOrder);
        }
        if !is_interim {
            stream.sending = if end_stream {
                Phase::Ended
            } else {
                Phase::Body
            };
        }
        let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        let status = FieldLine::new(b":status", &digits);
        self.write_block(id, end_stream, [status], fields);
        if end_stream {
            self.end_if_closed(id);
        }
        Ok(())
    }

    /// Sends trailers, the end of the message.
    ///
    /// # Errors
    ///
    /// As for [`send_data`](Connection::send_data).
    pub fn send_trailers<'a>(
        &mut self,
        id: StreamId,
        fields: impl IntoIterator<Item = FieldLine<'a>>,
    ) -> Result<(), SendError> {
        self.sending(id, Phase::Body)?.sending = Phase::Ended;
        self.write_block(id, true, [], fields);
        self.end_if_closed(id);
        Ok(())
    }

    fn write_block<'p, 'a>(
        &mut self,
        id: StreamId,
        end_stream: bool,
        pseudo: impl IntoIterator<Item = FieldLine<'p>>,
        fields: impl IntoIterator<Item = FieldLine<'a>>,
    ) {
        debug_assert!(!self.owes_payload, "a frame between DATA and its payload");
        let encoder = &mut self.encoder;
        let frame_bytes_max = self.peer.frame_bytes_max as usize;
        frame::push_block(&mut self.output, id, end_stream, frame_bytes_max, |out| {
            encoder.begin(out);
            pseudo
                .into_iter()
                .for_each(|line| encoder.encode(line, out));
            fields
                .into_iter()
                .for_each(|line| encoder.encode(line, out));
        });
    }

    /// Asks to send `available` bytes of a body, and with the last of them the end of the stream if
    /// `end_stream`. Returns how many may be sent in one frame: its header is in the output, and those
    /// bytes must follow it. To be called again with the rest.
    ///
    /// 0 means that a window is used up, and [`next_writable`](Connection::next_writable) will name the
    /// stream when it is not; or, if `available` is 0, that the frame is complete.
    ///
    /// # Errors
    ///
    /// [`SendError::StreamGone`] if the peer has reset the stream; [`SendError::OutOfOrder`] before a final
    /// head and after the end.
    pub fn send_data(
        &mut self,
        id: StreamId,
        available: usize,
        end_stream: bool,
        now_ns: u64,
    ) -> Result<usize, SendError> {
        let connection_room = self.send_window.available();
        let frame_room = self.peer.frame_bytes_max as usize;
        let stream = self.sending(id, Phase::Body)?;
        let room = stream.send_window.available().min(connection_room);
        let granted = available.min(room).min(frame_room);
        let ends = end_stream && granted == available;
        if granted == 0 && !ends {
            if available > 0 {
                self.wait(id);
            }
            return Ok(0);
        }
        stream.send_window.spend(granted);
        if ends {
            stream.sending = Phase::Ended;
        }
        self.send_window.spend(granted);
        frame::push_data_header(self.output(), id, granted, ends);
        self.owes_payload = granted > 0;
        self.refund_for_data();
        if granted < available && granted < Http2Limits::TINY_FRAME_BYTES {
            // No frame is that short by its own limit: a window is.
            self.spend(Flood::TinyWindows, now_ns)
                .map_err(|error| SendError::Connection(self.fail_unsent(error)))?;
        }
        if ends {
            self.end_if_closed(id);
        }
        Ok(granted)
    }

    /// Fails with the header of a frame in the output whose payload will not come: it is taken out again.
    fn fail_unsent(&mut self, error: ConnectionError) -> ConnectionError {
        let len = self.output.len().saturating_sub(frame::HEADER_BYTES);
        self.output.truncate(len);
        self.owes_payload = false;
        self.fail(error)
    }

    fn wait(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if stream.wait == Wait::None {
            stream.wait = Wait::Window;
        }
        if stream.may_queue() {
            stream.wait = Wait::Queued;
            self.ready.push_back(id);
        }
    }

    /// The next stream that has waited for a window and may send now. Streams take turns.
    pub fn next_writable(&mut self) -> Option<StreamId> {
        while self.send_window.available() > 0 {
            let id = self.ready.pop_front()?;
            if let Some(stream) = self.streams.get_mut(id) {
                stream.wait = Wait::None;
                return Some(id);
            }
        }
        None
    }

    /// Resets a stream, if it is there; what was received of it needs not be consumed.
    ///
    /// A server that has answered before the whole request came, and wants no more of it, says
    /// [`ErrorCode::NO_ERROR`] (RFC 9113, 8.1).
    pub fn reset(&mut self, id: StreamId, code: ErrorCode) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        if self.is_closed() || stream.is_closed() {
            self.drop_stream(id, Closing::ByPeer);
            return;
        }
        frame::push_reset(self.output(), id, code);
        self.drop_stream(id, Closing::Reset);
    }

    /// The stream, if its message has come as far as `phase`.
    fn sending(&mut self, id: StreamId, phase: Phase) -> Result<&mut Stream, SendError> {
        self.check_open()?;
        let stream = self.streams.get_mut(id).ok_or(SendError::StreamGone)?;
        if stream.sending == phase {
            Ok(stream)
        } else {
            Err(SendError::OutOfOrder)
        }
    }

    fn check_open(&self) -> Result<(), SendError> {
        match self.life {
            Life::Closed(error) => Err(SendError::Connection(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http2::Options;

    /// Goal: streams that are reset while they wait leave nothing behind: the queue is as long as there are
    /// streams. Method: many of them, while the connection's window is used up.
    #[test]
    fn a_reset_stream_leaves_the_queue() {
        let mut client = Connection::client(&Options::default(), 0);
        let line = RequestLine {
            method: b"POST",
            scheme: b"http",
            authority: b"a",
            path: b"/",
            protocol: None,
        };
        let mut out = Vec::new();
        let filler = client.send_request(line, [], false).unwrap();
        while client.send_data(filler, 1 << 20, false, 0).unwrap() > 0 {
            client.take_output(&mut out);
        }
        for _ in 0..1000 {
            let id = client.send_request(line, [], false).unwrap();
            assert_eq!(client.send_data(id, 1, true, 0), Ok(0));
            assert_eq!(client.send_data(id, 1, true, 0), Ok(0));
            assert_eq!(client.ready.len(), 1);
            client.reset(id, ErrorCode::CANCEL);
            assert_eq!(client.ready.len(), 0);
        }
    }
}
