//! What becomes of a sick node: out, for a while, and back with care.
//!
//! ```text
//! Healthy → Suspect → Ejected → Probation → Healthy
//!                        ↑___________|          one real request decides
//! ```
//!
//! [`Group`] is one cluster's nodes. Each tick it runs the detectors on every node, holds what they find
//! against the guards (H10), and says what changed. It never decides on a node by its own rate alone.

use std::time::Duration;

use super::detector::{Calls, Rate, Run, Sequential, Slow};

/// Settings of a group. The defaults are complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Nodes that may be out at once, in percent; the last one never is.
    pub max_ejection_percent: u32,
    /// More nodes than this sick at once, in percent, is not a matter of nodes.
    pub common_mode_percent: u32,
    /// The first time out; doubled with every further one.
    pub base_ejection: Duration,
    /// The longest.
    pub max_ejection: Duration,
    /// How long a node must be well before its times out are forgotten, one by one.
    pub forgive_after: Duration,
    /// How long a node on probation may wait for a request to be tried with.
    pub probation: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            // Envoy's default of 10 % lets half of a pair of nodes never be ejected; one node always may.
            max_ejection_percent: 50,
            common_mode_percent: 30,
            base_ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(300),
            forgive_after: Duration::from_secs(60),
            probation: Duration::from_secs(30),
        }
    }
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Takes requests.
    #[default]
    Healthy,
    /// A detector has fired, and a guard keeps the node in.
    Suspect,
    /// Takes no requests until then.
    Ejected {
        /// On the clock that is passed to [`Group::tick`].
        until: Duration,
    },
    /// Takes one request, to be tried with.
    Probation {
        /// Until then.
        until: Duration,
    },
}

/// Which detector fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Hard failures in a row.
    Run,
    /// More failures than the peers.
    Rate,
    /// Slower than the peers.
    Latency,
    /// It failed on probation.
    Probation,
}

/// Why a sick node is kept in (H10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// There would be none left.
    LastNode,
    /// `max_ejection_percent` are out.
    Percent,
    /// The rest could not bear the load.
    Capacity,
    /// Too many are sick at once: what they depend on is.
    CommonMode,
}

/// What the decision rests on, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Calls of the last seconds, and failures among them.
    pub own: Rate,
    /// The same of the peers.
    pub peers: Rate,
    /// Hard failures in a row.
    pub run: u64,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// Sick, but kept in.
    Suspected {
        /// Position in the group.
        node: usize,
        /// What was found.
        cause: Cause,
        /// What keeps it in.
        guard: Guard,
        /// The numbers.
        evidence: Evidence,
    },
    /// Out.
    Ejected {
        /// Position in the group.
        node: usize,
        /// What was found.
        cause: Cause,
        /// For how long.
        penalty: Duration,
        /// How often lately, this time included.
        times: u32,
        /// The numbers.
        evidence: Evidence,
    },
    /// May take one request.
    Probation {
        /// Position in the group.
        node: usize,
    },
    /// In again.
    Recovered {
        /// Position in the group.
        node: usize,
    },
}

/// Seconds over which rates are remembered.
const MEMORY_S: f64 = 10.0;
/// Seconds that are now.
const RECENT_S: f64 = 1.0;
/// Peers that fail this often are sick themselves.
const PEERS_SICK: f64 = 0.2;

#[derive(Clone, Debug, Default)]
struct Node {
    state: State,
    run: Run,
    sequential: Sequential,
    slow: Slow,
    rate: Rate,
    /// The same over a second, this tick included.
    recent: Rate,
    times: u32,
    /// Since when it is well, or when a time out was last forgiven.
    well_since: Duration,
}

/// The nodes of one cluster.
#[derive(Clone, Debug)]
pub struct Group {
    settings: Settings,
    nodes: Vec<Node>,
}

impl Group {
    /// A group of `nodes` healthy nodes.
    pub fn new(settings: Settings, nodes: usize) -> Group {
        Group {
            settings,
            nodes: vec![Node::default(); nodes],
        }
    }

    /// The state of every node.
    pub fn states(&self) -> impl Iterator<Item = State> {
        self.nodes.iter().map(|node| node.state)
    }

    /// Nodes come and go: `kept` holds, for each node from now on, its old position if it had one.
    pub fn renumber(&mut self, kept: &[Option<usize>]) {
        let node = |old: &Option<usize>| old.and_then(|old| self.nodes.get(old)).cloned();
        self.nodes = kept
            .iter()
            .map(|old| node(old).unwrap_or_default())
            .collect();
    }

