//! Attacks on HTTP/2 that are known by name, frame by frame: each ends with the code that it deserves, is
//! counted and named, and those beside it are served on.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::{
    Origin, Proxy, eventually,
    frames::{self, Frames, block, frame, get, line, post},
    pattern, proxy,
};

/// A proxy with low budgets, before an echoing origin.
fn guarded() -> (Origin, Proxy) {
    let origin = Origin::echo();
    let limits = "    limits: { header_list: 16KiB, http2: { resets: 20, stream_errors: 20, settings: 20, pings: 20, \
                  empty_frames: 20, idle_frames: 20, window_updates: 20, tiny_frames: 20 } }\n\
                  \x20   timeouts: { idle: 1s }\n";
    let proxy = Proxy::start(proxy::web_with(limits, "{ to: app }", &[("app", &origin)]));
    (origin, proxy)
}

/// Sends `attack` until the proxy has enough, at most `most` times; the connection must end with
/// ENHANCE_YOUR_CALM, counted, with `detail` in the log, while a connection beside it is served.
#[track_caller]
fn ends_with_calm(detail: &str, most: u32, attack: impl Fn(u32) -> Vec<u8>) {
    let (_origin, proxy) = guarded();
    let mut bystander = Frames::connect(proxy.web());
    let mut attacker = Frames::connect(proxy.web());
    for number in 0..most {
        if !attacker.try_send(attack(number)) {
            break;
        }
    }
    attacker.finish();
    let end = attacker.until_closed();
    assert_eq!(end.code(), frames::ENHANCE_YOUR_CALM);
    proxy.wait_for_metric("tidegate_shard_http2_floods_total", |n| n == 1.0);
    let logged = |entry: &serde_json::Value| {
        entry["tidegate.reason"] == "http2_flood" && entry["tidegate.detail"] == detail
    };
    eventually("the flood in the log", || {
        proxy.access_log(1).iter().any(logged).then_some(())
    });
    bystander.send(get(1, "/bytes/3"));
    assert_eq!(bystander.until_end(1).payload, pattern(3));
    proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
}

/// Goal: rapid reset (CVE-2023-44487) costs the attacker the connection. Method: requests that are reset at
/// once.
#[test]
fn rapid_reset() {
    ends_with_calm("too many streams reset", 1000, |number| {
        let stream = number * 2 + 1;
        let reset = frame(frames::RESET, 0, stream, &frames::CANCEL.to_be_bytes());
        [get(stream, "/"), reset].concat()
    });
}

/// Goal: making us reset streams (MadeYouReset, CVE-2025-8671) is the same. Method: window updates of zero
/// on requests.
#[test]
fn made_you_reset() {
    ends_with_calm("too many stream errors", 1000, |number| {
        let stream = number * 2 + 1;
        [
            get(stream, "/"),
            frame(frames::WINDOW_UPDATE, 0, stream, &[0; 4]),
        ]
        .concat()
    });
}

/// Goal: a head without end (CVE-2024-27316) is cut. Method: CONTINUATION frames, empty and full.
#[test]
fn continuation_flood() {
    for content in [0, 1000] {
        ends_with_calm(
            "too many CONTINUATION frames",
            1000,
            |number| match number {
                0 => frame(
                    frames::HEADERS,
                    frames::END_STREAM,
                    1,
                    &block(&line("GET", "/")),
                ),
                _ => frame(
                    frames::CONTINUATION,
                    0,
                    1,
                    &block(&[("x", &"y".repeat(content))]),
                ),
            },
        );
    }
}

/// Goal: SETTINGS (CVE-2019-9515) are answered a number of times. Method: empty ones.
#[test]
fn settings_flood() {
    ends_with_calm("too many settings", 1000, |_| {
        frame(frames::SETTINGS, 0, 0, &[])
    });
}

/// Goal: PING (CVE-2019-9512) is answered a number of times. Method: many.
#[test]
fn ping_flood() {
    ends_with_calm("too many PING frames", 1000, |_| {
        frame(frames::PING, 0, 0, &[1; 8])
    });
}

/// Goal: DATA without data (CVE-2019-9518) ends. Method: many empty frames in one body.
#[test]
fn empty_frames() {
    ends_with_calm("too many empty frames", 1000, |number| match number {
        0 => post(1, "/body"),
        _ => frame(frames::DATA, 0, 1, &[]),
    });
}

/// Goal: PRIORITY (CVE-2019-9513) ends. Method: many, of a stream that is not there.
#[test]
fn priority_flood() {
    ends_with_calm("too many frames without effect", 1000, |_| {
        frame(frames::PRIORITY, 0, 1, &[0, 0, 0, 3, 1])
    });
}

/// Goal: WINDOW_UPDATE without a cause ends. Method: many, of one byte.
#[test]
fn window_update_flood() {
    ends_with_calm("too many WINDOW_UPDATE frames", 1000, |_| {
        frame(frames::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())
    });
}

