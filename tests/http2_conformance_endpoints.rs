//! What RFC 9113 and RFC 7541 ask of a client, over real sockets: endpoints that send what they must not, frame
//! by frame, to a proxy that has asked them.
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
    net::{SocketAddr, TcpListener, TcpStream},
};

use common::{
    Proxy, assert_same_bytes,
    frames::{
        self, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GO_AWAY, HEADERS, PING,
        PREFACE, PRIORITY, PROTOCOL_ERROR, RESET, SETTINGS, WINDOW_UPDATE, block, frame,
    },
    http2::{Http2, read_body, request, run},
    pattern,
};

use Fate::{Ended, Lives, Reset};

const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 0x8;
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// What becomes of a connection on which an endpoint sends such frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing is wrong with it.
    Lives,
    /// The stream is reset with this code.
    Reset(u32),
    /// GOAWAY says this code, and the connection is closed.
    Ended(u32),
}

/// An endpoint that has taken a connection and heard a request on stream 1.
fn accept(listener: &TcpListener) -> Frames {
    let (mut stream, _) = listener.accept().unwrap();
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).unwrap();
    assert_eq!(preface, *PREFACE);
    let mut endpoint = Frames::over(stream);
    endpoint.send(frame(SETTINGS, 0, 0, &[]));
    endpoint.until_kind(HEADERS);
    endpoint
}

/// Sends what the case says and sees what comes of it.
fn fate(what: &str, endpoint: &mut Frames, bytes: &[u8]) -> Fate {
    endpoint.try_send([bytes, &frame(PING, 0, 0, b"the last")].concat());
    let mut reset = None;
    loop {
        let got = endpoint
            .next()
            .unwrap_or_else(|| panic!("closed without GOAWAY: {what}"));
        match got.kind {
            RESET => reset = Some(got.code()),
            GO_AWAY => {
                while endpoint.next().is_some() {}
                return Ended(got.code());
            }
            PING if got.flags & frames::ACK != 0 => return reset.map_or(Lives, Reset),
            _ => {}
        }
    }
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &CANCEL.to_be_bytes())
}

/// HEADERS of an answer.
fn answer(flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&[(":status", "200")], more].concat();
    frame(HEADERS, flags | END_HEADERS, 1, &block(&fields))
}

/// HEADERS of an answer whose block goes on like this.
fn answer_then(more: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[&[0x88], more].concat())
}

