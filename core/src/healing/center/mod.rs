//! The center's policy (H5): many reporters, one verdict, and what is done about it. Pure: reports and
//! time go in; records to store, directives to send and events come out.
//!
//! ```text
//! claims of nodes against an endpoint, each valid for a while
//!   too many endpoints of the service at once        → dependency, or capacity: nothing is done
//!   ≥ quorum of nodes, or ≥ percent of its callers   → sick: confirm, then restart, at last off line
//!   nothing but its own word that it is full         → overloaded: its callers send it less
//!   fewer                                            → others are asked to probe
//!       a probe failed   → one claim more
//!       all are well     → well: who had taken it out is told to let it back
//!       no answer        → unsettled: the reporters' own loops go on
//! ```
//!
//! * [`record`] is what is known and kept.
//! * `verdict` judges the claims; `treatment` acts on a sick endpoint.
//!
//! Whoever runs it stores the changes before it acknowledges a report or sends a directive, so that
//! neither a report is lost nor a restart is ordered twice by a center that failed in between.

pub mod record;
#[cfg(test)]
mod tests;
mod treatment;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    directive::{Action, Directive},
    report::{Body, Node, Subject},
};
use record::{Change, Claim, ClaimKind, EndpointRecord, Event, NodeRecord, State, Verdict};

/// Nodes known at a time. Ten thousand proxies with their streams are what one process holds.
pub const NODES_MAX: usize = 10_000;

/// Endpoints known at a time: those that something was reported of lately.
pub const ENDPOINTS_MAX: usize = 20_000;

/// Claims kept of one endpoint. A verdict needs a few; what a hundred callers think is not changed by more.
pub const CLAIMS_MAX: usize = 128;

/// Directives that wait to be sent. They are taken after each report and tick; more can only come from a
/// storm, and the next tick makes those that still matter again.
pub const DIRECTIVES_MAX: usize = 10_000;

/// The longest that a claim counts, whatever the node says of its cool-down. Policy ends at five minutes.
const CLAIM_MAX: Duration = Duration::from_secs(3600);

/// A node that was not heard of for so long is forgotten.
const NODE_QUIET: Duration = Duration::from_secs(3600);

/// The same for an endpoint; its restarts are forgotten with it.
const ENDPOINT_QUIET: Duration = Duration::from_secs(600);

/// What is done about a sick endpoint, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// The ejections are confirmed.
    Confirm,
    /// And its application is restarted.
    Restart,
    /// And taken off line if that does not help.
    Offline,
}

/// Settings of a center. The defaults are complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// So many nodes that agree are enough.
    pub quorum: usize,
    /// Or so many of the service's callers, in percent, if they are two at least: one caller alone may be
    /// the one that is sick.
    pub percent: u32,
    /// How long a claim counts, unless the node says itself that it keeps the endpoint out for longer.
    pub window: Duration,
    /// How long answers of probes are waited for.
    pub probe_patience: Duration,
    /// After ejections were declared wrong, the same is not done again for so long.
    pub clear_pause: Duration,
    /// More endpoints of a service than this sick at once, in percent, is not a matter of endpoints (H10).
    pub common_mode_percent: u32,
    /// By how much a confirmed ejection is extended.
    pub extend: Duration,
    /// What is done at most.
    pub remedy: Remedy,
    /// Restarts of one application that may run at a time.
    pub restarts_at_once: usize,
    /// Restarts of one endpoint before it is taken off line.
    pub restarts_max: u32,
    /// How long the effect of a restart is waited for.
    pub settle: Duration,
    /// How long a directive is valid.
    pub ttl: Duration,
    /// Events kept.
    pub events_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            quorum: 3,
            percent: 50,
            window: Duration::from_secs(60),
            probe_patience: Duration::from_secs(5),
            clear_pause: Duration::from_secs(60),
            common_mode_percent: 30,
            extend: Duration::from_secs(60),
            remedy: Remedy::Restart,
            restarts_at_once: 1,
            restarts_max: 2,
            settle: Duration::from_secs(60),
            ttl: Duration::from_secs(30),
            events_max: 10_000,
        }
    }
}

