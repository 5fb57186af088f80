//! Plain limits: so many requests in so much time, over all shards together (L13).
//!
//! A token bucket, kept as one number: the time at which it will be full again. That is the *theoretical
//! arrival time* of the generic cell rate algorithm (GCRA, ITU-T I.371), which is the same bucket told
//! otherwise. A request moves it on by the time that a token takes to come back, and is over the limit if
//! that would lie further ahead than the whole burst takes:
//!
//! ```text
//! full = max(full, now) + token          now             full            now + burst · token
//! admit if full <= now + burst · token    |── tokens taken ──|── tokens left ──|
//! ```
//!
//! So a bucket that nobody has taken from for long enough is the same as none, and needs no room: a table of
//! fixed size serves any number of clients, none is ever swept, and one word holds a whole bucket, so that
//! all shards share it with one compare-and-swap. Where a limit has one bucket only, that word would be
//! written with every request; there a shard takes tokens in small lots.

use std::time::Duration;

use crate::{
    id::ShardId,
    stats::{PerShard, RateLimitCounters},
    sync::{AtomicU64, Ordering::Relaxed},
};

/// Requests that a bucket may let in at once.
pub const BURST_MAX: u32 = 1 << 24;
/// Buckets of one limit.
pub const KEYS_MAX: u32 = 1 << 24;
/// Requests a second that a limit may ask for: more could not be told apart on the clock of a bucket.
pub const RATE_MAX: u64 = 1_000_000;

/// What a bucket is the limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back…
    pub requests: u32,
    /// …in this time, which is not zero.
    pub per: Duration,
    /// Tokens of a full bucket, at least one.
    pub burst: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It has its token.
    Admit,
    /// There was none.
    Limited {
        /// When there will be one.
        retry_after: Duration,
    },
}

/// Time is counted in parts of a token, so that any rate has the same precision.
const TOKEN: u64 = 256;
/// The time of a bucket, in its word below its tag. It wraps; what is meant is known, since a bucket is full
/// at most [`BURST_MAX`] tokens from now.
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Buckets in which a key may be found: one cache line.
const WAYS: usize = 8;
/// A shard's lot is at most this part of the burst, over all shards: what may be let in on top of a limit.
const LOTS: u32 = 16;

/// What the clocks of two shards may differ by: far more than they do.
const SKEW_NS: u64 = 1_000_000_000;

/// One limit: its buckets, by key.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    clock: Clock,
    /// In parts of a token, how far ahead an empty bucket's time lies.
    burst: u64,
    /// In parts of a token, how much further it may seem to lie to a shard whose clock is behind.
    skew: u64,
    /// Tokens that a shard takes from the only bucket at once; 1 where there are several buckets.
    lot: u64,
    /// A power of two of them.
    sets: Box<[Set]>,
    /// By shard.
    pub counters: PerShard<RateLimitCounters>,
}

