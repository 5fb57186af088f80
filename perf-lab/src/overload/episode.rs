//! One step: a fresh application behind a fresh proxy is asked for half of what it can do, then at once
//! for a multiple of it.
//!
//! Fresh, since an application that was overloaded without protection has work for a minute that nobody
//! waits for any more, which would be the next step's.

use super::{
    CLASSES, Contender, OBJECTIVE, SETTLE,
    analysis::Record,
    application::{Application, Needs},
    kinds,
};
use crate::{
    clients::Clients,
    clock::{Clock, Nanos},
    cost::Sample,
    error::Error,
    load::arrivals::{Arrivals, Schedule, Spacing, Stretch},
    measure::Bench,
    peer::{
        process::{Running, free_address},
        render::{Limit, Setting},
    },
    poll::{Poller, Token},
};

/// A client hangs up after this, four times of what an answer may take to be worth something.
pub const PATIENCE: Nanos = Nanos(4 * OBJECTIVE.0);
/// The part of its capacity that is asked for before a step: a machine that is well.
const HEALTHY: f64 = 0.5;
/// The longest that the loop sleeps: it looks for signals in between.
const TICK: Nanos = Nanos::from_millis(5);

/// What a step needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Who is in between.
    pub contender: &'a Contender,
    /// The application.
    pub needs: Needs,
    /// Requests per second that it can answer.
    pub capacity: f64,
    /// How many times of them are asked for.
    pub times: f64,
    /// The part of each class.
    pub parts: [f64; CLASSES],
    /// How long it is well.
    pub healthy: Nanos,
    /// How long the step lasts.
    pub step: Nanos,
    /// For arrivals and kinds.
    pub seed: u64,
}

/// Plays it.
pub fn run(task: Task<'_>, name: &str, bench: &Bench) -> Result<Record, Error> {
    let application = Application::start(task.needs, bench)?;
    let mut running = start(task, &application, name, bench)?;
    let record = Stage::set(task, &running)?.play(bench)?;
    running.check_alive()?;
    Ok(record)
}

fn start(
    task: Task<'_>,
    application: &Application,
    name: &str,
    bench: &Bench,
) -> Result<Running, Error> {
    let contender = task.contender;
    let Some(program) = &contender.program else {
        return Ok(Running::direct(&contender.peer, application.address));
    };
    let dir = bench.work.dir.join(name);
    let rate = task.capacity * task.times;
    let upstreams = [application.address];
    let setting = Setting {
        connections: 256 + (rate * PATIENCE.as_secs()) as usize,
        limit: match contender.limit {
            Limit::Adaptive(_) => Limit::Adaptive(application.pid()),
            other => other,
        },
        ..bench.plain(free_address()?, &upstreams, &dir)
    };
    bench.start(&contender.peer, program, &setting)
}

struct Stage {
    poller: Poller,
    clock: Clock,
    clients: Clients,
    /// The proxy's process.
    proxy: Option<u32>,
    /// When the step begins, when its held part does, and when it ends.
    start: Nanos,
    held: Nanos,
    end: Nanos,
}

impl Stage {
    fn set(task: Task<'_>, running: &Running) -> Result<Stage, Error> {
        let clock = Clock::start();
        let now = clock.now();
        let arrivals = Arrivals {
            rate: task.capacity,
            spacing: Spacing::Poisson,
            seed: task.seed,
        };
        let mut schedule = Schedule::new(arrivals, now);
        let stretch = |time, times| Stretch { time, times };
        let end = now + task.healthy + task.step;
        schedule.stretch(
            &[
                stretch(task.healthy, HEALTHY),
                stretch(task.step, task.times),
                stretch(PATIENCE, 0.0),
            ],
            now,
        );
        let kinds = kinds(task.parts);
        Ok(Stage {
            poller: Poller::new().map_err(Error::io("creating an epoll instance"))?,
            clock,
            clients: Clients::new(running.address, schedule, kinds, PATIENCE, task.seed),
            proxy: running.pid(),
            start: now + task.healthy,
            held: now + task.healthy + SETTLE,
            end,
        })
    }

    fn play(mut self, bench: &Bench) -> Result<Record, Error> {
        self.until(self.held, bench)?;
        let before = self.sample(bench)?;
        self.until(self.end, bench)?;
        let after = self.sample(bench)?;
        // The last ones' fates.
        self.until(self.end + PATIENCE + TICK, bench)?;
        Ok(Record {
            start: self.start,
            end: self.end,
            requests: self.clients.requests().to_vec(),
            cost: before.zip(after).map(|(from, to)| from.until(&to)),
        })
    }

    fn sample(&self, bench: &Bench) -> Result<Option<Sample>, Error> {
        let sample = |pid| Sample::of_tree(pid, bench.placement.proxy);
        let sample = self.proxy.map(sample).transpose();
        sample.map_err(Error::io("reading the proxy's costs"))
    }

    fn until(&mut self, end: Nanos, bench: &Bench) -> Result<(), Error> {
        while self.clock.now() < end {
            bench.interrupt.check()?;
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        self.clients.turn(&self.poller, now);
        let next = self.clients.next_due().min(now + TICK);
        let count = self.poller.sleep_until(next, self.clock.now())?;
        for i in 0..count {
            if let Some(Token::Load(slot)) = self.poller.token(i) {
                self.clients.on_event(slot, self.clock.now());
            }
        }
        Ok(())
    }
}
