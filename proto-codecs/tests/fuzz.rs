//! One fuzz target a parser: a function of bytes, run here on some thousand random inputs
//! (`PROPTEST_CASES` for more), and ready to be called by a coverage-guided fuzzer.
//!
//! The input picks from a dictionary, since random bytes alone hardly pass the first line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proptest::prelude::*;
use tidegate_codecs::{
    http1::{
        BodyError, BodyTracker, Framing, HeadError, Progress, RequestEdits, RequestHead,
        RequestKind, ResponseEdits, ResponseHead, forward_request, forward_response,
    },
    limits::Http1Limits,
    proxy_protocol::{self, Parsed, ProxyError},
    sniff::{Sniffed, sniff},
};

/// Small limits, so that they are met.
const LIMITS: Http1Limits = Http1Limits {
    head_bytes_max: 300,
    fields_max: 8,
    target_bytes_max: 40,
    chunk_line_bytes_max: 24,
    trailer_bytes_max: 48,
};

#[rustfmt::skip]
const HEAD_WORDS: &[&str] = &[
    "GET ", "POST ", "HEAD ", "OPTIONS ", "CONNECT ", "/", "*", "a:80", "http://", "a.b", "?q=1", "%41",
    " HTTP/1.1\r\n", " HTTP/1.0\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 204 \r\n", "HTTP/1.0 304\r\n",
    "HTTP/1.1 101 x\r\n", "HTTP/1.1 ", "Host: a\r\n", "Host: a:1\r\n", "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: ", "chunked", "gzip, ", "Connection: ",
    "close", "keep-alive", "upgrade", "te", "x-a", "X-A: b\r\n", "TE: trailers\r\n", "Upgrade: ws\r\n",
    "Expect: 100-continue\r\n", "X-Forwarded-For: 1\r\n", ": ", ", ", "\r\n", "\r\n\r\n", "\n", "\r", " ",
    "\t", "\0", "@", "[::1]", "\u{e9}", "A: b\r\n", "Content-Length: 0\r\n", "Connection: X-A\r\n",
    "Connection: keep-alive\r\n", "Keep-Alive: 5\r\n", "Via: 1.1 a\r\n", "Trailer: a\r\n", "X-A:\r\n",
];

const REQUEST_BEGINNINGS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "PUT /%2f HTTP/1.1\r\nHost: [::1]:80\r\n",
    "POST /b HTTP/1.0\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
    "OPTIONS http://a.b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ",
    "\r\nGET /?q HTTP/1.1\r\nHost: a\r\nConnection: ",
    "CONNECT ",
    "GET http://",
];

const RESPONSE_BEGINNINGS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
    "HTTP/1.1 204 x\r\n",
    "HTTP/1.0 200 \r\nConnection: ",
    "HTTP/1.1 304\r\nTransfer-Encoding: ",
];

const BODY_BEGINNINGS: &[&str] = &["5;a=b\r\nhello\r\n", "0\r\nA: b\r\n", "1;"];

const PROXY_BEGINNINGS: &[&str] = &[
    "PROXY TCP4 1.2.3.4 5.6.7.8 ",
    "PROXY TCP6 ::1 ",
    "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
    "\r\n\r\n\0\r\nQUIT\n",
];

#[rustfmt::skip]
const BODY_WORDS: &[&str] = &[
    "0", "1", "5", "a", "F", "ffffffffffffffff", "\r\n", "\r\n\r\n", "\r", "\n", ";", "=", "\"", "\\", " ",
    "x", "0\r\n", "0\r\n\r\n", "5\r\nhello\r\n", "1\r\nx\r\n", ";a=b", ";a=\"b\"", "A: b\r\n", "Host: a\r\n",
    ":", "\0",
];

