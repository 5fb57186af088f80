//! Each limit of HTTP/2, at it and one above: the attacks that have names, and those that need none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod http2_common;

use core::time::Duration;

use http2_common::*;
use tidegate_codecs::{
    http1::HeadError,
    http2::{
        Connection, ConnectionError, ErrorCode, FieldLine, Flood, KeepAlive, MessageError, Options,
        RequestLine, SendError, hpack::Encoder,
    },
    limits::Http2Limits,
};

const SECOND_NS: u64 = 1_000_000_000;

/// Small numbers, so that they are met.
fn limits() -> Http2Limits {
    Http2Limits {
        concurrent_streams_max: 3,
        header_list_bytes_max: 400,
        fields_max: 8,
        block_bytes_max: 300,
        continuations_max: 2,
        resets_max: 4,
        stream_errors_max: 4,
        settings_frames_max: 4,
        settings_per_frame_max: 3,
        pings_max: 4,
        empty_frames_max: 4,
        idle_frames_max: 4,
        window_updates_max: 6,
        tiny_frames_max: 4,
        unread_bytes_max: 34,
        budget_span: Duration::from_secs(10),
        ..Http2Limits::default()
    }
}

/// A server under those limits, of whose budgets nothing is spent.
fn server(limits: Http2Limits) -> Wire {
    let mut wire = Wire::server_with(limits);
    wire.now_ns = 10 * SECOND_NS;
    wire
}

/// Feeds `times` of something, each different by its number, and takes what is sent.
fn feed(wire: &mut Wire, times: u32, bytes: impl Fn(u32) -> Vec<u8>) {
    for time in 0..times {
        wire.feed(&bytes(time));
        wire.take_output();
    }
}

fn odd(time: u32) -> u32 {
    2 * time + 1
}

/// Goal: each flood ends the connection with ENHANCE_YOUR_CALM, one above its limit and not before, and the
/// budget is whole again after its span. Method: a table of frames, repeated.
#[test]
fn floods_end_the_connection() {
    type Frames = Box<dyn Fn(u32) -> Vec<u8>>;
    let cases: Vec<(&str, Flood, u32, Frames)> = vec![
        (
            "CVE-2023-44487, rapid reset",
            Flood::Resets,
            4,
            Box::new(|time| {
                let id = odd(time);
                [headers(id, END_STREAM, &GET), reset(id, ErrorCode::CANCEL)].concat()
            }),
        ),
        (
            "CVE-2025-8671, MadeYouReset by a window of zero",
            Flood::StreamErrors,
            4,
            Box::new(|time| {
                let id = odd(time);
                [headers(id, END_STREAM, &GET), window_update(id, 0)].concat()
            }),
        ),
        (
            "CVE-2025-8671, MadeYouReset by DATA behind the end",
            Flood::StreamErrors,
            4,
            Box::new(|time| {
                let id = odd(time);
                [headers(id, END_STREAM, &GET), frame(DATA, 0, id, b"x")].concat()
            }),
        ),
        (
            "malformed requests",
            Flood::StreamErrors,
            4,
            Box::new(|time| headers(odd(time), END_STREAM, &GET[1..])),
        ),
        (
            "empty HEADERS",
            Flood::StreamErrors,
            4,
            Box::new(|time| headers(odd(time), END_STREAM, &[])),
        ),
        (
            "CVE-2019-9515, SETTINGS",
            Flood::Settings,
            4,
            Box::new(|_| settings(&[(4, 1)])),
        ),
        (
            "CVE-2019-9512, PING",
            Flood::Pings,
            4,
            Box::new(|_| frame(PING, 0, 0, &[0; 8])),
        ),
        (
            "CVE-2019-9513, PRIORITY",
            Flood::IdleFrames,
            4,
            Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1])),
        ),
        (
            "unknown types",
            Flood::IdleFrames,
            4,
            Box::new(|_| frame(0xfe, 0, 0, &[])),
        ),
        (
            "WINDOW_UPDATE",
            Flood::WindowUpdates,
            6,
            Box::new(|_| window_update(0, 1)),
        ),
    ];
    for (attack, flood, max, bytes) in cases {
        let mut wire = server(limits());
        feed(&mut wire, max, &bytes);
        assert_eq!(wire.error, None, "{attack}, at the limit");
        wire.feed(&bytes(max));
        let error = ConnectionError::Flood(flood);
        assert_eq!(wire.error, Some(error), "{attack}, above it");
        let last = wire.take_frames().pop().unwrap();
        assert_eq!(last.kind, GOAWAY);
        assert_eq!(
            last.payload[4..],
            ErrorCode::ENHANCE_YOUR_CALM.0.to_be_bytes()
        );
        assert_eq!(wire.connection.receive(b"more", 0), Err(error));

        for (passed_ns, expected) in [(10 * SECOND_NS - 1, Some(error)), (10 * SECOND_NS, None)] {
            let mut wire = server(limits());
            feed(&mut wire, 1, &bytes);
            wire.now_ns += passed_ns;
            feed(&mut wire, max, |time| bytes(1 + time));
            assert_eq!(wire.error, expected, "{attack}, after {passed_ns} ns");
        }
    }
}

