//! What an endpoint is told of a call of gRPC that is tried again: how many tries there were before, and how much time
//! is left of the client's.

use std::{io::Write, sync::Arc, time::Duration};

use tidegate_codecs::grpc;

use super::exchange::Exchange;

/// A call that is tried again.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    /// Tries that the client says it has made itself.
    before: u32,
    /// When the client's patience ends, if it has said so.
    until_ns: Option<u64>,
}

impl Exchange<'_> {
    /// `None` for a request that is no call.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        if !self.is_grpc() {
            return None;
        }
        let before = self.field(grpc::PREVIOUS_ATTEMPTS);
        let before = before.and_then(|value| str::from_utf8(value).ok()?.parse().ok());
        Some(Attempt {
            before: before.unwrap_or(0),
            until_ns: self.field(grpc::TIMEOUT).map(|_| self.until_ns),
        })
    }
}

impl Attempt {
    /// The fields that are written anew, beside those that a route takes away.
    pub(super) fn without(removed: &[Arc<str>]) -> Vec<Arc<str>> {
        let own = [grpc::PREVIOUS_ATTEMPTS, grpc::TIMEOUT].map(Arc::from);
        removed.iter().cloned().chain(own).collect()
    }

    /// Writes them behind `head`, for the try behind `tries` of ours.
    pub(super) fn append_to(self, head: &mut Vec<u8>, tries: u8, now_ns: u64) {
        // The empty line that ends it.
        head.truncate(head.len().saturating_sub(2));
        let tries = self.before.saturating_add(tries.into());
        // Writing to a Vec does not fail.
        let _ = write!(head, "{}: {tries}\r\n", grpc::PREVIOUS_ATTEMPTS);
        if let Some(until_ns) = self.until_ns {
            let left = Duration::from_nanos(until_ns.saturating_sub(now_ns));
            let _ = write!(
                head,
                "{}: {}\r\n",
                grpc::TIMEOUT,
                grpc::format_timeout(left)
            );
        }
        head.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a second try says so, and how much time is left. Method: the end of a head, with and without a time-out
    /// of the client's.
    #[test]
    fn tries_are_counted() {
        for (until_ns, expected) in [
            (None, "a: b\r\ngrpc-previous-rpc-attempts: 3\r\n\r\n"),
            (
                Some(1_500_000_000),
                "a: b\r\ngrpc-previous-rpc-attempts: 3\r\ngrpc-timeout: 500000u\r\n\r\n",
            ),
        ] {
            let mut head = b"a: b\r\n\r\n".to_vec();
            let attempt = Attempt {
                before: 1,
                until_ns,
            };
            attempt.append_to(&mut head, 2, 1_000_000_000);
            assert_eq!(String::from_utf8_lossy(&head), expected);
        }
    }
}
