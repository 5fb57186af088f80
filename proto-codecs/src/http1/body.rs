//! A body, followed through its framing without copying it (RFC 9112, 6 and 7).
//!
//! The chunk grammar is kept to the letter, extensions and trailers included: whatever is forwarded as it
//! came must mean the same to the next recipient.

use core::{fmt, ops::Range};

use super::{fields::is_token_byte, framing::Framing};
use crate::limits::Http1Limits;

/// Why a body's framing cannot be followed further. The connection ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk size that is no hexadecimal number, or beyond 64 bits (RFC 9112, 7.1).
    ChunkSizeInvalid,
    /// Chunk extensions that are none (RFC 9112, 7.1.1).
    ChunkExtensionInvalid,
    /// A chunk's size line above the limit.
    ChunkLineTooLong,
    /// CR or LF alone, or something else than a line end after a chunk (RFC 9112, 7.1).
    LineEndInvalid,
    /// A trailer line that is no field (RFC 9112, 7.1.2).
    TrailerInvalid,
    /// A trailer that frames, routes or authorises (RFC 9110, 6.5.1).
    TrailerForbidden,
    /// A trailer section above the limit.
    TrailersTooLarge,
    /// The connection ended before the body (RFC 9112, 8).
    Truncated,
}

impl BodyError {
    /// The rule in words, for a log line.
    pub fn detail(&self) -> &'static str {
        match self {
            BodyError::ChunkSizeInvalid => "invalid chunk size",
            BodyError::ChunkExtensionInvalid => "invalid chunk extension",
            BodyError::ChunkLineTooLong => "chunk size line too long",
            BodyError::LineEndInvalid => "invalid line end in the chunked framing",
            BodyError::TrailerInvalid => "invalid trailer",
            BodyError::TrailerForbidden => "a field that must not be a trailer",
            BodyError::TrailersTooLarge => "trailers too large",
            BodyError::Truncated => "the connection ended inside the body",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl core::error::Error for BodyError {}

/// One step through a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the input that are dealt with.
    pub consumed: usize,
    /// Which of them are payload; maybe none.
    pub payload: Range<usize>,
    /// Which of them belong to the trailer section, its closing empty line included; maybe none.
    pub trailers: Range<usize>,
}

/// Follows one body. Bytes are shown to it once, in order; it says which belong to the body.
#[derive(Clone, Debug)]
pub struct BodyTracker {
    state: State,
    /// Bytes to come of the body (by length) or of the chunk; while a size line is read, the size so far.
    remaining: u64,
    payload: u64,
    /// Bytes that the size line may still take.
    line_left: usize,
    line_max: usize,
    /// Bytes that the trailer section may still take.
    trailers_left: usize,
    /// The trailer's name in lower case, cut off where no forbidden name reaches.
    name: [u8; TRAILER_NAME_MAX],
    name_len: usize,
}

impl BodyTracker {
    /// A tracker at the first byte after the head.
    pub fn new(framing: Framing, limits: &Http1Limits) -> BodyTracker {
        let (state, remaining) = match framing {
            Framing::None | Framing::Length(0) => (State::Done, 0),
            Framing::Length(length) => (State::Length, length),
            Framing::Chunked => (State::SizeStart, 0),
            Framing::UntilClose => (State::UntilClose, 0),
        };
        BodyTracker {
            state,
            remaining,
            payload: 0,
            line_left: limits.chunk_line_bytes_max,
            line_max: limits.chunk_line_bytes_max,
            trailers_left: limits.trailer_bytes_max,
            name: [0; TRAILER_NAME_MAX],
            name_len: 0,
        }
    }

    /// Whether the body is over; what follows belongs to the next message.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload bytes seen so far, framing not counted.
    pub fn payload_bytes(&self) -> u64 {
        self.payload
    }

    /// How many bytes of `input` belong to this body, framing included: all, unless the body ends in it.
    /// The cost does not depend on how large the payload is. After an error every call fails alike.
    pub fn advance(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let mut consumed = 0;
        while let Some(rest) = input.get(consumed..)
            && !rest.is_empty()
            && !self.is_done()
        {
            consumed += self.next_payload(rest)?.consumed;
        }
        Ok(consumed)
    }

