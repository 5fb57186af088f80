//! The application: the lab's origin in a process of its own, which computes for a fixed time for each
//! request, one after the other, then waits for another, as for a database, and answers. A control group
//! gives it less than a core, so that its CPU is the bottleneck while the clients beside it have theirs.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use super::cgroup::{Group, Version};
use crate::{
    clock::Clock,
    control::{Control, Phase},
    error::Error,
    load::{Connections, Exchange, Failures, LoadSpec, Pace, generator::Generator},
    measure::Bench,
    peer::process::{Probe, free_address},
    scenario::HttpVersion,
    worker::Worker,
};

const READY_TIME_MAX: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Enough that the application always has something to do, whatever else it waits for meanwhile.
const CONNECTIONS: usize = 64;
/// Before its capacity is measured, so that the first answers' costs are over.
const WARM_UP: Duration = Duration::from_millis(500);

/// What it costs and what it gets.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// CPU time that each answer takes.
    pub cpu_time: Duration,
    /// How long it waits for something else, as for a database, before it answers.
    pub wait: Duration,
    /// CPUs' worth of time that it gets; `None` is as much as there is.
    pub cpus: Option<f64>,
}

/// A running one. Dropping it ends it.
pub struct Application {
    /// Where it listens.
    pub address: SocketAddr,
    /// `None` if it got no group: then it shares the load's core with the clients, as the scheduler likes.
    group: Option<Group>,
    child: Child,
}

impl Application {
    /// Starts one on the load's core and waits until it answers.
    pub fn start(needs: Needs, bench: &Bench) -> Result<Application, Error> {
        let address = free_address()?;
        let program =
            std::env::current_exe().map_err(Error::io("finding the lab's own program"))?;
        let micros = |time: Duration| format!("{}us", time.as_micros());
        let child = Command::new(program)
            .args(["origin", "--listen", &address.to_string()])
            .args(["--cpu-time", &micros(needs.cpu_time)])
            .args(["--service-time", &micros(needs.wait)])
            .args(["--cpu", &bench.placement.load.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("starting the application"))?;
        let mut application = Application {
            address,
            group: None,
            child,
        };
        if let Some(cpus) = needs.cpus {
            let pid = application.pid();
            let group = Group::create(&format!("tidegate-lab-{pid}"), cpus);
            application.group = group.and_then(|group| group.add(pid).map(|()| group)).ok();
        }
        application.wait_ready(bench)?;
        Ok(application)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What holds it to its share, if anything does.
    pub fn confinement(&self) -> Option<Version> {
        self.group.as_ref().map(|group| group.version)
    }

    fn wait_ready(&mut self, bench: &Bench) -> Result<(), Error> {
        let exchange = Exchange::get("/", 128, 0);
        let deadline = Instant::now() + READY_TIME_MAX;
        while let Err(problem) = Probe::plain(&exchange).ask(self.address) {
            if Instant::now() > deadline {
                let problem = format!("the application does not answer: {problem}");
                return Err(Error::Load(problem));
            }
            bench.interrupt.sleep(POLL_INTERVAL)?;
        }
        Ok(())
    }

    /// How many requests per second it answers when it is never idle.
    pub fn capacity(&self, time: Duration, bench: &Bench) -> Result<f64, Error> {
        let spec = LoadSpec {
            target: self.address,
            exchange: Exchange::get("/", 128, 0),
            http: HttpVersion::Http1,
            connections: CONNECTIONS,
            streams: 1,
            keep: Connections::Keep,
            pace: Pace::Saturate,
            stretches: Vec::new(),
            failures: Failures::GiveUp,
            tls: None,
        };
        let (control, clock) = (Arc::new(Control::default()), Clock::start());
        let worker = Worker {
            origin: None,
            generator: Some(Generator::new(spec, control.clone(), clock)?),
            neighbour: None,
            control: control.clone(),
            clock,
            cpu: Some(bench.placement.load),
        };
        let thread = worker.spawn()?;
        let measured = (|| {
            control.enter(Phase::Open);
            control.enter(Phase::WarmUp);
            bench.interrupt.sleep(WARM_UP)?;
            let (started, before) = (Instant::now(), control.completed());
            bench.interrupt.sleep(time)?;
            let completed = control.completed() - before;
            Ok(completed as f64 / started.elapsed().as_secs_f64())
        })();
        // The thread ends whether or not a signal came.
        control.enter(Phase::Stop);
        let ended = || Err(Error::Load("the load thread panicked".to_owned()));
        thread.join().unwrap_or_else(|_| ended())?;
        match measured? {
            rate if rate > 0.0 => Ok(rate),
            _ => Err(Error::Load("the application answered nothing".to_owned())),
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // Each may find that it has ended already. Its group is removed after it, by its own drop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
