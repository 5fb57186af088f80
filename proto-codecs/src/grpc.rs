//! What a proxy reads of gRPC, which is HTTP/2 with messages in its DATA: where messages end, which method is
//! called, and what came of it.
//!
//! Two services are asked by a proxy itself: [`health`] and [`rate_limit_service`].
//!
//! `tries.rs`: what calls say of their time, and of being tried again.
//!
//! Messages pass by and are counted; nothing of them is kept. What is no gRPC is no error here either, since
//! the two ends may know better: it is [not counted](MessageCounter::is_broken) any more.

pub mod health;
mod protobuf;
pub mod rate_limit_service;
mod tries;

pub use tries::{PREVIOUS_ATTEMPTS, PUSHBACK, Pushback, TIMEOUT, format_timeout, parse_timeout};

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The fields that a call has in its head, whatever is called.
pub const REQUEST_FIELDS: [(&str, &str); 2] =
    [("content-type", "application/grpc"), ("te", "trailers")];

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A message behind its prefix.
fn prefixed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// The only message of `bytes`, which nobody was asked to compress.
fn message_of(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (prefix, message) = bytes.split_first_chunk().ok_or(Malformed)?;
    let [compressed, length @ ..]: [u8; PREFIX_BYTES] = *prefix;
    match compressed == 0 && u32::from_be_bytes(length) as usize == message.len() {
        true => Ok(message),
        false => Err(Malformed),
    }
}

/// Counts the messages of one direction of a call, however its DATA is cut.
///
/// ```text
/// Message = Compressed-Flag (0 or 1), Message-Length (u32, big-endian), that many bytes
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounter {
    state: State,
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a prefix: bytes of it that have come, and the length as far as it is known.
    Prefix { filled: usize, length: u32 },
    /// In a message: bytes of it that are still to come, at least one.
    Message { left: u32 },
    /// Something came that is no message.
    Broken,
}

impl Default for State {
    fn default() -> State {
        State::Prefix {
            filled: 0,
            length: 0,
        }
    }
}

impl MessageCounter {
    /// Follows DATA, in order.
    pub fn advance(&mut self, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            rest = match self.state {
                State::Prefix { filled, length } => self.prefix(filled, length, rest),
                State::Message { left } => self.message(left, rest),
                State::Broken => return,
            };
        }
    }

    /// Messages that have come whole.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether the DATA could end here.
    pub fn is_between_messages(&self) -> bool {
        self.state == State::default()
    }

    /// Whether the DATA is no sequence of messages. What came before is counted.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// One byte of a prefix.
    fn prefix<'d>(&mut self, filled: usize, length: u32, data: &'d [u8]) -> &'d [u8] {
        let Some((&byte, rest)) = data.split_first() else {
            return data;
        };
        self.state = match filled {
            0 if byte > 1 => State::Broken,
            0 => State::Prefix { filled: 1, length },
            _ => {
                let length = length << 8 | u32::from(byte);
                match filled + 1 {
                    PREFIX_BYTES => self.begin_message(length),
                    filled => State::Prefix { filled, length },
                }
            }
        };
        rest
    }

    fn begin_message(&mut self, length: u32) -> State {
        if length == 0 {
            self.count += 1;
            return State::default();
        }
        State::Message { left: length }
    }

    fn message<'d>(&mut self, left: u32, data: &'d [u8]) -> &'d [u8] {
        match data.split_at_checked(left as usize) {
            Some((_, rest)) => {
                self.count += 1;
                self.state = State::default();
                rest
            }
            None => {
                self.state = State::Message {
                    left: left - data.len() as u32,
                };
                &[]
            }
        }
    }
}

/// The service and the method that a path calls: `/package.Service/Method`. `None` if it is of another form.
pub fn method_of(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_prefix(b"/")?;
    let slash = memchr::memchr(b'/', path)?;
    let (service, method) = path.split_at_checked(slash)?;
    let method = method.get(1..)?;
    let is_whole = !service.is_empty() && !method.is_empty() && !method.contains(&b'/');
    is_whole.then_some((service, method))
}

/// What came of a call, as `grpc-status` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u8);

/// The field that says what came of a call; a trailer, or in the head if there is nothing else.
pub const STATUS: &str = "grpc-status";

impl Status {
    /// It went well.
    pub const OK: Status = Status(0);
    /// Anything that is none of the others, or not said.
    pub const UNKNOWN: Status = Status(2);
    /// There is no such method.
    pub const UNIMPLEMENTED: Status = Status(12);
    /// The service cannot be reached.
    pub const UNAVAILABLE: Status = Status(14);
    /// The number of statuses that are defined.
    pub const COUNT: usize = 17;

    /// Parses the field. What is no status that is defined is [`Status::UNKNOWN`], as clients take it.
    pub fn parse(value: &[u8]) -> Status {
        let number = match *value {
            [digit @ b'0'..=b'9'] => digit - b'0',
            [b'1', digit @ b'0'..=b'6'] => 10 + digit - b'0',
            _ => return Status::UNKNOWN,
        };
        Status(number)
    }

    /// The number on the wire, below [`Status::COUNT`].
    pub fn number(self) -> usize {
        usize::from(self.0)
    }