/// Goal: windows that let single bytes through (CVE-2019-9511) end. Method: an initial window of one byte,
/// and updates of one.
#[test]
fn tiny_windows() {
    let (_origin, proxy) = guarded();
    let mut attacker = Frames::connect_with(proxy.web(), &[(4, 1)]);
    attacker.send(get(1, "/bytes/100000"));
    for _ in 0..1000 {
        let got = attacker.next().expect("a GOAWAY before the end");
        match got.kind {
            frames::SETTINGS if got.flags & frames::ACK == 0 => {
                attacker.try_send(frame(frames::SETTINGS, frames::ACK, 0, &[]));
            }
            frames::DATA => {
                attacker.try_send(frame(frames::WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()));
            }
            frames::GO_AWAY => {
                assert_eq!(got.code(), frames::ENHANCE_YOUR_CALM);
                proxy.wait_for_metric("tidegate_shard_http2_floods_total", |n| n == 1.0);
                return;
            }
            _ => {}
        }
    }
    panic!("no end");
}

/// Goal: a client that keeps its windows shut (slow read) holds its streams for the idle time-out, no
/// longer, and no memory to speak of. Method: large answers into windows of zero; each is reset.
#[test]
fn windows_kept_shut() {
    let (origin, proxy) = guarded();
    let mut attacker = Frames::connect_with(proxy.web(), &[(4, 0)]);
    for number in 0..50 {
        attacker.send(get(number * 2 + 1, "/bytes/1000000"));
    }
    let mut bystander = Frames::connect(proxy.web());
    bystander.send(get(1, "/bytes/3"));
    assert_eq!(bystander.until_end(1).payload, pattern(3));
    let mut resets = 0;
    while resets < 50 {
        let reset = attacker.until_kind(frames::RESET);
        assert_eq!(reset.code(), frames::INTERNAL_ERROR);
        resets += 1;
    }
    let log = proxy.access_log(51);
    let held = log
        .iter()
        .filter(|e| e["tidegate.reason"] == "idle_timeout");
    assert_eq!(held.count(), 50);
    drop(attacker);
    eventually(
        "nothing but the bystander's connection at the endpoint",
        || (origin.open_connections() <= 1).then_some(()),
    );
}

/// Goal: a client that keeps its windows shut does not use the shard's budget up: others are served, and what is held
/// for it is given up long before the idle time-out. Method: more large answers into windows of zero than the budget
/// has room for; others meanwhile, each on a connection of its own.
#[test]
fn windows_kept_shut_beyond_the_budget() {
    let origin = Origin::echo();
    let proxy = Proxy::start(format!(
        "limits: {{ buffers: 1MiB }}\nlisteners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app, timeout: off }}], \
         timeouts: {{ idle: 10m }} }}\nclusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n"
    ));
    let mut attacker = Frames::connect_with(proxy.web(), &[(4, 0)]);
    for number in 0..80 {
        attacker.send(get(number * 2 + 1, "/bytes/1000000"));
    }
    // Its answers have begun, so all that can be held is.
    for _ in 0..80 {
        attacker.until_kind(frames::HEADERS);
    }
    for _ in 0..20 {
        let mut bystander = Frames::connect(proxy.web());
        bystander.send(get(1, "/bytes/3"));
        assert_eq!(bystander.until_end(1).payload, pattern(3));
    }
    // On the smallest ring an answer holds too little for that.
    if !common::small_ring() {
        let given_up = |entry: &&serde_json::Value| entry["tidegate.reason"] == "buffer_budget";
        let log = proxy.access_log(21);
        assert!(log.iter().any(|entry| given_up(&entry)), "{log:?}");
    }
}

/// Goal: a client that opens its windows and does not read the socket has its answers wait for the idle
/// time-out, no longer, and they do not pile up. Method: large answers that nobody takes.
#[test]
fn answers_that_nobody_takes() {
    let (_origin, proxy) = guarded();
    let mut attacker = Frames::connect_with(proxy.web(), &[(4, (1 << 31) - 1)]);
    let wide = ((1u32 << 31) - 1 - 65_535).to_be_bytes();
    attacker.send(frame(frames::WINDOW_UPDATE, 0, 0, &wide));
    for number in 0..50 {
        attacker.send(get(number * 2 + 1, "/bytes/1000000"));
    }
    let stalled = |entry: &&serde_json::Value| entry["tidegate.reason"] == "idle_timeout";
    eventually("the streams that were left waiting", || {
        (proxy.access_log(1).iter().filter(stalled).count() >= 40).then_some(())
    });
    let mut bystander = Frames::connect(proxy.web());
    bystander.send(get(1, "/bytes/3"));
    assert_eq!(bystander.until_end(1).payload, pattern(3));
    drop(attacker);
    proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
}

/// A field that enters the table (RFC 7541, 6.2.1); its index is [`NEWEST`] then.
fn entry(name: &str, value_bytes: usize) -> Vec<u8> {
    let mut entry = block(&[(name, &"y".repeat(value_bytes))]);
    entry[0] = 0x40;
    entry
}

const NEWEST: u8 = 0x80 | 62;

