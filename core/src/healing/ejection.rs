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

use serde::{Deserialize, Serialize};

use super::detector::{Calls, Rate, Run, Sequential, Slow, Stalled};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Hard failures in a row.
    #[serde(rename = "failures_in_row")]
    Run,
    /// More failures than the peers.
    #[serde(rename = "failure_rate")]
    Rate,
    /// Slower than the peers.
    Latency,
    /// Requests wait, and none is answered.
    Stall,
    /// It failed on probation.
    Probation,
    /// An operator asked for it.
    #[serde(rename = "by_hand")]
    Hand,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 6] = [
        Cause::Run,
        Cause::Rate,
        Cause::Latency,
        Cause::Stall,
        Cause::Probation,
        Cause::Hand,
    ];

    /// The word in metrics, logs and reports.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Run => "failures_in_row",
            Cause::Rate => "failure_rate",
            Cause::Latency => "latency",
            Cause::Stall => "stall",
            Cause::Probation => "probation",
            Cause::Hand => "by_hand",
        }
    }
}

/// Why a sick node is kept in (H10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// There would be none left.
    LastNode,
    /// `max_ejection_percent` are out.
    #[serde(rename = "max_ejection_percent")]
    Percent,
    /// The rest could not bear the load.
    Capacity,
    /// Too many are sick at once: what they depend on is.
    #[serde(rename = "dependency")]
    CommonMode,
}

impl Guard {
    /// Every guard.
    pub const ALL: [Guard; 4] = [
        Guard::LastNode,
        Guard::Percent,
        Guard::Capacity,
        Guard::CommonMode,
    ];

    /// The word in metrics, logs and reports. A common fault is one of a `dependency`, as far as is known
    /// here; one of `capacity` if it is of load.
    pub const fn word(self) -> &'static str {
        match self {
            Guard::LastNode => "last_node",
            Guard::Percent => "max_ejection_percent",
            Guard::Capacity => "capacity",
            Guard::CommonMode => "dependency",
        }
    }
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
    /// Median latency of the last answers, in seconds.
    pub latency_s: Option<f64>,
    /// The same of the peers.
    pub peers_latency_s: Option<f64>,
    /// Requests that waited for an answer.
    pub waiting: u64,
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

impl Event {
    /// Position in the group.
    pub fn node(&self) -> usize {
        match self {
            Event::Suspected { node, .. }
            | Event::Ejected { node, .. }
            | Event::Probation { node }
            | Event::Recovered { node } => *node,
        }
    }
}

/// Seconds over which rates are remembered.
const MEMORY_S: f64 = 10.0;
/// The same, for reports.
pub const WINDOW: Duration = Duration::from_secs(10);
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
    stalled: Stalled,
    rate: Rate,
    /// The same over a second, this tick included.
    recent: Rate,
    /// Over a second as well: refusals for overload among the calls.
    overloaded: Rate,
    /// Of the last answers.
    latency_s: Option<f64>,
    peers_latency_s: Option<f64>,
    waiting: u64,
    times: u32,
    /// Active checks found it dead: it takes no requests whatever is found here.
    is_down: bool,
    /// Since when it is well, or when a time out was last forgiven.
    well_since: Duration,
}

impl Node {
    /// What is known of it, beside the calls of all.
    fn evidence(&self, all: Rate) -> Evidence {
        Evidence {
            own: self.rate,
            peers: all.without(self.rate),
            run: self.run.len(),
            latency_s: self.latency_s,
            peers_latency_s: self.peers_latency_s,
            waiting: self.waiting,
        }
    }
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

    /// What is known of every node.
    pub fn evidences(&self) -> impl Iterator<Item = Evidence> {
        let all = self.all();
        self.nodes.iter().map(move |node| node.evidence(all))
    }

    /// How often each node was ejected lately.
    pub fn times(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().map(|node| node.times)
    }

    /// What active checks say of a node: one that is down counts as out (H14).
    pub fn set_down(&mut self, k: usize, is_down: bool) {
        if let Some(node) = self.nodes.get_mut(k) {
            node.is_down = is_down;
        }
    }

