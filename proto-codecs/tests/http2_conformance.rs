//! What RFC 9113 asks of a server and a client, by section; the cases of h2spec are among them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod http2_common;

use http2_common::*;
use tidegate_codecs::{
    http1::HeadError,
    http2::{
        Connection, ErrorCode, FieldLine, MessageError, Options, PREFACE, RequestLine, SendError,
        StreamId, StreamState, error::ConnectionError,
    },
};

/// What becomes of a connection that such frames reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing is wrong.
    Fine,
    /// The stream is reset with this code.
    Stream(ErrorCode),
    /// The connection ends with this code.
    Ends(ErrorCode),
}

use Fate::{Ends, Fine, Stream};

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;

fn code_of(sent: &Sent) -> ErrorCode {
    let at = if sent.kind == GOAWAY { 4 } else { 0 };
    ErrorCode(u32::from_be_bytes(
        sent.payload[at..at + 4].try_into().unwrap(),
    ))
}

/// What the frames that a connection has sent make of it.
fn fate(wire: &mut Wire) -> Fate {
    let sent = wire.take_frames();
    let find = |kind| sent.iter().find(|sent| sent.kind == kind).map(code_of);
    match (wire.error, find(GOAWAY), find(RST_STREAM)) {
        (Some(error), Some(code), _) => {
            assert_eq!(error.code(), code);
            Ends(code)
        }
        (None, None, Some(code)) => Stream(code),
        (None, None, None) => Fine,
        other => panic!("{other:?} from {sent:?}"),
    }
}

fn after_get(more: Vec<u8>) -> Vec<u8> {
    [headers(1, END_STREAM, &GET), more].concat()
}

fn after_post(more: Vec<u8>) -> Vec<u8> {
    [headers(1, 0, &POST), more].concat()
}

fn without_end(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &block(fields))
}

