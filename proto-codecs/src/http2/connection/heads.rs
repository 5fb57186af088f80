//! What each header block of the peer does: gathered, decoded, and taken for what its stream expects.

use super::{
    Connection, Event, OpenBlock, Role,
    receiving::{Outcome, WINDOW_UPDATES_PER_STREAM},
};
use crate::http2::{
    StreamId,
    error::{ConnectionError, ErrorCode, Flood, MessageError},
    flow::{ReceiveWindow, SendWindow},
    frame,
    head::BlockKind,
    stream::{Closing, Phase, Stream, Wait},
};

impl Connection {
    pub(super) fn gather(&mut self, fragment: &[u8]) -> Result<(), ConnectionError> {
        if self.fragments.len() + fragment.len() > self.limits.block_bytes_max {
            return Err(ConnectionError::Flood(Flood::BlockBytes));
        }
        self.fragments.extend_from_slice(fragment);
        Ok(())
    }

    pub(super) fn on_continuation(
        &mut self,
        fragment: &[u8],
        end_headers: bool,
        now_ns: u64,
    ) -> Outcome {
        let Some(mut block) = self.open_block else {
            return Err(ConnectionError::ContinuationUnexpected);
        };
        block.continuations += 1;
        if block.continuations > self.limits.continuations_max {
            return Err(ConnectionError::Flood(Flood::Continuations));
        }
        self.open_block = Some(block);
        self.gather(fragment)?;
        if !end_headers {
            return Ok(None);
        }
        self.open_block = None;
        // Blocks in pieces are rare: their memory is not kept.
        let fragments = core::mem::take(&mut self.fragments);
        self.on_block(block, &fragments, now_ns)
    }

    /// A header block is whole. It is decoded whatever becomes of it, to keep the tables alike.
    pub(super) fn on_block(&mut self, block: OpenBlock, bytes: &[u8], now_ns: u64) -> Outcome {
        if bytes.len() > self.limits.block_bytes_max {
            return Err(ConnectionError::Flood(Flood::BlockBytes));
        }
        let target = self.target_of(block.stream)?;
        self.block.begin(self.kind_of(target), &self.limits);
        let fields = &mut self.block;
        self.decoder.decode(bytes, |line| fields.push(line))?;
        if block.depends_on_itself && target != Target::Late {
            return self.break_stream(block.stream, MessageError::DependsOnItself, now_ns);
        }
        match target {
            Target::New => self.on_request(block, bytes.len(), now_ns),
            Target::Response => self.on_response(block, now_ns),
            Target::Trailers => self.on_trailers(block, bytes.len(), now_ns),
            Target::Ended => self.break_stream(block.stream, MessageError::StreamEnded, now_ns),
            Target::Late => {
                self.spend(Flood::IdleFrames, now_ns)?;
                Ok(None)
            }
        }
    }

    fn target_of(&mut self, id: StreamId) -> Result<Target, ConnectionError> {
        if let Some(stream) = self.streams.get(id) {
            return match stream.receiving {
                Phase::Ended if stream.is_closed() => Err(ConnectionError::StreamClosed),
                Phase::Ended => Ok(Target::Ended),
                Phase::Head => Ok(Target::Response),
                Phase::Body => Ok(Target::Trailers),
            };
        }
        if !id.is_clients() {
            return Err(ConnectionError::StreamIdInvalid);
        }
        if self.is_idle(id) {
            return match self.role {
                Role::Server => Ok(Target::New),
                Role::Client => Err(ConnectionError::StreamIdle),
            };
        }
        match self.closed.find(id) {
            Some(Closing::Reset) => Ok(Target::Late),
            Some(Closing::ByPeer) => Err(ConnectionError::StreamClosed),
            // RFC 9113, 5.1.1: skipped, and closed by a higher one.
            None => Err(ConnectionError::StreamIdInvalid),
        }
    }

    fn kind_of(&self, target: Target) -> BlockKind {
        match (target, self.role) {
            (Target::New, _) => BlockKind::Request {
                extended_connect: self.extended_connect,
            },
            (Target::Response, _) => BlockKind::Response,
            _ => BlockKind::Trailers,
        }
    }

    fn on_request(&mut self, block: OpenBlock, encoded_bytes: usize, now_ns: u64) -> Outcome {
        let OpenBlock {
            stream: id,
            end_stream,
            ..
        } = block;
        self.last_peer = id;
        self.budgets
            .refund(Flood::WindowUpdates, WINDOW_UPDATES_PER_STREAM);
        if self.refuses_streams()
            || self.streams.open() >= self.limits.concurrent_streams_max as usize
        {
            return self.refuse_stream(id, now_ns);
        }
        let finished = self.block.finish(end_stream);
        if let Err(error) = finished
            && error.status().is_none()
        {
            return self.break_stream(id, error, now_ns);
        }
        let mut stream = self.new_stream(id);
        stream.receiving = if end_stream {
            Phase::Ended
        } else {
            Phase::Body
        };
        if finished.is_ok() {
            stream.expansion = self.block.expansion(encoded_bytes);
            if !self.may_hold(stream.expansion) {
                return self.break_stream(id, MessageError::HeadsExpand, now_ns);
            }
            stream.is_connect = self.block.is_tunnel();
            stream.content_left = match stream.is_connect {
                true => None,
                false => self.block.content_length(),
            };
        }
        self.streams.insert(stream);
        Ok(Some(match finished {
            Ok(()) => Event::Request {
                stream: id,
                end_stream,
            },
            Err(error) => Event::Refused {
                stream: id,
                error,
                end_stream,
            },
        }))
    }

