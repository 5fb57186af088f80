//! What the behaviour suite stands on: a running `tidegate` ([`proxy`]), scripted origins ([`origin`]), a
//! client that sends exactly the bytes it is given ([`client`]), a naive reader of HTTP/1.1
//! messages ([`wire`]) that shares no code with the proxy's codec, and certificates with what speaks TLS
//! ([`tls`]).
//!
//! Nothing sleeps to wait for a thing: [`eventually`] polls for it. Time-outs under test are short
//! (hundreds of milliseconds); assertions say that something happened, never how soon.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

pub mod browser;
pub mod center;
pub mod client;
pub mod control_plane;
pub mod frames;
pub mod http2;
pub mod http2_origin;
pub mod origin;
pub mod peer;
pub mod proxy;
pub mod resources;
pub mod steering;
pub mod tls;
pub mod wire;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

pub use client::Client;
pub use origin::Origin;
pub use proxy::Proxy;
pub use wire::{Head, Response, Wire};

/// How long the suite waits for what must come: generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something, or panics with `what` after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        pause(5);
    }
}

/// Waits until a number stands still for a while: both sides have then filled what they could.
pub fn settled(counter: &AtomicUsize) -> usize {
    let mut last = (counter.load(Ordering::SeqCst), 0);
    eventually("a stalled transfer", || {
        pause(20);
        let now = counter.load(Ordering::SeqCst);
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        (last.1 >= 25 && now > 0).then_some(now)
    })
}

/// Paces a peer that is slow on purpose, or a poll. Nothing else in the suite sleeps.
#[allow(clippy::disallowed_methods)]
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Whether this run uses the smallest ring: 8 completions and 4 buffers a group.
pub fn small_ring() -> bool {
    std::env::var("TIDEGATE_TEST_RING").is_ok_and(|ring| ring == "small")
}

/// Bytes whose every window differs, so that a lost, doubled or swapped piece shows.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Compares without printing megabytes.
#[track_caller]
pub fn assert_same_bytes(got: &[u8], expected: &[u8]) {
    if got == expected {
        return;
    }
    let at = got
        .iter()
        .zip(expected)
        .position(|(a, b)| a != b)
        .unwrap_or(got.len().min(expected.len()));
    panic!(
        "bytes differ at {at} (lengths {} and {} expected)",
        got.len(),
        expected.len()
    );
}
