//! Reading HTTP/1.1 responses, sans-IO: bytes go in, "complete" comes out. Strict enough to notice a
//! peer that answers wrongly; it keeps no body.
//!
//! In scope: `Content-Length`, chunked, until close, keep-alive. Out of scope: answers to HEAD,
//! trailers' contents, upgrades.

use std::fmt;

/// Bytes of a response head; a peer that sends more is broken.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Fields of a response head.
const HEAD_FIELDS_MAX: usize = 64;
/// Bytes of a chunk-size line or a trailer line.
const LINE_BYTES_MAX: usize = 4096;

/// What a response amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Bytes of body, framing not counted.
    pub body_bytes: u64,
    /// Whether the connection may carry another request.
    pub reuse: Reuse,
}

/// Whether the connection may carry another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It may.
    KeepAlive,
    /// The server closes it.
    Close,
}

/// How far the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything was taken and more is needed.
    More,
    /// A response ended after so many bytes of the input.
    Done {
        /// The response.
        response: Response,
        /// Bytes of the input that belonged to it.
        consumed: usize,
    },
}

/// Why the bytes are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponse {
    /// The head does not parse, or is too long.
    Head,
    /// Its framing fields contradict each other or do not parse.
    Framing,
    /// A chunk is malformed.
    Chunk,
    /// The stream ended in the middle.
    CutShort,
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadResponse::Head => "malformed response head",
            BadResponse::Framing => "contradictory response framing",
            BadResponse::Chunk => "malformed chunk",
            BadResponse::CutShort => "response cut short",
        })
    }
}

/// Reads one response after the other.
#[derive(Debug, Default)]
pub struct ResponseReader {
    state: State,
    /// A head or a line of which only a part has arrived; otherwise empty.
    partial: Vec<u8>,
    response: Option<Response>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    Length {
        left: u64,
    },
    UntilClose,
    ChunkSize,
    ChunkData {
        /// Including the CRLF after the data.
        left: u64,
    },
    Trailers,
}

