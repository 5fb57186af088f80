//! A client against a server, in memory: whatever happens in whatever order, no byte of a body is lost,
//! doubled or out of place, and neither side ever sees the other break a rule.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_codecs::{
    http2::{Connection, ErrorCode, Event, FieldLine, Options, RequestLine, SendError, StreamId},
    limits::Http2Limits,
};

/// One direction of a stream, as the side that sends or receives it has it.
#[derive(Debug, Default)]
struct Body {
    len: usize,
    sent: usize,
    received: usize,
    unconsumed: usize,
    has_head: bool,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Exchange {
    outgoing: Body,
    incoming: Body,
    is_gone: bool,
}

struct Side {
    connection: Connection,
    exchanges: BTreeMap<StreamId, Exchange>,
    /// What it has sent and the other has not received.
    wire: Vec<u8>,
    /// Distinguishes its bytes from the other's.
    salt: usize,
    /// Of the bodies that it sends: by stream, modulo the list.
    lens: Vec<usize>,
}

impl Side {
    fn new(connection: Connection, salt: usize, lens: &[usize]) -> Side {
        Side {
            connection,
            exchanges: BTreeMap::new(),
            wire: Vec::new(),
            salt,
            lens: lens.to_vec(),
        }
    }

    fn flush(&mut self) {
        self.connection.take_output(&mut self.wire);
    }

    fn body_len(&self, id: StreamId) -> usize {
        self.lens[id.number() as usize / 2 % self.lens.len()]
    }

    fn nth(&self, number: usize) -> Option<StreamId> {
        let count = self.exchanges.len().max(1);
        self.exchanges.keys().nth(number % count).copied()
    }

    fn open(&mut self) {
        if self.connection.streams_available() == 0 {
            return;
        }
        let line = RequestLine {
            method: b"POST",
            scheme: b"http",
            authority: b"a",
            path: b"/",
            protocol: None,
        };
        let id = self.connection.send_request(line, [], false).unwrap();
        let mut exchange = Exchange::default();
        exchange.outgoing.len = self.body_len(id);
        exchange.outgoing.has_head = true;
        self.exchanges.insert(id, exchange);
        self.flush();
    }

    /// Sends what it may of a body; every other one ends with trailers.
    fn send(&mut self, id: StreamId, most: usize) {
        let salt = self.salt;
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let body = &mut exchange.outgoing;
        if exchange.is_gone || body.has_ended {
            return;
        }
        if !body.has_head {
            self.connection.send_response(id, 200, [], false).unwrap();
            body.has_head = true;
        }
        let has_trailers = id.number() % 4 == 3;
        let left = body.len - body.sent;
        if left == 0 && has_trailers {
            let trailers = [FieldLine::new(b"x-check", b"done")];
            self.connection.send_trailers(id, trailers).unwrap();
            body.has_ended = true;
        } else {
            let available = left.min(most);
            let ends = available == left && !has_trailers;
            let granted = self.connection.send_data(id, available, ends, 0).unwrap();
            assert!(granted <= available);
            self.connection.take_output(&mut self.wire);
            for at in body.sent..body.sent + granted {
                self.wire.push(byte_at(id, salt, at));
            }
            body.sent += granted;
            body.has_ended = ends && granted == available;
        }
        self.flush();
    }

