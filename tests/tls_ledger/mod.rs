//! What the proof of zero loss stands on (E6, E12, E17): a ledger of numbered requests ([`Ledger`]), a load
//! that writes into it ([`load`]), a pair of proxies with a link between them that can be switched
//! ([`pair`]), and taps on that link that see what an eavesdropper would see ([`tap`]).
//!
//! A request is *lost* if its client got no answer, another status than 200 or another body than the one
//! that belongs to it, or if the origin saw it not exactly once. Nothing here retries anything.
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

pub mod load;
pub mod pair;
pub mod tap;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use load::{Load, Plan};
pub use pair::{Capability, Layout, Mesh, Pair};
pub use tap::{Kind, Tap};

use crate::common::{Origin, pattern, pause, wire::Wire};

/// Requests that one ledger has room for: an hour at more than 2,000 a second.
const REQUESTS_MAX: usize = 8 << 20;

/// How long an origin lets a slow answer rest between its halves, in milliseconds: longer than a handshake
/// and than the time between two switches, so that there is always something in flight on a link that is
/// being replaced.
const REST_MS: u64 = 30;

/// Every request by its number: how often the origin saw it, how often it was answered as it must be.
pub struct Ledger {
    next: AtomicU64,
    seen: Vec<AtomicU8>,
    answered: Vec<AtomicU8>,
    losses: Mutex<Vec<Loss>>,
    started: Instant,
    /// What is being done to the link now, for whoever reads about a loss.
    doing: Mutex<String>,
    /// Which of the caller's phases this is, for the latencies.
    phase: AtomicU16,
    filling: Vec<u8>,
}

/// A request that was not answered as it must be.
#[derive(Clone, Debug)]
pub struct Loss {
    pub id: u64,
    pub at: Duration,
    pub doing: String,
    pub what: String,
}

/// What kind of request a number is. All of it follows from the number.
#[derive(Clone, Copy)]
pub struct Numbered {
    pub id: u64,
    pub slow: bool,
}

impl Ledger {
    pub fn new() -> Arc<Ledger> {
        let counters = || (0..REQUESTS_MAX).map(|_| AtomicU8::new(0)).collect();
        Arc::new(Ledger {
            next: AtomicU64::new(0),
            seen: counters(),
            answered: counters(),
            losses: Mutex::new(Vec::new()),
            started: Instant::now(),
            doing: Mutex::new(String::from("nothing yet")),
            phase: AtomicU16::new(0),
            filling: pattern(64 << 10),
        })
    }

    /// The number of the next request.
    pub fn draw(&self, slow: bool) -> Numbered {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(id < REQUESTS_MAX as u64, "the ledger is full");
        Numbered { id, slow }
    }