    /// Whether a head may add this to what all heads hold beyond what they were sent as.
    fn may_hold(&self, expansion: usize) -> bool {
        self.streams.expansion() + expansion <= self.limits.expanded_bytes_max()
    }

    /// RFC 9113, 5.1.2 and 6.8: the client may try it again, elsewhere or later. One that does not know our
    /// limit yet, or of the drain, breaks no rule; so many at once are an idle exercise all the same.
    fn refuse_stream(&mut self, id: StreamId, now_ns: u64) -> Outcome {
        if self.liveness.settings_acknowledged() && !self.refuses_streams() {
            return self.break_stream(id, MessageError::StreamsTooMany, now_ns);
        }
        self.spend(Flood::IdleFrames, now_ns)?;
        self.answer(|out| frame::push_reset(out, id, ErrorCode::REFUSED_STREAM))?;
        self.closed.add(id, Closing::Reset);
        Ok(Some(Event::Broken {
            stream: id,
            error: MessageError::StreamsTooMany,
        }))
    }

    pub(super) fn new_stream(&self, id: StreamId) -> Stream {
        Stream {
            id,
            receiving: Phase::Head,
            sending: Phase::Head,
            send_window: SendWindow::new(self.peer.stream_window_bytes),
            receive_window: ReceiveWindow::new(self.stream_window_bytes),
            content_left: None,
            answer_is_bodiless: false,
            is_connect: false,
            expansion: 0,
            wait: Wait::None,
        }
    }

    fn on_response(&mut self, block: OpenBlock, now_ns: u64) -> Outcome {
        let OpenBlock {
            stream: id,
            end_stream,
            ..
        } = block;
        if let Err(error) = self.block.finish(end_stream) {
            return self.break_stream(id, error, now_ns);
        }
        let event = Event::Response {
            stream: id,
            end_stream,
        };
        let status = self.block.status();
        let length = self.block.content_length();
        if self.block.is_interim() {
            if end_stream {
                return self.break_stream(id, MessageError::InterimEnds, now_ns);
            }
            self.spend(Flood::EmptyFrames, now_ns)?;
            return Ok(Some(event));
        }
        let Some(stream) = self.streams.get_mut(id) else {
            return Ok(None);
        };
        stream.is_connect &= (200..300).contains(&status);
        // RFC 9113, 8.1.1 and 8.5: lengths of what is not sent, and of tunnels, say nothing.
        stream.content_left = match status {
            204 | 304 => Some(0),
            _ if stream.answer_is_bodiless => Some(0),
            _ if stream.is_connect => None,
            _ => length,
        };
        if end_stream && stream.content_left.is_some_and(|left| left > 0) {
            return self.break_stream(id, MessageError::LengthDiffers, now_ns);
        }
        stream.receiving = if end_stream {
            Phase::Ended
        } else {
            Phase::Body
        };
        self.end_if_closed(id);
        Ok(Some(event))
    }

    fn on_trailers(&mut self, block: OpenBlock, encoded_bytes: usize, now_ns: u64) -> Outcome {
        let id = block.stream;
        let finished = self.block.finish(block.end_stream);
        let expansion = self.block.expansion(encoded_bytes);
        let may_hold = self.may_hold(expansion);
        let Some(stream) = self.streams.get_mut(id) else {
            return Ok(None);
        };
        let error = match finished {
            _ if stream.is_connect => Some(MessageError::HeadersInTunnel),
            _ if !block.end_stream => Some(MessageError::TrailersContinue),
            _ if stream.content_left.is_some_and(|left| left > 0) => {
                Some(MessageError::LengthDiffers)
            }
            Err(error) => Some(error),
            Ok(()) if !may_hold => Some(MessageError::HeadsExpand),
            Ok(()) => None,
        };
        if let Some(error) = error {
            return self.break_stream(id, error, now_ns);
        }
        stream.receiving = Phase::Ended;
        self.streams.expand(id, expansion);
        self.end_if_closed(id);
        Ok(Some(Event::Trailers { stream: id }))
    }
}

/// What a header block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// A stream that it opens.
    New,
    Response,
    Trailers,
    /// A stream whose end the peer has sent.
    Ended,
    /// A stream that we have reset.
    Late,
}