    fn consume(&mut self, id: StreamId, most: usize) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            let bytes = exchange.incoming.unconsumed.min(most);
            exchange.incoming.unconsumed -= bytes;
            self.connection.consume(id, bytes);
            self.flush();
        }
    }

    fn reset(&mut self, id: StreamId) {
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.is_gone = true;
            self.connection.reset(id, ErrorCode::CANCEL);
            self.flush();
        }
    }

    /// Receives `bytes` of what the other has sent.
    fn receive(&mut self, other: &mut Side, bytes: usize) {
        let bytes = bytes.min(other.wire.len());
        let input: Vec<u8> = other.wire.drain(..bytes).collect();
        let mut rest = input.as_slice();
        while !rest.is_empty() {
            let step = self.connection.receive(rest, 0).expect("no rule is broken");
            rest = &rest[step.consumed..];
            if let Some(event) = step.event {
                self.on_event(event, other.salt);
            }
        }
        self.flush();
    }

    fn on_event(&mut self, event: Event<'_>, salt: usize) {
        match event {
            Event::Request { stream, end_stream } => {
                let mut exchange = Exchange::default();
                exchange.outgoing.len = self.body_len(stream);
                exchange.incoming.has_ended = end_stream;
                self.exchanges.insert(stream, exchange);
            }
            Event::Response { stream, end_stream } => {
                let body = &mut self.exchanges.get_mut(&stream).unwrap().incoming;
                body.has_head = true;
                body.has_ended = end_stream;
            }
            Event::Data {
                stream,
                payload,
                end_stream,
            } => {
                let body = &mut self.exchanges.get_mut(&stream).unwrap().incoming;
                assert!(!body.has_ended);
                for (at, byte) in payload.iter().enumerate() {
                    assert_eq!(*byte, byte_at(stream, salt, body.received + at));
                }
                body.received += payload.len();
                body.unconsumed += payload.len();
                body.has_ended = end_stream;
            }
            Event::Trailers { stream } => {
                let body = &mut self.exchanges.get_mut(&stream).unwrap().incoming;
                assert!(!body.has_ended);
                body.has_ended = true;
                assert_eq!(self.connection.head().field("x-check"), Some(&b"done"[..]));
            }
            Event::Reset { stream, .. } => {
                self.exchanges.get_mut(&stream).unwrap().is_gone = true;
            }
            Event::Settings => {}
            other => panic!("{other:?}"),
        }
    }

    fn unconsumed(&self) -> usize {
        let live = self.exchanges.values().filter(|exchange| !exchange.is_gone);
        live.map(|exchange| exchange.incoming.unconsumed).sum()
    }
}

fn byte_at(id: StreamId, salt: usize, at: usize) -> u8 {
    (id.number() as usize * 31 + salt * 101 + at * 7 + at / 256) as u8
}

/// What happens next: who does what to which stream, and how much.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Send(bool, usize, usize),
    Consume(bool, usize, usize),
    Receive(bool, usize),
    Reset(bool, usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![1usize..20, 1usize..5000, Just(usize::MAX)];
    let side = any::<bool>();
    prop_oneof![
        2 => Just(Step::Open),
        8 => (side, any::<usize>(), bytes).prop_map(|(side, n, bytes)| Step::Send(side, n, bytes)),
        4 => (side, any::<usize>(), 1usize..9000)
            .prop_map(|(side, n, bytes)| Step::Consume(side, n, bytes)),
        8 => (side, prop_oneof![1usize..40, 1usize..9000])
            .prop_map(|(side, bytes)| Step::Receive(side, bytes)),
        1 => (side, any::<usize>()).prop_map(|(side, n)| Step::Reset(side, n)),
    ]
}

fn options(stream_window_bytes: u32) -> Options {
    Options {
        limits: Http2Limits {
            concurrent_streams_max: 8,
            stream_window_bytes,
            connection_window_bytes: 65_535,
            tiny_frames_max: u32::MAX,
            window_updates_max: u32::MAX,
            resets_max: u32::MAX,
            idle_frames_max: u32::MAX,
            ..Http2Limits::default()
        },
        ..Options::default()
    }
}

/// Takes everything to its end: all that may move moves, in turn.
fn settle(client: &mut Side, server: &mut Side) {
    for _ in 0..100_000 {
        for side in [&mut *client, &mut *server] {
            for id in side.exchanges.keys().copied().collect::<Vec<_>>() {
                side.consume(id, usize::MAX);
                side.send(id, usize::MAX);
            }
            while side.connection.next_writable().is_some() {}
        }
        if client.wire.is_empty() && server.wire.is_empty() {
            return;
        }
        server.receive(client, usize::MAX);
        client.receive(server, usize::MAX);
    }
    panic!("no end");
}

fn check_whole(receiver: &Side, sender: &Side) {
    for (id, exchange) in &receiver.exchanges {
        if exchange.is_gone || sender.exchanges[id].is_gone {
            continue;
        }
        assert!(exchange.incoming.has_ended, "{id:?}");
        assert_eq!(exchange.incoming.received, sender.body_len(*id), "{id:?}");
    }
}

