//! Fuzz targets of HTTP/2, in the manner of `fuzz.rs`: frames from a dictionary, whole and in pieces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod http2_common;

use http2_common::*;
use proptest::prelude::*;
use tidegate_codecs::{
    http2::{Connection, ErrorCode, Options, PREFACE, RequestLine, hpack::Decoder},
    limits::Http2Limits,
};

/// Small limits, so that they are met.
fn options() -> Options {
    Options {
        limits: Http2Limits {
            concurrent_streams_max: 3,
            header_list_bytes_max: 300,
            fields_max: 7,
            block_bytes_max: 200,
            continuations_max: 2,
            resets_max: 3,
            stream_errors_max: 5,
            pings_max: 3,
            empty_frames_max: 3,
            idle_frames_max: 3,
            ..Http2Limits::default()
        },
        extended_connect: true,
        ..Options::default()
    }
}

/// What both sides may come to hear, right and wrong.
fn dictionary() -> Vec<Vec<u8>> {
    let mut words = vec![
        settings(&[]),
        settings(&[(4, 9), (3, 1)]),
        settings(&[(1, 0), (8, 1)]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(PING, 0, 0, &[7; 8]),
        frame(PING, ACK, 0, &[7; 8]),
        frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]),
        frame(0xbe, 0xff, 5, b"what"),
        window_update(0, 9),
        window_update(0, 0x7fff_ffff),
        frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        headers(2, END_STREAM, &GET),
        frame(DATA, 0, 0, b"x"),
        vec![0, 0x40, 1],
        vec![0xff; 9],
    ];
    let status = [(":status", "200"), ("content-length", "4")];
    for id in [1, 3, 5] {
        words.extend([
            headers(id, END_STREAM, &GET),
            headers(id, 0, &POST),
            headers(id, 0, &[&POST[..], &[("content-length", "4")]].concat()),
            headers(id, END_STREAM, &[("x-a", "b")]),
            headers(id, 0, &status),
            headers(id, 0, &[(":status", "103")]),
            headers(id, 0, &[(":method", "CONNECT"), (":authority", "a:1")]),
            headers(
                id,
                0,
                &[
                    (":method", "CONNECT"),
                    (":protocol", "x"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "a"),
                ],
            ),
            headers(id, END_STREAM, &status[..1]),
            headers(id, END_STREAM, &[&GET[..], &[("cookie", "a"); 4]].concat()),
            frame(HEADERS, END_STREAM, id, &block(&GET[..2])),
            frame(CONTINUATION, 0, id, &[]),
            frame(CONTINUATION, END_HEADERS, id, &block(&GET[2..])),
            // An entry for the table, and a name from it.
            frame(HEADERS, 0, id, b"\x82\x86\x84\x41\x01a\x40\x03x-y\x01z"),
            frame(CONTINUATION, END_HEADERS, id, b"\xbe\x7e\x01w"),
            frame(
                HEADERS,
                WHOLE | PADDED,
                id,
                &[&[1], &block(&GET)[..], &[0]].concat(),
            ),
            frame(DATA, 0, id, b"four"),
            frame(DATA, END_STREAM, id, b"four"),
            frame(DATA, END_STREAM, id, &[]),
            frame(DATA, 0, id, &[]),
            frame(DATA, PADDED, id, b"\x02four\0\0"),
            frame(DATA, PADDED | END_STREAM, id, b"\x03\0\0\0"),
            reset(id, ErrorCode::CANCEL),
            window_update(id, 9),
            window_update(id, 0),
            frame(PRIORITY, 0, id, &[0, 0, 0, 9, 1]),
        ]);
    }
    words
}

/// The bytes stand for words of the dictionary, a few for themselves.
fn assemble(input: &[u8], words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in input {
        match words.get(usize::from(*byte)) {
            Some(word) => bytes.extend_from_slice(word),
            None if *byte > 250 => bytes.push(*byte),
            None => bytes.extend_from_slice(&words[usize::from(*byte) % words.len()]),
        }
    }
    bytes
}

