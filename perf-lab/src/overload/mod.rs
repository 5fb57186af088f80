//! Overload: what becomes of an application that is asked for a multiple of what it can do, by who stands
//! in front of it.
//!
//! An [`application`] whose CPU is the bottleneck is measured, then asked for 1× to 10× of its capacity by
//! four classes of clients, each step with a fresh proxy and a fresh application ([`episode`]).
//! [`analysis`] says what came of it, [`report`] sums up.

pub mod analysis;
pub mod application;
pub mod cgroup;
pub mod episode;
pub mod report;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use self::{
    analysis::Outcome,
    application::{Application, Needs},
    cgroup::Version,
    episode::Task,
};
use crate::{
    clients::Kind,
    clock::Nanos,
    error::Error,
    measure::Bench,
    peer::{
        Peer,
        render::{CALLER_HEADER, Limit, PRIORITY_HEADER},
    },
};

/// An answer is worth something this long after its request was due.
pub const OBJECTIVE: Nanos = Nanos::from_millis(250);
/// The time that everybody has to settle after a step.
pub const SETTLE: Nanos = Nanos::from_millis(2_000);
/// The classes of requests, what matters most first.
pub const CLASS_NAMES: [&str; CLASSES] = ["critical", "normal", "batch", "stress"];
/// How many there are.
pub const CLASSES: usize = 4;
/// The part of the requests that may be refused where their price is measured.
const REFUSED_MAX: f64 = 0.01;
/// Callers of each class: who holds some back and lets others through needs some.
const CALLERS: usize = 64;
/// How what is not critical is divided among the other classes.
const OTHERS: [f64; CLASSES - 1] = [0.45, 0.35, 0.20];

/// Who stands in front of the application.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As it was named on the command line.
    pub name: String,
    /// The peer.
    pub peer: Peer,
    /// Its program; `None` is the direct connection.
    pub program: Option<PathBuf>,
    /// What it says about its version.
    pub version: String,
    /// How it holds requests back; whose process it looks at is filled in.
    pub limit: Limit,
}

impl Contender {
    /// Its name as a directory's.
    fn directory(&self) -> String {
        self.name.replace(':', "-")
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Who takes part.
    pub contenders: &'a [Contender],
    /// Multiples of the capacity.
    pub steps: &'a [f64],
    /// How often each is done.
    pub rounds: usize,
    /// The application.
    pub needs: Needs,
    /// The part of the requests that is critical.
    pub critical: f64,
    /// How long it is well before a step.
    pub healthy: Nanos,
    /// How long a step lasts.
    pub step: Nanos,
    /// Everything random follows from it.
    pub seed: u64,
}

/// What a contender did in a step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The contender's name.
    pub contender: String,
    /// How many times of the capacity.
    pub times: f64,
    /// By round.
    pub outcomes: Vec<Outcome>,
    /// Steps that could not be played, and why.
    pub problems: Vec<String>,
}

/// What a request costs a contender whose application never is the bottleneck, at the highest rate of
/// the steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Price {
    /// The contender's name.
    pub contender: String,
    /// CPU time of each, in microseconds.
    pub proxied_us: f64,
}

/// Everything that was found out.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Requests per second that the application can answer.
    pub capacity: f64,
    /// What held it to its share; `None` if it shared its core with the clients.
    pub confinement: Option<Version>,
    /// By contender and step.
    pub cells: Vec<Cell>,
    /// By contender.
    pub prices: Vec<Price>,
}

/// Measures the application, then plays every step. `tell` is given what comes next.
pub fn run(plan: Plan<'_>, bench: &Bench, tell: impl Fn(&str)) -> Result<Findings, Error> {
    let (capacity, confinement) = {
        let application = Application::start(plan.needs, bench)?;
        let time = Duration::from_nanos(SETTLE.0);
        (
            application.capacity(time, bench)?,
            application.confinement(),
        )
    };
    tell(&format!(
        "the application answers {capacity:.0} requests per second"
    ));
    let mut cells = plan.cells();
    for round in 0..plan.rounds {
        for cell in &mut cells {
            let Some(contender) = plan.contender(&cell.contender) else {
                continue;
            };
            tell(&format!("{}×, {}", cell.times, contender.name));
            let name = format!("{}-{}-{round}", contender.directory(), cell.times);
            let task = plan.task(contender, capacity, cell.times, round);
            match episode::run(task, &name, bench) {
                Ok(record) => cell.outcomes.push(analysis::outcome(&record)),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => cell.problems.push(error.to_string()),
            }
        }
    }
    let mut prices = Vec::new();
    for contender in plan.contenders.iter().filter(|it| it.program.is_some()) {
        tell(&format!("the price of a request, {}", contender.name));
        prices.extend(plan.price(contender, capacity, bench)?);
    }
    Ok(Findings {
        capacity,
        confinement,
        cells,
        prices,
    })
}