    /// Like [`advance`](BodyTracker::advance), but stops after each stretch of payload and says where it
    /// is, so that a chunked body can be sent on without its framing. To be called with the rest of the
    /// input until that is empty or the body [is done](BodyTracker::is_done).
    pub fn next_payload(&mut self, input: &[u8]) -> Result<Piece, BodyError> {
        let mut at = 0;
        let trailers_left = self.trailers_left;
        while let Some(&byte) = input.get(at) {
            let available = input.len() - at;
            match self.state {
                State::Done => break,
                State::Length | State::Data => {
                    let taken = usize::try_from(self.remaining)
                        .map_or(available, |remaining| remaining.min(available));
                    self.remaining -= taken as u64;
                    if self.remaining == 0 {
                        self.state = self.state.after_payload();
                    }
                    return Ok(self.payload_piece(at, taken));
                }
                State::UntilClose => return Ok(self.payload_piece(at, available)),
                State::Broken(error) => return Err(error),
                _ => match self.frame(byte) {
                    Ok(next) => self.state = next,
                    Err(error) => {
                        self.state = State::Broken(error);
                        return Err(error);
                    }
                },
            }
            at += 1;
        }
        // Each byte of the section was taken off its limit, and nothing comes behind it.
        let trailers = trailers_left.saturating_sub(self.trailers_left);
        Ok(Piece {
            consumed: at,
            payload: at..at,
            trailers: at.saturating_sub(trailers)..at,
        })
    }