/// Goal: a small block that stands for a large head (HPACK bomb) costs no more than its limit, and neither do
/// many small fields or the crumbs of a cookie (HTTP/2 bomb). Method: an entry in the table, named a thousand
/// times; the answer is 431, and the connection goes on.
#[test]
fn hpack_bombs() {
    let (origin, proxy) = guarded();
    let bombs = [("x", 3000), ("x", 1), ("cookie", 1), ("cookie", 500)];
    for (name, value_bytes) in bombs {
        let mut client = Frames::connect(proxy.web());
        let bomb = [
            block(&line("GET", "/")),
            entry(name, value_bytes),
            vec![NEWEST; 1000],
        ];
        let flags = frames::END_HEADERS | frames::END_STREAM;
        client.send(frame(frames::HEADERS, flags, 1, &bomb.concat()));
        client.until_end(1);
        client.send(get(3, "/bytes/3"));
        assert_eq!(client.until_end(3).payload, pattern(3));
    }
    assert_eq!(origin.requests().len(), bombs.len());
    let log = proxy.access_log(2 * bombs.len());
    let refused = log
        .iter()
        .filter(|e| e["tidegate.reason"] == "head_too_large");
    assert_eq!(refused.count(), bombs.len(), "{log:?}");
}

/// Goal: bombs below the limits of a head are bounded in their number: what they hold is added up. Method: a
/// hundred uploads that are not sent, each naming a large entry; some are refused so that they may come again,
/// and a connection beside it is served.
#[test]
fn held_bombs() {
    let origin = Origin::echo();
    let proxy = Proxy::before(&origin);
    let mut attacker = Frames::connect(proxy.web());
    let head = block(&line("POST", "/body"));
    attacker.send(frame(
        frames::HEADERS,
        frames::END_HEADERS,
        1,
        &[&head[..], &entry("x", 3000)].concat(),
    ));
    for number in 1..100 {
        let bomb = [&head[..], &[NEWEST; 15]].concat();
        let stream = number * 2 + 1;
        attacker.send(frame(frames::HEADERS, frames::END_HEADERS, stream, &bomb));
    }
    let refused = attacker.until_kind(frames::RESET);
    assert_eq!(refused.code(), frames::REFUSED_STREAM);
    let log = proxy.access_log(1);
    assert_eq!(log[0]["tidegate.detail"], "heads that expand too much");
    let mut bystander = Frames::connect(proxy.web());
    bystander.send(get(1, "/bytes/3"));
    assert_eq!(bystander.until_end(1).payload, pattern(3));
    drop(attacker);
    proxy.wait_for_metric("tidegate_shard_requests_active", |n| n == 0.0);
}

/// Goal: frames of types that do not exist are passed over a number of times (RFC 9113, 5.5). Method: many.
#[test]
fn unknown_frames() {
    ends_with_calm("too many frames without effect", 1000, |_| {
        frame(0xbe, 0, 0, &[0; 8])
    });
}

/// Goal: requests that break a rule are reset a number of times. Method: many with an upper-case name.
#[test]
fn malformed_requests() {
    ends_with_calm("too many stream errors", 1000, |number| {
        let fields = [&line("GET", "/")[..], &[("X-A", "b")]].concat();
        let flags = frames::END_HEADERS | frames::END_STREAM;
        frame(frames::HEADERS, flags, number * 2 + 1, &block(&fields))
    });
}

/// Goal: a client that knows how many streams it may open, and opens more, is refused a number of times. Method:
/// uploads that are not sent.
#[test]
fn streams_above_the_limit() {
    ends_with_calm("too many stream errors", 1000, |number| match number {
        0 => frame(frames::SETTINGS, frames::ACK, 0, &[]),
        _ => post(number * 2 + 1, "/body"),
    });
}

/// Goal: a head that never ends is waited for as long as any first head, no longer. Method: HEADERS without an
/// end, and nothing more.
#[test]
fn heads_that_never_end() {
    let origin = Origin::echo();
    let waits = "    timeouts: { header: 500ms }\n";
    let proxy = Proxy::start(proxy::web_with(waits, "{ to: app }", &[("app", &origin)]));
    let mut attacker = Frames::connect(proxy.web());
    let head = block(&line("GET", "/"));
    attacker.send(frame(frames::HEADERS, frames::END_STREAM, 1, &head));
    while attacker.next().is_some() {}
    assert_eq!(proxy.metric("tidegate_shard_http2_streams_total"), 0.0);
}

/// Goal: a client that breaks the rules of the connection is told which kind, and it is counted apart from
/// floods. Method: what is not HTTP/2 behind the preface; a frame on stream 0 that needs one.
#[test]
fn broken_rules() {
    let (_origin, proxy) = guarded();
    let cases = [
        frame(frames::DATA, 0, 0, b"x"),
        frame(
            frames::HEADERS,
            frames::END_HEADERS,
            2,
            &block(&line("GET", "/")),
        ),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ];
    for bytes in &cases {
        let mut client = Frames::connect(proxy.web());
        client.send(bytes);
        client.finish();
        assert_ne!(client.until_closed().code(), frames::NO_ERROR);
    }
    let log = proxy.access_log(cases.len());
    assert!(
        log.iter()
            .all(|entry| entry["tidegate.reason"] == "http2_protocol"),
        "{log:?}"
    );
    assert_eq!(proxy.metric("tidegate_shard_http2_floods_total"), 0.0);
}
