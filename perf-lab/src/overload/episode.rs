//! One step: a fresh application behind a fresh proxy is asked for half of what it can do, then at once
//! for a multiple of it.
//!
//! Fresh, since an application that was overloaded without protection has work for a minute that nobody
//! waits for any more, which would be the next step's.

use std::time::Duration;

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
    load::{
        Exchange,
        arrivals::{Arrivals, Schedule, Spacing, Stretch},
    },
    measure::Bench,
    peer::{
        process::{Probe, Running, free_address},
        render::{Clients as Speaking, Heal, Limit, Mode, Setting},
    },
    poll::{Poller, Token, Wait},
    scenario::{HttpVersion, Link},
};

/// A client hangs up after this, four times of what an answer may take to be worth something.
pub const PATIENCE: Nanos = Nanos(4 * OBJECTIVE.0);
/// The part of its capacity that is asked for before a step: a machine that is well.
const HEALTHY: f64 = 0.5;
/// The longest that the loop sleeps: it looks for signals in between.
const TICK: Nanos = Nanos::from_millis(5);
/// The shortest that the kernel's timer can do.
const RESOLUTION: Nanos = Nanos::from_millis(1);

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
    let setting = Setting {
        listen: free_address()?,
        upstreams: &[application.address],
        mode: Mode::Http,
        connections: 256 + (rate * PATIENCE.as_secs()) as usize,
        routes: &[],
        certificates: None,
        clients: Speaking::Plain,
        client_http: HttpVersion::Http1,
        link: Link::Plain,
        link_http: HttpVersion::Http1,
        admin: None,
        reloads: false,
        heal: Heal::Off,
        limit: match contender.limit {
            Limit::Adaptive(_) => Limit::Adaptive(application.pid()),
            other => other,
        },
        cpu: bench.placement.proxy,
        descriptors: bench.descriptors,
        dir: &dir,
    };
    let peer = &contender.peer;
    let rendered = peer.render(&setting)?;
    let mut running = Running::start(peer, program, &rendered, &setting, bench.placement)?;
    let exchange = Exchange::get("/", 128, 0);
    running.wait_ready(Probe::plain(&exchange), &bench.interrupt)?;
    Ok(running)
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
        let sleep = (next - self.clock.now()).max(RESOLUTION);
        let waited = self
            .poller
            .wait(Wait::AtMost(Duration::from_nanos(sleep.0)));
        let count = waited.map_err(Error::io("waiting for events"))?;
        for i in 0..count {
            if let Some(Token::Load(slot)) = self.poller.token(i) {
                self.clients.on_event(slot, self.clock.now());
            }
        }
        Ok(())
    }
}