impl ResponseReader {
    /// Takes bytes as they arrive.
    pub fn feed(&mut self, input: &[u8]) -> Result<Progress, BadResponse> {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            match self.state {
                State::Head => match self.head(rest)? {
                    Some(used) => at += used,
                    None => return Ok(Progress::More),
                },
                State::Length { left } => {
                    let used = take(left, rest);
                    at += used;
                    self.count_body(used);
                    if used as u64 == left {
                        return self.done(at);
                    }
                    self.state = State::Length {
                        left: left - used as u64,
                    };
                    return Ok(Progress::More);
                }
                State::UntilClose => {
                    self.count_body(rest.len());
                    return Ok(Progress::More);
                }
                State::ChunkData { left } => {
                    let used = take(left, rest);
                    at += used;
                    self.count_body(used);
                    if used as u64 != left {
                        self.state = State::ChunkData {
                            left: left - used as u64,
                        };
                        return Ok(Progress::More);
                    }
                    // Its CRLF was counted with the data.
                    if let Some(response) = &mut self.response {
                        response.body_bytes -= 2;
                    }
                    self.state = State::ChunkSize;
                }
                State::ChunkSize | State::Trailers => match self.line(rest)? {
                    (used, Line::Whole) => {
                        at += used;
                        let ended = self.take_line()?;
                        if ended {
                            return self.done(at);
                        }
                    }
                    (_, Line::Partial) => return Ok(Progress::More),
                },
            }
            if at >= input.len() && !self.wants_no_more() {
                return Ok(Progress::More);
            }
        }
    }

    /// Bytes that belong to the body whatever they are, so that nobody has to look at them.
    pub fn certain(&self) -> u64 {
        match self.state {
            State::Length { left } => left,
            _ => 0,
        }
    }

    /// As if so many bytes, at most the [certain](ResponseReader::certain) ones, had been fed.
    pub fn skip(&mut self, bytes: usize) -> Result<Progress, BadResponse> {
        if let State::Length { left } = &mut self.state {
            *left = left.saturating_sub(bytes as u64);
            self.count_body(bytes);
        }
        self.feed(&[])
    }

    /// The stream ended. A response that lasts until then is complete; between responses it is
    /// `None`; anywhere else something is missing.
    pub fn end(&mut self) -> Result<Option<Response>, BadResponse> {
        match self.state {
            State::Head if self.partial.is_empty() => Ok(None),
            State::UntilClose => {
                self.state = State::Head;
                Ok(self.response.take())
            }
            _ => Err(BadResponse::CutShort),
        }
    }

    /// A body of no bytes is complete without further input.
    fn wants_no_more(&self) -> bool {
        self.state == State::Length { left: 0 }
    }

    fn done(&mut self, consumed: usize) -> Result<Progress, BadResponse> {
        self.state = State::Head;
        let response = self.response.take().ok_or(BadResponse::Head)?;
        Ok(Progress::Done { response, consumed })
    }

    fn count_body(&mut self, bytes: usize) {
        if let Some(response) = &mut self.response {
            response.body_bytes += bytes as u64;
        }
    }

    /// Parses a head from the input, or from what was kept and the input; returns how many bytes
    /// of the input it took, or `None` if it is incomplete (then all was kept).
    fn head(&mut self, input: &[u8]) -> Result<Option<usize>, BadResponse> {
        let kept = self.partial.len();
        let parsed = if kept == 0 {
            parse_head(input)?
        } else {
            self.partial.extend_from_slice(input);
            parse_head(&self.partial)?
        };
        let Some(head) = parsed else {
            if kept == 0 {
                self.partial.extend_from_slice(input);
            }
            let too_long = self.partial.len() > HEAD_BYTES_MAX;
            return if too_long {
                Err(BadResponse::Head)
            } else {
                Ok(None)
            };
        };
        self.partial.clear();
        if !head.interim {
            self.response = Some(Response {
                status: head.status,
                body_bytes: 0,
                reuse: head.reuse,
            });
            self.state = head.body;
        }
        Ok(Some(head.bytes - kept))
    }

    /// Collects one line into `partial`.
    fn line(&mut self, input: &[u8]) -> Result<(usize, Line), BadResponse> {
        let (used, line) = match input.iter().position(|&byte| byte == b'\n') {
            Some(end) => (end + 1, Line::Whole),
            None => (input.len(), Line::Partial),
        };
        self.partial
            .extend_from_slice(input.get(..used).unwrap_or_default());
        if self.partial.len() > LINE_BYTES_MAX {
            return Err(BadResponse::Chunk);
        }
        Ok((used, line))
    }

    /// Acts on the line in `partial`; returns whether the response ended with it.
    fn take_line(&mut self) -> Result<bool, BadResponse> {
        let ended = match self.state {
            State::Trailers => self.partial == b"\r\n",
            _ => {
                let size = match httparse::parse_chunk_size(&self.partial) {
                    Ok(httparse::Status::Complete((_, size))) => size,
                    _ => return Err(BadResponse::Chunk),
                };
                self.state = match size {
                    0 => State::Trailers,
                    size => State::ChunkData {
                        left: size.checked_add(2).ok_or(BadResponse::Chunk)?,
                    },
                };
                false
            }
        };
        self.partial.clear();
        Ok(ended)
    }
}

enum Line {
    Whole,
    Partial,
}

struct Head {
    bytes: usize,
    status: u16,
    reuse: Reuse,
    body: State,
    /// A 1xx: another head follows.
    interim: bool,
}

fn parse_head(input: &[u8]) -> Result<Option<Head>, BadResponse> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let bytes = match parsed.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadResponse::Head),
    };
    let status = parsed.code.ok_or(BadResponse::Head)?;
    let mut length: Option<u64> = None;
    let mut chunked = false;
    let mut close = parsed.version == Some(0);
    for field in parsed.headers.iter() {
        // The names are told apart by their length first: this runs once per request.
        match field.name.len() {
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let value = std::str::from_utf8(field.value)
                    .ok()
                    .and_then(|text| text.trim().parse().ok())
                    .ok_or(BadResponse::Framing)?;
                if length.is_some_and(|length| length != value) {
                    return Err(BadResponse::Framing);
                }
                length = Some(value);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                chunked = field.value.eq_ignore_ascii_case(b"chunked");
                if !chunked {
                    return Err(BadResponse::Framing);
                }
            }
            10 if field.name.eq_ignore_ascii_case("connection") => {
                close |= field.value.eq_ignore_ascii_case(b"close");
            }
            _ => {}
        }
    }
    // RFC 9112, section 6.3: who gets the order of these cases wrong can be smuggled to.
    let (body, close) = match (status, chunked, length) {
        (100..=199 | 204 | 304, ..) => (State::Length { left: 0 }, close),
        (_, true, Some(_)) => return Err(BadResponse::Framing),
        (_, true, None) => (State::ChunkSize, close),
        (_, false, Some(left)) => (State::Length { left }, close),
        (_, false, None) => (State::UntilClose, true),
    };
    Ok(Some(Head {
        bytes,
        status,
        reuse: if close {
            Reuse::Close
        } else {
            Reuse::KeepAlive
        },
        body,
        interim: (100..=199).contains(&status),
    }))
}

