//! What each frame of the peer does, but for header blocks.

use super::{Connection, Event, OpenBlock, Received, Role, lifetime::Life};
use crate::http2::{
    StreamId,
    error::{ConnectionError, ErrorCode, Flood, MessageError},
    frame::{self, DataFrame, DataPiece, Found, Frame, SettingsFrame},
    settings,
    stream::{Closing, Phase, Wait},
};

pub(super) type Outcome = Result<Option<Event<'static>>, ConnectionError>;

/// WINDOW_UPDATE frames that one DATA frame of ours explains (Envoy's number).
const WINDOW_UPDATES_PER_DATA: u32 = 10;
/// And that a new stream explains.
pub(super) const WINDOW_UPDATES_PER_STREAM: u32 = 2;

impl Connection {
    /// Reads on in what the peer has sent: at most to the end of one frame. To be called with the rest of
    /// the input until that is empty.
    ///
    /// # Errors
    ///
    /// The connection has ended: the output is to be sent, with the GOAWAY in it, and the connection closed.
    /// From then on every call fails alike.
    pub fn receive<'a>(
        &mut self,
        input: &'a [u8],
        now_ns: u64,
    ) -> Result<Received<'a>, ConnectionError> {
        if let Life::Closed(error) = self.life {
            return Err(error);
        }
        self.liveness.heard(now_ns);
        self.receive_frame(input, now_ns)
            .map_err(|error| self.fail(error))
    }

    fn receive_frame<'a>(
        &mut self,
        input: &'a [u8],
        now_ns: u64,
    ) -> Result<Received<'a>, ConnectionError> {
        let read = self.reader.read(input)?;
        let event = match read.found {
            Found::Nothing => None,
            Found::Data(piece) => self.on_data(piece, now_ns)?,
            Found::Frame(frame) => self.on_frame(frame, now_ns)?,
            Found::Gathered(gathered) => {
                let event = self.on_frame(gathered.frame()?, now_ns)?;
                self.reader.recycle(gathered);
                event
            }
        };
        Ok(Received {
            consumed: read.consumed,
            event,
        })
    }

    fn on_frame(&mut self, frame: Frame<'_>, now_ns: u64) -> Outcome {
        self.check_order(&frame)?;
        match frame {
            Frame::Headers {
                stream,
                fragment,
                end_stream,
                end_headers,
                depends_on_itself,
            } => {
                let block = OpenBlock {
                    stream,
                    end_stream,
                    depends_on_itself,
                    continuations: 0,
                };
                if end_headers {
                    return self.on_block(block, fragment, now_ns);
                }
                self.open_block = Some(block);
                self.gather(fragment)?;
                Ok(None)
            }
            Frame::Continuation {
                fragment,
                end_headers,
                ..
            } => self.on_continuation(fragment, end_headers, now_ns),
            Frame::Reset { stream, code } => self.on_reset(stream, code, now_ns),
            Frame::Settings(settings) => self.on_settings(settings, now_ns),
            Frame::SettingsAck => self.on_settings_ack(),
            Frame::PushPromise => Err(ConnectionError::Push),
            Frame::Ping { payload } => {
                self.spend(Flood::Pings, now_ns)?;
                self.answer(|out| frame::push_ping_ack(out, payload))?;
                Ok(None)
            }
            Frame::PingAck { payload } => {
                self.on_ping_ack(payload);
                Ok(None)
            }
            Frame::GoAway { last, code } => self.on_go_away(last, code),
            Frame::WindowUpdate { stream, increment } => {
                self.on_window_update(stream, increment, now_ns)
            }
            Frame::Ignored => {
                self.spend(Flood::IdleFrames, now_ns)?;
                Ok(None)
            }
        }
    }

    /// RFC 9113, 3.4: SETTINGS come first. RFC 9113, 6.10: nothing comes inside a block but the rest of it.
    fn check_order(&mut self, frame: &Frame<'_>) -> Result<(), ConnectionError> {
        self.has_peer_settings |= matches!(frame, Frame::Settings(_));
        if !self.has_peer_settings {
            return Err(ConnectionError::Preface);
        }
        match (self.open_block, frame) {
            (Some(block), Frame::Continuation { stream, .. }) if block.stream == *stream => Ok(()),
            (Some(_), _) => Err(ConnectionError::BlockInterrupted),
            (None, Frame::Continuation { .. }) => Err(ConnectionError::ContinuationUnexpected),
            (None, _) => Ok(()),
        }
    }

    /// Whether nobody has opened a stream of this number.
    pub(super) fn is_idle(&self, id: StreamId) -> bool {
        match self.role {
            Role::Server if id.is_clients() => id > self.last_peer,
            Role::Client if id.is_clients() => id.number() >= self.next_own,
            // Nobody pushes.
            _ => true,
        }
    }

    /// A frame on a stream that is not there: an error, unless we have reset it and the peer could not know
    /// yet (RFC 9113, 5.1).
    fn check_late(&self, id: StreamId) -> Result<(), ConnectionError> {
        if self.is_idle(id) {
            return Err(ConnectionError::StreamIdle);
        }
        match self.closed.find(id) {
            Some(Closing::Reset) => Ok(()),
            _ => Err(ConnectionError::StreamClosed),
        }
    }

    fn on_data<'a>(
        &mut self,
        piece: DataPiece<'a>,
        now_ns: u64,
    ) -> Result<Option<Event<'a>>, ConnectionError> {
        if !self.has_peer_settings {
            return Err(ConnectionError::Preface);
        }
        if self.open_block.is_some() {
            return Err(ConnectionError::BlockInterrupted);
        }
        if let Some(frame) = piece.begins {
            self.receive_window
                .receive(frame.flow_bytes)
                .map_err(|_| ConnectionError::WindowExceeded)?;
            if frame.payload_bytes == 0 && !frame.end_stream {
                self.spend(Flood::EmptyFrames, now_ns)?;
            }
            if let Err(rule) = self.begin_data(piece.stream, frame) {
                // Nobody will consume it.
                self.give_back(piece.stream, frame.flow_bytes);
                return match rule {
                    Some(error) => self.break_stream(piece.stream, error, now_ns),
                    None => {
                        self.check_late(piece.stream)?;
                        Ok(None)
                    }
                };
            }
        }
        // None, if the stream was reset inside the frame.
        let Some(stream) = self.streams.get_mut(piece.stream) else {
            return Ok(None);
        };
        if piece.end_stream {
            stream.receiving = Phase::Ended;
            self.end_if_closed(piece.stream);
        } else if piece.payload.is_empty() {
            return Ok(None);
        }
        Ok(Some(Event::Data {
            stream: piece.stream,
            payload: piece.payload,
            end_stream: piece.end_stream,
        }))
    }

    /// Takes a frame into account before its payload; the error is `None` for a stream that is not there.
    fn begin_data(&mut self, id: StreamId, frame: DataFrame) -> Result<(), Option<MessageError>> {
        let stream = self.streams.get_mut(id).ok_or(None)?;
        match stream.receiving {
            Phase::Head => return Err(Some(MessageError::DataBeforeHead)),
            Phase::Ended => return Err(Some(MessageError::StreamEnded)),
            Phase::Body => {}
        }
        if let Some(left) = stream.content_left {
            let left = left
                .checked_sub(frame.payload_bytes.into())
                .filter(|left| *left == 0 || !frame.end_stream)
                .ok_or(MessageError::LengthDiffers)?;
            stream.content_left = Some(left);
        }
        stream
            .receive_window
            .receive(frame.flow_bytes)
            .map_err(|_| MessageError::WindowExceeded)?;
        let padding = frame.flow_bytes - frame.payload_bytes;
        if padding > 0 {
            self.consume(id, padding as usize);
        }
        Ok(())
    }

    fn on_reset(&mut self, id: StreamId, code: ErrorCode, now_ns: u64) -> Outcome {
        let Some(stream) = self.streams.get(id) else {
            if self.is_idle(id) {
                return Err(ConnectionError::StreamIdle);
            }
            // Late, or superfluous.
            self.spend(Flood::IdleFrames, now_ns)?;
            return Ok(None);
        };
        if stream.is_closed() {
            // The application has all of it, and is still reading.
            return Ok(None);
        }
        self.drop_stream(id, Closing::ByPeer);
        // A server that resets only ends what we have asked for.
        if self.role == Role::Server {
            self.spend(Flood::Resets, now_ns)?;
        }
        Ok(Some(Event::Reset { stream: id, code }))
    }

    fn on_settings(&mut self, settings: SettingsFrame<'_>, now_ns: u64) -> Outcome {
        self.spend(Flood::Settings, now_ns)?;
        if settings.len() > self.limits.settings_per_frame_max {
            return Err(ConnectionError::Flood(Flood::Settings));
        }
        let before = self.peer.stream_window_bytes;
        for (id, value) in settings.iter() {
            self.peer.set(id, value, self.role == Role::Server)?;
            if id == settings::HEADER_TABLE_SIZE {
                self.encoder.set_size_limit(value as usize);
            }
        }
        self.shift_windows(before)?;
        self.answer(frame::push_settings_ack)?;
        Ok(Some(Event::Settings))
    }

    /// RFC 9113, 6.9.2: a new initial window changes those of the streams there are.
    fn shift_windows(&mut self, before: u32) -> Result<(), ConnectionError> {
        let difference = i64::from(self.peer.stream_window_bytes) - i64::from(before);
        if difference == 0 {
            return Ok(());
        }
        for stream in self.streams.iter_mut() {
            stream
                .send_window
                .shift(difference)
                .map_err(|_| ConnectionError::WindowOverflow)?;
            if stream.may_queue() {
                stream.wait = Wait::Queued;
                self.ready.push_back(stream.id);
            }
        }
        Ok(())
    }

    /// RFC 9113, 6.5.3: from here on the peer goes by our settings.
    fn on_settings_ack(&mut self) -> Outcome {
        if self.liveness.settings_acknowledged() {
            return Err(ConnectionError::SettingsAckUnexpected);
        }
        self.liveness.acknowledge_settings();
        self.decoder
            .set_size_limit(self.limits.decoder_table_bytes_max as usize);
        self.stream_window_bytes = self.limits.stream_window_bytes;
        for stream in self.streams.iter_mut() {
            stream.receive_window.resize(self.stream_window_bytes);
        }
        Ok(None)
    }

    fn on_go_away(&mut self, last: StreamId, code: ErrorCode) -> Outcome {
        if self.peer_last.is_some_and(|before| last > before) {
            return Err(ConnectionError::GoAwayInvalid);
        }
        self.peer_last = Some(last);
        if self.role == Role::Client {
            let gone: Vec<StreamId> = self.streams.above(last).collect();
            for id in gone {
                self.drop_stream(id, Closing::ByPeer);
            }
        }
        Ok(Some(Event::GoAway { last, code }))
    }

    fn on_window_update(&mut self, id: StreamId, increment: u32, now_ns: u64) -> Outcome {
        self.spend(Flood::WindowUpdates, now_ns)?;
        if id == StreamId::CONNECTION {
            if increment == 0 {
                return Err(ConnectionError::WindowIncrementZero);
            }
            self.send_window
                .widen(increment)
                .map_err(|_| ConnectionError::WindowOverflow)?;
            return Ok(None);
        }
        let Some(stream) = self.streams.get_mut(id) else {
            return match self.is_idle(id) {
                true => Err(ConnectionError::StreamIdle),
                // The peer's last words on it may cross ours.
                false => Ok(None),
            };
        };
        if increment == 0 {
            return self.break_stream(id, MessageError::WindowIncrementZero, now_ns);
        }
        if stream.send_window.widen(increment).is_err() {
            return self.break_stream(id, MessageError::WindowOverflow, now_ns);
        }
        if stream.may_queue() {
            stream.wait = Wait::Queued;
            self.ready.push_back(id);
        }
        Ok(None)
    }

    /// The peer broke a rule on this stream: it is reset, and the peer's account charged.
    pub(super) fn break_stream(
        &mut self,
        id: StreamId,
        error: MessageError,
        now_ns: u64,
    ) -> Outcome {
        self.last_peer = match self.role {
            Role::Server => self.last_peer.max(id),
            Role::Client => self.last_peer,
        };
        self.answer(|out| frame::push_reset(out, id, error.code()))?;
        match self.streams.get(id) {
            Some(_) => self.drop_stream(id, Closing::Reset),
            None => self.closed.add(id, Closing::Reset),
        }
        self.spend(Flood::StreamErrors, now_ns)?;
        Ok(Some(Event::Broken { stream: id, error }))
    }

    /// DATA of ours has gone out.
    pub(super) fn refund_for_data(&mut self) {
        self.budgets
            .refund(Flood::WindowUpdates, WINDOW_UPDATES_PER_DATA);
        self.budgets.refund(Flood::Pings, 1);
    }
}
