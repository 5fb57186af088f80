//! What the calls of an endpoint came to, by class, as shards count it and as the coordinator reads it.
//!
//! A shard counts into its own [`EndpointCounters`] and nothing else; a [`Tally`] remembers what it read at
//! the last tick, and the difference is one tick's [`Calls`] (H1, H2).

use super::detector::Calls;
use crate::{
    sketch,
    stats::{Counter, EndpointCounters, PerShard},
};

/// What a call failed of (H2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer's status is 5xx, and none of the next.
    Status,
    /// The answer's status is 502, 503 or 504: something behind the endpoint, or in it, is not there.
    Gateway,
    /// The endpoint's own proxy refused for overload: a fault only of a node that is overloaded alone (H13).
    Overloaded,
    /// The connection was refused, or failed otherwise.
    Connect,
    /// The connection was not made in time.
    ConnectTimeout,
    /// The TLS handshake failed, or a secret was missing.
    Tls,
    /// The connection ended before the answer was complete.
    Reset,
    /// The answer broke the protocol.
    Protocol,
    /// No answer within the deadline.
    Deadline,
}

impl Fault {
    /// Every class.
    pub const ALL: [Fault; 9] = [
        Fault::Status,
        Fault::Gateway,
        Fault::Overloaded,
        Fault::Connect,
        Fault::ConnectTimeout,
        Fault::Tls,
        Fault::Reset,
        Fault::Protocol,
        Fault::Deadline,
    ];

    /// The word in reports: that of the counter.
    pub const fn word(self) -> &'static str {
        match self {
            Fault::Status => "failed_5xx",
            Fault::Gateway => "failed_gateway",
            Fault::Overloaded => "failed_overloaded",
            Fault::Connect => "failed_connect",
            Fault::ConnectTimeout => "failed_connect_timeout",
            Fault::Tls => "failed_tls",
            Fault::Reset => "failed_reset",
            Fault::Protocol => "failed_protocol",
            Fault::Deadline => "failed_deadline",
        }
    }

    /// Whether a process that is up does not show it.
    pub const fn is_hard(self) -> bool {
        !matches!(self, Fault::Status | Fault::Gateway | Fault::Overloaded)
    }
}

impl EndpointCounters {
    /// Counts an answer that is no failure, whose head came after `latency_ns`.
    #[inline]
    pub fn succeed(&self, latency_ns: u64) {
        self.succeeded.add(1);
        self.failures_in_row.set(0);
        if let Some(bucket) = self.latency.get(sketch::bucket(latency_ns)) {
            bucket.add(1);
        }
    }

    /// Counts a failure. Says how many hard ones there were in a row, this one included.
    pub fn fail(&self, fault: Fault) -> u64 {
        self.failures(fault).add(1);
        if fault.is_hard() {
            self.failures_in_row.add(1);
        }
        self.failures_in_row.get()
    }

    /// Failures of one class.
    pub const fn failures(&self, fault: Fault) -> &Counter {
        match fault {
            Fault::Status => &self.failed_5xx,
            Fault::Gateway => &self.failed_gateway,
            Fault::Overloaded => &self.failed_overloaded,
            Fault::Connect => &self.failed_connect,
            Fault::ConnectTimeout => &self.failed_connect_timeout,
            Fault::Tls => &self.failed_tls,
            Fault::Reset => &self.failed_reset,
            Fault::Protocol => &self.failed_protocol,
            Fault::Deadline => &self.failed_deadline,
        }
    }

    fn failed_hard(&self) -> u64 {
        let hard = Fault::ALL.iter().filter(|fault| fault.is_hard());
        hard.map(|fault| self.failures(*fault).get()).sum()
    }
}

/// What one shard's counters said at the last tick.
#[derive(Clone, Copy, Debug)]
struct Seen {
    succeeded: u64,
    failed_status: u64,
    failed_gateway: u64,
    failed_overloaded: u64,
    failed_hard: u64,
    trials_succeeded: u64,
    trials_failed: u64,
    rows: [u64; 3],
    latency: [u64; sketch::BUCKETS],
}

impl Seen {
    fn of(counters: &EndpointCounters) -> Seen {
        let mut latency = [0; sketch::BUCKETS];
        for (to, from) in latency.iter_mut().zip(&counters.latency) {
            *to = from.get();
        }
        Seen {
            succeeded: counters.succeeded.get(),
            failed_status: counters.failed_5xx.get(),
            failed_gateway: counters.failed_gateway.get(),
            failed_overloaded: counters.failed_overloaded.get(),
            failed_hard: counters.failed_hard(),
            trials_succeeded: counters.trials_succeeded.get(),
            trials_failed: counters.trials_failed.get(),
            rows: counters.rows().map(|row| row.full.get()),
            latency,
        }
    }
}