fn server() -> Wire {
    let mut wire = Wire::new(Connection::server(&options(), 0));
    wire.feed(PREFACE);
    wire.feed(&settings(&[]));
    wire
}

/// A client with three requests under way.
fn client() -> Wire {
    let mut wire = Wire::new(Connection::client(&options(), 0));
    wire.feed(&settings(&[]));
    for method in [&b"GET"[..], b"HEAD", b"POST"] {
        let line = RequestLine {
            method,
            scheme: b"http",
            authority: b"a",
            path: b"/",
            protocol: None,
        };
        let is_whole = method != b"POST";
        wire.connection.send_request(line, [], is_whole).unwrap();
    }
    wire
}

/// Goal: no input panics, or is read otherwise in pieces (split test); and after an error nothing more comes.
/// Method: the same bytes whole, byte by byte, and by random pieces, and what comes of them and is sent.
fn connection(make: fn() -> Wire, input: &[u8], sizes: &[usize]) {
    let bytes = assemble(input, &dictionary());
    let outcome = |mut wire: Wire| {
        wire.take_output();
        if let Some(error) = wire.error {
            assert_eq!(wire.connection.receive(b"x", 0), Err(error));
            assert!(!wire.connection.has_output());
        }
        (wire.seen, wire.sent, wire.error)
    };
    let mut whole = make();
    whole.feed(&bytes);
    let mut bytewise = make();
    bytewise.feed_by(&bytes, &mut core::iter::repeat(1));
    let mut pieces = make();
    pieces.feed_by(&bytes, &mut sizes.iter().copied().cycle());
    let whole = outcome(whole);
    assert_eq!(whole, outcome(bytewise));
    assert_eq!(whole, outcome(pieces));
}

/// Goal: no block panics, or decodes to more than its bytes can name. Method: random bytes and pieces of
/// blocks, decoded twice, from the same state.
fn hpack(input: &[u8]) {
    let words: [&[u8]; 12] = [
        b"\x82",
        b"\xbe",
        b"\xbf",
        b"\x40\x01a\x01b",
        b"\x7e\x01c",
        b"\x10\x01a\x81\x1f",
        b"\x0f\x00\x01d",
        b"\x20",
        b"\x3f\xe1\x1f",
        b"\x00\x83\xf9\x63\xe7\x00",
        b"\x40\x7f\x00",
        b"\xff\x80\x80",
    ];
    let mut block = Vec::new();
    for byte in input {
        match words.get(usize::from(*byte) % 16) {
            Some(word) if *byte < 224 => block.extend_from_slice(word),
            _ => block.push(*byte),
        }
    }
    let decode = || {
        let (mut fields, mut bytes) = (Vec::new(), 0);
        let mut decoder = Decoder::default();
        for part in block.chunks(block.len().div_ceil(2).max(1)) {
            let decoded = decoder.decode(part, |line| {
                bytes += line.name.len() + line.value.len();
                fields.push((line.name.to_vec(), line.value.to_vec()));
            });
            if let Err(error) = decoded {
                return (fields, bytes, Some(error));
            }
        }
        (fields, bytes, None)
    };
    let decoded = decode();
    assert_eq!(decoded, decode());
    assert!(decoded.0.len() <= block.len());
    assert!(decoded.1 <= block.len() * 4096);
}

fn config(factor: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases * factor,
        failure_persistence: None,
        ..default
    }
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..40, 1..6)
}

#[test]
fn fuzz_server() {
    let input = prop::collection::vec(any::<u8>(), 0..24);
    proptest!(config(16), |(input in input, sizes in sizes())| connection(server, &input, &sizes));
}

#[test]
fn fuzz_client() {
    let input = prop::collection::vec(any::<u8>(), 0..24);
    proptest!(config(16), |(input in input, sizes in sizes())| connection(client, &input, &sizes));
}

#[test]
fn fuzz_hpack() {
    let input = prop::collection::vec(any::<u8>(), 0..16);
    proptest!(config(64), |(input in input)| hpack(&input));
}
