//! What a busy connection allocates: nothing, once it has found its pace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use tidegate_codecs::http2::{
    Connection, Event, FieldLine, HeaderBlock, Options, RequestLine, StreamId,
};

/// Exchanges of one round, all at once.
const STREAMS: usize = 10;
/// More than a round sends.
const BUFFER_BYTES: usize = 32 << 10;
const BODY: [u8; 1000] = [b'x'; 1000];

/// A client and a server with the buffers between them.
struct Pair {
    client: Connection,
    server: Connection,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    streams: Vec<StreamId>,
    round: u32,
}

impl Pair {
    /// A round of exchanges: requests and answers with bodies and fields, of which one is new each time.
    fn round(&mut self) {
        self.round += 1;
        let number = [12, 8, 4, 0].map(|shift| b'a' + (self.round >> shift) as u8 % 16);
        let line = RequestLine {
            method: b"POST",
            scheme: b"https",
            authority: b"orders.example",
            path: b"/example.Orders/Place",
            protocol: None,
        };
        let fields = [
            FieldLine::new(b"Content-Type", b"application/grpc"),
            FieldLine::new(b"te", b"trailers"),
            FieldLine::new(b"x-number", &number),
        ];
        for _ in 0..STREAMS {
            let id = self.client.send_request(line, fields, false).unwrap();
            send_body(&mut self.client, id, &mut self.to_server);
        }
        receive(&mut self.server, &mut self.to_server, &mut self.streams);
        while let Some(id) = self.streams.pop() {
            let server = &mut self.server;
            server.send_response(id, 200, fields, false).unwrap();
            send_body(server, id, &mut self.to_client);
        }
        self.server.take_output(&mut self.to_client);
        receive(&mut self.client, &mut self.to_client, &mut self.streams);
        self.streams.clear();
        self.client.take_output(&mut self.to_server);
        assert_eq!(self.client.streams_open(), 0);
    }
}

fn send_body(connection: &mut Connection, id: StreamId, out: &mut Vec<u8>) {
    let granted = connection.send_data(id, BODY.len(), true, 0);
    assert_eq!(granted, Ok(BODY.len()));
    connection.take_output(out);
    out.extend_from_slice(&BODY);
}

fn receive(connection: &mut Connection, input: &mut Vec<u8>, heads: &mut Vec<StreamId>) {
    let mut rest = input.as_slice();
    while !rest.is_empty() {
        let step = connection.receive(rest, 0).unwrap();
        rest = &rest[step.consumed..];
        match step.event {
            Some(Event::Request { stream, .. } | Event::Response { stream, .. }) => {
                let head: &HeaderBlock = connection.head();
                assert_eq!(head.field("te"), Some(&b"trailers"[..]));
                heads.push(stream);
            }
            Some(Event::Data {
                stream, payload, ..
            }) => connection.consume(stream, payload.len()),
            _ => {}
        }
    }
    input.clear();
}

/// Goal: frames, blocks and streams cost no allocation on the way that all of them go. Method: rounds of
/// exchanges until every buffer and table is as large as it gets, then more of them, counted.
#[test]
fn a_busy_connection_allocates_nothing() {
    let mut pair = Pair {
        client: Connection::client(&Options::default(), 0),
        server: Connection::server(&Options::default(), 0),
        to_server: Vec::new(),
        to_client: Vec::new(),
        streams: Vec::new(),
        round: 0,
    };
    pair.server.take_output(&mut pair.to_client);
    receive(&mut pair.client, &mut pair.to_client, &mut pair.streams);
    // The buffers between the two, of which one changes places with the output, are the caller's.
    pair.client.take_output(&mut pair.to_server);
    for connection in [&mut pair.client, &mut pair.server] {
        connection.take_output(&mut Vec::with_capacity(BUFFER_BYTES));
    }
    pair.to_server.reserve(BUFFER_BYTES);
    pair.to_client.reserve(BUFFER_BYTES);
    // The tables turn over in some hundred rounds.
    for _ in 0..2000 {
        pair.round();
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..1000 {
            pair.round();
        }
    });
    assert_eq!(counted.count_total, 0);
}

/// Goal: an idle connection is small. Method: its size, and what it has allocated when it was set up.
#[test]
fn an_idle_connection_is_small() {
    let mut out = Vec::with_capacity(1024);
    let counted = allocation_counter::measure(|| {
        let mut server = Connection::server(&Options::default(), 0);
        server.take_output(&mut out);
        // The output's memory goes on to the caller.
        std::hint::black_box(&server);
    });
    assert!(
        size_of::<Connection>() <= 1536,
        "{}",
        size_of::<Connection>()
    );
    assert!(counted.bytes_max <= 256, "{}", counted.bytes_max);
}