/// Goal: frames do to a server what RFC 9113 says, section by section. Method: a table of frames, each on a
/// connection of its own whose settings are exchanged.
#[test]
#[rustfmt::skip] // One case, one line.
fn frames_by_section() {
    let get = &block(&GET);
    let cases: Vec<(&str, &str, Vec<u8>, Fate)> = vec![
        ("4.1", "an unknown type is ignored", frame(0xbe, 0xff, 0, b"what"), Fine),
        ("4.1", "an unknown type on a stream is ignored", frame(0xbe, 0xff, 9, b"what"), Fine),
        ("4.1", "undefined flags are ignored", frame(PING, 0xfe, 0, &[0; 8]), Fine),
        ("4.1", "the reserved bit is ignored", frame(PING, 0, 1 << 31, &[0; 8]), Fine),
        ("4.2", "DATA at the limit", after_post(frame(DATA, 0, 1, &[0; 16384])), Fine),
        ("4.2", "DATA above it", after_post(frame(DATA, 0, 1, &[0; 16385])), Ends(SIZE)),
        ("4.2", "SETTINGS above it", frame(SETTINGS, 0, 0, &[0; 16386]), Ends(SIZE)),
        ("4.3", "a block that is none", frame(HEADERS, WHOLE, 1, &[0x80]), Ends(ErrorCode::COMPRESSION_ERROR)),
        ("4.3", "a block inside a block", [without_end(1, &GET), headers(3, END_STREAM, &GET)].concat(), Ends(PROTOCOL)),
        ("4.3", "DATA inside a block", after_post([frame(HEADERS, END_STREAM, 1, &[]), frame(DATA, 0, 1, b"x")].concat()), Ends(PROTOCOL)),
        ("4.3", "an unknown type inside a block", [without_end(1, &GET), frame(0xbe, 0, 0, &[])].concat(), Ends(PROTOCOL)),
        ("5.1", "DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x"), Ends(PROTOCOL)),
        ("5.1", "RST_STREAM on an idle stream", reset(1, ErrorCode::CANCEL), Ends(PROTOCOL)),
        ("5.1", "WINDOW_UPDATE on an idle stream", window_update(1, 1), Ends(PROTOCOL)),
        ("5.1", "CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, get), Ends(PROTOCOL)),
        ("5.1", "PRIORITY on an idle stream", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), Fine),
        ("5.1", "half-closed (remote): DATA", after_get(frame(DATA, 0, 1, b"x")), Stream(CLOSED)),
        ("5.1", "half-closed (remote): HEADERS", after_get(headers(1, END_STREAM, &GET)), Stream(CLOSED)),
        ("5.1", "half-closed (remote): CONTINUATION", after_get(frame(CONTINUATION, END_HEADERS, 1, get)), Ends(PROTOCOL)),
        ("5.1", "half-closed (remote): WINDOW_UPDATE", after_get(window_update(1, 1)), Fine),
        ("5.1", "half-closed (remote): RST_STREAM", after_get(reset(1, ErrorCode::CANCEL)), Fine),
        ("5.1", "closed: DATA", after_post([reset(1, ErrorCode::CANCEL), frame(DATA, 0, 1, b"x")].concat()), Ends(CLOSED)),
        ("5.1", "closed: HEADERS", after_post([reset(1, ErrorCode::CANCEL), headers(1, END_STREAM, &GET)].concat()), Ends(CLOSED)),
        ("5.1", "closed: WINDOW_UPDATE", after_post([reset(1, ErrorCode::CANCEL), window_update(1, 1)].concat()), Fine),
        ("5.1", "closed: RST_STREAM", after_post([reset(1, ErrorCode::CANCEL), reset(1, ErrorCode::CANCEL)].concat()), Fine),
        ("5.1", "closed: PRIORITY", after_post([reset(1, ErrorCode::CANCEL), frame(PRIORITY, 0, 1, &[0; 5])].concat()), Fine),
        ("5.1.1", "an even stream", headers(2, END_STREAM, &GET), Ends(PROTOCOL)),
        ("5.1.1", "a stream below another", [headers(5, END_STREAM, &GET), headers(3, END_STREAM, &GET)].concat(), Ends(PROTOCOL)),
        ("5.1.1", "the highest stream", headers(0x7fff_ffff, END_STREAM, &GET), Fine),
        ("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), Ends(PROTOCOL)),
        ("6.1", "padding as long as the frame", after_post(frame(DATA, PADDED, 1, &[1])), Ends(PROTOCOL)),
        ("6.1", "padding that fills the frame", after_post(frame(DATA, PADDED, 1, &[1, 0])), Fine),
        ("6.1", "no room for the pad length", after_post(frame(DATA, PADDED, 1, &[])), Ends(PROTOCOL)),
        ("6.2", "HEADERS on stream 0", headers(0, END_STREAM, &GET), Ends(PROTOCOL)),
        ("6.2", "padding longer than the frame", frame(HEADERS, WHOLE | PADDED, 1, &[9, 0x82]), Ends(PROTOCOL)),
        ("6.2", "padding", frame(HEADERS, WHOLE | PADDED, 1, &[&[2], &get[..], &[0, 0]].concat()), Fine),
        ("6.2", "priority", frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0x80, 0, 0, 0, 9], &get[..]].concat()), Fine),
        ("7540 5.3.1", "HEADERS that depend on themselves", frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[&[0x80, 0, 0, 1, 9], &get[..]].concat()), Stream(PROTOCOL)),
        ("7540 5.3.1", "PRIORITY on itself", after_get(frame(PRIORITY, 0, 1, &[0x80, 0, 0, 1, 9])), Ends(PROTOCOL)),
        ("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), Ends(PROTOCOL)),
        ("6.3", "PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4]), Ends(SIZE)),
        ("6.4", "RST_STREAM on stream 0", reset(0, ErrorCode::CANCEL), Ends(PROTOCOL)),
        ("6.4", "RST_STREAM of 3 bytes", after_get(frame(RST_STREAM, 0, 1, &[0; 3])), Ends(SIZE)),
        ("6.5", "ACK with settings", frame(SETTINGS, ACK, 0, &[0; 6]), Ends(SIZE)),
        ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Ends(PROTOCOL)),
        ("6.5", "SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), Ends(SIZE)),
        ("6.5.2", "ENABLE_PUSH", settings(&[(2, 1)]), Fine),
        ("6.5.2", "ENABLE_PUSH of 2", settings(&[(2, 2)]), Ends(PROTOCOL)),
        ("6.5.2", "INITIAL_WINDOW_SIZE at the limit", settings(&[(4, 0x7fff_ffff)]), Fine),
        ("6.5.2", "INITIAL_WINDOW_SIZE above it", settings(&[(4, 0x8000_0000)]), Ends(FLOW)),
        ("6.5.2", "MAX_FRAME_SIZE at its least", settings(&[(5, 16384)]), Fine),
        ("6.5.2", "MAX_FRAME_SIZE below", settings(&[(5, 16383)]), Ends(PROTOCOL)),
        ("6.5.2", "MAX_FRAME_SIZE at its most", settings(&[(5, 0xff_ffff)]), Fine),
        ("6.5.2", "MAX_FRAME_SIZE above", settings(&[(5, 0x100_0000)]), Ends(PROTOCOL)),
        ("6.5.2", "an unknown setting", settings(&[(0xff, 1)]), Fine),
        ("6.5.3", "ACK of nothing", frame(SETTINGS, ACK, 0, &[]), Ends(PROTOCOL)),
        ("8441 3", "ENABLE_CONNECT_PROTOCOL of 2", settings(&[(8, 2)]), Ends(PROTOCOL)),
        ("8441 3", "ENABLE_CONNECT_PROTOCOL taken back", settings(&[(8, 1), (8, 0)]), Ends(PROTOCOL)),
        ("9218 2.1", "NO_RFC7540_PRIORITIES of 2", settings(&[(9, 2)]), Ends(PROTOCOL)),
        ("6.6", "PUSH_PROMISE of a client", after_get(frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])), Ends(PROTOCOL)),
        ("6.7", "PING on a stream", frame(PING, 0, 1, &[0; 8]), Ends(PROTOCOL)),
        ("6.7", "PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), Ends(SIZE)),
        ("6.7", "ACK of no PING", frame(PING, ACK, 0, &[0; 8]), Fine),
        ("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Ends(PROTOCOL)),
        ("6.8", "GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, &[0; 7]), Ends(SIZE)),
        ("6.8", "GOAWAY, and a larger one", [frame(GOAWAY, 0, 0, &[0; 8]), frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])].concat(), Ends(PROTOCOL)),
        ("6.9", "an increment of 0 for the connection", window_update(0, 0), Ends(PROTOCOL)),
        ("6.9", "an increment of 0 for a stream", after_get(window_update(1, 0)), Stream(PROTOCOL)),
        ("6.9", "WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Ends(SIZE)),
        ("6.9.1", "the connection's window at its limit", window_update(0, 0x7fff_ffff - 65_535), Fine),
        ("6.9.1", "and above", window_update(0, 0x7fff_ffff - 65_534), Ends(FLOW)),
        ("6.9.1", "a stream's window at its limit", after_get(window_update(1, 0x7fff_ffff - 65_535)), Fine),
        ("6.9.1", "and above", after_get(window_update(1, 0x7fff_ffff - 65_534)), Stream(FLOW)),
        ("6.9.2", "settings that overflow a window", after_get([window_update(1, 1), settings(&[(4, 0x7fff_ffff)])].concat()), Ends(FLOW)),
        ("6.10", "CONTINUATION", [without_end(1, &GET[..2]), frame(CONTINUATION, 0, 1, &block(&GET[2..3])), frame(CONTINUATION, END_HEADERS, 1, &block(&GET[3..]))].concat(), Fine),
        ("6.10", "CONTINUATION after the end of the block", after_get(frame(CONTINUATION, END_HEADERS, 1, &[])), Ends(PROTOCOL)),
        ("6.10", "CONTINUATION of another stream", [without_end(1, &GET), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(), Ends(PROTOCOL)),
        ("6.10", "CONTINUATION on stream 0", [without_end(1, &GET), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(), Ends(PROTOCOL)),
        ("8.1", "trailers", after_post(headers(1, END_STREAM, &[("x-a", "b")])), Fine),
        ("8.1", "trailers that do not end the stream", after_post(headers(1, 0, &[("x-a", "b")])), Stream(PROTOCOL)),
        ("8.1", "a pseudo-header field in trailers", after_post(headers(1, END_STREAM, &[(":path", "/")])), Stream(PROTOCOL)),
        ("9110 6.5.1", "a length in trailers", after_post(headers(1, END_STREAM, &[("content-length", "0")])), Stream(PROTOCOL)),
    ];
    for (section, what, bytes, expected) in cases {
        let mut wire = Wire::server(&Options::default());
        wire.feed(&bytes);
        assert_eq!(fate(&mut wire), expected, "RFC 9113, {section}: {what}");
    }
}

/// Goal: malformed requests are told from well-formed ones (RFC 9113, 8.1 to 8.5). Method: a table of
/// fields, each a request of its own; `Ok` has the head that comes of it.
#[test]
#[rustfmt::skip] // One case, one line.
fn requests_by_section() {
    use MessageError::*;
    type Fields = Vec<(&'static str, &'static str)>;
    let get_and = |more: &[(&'static str, &'static str)]| -> Fields { [&GET[..], more].concat() };
    let with = |method, scheme, path, authority| -> Fields {
        vec![(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    };
    let head = "GET / HTTP/1.1\r\nhost: a\r\n";
    let ok = |more: &str| Ok(format!("{head}{more}\r\n"));
    let cases: Vec<(&str, Fields, Result<String, MessageError>)> = vec![
        ("8.3.1", get_and(&[]), ok("")),
        ("8.3.1", with("GET", "https", "/a?b=c", "b:8080"), Ok("GET /a?b=c HTTP/1.1\r\nhost: b:8080\r\n\r\n".into())),
        ("8.3.1", with("OPTIONS", "https", "*", "b"), Ok("OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n".into())),
        ("8.3.1", with("PURGE", "HTTP", "/", "[::1]"), Ok("PURGE / HTTP/1.1\r\nhost: [::1]\r\n\r\n".into())),
        ("8.2", get_and(&[("accept", "*/*"), ("x-a", "")]), ok("accept: */*\r\nx-a: \r\n")),
        ("8.2.1", get_and(&[("x-A", "b")]), Err(NameInvalid)),
        ("8.2.1", get_and(&[("x a", "b")]), Err(NameInvalid)),
        ("8.2.1", get_and(&[("", "b")]), Err(NameInvalid)),
        ("8.2.1", get_and(&[("x\r\ny", "b")]), Err(NameInvalid)),
        ("8.2.1", get_and(&[("x:y", "b")]), Err(NameInvalid)),
        ("8.2.1", get_and(&[("caf\u{e9}", "b")]), Err(NameInvalid)),
        ("8.2.1", get_and(&[("x-a", "b\r\nc: d")]), Err(ValueInvalid)),
        ("8.2.1", get_and(&[("x-a", "b\nc")]), Err(ValueInvalid)),
        ("8.2.1", get_and(&[("x-a", "b\0")]), Err(ValueInvalid)),
        ("8.2.1", get_and(&[("x-a", " b")]), Err(ValueInvalid)),
        ("8.2.1", get_and(&[("x-a", "b\t")]), Err(ValueInvalid)),
        ("8.2.1", get_and(&[("x-a", "b \t\u{e9}c")]), ok("x-a: b \t\u{e9}c\r\n")),
        ("8.2.1", with("GET\r\n", "http", "/", "a"), Err(ValueInvalid)),
        ("8.2.2", get_and(&[("connection", "close")]), Err(ConnectionField)),
        ("8.2.2", get_and(&[("keep-alive", "5")]), Err(ConnectionField)),
        ("8.2.2", get_and(&[("proxy-connection", "x")]), Err(ConnectionField)),
        ("8.2.2", get_and(&[("transfer-encoding", "chunked")]), Err(ConnectionField)),
        ("8.2.2", get_and(&[("upgrade", "h2c")]), Err(ConnectionField)),
        ("8.2.2", get_and(&[("http2-settings", "")]), Err(ConnectionField)),
        ("8.2.2", get_and(&[("te", "trailers")]), ok("te: trailers\r\n")),
        ("8.2.2", get_and(&[("te", "trailers, gzip")]), Err(TeInvalid)),
        ("8.2.3", get_and(&[("cookie", "a=b"), ("x-a", "c"), ("cookie", "d=e")]), ok("x-a: c\r\ncookie: a=b; d=e\r\n")),
        ("8.3", get_and(&[(":method", "GET")]), Err(PseudoRepeated)),
        ("8.3", get_and(&[("x-a", "b"), (":path", "/")]), Err(PseudoMisplaced)),
        ("8.3", get_and(&[(":status", "200")]), Err(PseudoUnknown)),
        ("8.3", get_and(&[(":what", "x")]), Err(PseudoUnknown)),
        ("8.3.1", GET[1..].to_vec(), Err(PseudoMissing)),
        ("8.3.1", vec![GET[0], GET[2], GET[3]], Err(PseudoMissing)),
        ("8.3.1", vec![GET[0], GET[1], GET[3]], Err(PseudoMissing)),
        ("8.3.1", vec![], Err(PseudoMissing)),
        ("8.3.1", GET[..3].to_vec(), Err(Head(HeadError::HostMissing))),
        ("8.3.1", vec![GET[0], GET[1], GET[2], ("host", "b")], Ok("GET / HTTP/1.1\r\nhost: b\r\n\r\n".into())),
        ("8.3.1", get_and(&[("host", "A")]), ok("")),
        ("8.3.1", get_and(&[("host", "b")]), Err(AuthorityDiffers)),
        ("8.3.1", vec![GET[0], GET[1], GET[2], ("host", "b"), ("host", "b")], Err(Head(HeadError::HostRepeated))),
        ("8.3.1", with("GET", "http", "", "a"), Err(Head(HeadError::TargetInvalid))),
        ("8.3.1", with("GET", "http", "*", "a"), Err(Head(HeadError::AsteriskForm))),
        ("8.3.1", with("GET", "http", "http://b/", "a"), Err(Head(HeadError::TargetInvalid))),
        ("8.3.1", with("GET", "http", "/a b", "a"), Err(Head(HeadError::TargetInvalid))),
        ("8.3.1", with("GET", "http", "/a#b", "a"), Err(Head(HeadError::TargetInvalid))),
        ("8.3.1", with("GET", "ftp", "/", "a"), Err(Head(HeadError::SchemeUnsupported))),
        ("8.3.1", with("GET", "http", "/", ""), Err(Head(HeadError::HostInvalid))),
        ("8.3.1", with("GET", "http", "/", "u@a"), Err(Head(HeadError::UserInformation))),
        ("8.3.1", with("G T", "http", "/", "a"), Err(Head(HeadError::MethodInvalid))),
        ("8.1.1", get_and(&[("content-length", "1")]), Err(LengthDiffers)),
        ("8.1.1", get_and(&[("content-length", "0")]), ok("content-length: 0\r\n")),
        ("8.1.1", get_and(&[("content-length", "x")]), Err(Head(HeadError::ContentLengthInvalid))),
        ("8.1.1", get_and(&[("content-length", "0"), ("content-length", "0")]), Err(Head(HeadError::ContentLengthRepeated))),
        ("8.5", vec![(":method", "CONNECT"), (":authority", "a:80")], Ok("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".into())),
        ("8.5", vec![(":method", "CONNECT"), (":authority", "a")], Err(Head(HeadError::AuthorityForm))),
        ("8.5", vec![(":method", "CONNECT")], Err(PseudoMissing)),
        ("8.5", with("CONNECT", "http", "/", "a:80"), Err(PseudoUnknown)),
        ("8441 4", get_and(&[(":protocol", "websocket")]), Err(ProtocolUnexpected)),
    ];
    for (section, fields, expected) in cases {
        let mut wire = Wire::server(&Options::default());
        wire.feed(&headers(1, END_STREAM, &fields));
        let expected = match expected {
            Ok(text) => Seen::Request(1, text, true),
            Err(error) => Seen::Broken(1, error),
        };
        assert_eq!(wire.seen, [expected], "RFC 9113, {section}: {fields:?}");
        let is_reset = matches!(wire.seen[0], Seen::Broken(..));
        assert_eq!(fate(&mut wire), if is_reset { Stream(PROTOCOL) } else { Fine });
    }
}

/// Goal: a request to be refused by its status is kept for the answer. Method: an unknown expectation; the
/// answer goes out, and the connection lives on.
#[test]
fn refused_requests_are_answered() {
    let mut wire = Wire::server(&Options::default());
    let fields = [&POST[..], &[("expect", "x")]].concat();
    wire.feed(&headers(1, 0, &fields));
    let error = MessageError::Head(HeadError::ExpectationUnknown);
    assert_eq!(wire.seen, [Seen::Refused(1, error)]);
    assert_eq!(error.status(), Some(417));
    let stream = wire.last_stream();
    wire.connection
        .send_response(stream, 417, [], true)
        .unwrap();
    wire.connection.reset(stream, ErrorCode::NO_ERROR);
    let sent = wire.take_frames();
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].kind, sent[0].flags), (HEADERS, WHOLE));
    assert_eq!(sent[1].kind, RST_STREAM);
    // What is on its way is late, not wrong (5.1).
    wire.feed(&frame(DATA, END_STREAM, 1, b"late"));
    wire.feed(&headers(3, END_STREAM, &GET));
    assert_eq!(fate(&mut wire), Fine);
}

/// Goal: DATA agrees with Content-Length (RFC 9113, 8.1.1). Method: less, as much, more; ended by DATA or
/// by trailers.
#[test]
fn content_length_is_kept() {
    let post = headers(1, 0, &[&POST[..], &[("content-length", "4")]].concat());
    let data = |flags, payload: &[u8]| frame(DATA, flags, 1, payload);
    let trailers = headers(1, END_STREAM, &[("x-a", "b")]);
    for (rest, expected) in [
        (data(END_STREAM, b"four"), Fine),
        ([data(0, b"fo"), data(END_STREAM, b"ur")].concat(), Fine),
        ([data(0, b"four"), data(END_STREAM, b"")].concat(), Fine),
        ([data(0, b"four"), trailers.clone()].concat(), Fine),
        (data(END_STREAM, b"few"), Stream(PROTOCOL)),
        (data(0, b"heaps"), Stream(PROTOCOL)),
        (
            [data(0, b"four"), data(END_STREAM, b"5")].concat(),
            Stream(PROTOCOL),
        ),
        ([data(0, b"few"), trailers].concat(), Stream(PROTOCOL)),
    ] {
        let mut wire = Wire::server(&Options::default());
        wire.feed(&post);
        wire.feed(&rest);
        assert_eq!(fate(&mut wire), expected, "{rest:?}");
    }
}

/// Goal: the beginning is what RFC 9113, 3.4, asks for. Method: wrong bytes in the preface, a wrong first
/// frame, and what both sides send.
#[test]
fn preface() {
    for (at, wrong) in [(0, b'G'), (23, b'\r')] {
        let mut preface = *PREFACE;
        preface[at] = wrong;
        let mut wire = Wire::new(Connection::server(&Options::default(), 0));
        wire.feed(&preface);
        assert_eq!(wire.error, Some(ConnectionError::Preface));
    }
    for first in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, &[]),
        headers(1, END_STREAM, &GET),
        frame(DATA, 0, 1, b"x"),
    ] {
        let mut wire = Wire::new(Connection::server(&Options::default(), 0));
        wire.feed(PREFACE);
        wire.feed(&first);
        assert_eq!(wire.error, Some(ConnectionError::Preface), "{first:?}");
    }
    let mut server = Wire::new(Connection::server(&Options::default(), 0));
    let sent = server.take_frames();
    assert_eq!(sent[0].kind, SETTINGS);
    assert_eq!(sent[0].flags, 0);
    assert_eq!(sent[1], frames(&window_update(0, 99 * 65_535))[0]);
    let mut client = Wire::new(Connection::client(&Options::default(), 0));
    client.take_output();
    assert!(client.sent.starts_with(PREFACE));
    // ENABLE_PUSH is 0.
    assert!(
        frames(&client.sent)[0]
            .payload
            .starts_with(&[0, 2, 0, 0, 0, 0])
    );
}

