//! gRPC's health checks: `grpc.health.v1`, of which we call `Check`.

use super::{
    Malformed, message_of, prefixed,
    protobuf::{Value, fields, put_bytes},
};

/// The path that is asked.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// The path that is asked by who wants to be told of every change.
const PATH_OF_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Whether a call of this path is a health check.
#[must_use]
pub fn is_check(path: &[u8]) -> bool {
    path == PATH.as_bytes() || path == PATH_OF_WATCH.as_bytes()
}

/// A question about a service; about the whole server if that is empty.
#[must_use]
pub fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        put_bytes(&mut message, 1, service.as_bytes());
    }
    prefixed(&message)
}

/// What a server says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It knows the service, and not how it does.
    Unknown,
    /// It serves.
    Serving,
    /// It does not serve.
    NotServing,
}

impl Health {
    /// Reads a message with its prefix, which is all of `bytes`.
    ///
    /// # Errors
    ///
    /// For one that is cut off, compressed or no protobuf.
    pub fn decode(bytes: &[u8]) -> Result<Health, Malformed> {
        let mut health = Health::Unknown;
        for field in fields(message_of(bytes)?) {
            if let (1, Value::Number(status)) = field? {
                health = match status {
                    1 => Health::Serving,
                    2 => Health::NotServing,
                    _ => Health::Unknown,
                };
            }
        }
        Ok(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: questions and answers are what protobuf makes of them (H14). Method: the bytes as another implementation
    /// writes them.
    #[test]
    fn questions_and_answers() {
        assert_eq!(question(""), b"\0\0\0\0\0");
        assert_eq!(question("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        for (answer, expected) in [
            (&b"\0\0\0\0\0"[..], Ok(Health::Unknown)),
            (b"\0\0\0\0\x02\x08\x01", Ok(Health::Serving)),
            (b"\0\0\0\0\x02\x08\x02", Ok(Health::NotServing)),
            (b"\0\0\0\0\x02\x08\x03", Ok(Health::Unknown)),
            (b"\0\0\0\0\x02\x08", Err(Malformed)),
            (b"", Err(Malformed)),
        ] {
            assert_eq!(Health::decode(answer), expected, "{answer:?}");
        }
    }
}
