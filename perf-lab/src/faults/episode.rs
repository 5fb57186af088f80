//! One fault: a fresh proxy is loaded, one of its endpoints falls sick at a moment that it cannot know,
//! is sick until it is left alone and some time longer, and recovers.
//!
//! Endpoints, clients and what leads them are one loop on one clock. It sleeps between events with the
//! kernel's resolution of a millisecond and does not spin, since several episodes may share a core.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clients::{Clients, Kind},
    clock::{Clock, Nanos},
    control::{Control, Phase},
    error::Error,
    load::arrivals::{Arrivals, Schedule, Spacing},
    measure::Bench,
    peer::{process::free_address, render::Setting},
    poll::{Poller, Token},
};

use super::{
    Contender, Row,
    analysis::{self, Outcome, Record, Span, Traffic},
    endpoints::Endpoints,
};

/// Losses are counted for this long from the fault on, whatever becomes of it later; so long it lasts
/// at least, which is enough for a trial or two.
pub const COUNTED: Nanos = Nanos::from_millis(3_000);
/// An endpoint takes traffic again with so many requests: one may be a trial that fails.
const HITS_OF_RETURN: usize = 3;
/// Between two looks at whether the endpoint is left alone, which reads all requests since the fault.
const LOOK_EVERY: Nanos = Nanos::from_millis(20);
/// The longest that the loop sleeps: it looks for phases and signals in between.
const TICK: Nanos = Nanos::from_millis(5);
/// Between two looks at whether the loop has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A client waits for an answer this long: longer than the proxies do, so that theirs still counts as
/// one.
const PATIENCE: Nanos = Nanos::from_millis(1_500);
const REQUEST: &[u8] = b"GET /b/128 HTTP/1.1\r\nHost: lab\r\n\r\n";

/// The times of an episode.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// From the first request to the fault.
    pub healthy: Nanos,
    /// The fault ends after this even if nobody has found it.
    pub bound: Nanos,
    /// The return is waited for at most so long.
    pub recovery: Nanos,
}

/// What an episode needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The proxy.
    pub contender: &'a Contender,
    /// The fault, and the load.
    pub row: Row,
    /// The times.
    pub course: Course,
    /// For arrivals, errors, and which endpoint it is.
    pub seed: u64,
}

/// Starts a proxy, loads it, and strikes one of its endpoints.
pub fn run(task: Task<'_>, name: &str, bench: &Bench) -> Result<Outcome, Error> {
    let stage = Stage::set(task.row, task.course, task.seed)?;
    let upstreams = stage.endpoints.addresses();
    let listen = free_address()?;
    let dir = bench.work.dir.join(name);
    let setting = Setting {
        // Those that hang hold one each for as long as the proxy waits.
        connections: 256 + 2 * task.row.requests_per_s() as usize,
        heal: task.contender.heal,
        ..bench.plain(listen, &upstreams, &dir)
    };
    let stage = Playing::begin(stage, listen)?;
    let peer = &task.contender.peer;
    let program = task.contender.program.as_path();
    let mut running = bench.start(peer, program, &setting)?;
    let record = stage.play(bench)?;
    running.check_alive()?;
    Ok(analysis::outcome(&record))
}

/// Endpoints and clients, and where the episode is.
struct Stage {
    row: Row,
    course: Course,
    seed: u64,
    poller: Poller,
    clock: Clock,
    endpoints: Endpoints,
    victim: usize,
}

/// A stage whose loop runs in a thread of its own, since the proxy's start needs endpoints that answer.
/// Dropping it ends the loop.
struct Playing {
    control: Arc<Control>,
    thread: Option<JoinHandle<Result<Record, Error>>>,
}

impl Playing {
    fn begin(stage: Stage, target: SocketAddr) -> Result<Playing, Error> {
        let control = Arc::new(Control::default());
        let followed = control.clone();
        let thread = thread::Builder::new()
            .name("lab-fault".to_owned())
            .spawn(move || stage.play(target, &followed))
            .map_err(Error::io("starting the load thread"))?;
        Ok(Playing {
            control,
            thread: Some(thread),
        })
    }

    fn play(mut self, bench: &Bench) -> Result<Record, Error> {
        self.control.enter(Phase::Measure);
        while self.thread.as_ref().is_some_and(|it| !it.is_finished()) {
            bench.interrupt.sleep(POLL_INTERVAL)?;
        }
        self.join()
    }

    fn join(&mut self) -> Result<Record, Error> {
        self.thread
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_else(|| Err(Error::Load("the load thread panicked".to_owned())))
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.control.enter(Phase::Stop);
        if self.thread.is_some() {
            let _ = self.join();
        }
    }
}

impl Stage {
    fn set(row: Row, course: Course, seed: u64) -> Result<Stage, Error> {
        let poller = Poller::new().map_err(Error::io("creating an epoll instance"))?;
        let endpoints = Endpoints::bind(row.endpoints, seed, &poller)?;
        Ok(Stage {
            row,
            course,
            seed,
            poller,
            clock: Clock::start(),
            endpoints,
            victim: fastrand::Rng::with_seed(seed).usize(..row.endpoints),
        })
    }

