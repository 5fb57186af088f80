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

use super::{
    detector::{Calls, Rate, Run, Sequential, Slow, Stalled},
    outlier::{Sweep, Watch},
};

pub use super::event::{Backoff, Cause, Event, Evidence, Found, Guard, Settings, State};

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
    watch: Watch,
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
    /// Why it is not healthy.
    found: Option<Found>,
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
            run: self.run.len().max(self.watch.longest),
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
    /// Where nodes are judged as Envoy does.
    sweep: Sweep,
}

impl Group {
    /// A group of `nodes` healthy nodes.
    pub fn new(settings: Settings, nodes: usize) -> Group {
        Group {
            settings,
            nodes: vec![Node::default(); nodes],
            sweep: Sweep::default(),
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

    /// Why each node is not healthy, if it is not.
    pub fn found(&self) -> impl Iterator<Item = Option<Found>> {
        self.nodes.iter().map(|node| node.found)
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
        self.may_eject_by_hand(k)?;
        Ok(self.put_out(k, now, Cause::Hand, penalty))
    }

    /// Whether an operator may take a node out.
    ///
    /// # Errors
    ///
    /// The guard that forbids it.
    pub fn may_eject_by_hand(&self, k: usize) -> Result<(), Guard> {
        match self.is_last(k) {
            true => Err(Guard::LastNode),
            false => Ok(()),
        }
    }

    /// Whether there is something to take back.
    pub fn may_restore(&self, k: usize) -> bool {
        let node = self.nodes.get(k);
        node.is_some_and(|node| node.state != State::Healthy)
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
        if !self.may_restore(k) {
            return None;
        }
        let node = self.nodes.get_mut(k)?;
        node.times = 0;
        node.found = None;
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
        let own = self.detect(tick, calls);
        let found = self.detect_as_envoy(tick, calls).unwrap_or(own);
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
                        .or_else(|| self.leniency(*cause, random))
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

    /// What Envoy's fields find of each node, if they are what it is judged by.
    fn detect_as_envoy(&mut self, tick: Duration, calls: &[Calls]) -> Option<Vec<Option<Cause>>> {
        let settings = self.settings.outlier.as_ref()?;
        let nothing = Calls::default();
        let nodes = self.nodes.iter_mut().enumerate();
        let rows: Vec<Option<Cause>> = nodes
            .map(|(k, node)| node.watch.step(calls.get(k).unwrap_or(&nothing), settings))
            .collect();
        let watches = self.nodes.iter_mut().map(|node| &mut node.watch);
        let mut rates = self.sweep.step(tick, settings, watches);
        rates.resize(rows.len(), None);
        let found = rows.into_iter().zip(rates);
        Some(found.map(|(row, rate)| row.or(rate)).collect())
    }

    /// Envoy's `enforcing_…`: of so many of a hundred that are found, one is let off.
    fn leniency(&self, cause: Cause, random: &mut impl FnMut() -> u64) -> Option<Guard> {
        let percent = self.settings.outlier.as_ref()?.enforcing(cause);
        (percent < 100 && random() % 100 >= u64::from(percent)).then_some(Guard::Enforcing)
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
            node.found = Some(Found {
                cause,
                guard: Some(guard),
                evidence,
            });
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
        let part = (random() >> 11) as f64 / (1u64 << 53) as f64;
        let penalty = match self.settings.backoff {
            Backoff::Doubled => {
                let doubled = base.saturating_mul(1 << times.min(20)).min(most);
                doubled.mul_f64(1.0 + part / 4.0).min(most)
            }
            Backoff::Multiplied { jitter } => {
                base.saturating_mul(times.saturating_add(1)).min(most) + jitter.mul_f64(part)
            }
        };
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
                found: Some(Found {
                    cause,
                    guard: None,
                    evidence,
                }),
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
            node.found = None;
            node.well_since = now;
            node.watch = Watch::default();
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
            node.found = None;
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