#[rustfmt::skip] // One case, one line.
fn cases() -> Vec<(&'static str, &'static str, Vec<u8>, Fate)> {
    let ended = |more: Vec<u8>| [answer(END_STREAM, &[]), more].concat();
    let begun = |more: Vec<u8>| [answer(0, &[]), more].concat();
    vec![
        ("4.1", "an unknown type", frame(0xbe, 0xff, 0, b"what"), Lives),
        ("4.1", "undefined flags and the reserved bit", frame(PING, 0xfe, 1 << 31, &[0; 8]), Lives),
        ("4.2", "DATA at the limit", begun(frame(DATA, 0, 1, &[0; 16384])), Lives),
        ("4.2", "DATA above it", begun(frame(DATA, 0, 1, &[0; 16385])), Ended(FRAME_SIZE_ERROR)),
        ("4.2", "HEADERS above it", frame(HEADERS, WHOLE, 1, &[0; 16385]), Ended(FRAME_SIZE_ERROR)),
        ("4.3", "a block that is none", answer_then(&[0x00, 0x7f, 0xff]), Ended(COMPRESSION_ERROR)),
        ("4.3", "PRIORITY inside a block", [frame(HEADERS, 0, 1, &[0x88]), frame(PRIORITY, 0, 1, &[0; 5])].concat(), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: DATA", frame(DATA, END_STREAM, 3, b"x"), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: HEADERS", frame(HEADERS, WHOLE, 3, &[0x88]), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: RST_STREAM", reset(3), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: WINDOW_UPDATE", window_update(3, 100), Ended(PROTOCOL_ERROR)),
        ("5.1", "idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 3, &[]), Ended(PROTOCOL_ERROR)),
        ("5.1", "closed: DATA", ended(frame(DATA, END_STREAM, 1, b"test")), Ended(STREAM_CLOSED)),
        ("5.1", "closed: HEADERS", ended(answer(END_STREAM, &[])), Ended(STREAM_CLOSED)),
        ("5.1", "closed: CONTINUATION", ended(frame(CONTINUATION, END_HEADERS, 1, &[])), Ended(PROTOCOL_ERROR)),
        ("5.1", "closed: WINDOW_UPDATE", ended(window_update(1, 100)), Lives),
        ("5.1", "closed: RST_STREAM", ended(reset(1)), Lives),
        ("5.1", "closed: PRIORITY", ended(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])), Lives),
        ("5.1.1", "a stream of its own", frame(HEADERS, WHOLE, 2, &[0x88]), Ended(PROTOCOL_ERROR)),
        ("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), Ended(PROTOCOL_ERROR)),
        ("6.1", "padding as long as the frame", begun(frame(DATA, PADDED, 1, &[1])), Ended(PROTOCOL_ERROR)),
        ("6.2", "HEADERS on stream 0", frame(HEADERS, WHOLE, 0, &[0x88]), Ended(PROTOCOL_ERROR)),
        ("6.2", "padding longer than the frame", frame(HEADERS, WHOLE | PADDED, 1, &[9, 0x88]), Ended(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), Ended(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4]), Ended(FRAME_SIZE_ERROR)),
        ("6.4", "RST_STREAM on stream 0", reset(0), Ended(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM of 3 bytes", frame(RESET, 0, 1, &[0; 3]), Ended(FRAME_SIZE_ERROR)),
        ("6.5", "an acknowledgement with settings", frame(SETTINGS, frames::ACK, 0, &[0; 6]), Ended(FRAME_SIZE_ERROR)),
        ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Ended(PROTOCOL_ERROR)),
        ("6.5", "SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), Ended(FRAME_SIZE_ERROR)),
        ("6.5.2", "ENABLE_PUSH of a server", settings(2, 1), Ended(PROTOCOL_ERROR)),
        ("6.5.2", "INITIAL_WINDOW_SIZE above its limit", settings(4, 1 << 31), Ended(FLOW_CONTROL_ERROR)),
        ("6.5.2", "MAX_FRAME_SIZE below its least", settings(5, 16383), Ended(PROTOCOL_ERROR)),
        ("6.5.2", "MAX_FRAME_SIZE above its most", settings(5, 1 << 24), Ended(PROTOCOL_ERROR)),
        ("6.5.2", "an unknown setting", settings(0xff, 1), Lives),
        ("6.6", "PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Ended(PROTOCOL_ERROR)),
        ("6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8]), Ended(PROTOCOL_ERROR)),
        ("6.7", "PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), Ended(FRAME_SIZE_ERROR)),
        ("6.8", "GOAWAY on a stream", frame(GO_AWAY, 0, 1, &[0; 8]), Ended(PROTOCOL_ERROR)),
        ("6.9", "an increment of 0", window_update(0, 0), Ended(PROTOCOL_ERROR)),
        ("6.9", "an increment of 0 for a stream", begun(window_update(1, 0)), Reset(PROTOCOL_ERROR)),
        ("6.9", "WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Ended(FRAME_SIZE_ERROR)),
        ("6.9.1", "a window above its limit", window_update(0, (1 << 31) - 1), Ended(FLOW_CONTROL_ERROR)),
        ("6.10", "a block in two frames", [frame(HEADERS, END_STREAM, 1, &[0x88]), frame(CONTINUATION, END_HEADERS, 1, &block(&[("x-a", "b")]))].concat(), Lives),
        ("6.10", "CONTINUATION of a block that has ended", begun(frame(CONTINUATION, END_HEADERS, 1, &[])), Ended(PROTOCOL_ERROR)),
        ("8.1", "DATA before the head", frame(DATA, END_STREAM, 1, b"x"), Reset(PROTOCOL_ERROR)),
        ("8.1", "trailers that do not end the stream", begun(frame(HEADERS, END_HEADERS, 1, &block(&[("x-a", "b")]))), Reset(PROTOCOL_ERROR)),
        ("8.1.1", "a length above the DATA", [answer(0, &[("content-length", "2")]), frame(DATA, END_STREAM, 1, b"x")].concat(), Reset(PROTOCOL_ERROR)),
        ("8.2.1", "an upper-case name", answer(END_STREAM, &[("X-A", "b")]), Reset(PROTOCOL_ERROR)),
        ("8.2.2", "a field of the connection", answer(END_STREAM, &[("connection", "close")]), Reset(PROTOCOL_ERROR)),
        ("8.3", "a pseudo-header field of requests", answer(END_STREAM, &[(":path", "/")]), Reset(PROTOCOL_ERROR)),
        ("8.3.2", "no :status", frame(HEADERS, WHOLE, 1, &block(&[("x-a", "b")])), Reset(PROTOCOL_ERROR)),
        ("7541 6.1", "index 0", answer_then(&[0x80]), Ended(COMPRESSION_ERROR)),
        ("7541 4.2", "a table size behind a field", answer_then(&[0x20]), Ended(COMPRESSION_ERROR)),
        ("7541 6.3", "a table size above the announced one", frame(HEADERS, WHOLE, 1, &[0x3f, 0xe2, 0x1f, 0x88]), Ended(COMPRESSION_ERROR)),
    ]
}

/// A proxy with a route and a cluster for each of these endpoints.
fn before(endpoints: &[SocketAddr]) -> Proxy {
    let mut routes = String::new();
    let mut clusters = String::new();
    for (number, address) in endpoints.iter().enumerate() {
        routes += &format!("      - {{ match: {{ path: /{number} }}, to: c{number} }}\n");
        clusters += &format!(
            "  c{number}: {{ protocol: http2, endpoints: {{ static: ['{address}'] }} }}\n"
        );
    }
    Proxy::start(format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:0\n    routes:\n{routes}clusters:\n{clusters}"
    ))
}

/// Goal: what an endpoint must not do ends its stream or its connection, with the code that the RFCs name.
/// Method: a table of frames, each from an endpoint of its own that was sent a request.
#[test]
fn by_section() {
    let cases = cases();
    let listeners: Vec<TcpListener> = cases
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<_> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    let proxy = before(&addresses);
    for (number, (section, what, bytes, expected)) in cases.iter().enumerate() {
        let mut client = TcpStream::connect(proxy.web()).unwrap();
        write!(client, "GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut endpoint = accept(&listeners[number]);
        let got = fate(what, &mut endpoint, bytes);
        assert_eq!(got, *expected, "{section}: {what}");
    }
}

/// Goal: an answer that ends with its head ends for a client of HTTP/1 too, which waited for more. Method: such
/// answers to a client that keeps its connection, one after the other.
#[test]
fn answers_that_end_with_their_head() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = before(&[listener.local_addr().unwrap()]);
    let endpoint = std::thread::spawn(move || {
        let mut endpoint = accept(&listener);
        endpoint.send(answer(END_STREAM, &[]));
        let next = endpoint.until_kind(HEADERS).stream;
        endpoint.send(frame(HEADERS, WHOLE, next, &block(&[(":status", "404")])));
    });
    let mut client = proxy.client();
    for status in [200, 404] {
        let answer = client.get("/0");
        assert_eq!((answer.status, answer.text()), (status, String::new()));
    }
    endpoint.join().unwrap();
}

/// Goal: an answer that came whole reaches a client that is slow to take it, though the endpoint has closed its
/// connection since (RFC 9113, 9.1). Method: a client whose window opens when the proxy has lost the endpoint.
#[test]
fn answers_outlive_their_connection() {
    const LEN: usize = 50_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = before(&[listener.local_addr().unwrap()]);
    let endpoint = std::thread::spawn(move || {
        let mut endpoint = accept(&listener);
        endpoint.send(answer(0, &[]));
        for piece in pattern(LEN).chunks(LEN / 5) {
            endpoint.send(frame(DATA, 0, 1, piece));
        }
        endpoint.send(frame(DATA, END_STREAM, 1, &[]));
    });
    run(async {
        let mut slow = h2::client::Builder::new();
        slow.initial_window_size(1000);
        let (mut client, _) = Http2::connect_with(proxy.web(), &slow).await;
        let (answer, _) = client.begin(request("GET", "/0"), false).await.unwrap();
        let answer = answer.await.unwrap();
        proxy.wait_for_metric("tidegate_shard_links_plaintext", |links| links == 0.0);
        let answer = read_body(answer).await.unwrap();
        assert_same_bytes(&answer.body, &pattern(LEN));
    });
    endpoint.join().unwrap();
}