/// Reads an endpoint's counters tick by tick.
#[derive(Clone, Debug)]
pub struct Tally {
    shards: Vec<Seen>,
    /// Calls of the last tick, by shard.
    totals: Vec<u64>,
}

impl Tally {
    /// Begins now: what was counted before belongs to no tick.
    pub fn new(counters: &PerShard<EndpointCounters>) -> Tally {
        Tally {
            shards: counters.iter().map(Seen::of).collect(),
            totals: vec![0; counters.len()],
        }
    }

    /// What was counted since the last step, over all shards.
    pub fn step(&mut self, counters: &PerShard<EndpointCounters>) -> Calls {
        let mut calls = Calls::default();
        let mut buckets = [0; sketch::BUCKETS];
        let mut trailing = None;
        let shards = self.shards.iter_mut().zip(&mut self.totals);
        for ((seen, total), counters) in shards.zip(counters.iter()) {
            let now = Seen::of(counters);
            let since = |read: fn(&Seen) -> u64| read(&now).saturating_sub(read(seen));
            let succeeded = since(|s| s.succeeded);
            let overloaded = since(|s| s.failed_overloaded);
            let hard = since(|s| s.failed_hard);
            let (status, gateway) = (since(|s| s.failed_status), since(|s| s.failed_gateway));
            let failed = hard + overloaded + status + gateway;
            *total = succeeded + failed;
            calls.succeeded += succeeded;
            calls.failed += failed;
            calls.failed_hard += hard;
            calls.failed_gateway += gateway;
            calls.overloaded += overloaded;
            calls.waiting += counters.requests_waiting.get();
            calls.trials_succeeded += since(|s| s.trials_succeeded);
            calls.trials_failed += since(|s| s.trials_failed);
            if succeeded > 0 {
                let in_row = counters.failures_in_row.get();
                // Which shard's success was the last is not known: the kindest reading.
                trailing = Some(trailing.map_or(in_row, |least: u64| least.min(in_row)));
            }
            // What ends each kind of row: see `outlier`.
            let ends = [succeeded, succeeded + status, succeeded + status + gateway];
            let rows = counters.rows().into_iter().zip(ends).zip(seen.rows);
            for (calls, ((row, ends), full)) in calls.rows.iter_mut().zip(rows) {
                calls.full += row.full.get().saturating_sub(full);
                if ends > 0 {
                    let length = row.length.get();
                    calls.trailing = Some(calls.trailing.map_or(length, |one| one.min(length)));
                }
            }
            let pairs = now.latency.iter().zip(&seen.latency);
            for (bucket, (new, old)) in buckets.iter_mut().zip(pairs) {
                *bucket += new.saturating_sub(*old);
            }
            *seen = now;
        }
        calls.trailing = trailing.unwrap_or(calls.failed_hard);
        calls.latency_s = sketch::quantile_s(&buckets, 0.5);
        calls
    }

    /// Calls of the last tick, by shard.
    pub fn totals(&self) -> &[u64] {
        &self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ShardId;

    /// Goal: a tick holds what was counted in it, by class, over all shards (H2). Method: two shards, counts
    /// before the first tick, in it, and none in the next.
    #[test]
    fn ticks_hold_differences() {
        let counters: PerShard<EndpointCounters> = PerShard::new(2);
        let shard = |k| counters.get(ShardId(k)).unwrap_or_else(|| unreachable!());
        shard(0).succeed(1_000_000);
        let mut tally = Tally::new(&counters);
        (0..3).for_each(|_| shard(0).succeed(2_000_000));
        shard(1).fail(Fault::Connect);
        shard(1).fail(Fault::Status);
        shard(1).fail(Fault::Overloaded);
        assert_eq!(shard(1).fail(Fault::Reset), 2);
        let calls = tally.step(&counters);
        assert_eq!(
            (
                calls.succeeded,
                calls.failed,
                calls.failed_hard,
                calls.overloaded
            ),
            (3, 4, 2, 1)
        );
        // The shard that saw a success saw no failure since.
        assert_eq!(calls.trailing, 0);
        assert_eq!(tally.totals(), [3, 4]);
        let median = calls.latency_s.unwrap_or_default();
        assert!((0.002..0.0032).contains(&median), "{median}");
        assert_eq!(tally.step(&counters).total(), 0);
        shard(1).succeed(1);
        assert_eq!(shard(1).fail(Fault::Deadline), 1, "a success ends a row");
    }
}
