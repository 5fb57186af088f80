//! What RFC 9113 and RFC 7541 ask of a server, over real sockets, in plaintext and in TLS: our own cases by
//! section, then the suites that others wrote. `proto-codecs/tests/http2_conformance.rs` has more of the
//! former, without sockets; here each must also have its answer reach the client before the connection is
//! closed, and the connections beside it be served on.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use common::{
    Origin, Proxy,
    frames::{
        self, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GO_AWAY, HEADERS, PING,
        PREFACE, PRIORITY, PROTOCOL_ERROR, RESET, SETTINGS, WINDOW_UPDATE, block, frame, get, line,
        post,
    },
    pattern, peer,
    tls::{Authority, Leaf, SERVER_NAME, Session, client_config},
};

use Fate::{Ended, Reset, Served};

const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// A stream above all that the cases use.
const LAST: u32 = 1001;

/// What becomes of a connection that such frames reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing is wrong, and the next request is served.
    Served,
    /// A stream is reset with this code, and the next request is served.
    Reset(u32),
    /// GOAWAY says this code, and the connection is closed.
    Ended(u32),
}

/// Where a case begins.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Settings are exchanged.
    Settled,
    /// A request was answered on stream 1.
    Answered,
}

use Stage::{Answered, Settled};

struct Case {
    /// Of RFC 9113, unless it names another.
    section: &'static str,
    what: &'static str,
    stage: Stage,
    bytes: Vec<u8>,
    fate: Fate,
}

/// A proxy before an echoing origin, in plaintext, and in TLS with HTTP/2 alone.
struct Gateway {
    _origin: Origin,
    authority: Authority,
    proxy: Proxy,
}

impl Gateway {
    fn start() -> Gateway {
        let origin = Origin::echo();
        let authority = Authority::new();
        let server = authority.issue(&Leaf::server(SERVER_NAME));
        let config = format!(
            "secrets:\n{}listeners:\n  web: {{ bind: 127.0.0.1:0, routes: [{{ to: app }}] }}\n  \
             tls: {{ bind: 127.0.0.2:0, routes: [{{ to: app }}], \
             tls: {{ certificates: server, alpn: [h2] }} }}\n\
             clusters:\n  app: {{ endpoints: {{ static: ['{origin}'] }} }}\n",
            server.secret("server"),
        );
        Gateway {
            _origin: origin,
            authority,
            proxy: Proxy::start(config),
        }
    }

    fn plain(&self) -> Frames {
        Frames::connect(self.proxy.web())
    }

    fn secure(&self) -> Frames<Session> {
        let mut config = client_config(&self.authority, None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let address = self.proxy.listener("tls");
        let mut frames = Frames {
            stream: Session::connect(address, SERVER_NAME, &config).unwrap(),
        };
        frames.send(PREFACE);
        frames.send(frame(SETTINGS, 0, 0, &[]));
        frames
    }
}

/// Sends what the case says, and a request behind it.
#[track_caller]
fn fate<S: Read + Write>(case: &Case, mut frames: Frames<S>) -> Fate {
    frames.until("the settings", |got| {
        got.kind == SETTINGS && got.flags & frames::ACK == 0
    });
    if matches!(case.stage, Answered) {
        frames.send(get(1, "/bytes/3"));
        frames.until_end(1);
    }
    // The proxy may have closed before all is sent.
    frames.try_send([&case.bytes[..], &get(LAST, "/bytes/3")].concat());
    let mut reset = None;
    loop {
        let what = format!("{}, {}", case.section, case.what);
        let got = frames
            .next()
            .unwrap_or_else(|| panic!("closed without GOAWAY: {what}"));
        match got.kind {
            RESET => reset = Some(got.code()),
            GO_AWAY => {
                while frames.next().is_some() {}
                return Ended(got.code());
            }
            DATA if got.stream == LAST && got.flags & END_STREAM != 0 => {
                assert_eq!(got.payload, pattern(3), "{what}");
                return reset.map_or(Served, Reset);
            }
            _ => {}
        }
    }
}

fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let pairs = list.iter().flat_map(|(id, value)| {
        let id = id.to_be_bytes().into_iter();
        id.chain(value.to_be_bytes())
    });
    frame(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>())
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &CANCEL.to_be_bytes())
}