/// Goal: empty DATA is bounded, whether padded or not (CVE-2019-9518), and an empty end is none of it.
/// Method: at the limit and above.
#[test]
fn empty_data_is_bounded() {
    for empty in [
        frame(DATA, 0, 1, &[]),
        frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
    ] {
        let mut wire = server(limits());
        wire.feed(&headers(1, 0, &POST));
        feed(&mut wire, 4, |_| empty.clone());
        wire.feed(&frame(DATA, END_STREAM, 1, &[]));
        assert_eq!(wire.error, None);
        assert_eq!(wire.seen[1], Seen::Data(1, Vec::new(), true));

        let mut wire = server(limits());
        wire.feed(&headers(1, 0, &POST));
        feed(&mut wire, 5, |_| empty.clone());
        assert_eq!(wire.error, Some(ConnectionError::Flood(Flood::EmptyFrames)));
    }
}

/// Goal: interim answers without end are bounded. Method: at the limit and above, towards a client.
#[test]
fn interim_heads_are_bounded() {
    let options = Options {
        limits: limits(),
        ..Options::default()
    };
    let mut wire = Wire::client(&options);
    wire.connection.send_request(GET_LINE, [], true).unwrap();
    feed(&mut wire, 4, |_| headers(1, 0, &[(":status", "103")]));
    assert_eq!(wire.error, None);
    wire.feed(&headers(1, 0, &[(":status", "103")]));
    assert_eq!(wire.error, Some(ConnectionError::Flood(Flood::EmptyFrames)));
}

const GET_LINE: RequestLine<'_> = RequestLine {
    method: b"GET",
    scheme: b"http",
    authority: b"a",
    path: b"/",
    protocol: None,
};

/// Goal: streams that end well pay for resets: a busy client may cancel some. Method: more resets than the
/// limit, with an exchange between each two.
#[test]
fn good_streams_pay_for_resets() {
    let mut wire = server(limits());
    for time in 0..20 {
        wire.feed(&headers(4 * time + 1, END_STREAM, &GET));
        wire.feed(&reset(4 * time + 1, ErrorCode::CANCEL));
        wire.feed(&headers(4 * time + 3, END_STREAM, &GET));
        let stream = wire.last_stream();
        wire.connection
            .send_response(stream, 204, [], true)
            .unwrap();
        wire.take_output();
    }
    assert_eq!(wire.error, None);
}

/// Goal: DATA that we send pays for window updates and PINGs. Method: more of them than the limits, with a
/// frame between each.
#[test]
fn sent_data_pays_for_updates() {
    let mut wire = server(limits());
    wire.feed(&headers(1, END_STREAM, &GET));
    let stream = wire.last_stream();
    wire.connection
        .send_response(stream, 200, [], false)
        .unwrap();
    for _ in 0..50 {
        let granted = wire.connection.send_data(stream, 100, false, wire.now_ns);
        assert_eq!(granted, Ok(100));
        wire.connection.take_output(&mut wire.sent);
        wire.feed(&window_update(0, 100));
        wire.feed(&window_update(1, 100));
        wire.feed(&frame(PING, 0, 0, &[0; 8]));
        wire.connection.take_output(&mut wire.sent);
    }
    assert_eq!(wire.error, None);
}