    /// Tells that the connection ended. Fine if the body was over, or is one that ends so.
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Broken(error) => Err(error),
            _ => {
                self.state = State::Broken(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    fn payload_piece(&mut self, at: usize, taken: usize) -> Piece {
        self.payload = self.payload.saturating_add(taken as u64);
        Piece {
            consumed: at + taken,
            payload: at..at + taken,
            trailers: at..at,
        }
    }

    /// Takes one byte of framing, and says what state it leads to.
    fn frame(&mut self, byte: u8) -> Result<State, BodyError> {
        self.charge(byte)?;
        match (self.state, byte) {
            // chunk-size = 1*HEXDIG
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.push_size_digit(byte)
            }
            (
                State::Size | State::ExtensionName | State::ExtensionToken | State::QuotedEnd,
                b'\r',
            ) => Ok(State::SizeLineFeed),
            // chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
            (
                State::Size
                | State::BeforeSemicolon
                | State::ExtensionName
                | State::AfterName
                | State::ExtensionToken
                | State::QuotedEnd,
                b';',
            ) => Ok(State::BeforeName),
            (
                State::Size | State::BeforeSemicolon | State::ExtensionToken | State::QuotedEnd,
                b' ' | b'\t',
            ) => Ok(State::BeforeSemicolon),
            (State::ExtensionName | State::AfterName, b' ' | b'\t') => Ok(State::AfterName),
            (State::ExtensionName | State::AfterName, b'=') => Ok(State::BeforeValue),
            (State::BeforeName | State::BeforeValue, b' ' | b'\t') => Ok(self.state),
            (State::BeforeName | State::ExtensionName, _) if is_token_byte(byte) => {
                Ok(State::ExtensionName)
            }
            (State::BeforeValue | State::ExtensionToken, _) if is_token_byte(byte) => {
                Ok(State::ExtensionToken)
            }
            (State::BeforeValue, b'"') => Ok(State::Quoted),
            (State::Quoted, b'"') => Ok(State::QuotedEnd),
            (State::Quoted, b'\\') => Ok(State::QuotedPair),
            (State::Quoted | State::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Quoted),
            (State::SizeLineFeed, b'\n') => Ok(self.end_size_line()),
            // chunk-data CRLF
            (State::DataReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::SizeStart),
            // trailer-section = *( field-line CRLF )
            (State::TrailerStart, b'\r') => Ok(State::EndLineFeed),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.name_len = 0;
                self.push_name(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => self.check_trailer_name(),
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.push_name(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
            (State::EndLineFeed, b'\n') => Ok(State::Done),
            _ => Err(self.state.error(byte)),
        }
    }

    /// Takes the byte off the limit of the part that it stands in.
    fn charge(&mut self, byte: u8) -> Result<(), BodyError> {
        use State::{
            DataLineFeed, DataReturn, EndLineFeed, SizeLineFeed, TrailerLineFeed, TrailerName,
            TrailerStart, TrailerValue,
        };
        match self.state {
            DataReturn | DataLineFeed | SizeLineFeed => Ok(()),
            TrailerStart | TrailerName | TrailerValue | TrailerLineFeed | EndLineFeed => {
                self.trailers_left = self
                    .trailers_left
                    .checked_sub(1)
                    .ok_or(BodyError::TrailersTooLarge)?;
                Ok(())
            }
            // The line end is not part of the line.
            _ if byte == b'\r' => Ok(()),
            _ => {
                self.line_left = self
                    .line_left
                    .checked_sub(1)
                    .ok_or(BodyError::ChunkLineTooLong)?;
                Ok(())
            }
        }
    }

    fn push_size_digit(&mut self, byte: u8) -> Result<State, BodyError> {
        let digit = char::from(byte)
            .to_digit(16)
            .ok_or(BodyError::ChunkSizeInvalid)?;
        self.remaining = self
            .remaining
            .checked_mul(16)
            .ok_or(BodyError::ChunkSizeInvalid)?
            + u64::from(digit);
        Ok(State::Size)
    }

    fn end_size_line(&mut self) -> State {
        self.line_left = self.line_max;
        if self.remaining == 0 {
            State::TrailerStart
        } else {
            State::Data
        }
    }

    fn push_name(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(self.name_len) {
            *slot = byte.to_ascii_lowercase();
        }
        self.name_len = self.name_len.saturating_add(1);
    }

    fn check_trailer_name(&self) -> Result<State, BodyError> {
        // A name that was cut off is longer than every forbidden one.
        let name = self.name.get(..self.name_len).unwrap_or_default();
        if TRAILERS_FORBIDDEN.contains(&name) {
            return Err(BodyError::TrailerForbidden);
        }
        Ok(State::TrailerValue)
    }
}

/// Where in the framing the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Payload, delimited by its length.
    Length,
    /// Payload, delimited by the connection's end.
    UntilClose,
    /// The first digit of a chunk's size.
    SizeStart,
    /// Another digit, or what follows the size.
    Size,
    /// White space after a size or a value: only an extension may follow.
    BeforeSemicolon,
    BeforeName,
    ExtensionName,
    /// White space after a name.
    AfterName,
    BeforeValue,
    ExtensionToken,
    Quoted,
    /// The byte after a backslash.
    QuotedPair,
    QuotedEnd,
    SizeLineFeed,
    /// Payload of a chunk.
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    /// The LF of the closing empty line.
    EndLineFeed,
    Done,
    Broken(BodyError),
}

impl State {
    fn after_payload(self) -> State {
        match self {
            State::Data => State::DataReturn,
            _ => State::Done,
        }
    }

    /// What is wrong with a byte that does not fit here.
    #[cold]
    fn error(self, byte: u8) -> BodyError {
        match self {
            _ if byte == b'\n' => BodyError::LineEndInvalid,
            State::SizeLineFeed
            | State::DataReturn
            | State::DataLineFeed
            | State::TrailerLineFeed
            | State::EndLineFeed => BodyError::LineEndInvalid,
            State::SizeStart | State::Size => BodyError::ChunkSizeInvalid,
            State::TrailerStart | State::TrailerName | State::TrailerValue => {
                BodyError::TrailerInvalid
            }
            _ => BodyError::ChunkExtensionInvalid,
        }
    }
}

/// The fields of a trailer section that a [`BodyTracker`] has found well-formed: names and values.
pub fn trailer_fields(section: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    section.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at_checked(colon)?;
        Some((name, value.get(1..)?.trim_ascii()))
    })
}

/// As long as the longest forbidden name.
const TRAILER_NAME_MAX: usize = 19;

/// Fields that must not come after the body: they frame it, route the message, concern one connection,
/// authenticate, or say what the content is (RFC 9110, 6.5.1), or are ours to vouch for.
pub(crate) static TRAILERS_FORBIDDEN: [&[u8]; 21] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"keep-alive",
    b"proxy-authorization",
    b"proxy-connection",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];
