//! Envoy's Rate Limit Service: what a proxy asks it about a request, and what it answers.
//!
//! `ShouldRateLimit` of `envoy.service.ratelimit.v3`, as gRPC carries it: a message of protobuf behind a flag and
//! its length. Field numbers are those of Envoy's `rls.proto` and `ratelimit.proto`.

use std::time::Duration;

use super::{
    Malformed, message_of, prefixed,
    protobuf::{Value, fields, put_bytes, put_number},
};

/// The path that is asked.
pub const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// Bytes of an answer, its prefix included; real ones have a hundred or two.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A question about one request, written descriptor by descriptor.
#[derive(Debug)]
pub struct Question {
    bytes: Vec<u8>,
    hits: u32,
}

impl Question {
    /// A question about a request that is to count `hits` in `domain`.
    #[must_use]
    pub fn new(domain: &str, hits: u32) -> Question {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, domain.as_bytes());
        Question { bytes, hits }
    }

    /// Adds what the request is limited by: keys with their values, in order.
    pub fn descriptor<'a>(&mut self, entries: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut descriptor = Vec::new();
        for (key, value) in entries {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, key.as_bytes());
            put_bytes(&mut entry, 2, value.as_bytes());
            put_bytes(&mut descriptor, 1, &entry);
        }
        put_bytes(&mut self.bytes, 2, &descriptor);
    }

    /// The message with its prefix.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        put_number(&mut self.bytes, 3, self.hits.into());
        prefixed(&self.bytes)
    }
}

/// What the service says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may go on.
    Admit,
    /// It is over a limit.
    Limited {
        /// The first limit that it is over: so many requests in that time.
        limit: Option<(u32, Duration)>,
        /// When that begins anew.
        retry_after: Option<Duration>,
    },
}

impl Answer {
    /// Reads a message with its prefix, which is all of `bytes`.
    ///
    /// # Errors
    ///
    /// For one that is cut off, compressed (nobody asked for that) or no protobuf; and for the code `UNKNOWN`.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Malformed> {
        let (mut code, mut over) = (0, None);
        for field in fields(message_of(bytes)?) {
            match field? {
                (1, Value::Number(number)) => code = number,
                (2, Value::Bytes(status)) => over = over.or(Status::decode(status)?.over()),
                _ => {}
            }
        }
        match code {
            OK => Ok(Answer::Admit),
            OVER_LIMIT => Ok(over.unwrap_or(Answer::Limited {
                limit: None,
                retry_after: None,
            })),
            _ => Err(Malformed),
        }
    }
}

/// Of `RateLimitResponse.Code`.
const OK: u64 = 1;
const OVER_LIMIT: u64 = 2;

/// What is said of one descriptor.
#[derive(Default)]
struct Status {
    code: u64,
    limit: Option<(u32, Duration)>,
    reset: Option<Duration>,
}

impl Status {
    fn decode(bytes: &[u8]) -> Result<Status, Malformed> {
        let mut status = Status::default();
        for field in fields(bytes) {
            match field? {
                (1, Value::Number(code)) => status.code = code,
                (2, Value::Bytes(limit)) => status.limit = decode_limit(limit)?,
                (4, Value::Bytes(reset)) => status.reset = Some(decode_duration(reset)?),
                _ => {}
            }
        }
        Ok(status)
    }

    fn over(self) -> Option<Answer> {
        (self.code == OVER_LIMIT).then_some(Answer::Limited {
            limit: self.limit,
            retry_after: self.reset,
        })
    }
}

/// `RateLimitResponse.RateLimit`; `None` if its unit is unknown.
fn decode_limit(bytes: &[u8]) -> Result<Option<(u32, Duration)>, Malformed> {
    let (mut requests, mut unit) = (0, 0);
    for field in fields(bytes) {
        match field? {
            (1, Value::Number(number)) => requests = number as u32,
            (2, Value::Number(number)) => unit = number,
            _ => {}
        }
    }
    const DAY: u64 = 86_400;
    let seconds = match unit {
        1 => 1,
        2 => 60,
        3 => 3600,
        4 => DAY,
        5 => 30 * DAY,
        6 => 365 * DAY,
        7 => 7 * DAY,
        _ => return Ok(None),
    };
    Ok(Some((requests, Duration::from_secs(seconds))))
}

