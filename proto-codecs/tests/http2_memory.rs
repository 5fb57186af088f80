//! What a peer can have a server hold: at most eight times what it has sent, and a constant.
//!
//! Header compression makes a large head of few bytes, on each of a hundred streams at once, and small
//! fields cost more than their bytes (the HTTP/2 bomb). So what heads hold beyond what they were sent as is
//! added up over all open streams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod http2_common;

use http2_common::*;
use tidegate_codecs::{
    http1::RequestHead,
    http2::{Connection, ErrorCode, Event, MessageError, Options, PREFACE},
    limits::Http2Limits,
};

/// A field that enters the table (RFC 7541, 6.2.1); lengths of less than 127, or less than 255 of the value.
fn entry(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x40, name.len() as u8];
    bytes.extend(name.bytes());
    match value.len().checked_sub(127) {
        None => bytes.push(value.len() as u8),
        Some(rest) if rest < 128 => bytes.extend([0x7f, rest as u8]),
        Some(rest) => bytes.extend([0x7f, (rest % 128) as u8 | 128, (rest / 128) as u8]),
    }
    bytes.extend(value.bytes());
    bytes
}

/// The index of the newest entry.
const NEWEST: u8 = 0x80 | 62;

/// A head whose block ends like this.
fn head_with(stream: u32, flags: u8, more: &[u8]) -> Vec<u8> {
    let fields = [&block(&GET), more].concat();
    frame(HEADERS, flags | END_HEADERS, stream, &fields)
}

/// Goal: heads hold no more than is allowed beyond what they were sent as, all together; one that is over may
/// come again. Method: streams of which each names a large entry, up to the limit and one above; a stream
/// that ends makes room; heads that are sent in full hold as much as they want.
#[test]
fn expanded_heads_are_bounded() {
    // GET counts 166 (4 × 32 + 7+3 + 7+4 + 5+1 + 10+1), and the entry 32 + 1 + 1000.
    const LIST_BYTES: usize = 166 + 1033;
    let encoded_bytes = block(&GET).len() + 1;
    let expansion = LIST_BYTES - Http2Limits::HEAD_RATIO * encoded_bytes;
    for (spare, expected) in [(0, 3), (1, 2)] {
        let limits = Http2Limits {
            header_list_bytes_max: LIST_BYTES,
            concurrent_streams_max: 10,
            expanded_bytes_per_stream: (3 * expansion - spare - LIST_BYTES) / 10,
            ..Http2Limits::default()
        };
        // The division must leave nothing.
        let limits = Http2Limits {
            header_list_bytes_max: 3 * expansion - spare - 10 * limits.expanded_bytes_per_stream,
            ..limits
        };
        assert_eq!(limits.expanded_bytes_max(), 3 * expansion - spare);
        let mut wire = Wire::server_with(limits);
        // The first is sent in full, and costs nothing.
        let large = entry("x", &"v".repeat(1000));
        wire.feed(&head_with(1, END_STREAM, &large));
        for id in [3, 5, 7] {
            wire.feed(&head_with(id, END_STREAM, &[NEWEST]));
        }
        assert_eq!(wire.connection.streams_open(), 1 + expected);
        wire.feed(&head_with(9, END_STREAM, &[NEWEST]));
        let broken = Seen::Broken(9, MessageError::HeadsExpand);
        assert_eq!(wire.seen.last(), Some(&broken));
        let refused = frames(&reset(9, ErrorCode::REFUSED_STREAM));
        assert_eq!(wire.take_frames().last(), refused.last());
        // In full it is let in, and so is another when one has ended.
        let whole = block(&[("x", &"w".repeat(900))]);
        wire.feed(&head_with(11, END_STREAM, &whole));
        assert!(matches!(wire.seen.last(), Some(Seen::Request(11, ..))));
        wire.feed(&reset(3, ErrorCode::CANCEL));
        wire.feed(&head_with(13, END_STREAM, &[NEWEST]));
        assert!(matches!(wire.seen.last(), Some(Seen::Request(13, ..))));
        assert_eq!(wire.error, None);
    }
}

/// Goal: trailers count as heads do. Method: the same entry in trailers, at the limit and above.
#[test]
fn expanded_trailers_are_bounded() {
    const LIST_BYTES: usize = 1033;
    let expansion = LIST_BYTES - Http2Limits::HEAD_RATIO;
    let heads = 2 * (166 - Http2Limits::HEAD_RATIO * block(&GET).len());
    for (spare, is_whole) in [(0, true), (1, false)] {
        let limits = Http2Limits {
            header_list_bytes_max: 2 * expansion + heads - spare,
            expanded_bytes_per_stream: 0,
            ..Http2Limits::default()
        };
        let mut wire = Wire::server_with(limits);
        let large = entry("x", &"v".repeat(1000));
        for id in [1, 3] {
            wire.feed(&head_with(id, 0, &[]));
        }
        // Elsewhere, and over: it leaves the entry behind.
        wire.feed(&head_with(5, END_STREAM, &large));
        wire.feed(&reset(5, ErrorCode::CANCEL));
        for id in [1, 3] {
            wire.feed(&frame(HEADERS, WHOLE, id, &[NEWEST]));
        }
        let last = wire.seen.last().unwrap();
        match is_whole {
            true => assert!(matches!(last, Seen::Trailers(3, _)), "{last:?}"),
            false => assert_eq!(last, &Seen::Broken(3, MessageError::HeadsExpand)),
        }
    }
}