    /// How many numbers were drawn.
    pub fn drawn(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Says what is done to the link from now on.
    pub fn doing(&self, what: impl Into<String>) {
        *self.doing.lock().unwrap() = what.into();
    }

    /// Latencies from now on are of this phase.
    pub fn enter_phase(&self, phase: u16) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    pub fn phase(&self) -> u16 {
        self.phase.load(Ordering::Relaxed)
    }

    /// An origin that notes every request when it has read all of it, and answers with what belongs to it.
    pub fn origin(self: &Arc<Ledger>) -> Origin {
        let ledger = self.clone();
        Origin::start(move |peer| {
            loop {
                match ledger.serve(&mut peer.wire) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn serve(&self, wire: &mut Wire) -> io::Result<()> {
        let head = wire.head()?;
        let numbered = Numbered::of(head.target())?;
        let (body, _) = wire.body(&head, false)?;
        self.seen[numbered.id as usize].fetch_add(1, Ordering::Relaxed);
        let answer = self.answer(numbered, &body);
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        )
        .into_bytes();
        if !numbered.slow {
            bytes.extend_from_slice(&answer);
            return wire.send(bytes);
        }
        let (first, second) = answer.split_at(answer.len() / 2);
        bytes.extend_from_slice(first);
        wire.send(bytes)?;
        pause(REST_MS);
        wire.send(second)
    }

    /// The bytes of a request, head and body.
    pub fn request(&self, numbered: Numbered) -> Vec<u8> {
        let body = self.request_body(numbered);
        let target = numbered.target();
        if body.is_empty() {
            return format!("GET {target} HTTP/1.1\r\nHost: ledger.example\r\n\r\n").into_bytes();
        }
        let mut bytes = format!(
            "POST {target} HTTP/1.1\r\nHost: ledger.example\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Every fourth is a POST, which no proxy may send twice; some of those fill several TLS records.
    pub fn request_body(&self, numbered: Numbered) -> &[u8] {
        let len = match numbered.id {
            id if id % 4 != 0 => 0,
            id if id % 5 == 0 => 20_000,
            _ => 100,
        };
        self.slice(numbered, len)
    }

    /// The answer that belongs to a request: a hash of its number and its body, then bytes that differ from
    /// number to number. Some fill several TLS records.
    pub fn answer(&self, numbered: Numbered, request_body: &[u8]) -> Vec<u8> {
        let mut answer = format!("{:016x}", hash(numbered.id, request_body)).into_bytes();
        let len = if numbered.id % 16 == 1 { 40_000 } else { 112 };
        answer.extend_from_slice(self.slice(numbered, len));
        answer
    }

    fn slice(&self, numbered: Numbered, len: usize) -> &[u8] {
        let from = (numbered.id % 9973) as usize;
        &self.filling[from..from + len]
    }

    /// Notes a right answer.
    pub fn note_answer(&self, numbered: Numbered) {
        self.answered[numbered.id as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a request that was lost.
    pub fn note_loss(&self, numbered: Numbered, what: String) {
        let loss = Loss {
            id: numbered.id,
            at: self.started.elapsed(),
            doing: self.doing.lock().unwrap().clone(),
            what,
        };
        self.losses.lock().unwrap().push(loss);
    }

    pub fn losses(&self) -> usize {
        self.losses.lock().unwrap().len()
    }

    /// Every request was answered once, as it must be, and was seen by the origin once. Call it when the
    /// load has ended.
    #[track_caller]
    pub fn assert_whole(&self) {
        let drawn = self.drawn() as usize;
        let losses = self.losses.lock().unwrap();
        let shown: String = losses.iter().take(12).map(|l| format!("\n  {l}")).collect();
        assert!(
            losses.is_empty(),
            "{} of {drawn} requests were lost:{shown}",
            losses.len()
        );
        let other_than_once = |counters: &[AtomicU8]| -> Vec<(usize, u8)> {
            let counts = counters[..drawn].iter().map(|c| c.load(Ordering::Relaxed));
            counts.enumerate().filter(|(_, n)| *n != 1).collect()
        };
        let answered = other_than_once(&self.answered);
        assert!(answered.is_empty(), "answered not once: {answered:?}");
        let seen = other_than_once(&self.seen);
        assert!(seen.is_empty(), "seen by the origin not once: {seen:?}");
        assert!(drawn > 0, "nothing was asked");
    }
}

impl Numbered {
    fn target(self) -> String {
        let kind = if self.slow { "slow" } else { "fast" };
        format!("/{kind}/{}", self.id)
    }

    fn of(target: &str) -> io::Result<Numbered> {
        let unknown = || io::Error::other(format!("no number in {target:?}"));
        let mut parts = target.split('/').skip(1);
        let slow = parts.next() == Some("slow");
        let id = parts.next().ok_or_else(unknown)?;
        let id = id.parse().map_err(|_| unknown())?;
        if id < REQUESTS_MAX as u64 {
            Ok(Numbered { id, slow })
        } else {
            Err(unknown())
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Loss {
            id,
            at,
            doing,
            what,
        } = self;
        write!(f, "{id} at {:.3} s, {doing}: {what}", at.as_secs_f64())
    }
}

/// FNV-1a, over the number and then the body.
fn hash(id: u64, body: &[u8]) -> u64 {
    let id = id.to_le_bytes();
    id.iter().chain(body).fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}