/// Goal: a block of many frames ends before its memory does (CVE-2024-27316). Method: CONTINUATION at the
/// limit and one more; without end, and with nothing in it.
#[test]
fn continuations_are_bounded() {
    let begin = frame(HEADERS, END_STREAM, 1, &block(&GET[..2]));
    let more = frame(CONTINUATION, 0, 1, &[]);
    let end = frame(CONTINUATION, END_HEADERS, 1, &block(&GET[2..]));
    let mut wire = server(limits());
    wire.feed(&[&begin[..], &more, &end].concat());
    assert_eq!(wire.seen.len(), 1);
    assert_eq!(wire.error, None);
    let mut wire = server(limits());
    wire.feed(&[&begin[..], &more, &more, &end].concat());
    assert_eq!(
        wire.error,
        Some(ConnectionError::Flood(Flood::Continuations))
    );
}

/// A field of the given encoded size.
fn opaque(bytes: usize) -> Vec<u8> {
    let mut field = vec![0, 1, b'x', 0x7f];
    let value = bytes - 5;
    // Lengths below 127 + 128.
    field.push((value - 127) as u8);
    field.extend(vec![b'~'; value]);
    field
}

/// Goal: the encoded bytes of a block are bounded, in one frame and in several. Method: at the limit and
/// above.
#[test]
fn block_bytes_are_bounded() {
    let get = block(&GET);
    for (size, expected) in [
        (300, None),
        (301, Some(ConnectionError::Flood(Flood::BlockBytes))),
    ] {
        // The rest of it repeats a field of one byte.
        let fields = [&get[..], &opaque(250)[..]].concat();
        let fields = [fields.clone(), vec![0x82; size - fields.len()]].concat();
        let whole = frame(HEADERS, WHOLE, 1, &fields);
        let (first, second) = fields.split_at(100);
        let cut = [
            frame(HEADERS, END_STREAM, 1, first),
            frame(CONTINUATION, END_HEADERS, 1, second),
        ]
        .concat();
        for bytes in [whole, cut] {
            let mut wire = server(limits());
            wire.feed(&bytes);
            assert_eq!(wire.error, expected, "{size}");
        }
    }
}

/// Goal: a header list is bounded by what it is, not by how few bytes it takes (an HPACK bomb), and the
/// request refused with 431; the connection lives on. Method: lists at the limit and above, by an entry of
/// the table that is named again and again.
#[test]
fn header_list_is_bounded() {
    // What GET counts: 4 × 32 + 7+3 + 7+4 + 5+1 + 10+1 = 166.
    for (value_len, expected) in [(400 - 166 - 33, true), (400 - 166 - 33 + 1, false)] {
        let value = "v".repeat(value_len);
        let mut wire = server(limits());
        wire.feed(&headers(
            1,
            END_STREAM,
            &[&GET[..], &[("x", &value)]].concat(),
        ));
        let is_request = matches!(wire.seen[0], Seen::Request(..));
        assert_eq!(is_request, expected, "{value_len}");
    }
    let mut wire = server(limits());
    let mut encoder = Encoder::new(4096);
    let mut fields = block(&GET);
    let large = "v".repeat(100);
    encoder.encode(FieldLine::new(b"x", large.as_bytes()), &mut fields);
    for _ in 0..3 {
        encoder.encode(FieldLine::new(b"x", large.as_bytes()), &mut fields);
    }
    assert!(fields.len() < 200);
    wire.feed(&frame(HEADERS, WHOLE, 1, &fields));
    let error = MessageError::Head(HeadError::HeadTooLarge);
    assert_eq!(wire.seen, [Seen::Refused(1, error)]);
    assert_eq!(error.status(), Some(431));
    wire.feed(&headers(3, END_STREAM, &GET));
    assert_eq!(wire.error, None);
    assert!(matches!(wire.seen[1], Seen::Request(3, ..)));
}

/// Goal: fields are counted as they come: a cookie in crumbs is as many fields. Method: at the limit and
/// above, by fields of one byte each.
#[test]
fn fields_are_bounded() {
    for (name, value) in [("x", ""), ("cookie", "a")] {
        for (count, is_request) in [(4, true), (5, false)] {
            let mut wire = server(limits());
            let more = vec![(name, value); count];
            wire.feed(&headers(1, END_STREAM, &[&GET[..], &more].concat()));
            assert_eq!(matches!(wire.seen[0], Seen::Request(..)), is_request);
            if !is_request {
                let error = MessageError::Head(HeadError::FieldsTooMany);
                assert_eq!(wire.seen, [Seen::Refused(1, error)]);
            }
        }
    }
}

