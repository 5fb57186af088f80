//! What has come on a stream and was not read yet: a body, as HTTP/1 frames it.
//!
//! In that shape it can go to an endpoint as it is, and it is followed, limited and dropped by the same code
//! as a body that came by HTTP/1.

use std::rc::Rc;

use crate::ring::{Chunk, Driver};

/// How the body is delimited where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By a length that was announced; the codec sees to it that it is kept. Trailers have no place.
    Length,
    /// By chunks, with trailers.
    Chunked,
    /// Not at all: bytes of another protocol, to the end of the stream. Trailers have no place.
    Tunnel,
}

/// Room for the size line of a chunk: eight digits and a line end.
const SIZE_LINE: usize = 10;

/// The body so far.
pub(super) struct Inbox {
    framing: Framing,
    /// In chunks: behind room for its size line, if there is any.
    bytes: Vec<u8>,
    /// Lines of the trailer section.
    trailers: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// All has come.
    Come,
    /// All was read.
    Read,
}

impl Inbox {
    pub(super) fn new(framing: Framing, is_over: bool) -> Inbox {
        Inbox {
            framing,
            bytes: Vec::new(),
            trailers: Vec::new(),
            end: if is_over { End::Read } else { End::Open },
        }
    }

    /// Takes more of the body. Returns the bytes of heap that it took.
    pub(super) fn push(&mut self, payload: &[u8]) -> usize {
        if payload.is_empty() {
            // A chunk of nothing would be the last.
            return 0;
        }
        let before = self.weight();
        if self.bytes.is_empty() && self.framing == Framing::Chunked {
            self.bytes.resize(SIZE_LINE, b'0');
        }
        self.bytes.extend_from_slice(payload);
        self.weight() - before
    }

    /// Takes trailers. Returns the bytes of heap that they took.
    pub(super) fn push_trailers(&mut self, lines: &[u8]) -> usize {
        if self.framing != Framing::Chunked {
            return 0;
        }
        self.trailers.extend_from_slice(lines);
        lines.len()
    }

    /// The body has come to its end.
    pub(super) fn finish(&mut self) {
        self.end = End::Come;
    }

    /// Whether all has come, read or not.
    pub(super) fn is_whole(&self) -> bool {
        self.end != End::Open
    }

    /// Bytes of heap it holds.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.trailers.len()
    }

    /// Whether there is something to read.
    pub(super) fn is_ready(&self) -> bool {
        !self.bytes.is_empty() || self.framing == Framing::Chunked && self.end == End::Come
    }

    /// Whether it is a tunnel that has come to its end, and all of it was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.framing == Framing::Tunnel && self.end != End::Open && self.bytes.is_empty()
    }

    /// All that has come.
    pub(super) fn take(&mut self, driver: &Rc<Driver>) -> Option<Chunk> {
        if !self.is_ready() {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut skipped = 0;
        if self.framing == Framing::Chunked {
            if !bytes.is_empty() {
                skipped = write_size_line(&mut bytes);
                bytes.extend_from_slice(b"\r\n");
            }
            if self.end == End::Come {
                bytes.extend_from_slice(b"0\r\n");
                bytes.append(&mut self.trailers);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        if self.end == End::Come {
            self.end = End::Read;
        }
        let mut chunk = Chunk::from_vec(driver, bytes);
        chunk.advance(skipped);
        Some(chunk)
    }
}

/// Writes the size of the chunk in front of it; returns where that begins.
fn write_size_line(bytes: &mut [u8]) -> usize {
    let mut size = bytes.len().saturating_sub(SIZE_LINE);
    let mut at = SIZE_LINE - 2;
    if let Some(end) = bytes.get_mut(at..SIZE_LINE) {
        end.copy_from_slice(b"\r\n");
    }
    while at > 0 && (size > 0 || at == SIZE_LINE - 2) {
        at -= 1;
        if let Some(digit) = bytes.get_mut(at) {
            *digit = b"0123456789abcdef".get(size & 15).copied().unwrap_or(b'0');
        }
        size >>= 4;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_line(len: usize) -> String {
        let mut bytes = vec![0; SIZE_LINE + len];
        let at = write_size_line(&mut bytes);
        String::from_utf8_lossy(bytes.get(at..SIZE_LINE).unwrap_or_default()).into_owned()
    }

    /// Goal: an empty frame is no chunk, which would end the body. Method: one, into an empty inbox.
    #[test]
    fn empty_frames_are_no_chunks() {
        for framing in [Framing::Chunked, Framing::Length] {
            let mut inbox = Inbox::new(framing, false);
            assert_eq!((inbox.push(b""), inbox.weight()), (0, 0));
            assert!(!inbox.is_ready());
        }
    }

    /// Goal: chunks are announced as RFC 9112, 7.1, writes it. Method: sizes around each digit.
    #[test]
    fn sizes_of_chunks() {
        for len in [1, 9, 10, 15, 16, 17, 255, 256, 65_535, 65_536, 1 << 20] {
            assert_eq!(size_line(len), format!("{len:x}\r\n"));
        }
    }
}
