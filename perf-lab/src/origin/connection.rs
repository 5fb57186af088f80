//! One connection of the origin: an answer at a time, or an echo.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use super::{
    OriginMode,
    answer::{After, Answers, Parsed, answer, failure, parse},
    behaviour::Behaviour,
    burn::burn,
};
use crate::{
    clock::Nanos,
    poll::{Moved, moved},
    stream::Stream,
};

/// A request head, and bytes of a stalled echo, are kept up to this.
const PENDING_BYTES_MAX: usize = 64 << 10;

pub(super) struct Connection {
    socket: Stream,
    serial: u64,
    /// Received and not yet acted upon.
    pending: Vec<u8>,
    /// Being sent, from an offset on.
    answer: Option<(Arc<[u8]>, usize)>,
    /// The answer is ready at this time; `None` is at once.
    held: Option<Nanos>,
    /// Bytes of a request body still to be skipped.
    skip: u64,
    after: After,
}

/// Whether a connection lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Drop,
}

/// What all connections share.
pub(super) struct Shared<'a> {
    pub(super) mode: OriginMode,
    pub(super) answers: &'a mut Answers,
    pub(super) buffer: &'a mut [u8],
    /// With the time, if there is any behaviour.
    pub(super) behaviour: Option<(&'a mut Behaviour, Nanos)>,
    /// CPU time that each answer costs.
    pub(super) cpu_time: Nanos,
    /// The connection's slot.
    pub(super) slot: usize,
    /// Bytes of answers that this event may still send.
    pub(super) bytes_left: usize,
}

impl Connection {
    pub(super) fn new(socket: Stream, serial: u64) -> Connection {
        Connection {
            socket,
            serial,
            pending: Vec::new(),
            answer: None,
            held: None,
            skip: 0,
            after: After::NextRequest,
        }
    }

    /// For the poller.
    pub(super) fn socket(&self) -> &Stream {
        &self.socket
    }

    /// The time of its answer has come.
    pub(super) fn release(&mut self) {
        self.held = None;
    }

    pub(super) fn serve(&mut self, shared: &mut Shared<'_>) -> Fate {
        if self.socket.push().is_err()
            || self.send(&mut shared.bytes_left) == Fate::Drop
            || self.take(Received::Nothing, shared) == Fate::Drop
        {
            return Fate::Drop;
        }
        loop {
            // While an answer is stuck nothing is read: the client's back-pressure is real.
            if self.answer.is_some() {
                return Fate::Keep;
            }
            let count = match moved(self.socket.read(shared.buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            };
            if self.take(Received::Bytes(count), shared) == Fate::Drop {
                return Fate::Drop;
            }
            if count < shared.buffer.len() && self.socket.short_read_is_the_last() {
                return Fate::Keep;
            }
        }
    }

    /// Acts on what was kept and what was received: as many requests as they hold, until an answer
    /// gets stuck.
    fn take(&mut self, received: Received, shared: &mut Shared<'_>) -> Fate {
        let input = match received {
            Received::Nothing => &[][..],
            Received::Bytes(count) => shared.buffer.get(..count).unwrap_or_default(),
        };
        // The usual case, one whole request, is parsed where it lies.
        let mut kept = std::mem::take(&mut self.pending);
        let mut rest = if kept.is_empty() {
            input
        } else {
            kept.extend_from_slice(input);
            kept.as_slice()
        };
        while !rest.is_empty() && self.answer.is_none() {
            let skipped = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            self.skip -= skipped as u64;
            rest = rest.get(skipped..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let request = match parse(rest) {
                Parsed::Partial if rest.len() < PENDING_BYTES_MAX => break,
                Parsed::Partial | Parsed::Malformed => return Fate::Drop,
                Parsed::Request(request) => request,
            };
            rest = rest.get(request.head_bytes..).unwrap_or_default();
            self.skip = request.content_length;
            if request.close || shared.mode == OriginMode::HttpClose {
                self.after = After::Close;
            }
            burn(shared.cpu_time);
            let mut answer = answer(request.body_bytes, self.after, shared.answers);
            if let Some((behaviour, now)) = &mut shared.behaviour {
                if behaviour.fails() {
                    answer = failure();
                }
                let ready = behaviour.ready(*now);
                if ready > *now {
                    behaviour.hold(ready, shared.slot, self.serial);
                    self.held = Some(ready);
                }
            }
            self.answer = Some((answer, 0));
            if self.send(&mut shared.bytes_left) == Fate::Drop {
                return Fate::Drop;
            }
        }
        self.pending = rest.to_vec();
        Fate::Keep
    }

    /// Sends what is left of the answer, or as much as it may for now.
    fn send(&mut self, bytes_left: &mut usize) -> Fate {
        if self.held.is_some() {
            return Fate::Keep;
        }
        while let Some((answer, offset)) = &mut self.answer {
            let rest = answer.get(*offset..).unwrap_or_default();
            if rest.is_empty() {
                self.answer = None;
                return match self.after {
                    After::NextRequest => Fate::Keep,
                    After::Close => Fate::Drop,
                };
            }
            let piece = rest.get(..*bytes_left).unwrap_or(rest);
            if piece.is_empty() {
                return Fate::Keep;
            }
            match moved(self.socket.write(piece)) {
                Ok(Moved::Bytes(count)) => {
                    *offset += count;
                    *bytes_left -= count;
                }
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            }
        }
        Fate::Keep
    }

    pub(super) fn echo(&mut self, buffer: &mut [u8]) -> Fate {
        loop {
            while !self.pending.is_empty() {
                match moved(self.socket.write(&self.pending)) {
                    Ok(Moved::Bytes(count)) => drop(self.pending.drain(..count)),
                    Ok(Moved::Later) => return Fate::Keep,
                    Ok(Moved::End) | Err(_) => return Fate::Drop,
                }
            }
            let count = match moved(self.socket.read(buffer)) {
                Ok(Moved::Bytes(count)) => count,
                Ok(Moved::Later) => return Fate::Keep,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let sent = match moved(self.socket.write(bytes)) {
                Ok(Moved::Bytes(sent)) => sent,
                Ok(Moved::Later) => 0,
                Ok(Moved::End) | Err(_) => return Fate::Drop,
            };
            self.pending
                .extend_from_slice(bytes.get(sent..).unwrap_or_default());
            if sent == count && count < buffer.len() {
                return Fate::Keep;
            }
        }
    }
}

/// What [`Connection::take`] is given: bytes of the shared buffer, which it borrows as a whole.
#[derive(Clone, Copy)]
enum Received {
    Nothing,
    Bytes(usize),
}