/// Goal: PING and SETTINGS are answered at once (RFC 9113, 6.5.3 and 6.7). Method: both, and the answers.
#[test]
fn answers_what_demands_it() {
    let mut wire = Wire::server(&Options::default());
    wire.feed(&frame(PING, 0, 0, b"opaque!!"));
    wire.feed(&settings(&[(3, 7)]));
    let sent = wire.take_frames();
    assert_eq!(sent[0], frames(&frame(PING, ACK, 0, b"opaque!!"))[0]);
    assert_eq!(sent[1], frames(&frame(SETTINGS, ACK, 0, &[]))[0]);
    assert_eq!(wire.connection.peer().concurrent_streams_max, Some(7));
}

/// Goal: a stream goes through the states of RFC 9113, 5.1, and no others. Method: both ways through
/// half-closed to closed, with what may be sent at each.
#[test]
fn stream_states() {
    let mut wire = Wire::server(&Options::default());
    wire.feed(&headers(1, 0, &POST));
    let stream = wire.last_stream();
    let connection = &mut wire.connection;
    assert_eq!(connection.stream_state(stream), Some(StreamState::Open));
    let data = connection.send_data(stream, 1, false, 0);
    assert_eq!(data, Err(SendError::OutOfOrder));
    connection.send_response(stream, 103, [], false).unwrap();
    let ends = connection.send_response(stream, 100, [], true);
    assert_eq!(ends, Err(SendError::OutOfOrder));
    connection.send_response(stream, 200, [], false).unwrap();
    let again = connection.send_response(stream, 200, [], false);
    assert_eq!(again, Err(SendError::OutOfOrder));
    connection.send_trailers(stream, []).unwrap();
    assert_eq!(
        connection.stream_state(stream),
        Some(StreamState::HalfClosedLocal)
    );
    assert_eq!(
        connection.send_trailers(stream, []),
        Err(SendError::OutOfOrder)
    );
    wire.feed(&frame(DATA, END_STREAM, 1, b"x"));
    assert_eq!(wire.connection.stream_state(stream), None);

    wire.feed(&headers(3, END_STREAM, &GET));
    let stream = wire.last_stream();
    let connection = &mut wire.connection;
    assert_eq!(
        connection.stream_state(stream),
        Some(StreamState::HalfClosedRemote)
    );
    connection.send_response(stream, 204, [], true).unwrap();
    assert_eq!(connection.stream_state(stream), None);
    assert_eq!(
        connection.send_trailers(stream, []),
        Err(SendError::StreamGone)
    );
    assert_eq!(connection.streams_open(), 0);
    // Closed by its end: nothing more may come on it.
    wire.feed(&frame(DATA, 0, 3, b"x"));
    assert_eq!(wire.error, Some(ConnectionError::StreamClosed));
}

