//! What self-healing should find, computed anew at every tick from all that has happened: slow, and nothing to get wrong
//! in it. A rate is a sum over the whole history, a sequential test the largest sum over all of its ends, a run what is
//! behind the last success. The rules are those of `docs/healing.md`.

use std::time::Duration;

use tidegate_core::healing::{
    detector::{Calls, Rate},
    ejection::{Cause, Event, Guard, Settings},
};

/// A tick of one node.
struct Tick {
    calls: Calls,
    /// What the others' calls came to before it.
    peers: Rate,
    /// The median of the others' medians in it.
    peers_latency_s: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum State {
    In,
    Suspect,
    Out(Duration),
    Trial(Duration),
}

pub struct Node {
    pub state: State,
    /// Since it was put out last.
    history: Vec<Tick>,
}

pub struct Model {
    pub nodes: Vec<Node>,
    settings: Settings,
    tick_s: f64,
}

/// What is to happen at a tick, in order: a node, and what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    Suspected(usize, Cause, Guard),
    Ejected(usize, Cause),
    Probation(usize),
    Recovered(usize),
}

impl Expected {
    pub fn of(event: &Event) -> Expected {
        match *event {
            Event::Suspected {
                node, cause, guard, ..
            } => Expected::Suspected(node, cause, guard),
            Event::Ejected { node, cause, .. } => Expected::Ejected(node, cause),
            Event::Probation { node } => Expected::Probation(node),
            Event::Recovered { node } => Expected::Recovered(node),
        }
    }
}

impl Model {
    pub fn new(nodes: usize, tick_s: f64) -> Model {
        let node = |_| Node {
            state: State::In,
            history: Vec::new(),
        };
        Model {
            nodes: (0..nodes).map(node).collect(),
            settings: Settings::default(),
            tick_s,
        }
    }

    /// What should happen at this tick; `happened` says only how long who was put out stays out, which is chance.
    pub fn tick(&mut self, now: Duration, calls: &[Calls], happened: &[Event]) -> Vec<Expected> {
        self.record(calls);
        let causes: Vec<Option<Cause>> = self.nodes.iter().map(|node| self.cause(node)).collect();
        let is_close =
            |node: &Node| self.evidence(node) > 9.0 || run(node) >= 3 || self.silent_s(node) > 0.0;
        let sick = self.nodes.iter().zip(&causes).filter(|(node, cause)| {
            matches!(node.state, State::In | State::Suspect) && (cause.is_some() || is_close(node))
        });
        let sick = sick.count();
        // More than one, and more than 30 %.
        let common = (sick > 1 && sick * 100 / self.nodes.len() > 30).then(|| self.common_cause());
        let mut expected = Vec::new();
        for (k, cause) in causes.into_iter().enumerate() {
            match (self.nodes[k].state, cause) {
                (State::Out(until), _) if now >= until => {
                    self.nodes[k].state = State::Trial(now + self.settings.probation);
                    expected.push(Expected::Probation(k));
                }
                (State::Out(_), _) => {}
                (State::Trial(_), _) if calls[k].trials_failed > 0 => {
                    let guard = self.guard(k);
                    self.judge(k, Cause::Probation, guard, now, happened, &mut expected);
                }
                (State::Trial(until), _) => {
                    if calls[k].trials_succeeded > 0 || now >= until {
                        self.nodes[k].state = State::In;
                        expected.push(Expected::Recovered(k));
                    }
                }
                (State::In | State::Suspect, Some(cause)) => {
                    let guard = common.or(self.peers_guard(k)).or(self.guard(k));
                    self.judge(k, cause, guard, now, happened, &mut expected);
                }
                (State::Suspect, None) if run(&self.nodes[k]) == 0 => {
                    self.nodes[k].state = State::In;
                }
                (State::In | State::Suspect, None) => {}
            }
        }
        expected
    }

    fn judge(
        &mut self,
        k: usize,
        cause: Cause,
        guard: Option<Guard>,
        now: Duration,
        happened: &[Event],
        expected: &mut Vec<Expected>,
    ) {
        let Some(guard) = guard else {
            expected.push(Expected::Ejected(k, cause));
            let penalty = happened.iter().find_map(|event| match event {
                Event::Ejected { node, penalty, .. } if *node == k => Some(*penalty),
                _ => None,
            });
            self.nodes[k] = Node {
                state: State::Out(now + penalty.unwrap_or_default()),
                history: Vec::new(),
            };
            return;
        };
        if self.nodes[k].state != State::Suspect {
            self.nodes[k].state = State::Suspect;
            expected.push(Expected::Suspected(k, cause, guard));
        }
    }

    fn record(&mut self, calls: &[Calls]) {
        let rates: Vec<Rate> = self
            .nodes
            .iter()
            .map(|node| self.rate(node, 10.0))
            .collect();
        for k in 0..self.nodes.len() {
            let others = (0..self.nodes.len()).filter(|other| *other != k);
            let peers = others
                .clone()
                .fold(Rate::default(), |sum, o| sum.with(rates[o]));
            let mut medians: Vec<f64> = others.filter_map(|o| calls[o].latency_s).collect();
            medians.sort_by(f64::total_cmp);
            let lower_middle = medians.len().saturating_sub(1) / 2;
            self.nodes[k].history.push(Tick {
                calls: calls[k],
                peers,
                peers_latency_s: medians.get(lower_middle).copied(),
            });
        }
    }