    /// Whether it is the server's failure, as a status of 5xx is in HTTP: UNKNOWN (an exception, usually), INTERNAL,
    /// UNAVAILABLE and DATA_LOSS. Envoy's outlier detection takes the same for failures.
    pub fn is_of_server(self) -> bool {
        matches!(self.0, 2 | 13 | 14 | 15)
    }

    /// As it is written in gRPC's documents, for metrics and logs.
    pub fn name(self) -> &'static str {
        NAMES.get(self.number()).copied().unwrap_or("UNKNOWN")
    }
}

const NAMES: [&str; Status::COUNT] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(compressed: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&[compressed], &length[..], payload].concat()
    }

    fn counted(pieces: &[&[u8]]) -> MessageCounter {
        let mut counter = MessageCounter::default();
        pieces.iter().for_each(|piece| counter.advance(piece));
        counter
    }

    /// Goal: messages are counted when they are whole. Method: none, empty ones, one that is cut at each of
    /// its bytes.
    #[test]
    fn whole_messages() {
        assert_eq!(counted(&[]).count(), 0);
        assert!(counted(&[]).is_between_messages());
        let empty = message(0, b"");
        assert_eq!(counted(&[&empty, &empty]).count(), 2);
        let whole = message(1, b"four");
        for at in 0..whole.len() {
            let (head, tail) = whole.split_at(at);
            let counter = counted(&[head]);
            assert_eq!(counter.count(), 0, "{at}");
            assert_eq!(counter.is_between_messages(), at == 0, "{at}");
            let counter = counted(&[head, tail]);
            assert_eq!(counter.count(), 1, "{at}");
            assert!(counter.is_between_messages() && !counter.is_broken());
        }
    }

    /// Goal: the longest message there can be is followed without being kept. Method: a prefix of 2^32-1
    /// bytes, and as many in large pieces.
    #[test]
    fn the_longest_message() {
        let mut counter = counted(&[b"\0\xff\xff\xff\xff"]);
        let piece = vec![0; (1 << 20) - 1];
        for _ in 0..4096 {
            counter.advance(&piece);
        }
        assert_eq!(counter.count(), 0);
        counter.advance(&[0; 4095]);
        assert_eq!(counter.count(), 1);
        assert!(counter.is_between_messages());
    }

    /// Goal: what is no message ends the count, and no more. Method: a flag of 2 behind a message.
    #[test]
    fn no_messages() {
        let mut counter = counted(&[&message(0, b"a"), b"\x02"]);
        assert!(counter.is_broken() && !counter.is_between_messages());
        counter.advance(&message(0, b""));
        assert_eq!(counter.count(), 1);
    }

    proptest! {
        /// Goal: however DATA is cut, the same is counted (split test). Method: random messages, or bytes
        /// that may be none, whole, byte by byte and in random pieces.
        #[test]
        fn splits(
            payloads in prop::collection::vec((0u8..2, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            garbage in prop::collection::vec(0u8..4, 0..20),
            sizes in prop::collection::vec(1usize..20, 1..8),
        ) {
            let messages: Vec<u8> =
                payloads.iter().flat_map(|(flag, payload)| message(*flag, payload)).collect();
            prop_assert_eq!(counted(&[&messages]).count(), payloads.len() as u64);
            prop_assert!(counted(&[&messages]).is_between_messages());
            let data = [messages, garbage].concat();
            let whole = counted(&[&data]);
            let bytewise: Vec<&[u8]> = data.chunks(1).collect();
            prop_assert_eq!(counted(&bytewise), whole);
            let (mut pieces, mut rest) = (Vec::new(), data.as_slice());
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(counted(&pieces), whole);
        }
    }

    /// Goal: methods are told from other paths. Method: a table.
    #[test]
    fn methods() {
        for (path, expected) in [
            ("/a.B/C", Some(("a.B", "C"))),
            ("/B/C", Some(("B", "C"))),
            ("/a.B/", None),
            ("//C", None),
            ("/a.B", None),
            ("a.B/C", None),
            ("/a/B/C", None),
            ("", None),
        ] {
            let expected =
                expected.map(|(service, method)| (service.as_bytes(), method.as_bytes()));
            assert_eq!(method_of(path.as_bytes()), expected, "{path}");
        }
    }

    /// Goal: statuses have their numbers and names, and what is none is unknown. Method: all, and others.
    #[test]
    fn statuses() {
        for (number, name) in NAMES.iter().enumerate() {
            let status = Status::parse(number.to_string().as_bytes());
            assert_eq!((status.number(), status.name()), (number, *name));
            let is_of_server = ["UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"].contains(name);
            assert_eq!(status.is_of_server(), is_of_server, "{name}");
        }
        assert_eq!(Status::OK.name(), "OK");
        assert_eq!(Status::UNKNOWN.name(), "UNKNOWN");
        assert_eq!(Status::UNIMPLEMENTED.name(), "UNIMPLEMENTED");
        assert_eq!(Status::UNAVAILABLE.name(), "UNAVAILABLE");
        for none in ["", "17", "00", "-1", "2 ", "100", "x"] {
            assert_eq!(Status::parse(none.as_bytes()), Status::UNKNOWN, "{none}");
        }
    }
}