fn take(left: u64, input: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(input.len())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]

    use super::*;

    fn read(input: &[u8], piece: usize) -> Vec<Response> {
        read_by(input, piece, |reader, rest| {
            (reader.feed(rest).unwrap(), rest.len())
        })
    }

    /// `feed` says how far the reader is, and of how many bytes if it took all of them.
    fn read_by(
        input: &[u8],
        piece: usize,
        mut feed: impl FnMut(&mut ResponseReader, &[u8]) -> (Progress, usize),
    ) -> Vec<Response> {
        let mut reader = ResponseReader::default();
        let mut responses = Vec::new();
        for bytes in input.chunks(piece) {
            let mut rest = bytes;
            while !rest.is_empty() {
                let (progress, given) = feed(&mut reader, rest);
                rest = match progress {
                    Progress::More => &rest[given..],
                    Progress::Done { response, consumed } => {
                        responses.push(response);
                        &rest[consumed..]
                    }
                };
            }
        }
        responses.extend(reader.end().unwrap());
        responses
    }

    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\
        HTTP/1.1 503 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno\
        HTTP/1.1 200 OK\r\n\r\nuntil the end";

    /// The same stream of every kind of body, cut at every size of piece, gives the same responses.
    #[test]
    fn pieces_do_not_matter() {
        let keep = Reuse::KeepAlive;
        let expected: Vec<Response> = [
            (200, 5, keep),
            (204, 0, keep),
            (200, 8, keep),
            (200, 0, keep),
            (503, 2, Reuse::Close),
            (200, 13, Reuse::Close),
        ]
        .into_iter()
        .map(|(status, body_bytes, reuse)| Response {
            status,
            body_bytes,
            reuse,
        })
        .collect();
        for piece in 1..=STREAM.len() {
            assert_eq!(read(STREAM, piece), expected, "in pieces of {piece}");
        }
    }

    /// A reader that is told of the certain bytes of a body without seeing them finds the same responses,
    /// and there are some: the five of the first, and the two of the last but one.
    #[test]
    fn bodies_may_be_skipped() {
        for piece in 1..=STREAM.len() {
            let mut skipped = 0;
            let responses = read_by(STREAM, piece, |reader, rest| {
                match usize::try_from(reader.certain()).unwrap().min(rest.len()) {
                    // Cut where the body begins, as a read that ended there would be.
                    0 => {
                        let head = rest.windows(4).position(|four| four == b"\r\n\r\n");
                        let cut = head.map_or(rest.len(), |at| at + 4);
                        (reader.feed(&rest[..cut]).unwrap(), cut)
                    }
                    bytes => {
                        skipped += bytes;
                        match reader.skip(bytes).unwrap() {
                            Progress::Done { response, consumed } => {
                                assert_eq!(consumed, 0);
                                let consumed = bytes;
                                (Progress::Done { response, consumed }, bytes)
                            }
                            more => (more, bytes),
                        }
                    }
                }
            });
            assert_eq!(responses, read(STREAM, piece), "in pieces of {piece}");
            assert!((2..=7).contains(&skipped), "{skipped} in pieces of {piece}");
        }
    }

    /// A stream that ends anywhere inside a response is cut short, and between two it is not.
    #[test]
    fn an_early_end_is_noticed() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 1..whole.len() {
            let mut reader = ResponseReader::default();
            assert_eq!(reader.feed(&whole[..cut]), Ok(Progress::More));
            assert_eq!(reader.end(), Err(BadResponse::CutShort), "at {cut}");
        }
        let mut reader = ResponseReader::default();
        assert!(matches!(reader.feed(whole), Ok(Progress::Done { .. })));
        assert_eq!(reader.end(), Ok(None));
    }

    /// What is no response is refused, with its reason.
    #[test]
    fn nonsense_is_refused() {
        for (input, reason) in [
            (&b"SSH-2.0-OpenSSH\r\n"[..], BadResponse::Head),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                BadResponse::Framing,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                BadResponse::Framing,
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                BadResponse::Framing,
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                BadResponse::Chunk,
            ),
        ] {
            assert_eq!(ResponseReader::default().feed(input), Err(reason));
        }
        let endless = [
            b"HTTP/1.1 200 OK\r\nA: ".to_vec(),
            vec![b'a'; HEAD_BYTES_MAX],
        ]
        .concat();
        assert_eq!(
            ResponseReader::default().feed(&endless),
            Err(BadResponse::Head)
        );
    }
}
