//! The loaded thread: one loop that drives an origin, a generator, or both.
//!
//! On a machine of two cores the proxy has one and the lab the other. Origin and generator in one
//! loop then spare each other a thread switch per turn, and the generator can spin between due times
//! without taking the core from the origin, as two threads would.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clock::{Clock, Nanos},
    control::{Control, Phase},
    cpu::{self, Cpu},
    error::Error,
    load::{
        generator::{Generator, LoadOutcome},
        trickle::Trickle,
    },
    origin::Origin,
    poll::{Events, Poller, Token, Wait},
};

/// Answers that the origin may send in a turn, before events are looked at again.
const ANSWERS_PER_TURN: usize = 128;
/// How long an idle loop sleeps before it looks at the phase again.
const TICK: Duration = Duration::from_millis(5);

/// What the loaded thread drives.
pub struct Worker {
    /// The application, if it is ours.
    pub origin: Option<Origin>,
    /// The clients, if any.
    pub generator: Option<Generator>,
    /// Clients that are not measured, if any.
    pub neighbour: Option<Beside>,
    /// Shared with whoever measures.
    pub control: Arc<Control>,
    /// The same that the generator has.
    pub clock: Clock,
    /// Where it runs; `None` leaves it to the scheduler.
    pub cpu: Option<Cpu>,
}

/// Clients that are not measured.
pub enum Beside {
    /// A load, with the control that it follows; its phases are those of the measured one.
    Load(Box<Generator>, Arc<Control>),
    /// Requests that never end.
    Trickle(Trickle),
}

impl Beside {
    fn turn(&mut self, poller: &Poller, phase: Phase, now: Nanos) {
        match self {
            Beside::Load(generator, control) => {
                control.enter(phase);
                generator.turn(poller, now);
            }
            Beside::Trickle(trickle) => trickle.turn(poller, phase, now),
        }
    }

    fn on_event(&mut self, index: usize, poller: &Poller) {
        match self {
            Beside::Load(generator, _) => generator.on_event(index, poller),
            Beside::Trickle(trickle) => trickle.on_event(index),
        }
    }
}

/// What a worker leaves behind.
#[derive(Clone, Debug)]
pub struct WorkerOutcome {
    /// The load's, if there was one.
    pub load: Option<LoadOutcome>,
    /// Share of the measurement in which the loop had something to do.
    pub busy: f64,
}

impl Worker {
    /// Starts the thread.
    pub fn spawn(self) -> Result<JoinHandle<Result<WorkerOutcome, Error>>, Error> {
        thread::Builder::new()
            .name("lab-load".to_owned())
            .spawn(move || self.run())
            .map_err(Error::io("starting the load thread"))
    }

    /// Runs until [`Phase::Stop`].
    pub fn run(mut self) -> Result<WorkerOutcome, Error> {
        if let Some(cpu) = self.cpu {
            cpu::pin_this_thread(cpu)?;
        }
        let mut poller = Poller::new().map_err(Error::io("creating an epoll instance"))?;
        if let Some(origin) = &self.origin {
            origin.register(&poller)?;
        }
        let mut usage = Usage::default();
        loop {
            let phase = self.control.phase();
            if phase == Phase::Stop {
                break;
            }
            let now = self.clock.now();
            let mut wait = Wait::AtMost(TICK);
            if let Some(origin) = &mut self.origin {
                origin.turn(&poller, self.control.dead());
                if origin.must_be_punctual() {
                    wait = Wait::Spin;
                }
            }
            if let Some(neighbour) = &mut self.neighbour {
                neighbour.turn(&poller, phase, now);
            }
            if let Some(generator) = &mut self.generator {
                generator.turn(&poller, now);
                if generator.must_be_punctual() {
                    wait = Wait::Spin;
                    poller.set_events(Events::Short);
                }
            }
            self.answer_due(&poller);
            let before = self.clock.now();
            let count = poller.wait(wait).map_err(Error::io("waiting for events"))?;
            usage.note(phase, before, self.clock.now(), count, wait);
            for i in 0..count {
                self.dispatch(poller.token(i), &poller);
            }
        }
        Ok(WorkerOutcome {
            load: self.generator.map(Generator::outcome),
            busy: usage.busy(),
        })
    }

    fn dispatch(&mut self, token: Option<Token>, poller: &Poller) {
        match (token, &mut self.origin, &mut self.generator) {
            (Some(Token::Accept(i)), Some(origin), _) => origin.accept(i, poller),
            (Some(Token::Origin(key)), Some(origin), _) => origin.on_event(key, poller),
            (Some(Token::Load(index)), _, Some(generator)) => generator.on_event(index, poller),
            (Some(Token::Neighbour(index)), ..) => {
                if let Some(neighbour) = &mut self.neighbour {
                    neighbour.on_event(index, poller);
                }
            }
            _ => {}
        }
        self.answer_due(poller);
        self.send_due(poller);
    }

    /// Answers what the origin has held back for long enough.
    fn answer_due(&mut self, poller: &Poller) {
        for _ in 0..ANSWERS_PER_TURN {
            let origin = self.origin.as_mut();
            if !origin.is_some_and(|origin| origin.answer_due(poller)) {
                return;
            }
            self.send_due(poller);
        }
    }

    /// A turn may have a hundred events of several microseconds each: what falls due meanwhile is sent
    /// between them.
    fn send_due(&mut self, poller: &Poller) {
        if let Some(generator) = &mut self.generator
            && generator.must_be_punctual()
        {
            let now = self.clock.now();
            generator.send_due(poller, now);
        }
    }
}

/// How much of the measurement the loop worked.
#[derive(Debug, Default)]
struct Usage {
    first: Option<Nanos>,
    last: Nanos,
    idle: Nanos,
}

impl Usage {
    /// A wait counts as idle if it slept, or if it spun and found nothing. A wait that returned at
    /// once with events is a system call like any other.
    fn note(&mut self, phase: Phase, before: Nanos, after: Nanos, events: usize, wait: Wait) {
        if phase != Phase::Measure {
            return;
        }
        self.first.get_or_insert(before);
        self.last = after;
        if wait != Wait::Spin || events == 0 {
            self.idle = self.idle + (after - before);
        }
    }

    fn busy(&self) -> f64 {
        let whole = (self.last - self.first.unwrap_or(self.last)).0;
        if whole == 0 {
            return 0.0;
        }
        1.0 - self.idle.0 as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests;