    /// Takes other settings; what was found and decided stays.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// An operator takes a node out for `penalty`, whatever the guards say but the last: a cluster keeps a
    /// node.
    ///
    /// # Errors
    ///
    /// The guard that forbids it.
    pub fn eject_by_hand(
        &mut self,
        k: usize,
        now: Duration,
        penalty: Duration,
    ) -> Result<Event, Guard> {
        if self.is_last(k) {
            return Err(Guard::LastNode);
        }
        Ok(self.put_out(k, now, Cause::Hand, penalty))
    }

    /// The center keeps an ejected node out for longer. Says whether it is ejected.
    pub fn extend(&mut self, k: usize, by: Duration) -> bool {
        match self.nodes.get_mut(k).map(|node| &mut node.state) {
            Some(State::Ejected { until }) => {
                *until = until.saturating_add(by);
                true
            }
            _ => false,
        }
    }

    /// The center ends an ejection: at the next tick the node is tried out. Says whether it is ejected.
    pub fn release(&mut self, k: usize, now: Duration) -> bool {
        match self.nodes.get_mut(k).map(|node| &mut node.state) {
            Some(State::Ejected { until }) => {
                *until = now;
                true
            }
            _ => false,
        }
    }

    /// An operator, or the center, takes a node back in at once, its times out forgotten.
    pub fn restore(&mut self, k: usize, now: Duration) -> Option<Event> {
        let node = self.nodes.get_mut(k)?;
        if matches!(node.state, State::Healthy) {
            return None;
        }
        node.times = 0;
        node.state = State::Healthy;
        node.well_since = now;
        Some(Event::Recovered { node: k })
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
                    // Only the trial counts: what else ends now may have begun before the ejection.
                    if calls.trials_failed > 0 {
                        let cause = Cause::Probation;
                        match self.guard(k, watermark) {
                            Some(guard) => self.suspect(k, cause, guard, &mut events),
                            None => self.eject(k, now, cause, random, &mut events),
                        }
                    } else if calls.trials_succeeded > 0 || now >= until {
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
        let all = self.all();
        let mut latencies: Vec<f64> = calls.iter().filter_map(|calls| calls.latency_s).collect();
        latencies.sort_by(f64::total_cmp);
        let nodes = self.nodes.iter_mut().enumerate();
        nodes
            .map(|(k, node)| {
                let calls = calls.get(k).unwrap_or(&nothing);
                let median = peers_median(&latencies, calls.latency_s);
                let peers = all.without(node.rate);
                node.rate.step(calls, keep(MEMORY_S));
                node.recent.step(calls, keep(RECENT_S));
                let overloaded = Calls {
                    failed: calls.overloaded,
                    succeeded: calls.total() - calls.overloaded.min(calls.total()),
                    ..Calls::default()
                };
                node.overloaded.step(&overloaded, keep(RECENT_S));
                node.latency_s = calls.latency_s.or(node.latency_s);
                node.peers_latency_s = median.or(node.peers_latency_s);
                node.waiting = calls.waiting;
                let found = [
                    (node.run.step(calls), Cause::Run),
                    (node.sequential.step(calls, peers), Cause::Rate),
                    (node.stalled.step(calls, tick.as_secs_f64()), Cause::Stall),
                    (node.slow.step(calls, median), Cause::Latency),
                ];
                let is_in = matches!(node.state, State::Healthy | State::Suspect);
                let first = found.into_iter().find(|(fires, _)| *fires && is_in);
                first.map(|(_, cause)| cause)
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
                let is_close = node.sequential.evidence() > 0.5
                    || node.run.len() >= 3
                    || node.stalled.is_silent();
                !is_out && (cause.is_some() || is_close)
            })
            .count();
        let percent = sick * 100 / self.nodes.len().max(1);
        (sick > 1 && percent > self.settings.common_mode_percent as usize)
            .then(|| self.common_cause())
    }

    /// What strikes all: if most of the failures are refusals for overload, it is the load (H10, L12).
    fn common_cause(&self) -> Guard {
        let sum = |rate: fn(&Node) -> Rate| {
            self.nodes
                .iter()
                .map(rate)
                .fold(Rate::default(), Rate::with)
        };
        let (failed, overloaded) = (sum(|n| n.recent).failed, sum(|n| n.overloaded).failed);
        match overloaded * 2.0 > failed && overloaded > 0.0 {
            true => Guard::Capacity,
            false => Guard::CommonMode,
        }
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
        (peers.mean() > PEERS_SICK).then(|| self.common_cause())
    }

    /// Whether no other node serves.
    fn is_last(&self, k: usize) -> bool {
        // One on probation takes a single request: it does not stand in for another.
        let serves =
            |node: &Node| !node.is_down && matches!(node.state, State::Healthy | State::Suspect);
        let mut others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != k);
        !others.any(|(_, node)| serves(node))
    }

