//! What a count costs a shard, alone and while another shard counts beside it: slabs share no cache line, so that it
//! is the same (L6). Beside it what it would cost if two shards' counters lay side by side, which shows that the
//! machine and the measurement can tell.
//!
//! In CPU time of the counting thread. Meant for a quiet machine with two cores or more.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs
)]

use std::{
    hint::black_box,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use tidegate_core::{
    id::ShardId,
    limiter::{Priority, interface::InterfaceSlab},
    stats::{Counter, PerShard},
};

/// Requests that are counted; `cargo test` only sees that it runs.
const REQUESTS: u64 = if cfg!(debug_assertions) {
    10_000
} else {
    500_000_000
};
/// As often, of which the mean counts: the two threads have to run at the same time, which they do not always on a busy
/// machine. Where sharing a line costs nothing, they did not, and the figures say nothing.
const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 3 };

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

/// What a shard counts of a request that is let in and ends.
fn count(one: &Counter, two: &Counter) {
    black_box(one).add(1);
    black_box(two).add(1);
}

/// Nanoseconds per request of one thread that counts into `mine`, while another, if there is one, counts into its own.
fn measure(mine: [&Counter; 2], others: Option<[&Counter; 2]>) -> f64 {
    let is_over = AtomicBool::new(false);
    let both = Barrier::new(2);
    let round = || {
        both.wait();
        let began = cpu_time();
        (0..REQUESTS).for_each(|_| count(mine[0], mine[1]));
        let took = cpu_time() - began;
        both.wait();
        took.as_nanos() as f64 / REQUESTS as f64
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                is_over.store(false, Ordering::Relaxed);
                both.wait();
                thread::scope(|scope| {
                    let beside = others.map(|others| {
                        let is_over = &is_over;
                        scope.spawn(move || {
                            while !is_over.load(Ordering::Relaxed) {
                                (0..1_000).for_each(|_| count(others[0], others[1]));
                            }
                        })
                    });
                    both.wait();
                    is_over.store(true, Ordering::Relaxed);
                    drop(beside);
                });
            }
        });
        let rounds = (0..ROUNDS).map(|_| round());
        rounds.sum::<f64>() / ROUNDS as f64
    })
}

fn main() {
    let slabs: PerShard<InterfaceSlab> = PerShard::new(2);
    let of = |shard| {
        let counters = slabs.get(ShardId(shard)).unwrap().of(Priority::Normal);
        [&counters.admitted, &counters.completed]
    };
    let packed: [Counter; 4] = Default::default();
    let [a, b, c, d] = &packed;
    let alone = measure(of(0), None);
    let beside = measure(of(0), Some(of(1)));
    let on_one_line = measure([a, b], Some([c, d]));
    println!("a request counted, CPU ns: alone {alone:.2}");
    println!(
        "beside another shard       {beside:.2}  ({:.2} times)",
        beside / alone
    );
    println!(
        "if they shared a line      {on_one_line:.2}  ({:.2} times)",
        on_one_line / alone
    );
}