/// The buckets among which a key has its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl Buckets {
    /// Full buckets for about `keys` keys: one key is one bucket for all that come.
    pub fn new(rate: Rate, keys: u32, shards: usize) -> Buckets {
        let sets = u64::from(keys).div_ceil(WAYS as u64).next_power_of_two();
        let shard_count = shards.max(1) as u64;
        let lot = match keys {
            ..=1 => u64::from(rate.burst / LOTS) / shard_count,
            _ => 1,
        };
        let clock = Clock::new(rate);
        Buckets {
            rate,
            clock,
            skew: clock.at(SKEW_NS),
            burst: u64::from(rate.burst.max(1)) * TOKEN,
            lot: lot.max(1),
            sets: (0..sets).map(|_| Set::default()).collect(),
            counters: PerShard::new(shards),
        }
    }

    /// What it is the limit of.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token of the bucket of `key`, which is a hash with a key of its own: clients choose what is
    /// hashed. `now_ns` is a clock that all shards share.
    pub fn take(&self, shard: ShardId, key: u64, now_ns: u64) -> Taken {
        let Some(counters) = self.counters.get(shard) else {
            return Taken::Admit;
        };
        if counters.lot.get() > 0 {
            counters.lot.sub(1);
            return Taken::Admit;
        }
        let now = self.clock.at(now_ns);
        match self.take_shared(key, now) {
            Ok((tokens, is_evicted)) => {
                counters.lot.set(tokens - 1);
                counters.evicted.add(u64::from(is_evicted));
                Taken::Admit
            }
            Err(missing) => Taken::Limited {
                retry_after: self.clock.duration(missing),
            },
        }
    }

    /// Takes up to a lot. `Err` is how long there is no token, in parts of one.
    fn take_shared(&self, key: u64, now: u64) -> Result<(u64, bool), u64> {
        let Some(set) = self.sets.get(key as usize & (self.sets.len() - 1)) else {
            return Ok((1, false));
        };
        let tag = (key >> TIME_BITS).max(1);
        loop {
            let place = self.place(set, tag, now);
            let left = self.burst.saturating_sub(place.ahead);
            let tokens = (left / TOKEN).min(self.lot);
            if tokens == 0 {
                return Err(place.ahead + TOKEN - self.burst);
            }
            let full = now.wrapping_add(place.ahead + tokens * TOKEN) & TIME_MASK;
            let new = tag << TIME_BITS | full;
            let swapped = place
                .word
                .compare_exchange_weak(place.seen, new, Relaxed, Relaxed);
            // Who loses looks again: another shard has taken tokens meanwhile.
            if swapped.is_ok() {
                return Ok((tokens, place.is_evicted));
            }
        }
    }

    /// The bucket of `tag`; else a full one; else the one that will be full first, whose client so gets its
    /// burst once more. Two shards that look at the same time may give a key two buckets, once.
    fn place<'a>(&self, set: &'a Set, tag: u64, now: u64) -> Place<'a> {
        let look = |word: &'a AtomicU64| {
            let seen = word.load(Relaxed);
            (word, seen, self.ahead(seen, now))
        };
        let [first, rest @ ..] = &set.0;
        let mut fullest = look(first);
        for word in [first].into_iter().chain(rest) {
            let (word, seen, ahead) = look(word);
            if seen >> TIME_BITS == tag {
                return Place {
                    word,
                    seen,
                    ahead,
                    is_evicted: false,
                };
            }
            if ahead < fullest.2 {
                fullest = (word, seen, ahead);
            }
        }
        let (word, seen, ahead) = fullest;
        Place {
            word,
            seen,
            ahead: 0,
            is_evicted: ahead > 0,
        }
    }

    /// How far ahead the time of a bucket lies; 0 if it is full.
    fn ahead(&self, word: u64, now: u64) -> u64 {
        let ahead = (word & TIME_MASK).wrapping_sub(now) & TIME_MASK;
        // Anything further is a time gone by.
        if ahead <= self.burst + self.skew {
            ahead
        } else {
            0
        }
    }
}

/// Where a key has its bucket.
struct Place<'a> {
    word: &'a AtomicU64,
    seen: u64,
    ahead: u64,
    /// It was another key's, and not full.
    is_evicted: bool,
}

/// Time in parts of a token.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Parts of a token in a nanosecond, times 2^64.
    parts_per_ns: u64,
    /// Nanoseconds that `requests` tokens take.
    per_ns: u64,
    requests: u64,
}