/// Goal: as the head of this file says. Method: random steps over random windows and bodies, then everything
/// is taken to its end; bytes are compared with what their place demands, totals with their lengths, and
/// what is unread with the windows.
fn interleave(windows: (u32, u32), lens: &[usize], steps: &[Step]) {
    let mut client = Side::new(Connection::client(&options(windows.0), 0), 0, lens);
    let mut server = Side::new(Connection::server(&options(windows.1), 0), 1, lens);
    client.flush();
    server.flush();
    for step in steps {
        match *step {
            Step::Open => client.open(),
            Step::Receive(true, bytes) => client.receive(&mut server, bytes),
            Step::Receive(false, bytes) => server.receive(&mut client, bytes),
            Step::Send(is_client, number, bytes) => {
                let side = if is_client { &mut client } else { &mut server };
                if let Some(id) = side.nth(number) {
                    side.send(id, bytes);
                }
            }
            Step::Consume(is_client, number, bytes) => {
                let side = if is_client { &mut client } else { &mut server };
                if let Some(id) = side.nth(number) {
                    side.consume(id, bytes);
                }
            }
            Step::Reset(is_client, number) => {
                let side = if is_client { &mut client } else { &mut server };
                if let Some(id) = side.nth(number) {
                    side.reset(id);
                }
            }
        }
        assert!(client.unconsumed() <= 65_535 && server.unconsumed() <= 65_535);
    }
    settle(&mut client, &mut server);
    check_whole(&server, &client);
    check_whole(&client, &server);
    assert_eq!(client.connection.streams_open(), 0);
    assert_eq!(server.connection.streams_open(), 0);
}

#[test]
fn random_interleavings() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let window = || prop_oneof![1u32..400, Just(65_535), 60_000u32..200_000];
    let lens = prop::collection::vec(prop_oneof![0usize..50, 0usize..40_000], 1..6);
    let steps = prop::collection::vec(any_step(), 0..150);
    proptest!(config, |(windows in (window(), window()), lens in lens, steps in steps)| {
        interleave(windows, &lens, &steps);
    });
}

/// Goal: a reader that stands still holds its own stream only (RFC 9113, 5.2). Method: two uploads over a
/// connection window as large as both; one is never consumed, the other comes through.
#[test]
fn a_slow_reader_holds_its_own_stream() {
    let mut limits = options(1000).limits;
    limits.connection_window_bytes = 65_535;
    let options = Options {
        limits,
        ..Options::default()
    };
    let lens = [100_000];
    let mut client = Side::new(Connection::client(&options, 0), 0, &lens);
    let mut server = Side::new(Connection::server(&options, 0), 1, &lens);
    client.flush();
    server.flush();
    client.receive(&mut server, usize::MAX);
    server.receive(&mut client, usize::MAX);
    client.receive(&mut server, usize::MAX);
    client.open();
    client.open();
    let ids: Vec<_> = client.exchanges.keys().copied().collect();
    for _ in 0..300 {
        client.send(ids[0], usize::MAX);
        client.send(ids[1], usize::MAX);
        server.receive(&mut client, usize::MAX);
        server.consume(ids[1], usize::MAX);
        client.receive(&mut server, usize::MAX);
    }
    assert_eq!(server.exchanges[&ids[0]].incoming.received, 1000);
    assert!(server.exchanges[&ids[1]].incoming.received == 100_000);
}

/// Goal: streams that wait for the connection's window take turns, and are named once it opens. Method:
/// three streams that fill it, an update, and who may send.
#[test]
fn waiting_streams_take_turns() {
    let options = options(65_535);
    let mut client = Side::new(Connection::client(&options, 0), 0, &[60_000]);
    let mut server = Side::new(Connection::server(&options, 0), 1, &[60_000]);
    client.flush();
    server.flush();
    client.receive(&mut server, usize::MAX);
    for _ in 0..3 {
        client.open();
    }
    let ids: Vec<_> = client.exchanges.keys().copied().collect();
    for id in &ids {
        for _ in 0..5 {
            client.send(*id, usize::MAX);
        }
    }
    assert_eq!(client.connection.next_writable(), None);
    server.receive(&mut client, usize::MAX);
    server.consume(ids[0], usize::MAX);
    client.receive(&mut server, usize::MAX);
    // The first has all of its body out; the others have waited in this order.
    assert_eq!(client.connection.next_writable(), Some(ids[1]));
    assert_eq!(client.connection.next_writable(), Some(ids[2]));
    assert_eq!(client.connection.next_writable(), None);
    let gone = client.connection.send_data(StreamId::MAX, 1, false, 0);
    assert_eq!(gone, Err(SendError::StreamGone));
}