/// Why a node is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// A later run of the same node was here.
    OldIncarnation,
    /// [`NODES_MAX`] are connected.
    TooMany,
}

/// A report as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// See [`Report::sequence`](super::report::Report::sequence).
    pub sequence: u64,
    /// The node's clock when it was sent.
    pub sent: Duration,
    /// How long before that it happened.
    pub age: Duration,
    /// What.
    pub body: Body,
}

/// What a center counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Reports stored.
    pub reports: u64,
    /// Reports that were stored before.
    pub repeated: u64,
    /// Reports that nodes dropped before they were sent.
    pub lost: u64,
    /// Reports about an endpoint or by a node that there is no more room for.
    pub ignored: u64,
    /// Directives made.
    pub directives: u64,
    /// Restarts among them.
    pub restarts: u64,
    /// Verdicts of sick.
    pub sick: u64,
    /// Verdicts of well.
    pub well: u64,
    /// Verdicts of dependency and capacity.
    pub common_mode: u64,
}

/// The state of a center that leads.
#[derive(Clone, Debug)]
pub struct Center {
    settings: Settings,
    /// The fencing epoch of all its directives.
    epoch: u64,
    nodes: BTreeMap<Box<str>, NodeRecord>,
    endpoints: BTreeMap<SocketAddr, EndpointRecord>,
    /// Ascending by number, at most `events_max`.
    events: VecDeque<Event>,
    next_event: u64,
    next_directive: u64,
    dirty_nodes: BTreeSet<Box<str>>,
    dirty_endpoints: BTreeSet<SocketAddr>,
    /// Events that are to be stored or removed.
    dirty_events: Vec<Change>,
    directives: Vec<Directive>,
    counts: Counts,
}

impl Center {
    /// A center that begins to lead at `epoch` with what was stored: keys and values of
    /// [`Change`]s. Returns with it the keys that nothing could be made of.
    pub fn new(
        settings: Settings,
        epoch: u64,
        saved: impl IntoIterator<Item = (String, String)>,
    ) -> (Center, Vec<String>) {
        let mut center = Center {
            settings,
            epoch,
            nodes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            events: VecDeque::new(),
            next_event: 1,
            next_directive: 1,
            dirty_nodes: BTreeSet::new(),
            dirty_endpoints: BTreeSet::new(),
            dirty_events: Vec::new(),
            directives: Vec::new(),
            counts: Counts::default(),
        };
        let strange = saved
            .into_iter()
            .filter_map(|(key, value)| center.restore(&key, &value).is_none().then_some(key))
            .collect();
        center
            .events
            .make_contiguous()
            .sort_by_key(|event| event.number);
        center.next_event = center.events.back().map_or(1, |event| event.number + 1);
        (center, strange)
    }

    fn restore(&mut self, key: &str, value: &str) -> Option<()> {
        match key.split_once('/')? {
            ("node", id) => {
                let record = serde_json::from_str(value).ok()?;
                self.nodes.insert(id.into(), record);
            }
            ("endpoint", address) => {
                let record = serde_json::from_str(value).ok()?;
                self.endpoints.insert(address.parse().ok()?, record);
            }
            ("event", _) => self.events.push_back(serde_json::from_str(value).ok()?),
            _ => return None,
        }
        Some(())
    }

    /// The fencing epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// The newest report of a node that was taken in; 0 without one.
    pub fn sequence(&self, node: &str) -> u64 {
        self.nodes.get(node).map_or(0, |record| record.sequence)
    }

    /// The endpoints that something was reported of.
    pub fn endpoints(&self) -> impl Iterator<Item = (SocketAddr, &EndpointRecord)> {
        self.endpoints
            .iter()
            .map(|(address, record)| (*address, record))
    }