/// Goal: settings in one frame are bounded. Method: at the limit and above.
#[test]
fn settings_of_a_frame_are_bounded() {
    let mut wire = server(limits());
    wire.feed(&settings(&[(4, 1); 3]));
    assert_eq!(wire.error, None);
    wire.feed(&settings(&[(4, 1); 4]));
    assert_eq!(wire.error, Some(ConnectionError::Flood(Flood::Settings)));
}

/// Goal: who does not read the answers it demands does not make us keep them. Method: two acknowledgements
/// of PING fill the limit, a third is above; taken in between, there may be more.
#[test]
fn unread_answers_are_bounded() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    let mut wire = server(limits());
    wire.feed(&[&ping[..], &ping].concat());
    assert_eq!(wire.error, None);
    wire.feed(&ping);
    assert_eq!(wire.error, Some(ConnectionError::Flood(Flood::Unread)));
    let mut wire = server(limits());
    feed(&mut wire, 3, |_| ping.clone());
    assert_eq!(wire.error, None);
}

/// Goal: a client that opens windows by a few bytes is served, for a while (CVE-2019-9511). Method: a window
/// of one byte, opened again and again, at the limit and above.
#[test]
fn tiny_windows_are_bounded() {
    let limits = Http2Limits {
        window_updates_max: 1000,
        ..limits()
    };
    let mut wire = server(limits);
    wire.feed(&settings(&[(4, 0)]));
    wire.feed(&headers(1, END_STREAM, &GET));
    let stream = wire.last_stream();
    wire.connection
        .send_response(stream, 200, [], false)
        .unwrap();
    let send = |wire: &mut Wire| {
        wire.feed(&window_update(1, 1));
        let sent = wire
            .connection
            .send_data(stream, 1000, true, 10 * SECOND_NS);
        wire.sent.clear();
        wire.take_output();
        sent
    };
    for _ in 0..4 {
        assert_eq!(send(&mut wire), Ok(1));
    }
    let error = ConnectionError::Flood(Flood::TinyWindows);
    assert_eq!(send(&mut wire), Err(SendError::Connection(error)));
    // What was not granted was not announced either.
    let sent = frames(&wire.sent);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].kind, GOAWAY);
}

/// Goal: streams above the limit are refused so that they can be tried again (RFC 9113, 5.1.2); before the
/// client knows the limit that is no fault of its own. Method: at the limit and above, both times; a stream
/// that ends makes room.
#[test]
fn concurrent_streams_are_bounded() {
    let options = Options {
        limits: limits(),
        ..Options::default()
    };
    for knows in [false, true] {
        let mut wire = Wire::new(Connection::server(&options, 0));
        wire.feed(tidegate_codecs::http2::PREFACE);
        wire.feed(&settings(&[]));
        if knows {
            wire.feed(&frame(SETTINGS, ACK, 0, &[]));
        }
        wire.start_over();
        feed(&mut wire, 3, |time| headers(odd(time), END_STREAM, &GET));
        assert_eq!(wire.connection.streams_open(), 3);
        feed(&mut wire, 4, |time| {
            headers(101 + 2 * time, END_STREAM, &GET)
        });
        assert_eq!(wire.connection.streams_open(), 3);
        assert_eq!(
            wire.seen[3],
            Seen::Broken(101, MessageError::StreamsTooMany)
        );
        let refused = reset(101, ErrorCode::REFUSED_STREAM);
        assert!(frames(&wire.sent).contains(&frames(&refused)[0]));
        assert_eq!(wire.error, None);
        feed(&mut wire, 1, |_| headers(201, END_STREAM, &GET));
        let flood = match knows {
            true => Flood::StreamErrors,
            false => Flood::IdleFrames,
        };
        assert_eq!(wire.error, Some(ConnectionError::Flood(flood)));
    }
    let mut wire = server(limits());
    feed(&mut wire, 3, |time| headers(odd(time), END_STREAM, &GET));
    let stream = wire.last_stream();
    wire.connection
        .send_response(stream, 204, [], true)
        .unwrap();
    wire.feed(&headers(7, END_STREAM, &GET));
    assert!(matches!(wire.seen.last(), Some(Seen::Request(7, ..))));
}