    /// The steps of an episode, one after the other.
    fn play(mut self, target: SocketAddr, control: &Control) -> Result<Record, Error> {
        while control.phase() == Phase::Origin {
            self.turn(None)?;
        }
        let start = self.clock.now();
        let mut clients = self.clients(target, start);
        let Course {
            healthy,
            bound,
            recovery,
        } = self.course;
        self.until(&mut clients, control, |_, _, now| now >= start + healthy)?;

        let struck = self.clock.now();
        self.endpoints.strike(self.victim, self.row.fault)?;
        let (least, most) = (struck + COUNTED.min(bound), struck + bound);
        self.until(&mut clients, control, |stage, clients, now| {
            now >= most || now >= least && stage.is_left_alone(clients, struck, now)
        })?;

        let recovered = self.clock.now();
        self.endpoints.recover(self.victim, &self.poller)?;
        let (last_fate, patience) = (least + PATIENCE, recovered + recovery);
        self.until(&mut clients, control, |stage, _, now| {
            now >= last_fate && (now >= patience || stage.returned(recovered).is_some())
        })?;
        Ok(Record {
            seed: self.seed,
            victim: self.victim,
            endpoints: self.row.endpoints,
            start,
            struck,
            recovered,
            counted_until: least,
            returned: self.returned(recovered),
            hits: self.endpoints.hits().to_vec(),
            requests: clients.requests().to_vec(),
        })
    }

    fn clients(&self, target: SocketAddr, start: Nanos) -> Clients {
        let arrivals = Arrivals {
            rate: self.row.requests_per_s(),
            spacing: Spacing::Poisson,
            seed: self.seed,
        };
        let kind = Kind {
            part: 1.0,
            request: REQUEST.to_vec(),
        };
        let schedule = Schedule::new(arrivals, start);
        Clients::new(target, schedule, vec![kind], PATIENCE, self.seed)
    }

    fn until(
        &mut self,
        clients: &mut Clients,
        control: &Control,
        is_over: impl Fn(&Stage, &Clients, Nanos) -> bool,
    ) -> Result<(), Error> {
        let mut look = self.clock.now();
        loop {
            if control.phase() == Phase::Stop {
                return Err(Error::Interrupted);
            }
            let now = self.clock.now();
            if now >= look {
                if is_over(self, clients, now) {
                    return Ok(());
                }
                look = now + LOOK_EVERY;
            }
            self.turn(Some(clients))?;
        }
    }

    fn turn(&mut self, mut clients: Option<&mut Clients>) -> Result<(), Error> {
        let now = self.clock.now();
        self.endpoints.turn(now);
        let mut next = now + TICK;
        if let Some(clients) = &mut clients {
            clients.turn(&self.poller, now);
            next = next.min(clients.next_due());
        }
        if let Some(ready) = self.endpoints.next_ready() {
            next = next.min(ready);
        }
        let count = self.poller.sleep_until(next, self.clock.now())?;
        for i in 0..count {
            match (self.poller.token(i), &mut clients) {
                (Some(Token::Accept(i)), _) => self.endpoints.accept(i, &self.poller),
                (Some(Token::Origin(slot)), _) => {
                    self.endpoints.on_event(slot, self.clock.now());
                }
                (Some(Token::Load(slot)), Some(clients)) => {
                    clients.on_event(slot, self.clock.now());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_left_alone(&self, clients: &Clients, struck: Nanos, now: Nanos) -> bool {
        let span = Span {
            from: struck,
            to: now,
        };
        let (hits, requests) = (self.endpoints.hits(), clients.requests());
        let traffic = Traffic {
            hits,
            requests,
            endpoints: self.row.endpoints,
        };
        traffic.left_alone(self.victim, span).is_some()
    }

    /// When the victim took traffic again, if it has.
    fn returned(&self, recovered: Nanos) -> Option<Nanos> {
        let hits = self.endpoints.hits();
        let since = hits.partition_point(|hit| hit.at < recovered);
        let of_victim = hits.iter().skip(since);
        let mut of_victim = of_victim.filter(|hit| hit.endpoint == self.victim);
        of_victim.nth(HITS_OF_RETURN - 1).map(|hit| hit.at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::faults::endpoints::Fault;

    /// Plays an episode of one endpoint with nothing in between.
    fn direct(fault: Fault) -> Outcome {
        let row = Row {
            fault,
            endpoints: 1,
            rate: 400,
        };
        let course = Course {
            healthy: Nanos::from_millis(100),
            bound: Nanos::from_millis(500),
            recovery: Nanos::from_millis(2_000),
        };
        let stage = Stage::set(row, course, 7).unwrap();
        let target = stage.endpoints.addresses().first().copied().unwrap();
        let control = Control::default();
        control.enter(Phase::Measure);
        analysis::outcome(&stage.play(target, &control).unwrap())
    }

    /// Goal: every fault shows at the clients as what it is, and ends. Method: an episode of half a second
    /// of each against the endpoint itself, which nobody takes out.
    #[test]
    fn faults_are_what_they_are() {
        for fault in [Fault::Reset, Fault::Hang, Fault::Errors, Fault::Slow] {
            let outcome = direct(fault);
            let lost = outcome.lost;
            let kinds = [lost.refused, lost.broken, lost.timed_out].map(|count| count > 0);
            let expected = match fault {
                // What hangs breaks at the end of the fault, before its client's patience does.
                Fault::Refuse | Fault::Reset | Fault::Hang => [false, true, false],
                Fault::Errors => [true, false, false],
                Fault::Slow => [false; 3],
            };
            assert_eq!(kinds, expected, "{fault:?}: {outcome:?}");
            assert!(outcome.due > 50, "{fault:?}: {outcome:?}");
            assert_eq!(outcome.last_ms, None, "{fault:?}: {outcome:?}");
            assert!(outcome.returned_ms.is_some(), "{fault:?}: {outcome:?}");
            let part = lost.all() as f64 / outcome.due as f64;
            let (least, most) = match fault {
                Fault::Errors => (0.15, 0.45),
                Fault::Slow => (0.0, 0.0),
                // All but those that a busy machine sends when the fault has passed.
                _ => (0.6, 1.0),
            };
            assert!((least..=most).contains(&part), "{fault:?}: {outcome:?}");
        }
    }
}