    /// Events after number `after`, the oldest first.
    pub fn events(&self, after: u64) -> impl DoubleEndedIterator<Item = &Event> {
        let start = self.events.partition_point(|event| event.number <= after);
        self.events.range(start..)
    }

    /// What was counted since it leads.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A node whose clock shows `clock` has opened a stream: returns the sequence of its newest report that
    /// is stored.
    pub fn open(&mut self, now: Duration, node: Node, clock: Duration) -> Result<u64, NotAdmitted> {
        let id = node.id.clone();
        match self.nodes.get_mut(&id) {
            Some(known) if known.node.incarnation > node.incarnation => {
                return Err(NotAdmitted::OldIncarnation);
            }
            Some(known) => {
                if known.node.incarnation < node.incarnation {
                    known.sequence = 0;
                }
                (known.node, known.heard, known.connected) = (node, now, true);
                known.clock = clock;
            }
            None => {
                self.make_room_for_node()?;
                let record = NodeRecord {
                    node,
                    sequence: 0,
                    lost: 0,
                    heard: now,
                    connected: true,
                    clock,
                };
                self.nodes.insert(id.clone(), record);
            }
        }
        let sequence = self.sequence(&id);
        self.dirty_nodes.insert(id);
        Ok(sequence)
    }

    /// If every place is taken, who was not heard of for longest goes, unless it is connected.
    fn make_room_for_node(&mut self) -> Result<(), NotAdmitted> {
        if self.nodes.len() < NODES_MAX {
            return Ok(());
        }
        let gone = self.nodes.values().filter(|record| !record.connected);
        let oldest = gone.min_by_key(|record| record.heard);
        let id = oldest.map(|record| record.node.id.clone());
        let id = id.ok_or(NotAdmitted::TooMany)?;
        self.nodes.remove(&id);
        self.dirty_nodes.insert(id);
        Ok(())
    }

    /// A node's stream has ended.
    pub fn close(&mut self, now: Duration, id: &str) {
        if let Some(record) = self.nodes.get_mut(id) {
            (record.connected, record.heard) = (false, now);
            self.dirty_nodes.insert(id.into());
        }
    }

    /// Takes a report of a connected node. One that was stored before changes nothing.
    pub fn receive(&mut self, now: Duration, id: &str, arrival: Arrival) {
        let Some(record) = self.nodes.get_mut(id) else {
            self.counts.ignored += 1;
            return;
        };
        record.heard = now;
        record.clock = record.clock.max(arrival.sent);
        if arrival.body == Body::KeepAlive {
            return;
        }
        if arrival.sequence <= record.sequence {
            self.counts.repeated += 1;
            return;
        }
        let lost = arrival.sequence - record.sequence - 1;
        record.lost = record.lost.saturating_add(lost);
        self.counts.lost = self.counts.lost.saturating_add(lost);
        record.sequence = arrival.sequence;
        self.dirty_nodes.insert(id.into());
        self.counts.reports += 1;
        let at = now.saturating_sub(arrival.age);
        let endpoint = arrival.body.subject().map(|subject| subject.endpoint);
        let detail = record::numbers(&arrival.body);
        self.note(at, arrival.body.word(), id, endpoint, detail);
        self.take(now, at, id, arrival.body);
    }

    fn take(&mut self, now: Duration, at: Duration, id: &str, body: Body) {
        let window = self.settings.window;
        match body {
            Body::Suspect {
                subject, finding, ..
            } => {
                let claim = Claim {
                    kind: ClaimKind::Suspect,
                    at,
                    until: at + window,
                    finding: Some(finding),
                    watermark: None,
                };
                self.claim(now, id, &subject, State::Suspect, claim);
            }
            Body::Ejected {
                subject,
                finding,
                cool_down,
                ..
            } => {
                let claim = Claim {
                    kind: ClaimKind::Ejected,
                    at,
                    until: at + cool_down.max(window).min(CLAIM_MAX),
                    finding: Some(finding),
                    watermark: None,
                };
                self.claim(now, id, &subject, State::Ejected, claim);
            }
            Body::Probation(subject) => self.set_state(now, subject.endpoint, State::Probation),
            Body::Recovered(subject) => self.recover(now, id, subject.endpoint),
            Body::Overload(overload) => self.overload(now, at, id, overload.watermark),
            Body::DirectiveAck(ack) => self.acted(now, id, &ack),
            Body::KeepAlive => {}
        }
    }