    /// One tick of `tick` since the last. `calls` is by node; `watermark` how full the group is, if that is
    /// known; `random` gives 64 random bits.
    pub fn tick(
        &mut self,
        now: Duration,
        tick: Duration,
        calls: &[Calls],
        watermark: Option<f64>,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let found = self.detect(tick, calls);
        let guard = self.common_mode(&found);
        for (k, cause) in found.iter().enumerate() {
            let Some(state) = self.nodes.get(k).map(|node| node.state) else {
                continue;
            };
            let calls = calls.get(k).copied().unwrap_or_default();
            match state {
                State::Ejected { until } if now >= until => self.try_out(k, now, &mut events),
                State::Ejected { .. } => {}
                State::Probation { until } => {
                    if calls.failed > 0 {
                        let cause = Cause::Probation;
                        match self.guard(k, watermark) {
                            Some(guard) => self.suspect(k, cause, guard, &mut events),
                            None => self.eject(k, now, cause, random, &mut events),
                        }
                    } else if calls.succeeded > 0 || now >= until {
                        self.recover(k, now, &mut events);
                    }
                }
                State::Healthy | State::Suspect => match cause {
                    Some(cause) => match guard
                        .or_else(|| self.peers_guard(k))
                        .or_else(|| self.guard(k, watermark))
                    {
                        Some(guard) => self.suspect(k, *cause, guard, &mut events),
                        None => self.eject(k, now, *cause, random, &mut events),
                    },
                    None => self.is_well(k, now),
                },
            }
        }
        events
    }

    /// What the detectors find of each node.
    fn detect(&mut self, tick: Duration, calls: &[Calls]) -> Vec<Option<Cause>> {
        let keep = |memory_s: f64| (-tick.as_secs_f64() / memory_s).exp();
        let nothing = Calls::default();
        // Peers as they were before this tick, so that a fault that strikes all does not look like one's.
        let all = self
            .nodes
            .iter()
            .fold(Rate::default(), |sum, node| sum.with(node.rate));
        let medians: Vec<Option<f64>> = (0..self.nodes.len())
            .map(|k| peers_median(calls, k))
            .collect();
        let nodes = self.nodes.iter_mut().zip(medians).enumerate();
        nodes
            .map(|(k, (node, median))| {
                let calls = calls.get(k).unwrap_or(&nothing);
                let peers = all.without(node.rate);
                node.rate.step(calls, keep(MEMORY_S));
                node.recent.step(calls, keep(RECENT_S));
                let run = node.run.step(calls);
                let rate = node.sequential.step(calls, peers);
                let slow = node.slow.step(calls, median);
                let is_in = matches!(node.state, State::Healthy | State::Suspect);
                match (run, rate, slow) {
                    _ if !is_in => None,
                    (true, ..) => Some(Cause::Run),
                    (_, true, _) => Some(Cause::Rate),
                    (.., true) => Some(Cause::Latency),
                    _ => None,
                }
            })
            .collect()
    }

    /// Many at once, and more than one: it is not the nodes. Those that are half-way to being called sick
    /// count, since they do not all get there in the same tick.
    fn common_mode(&self, found: &[Option<Cause>]) -> Option<Guard> {
        let nodes = self.nodes.iter().zip(found);
        let sick = nodes
            .filter(|(node, cause)| {
                let is_out = matches!(node.state, State::Ejected { .. } | State::Probation { .. });
                let is_close = node.sequential.evidence() > 0.5 || node.run.len() >= 3;
                !is_out && (cause.is_some() || is_close)
            })
            .count();
        let percent = sick * 100 / self.nodes.len().max(1);
        (sick > 1 && percent > self.settings.common_mode_percent as usize)
            .then_some(Guard::CommonMode)
    }