impl Plan<'_> {
    /// Steps first, then contenders: who is compared is measured close together.
    fn cells(&self) -> Vec<Cell> {
        let of_step = |&times: &f64| {
            self.contenders.iter().map(move |contender| Cell {
                contender: contender.name.clone(),
                times,
                outcomes: Vec::new(),
                problems: Vec::new(),
            })
        };
        self.steps.iter().flat_map(of_step).collect()
    }

    fn contender(&self, name: &str) -> Option<&Contender> {
        self.contenders.iter().find(|it| it.name == name)
    }

    fn task<'a>(
        &self,
        contender: &'a Contender,
        capacity: f64,
        times: f64,
        round: usize,
    ) -> Task<'a> {
        Task {
            contender,
            needs: self.needs,
            capacity,
            times,
            parts: parts(self.critical),
            healthy: self.healthy,
            step: self.step,
            // The same arrivals for all contenders of a round.
            seed: self.seed.wrapping_add(round as u64),
        }
    }

    /// The highest step again, without holding anything back and before an application that answers at once:
    /// the proxy is as busy as it was, and refuses nothing. `None` if it does.
    fn price(
        &self,
        contender: &Contender,
        capacity: f64,
        bench: &Bench,
    ) -> Result<Option<Price>, Error> {
        let times = self.steps.iter().copied().fold(1.0, f64::max);
        let unlimited = Contender {
            limit: Limit::Off,
            ..contender.clone()
        };
        let task = Task {
            needs: Needs {
                cpu_time: Duration::ZERO,
                wait: Duration::ZERO,
                cpus: None,
            },
            ..self.task(&unlimited, capacity, times, 0)
        };
        let name = format!("{}-price", contender.directory());
        let outcome = analysis::outcome(&episode::run(task, &name, bench)?);
        let is_proxied = outcome.refused as f64 <= REFUSED_MAX * outcome.proxied as f64;
        let cpu_us = outcome.cpu_us.filter(|_| is_proxied);
        Ok(cpu_us.map(|cpu_us| Price {
            contender: contender.name.clone(),
            proxied_us: cpu_us / outcome.proxied.max(1) as f64,
        }))
    }
}

/// The part of each class.
fn parts(critical: f64) -> [f64; CLASSES] {
    let [normal, batch, stress] = OTHERS.map(|part| part * (1.0 - critical));
    [critical, normal, batch, stress]
}

/// What clients send: each class's callers, all alike.
fn kinds(parts: [f64; CLASSES]) -> Vec<Kind> {
    let mut kinds = Vec::with_capacity(CLASSES * CALLERS);
    for (class, part) in CLASS_NAMES.iter().zip(parts) {
        kinds.extend((0..CALLERS).map(|caller| {
            let request = format!(
                "GET /b/128 HTTP/1.1\r\nHost: lab\r\n{PRIORITY_HEADER}: {class}\r\n\
                 {CALLER_HEADER}: {class}-{caller}\r\n\r\n"
            );
            Kind {
                part: part / CALLERS as f64,
                request: request.into_bytes(),
            }
        }));
    }
    kinds
}

/// The class of a kind.
fn class_of(kind: usize) -> usize {
    kind / CALLERS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// The kinds are whole, in the order of the classes, and say what they are.
    #[test]
    fn kinds_say_their_class() {
        let kinds = kinds(parts(0.1));
        let all: f64 = kinds.iter().map(|kind| kind.part).sum();
        assert!((all - 1.0).abs() < 1e-9, "{all}");
        let mut by_class = [0.0; CLASSES];
        for (i, kind) in kinds.iter().enumerate() {
            let class = class_of(i);
            by_class[class] += kind.part;
            let text = std::str::from_utf8(&kind.request).unwrap();
            let field = format!("\r\nx-priority: {}\r\n", CLASS_NAMES[class]);
            assert!(
                text.contains(&field) && text.ends_with("\r\n\r\n"),
                "{text}"
            );
        }
        assert!((by_class[0] - 0.1).abs() < 1e-9, "{by_class:?}");
    }
}
