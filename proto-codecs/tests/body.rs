//! A body ends where RFC 9112 says, whatever comes behind it and however it is cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use proptest::prelude::*;
use tidegate_codecs::{
    http1::{
        BodyError::{self, *},
        BodyTracker, Framing, trailer_fields,
    },
    limits::Http1Limits,
};

/// RFC section, chunked body, payload or error.
#[rustfmt::skip] // One case, one line.
const CHUNKED: &[(&str, &str, Result<&str, BodyError>)] = &[
    ("9112 7.1", "0\r\n\r\n", Ok("")),
    ("9112 7.1", "000\r\n\r\n", Ok("")),
    ("9112 7.1", "5\r\nhello\r\n0\r\n\r\n", Ok("hello")),
    ("9112 7.1", "00005\r\nhello\r\n0\r\n\r\n", Ok("hello")),
    ("9112 7.1", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", Ok("01234567890123456789")),
    ("9112 7.1", "2\r\n\r\n\r\n0\r\n\r\n", Ok("\r\n")),
    ("9112 7.1", "\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", " 5\r\nhello\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "+5\r\nhello\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "-1\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "0x5\r\nhello\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "5_0\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "g\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "5,5\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "5\0\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "10000000000000000\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "10000000000000005\r\nhello\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "5\nhello\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\rhello\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\r\rhello\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\r\nhello\n0\r\n\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\r\nhello0\r\n\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\r\nhelloo\r\n0\r\n\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\r\nhello\r0\r\n\r\n", Err(LineEndInvalid)),
    ("9112 7.1", "5\r\nhello\r\n\r\n", Err(ChunkSizeInvalid)),
    ("9112 7.1", "0\r\n\n", Err(LineEndInvalid)),
    ("9112 7.1", "0\r\n\rX", Err(LineEndInvalid)),
    ("9112 7.1", "0\n\n", Err(LineEndInvalid)),
    ("9112 7.1.1", "1;a\r\nx\r\n0\r\n\r\n", Ok("x")),
    ("9112 7.1.1", "1;a=b;c=\"d;\\\"e\"\r\nx\r\n0;f\r\n\r\n", Ok("x")),
    ("9112 7.1.1", "1 ; a = b ; c\r\nx\r\n0\r\n\r\n", Ok("x")),
    ("9112 7.1.1", "1;a=\"\"\r\nx\r\n0\r\n\r\n", Ok("x")),
    ("9112 7.1.1", "1 \r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;\r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a=\r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a \r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a b\r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a=\"b\r\n\"\r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a=\"b\"c\r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a\0\r\nx\r\n0\r\n\r\n", Err(ChunkExtensionInvalid)),
    ("9112 7.1.1", "1;a\nx\r\n0\r\n\r\n", Err(LineEndInvalid)),
    ("9112 7.1.1", "1;a=\"\nx\r\n0\r\n\r\n", Err(LineEndInvalid)),
    ("9112 7.1.2", "0\r\nA: b\r\nC:d\r\n\r\n", Ok("")),
    ("9112 7.1.2", "0\r\nA:\r\n\r\n", Ok("")),
    ("9112 7.1.2", "0\r\nA : b\r\n\r\n", Err(TrailerInvalid)),
    ("9112 7.1.2", "0\r\nA\r\n\r\n", Err(TrailerInvalid)),
    ("9112 7.1.2", "0\r\n: b\r\n\r\n", Err(TrailerInvalid)),
    ("9112 5.2", "0\r\nA: b\r\n c\r\n\r\n", Err(TrailerInvalid)),
    ("9110 5.5", "0\r\nA: b\0\r\n\r\n", Err(TrailerInvalid)),
    ("9112 2.2", "0\r\nA: b\nC: d\r\n\r\n", Err(LineEndInvalid)),
    ("9112 2.2", "0\r\nA: b\rC: d\r\n\r\n", Err(LineEndInvalid)),
    ("9110 6.5.1", "0\r\nContent-Length: 5\r\n\r\n", Err(TrailerForbidden)),
    ("9110 6.5.1", "0\r\nA: b\r\ntransfer-ENCODING: chunked\r\n\r\n", Err(TrailerForbidden)),
    ("9110 6.5.1", "0\r\nHost: b\r\n\r\n", Err(TrailerForbidden)),
    ("9110 6.5.1", "0\r\nProxy-Authorization: b\r\n\r\n", Err(TrailerForbidden)),
    ("9110 6.5.1", "0\r\nProxy-Authorization-X: b\r\n\r\n", Ok("")),
    ("9110 6.5.1", "0\r\nX-Hosts: b\r\nHosts: c\r\n\r\n", Ok("")),
];

/// Follows `input` to the body's end by pieces of `step` bytes: bytes that belong to it, and its payload.
fn follow(
    framing: Framing,
    limits: &Http1Limits,
    input: &[u8],
    step: usize,
) -> Result<(usize, Vec<u8>), BodyError> {
    let mut tracker = BodyTracker::new(framing, limits);
    let mut payload = Vec::new();
    let mut consumed = 0;
    for part in input.chunks(step.max(1)) {
        let mut rest = part;
        while !rest.is_empty() && !tracker.is_done() {
            let piece = tracker.next_payload(rest)?;
            payload.extend_from_slice(&rest[piece.payload.clone()]);
            consumed += piece.consumed;
            rest = &rest[piece.consumed..];
        }
    }
    assert_eq!(tracker.payload_bytes(), payload.len() as u64);
    tracker.end_of_stream().map(|()| (consumed, payload))
}

/// The same with [`BodyTracker::advance`], which sees framing and payload as one.
fn advance(framing: Framing, input: &[u8], step: usize) -> Result<usize, BodyError> {
    let mut tracker = BodyTracker::new(framing, &Http1Limits::default());
    let mut consumed = 0;
    for part in input.chunks(step.max(1)) {
        let taken = tracker.advance(part)?;
        consumed += taken;
        if tracker.is_done() {
            break;
        }
        assert_eq!(taken, part.len());
    }
    tracker.end_of_stream().map(|()| consumed)
}

/// Goal: the chunk grammar is kept to the letter, whole and byte by byte (split test), and the end is
/// found with another message behind it. Method: a table with the section beside each case.
#[test]
fn chunked() {
    let limits = Http1Limits::default();
    for (section, body, expected) in CHUNKED {
        let mut input = body.as_bytes().to_vec();
        if expected.is_ok() {
            input.extend_from_slice(b"0\r\n\r\nGET / HTTP/1.1\r\n");
        }
        for step in [1, 2, 3, input.len()] {
            let outcome = follow(Framing::Chunked, &limits, &input, step);
            let expected = expected.map(|payload| (body.len(), payload.as_bytes().to_vec()));
            assert_eq!(outcome, expected, "RFC {section}: {body:?} by {step}");
            let consumed = advance(Framing::Chunked, &input, step);
            let expected = expected.map(|(len, _)| len);
            assert_eq!(consumed, expected, "RFC {section}: {body:?} by {step}");
        }
    }
}

/// Goal: a body that stops short is never taken for whole. Method: all proper prefixes of the good bodies.
#[test]
fn truncated() {
    let good = CHUNKED.iter().filter(|(_, _, outcome)| outcome.is_ok());
    for (_, body, _) in good {
        for len in 0..body.len() {
            let outcome = advance(Framing::Chunked, &body.as_bytes()[..len], 64);
            assert_eq!(outcome, Err(Truncated), "{body:?} cut at {len}");
        }
    }
    assert_eq!(advance(Framing::Length(3), b"ab", 1), Err(Truncated));
    assert_eq!(advance(Framing::Length(u64::MAX), b"ab", 1), Err(Truncated));
    assert_eq!(advance(Framing::UntilClose, b"ab", 1), Ok(2));
    assert_eq!(advance(Framing::None, b"ab", 1), Ok(0));
    assert_eq!(advance(Framing::Length(0), b"ab", 1), Ok(0));
}

/// Goal: an error stays. Method: good bytes after bad ones.
#[test]
fn errors_are_final() {
    let mut tracker = BodyTracker::new(Framing::Chunked, &Http1Limits::default());
    assert_eq!(tracker.advance(b"x"), Err(ChunkSizeInvalid));
    assert_eq!(tracker.advance(b"0\r\n\r\n"), Err(ChunkSizeInvalid));
    assert_eq!(tracker.end_of_stream(), Err(ChunkSizeInvalid));
    assert!(!tracker.is_done());
}

/// Goal: the limits of a size line and of the trailers hold, for each line anew and for all trailers
/// together. Method: a body at the limit, and one above.
#[test]
fn limits() {
    let limits = Http1Limits {
        chunk_line_bytes_max: 8,
        trailer_bytes_max: 20,
        ..Http1Limits::default()
    };
    for (at, above, error) in [
        (
            "1;abcdef\r\nx\r\n00000001\r\nx\r\n0\r\n\r\n",
            "1;abcdefg\r\nx\r\n0\r\n\r\n",
            ChunkLineTooLong,
        ),
        ("00000000\r\n\r\n", "000000000\r\n\r\n", ChunkLineTooLong),
        (
            "0\r\nA: b\r\nC: 3456789\r\n\r\n",
            "0\r\nA: b\r\nC: 34567890\r\n\r\n",
            TrailersTooLarge,
        ),
    ] {
        for step in [1, 64] {
            let outcome = follow(Framing::Chunked, &limits, at.as_bytes(), step);
            assert_eq!(outcome.map(|(len, _)| len), Ok(at.len()), "{at:?}");
            let outcome = follow(Framing::Chunked, &limits, above.as_bytes(), step);
            assert_eq!(outcome, Err(error), "{above:?}");
        }
    }
}

/// Goal: the largest chunk does not overflow anything. Method: its size line and a little payload.
#[test]
fn largest_chunk() {
    let mut tracker = BodyTracker::new(Framing::Chunked, &Http1Limits::default());
    assert_eq!(tracker.advance(b"ffffffffffffffff\r\nabc"), Ok(21));
    assert_eq!(tracker.payload_bytes(), 3);
    assert!(!tracker.is_done());
}

/// A chunked body as a careful peer might write it: chunks of random size and spelling, extensions,
/// trailers.
fn chunked_body() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        0..3usize,
        prop::sample::select(vec!["", ";a", ";a=b", " ;a = \"\\\"\"", ";x;y=z"]),
        any::<bool>(),
    );
    let trailers = prop::sample::select(vec!["", "A: b\r\n", "Digest: x\r\nX-Y:\r\n"]);
    (prop::collection::vec(chunk, 0..6), trailers).prop_map(|(chunks, trailers)| {
        let (mut body, mut payload) = (Vec::new(), Vec::new());
        for (data, zeros, extension, upper) in chunks {
            let size = format!("{}{:x}", "0".repeat(zeros), data.len());
            let size = if upper { size.to_uppercase() } else { size };
            body.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n");
            payload.extend_from_slice(&data);
        }
        body.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        (body, payload)
    })
}