fn request<'a>(method: &'a [u8], path: &'a [u8]) -> RequestLine<'a> {
    RequestLine {
        method,
        scheme: b"http",
        authority: b"a:80",
        path,
        protocol: None,
    }
}

/// Goal: answers are read as RFC 9113, 8.1 and 8.3.2, has them. Method: a table of what follows a request
/// by its method.
#[test]
#[rustfmt::skip] // One case, one line.
fn responses_by_section() {
    use MessageError::*;
    let head = |flags, fields: &[(&str, &str)]| headers(1, flags, fields);
    let ok = [(":status", "200")];
    let data = |flags, payload: &[u8]| frame(DATA, flags, 1, payload);
    let response = |text: &str, end| Seen::Response(1, format!("HTTP/1.1 {text}\r\n"), end);
    type Case<'a> = (&'a str, &'a [u8], Vec<u8>, Vec<Seen>);
    let cases: Vec<Case<'_>> = vec![
        ("8.3.2", b"GET", head(END_STREAM, &ok), vec![response("200 \r\n", true)]),
        ("8.3.2", b"GET", head(END_STREAM, &[("x-a", "b")]), vec![Seen::Broken(1, PseudoMissing)]),
        ("8.3.2", b"GET", head(END_STREAM, &[(":status", "20")]), vec![Seen::Broken(1, StatusInvalid)]),
        ("8.3.2", b"GET", head(END_STREAM, &[(":status", "099")]), vec![Seen::Broken(1, StatusInvalid)]),
        ("8.3", b"GET", head(END_STREAM, &GET), vec![Seen::Broken(1, PseudoUnknown)]),
        ("8.6", b"GET", head(0, &[(":status", "101")]), vec![Seen::Broken(1, StatusInvalid)]),
        ("8.1", b"GET", [head(0, &[(":status", "103")]), head(END_STREAM, &ok)].concat(), vec![response("103 \r\n", false), response("200 \r\n", true)]),
        ("8.1", b"GET", head(END_STREAM, &[(":status", "103")]), vec![Seen::Broken(1, InterimEnds)]),
        ("8.1", b"GET", data(END_STREAM, b"x"), vec![Seen::Broken(1, DataBeforeHead)]),
        ("8.1", b"GET", [head(0, &ok), data(0, b"x"), head(END_STREAM, &[("grpc-status", "0")])].concat(), vec![response("200 \r\n", false), Seen::Data(1, b"x".to_vec(), false), Seen::Trailers(1, "grpc-status: 0\r\n\r\n".into())]),
        ("8.1.1", b"HEAD", head(END_STREAM, &[ok[0], ("content-length", "9")]), vec![response("200 \r\ncontent-length: 9\r\n", true)]),
        ("8.1.1", b"HEAD", [head(0, &ok), data(END_STREAM, b"x")].concat(), vec![response("200 \r\n", false), Seen::Broken(1, LengthDiffers)]),
        ("8.1.1", b"GET", head(END_STREAM, &[(":status", "304"), ("content-length", "9")]), vec![response("304 \r\ncontent-length: 9\r\n", true)]),
        ("8.1.1", b"GET", head(END_STREAM, &[ok[0], ("content-length", "9")]), vec![Seen::Broken(1, LengthDiffers)]),
        ("8.1.1", b"GET", [head(0, &[(":status", "204")]), data(0, b"x")].concat(), vec![response("204 \r\n", false), Seen::Broken(1, LengthDiffers)]),
        ("8.5", b"CONNECT", [head(0, &ok), data(0, b"x")].concat(), vec![response("200 \r\n", false), Seen::Data(1, b"x".to_vec(), false)]),
        ("8.1", b"GET", [head(0, &ok), reset(1, ErrorCode::NO_ERROR)].concat(), vec![response("200 \r\n", false), Seen::Reset(1, ErrorCode::NO_ERROR)]),
    ];
    for (section, method, bytes, expected) in cases {
        let mut wire = Wire::client(&Options::default());
        wire.connection.send_request(request(method, b"/"), [], false).unwrap();
        wire.take_frames();
        wire.feed(&bytes);
        assert_eq!(wire.seen, expected, "RFC 9113, {section}");
        assert_eq!(wire.error, None);
    }
}