/// `google.protobuf.Duration`; one below zero is zero.
fn decode_duration(bytes: &[u8]) -> Result<Duration, Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(bytes) {
        match field? {
            // Two's complement, as protobuf has numbers with a sign.
            (1, Value::Number(number)) => seconds = u64::try_from(number as i64).unwrap_or(0),
            (2, Value::Number(number)) => nanos = u32::try_from(number as i32).unwrap_or(0),
            _ => {}
        }
    }
    Ok(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(u64::from(nanos))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a question is what protobuf makes of it (L13). Method: the bytes as another implementation writes them.
    #[test]
    fn questions_are_protobuf() {
        let mut question = Question::new("edge", 1);
        question.descriptor([("remote_address", "192.0.2.1"), ("k", "v")].into_iter());
        question.descriptor([("generic_key", "search")].into_iter());
        let expected = b"\x0a\x04edge\
            \x12\x25\x0a\x1b\x0a\x0eremote_address\x12\x09192.0.2.1\x0a\x06\x0a\x01k\x12\x01v\
            \x12\x17\x0a\x15\x0a\x0bgeneric_key\x12\x06search\x18\x01";
        assert_eq!(question.finish(), prefixed(expected));
    }

    /// Goal: lengths above 127 take two bytes. Method: a long value, in an entry and a descriptor that are longer.
    #[test]
    fn long_values_fit() {
        let long = "x".repeat(300);
        let mut question = Question::new("d", 1);
        question.descriptor([("k", &*long)].into_iter());
        let before = b"\x0a\x01d\x12\xb5\x02\x0a\xb2\x02\x0a\x01k\x12\xac\x02";
        let expected = [&before[..], long.as_bytes(), b"\x18\x01"].concat();
        assert_eq!(question.finish(), prefixed(&expected));
    }

    /// Goal: what the service says is understood, with the limit that the request is over. Method: answers as another
    /// implementation writes them, with fields that are not read in between.
    #[test]
    fn answers_are_read() {
        assert_eq!(Answer::decode(&prefixed(b"\x08\x01")), Ok(Answer::Admit));
        let over = b"\x08\x02\x12\x06\x08\x01\x12\x02\x08\x05\
            \x12\x12\x08\x02\x12\x08\x08\x0a\x10\x02\x1a\x02ab\x22\x04\x08\x07\x10\x01\
            \x1a\x02\x0a\x00\x39\x01\x02\x03\x04\x05\x06\x07\x08\x3d\x01\x02\x03\x04";
        let limited = Answer::Limited {
            limit: Some((10, Duration::from_secs(60))),
            retry_after: Some(Duration::new(7, 1)),
        };
        assert_eq!(Answer::decode(&prefixed(over)), Ok(limited));
        let bare = Answer::Limited {
            limit: None,
            retry_after: None,
        };
        assert_eq!(Answer::decode(&prefixed(b"\x08\x02")), Ok(bare));
    }

    /// Goal: a time below zero is zero. Method: minus one second, as protobuf writes it.
    #[test]
    fn negative_times_are_zero() {
        let minus = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(decode_duration(minus), Ok(Duration::ZERO));
    }

    /// Goal: nothing but an answer is one. Method: every cut of one, a compressed one, an unknown code, a group, a
    /// number without end, a length beyond the end.
    #[test]
    fn the_rest_is_malformed() {
        let whole = prefixed(b"\x08\x02\x12\x04\x08\x02\x12\x00");
        assert!(Answer::decode(&whole).is_ok());
        for cut in 0..whole.len() {
            let cut = whole.get(..cut).unwrap_or_default();
            assert_eq!(Answer::decode(cut), Err(Malformed), "{cut:?}");
        }
        let bad: [&[u8]; 6] = [
            b"",
            b"\x08\x00",
            b"\x08\x01\x0b\x0c",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x08\x01\x12\x05\x08",
            b"\x08\x01\x39\x01",
        ];
        for message in bad {
            assert_eq!(
                Answer::decode(&prefixed(message)),
                Err(Malformed),
                "{message:?}"
            );
        }
        let mut compressed = prefixed(b"\x08\x01");
        compressed.splice(..1, [1]);
        assert_eq!(Answer::decode(&compressed), Err(Malformed));
    }
}