impl Clock {
    fn new(rate: Rate) -> Clock {
        let per_ns = u64::try_from(rate.per.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let requests = u64::from(rate.requests).max(1);
        let parts = (u128::from(requests * TOKEN) << 64) / u128::from(per_ns);
        Clock {
            parts_per_ns: u64::try_from(parts).unwrap_or(u64::MAX),
            per_ns,
            requests,
        }
    }

    /// In parts of a token, without those above the bits of a bucket.
    fn at(&self, now_ns: u64) -> u64 {
        ((u128::from(now_ns) * u128::from(self.parts_per_ns)) >> 64) as u64 & TIME_MASK
    }

    fn duration(&self, parts: u64) -> Duration {
        let ns = u128::from(parts) * u128::from(self.per_ns);
        let ns = ns.div_ceil(u128::from(self.requests * TOKEN));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const SHARD: ShardId = ShardId(0);
    const SECOND: u64 = 1_000_000_000;
    /// A time like those of the process: far from zero, where buckets begin.
    const NOW: u64 = 1_800_000_000 * SECOND;

    fn rate(requests: u32, per_s: u64, burst: u32) -> Rate {
        Rate {
            requests,
            per: Duration::from_secs(per_s),
            burst,
        }
    }

    fn admitted(buckets: &Buckets, key: u64, times: usize, now: u64) -> usize {
        let take = |_: &usize| buckets.take(SHARD, key, now) == Taken::Admit;
        (0..times).filter(take).count()
    }

    /// Goal: a burst at once, then the rate, and a refusal says when it is worth coming back (L13). Method:
    /// known times, at the limit and one above.
    #[test]
    fn burst_then_rate() {
        let buckets = Buckets::new(rate(10, 1, 5), 64, 1);
        assert_eq!(admitted(&buckets, 7, 6, NOW), 5);
        let Taken::Limited { retry_after } = buckets.take(SHARD, 7, NOW) else {
            panic!("over its burst");
        };
        assert!(
            (99..=101).contains(&retry_after.as_millis()),
            "{retry_after:?}"
        );
        let back = NOW + retry_after.as_nanos() as u64;
        assert_eq!(admitted(&buckets, 7, 2, back), 1);
        assert_eq!(
            admitted(&buckets, 7, 12, NOW + 60 * SECOND),
            5,
            "full again"
        );
    }

    /// Goal: one client's requests are not another's (L13). Method: one is over its limit, a thousand others
    /// take their burst and no more; in a table with room none loses its bucket.
    #[test]
    fn keys_have_buckets_of_their_own() {
        let buckets = Buckets::new(rate(1, 60, 3), 1 << 14, 1);
        let keys = (0..1000u64).map(crate::steering::mix);
        for key in keys.clone() {
            assert_eq!(admitted(&buckets, key, 5, NOW), 3);
        }
        for key in keys {
            assert_eq!(admitted(&buckets, key, 1, NOW), 0);
        }
        let evicted = buckets.counters.sum(|counters| counters.evicted.get());
        assert_eq!(evicted, 0);
    }

    /// Goal: a peer that makes up keys costs no memory, and what it does to others is counted. Method: ten
    /// times as many keys as buckets; the table stays, evictions are counted; afterwards it is as new.
    #[test]
    fn made_up_keys_push_out_others() {
        let buckets = Buckets::new(rate(1, 1, 2), 64, 1);
        for key in 0..640u64 {
            assert_eq!(admitted(&buckets, crate::steering::mix(key), 1, NOW), 1);
        }
        let evicted = || buckets.counters.sum(|counters| counters.evicted.get());
        assert_eq!(buckets.sets.len() * WAYS, 64);
        assert!(evicted() >= 640 - 64, "{}", evicted());
        let before = evicted();
        for key in 0..8u64 {
            admitted(&buckets, crate::steering::mix(key), 1, NOW + 10 * SECOND);
        }
        assert_eq!(evicted(), before, "buckets that are full again are free");
    }

    /// Goal: shards share one limit, and hoard at most a sixteenth of the burst (L13). Method: four shards
    /// with all the requests in turn, and one alone.
    #[test]
    fn shards_share_a_limit() {
        let buckets = Buckets::new(rate(1000, 1, 640), 1, 4);
        let mut all = 0;
        for i in 0..4000u16 {
            let taken = buckets.take(ShardId(i % 4), 0, NOW);
            all += u32::from(taken == Taken::Admit);
        }
        assert_eq!(all, 640);
        let alone = Buckets::new(rate(1000, 1, 640), 1, 4);
        alone.take(ShardId(3), 0, NOW);
        let left = admitted(&alone, 0, 1000, NOW);
        assert!((600..640).contains(&left), "{left}");
    }

    /// Goal: a shard whose clock is a little behind does not take an empty bucket for a full one. Method: the
    /// same bucket at an earlier time.
    #[test]
    fn clocks_may_differ() {
        let buckets = Buckets::new(rate(100, 1, 10), 64, 2);
        assert_eq!(admitted(&buckets, 5, 10, NOW), 10);
        let earlier = buckets.take(ShardId(1), 5, NOW - 5_000_000);
        assert!(matches!(earlier, Taken::Limited { .. }), "{earlier:?}");
    }

    proptest! {
        /// Goal: over any time no more than burst and rate allow, and no less than the rate (L13). Method:
        /// any rate and arrivals, against the bucket as it is usually told: tokens that drip.
        #[test]
        fn agrees_with_a_bucket_that_drips(
            requests in 1u32..1000,
            per_ms in 1u64..100_000,
            burst in 1u32..500,
            gaps in prop::collection::vec(0u64..200_000_000, 1..300),
        ) {
            let rate = Rate { requests, per: Duration::from_millis(per_ms), burst };
            let buckets = Buckets::new(rate, 64, 1);
            let per_ns = f64::from(requests) / (per_ms as f64 * 1e6);
            let (mut now, mut tokens) = (NOW, f64::from(burst));
            // What rounding a time to parts of a token may make of it.
            let slack = 4.0 / TOKEN as f64;
            for gap in gaps {
                now += gap;
                tokens = (tokens + gap as f64 * per_ns).min(f64::from(burst));
                let admits = buckets.take(SHARD, 9, now) == Taken::Admit;
                prop_assert!(!admits || tokens >= 1.0 - slack, "let in with {tokens} tokens");
                prop_assert!(admits || tokens <= 1.0 + slack, "refused with {tokens} tokens");
                if admits {
                    tokens -= 1.0;
                }
            }
        }
    }
}