/// Goal: a client keeps to the server's limit on streams, and says when there are none. Method: a limit of
/// two, streams at it and above, one that ends; a limit of zero; GOAWAY.
#[test]
fn clients_keep_to_the_limit() {
    let mut wire = Wire::client(&Options::default());
    assert_eq!(wire.connection.streams_available(), 100);
    wire.feed(&settings(&[(3, 2)]));
    for _ in 0..2 {
        wire.connection.send_request(GET_LINE, [], true).unwrap();
    }
    assert_eq!(wire.connection.streams_available(), 0);
    let above = wire.connection.send_request(GET_LINE, [], true);
    assert_eq!(above, Err(SendError::NoStream));
    wire.feed(&headers(1, END_STREAM, &[(":status", "204")]));
    assert_eq!(wire.connection.streams_available(), 1);
    wire.feed(&settings(&[(3, 0)]));
    assert_eq!(wire.connection.streams_available(), 0);
    wire.feed(&settings(&[(3, 9)]));
    assert_eq!(wire.connection.streams_available(), 8);
    wire.feed(&frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    assert_eq!(wire.connection.streams_available(), 0);
}

/// Goal: windows are kept, of streams and of the connection (RFC 9113, 6.9.1), and a byte above is an
/// error of its own kind. Method: DATA that is not consumed, at the windows and above.
#[test]
fn windows_are_kept() {
    let limits = Http2Limits {
        stream_window_bytes: 65_535,
        connection_window_bytes: 2 * 65_535,
        ..Http2Limits::default()
    };
    let fill = |wire: &mut Wire, stream: u32| {
        for len in [16384, 16384, 16384, 16383] {
            wire.feed(&frame(DATA, 0, stream, &vec![b'x'; len]));
        }
    };
    let begin = || {
        let mut wire = server(limits);
        wire.consumes = false;
        feed(&mut wire, 3, |time| headers(odd(time), 0, &POST));
        fill(&mut wire, 1);
        wire
    };
    let mut wire = begin();
    wire.feed(&frame(DATA, 0, 1, b"x"));
    assert_eq!(wire.error, None);
    let broken = Seen::Broken(1, MessageError::WindowExceeded);
    assert_eq!(wire.seen.last(), Some(&broken));

    // One stream that nobody reads leaves the others their windows.
    let mut wire = begin();
    fill(&mut wire, 3);
    assert_eq!(wire.error, None);
    wire.feed(&frame(DATA, 0, 5, b"x"));
    assert_eq!(wire.error, Some(ConnectionError::WindowExceeded));

    // What is read, or thrown away, can be sent again.
    let mut wire = begin();
    wire.take_frames();
    wire.feed(&reset(1, ErrorCode::CANCEL));
    assert_eq!(
        wire.take_frames(),
        frames(&window_update(0, 65_535)),
        "of the connection alone"
    );
    fill(&mut wire, 3);
    fill(&mut wire, 5);
    assert_eq!(wire.error, None);
}

/// Goal: a reader's pace is the sender's (RFC 9113, 5.2): nothing is given back before it is consumed, and
/// then by halves. Method: DATA, partly consumed, and the updates.
#[test]
fn consumption_reopens_windows() {
    let mut wire = server(Http2Limits::default());
    wire.consumes = false;
    wire.feed(&headers(1, 0, &POST));
    let stream = wire.last_stream();
    wire.feed(&frame(DATA, 0, 1, &[b'x'; 16384]));
    wire.feed(&frame(DATA, 0, 1, &[b'x'; 16384]));
    wire.take_frames();
    wire.connection.consume(stream, 32_766);
    assert_eq!(wire.take_frames(), []);
    wire.connection.consume(stream, 2);
    assert_eq!(wire.take_frames(), frames(&window_update(1, 32_768)));
    // Padding is nobody's to consume, and of a stream that has ended nothing is given back.
    wire.feed(&frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat()));
    wire.feed(&frame(DATA, END_STREAM, 1, &[b'x'; 16384]));
    wire.connection.consume(stream, 16384);
    assert_eq!(wire.take_frames(), []);
    assert_eq!(wire.error, None);
}