    /// What keeps a node in, whatever is found of it.
    fn guard(&self, k: usize, watermark: Option<f64>) -> Option<Guard> {
        if self.is_last(k) {
            return Some(Guard::LastNode);
        }
        let total = self.nodes.len();
        let is_out = |node: &Node| node.is_down || matches!(node.state, State::Ejected { .. });
        let others = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != k);
        let out = others.filter(|(_, node)| is_out(node)).count();
        let rest = total - out;
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
        let (base, most) = (self.settings.base_ejection, self.settings.max_ejection);
        let times = self.nodes.get(k).map_or(0, |node| node.times);
        let doubled = base.saturating_mul(1 << times.min(20)).min(most);
        // Up to a quarter longer, so that nodes that went together do not come back together.
        let jitter = (random() >> 11) as f64 / (1u64 << 53) as f64;
        let penalty = doubled.mul_f64(1.0 + jitter / 4.0).min(most);
        events.push(self.put_out(k, now, cause, penalty));
    }

    fn put_out(&mut self, k: usize, now: Duration, cause: Cause, penalty: Duration) -> Event {
        let evidence = self.evidence(k);
        let before = self.nodes.get(k).cloned().unwrap_or_default();
        let times = before.times.saturating_add(1);
        if let Some(node) = self.nodes.get_mut(k) {
            // What it did while sick is no measure of what it will do, nor of its peers.
            *node = Node {
                state: State::Ejected {
                    until: now + penalty,
                },
                times,
                is_down: before.is_down,
                ..Node::default()
            };
        }
        Event::Ejected {
            node: k,
            cause,
            penalty,
            times,
            evidence,
        }
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

    /// The calls of all nodes lately.
    fn all(&self) -> Rate {
        let rates = self.nodes.iter().map(|node| node.rate);
        rates.fold(Rate::default(), Rate::with)
    }

    fn evidence(&self, k: usize) -> Evidence {
        let node = self.nodes.get(k);
        node.map_or_else(Evidence::default, |node| node.evidence(self.all()))
    }
}

/// The median of the others' medians. `sorted` holds those of all, and this node's `own` among them.
fn peers_median(sorted: &[f64], own: Option<f64>) -> Option<f64> {
    let own = own.map(|own| sorted.partition_point(|one| one.total_cmp(&own).is_lt()));
    let others = sorted.len() - usize::from(own.is_some());
    // The lower one of two: a second sick node must not hide the first.
    let middle = others.saturating_sub(1) / 2;
    let is_behind = own.is_some_and(|own| own <= middle);
    let at = middle + usize::from(is_behind);
    sorted.get(at).copied().filter(|_| others > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: the peers' median is the one of all the others (H2, H8). Method: any latencies, with gaps and
        /// repeats, against the others sorted for each node anew.
        #[test]
        fn median_is_of_the_others(
            latencies in prop::collection::vec(prop::option::of(0u8..4), 1..8),
        ) {
            let latencies: Vec<Option<f64>> =
                latencies.iter().map(|l| l.map(f64::from)).collect();
            let sorted = |skip: Option<usize>| {
                let kept = latencies.iter().enumerate().filter(|(k, _)| Some(*k) != skip);
                let mut kept: Vec<f64> = kept.filter_map(|(_, l)| *l).collect();
                kept.sort_by(f64::total_cmp);
                kept
            };
            let all = sorted(None);
            for (k, own) in latencies.iter().enumerate() {
                let others = sorted(Some(k));
                let expected = others.get(others.len().saturating_sub(1) / 2).copied();
                prop_assert_eq!(peers_median(&all, *own), expected);
            }
        }
    }
}