    /// `id` has something against an endpoint.
    fn claim(&mut self, now: Duration, id: &str, subject: &Subject, state: State, claim: Claim) {
        if !self.endpoints.contains_key(&subject.endpoint) && self.endpoints.len() >= ENDPOINTS_MAX
        {
            self.counts.ignored += 1;
            return;
        }
        let record = self
            .endpoints
            .entry(subject.endpoint)
            .or_insert_with(|| EndpointRecord::new(&subject.service, &subject.unit, now));
        if record.claims.len() >= CLAIMS_MAX && !record.claims.contains_key(id) {
            self.counts.ignored += 1;
            return;
        }
        if let Some(finding) = &claim.finding {
            record.group = record.group.max(finding.group);
        }
        // Another reporter's suspicion does not bring back what is out.
        let state = match (state, record.state) {
            (State::Suspect, State::Ejected) => State::Ejected,
            (state, _) => state,
        };
        record.claims.insert(id.into(), claim);
        self.set_state(now, subject.endpoint, state);
    }

    fn recover(&mut self, now: Duration, id: &str, endpoint: SocketAddr) {
        let Some(record) = self.endpoints.get_mut(&endpoint) else {
            return;
        };
        record.claims.remove(id);
        let is_out = |claim: &Claim| claim.kind == ClaimKind::Ejected && claim.until >= now;
        let state = match record.claims.values().any(is_out) {
            true => State::Ejected,
            false => State::Healthy,
        };
        self.set_state(now, endpoint, state);
    }

    /// A node speaks against the application that it fronts itself.
    fn overload(&mut self, now: Duration, at: Duration, id: &str, watermark: f64) {
        let Some(node) = self.nodes.get(id).map(|record| record.node.clone()) else {
            return;
        };
        for endpoint in node.fronts {
            let subject = Subject {
                cluster: "".into(),
                service: node.application.clone(),
                endpoint,
                unit: "".into(),
            };
            let claim = Claim {
                kind: ClaimKind::Overload,
                at,
                until: at + self.settings.window,
                finding: None,
                watermark: Some(watermark),
            };
            self.claim(now, id, &subject, State::Suspect, claim);
        }
    }

    fn set_state(&mut self, now: Duration, endpoint: SocketAddr, state: State) {
        let Some(record) = self.endpoints.get_mut(&endpoint) else {
            return;
        };
        record.heard = now;
        if record.state != state {
            (record.state, record.state_since) = (state, now);
        }
        self.dirty_endpoints.insert(endpoint);
    }

    /// Time passes: claims end, verdicts are made, remedies follow. To be called a few times per second.
    pub fn tick(&mut self, now: Duration) {
        self.forget(now);
        let addresses: Vec<SocketAddr> = self.endpoints.keys().copied().collect();
        let services = self.services(now);
        for address in addresses {
            self.judge(now, address, &services);
        }
    }

    fn forget(&mut self, now: Duration) {
        let gone: Vec<Box<str>> = self
            .nodes
            .values()
            .filter(|record| !record.connected && now > record.heard + NODE_QUIET)
            .map(|record| record.node.id.clone())
            .collect();
        for id in gone {
            self.nodes.remove(&id);
            self.dirty_nodes.insert(id);
        }
        let is_over = |record: &EndpointRecord| {
            let by_hand = matches!(record.verdict, Verdict::Sick { by_hand: true });
            record.claims.is_empty() && !by_hand && now > record.heard + ENDPOINT_QUIET
        };
        let over: Vec<SocketAddr> = self
            .endpoints
            .iter()
            .filter(|(_, record)| is_over(record))
            .map(|(address, _)| *address)
            .collect();
        for address in over {
            self.endpoints.remove(&address);
            self.dirty_endpoints.insert(address);
        }
    }