/// Goal: the peer is given up when it is silent for too long, and not before (L8). Method: the clock just
/// before and at each time-out: settings, PING, and its answer.
#[test]
fn silence_is_bounded() {
    let options = Options {
        keep_alive: Some(KeepAlive {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }),
        ..Options::default()
    };
    let mut silent = Connection::client(&options, 0);
    assert_eq!(silent.next_timeout_ns(), Some(10 * SECOND_NS));
    assert_eq!(silent.on_timeout(10 * SECOND_NS - 1), Ok(()));
    let error = ConnectionError::SettingsTimeout;
    assert_eq!(silent.on_timeout(10 * SECOND_NS), Err(error));
    assert_eq!(error.code(), ErrorCode::SETTINGS_TIMEOUT);

    let mut wire = Wire::client(&options);
    assert_eq!(wire.connection.next_timeout_ns(), None);
    wire.connection.send_request(GET_LINE, [], true).unwrap();
    wire.take_frames();
    let asked_ns = 30 * SECOND_NS;
    assert_eq!(wire.connection.next_timeout_ns(), Some(asked_ns));
    wire.connection.on_timeout(asked_ns - 1).unwrap();
    assert_eq!(wire.take_frames(), []);
    wire.connection.on_timeout(asked_ns).unwrap();
    let ping = wire.take_frames().pop().unwrap();
    assert_eq!((ping.kind, ping.flags), (PING, 0));
    assert_eq!(
        wire.connection.next_timeout_ns(),
        Some(asked_ns + 5 * SECOND_NS)
    );
    wire.now_ns = asked_ns + SECOND_NS;
    wire.feed(&frame(PING, ACK, 0, &ping.payload));
    let again_ns = wire.now_ns + 30 * SECOND_NS;
    assert_eq!(wire.connection.next_timeout_ns(), Some(again_ns));
    wire.connection.on_timeout(again_ns).unwrap();
    let given_up = wire.connection.on_timeout(again_ns + 5 * SECOND_NS);
    assert_eq!(given_up, Err(ConnectionError::PingTimeout));
}

/// Goal: a drain hurts no request (RFC 9113, 6.8): it is told first, and only when the client must know are
/// streams refused. Method: streams before the notice, after it, and after its end; by the answer to the
/// PING, and by time.
#[test]
fn drain_in_two_steps() {
    let notice_ns = 20 * SECOND_NS;
    for by_time in [false, true] {
        let mut wire = server(Http2Limits::default());
        wire.now_ns = notice_ns;
        wire.feed(&headers(1, END_STREAM, &GET));
        wire.connection.drain(notice_ns);
        let sent = wire.take_frames();
        assert_eq!(sent[0].kind, GOAWAY);
        assert_eq!(sent[0].payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(sent[1].kind, PING);
        wire.feed(&headers(3, END_STREAM, &GET));
        if by_time {
            let at = wire.connection.next_timeout_ns();
            assert_eq!(at, Some(notice_ns + SECOND_NS));
            wire.connection.on_timeout(notice_ns + SECOND_NS).unwrap();
        } else {
            wire.feed(&frame(PING, ACK, 0, &sent[1].payload));
        }
        let sent = wire.take_frames();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].payload, [0, 0, 0, 3, 0, 0, 0, 0]);
        wire.feed(&headers(5, END_STREAM, &GET));
        let refused = frames(&reset(5, ErrorCode::REFUSED_STREAM));
        assert_eq!(wire.take_frames(), refused);
        assert!(!wire.connection.is_drained());
        for number in [1, 3] {
            assert!(
                wire.seen
                    .iter()
                    .any(|s| matches!(s, Seen::Request(n, ..) if *n == number))
            );
        }
        answer_all(&mut wire);
        assert!(wire.connection.is_drained());
        assert_eq!(wire.error, None);
    }
}

/// Answers whatever stream is open.
fn answer_all(wire: &mut Wire) {
    for stream in wire.streams.clone() {
        let _ = wire.connection.send_response(stream, 204, [], true);
    }
}

/// Goal: streams that a server names as not acted upon are gone, and the others go on (RFC 9113, 6.8).
/// Method: three requests and a GOAWAY for the second.
#[test]
fn go_away_leaves_the_rest() {
    let mut wire = Wire::client(&Options::default());
    let ids: Vec<_> = (0..3)
        .map(|_| wire.connection.send_request(GET_LINE, [], true).unwrap())
        .collect();
    wire.take_frames();
    wire.feed(&frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    assert_eq!(wire.seen, [Seen::GoAway(3, ErrorCode::NO_ERROR)]);
    assert_eq!(wire.connection.stream_state(ids[2]), None);
    wire.feed(&headers(3, END_STREAM, &[(":status", "200")]));
    assert!(matches!(wire.seen[1], Seen::Response(3, ..)));
    assert_eq!(wire.connection.streams_open(), 1);
    wire.connection.drain(0);
    assert!(!wire.connection.is_drained());
    wire.feed(&headers(1, END_STREAM, &[(":status", "200")]));
    assert!(wire.connection.is_drained());
}
