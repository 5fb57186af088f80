//! One connection of the origin that speaks HTTP/2: several requests at once, answered as over HTTP/1.1.
//!
//! Answers leave in as few writes as they can: what one read brought is answered together.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use tidegate_codecs::http2::{self, Event, FieldLine, StreamId};

use super::{
    answer::body_size,
    behaviour::Behaviour,
    burn::burn,
    connection::{Fate, Shared},
};
use crate::{
    clock::Nanos,
    http2::options,
    poll::{Moved, moved},
    stream::{Output, Stream},
};

/// Streams that a client may have open: more than any peer opens by default.
const STREAMS_MAX: usize = 1_024;
/// What is built ahead of the socket: enough for a long write, and bodies do not pile up.
const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// Bodies are all alike.
const BODY: [u8; 16 << 10] = [b'x'; 16 << 10];

pub(super) struct Connection {
    socket: Stream,
    serial: u64,
    http2: http2::Connection,
    /// Answers that wait for their time.
    held: Vec<(Nanos, StreamId, Reply)>,
    /// Bodies of which something is left, in turn.
    bodies: VecDeque<(StreamId, usize)>,
    /// The same, while a window is used up.
    blocked: Vec<(StreamId, usize)>,
    output: Output,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Body(usize),
    NotFound,
    Failure,
}

impl Connection {
    pub(super) fn new(socket: Stream, serial: u64, now: Nanos) -> Connection {
        Connection {
            socket,
            serial,
            http2: http2::Connection::server(&options(STREAMS_MAX), now.0),
            held: Vec::new(),
            bodies: VecDeque::new(),
            blocked: Vec::new(),
            output: Output::default(),
        }
    }

    pub(super) fn serve(&mut self, shared: &mut Shared<'_>, now: Nanos) -> Fate {
        self.exchange(shared, now).unwrap_or(Fate::Drop)
    }

    fn exchange(&mut self, shared: &mut Shared<'_>, now: Nanos) -> io::Result<Fate> {
        self.release(now);
        self.send(now)?;
        // What the client cannot take is not asked for: its back-pressure is real.
        while self.output.waiting() < OUTPUT_BYTES_MAX {
            let count = match moved(self.socket.read(shared.buffer))? {
                Moved::Bytes(count) => count,
                Moved::Later => break,
                Moved::End => return Ok(Fate::Drop),
            };
            let is_last = count < shared.buffer.len() && self.socket.short_read_is_the_last();
            if self.take(count, shared, now).is_err() {
                // The codec has put its reason into the output; whether it still arrives is not waited for.
                self.send(now)?;
                return Ok(Fate::Drop);
            }
            self.send(now)?;
            if is_last {
                break;
            }
        }
        Ok(Fate::Keep)
    }

    fn take(
        &mut self,
        count: usize,
        shared: &mut Shared<'_>,
        now: Nanos,
    ) -> Result<(), http2::ConnectionError> {
        let mut rest = shared.buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let received = self.http2.receive(rest, now.0)?;
            rest = rest.get(received.consumed..).unwrap_or_default();
            match received.event {
                Some(Event::Request { stream, .. }) => {
                    let reply = match std::str::from_utf8(self.http2.head().path()) {
                        Ok(path) => body_size(path).map_or(Reply::NotFound, Reply::Body),
                        Err(_) => Reply::NotFound,
                    };
                    burn(shared.cpu_time);
                    let behaviour = shared.behaviour.as_mut();
                    let behaviour = behaviour.map(|(behaviour, _)| &mut **behaviour);
                    self.begin(stream, reply, behaviour, (now, shared.slot));
                }
                Some(Event::Refused { stream, .. }) => self.answer(stream, Reply::NotFound),
                Some(Event::Data {
                    stream, payload, ..
                }) => self.http2.consume(stream, payload.len()),
                Some(Event::Reset { stream, .. } | Event::Broken { stream, .. }) => {
                    self.forget(stream);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Answers at once, or when the behaviour says.
    fn begin(
        &mut self,
        stream: StreamId,
        reply: Reply,
        behaviour: Option<&mut Behaviour>,
        (now, slot): (Nanos, usize),
    ) {
        let Some(behaviour) = behaviour else {
            return self.answer(stream, reply);
        };
        let reply = match behaviour.fails() {
            true => Reply::Failure,
            false => reply,
        };
        let ready = behaviour.ready(now);
        if ready <= now {
            return self.answer(stream, reply);
        }
        behaviour.hold(ready, slot, self.serial);
        self.held.push((ready, stream, reply));
    }

    /// Answers whose time has come.
    fn release(&mut self, now: Nanos) {
        let mut i = 0;
        while let Some(&(ready, stream, reply)) = self.held.get(i) {
            if ready <= now {
                self.held.swap_remove(i);
                self.answer(stream, reply);
            } else {
                i += 1;
            }
        }
    }

    fn answer(&mut self, stream: StreamId, reply: Reply) {
        let (status, bytes) = match reply {
            Reply::Body(bytes) => (200, bytes),
            Reply::NotFound => (404, 0),
            Reply::Failure => (503, 0),
        };
        let length = bytes.to_string();
        let fields = [
            FieldLine::new(b"content-type", b"application/octet-stream"),
            FieldLine::new(b"content-length", length.as_bytes()),
        ];
        // A stream that the client has reset meanwhile wants no answer.
        let sent = self.http2.send_response(stream, status, fields, bytes == 0);
        if sent.is_ok() && bytes > 0 {
            self.bodies.push_back((stream, bytes));
        }
    }

    /// Writes what there is, and builds more as long as the socket takes it.
    fn send(&mut self, now: Nanos) -> io::Result<()> {
        self.socket.push()?;
        loop {
            self.http2.take_output(self.output.bytes());
            self.build(now);
            if !self.output.write(&mut self.socket)? || self.bodies.is_empty() {
                return Ok(());
            }
        }
    }

    /// Puts frames of bodies into the output, each stream in turn.
    fn build(&mut self, now: Nanos) {
        while let Some(stream) = self.http2.next_writable() {
            let place = self.blocked.iter().position(|(id, _)| *id == stream);
            self.bodies
                .extend(place.map(|place| self.blocked.swap_remove(place)));
        }
        while self.output.waiting() < OUTPUT_BYTES_MAX
            && let Some((stream, left)) = self.bodies.pop_front()
        {
            let offered = left.min(BODY.len());
            let ends = offered == left;
            let Ok(granted) = self.http2.send_data(stream, offered, ends, now.0) else {
                continue;
            };
            let output = self.output.bytes();
            self.http2.take_output(output);
            output.extend_from_slice(BODY.get(..granted).unwrap_or_default());
            match left - granted {
                0 => {}
                left if granted == 0 => self.blocked.push((stream, left)),
                left => self.bodies.push_back((stream, left)),
            }
        }
    }

    fn forget(&mut self, stream: StreamId) {
        self.held.retain(|(_, id, _)| *id != stream);
        self.bodies.retain(|(id, _)| *id != stream);
        self.blocked.retain(|(id, _)| *id != stream);
    }
}