    /// Makes a directive for a connected node; its id, or nothing if it cannot be sent.
    fn direct(&mut self, now: Duration, node: &str, action: Action) -> Option<u64> {
        let record = self.nodes.get(node).filter(|record| record.connected)?;
        if self.directives.len() >= DIRECTIVES_MAX {
            return None;
        }
        // Unique over all centers: no two lead in the same epoch.
        let id = (self.epoch << 32) | (self.next_directive & 0xffff_ffff);
        let directive = Directive {
            id,
            node: node.into(),
            epoch: self.epoch,
            as_of: record.clock,
            ttl: self.settings.ttl,
            action,
        };
        self.next_directive += 1;
        self.counts.directives += 1;
        let (endpoint, detail) = describe(&directive);
        let what = format!("directive_{}", directive.action.word());
        self.note(now, &what, node, endpoint, detail);
        self.directives.push(directive);
        Some(id)
    }

    fn note(
        &mut self,
        at: Duration,
        what: &str,
        node: &str,
        endpoint: Option<SocketAddr>,
        detail: Value,
    ) {
        let event = Event {
            number: self.next_event,
            at,
            what: what.into(),
            node: node.into(),
            endpoint,
            detail,
        };
        self.next_event += 1;
        self.dirty_events.push(Change {
            key: event_key(event.number),
            value: serde_json::to_string(&event).ok(),
        });
        self.events.push_back(event);
        if self.events.len() > self.settings.events_max
            && let Some(oldest) = self.events.pop_front()
        {
            self.dirty_events.push(Change {
                key: event_key(oldest.number),
                value: None,
            });
        }
    }

    /// What changed since the last call, to be stored as a whole: events first, then what they led to.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.dirty_events);
        for address in std::mem::take(&mut self.dirty_endpoints) {
            changes.push(Change {
                key: format!("endpoint/{address}"),
                value: json_of(self.endpoints.get(&address)),
            });
        }
        for id in std::mem::take(&mut self.dirty_nodes) {
            changes.push(Change {
                key: format!("node/{id}"),
                value: json_of(self.nodes.get(&id)),
            });
        }
        changes
    }

    /// The directives since the last call, to be sent once the changes are stored.
    pub fn take_directives(&mut self) -> Vec<Directive> {
        std::mem::take(&mut self.directives)
    }
}

fn json_of<T: Serialize>(record: Option<&T>) -> Option<String> {
    record.and_then(|record| serde_json::to_string(record).ok())
}

/// Twenty digits: the order of keys is the order of events.
fn event_key(number: u64) -> String {
    format!("event/{number:020}")
}

/// The endpoint of a directive, and its numbers for the log.
fn describe(directive: &Directive) -> (Option<SocketAddr>, Value) {
    let id = directive.id.to_string();
    match &directive.action {
        Action::Confirm { endpoint, extend } => (
            Some(*endpoint),
            json!({ "id": id, "extend_s": extend.as_secs_f64() }),
        ),
        Action::Clear { endpoint } | Action::ProbeNow { endpoint } => {
            (Some(*endpoint), json!({ "id": id }))
        }
        Action::Prior { endpoint, weight } => {
            (Some(*endpoint), json!({ "id": id, "weight": weight }))
        }
        Action::Restart(fronted) | Action::Offline(fronted) => (
            Some(fronted.endpoint),
            json!({ "id": id, "application": fronted.application }),
        ),
        Action::Drain { deadline } => (
            None,
            json!({ "id": id, "deadline_s": deadline.as_secs_f64() }),
        ),
    }
}