    /// The others fail right now as well. They need not be near a verdict of their own, since each is
    /// compared with others that fail.
    fn peers_guard(&self, k: usize) -> Option<Guard> {
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != k);
        let peers = others.fold(Rate::default(), |sum, (_, node)| sum.with(node.recent));
        (peers.mean() > PEERS_SICK).then_some(Guard::CommonMode)
    }

    /// What keeps a node in, whatever is found of it.
    fn guard(&self, k: usize, watermark: Option<f64>) -> Option<Guard> {
        let total = self.nodes.len();
        let out = self
            .nodes
            .iter()
            .filter(|n| matches!(n.state, State::Ejected { .. }))
            .count();
        let rest = total - out;
        // One on probation takes a single request: it does not stand in for another.
        let serves = |node: &Node| matches!(node.state, State::Healthy | State::Suspect);
        let mut others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != k);
        if !others.any(|(_, node)| serves(node)) {
            return Some(Guard::LastNode);
        }
        // One may always go, as Envoy does: with two nodes 50 % is one, with three it is one as well.
        let may = (total * self.settings.max_ejection_percent as usize / 100).max(1);
        if out >= may {
            return Some(Guard::Percent);
        }
        let after = watermark.map(|w| w * rest as f64 / (rest - 1).max(1) as f64);
        after.is_some_and(|w| w >= 1.0).then_some(Guard::Capacity)
    }

    fn suspect(&mut self, k: usize, cause: Cause, guard: Guard, events: &mut Vec<Event>) {
        let evidence = self.evidence(k);
        let Some(node) = self.nodes.get_mut(k) else {
            return;
        };
        // Said once, not at every tick.
        if node.state != State::Suspect {
            node.state = State::Suspect;
            events.push(Event::Suspected {
                node: k,
                cause,
                guard,
                evidence,
            });
        }
    }

    fn eject(
        &mut self,
        k: usize,
        now: Duration,
        cause: Cause,
        random: &mut impl FnMut() -> u64,
        events: &mut Vec<Event>,
    ) {
        let evidence = self.evidence(k);
        let (base, most) = (self.settings.base_ejection, self.settings.max_ejection);
        let Some(node) = self.nodes.get_mut(k) else {
            return;
        };
        node.times = node.times.saturating_add(1);
        let doubled = base.saturating_mul(1 << (node.times - 1).min(20)).min(most);
        // Up to a quarter longer, so that nodes that went together do not come back together.
        let jitter = (random() >> 11) as f64 / (1u64 << 53) as f64;
        let penalty = doubled.mul_f64(1.0 + jitter / 4.0).min(most);
        node.state = State::Ejected {
            until: now + penalty,
        };
        node.run = Run::default();
        node.sequential = Sequential::default();
        node.slow = Slow::default();
        // What it did while sick is no measure of what it will do, nor of its peers.
        node.rate = Rate::default();
        node.recent = Rate::default();
        events.push(Event::Ejected {
            node: k,
            cause,
            penalty,
            times: node.times,
            evidence,
        });
    }

    fn try_out(&mut self, k: usize, now: Duration, events: &mut Vec<Event>) {
        let until = now + self.settings.probation;
        if let Some(node) = self.nodes.get_mut(k) {
            node.state = State::Probation { until };
            events.push(Event::Probation { node: k });
        }
    }

    fn recover(&mut self, k: usize, now: Duration, events: &mut Vec<Event>) {
        if let Some(node) = self.nodes.get_mut(k) {
            node.state = State::Healthy;
            node.well_since = now;
            events.push(Event::Recovered { node: k });
        }
    }

    fn is_well(&mut self, k: usize, now: Duration) {
        let forgive_after = self.settings.forgive_after;
        let Some(node) = self.nodes.get_mut(k) else {
            return;
        };
        if node.state == State::Suspect && node.run.is_empty() {
            node.state = State::Healthy;
            node.well_since = now;
        }
        if node.times > 0 && now.saturating_sub(node.well_since) >= forgive_after {
            node.times -= 1;
            node.well_since = now;
        }
    }

    fn evidence(&self, k: usize) -> Evidence {
        let all = self
            .nodes
            .iter()
            .fold(Rate::default(), |sum, node| sum.with(node.rate));
        let node = self.nodes.get(k).cloned().unwrap_or_default();
        Evidence {
            own: node.rate,
            peers: all.without(node.rate),
            run: node.run.len(),
        }
    }
}

/// The median of the others' medians.
fn peers_median(calls: &[Calls], k: usize) -> Option<f64> {
    let others = calls.iter().enumerate().filter(|(other, _)| *other != k);
    let mut latencies: Vec<f64> = others.filter_map(|(_, calls)| calls.latency_s).collect();
    latencies.sort_by(f64::total_cmp);
    // The lower one of two: a second sick node must not hide the first.
    latencies
        .get(latencies.len().saturating_sub(1) / 2)
        .copied()
}