proptest! {
    /// Goal: exactly the bytes of the message are taken, and exactly its payload is seen, whatever is
    /// pipelined behind it and however it is cut. Method: random bodies, tails and cuts.
    #[test]
    fn chunked_boundary(
        (body, payload) in chunked_body(),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        step in 1..80usize,
    ) {
        let input = [body.as_slice(), &tail].concat();
        prop_assert_eq!(advance(Framing::Chunked, &input, step), Ok(body.len()));
        prop_assert_eq!(
            follow(Framing::Chunked, &Http1Limits::default(), &input, step),
            Ok((body.len(), payload))
        );
    }

    /// Goal: the trailers are found, and nothing else is taken for them, however they are cut. Method: random
    /// bodies and cuts; the sections put together again, and their fields.
    #[test]
    fn trailer_section((body, _) in chunked_body(), step in 1..80usize) {
        let mut tracker = BodyTracker::new(Framing::Chunked, &Http1Limits::default());
        let mut section = Vec::new();
        for mut piece in body.chunks(step) {
            while !piece.is_empty() {
                let found = tracker.next_payload(piece).unwrap();
                section.extend_from_slice(&piece[found.trailers]);
                piece = &piece[found.consumed..];
            }
        }
        let at = body.windows(3).rposition(|bytes| bytes == b"0\r\n").unwrap() + 3;
        prop_assert_eq!(&section, &body[at..]);
        let fields: Vec<_> = trailer_fields(&section).collect();
        let expected: &[(&[u8], &[u8])] = match section.as_slice() {
            b"\r\n" => &[],
            b"A: b\r\n\r\n" => &[(b"A", b"b")],
            _ => &[(b"Digest", b"x"), (b"X-Y", b"")],
        };
        prop_assert_eq!(fields, expected);
    }

    /// Goal: the same for a length. Method: random lengths, tails and cuts.
    #[test]
    fn length_boundary(
        body in prop::collection::vec(any::<u8>(), 0..200),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        step in 1..80usize,
    ) {
        let input = [body.as_slice(), &tail].concat();
        let framing = Framing::Length(body.len() as u64);
        prop_assert_eq!(advance(framing, &input, step), Ok(body.len()));
        prop_assert_eq!(
            follow(framing, &Http1Limits::default(), &input, step),
            Ok((body.len(), body))
        );
    }
}