#[rustfmt::skip]
const PROXY_WORDS: &[&str] = &[
    "PROXY ", "TCP4 ", "TCP6 ", "UNKNOWN", "1.2.3.4 ", "::1 ", "80", " ", "65535", "0", "\r\n",
    "\r\n\r\n\0\r\nQUIT\n", "\x20", "\x21", "\x11", "\x12", "\0", "\0\0", "\0\x0c", "\0\x24",
    "\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02", "\x03\0\x04", "\x04\0\0", "PRI * HTTP/2.0\r\n",
    "SM\r\n\r\n", "GET /", "\x16\x03", "\x01", "\u{da}",
];

/// The first byte picks a beginning, and whether a line end closes the input; the others stand for words
/// of the dictionary, a few for themselves.
fn assemble(input: &[u8], beginnings: &[&str], words: &[&str]) -> Vec<u8> {
    let Some((first, rest)) = input.split_first() else {
        return Vec::new();
    };
    let beginning = beginnings.get(usize::from(*first) % (beginnings.len() + 1));
    let mut bytes = beginning.copied().unwrap_or_default().as_bytes().to_vec();
    for byte in rest {
        match words.get(usize::from(*byte) % words.len()) {
            Some(word) if *byte < 248 => bytes.extend_from_slice(word.as_bytes()),
            _ => bytes.push(*byte),
        }
    }
    if *first >= 64 {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The outcome of feeding ever longer prefixes, until one is not partial, and how many bytes that took.
fn bytewise<T, E>(
    bytes: &[u8],
    mut parse: impl FnMut(&[u8]) -> Result<Option<T>, E>,
) -> Outcome<T, E> {
    for len in 0..=bytes.len() {
        match parse(&bytes[..len]) {
            Ok(None) => {}
            Ok(Some(value)) => return Outcome::Complete(value),
            Err(error) => return Outcome::Refused(error),
        }
    }
    Outcome::Partial
}

fn whole<T, E>(
    bytes: &[u8],
    mut parse: impl FnMut(&[u8]) -> Result<Option<T>, E>,
) -> Outcome<T, E> {
    match parse(bytes) {
        Ok(None) => Outcome::Partial,
        Ok(Some(value)) => Outcome::Complete(value),
        Err(error) => Outcome::Refused(error),
    }
}

#[derive(Debug, PartialEq)]
enum Outcome<T, E> {
    Partial,
    Complete(T),
    Refused(E),
}

fn request(bytes: &[u8]) -> Result<Option<String>, HeadError> {
    let mut head = RequestHead::default();
    Ok(match head.parse(bytes, &LIMITS)? {
        Progress::Partial => None,
        Progress::Complete => Some(format!("{head:?}")),
    })
}

fn response(bytes: &[u8], kind: RequestKind) -> Result<Option<String>, HeadError> {
    let mut head = ResponseHead::default();
    Ok(match head.parse(bytes, kind, &LIMITS)? {
        Progress::Partial => None,
        Progress::Complete => Some(format!("{head:?}")),
    })
}

/// Goal: no input panics, whole and split agree, and what is forwarded is a request of the same framing.
fn request_head(input: &[u8]) {
    let bytes = assemble(input, REQUEST_BEGINNINGS, HEAD_WORDS);
    assert_eq!(whole(&bytes, request), bytewise(&bytes, request));
    let mut head = RequestHead::default();
    if head.parse(&bytes, &LIMITS) != Ok(Progress::Complete) {
        return;
    }
    let mut out = Vec::new();
    forward_request(&bytes, &head, &RequestEdits::default(), &mut out);
    let mut again = RequestHead::default();
    let outcome = again.parse(&out, &Http1Limits::default());
    assert_eq!(outcome, Ok(Progress::Complete), "{}", out.escape_ascii());
    assert_eq!(again.framing, head.framing);
    assert_eq!(again.len, out.len());
    assert_eq!(again.host.of(&out), head.host.of(&bytes));
}

/// Goal: the same for answers.
fn response_head(input: &[u8]) {
    let bytes = assemble(input, RESPONSE_BEGINNINGS, HEAD_WORDS);
    for kind in [RequestKind::Other, RequestKind::Head, RequestKind::Connect] {
        let parse = |bytes: &[u8]| response(bytes, kind);
        assert_eq!(whole(&bytes, parse), bytewise(&bytes, parse));
        let mut head = ResponseHead::default();
        if head.parse(&bytes, kind, &LIMITS) != Ok(Progress::Complete) {
            continue;
        }
        let mut out = Vec::new();
        forward_response(&bytes, &head, &ResponseEdits::default(), &mut out);
        let mut again = ResponseHead::default();
        let outcome = again.parse(&out, kind, &Http1Limits::default());
        assert_eq!(outcome, Ok(Progress::Complete), "{}", out.escape_ascii());
        assert_eq!((again.framing, again.status), (head.framing, head.status));
    }
}

fn follow(bytes: &[u8], step: usize) -> Result<(usize, Vec<u8>, bool), BodyError> {
    let mut tracker = BodyTracker::new(Framing::Chunked, &LIMITS);
    let (mut consumed, mut payload) = (0, Vec::new());
    for part in bytes.chunks(step.max(1)) {
        let mut rest = part;
        while !rest.is_empty() && !tracker.is_done() {
            let piece = tracker.next_payload(rest)?;
            assert!(piece.consumed > 0);
            payload.extend_from_slice(&rest[piece.payload.clone()]);
            rest = &rest[piece.consumed..];
            consumed += piece.consumed;
        }
    }
    Ok((consumed, payload, tracker.is_done()))
}

/// Goal: no chunked input panics or stalls, and whole and split agree.
fn chunked_body(input: &[u8]) {
    let bytes = assemble(input, BODY_BEGINNINGS, BODY_WORDS);
    let whole = follow(&bytes, bytes.len());
    assert_eq!(whole, follow(&bytes, 1));
    let mut tracker = BodyTracker::new(Framing::Chunked, &LIMITS);
    assert_eq!(
        tracker.advance(&bytes),
        whole.map(|(consumed, ..)| consumed)
    );
}

fn proxy(bytes: &[u8]) -> Result<Option<proxy_protocol::Header>, ProxyError> {
    Ok(match proxy_protocol::parse(bytes)? {
        Parsed::Partial => None,
        Parsed::Complete(header) => Some(header),
    })
}

/// Goal: no PROXY header panics, and whole and split agree.
fn proxy_header(input: &[u8]) {
    let bytes = assemble(input, PROXY_BEGINNINGS, PROXY_WORDS);
    assert_eq!(whole(&bytes, proxy), bytewise(&bytes, proxy));
}

/// Goal: sniffing never changes its mind.
fn sniffing(input: &[u8]) {
    let bytes = assemble(input, PROXY_BEGINNINGS, PROXY_WORDS);
    let decide = |bytes: &[u8]| -> Result<Option<Sniffed>, ()> {
        Ok(Some(sniff(bytes)).filter(|sniffed| *sniffed != Sniffed::NeedMore))
    };
    assert_eq!(whole(&bytes, decide), bytewise(&bytes, decide));
}

/// Goal: every target holds on random inputs. Method: all of them, one kind of input each.
fn run(target: fn(&[u8])) {
    let default = ProptestConfig::default();
    let config = ProptestConfig {
        cases: default.cases * 64,
        failure_persistence: None,
        ..default
    };
    // Short inputs are the ones that get through to the end.
    let input = prop::collection::vec(any::<u8>(), 0..10);
    proptest!(config, |(input in input)| target(&input));
}

#[test]
fn fuzz_request_head() {
    run(request_head);
}

#[test]
fn fuzz_response_head() {
    run(response_head);
}

#[test]
fn fuzz_chunked_body() {
    run(chunked_body);
}

#[test]
fn fuzz_proxy_header() {
    run(proxy_header);
}

#[test]
fn fuzz_sniffing() {
    run(sniffing);
}
