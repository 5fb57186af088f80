//! A load of numbered requests: a thread per connection, keep-alive, each request paced by the clock of its
//! connection. A latency counts from the time at which the request was due, so that one that had to wait
//! behind a slow one shows the wait (no coordinated omission).

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Ledger, Numbered};
use crate::common::{pause, wire::Wire};

/// Requests after which a client makes a new connection, as clients do. One in eight makes one for each.
const REQUESTS_PER_CONNECTION: [u32; 8] = [1, 400, 400, 400, 400, 400, 400, 400];

/// How much is asked.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Connections that ask for quick answers.
    pub quick: usize,
    /// Connections that ask for answers with a rest in the middle; they have no pace.
    pub slow: usize,
    /// Of all quick connections together.
    pub requests_per_s: f64,
}

/// A running load.
pub struct Load {
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Latencies>>,
    started: Instant,
}

/// Latencies of quick requests by phase, in microseconds.
#[derive(Default)]
pub struct Latencies(BTreeMap<u16, Vec<u32>>);

/// What a load came to.
pub struct Outcome {
    pub requests: u64,
    pub seconds: f64,
    pub latencies: Latencies,
}

impl Load {
    pub fn start(ledger: &Arc<Ledger>, address: SocketAddr, plan: Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_secs_f64(plan.quick as f64 / plan.requests_per_s);
        let started = Instant::now();
        let spawn = |number: usize| {
            let slow = number >= plan.quick;
            let mut client = Connection {
                ledger: ledger.clone(),
                address,
                slow,
                wire: None,
                uses: 0,
                uses_max: REQUESTS_PER_CONNECTION[number % 8],
            };
            let stop = stop.clone();
            // Spread over the interval, or all would ask at once.
            let first = started + interval.mul_f64(number as f64 / plan.quick as f64);
            thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || client.run(first, interval, &stop))
                .unwrap()
        };
        Load {
            threads: (0..plan.quick + plan.slow).map(spawn).collect(),
            ledger: ledger.clone(),
            stop,
            started,
        }
    }

    /// Waits until `n` more requests were begun: what a test does in between meets traffic.
    #[track_caller]
    pub fn pass(&self, n: u64) {
        let until = self.ledger.drawn() + n;
        crate::common::eventually("more requests", || {
            (self.ledger.drawn() >= until).then_some(())
        });
    }

    /// Lets every request that was begun come to its end.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        let mut latencies = Latencies::default();
        for thread in self.threads {
            latencies.add(thread.join().unwrap());
        }
        Outcome {
            requests: self.ledger.drawn(),
            seconds,
            latencies,
        }
    }
}

/// One client.
struct Connection {
    ledger: Arc<Ledger>,
    address: SocketAddr,
    slow: bool,
    wire: Option<Wire>,
    uses: u32,
    uses_max: u32,
}

impl Connection {
    fn run(&mut self, first: Instant, interval: Duration, stop: &AtomicBool) -> Latencies {
        let mut latencies = Latencies::default();
        let mut due = first;
        while !stop.load(Ordering::Relaxed) {
            if !self.slow {
                wait_until(due);
            }
            let numbered = self.ledger.draw(self.slow);
            match self.exchange(numbered) {
                Ok(()) => self.ledger.note_answer(numbered),
                Err(error) => {
                    self.ledger.note_loss(numbered, error.to_string());
                    self.wire = None;
                    // Whatever is wrong will not be right at once; no storm.
                    pause(5);
                }
            }
            if !self.slow {
                latencies.note(self.ledger.phase(), due.elapsed());
                due += interval;
            }
        }
        latencies
    }

    fn exchange(&mut self, numbered: Numbered) -> io::Result<()> {
        if self.uses == self.uses_max {
            self.wire = None;
        }
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => {
                self.uses = 0;
                Wire::new(TcpStream::connect(self.address)?)
            }
        };
        self.uses += 1;
        let request = self.ledger.request(numbered);
        wire.send(&request)?;
        let response = wire.response("GET")?;
        if response.status != 200 {
            let reason = response.reason().unwrap_or("no reason").to_owned();
            let status = response.status;
            return Err(io::Error::other(format!(
                "status {status}, {reason}: {}",
                response.text().trim_end()
            )));
        }
        let expected = self
            .ledger
            .answer(numbered, self.ledger.request_body(numbered));
        if response.body != expected {
            return Err(io::Error::other("the body of another request"));
        }
        let close = response.head.get("connection");
        if !close.is_some_and(|options| options.eq_ignore_ascii_case("close")) {
            self.wire = Some(wire);
        }
        Ok(())
    }
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        #[allow(clippy::disallowed_methods)]
        thread::sleep(left);
    }
}

impl Latencies {
    fn note(&mut self, phase: u16, latency: Duration) {
        let us = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        self.0.entry(phase).or_default().push(us);
    }

    fn add(&mut self, other: Latencies) {
        for (phase, latencies) in other.0 {
            self.0.entry(phase).or_default().extend(latencies);
        }
    }

    /// How many of a phase there are, and its percentiles 50, 99 and 99.9 in microseconds.
    pub fn of(&mut self, phase: u16) -> (usize, [u32; 3]) {
        let latencies = self.0.entry(phase).or_default();
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            let last = latencies.len().saturating_sub(1);
            latencies.get(index.min(last)).copied().unwrap_or(0)
        };
        (latencies.len(), [at(0.5), at(0.99), at(0.999)])
    }
}