/// HEADERS of a whole GET, with more fields.
fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&line("GET", "/")[..], more].concat();
    frame(HEADERS, WHOLE, 1, &block(&fields))
}

/// HEADERS of these fields alone.
fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

/// HEADERS of a whole GET whose block goes on like this.
fn get_then(more: &[u8]) -> Vec<u8> {
    frame(
        HEADERS,
        WHOLE,
        1,
        &[&block(&line("GET", "/")), more].concat(),
    )
}

#[rustfmt::skip] // One case, one line.
fn cases() -> Vec<Case> {
    let fields = &block(&line("GET", "/"));
    let get_first = |more: Vec<u8>| [get(1, "/"), more].concat();
    let post_first = |more: Vec<u8>| [post(1, "/body"), more].concat();
    let without = |left_out: &str| -> Vec<u8> {
        let mut kept = line("GET", "/").to_vec();
        kept.retain(|field| field.0 != left_out);
        request(&kept)
    };
    let open_block = frame(HEADERS, END_STREAM, 1, fields);
    let list: Vec<(&'static str, &'static str, Stage, Vec<u8>, Fate)> = vec![
        ("4.1", "an unknown type", Settled, frame(0xbe, 0xff, 0, b"what"), Served),
        ("4.1", "undefined flags", Settled, frame(PING, 0xfe, 0, &[0; 8]), Served),
        ("4.1", "the reserved bit", Settled, frame(PING, 0, 1 << 31, &[0; 8]), Served),
        ("4.2", "DATA at the limit", Settled, post_first(frame(DATA, END_STREAM, 1, &[0; 16384])), Served),
        ("4.2", "DATA above it", Settled, post_first(frame(DATA, END_STREAM, 1, &[0; 16385])), Ended(FRAME_SIZE_ERROR)),
        ("4.2", "HEADERS above it", Settled, frame(HEADERS, WHOLE, 1, &[0; 16385]), Ended(FRAME_SIZE_ERROR)),
        ("4.3", "a block that is none", Settled, get_then(&[0x00, 0x7f, 0xff]), Ended(COMPRESSION_ERROR)),
        ("4.3", "PRIORITY inside a block", Settled, [open_block.clone(), frame(PRIORITY, 0, 1, &[0; 5])].concat(), Ended(PROTOCOL_ERROR)),
        ("4.3", "HEADERS inside a block", Settled, [open_block.clone(), get(3, "/")].concat(), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: DATA", Settled, frame(DATA, END_STREAM, 1, b"x"), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: RST_STREAM", Settled, reset(1), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: WINDOW_UPDATE", Settled, window_update(1, 100), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: CONTINUATION", Settled, frame(CONTINUATION, END_HEADERS, 1, fields), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: PRIORITY", Settled, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), Served),
        ("5.1", "reset: DATA", Settled, post_first([reset(1), frame(DATA, 0, 1, b"x")].concat()), Ended(STREAM_CLOSED)),
        ("5.1", "reset: HEADERS", Settled, post_first([reset(1), get(1, "/")].concat()), Ended(STREAM_CLOSED)),
        ("5.1", "closed: DATA", Answered, frame(DATA, END_STREAM, 1, b"x"), Ended(STREAM_CLOSED)),
        ("5.1", "closed: HEADERS", Answered, get(1, "/"), Ended(STREAM_CLOSED)),
        ("5.1", "closed: CONTINUATION", Answered, frame(CONTINUATION, END_HEADERS, 1, fields), Ended(PROTOCOL_ERROR)),
        ("5.1", "closed: PRIORITY", Answered, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), Served),
        ("5.1", "closed: WINDOW_UPDATE", Answered, window_update(1, 100), Served),
        ("5.1", "closed: RST_STREAM", Answered, reset(1), Served),
        ("5.1.1", "an even stream", Settled, get(2, "/"), Ended(PROTOCOL_ERROR)),
        ("5.1.1", "a stream below another", Settled, [get(5, "/"), get(3, "/")].concat(), Ended(PROTOCOL_ERROR)),
        ("5.4.1", "GOAWAY before the end", Settled, frame(PING, 0, 0, &[0; 7]), Ended(FRAME_SIZE_ERROR)),
        ("5.5", "an unknown type inside a block", Settled, [open_block.clone(), frame(0xbe, 0, 1, &[])].concat(), Ended(PROTOCOL_ERROR)),
        ("7540 5.3.1", "HEADERS that depend on themselves", Settled, frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0, 0, 0, 1, 9], &fields[..]].concat()), Reset(PROTOCOL_ERROR)),
        ("6.1", "DATA on stream 0", Settled, frame(DATA, 0, 0, b"x"), Ended(PROTOCOL_ERROR)),
        ("6.1", "DATA that is padded", Settled, post_first(frame(DATA, PADDED | END_STREAM, 1, &[2, b'x', 0, 0])), Served),
        ("6.1", "padding as long as the frame", Settled, post_first(frame(DATA, PADDED, 1, &[1])), Ended(PROTOCOL_ERROR)),
        ("6.2", "HEADERS on stream 0", Settled, get(0, "/"), Ended(PROTOCOL_ERROR)),
        ("6.2", "HEADERS that are padded", Settled, frame(HEADERS, WHOLE | PADDED, 1, &[&[2], &fields[..], &[0, 0]].concat()), Served),
        ("6.2", "padding longer than the frame", Settled, frame(HEADERS, WHOLE | PADDED, 1, &[200, 0x82]), Ended(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY on stream 0", Settled, frame(PRIORITY, 0, 0, &[0; 5]), Ended(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY of 4 bytes", Settled, frame(PRIORITY, 0, 1, &[0; 4]), Ended(FRAME_SIZE_ERROR)),
        ("6.4", "RST_STREAM on stream 0", Settled, reset(0), Ended(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM of 3 bytes", Settled, post_first(frame(RESET, 0, 1, &[0; 3])), Ended(FRAME_SIZE_ERROR)),
        ("6.5", "an acknowledgement with settings", Settled, frame(SETTINGS, frames::ACK, 0, &[0; 6]), Ended(FRAME_SIZE_ERROR)),
        ("6.5", "SETTINGS on a stream", Settled, frame(SETTINGS, 0, 1, &[]), Ended(PROTOCOL_ERROR)),
        ("6.5", "SETTINGS of 5 bytes", Settled, frame(SETTINGS, 0, 0, &[0; 5]), Ended(FRAME_SIZE_ERROR)),
        ("6.5.2", "ENABLE_PUSH of 2", Settled, settings(&[(2, 2)]), Ended(PROTOCOL_ERROR)),
        ("6.5.2", "INITIAL_WINDOW_SIZE above its limit", Settled, settings(&[(4, 1 << 31)]), Ended(FLOW_CONTROL_ERROR)),
        ("6.5.2", "MAX_FRAME_SIZE below its least", Settled, settings(&[(5, 16383)]), Ended(PROTOCOL_ERROR)),
        ("6.5.2", "MAX_FRAME_SIZE above its most", Settled, settings(&[(5, 1 << 24)]), Ended(PROTOCOL_ERROR)),
        ("6.5.2", "an unknown setting", Settled, settings(&[(0xff, 1)]), Served),
        ("6.6", "PUSH_PROMISE", Settled, get_first(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), Ended(PROTOCOL_ERROR)),
        ("6.7", "PING on a stream", Settled, frame(PING, 0, 1, &[0; 8]), Ended(PROTOCOL_ERROR)),
        ("6.7", "an answer to no PING", Settled, frame(PING, frames::ACK, 0, &[0; 8]), Served),
        ("6.8", "GOAWAY on a stream", Settled, frame(GO_AWAY, 0, 1, &[0; 8]), Ended(PROTOCOL_ERROR)),
        ("6.9", "an increment of 0", Settled, window_update(0, 0), Ended(PROTOCOL_ERROR)),
        ("6.9", "an increment of 0 for a stream", Settled, post_first(window_update(1, 0)), Reset(PROTOCOL_ERROR)),
        ("6.9", "WINDOW_UPDATE of 3 bytes", Settled, frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Ended(FRAME_SIZE_ERROR)),
        ("6.9.1", "a window above its limit", Settled, window_update(0, (1 << 31) - 1), Ended(FLOW_CONTROL_ERROR)),
        ("6.9.1", "a stream's window above its limit", Settled, post_first(window_update(1, (1 << 31) - 1)), Reset(FLOW_CONTROL_ERROR)),
        ("6.9.2", "settings that take a window above its limit", Settled, post_first([window_update(1, 1), settings(&[(4, (1 << 31) - 1)])].concat()), Ended(FLOW_CONTROL_ERROR)),
        ("6.10", "a block in three frames", Settled, [frame(HEADERS, END_STREAM, 1, &fields[..3]), frame(CONTINUATION, 0, 1, &fields[3..9]), frame(CONTINUATION, END_HEADERS, 1, &fields[9..])].concat(), Served),
        ("6.10", "CONTINUATION of a block that has ended", Settled, get_first(frame(CONTINUATION, END_HEADERS, 1, &[])), Ended(PROTOCOL_ERROR)),
        ("6.10", "CONTINUATION on stream 0", Settled, [open_block.clone(), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(), Ended(PROTOCOL_ERROR)),
        ("6.10", "CONTINUATION behind DATA", Settled, post_first([frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, &[])].concat()), Ended(PROTOCOL_ERROR)),
        ("7", "an unknown code in RST_STREAM", Settled, post_first(frame(RESET, 0, 1, &[0xff; 4])), Served),
        ("8.1", "a second head", Settled, post_first(post(1, "/body")), Reset(PROTOCOL_ERROR)),
        ("8.1.1", "a length above the DATA", Settled, [frame(HEADERS, END_HEADERS, 1, &block(&[&line("POST", "/body")[..], &[("content-length", "2")]].concat())), frame(DATA, END_STREAM, 1, b"x")].concat(), Reset(PROTOCOL_ERROR)),
        ("8.1.1", "a length below the DATA", Settled, [frame(HEADERS, END_HEADERS, 1, &block(&[&line("POST", "/body")[..], &[("content-length", "1")]].concat())), frame(DATA, END_STREAM, 1, b"xy")].concat(), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "an upper-case name", Settled, get_with(&[("X-A", "b")]), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "a line end in a value", Settled, get_with(&[("x-a", "b\r\nc: d")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "a field of the connection", Settled, get_with(&[("connection", "keep-alive")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "TE of anything but trailers", Settled, get_with(&[("te", "trailers, deflate")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "an unknown pseudo-header field", Settled, get_with(&[(":test", "x")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "one of answers", Settled, get_with(&[(":status", "200")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "one behind regular fields", Settled, get_with(&[("x-a", "b"), (":path", "/")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "one in trailers", Settled, post_first(frame(HEADERS, WHOLE, 1, &block(&[(":method", "GET")]))), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "no :method", Settled, without(":method"), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "no :scheme", Settled, without(":scheme"), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "no :path", Settled, without(":path"), Reset(PROTOCOL_ERROR)),
        ("8.3.1", "an empty :path", Settled, request(&line("GET", "")), Reset(PROTOCOL_ERROR)),
        ("8.3.1", ":path twice", Settled, get_with(&[(":path", "/")]), Reset(PROTOCOL_ERROR)),
        ("7541 2.3.3", "an index that no entry has", Settled, get_then(&[0xff, 0x00]), Ended(COMPRESSION_ERROR)),
        ("7541 2.3.3", "a name that no entry has", Settled, get_then(&[0x7f, 0x00, 0x01, b'x']), Ended(COMPRESSION_ERROR)),
        ("7541 4.2", "a table size behind a field", Settled, get_then(&[0x20]), Ended(COMPRESSION_ERROR)),
        ("7541 5.2", "padding of eight bits", Settled, get_then(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"), Ended(COMPRESSION_ERROR)),
        ("7541 5.2", "padding of zeros", Settled, get_then(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"), Ended(COMPRESSION_ERROR)),
        ("7541 5.2", "the end of a string in a string", Settled, get_then(b"\x00\x85\xf2\xb2\x4a\x84\xff\x86\x49\x51\x7f\xff\xff\xf0"), Ended(COMPRESSION_ERROR)),
        ("7541 6.1", "index 0", Settled, get_then(&[0x80]), Ended(COMPRESSION_ERROR)),
        ("7541 6.3", "a table size above the announced one", Settled, frame(HEADERS, WHOLE, 1, &[&[0x3f, 0xe2, 0x1f], &fields[..]].concat()), Ended(COMPRESSION_ERROR)),
    ];
    list.into_iter()
        .map(|(section, what, stage, bytes, fate)| Case { section, what, stage, bytes, fate })
        .collect()
}

/// Goal: frames do to the proxy what the RFCs say, and the client is told before the connection is closed.
/// Method: a table of frames, each on a connection of its own, in plaintext and in TLS; a request behind
/// them is served or not.
#[test]
fn by_section() {
    let gateway = Gateway::start();
    for case in cases() {
        let in_plain = fate(&case, gateway.plain());
        let in_tls = fate(&case, gateway.secure());
        let (section, what) = (case.section, case.what);
        assert_eq!(in_plain, case.fate, "{section}: {what}");
        assert_eq!(in_tls, case.fate, "{section}, in TLS: {what}");
    }
}

/// Goal: windows hold the DATA of an answer (RFC 9113, 6.9.1 and 6.9.2). Method: an initial window of one
/// byte, one below zero, and updates.
#[test]
fn windows_hold_answers() {
    let gateway = Gateway::start();
    let mut frames = Frames::connect_with(gateway.proxy.web(), &[(4, 1)]);
    frames.send(get(1, "/bytes/3"));
    assert_eq!(frames.until_kind(DATA).payload, pattern(3)[..1]);
    // One byte was sent, so that a window of none is one below zero.
    frames.send(settings(&[(4, 0)]));
    frames.send(window_update(1, 1));
    frames.send(frame(PING, 0, 0, &[9; 8]));
    let next = frames.until("an answer", |got| matches!(got.kind, DATA | PING));
    assert_eq!(next.kind, PING, "DATA beyond the window");
    frames.send(window_update(1, 2));
    assert_eq!(frames.until_end(1).payload, pattern(3)[1..]);
}

/// Goal: whoever does not speak HTTP/2 where nothing else is spoken is told, and the connection closed
/// (RFC 9113, 3.4). Method: another preface, behind a handshake that has agreed on HTTP/2.
#[test]
fn a_preface_that_is_none() {
    let gateway = Gateway::start();
    let mut config = client_config(&gateway.authority, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = gateway.proxy.listener("tls");
    let mut frames = Frames {
        stream: Session::connect(address, SERVER_NAME, &config).unwrap(),
    };
    frames.send(b"INVALID CONNECTION PREFACE\r\n\r\n");
    assert_eq!(frames.until_kind(GO_AWAY).code(), PROTOCOL_ERROR);
    while frames.next().is_some() {}
}

/// Goal: h2spec passes in full. Method: it is run where it is installed, which no package registry helps
/// with, so that its absence is no failure; the suite below has the same cases.
#[test]
fn h2spec() {
    let Some(h2spec) = optional("h2spec") else {
        return;
    };
    let gateway = Gateway::start();
    let run = |address: SocketAddr, arguments: &[&str]| {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let out = peer::run(
            Command::new(&h2spec)
                .args([
                    "--strict",
                    "--timeout",
                    "10",
                    "--host",
                    &ip,
                    "--port",
                    &port,
                ])
                .args(arguments),
        );
        assert!(out.contains(" 0 skipped, 0 failed"), "{out}");
    };
    run(gateway.proxy.listener("tls"), &["--tls", "--insecure"]);
    // All but http2/3.5/2: on a port of several protocols, what is no preface is no HTTP/2.
    let sections = [
        "generic",
        "hpack",
        "http2/3.5/1",
        "http2/4",
        "http2/5",
        "http2/6",
        "http2/7",
        "http2/8",
    ];
    run(gateway.proxy.web(), &sections);
}

/// A program in the path that nothing can install for us.
fn optional(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = found.into_iter().find(|candidate| candidate.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Goal: the suite `httpwg`, h2spec written anew and extended, finds nothing. Method: all of it, in
/// plaintext.
#[test]
fn httpwg() {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/bin/httpwg");
    let program = std::env::var_os("TIDEGATE_TEST_HTTPWG").map_or(installed, PathBuf::from);
    if !program.is_file() {
        assert!(
            std::env::var_os("TIDEGATE_TEST_PEERS").is_none(),
            "httpwg is not there"
        );
        eprintln!("skipped: httpwg is not installed");
        return;
    }
    let gateway = Gateway::start();
    let address = gateway.proxy.web().to_string();
    // One after the other: all at once they run into each other's time-outs on a busy machine.
    let run = Command::new(program)
        .args(["--address", &address, "--frame-timeout", "5000"])
        .env("SEQUENTIAL", "1")
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{log}");
    assert!(log.matches("Test passed").count() >= 100, "{log}");
}