/// Goal: what a server must not do ends the connection (RFC 9113, 5.1, 6.5.2, 8.4). Method: a table.
#[test]
fn servers_are_held_to_it() {
    let ok = &[(":status", "200")];
    for (what, bytes, error) in [
        (
            "an answer to nothing",
            headers(3, END_STREAM, ok),
            ConnectionError::StreamIdle,
        ),
        (
            "a stream of its own",
            headers(2, END_STREAM, ok),
            ConnectionError::StreamIdInvalid,
        ),
        (
            "a push",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            ConnectionError::Push,
        ),
        (
            "ENABLE_PUSH",
            settings(&[(2, 1)]),
            ConnectionError::SettingInvalid,
        ),
        (
            "a second answer",
            [headers(1, END_STREAM, ok), headers(1, END_STREAM, ok)].concat(),
            ConnectionError::StreamClosed,
        ),
    ] {
        let mut wire = Wire::client(&Options::default());
        let line = request(b"GET", b"/");
        wire.connection.send_request(line, [], true).unwrap();
        wire.take_frames();
        wire.feed(&bytes);
        assert_eq!(wire.error, Some(error), "{what}");
        assert_eq!(fate(&mut wire), Ends(error.code()), "{what}");
    }
}

/// Goal: what we forward is what the HTTP/1 forwarder is ready to take. Method: a request with all that is
/// special becomes an HTTP/1 head, which is forwarded and parsed again.
#[test]
fn heads_are_heads_of_http1() {
    use tidegate_codecs::http1::{
        Framing, Progress, RequestEdits, RequestHead, RequestKind, ResponseEdits, ResponseHead,
        forward_request, forward_response,
    };
    let mut wire = Wire::server(&Options::default());
    let fields = [
        ("cookie", "a=b"),
        (":method", "POST"),
        (":path", "/p?q"),
        (":authority", "h:1"),
        (":scheme", "https"),
        ("te", "trailers"),
        ("content-length", "3"),
        ("cookie", "c=d"),
    ];
    wire.feed(&headers(1, 0, &[&fields[1..], &fields[..1]].concat()));
    let (mut head, mut text) = (RequestHead::default(), Vec::new());
    wire.connection
        .head()
        .take_request(true, &mut head, &mut text);
    assert_eq!(head.path.of(&text), b"/p");
    assert_eq!(head.query.unwrap().of(&text), b"q");
    assert_eq!(head.host.of(&text), b"h");
    assert_eq!(head.authority.of(&text), b"h:1");
    assert_eq!(head.framing, Framing::Length(3));
    let mut out = Vec::new();
    forward_request(&text, &head, &RequestEdits::default(), &mut out);
    let expected = "POST /p?q HTTP/1.1\r\nhost: h:1\r\nContent-Length: 3\r\ncookie: c=d; a=b\r\n\
                    Connection: TE\r\nTE: trailers\r\n\r\n";
    assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
    let mut again = RequestHead::default();
    let parsed = again.parse(&out, &Default::default());
    assert_eq!(parsed, Ok(Progress::Complete));

    let mut wire = Wire::client(&Options::default());
    let line = request(b"GET", b"/");
    wire.connection.send_request(line, [], true).unwrap();
    wire.take_frames();
    wire.feed(&headers(1, 0, &[(":status", "200"), ("server", "x")]));
    let (mut head, mut text) = (ResponseHead::default(), Vec::new());
    let block = wire.connection.head();
    block.take_response(true, RequestKind::Other, &mut head, &mut text);
    assert_eq!((head.status, head.framing), (200, Framing::Chunked));
    let mut out = Vec::new();
    forward_response(&text, &head, &ResponseEdits::default(), &mut out);
    // Its body ends with its stream, so that in HTTP/1.1 it goes in chunks.
    let expected = "HTTP/1.1 200 \r\nserver: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

/// Goal: an answer that ends with its head has an end in HTTP/1 too (RFC 9112, 6.3). Method: heads with the end
/// of the stream, forwarded to a client of HTTP/1; to HEAD, and where there is none by its status, nothing is
/// said of a length.
#[test]
fn answers_without_body_have_a_length_in_http1() {
    use tidegate_codecs::http1::{
        Framing, RequestKind, ResponseEdits, ResponseHead, forward_response,
    };
    let length = ("content-length", "9");
    type Case<'a> = (&'a [u8], RequestKind, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 7] = [
        (
            b"GET",
            RequestKind::Other,
            &[(":status", "200")],
            "Content-Length: 0\r\n",
        ),
        (
            b"POST",
            RequestKind::Other,
            &[(":status", "404")],
            "Content-Length: 0\r\n",
        ),
        (b"HEAD", RequestKind::Head, &[(":status", "200")], ""),
        (
            b"HEAD",
            RequestKind::Head,
            &[(":status", "200"), length],
            "Content-Length: 9\r\n",
        ),
        (b"GET", RequestKind::Other, &[(":status", "204")], ""),
        (b"GET", RequestKind::Other, &[(":status", "304")], ""),
        (b"CONNECT", RequestKind::Connect, &[(":status", "200")], ""),
    ];
    for (method, kind, fields, expected) in cases {
        let mut wire = Wire::client(&Options::default());
        let line = request(method, b"/");
        wire.connection.send_request(line, [], false).unwrap();
        wire.feed(&headers(1, END_STREAM, fields));
        let (mut head, mut text) = (ResponseHead::default(), Vec::new());
        let block = wire.connection.head();
        block.take_response(false, kind, &mut head, &mut text);
        assert_eq!((head.framing, head.len), (Framing::None, text.len()));
        let mut out = Vec::new();
        forward_response(&text, &head, &ResponseEdits::default(), &mut out);
        let status = fields[0].1;
        let expected = format!("HTTP/1.1 {status} \r\n{expected}\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

/// Goal: a block larger than a frame is cut, and read again (RFC 9113, 4.3 and 6.10). Method: fields of
/// 40 KB from a client to a server.
#[test]
fn large_blocks_are_cut() {
    let mut client = Wire::client(&Options::default());
    let large = [b'~'; 20_000];
    let fields = [
        FieldLine::new(b"x-a", &large),
        FieldLine::new(b"x-b", &large),
    ];
    let line = request(b"GET", b"/");
    client.connection.send_request(line, fields, true).unwrap();
    client.take_output();
    let sent = frames(&client.sent);
    let shape: Vec<_> = sent.iter().map(|f| (f.kind, f.flags)).collect();
    assert_eq!(
        shape,
        [
            (HEADERS, END_STREAM),
            (CONTINUATION, 0),
            (CONTINUATION, END_HEADERS)
        ]
    );
    let mut server = Wire::server(&Options::default());
    server.feed(&client.sent);
    let Seen::Request(1, text, true) = &server.seen[0] else {
        panic!("{:?}", server.seen);
    };
    assert!(text.len() > 40_000);
    assert_eq!(StreamId::MAX.number(), 0x7fff_ffff);
}