/// Goal: who sends what clients send is never refused. Method: by default limits, a hundred requests at once
/// whose fields were all sent before: a browser's with 8 KiB of cookies, and a call of gRPC.
#[test]
fn ordinary_heads_are_let_in() {
    let crumb = "c".repeat(250);
    let browser: Vec<u8> = (0..8)
        .flat_map(|_| entry("cookie", &crumb))
        .chain(entry("user-agent", &crumb))
        .chain(entry("accept", &crumb[..120]))
        .collect();
    let grpc: Vec<u8> = [
        "content-type",
        "te",
        "grpc-accept-encoding",
        "user-agent",
        "x-b3",
    ]
    .iter()
    .flat_map(|name| match *name {
        "te" => entry("te", "trailers"),
        name => entry(name, &crumb[..60]),
    })
    .collect();
    // Everything once, and three times more the eight crumbs of 250 bytes.
    let crumbs = NEWEST + 2..NEWEST + 10;
    let again: Vec<u8> = (NEWEST..NEWEST + 10)
        .chain((0..3).flat_map(|_| crumbs.clone()))
        .collect();
    for (first, again) in [(&browser, &again[..]), (&grpc, &again[..5])] {
        let mut wire = Wire::server(&Options::default());
        wire.feed(&head_with(1, END_STREAM, first));
        for number in 1..100 {
            wire.feed(&head_with(2 * number + 1, END_STREAM, again));
        }
        assert_eq!(wire.connection.streams_open(), 100);
    }
}

/// A server, and the heads that it was asked for, held as they would be while they are served.
struct Held {
    connection: Connection,
    heads: Vec<(RequestHead, Vec<u8>)>,
    sent: usize,
}

impl Held {
    fn new() -> Held {
        let mut held = Held {
            connection: Connection::server(&Options::default(), 0),
            heads: Vec::new(),
            sent: 0,
        };
        held.receive(PREFACE);
        held.receive(&settings(&[]));
        held.receive(&frame(SETTINGS, ACK, 0, &[]));
        held
    }

    /// False when the connection has ended.
    fn receive(&mut self, bytes: &[u8]) -> bool {
        self.sent += bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Ok(step) = self.connection.receive(rest, 0) else {
                return false;
            };
            rest = &rest[step.consumed..];
            if let Some(Event::Request { end_stream, .. }) = step.event {
                let (mut head, mut text) = (RequestHead::default(), Vec::new());
                let block = self.connection.head();
                block.take_request(!end_stream, &mut head, &mut text);
                self.heads.push((head, text));
            }
        }
        true
    }
}

/// What an attacker repeats.
type Attack = Box<dyn Fn(u32) -> Vec<u8>>;

/// Goal: whatever a peer sends, what it has us hold is at most eight times that, and a constant. Method: bombs
/// and floods, each until it is refused or a while; the bytes that are allocated then, all heads kept.
#[test]
fn memory_is_bounded_by_what_was_sent() {
    let limits = Http2Limits::default();
    // Half-empty memory of what heads may hold for nothing; answers that are not taken; tables, and what a
    // stream takes by itself.
    let constant = 2 * limits.expanded_bytes_max() + 2 * limits.unread_bytes_max + (256 << 10);
    let id = |time: u32| 2 * time + 1;
    let bomb = move |name: &'static str, value_len: usize, repeats: usize| -> Attack {
        Box::new(move |time| match time {
            0 => head_with(1, 0, &entry(name, &"v".repeat(value_len))),
            _ => head_with(id(time), 0, &vec![NEWEST; repeats]),
        })
    };
    let attacks: Vec<(&str, Attack)> = vec![
        ("a large entry, named sixteen times", bomb("x", 3900, 16)),
        ("tiny entries, named as often as allowed", bomb("x", 1, 120)),
        ("crumbs of a cookie", bomb("cookie", 1, 120)),
        ("large crumbs of a cookie", bomb("cookie", 500, 120)),
        (
            "heads of nothing",
            Box::new(move |time| head_with(id(time), 0, &[])),
        ),
        (
            "heads in full",
            Box::new(move |time| head_with(id(time), 0, &block(&[("x", &"v".repeat(9000))]))),
        ),
        (
            "bombs in trailers",
            Box::new(move |time| match time {
                0 => head_with(1, 0, &entry("x", &"v".repeat(3900))),
                _ => [
                    head_with(id(time), 0, &[]),
                    frame(HEADERS, WHOLE, id(time), &[NEWEST; 16]),
                ]
                .concat(),
            }),
        ),
        (
            "a block that is never whole",
            Box::new(|time| match time {
                0 => frame(HEADERS, 0, 1, &[0x82; 1000]),
                _ => frame(CONTINUATION, 0, 1, &[0x82; 1000]),
            }),
        ),
        (
            "frames that are never whole",
            Box::new(|_| frame(HEADERS, WHOLE, 1, &[0; 16_000])[..15_000].to_vec()),
        ),
        ("PING", Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        (
            "settings that shift windows",
            Box::new(|time| settings(&[(4, time)])),
        ),
        (
            "a table that grows and shrinks",
            Box::new(|time| settings(&[(1, 4096 * (time % 2))])),
        ),
    ];
    for (attack, bytes) in attacks {
        let mut held = None;
        let counted = allocation_counter::measure(|| {
            let mut server = Held::new();
            for time in 0..400 {
                // What the attacker makes is freed before it is counted.
                if !server.receive(&bytes(time)) {
                    break;
                }
            }
            held = Some(server);
        });
        let sent = held.unwrap().sent;
        let most = 8 * sent + constant;
        let held = usize::try_from(counted.bytes_current).unwrap();
        assert!(
            held <= most,
            "{attack}: {held} bytes held for {sent} sent, at most {most}"
        );
    }
}
