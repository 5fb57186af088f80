//! What shards share, in every order in which threads may see it (L6, L13): the slabs of counters, the spare slots
//! of a limit, the buckets of a rate limit. A model check, for which loom takes the place of the atomics:
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test --package tidegate-core --test races --release --target-dir target/loom
//! ```
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::time::Duration;

use loom::{model, sync::Arc, thread};
use tidegate_core::{
    id::ShardId,
    limiter::{
        bucket::{Buckets, Rate, Taken},
        decision::Spare,
    },
    stats::Counter,
};

/// Goal: a slab has one writer, and who reads it sees a number that it had, never less than before (L6). Method: a
/// shard counts while the coordinator reads twice.
#[test]
fn counters_only_grow() {
    model(|| {
        let counter = Arc::new(Counter::default());
        let writer = counter.clone();
        let shard = thread::spawn(move || {
            writer.add(1);
            writer.add(2);
        });
        let (first, second) = (counter.get(), counter.get());
        assert!([0, 1, 3].contains(&first) && [0, 1, 3].contains(&second));
        assert!(second >= first);
        shard.join().unwrap();
        assert_eq!(counter.get(), 3);
    });
}

/// Goal: a spare slot is lent once, and comes back (L6). Method: two shards borrow the last one and give it back.
#[test]
fn spare_slots_are_lent_once() {
    model(|| {
        let spare = Arc::new(Spare::default());
        spare.set(1);
        let other = spare.clone();
        let shard = thread::spawn(move || other.borrow());
        let here = spare.borrow();
        let there = shard.join().unwrap();
        assert!(!(here && there), "one slot, two requests");
        assert!(here || there, "a slot that nobody could have");
        spare.give_back();
        assert!(spare.borrow());
        assert!(!spare.borrow());
    });
}

/// Goal: slots in use exceed a limit by no more than what was borrowed while it was set (L6). Method: the
/// coordinator sets two slots while a shard borrows from one; afterwards no more than three are out.
#[test]
fn limits_are_set_beside_borrowers() {
    model(|| {
        let spare = Arc::new(Spare::default());
        spare.set(1);
        let other = spare.clone();
        let shard = thread::spawn(move || u32::from(other.borrow()) + u32::from(other.borrow()));
        spare.set(2);
        let mut lent = shard.join().unwrap();
        while spare.borrow() {
            lent += 1;
        }
        // One attempt each: who loses a race refuses, so that it may be fewer.
        assert!(lent <= 3, "{lent}");
    });
}

/// Goal: what was lent before a limit was lowered is not lent again when it comes back (L6). Method: one is out,
/// the limit becomes none; the shard that has it gives it back and asks again.
#[test]
fn lowered_limits_take_back() {
    model(|| {
        let spare = Arc::new(Spare::default());
        spare.set(1);
        assert!(spare.borrow());
        spare.set(-1);
        let other = spare.clone();
        let shard = thread::spawn(move || {
            other.give_back();
            other.borrow()
        });
        assert!(!spare.borrow());
        assert!(!shard.join().unwrap());
    });
}

/// Goal: a token is given once (L13). Method: two shards at one bucket with one token, told apart by a key; and at
/// the only bucket of a limit.
#[test]
fn tokens_are_given_once() {
    for keys in [8, 1] {
        model(move || {
            let rate = Rate {
                requests: 1,
                per: Duration::from_secs(3600),
                burst: 1,
            };
            let buckets = Arc::new(Buckets::new(rate, keys, 2));
            let now = 1_000_000_000_000_000;
            let other = buckets.clone();
            let shard = thread::spawn(move || other.take(ShardId(1), 0, now) == Taken::Admit);
            let here = buckets.take(ShardId(0), 0, now) == Taken::Admit;
            let there = shard.join().unwrap();
            assert!(here != there, "{here} {there}");
        });
    }
}
