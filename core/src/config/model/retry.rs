//! Further tries of a request: behind one that has failed, and beside one that goes on.

use std::time::Duration;

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// On these outcomes.
    pub on: RetryOn,
    /// At most this often.
    pub times: u8,
    /// Retries in flight per shard, as a share of the route's active requests, in basis points;
    /// at least `Retry::BUDGET_MIN` are always allowed.
    pub budget: u32,
    /// For each try; `None` leaves only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// The first pause; doubled for each further try, with full jitter. Zero tries at once.
    pub backoff: Duration,
    /// Bytes of a request's body that are kept for another try, framing included.
    pub buffer: u32,
}

impl Retry {
    /// Retries that are allowed whatever the budget says, so that a quiet service can retry at all.
    pub const BUDGET_MIN: u32 = 3;
}

/// The outcomes on which a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// The connection could not be made.
    pub connect: bool,
    /// The connection broke before a byte of the answer; only methods that are idempotent.
    pub reset: bool,
    /// The try ran into `per_try_timeout`; only methods that are idempotent.
    pub timeout: bool,
    /// These statuses.
    pub statuses: Vec<u16>,
    /// These statuses of gRPC, of calls of it.
    pub grpc_statuses: Vec<u8>,
}

impl RetryOn {
    /// The words for statuses of gRPC, with their numbers: Envoy's.
    pub const GRPC: [(&str, u8); 5] = [
        ("cancelled", 1),
        ("deadline-exceeded", 4),
        ("internal", 13),
        ("resource-exhausted", 8),
        ("unavailable", 14),
    ];

    /// The words of the outcomes that have one, statuses of HTTP aside.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let plain = [
            ("connect", self.connect),
            ("reset", self.reset),
            ("timeout", self.timeout),
        ];
        let grpc = RetryOn::GRPC.map(|(word, status)| (word, self.grpc_statuses.contains(&status)));
        let all = plain.into_iter().chain(grpc);
        all.filter_map(|(word, is_on)| is_on.then_some(word))
    }
}

/// When a request is tried on another endpoint while a try goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// From a try to the next beside it.
    pub delay: Duration,
    /// Further tries beside the first, at most.
    pub times: u8,
    /// Hedged requests and retries in flight, as [`Retry::budget`].
    pub budget: u32,
    /// Also of requests whose method is not safe.
    pub unsafe_methods: bool,
    /// Bytes of a request's body that are kept for the tries beside it, framing included.
    pub buffer: u32,
}