    /// Calls and failures, each the less the longer ago it is.
    fn weighted(&self, node: &Node, memory_s: f64, failed: fn(&Calls) -> u64) -> Rate {
        let newest_first = node.history.iter().rev().enumerate();
        newest_first.fold(Rate::default(), |sum, (age, tick)| {
            let weight = (-(age as f64) * self.tick_s / memory_s).exp();
            Rate {
                calls: sum.calls + weight * tick.calls.total() as f64,
                failed: sum.failed + weight * failed(&tick.calls) as f64,
            }
        })
    }

    fn rate(&self, node: &Node, memory_s: f64) -> Rate {
        self.weighted(node, memory_s, |calls| calls.failed)
    }

    /// What is known of a node's rate.
    pub fn known(&self, k: usize) -> Rate {
        self.rate(&self.nodes[k], 10.0)
    }

    /// How near to a verdict the sequential test is, of 18: the largest sum of log likelihood ratios that ends now.
    pub fn evidence(&self, node: &Node) -> f64 {
        let (mut sum, mut largest) = (0.0f64, 0.0f64);
        for tick in node.history.iter().rev() {
            sum += ratio(tick);
            largest = largest.max(sum);
        }
        largest
    }

    fn silent_s(&self, node: &Node) -> f64 {
        let newest_first = node.history.iter().rev();
        let silent = newest_first.take_while(|tick| is_silent(&tick.calls));
        silent.count() as f64 * self.tick_s
    }

    /// The first detector that fires.
    fn cause(&self, node: &Node) -> Option<Cause> {
        if !matches!(node.state, State::In | State::Suspect) {
            return None;
        }
        [
            (run(node) >= 5, Cause::Run),
            (self.evidence(node) >= 18.0, Cause::Rate),
            (self.is_stalled(node), Cause::Stall),
            (is_slow(node), Cause::Latency),
        ]
        .into_iter()
        .find_map(|(fires, cause)| fires.then_some(cause))
    }

    /// Silent for twenty times as long as an answer usually takes.
    fn is_stalled(&self, node: &Node) -> bool {
        let medians = node.history.iter().filter_map(|tick| tick.calls.latency_s);
        let usual = medians.fold(None, |usual: Option<f64>, median| {
            Some(usual.map_or(median, |usual| 0.9 * usual + 0.1 * median))
        });
        let silent_s = self.silent_s(node);
        silent_s > 0.0 && usual.is_some_and(|usual| silent_s >= 20.0 * usual)
    }

    fn common_cause(&self) -> Guard {
        let sum = |failed: fn(&Calls) -> u64| -> f64 {
            let rates = self
                .nodes
                .iter()
                .map(|node| self.weighted(node, 1.0, failed));
            rates.map(|rate| rate.failed).sum()
        };
        let overloaded = sum(|calls| calls.overloaded);
        match overloaded > 0.0 && overloaded * 2.0 > sum(|calls| calls.failed) {
            true => Guard::Capacity,
            false => Guard::CommonMode,
        }
    }

    fn peers_guard(&self, k: usize) -> Option<Guard> {
        let others = (0..self.nodes.len()).filter(|other| *other != k);
        let rates = others.map(|other| self.rate(&self.nodes[other], 1.0));
        let peers = rates.fold(Rate::default(), Rate::with);
        (peers.mean() > 0.2).then(|| self.common_cause())
    }

    fn guard(&self, k: usize) -> Option<Guard> {
        let others = || {
            (0..self.nodes.len())
                .filter(|other| *other != k)
                .map(|o| self.nodes[o].state)
        };
        if !others().any(|state| matches!(state, State::In | State::Suspect)) {
            return Some(Guard::LastNode);
        }
        let out = others()
            .filter(|state| matches!(state, State::Out(_)))
            .count();
        (out >= (self.nodes.len() / 2).max(1)).then_some(Guard::Percent)
    }
}

/// Hard failures behind the last success.
fn run(node: &Node) -> u64 {
    let mut failures = 0;
    for tick in node.history.iter().rev() {
        if tick.calls.succeeded > 0 {
            return failures + tick.calls.trailing.min(tick.calls.failed_hard);
        }
        failures += tick.calls.failed_hard;
    }
    failures
}

/// How much likelier a tick is of a sick node than of one like its peers, as a logarithm.
fn ratio(tick: &Tick) -> f64 {
    // Three deviations above what the peers show, by Agresti and Coull.
    let n = tick.peers.calls + 4.0;
    let p = (tick.peers.failed + 1.0) / n;
    let usual = (p + 3.0 * (p * (1.0 - p) / n).sqrt()).clamp(0.01, 0.9);
    let sick = (usual + 0.15).max(3.0 * usual).min(0.98);
    let of = |count: u64, sick: f64, usual: f64| count as f64 * (sick / usual).ln();
    of(tick.calls.failed, sick, usual) + of(tick.calls.succeeded, 1.0 - sick, 1.0 - usual)
}

fn is_silent(calls: &Calls) -> bool {
    calls.answered() == 0 && calls.waiting >= 5
}

/// Four times as slow as the others, by 5 ms and more, in the last ten ticks that say so.
fn is_slow(node: &Node) -> bool {
    let medians = node.history.iter().rev();
    let medians = medians.filter_map(|tick| tick.calls.latency_s.zip(tick.peers_latency_s));
    let last: Vec<(f64, f64)> = medians.take(10).collect();
    last.len() == 10
        && last
            .iter()
            .all(|(own, peers)| *own > 4.0 * peers && own - peers > 0.005)
}
