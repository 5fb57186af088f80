//! From claims to a verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use serde_json::json;

use super::{
    Center,
    record::{Asked, Claim, ClaimKind, EndpointRecord, Verdict},
};
use crate::healing::{
    directive::Action,
    report::{DirectiveAck, Outcome},
};

/// Nodes that are asked to probe one endpoint. Three answers settle what one cannot.
const PROBES: usize = 3;

/// An endpoint that is full gets this part of its load at least: less would tell nothing of its recovery.
const WEIGHT_MIN: f64 = 0.1;

/// A weight that differs by less than this from the one that was told is not told before that one ends.
const WEIGHT_STEP: f64 = 0.1;

/// A service as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Service {
    /// Its endpoints, as far as is known.
    group: usize,
    /// Those that somebody has something against.
    sick: usize,
    /// Of these, those that only say themselves that they are full.
    overloaded: usize,
}

impl Service {
    /// The verdict for all of its sick endpoints, if it is not a matter of endpoints (H10).
    fn common_mode(&self, percent_max: u32) -> Option<Verdict> {
        let group = self.group.max(self.sick).max(1);
        if self.overloaded == self.sick && group == 1 {
            return Some(Verdict::Capacity);
        }
        if self.sick < 2 || self.sick * 100 / group <= percent_max as usize {
            return None;
        }
        match self.overloaded == self.sick {
            true => Some(Verdict::Capacity),
            false => Some(Verdict::Dependency),
        }
    }
}

impl Center {
    /// The services that something was reported of.
    pub(super) fn services(&self, now: Duration) -> BTreeMap<Box<str>, Service> {
        let mut services: BTreeMap<Box<str>, Service> = BTreeMap::new();
        for record in self.endpoints.values() {
            let service = services.entry(record.service.clone()).or_default();
            service.sick += usize::from(record.live(now).next().is_some());
            service.overloaded += usize::from(record.pressure(now).is_some());
            service.group = service.group.max(record.group as usize);
        }
        for (name, fronted) in self.fronted() {
            if let Some(service) = services.get_mut(name) {
                service.group = service.group.max(fronted.len());
            }
        }
        services
    }

    /// By application: where connected nodes front it.
    fn fronted(&self) -> BTreeMap<&str, BTreeSet<SocketAddr>> {
        let mut fronted: BTreeMap<&str, BTreeSet<SocketAddr>> = BTreeMap::new();
        for record in self.nodes.values().filter(|record| record.connected) {
            let addresses = fronted.entry(&record.node.application).or_default();
            addresses.extend(&record.node.fronts);
        }
        fronted
    }

    pub(super) fn judge(
        &mut self,
        now: Duration,
        address: SocketAddr,
        services: &BTreeMap<Box<str>, Service>,
    ) {
        let percent_max = self.settings.common_mode_percent;
        let Some(record) = self.endpoints.get_mut(&address) else {
            return;
        };
        let before = record.claims.len();
        record.claims.retain(|_, claim| claim.until >= now);
        if record.claims.len() != before || record.treatment.end(now) {
            self.dirty_endpoints.insert(address);
        }
        let votes = record.claims.len();
        let pressure = record.pressure(now);
        let service = record.service.clone();
        let common = services
            .get(&service)
            .and_then(|service| service.common_mode(percent_max));
        match record.verdict.clone() {
            Verdict::Sick { by_hand: true } => self.treat(now, address),
            Verdict::None | Verdict::Well if votes == 0 => {}
            _ if votes == 0 => self.conclude(now, address, Verdict::None),
            _ if common.is_some() => self.conclude(now, address, common.unwrap_or_default()),
            Verdict::Sick { .. } => self.treat(now, address),
            _ if self.enough(votes, &service, address) => {
                self.conclude(now, address, Verdict::Sick { by_hand: false });
                self.confirm_ejections(now, address);
                self.treat(now, address);
            }
            verdict if pressure.is_some() => self.relieve(now, address, &verdict, pressure),
            Verdict::Probing { until, asked } => self.settle(now, address, until, &asked),
            Verdict::Unsettled => {}
            Verdict::None
            | Verdict::Well
            | Verdict::Overloaded { .. }
            | Verdict::Dependency
            | Verdict::Capacity => self.ask(now, address),
        }
    }

    /// An endpoint is full alone: its callers send it less, by as much as it is over.
    fn relieve(
        &mut self,
        now: Duration,
        address: SocketAddr,
        verdict: &Verdict,
        watermark: Option<f64>,
    ) {
        let weight = (1.0 / watermark.unwrap_or(1.0).max(1.0)).max(WEIGHT_MIN);
        if let Verdict::Overloaded { weight: was, told } = verdict
            && (weight - was).abs() < WEIGHT_STEP
            && now < *told + self.settings.ttl / 2
        {
            return;
        }
        self.tell_weight(now, address, weight);
        self.conclude(now, address, Verdict::Overloaded { weight, told: now });
    }

    /// Tells the callers of an endpoint which part of its load to send it.
    fn tell_weight(&mut self, now: Duration, address: SocketAddr, weight: f64) {
        let Some(record) = self.endpoints.get(&address) else {
            return;
        };
        let service = &record.service;
        let callers = self
            .nodes
            .values()
            .filter(|node| node.node.calls.contains(service));
        let callers: Vec<Box<str>> = callers.map(|node| node.node.id.clone()).collect();
        for node in callers {
            let action = Action::Prior {
                endpoint: address,
                weight,
            };
            self.direct(now, &node, action);
        }
    }

    /// Whether so many nodes suffice.
    fn enough(&self, votes: usize, service: &str, address: SocketAddr) -> bool {
        if votes >= self.settings.quorum {
            return true;
        }
        let claims = self.endpoints.get(&address).map(|record| &record.claims);
        let is_reporter = |id: &str| claims.is_some_and(|claims| claims.contains_key(id));
        let callers = self.nodes.values().filter(|record| {
            record.connected
                && !is_reporter(&record.node.id)
                && record.node.calls.iter().any(|called| **called == *service)
        });
        let callers = callers.count() + votes;
        votes >= 2 && votes * 100 >= callers * self.settings.percent as usize
    }

    /// Asks others to probe: callers that have nothing against the endpoint, then who fronts it.
    fn ask(&mut self, now: Duration, address: SocketAddr) {
        let Some(record) = self.endpoints.get(&address) else {
            return;
        };
        let askable = self
            .nodes
            .values()
            .filter(|node| node.connected && !record.claims.contains_key(&node.node.id));
        let (calls, rest): (Vec<_>, Vec<_>) =
            askable.partition(|node| node.node.calls.contains(&record.service));
        let fronts = rest
            .into_iter()
            .filter(|node| node.node.fronts.contains(&address));
        let chosen: Vec<Box<str>> = calls
            .into_iter()
            .chain(fronts)
            .take(PROBES)
            .map(|node| node.node.id.clone())
            .collect();
        let mut asked = Vec::new();
        for node in chosen {
            let action = Action::ProbeNow { endpoint: address };
            if let Some(directive) = self.direct(now, &node, action) {
                asked.push(Asked {
                    node,
                    directive,
                    well: None,
                });
            }
        }
        let verdict = match asked.is_empty() {
            true => Verdict::Unsettled,
            false => Verdict::Probing {
                until: now + self.settings.probe_patience,
                asked,
            },
        };
        self.conclude(now, address, verdict);
    }

    /// Every answer is there, or nobody waits any longer.
    fn settle(&mut self, now: Duration, address: SocketAddr, until: Duration, asked: &[Asked]) {
        let answers = |well| {
            asked
                .iter()
                .filter(|asked| asked.well == Some(well))
                .count()
        };
        if now < until && answers(true) + answers(false) < asked.len() {
            return;
        }
        let pause = self.settings.clear_pause;
        let cleared = self
            .endpoints
            .get(&address)
            .and_then(|record| record.cleared);
        let again = cleared.is_some_and(|cleared| now < cleared + pause);
        if answers(true) > answers(false) && !again {
            self.clear_ejections(now, address);
        } else {
            self.conclude(now, address, Verdict::Unsettled);
        }
    }

    fn confirm_ejections(&mut self, now: Duration, address: SocketAddr) {
        let extend = self.settings.extend;
        for node in self.ejected_by(address) {
            let action = Action::Confirm {
                endpoint: address,
                extend,
            };
            let sent = self.direct(now, &node, action).is_some();
            let record = self.endpoints.get_mut(&address);
            if let Some(claim) = record.and_then(|record| record.claims.get_mut(&node))
                && sent
            {
                claim.until = claim.until.saturating_add(extend);
            }
        }
    }

    fn clear_ejections(&mut self, now: Duration, address: SocketAddr) {
        for node in self.ejected_by(address) {
            self.direct(now, &node, Action::Clear { endpoint: address });
        }
        if let Some(record) = self.endpoints.get_mut(&address) {
            record.claims.clear();
            record.cleared = Some(now);
        }
        self.conclude(now, address, Verdict::Well);
    }

    fn ejected_by(&self, address: SocketAddr) -> Vec<Box<str>> {
        let record = self.endpoints.get(&address);
        let claims = record.into_iter().flat_map(|record| &record.claims);
        claims
            .filter(|(_, claim)| claim.kind == ClaimKind::Ejected)
            .map(|(node, _)| node.clone())
            .collect()
    }

    /// Sets a verdict, and says so if it is another one.
    pub(super) fn conclude(&mut self, now: Duration, address: SocketAddr, verdict: Verdict) {
        let Some(record) = self.endpoints.get_mut(&address) else {
            return;
        };
        self.dirty_endpoints.insert(address);
        if record.verdict.word() == verdict.word() {
            record.verdict = verdict;
            return;
        }
        let relieved = matches!(record.verdict, Verdict::Overloaded { .. });
        match verdict {
            Verdict::Sick { .. } => self.counts.sick += 1,
            Verdict::Well => self.counts.well += 1,
            Verdict::Dependency | Verdict::Capacity => self.counts.common_mode += 1,
            Verdict::None
            | Verdict::Probing { .. }
            | Verdict::Unsettled
            | Verdict::Overloaded { .. } => {}
        }
        let what = format!("verdict_{}", verdict.word());
        let detail = json!({
            "service": record.service,
            "before": record.verdict.word(),
            "claims": record.claims.len(),
        });
        (record.verdict, record.verdict_since) = (verdict, now);
        self.note(now, &what, "", Some(address), detail);
        if relieved {
            self.tell_weight(now, address, 1.0);
        }
    }

    /// A directive was carried out or refused.
    pub(super) fn acted(&mut self, now: Duration, id: &str, ack: &DirectiveAck) {
        let with_probe = self.endpoints.iter().find_map(|(address, record)| {
            let Verdict::Probing { asked, .. } = &record.verdict else {
                return None;
            };
            let by_id = |asked: &Asked| asked.directive == ack.id && *asked.node == *id;
            asked.iter().any(by_id).then_some(*address)
        });
        match with_probe {
            Some(address) => self.probed(now, address, id, ack),
            None => self.treated(now, id, ack),
        }
    }

    fn probed(&mut self, now: Duration, address: SocketAddr, id: &str, ack: &DirectiveAck) {
        let until = now + self.settings.window;
        let Some(record) = self.endpoints.get_mut(&address) else {
            return;
        };
        let well = match ack.outcome {
            Outcome::ProbeSucceeded => true,
            Outcome::ProbeFailed => false,
            // It could not probe: nobody waits for it any longer.
            Outcome::Done | Outcome::Failed | Outcome::Refused => {
                record.withdraw(ack.id);
                return;
            }
        };
        record.answer(ack.id, well);
        self.dirty_endpoints.insert(address);
        if !well && record.claims.len() < super::CLAIMS_MAX {
            let claim = Claim {
                kind: ClaimKind::Probe,
                at: now,
                until,
                finding: None,
                watermark: None,
            };
            record.claims.insert(id.into(), claim);
        }
    }

    /// A person says that an endpoint is sick; false if nothing was ever reported of it.
    pub fn confirm(&mut self, now: Duration, address: SocketAddr) -> bool {
        if !self.endpoints.contains_key(&address) {
            return false;
        }
        self.note(now, "confirmed_by_hand", "", Some(address), json!({}));
        self.conclude(now, address, Verdict::Sick { by_hand: true });
        self.confirm_ejections(now, address);
        true
    }

    /// A person says that an endpoint is well; false if nothing was ever reported of it.
    pub fn clear(&mut self, now: Duration, address: SocketAddr) -> bool {
        if !self.endpoints.contains_key(&address) {
            return false;
        }
        self.note(now, "cleared_by_hand", "", Some(address), json!({}));
        self.clear_ejections(now, address);
        if let Some(record) = self.endpoints.get_mut(&address) {
            record.treatment = Default::default();
        }
        true
    }
}

impl EndpointRecord {
    fn live(&self, now: Duration) -> impl Iterator<Item = &Claim> {
        self.claims.values().filter(move |claim| claim.until >= now)
    }

    /// The watermark, if that it is full is all there is against the endpoint.
    fn pressure(&self, now: Duration) -> Option<f64> {
        let watermarks: Option<Vec<f64>> = self.live(now).map(|claim| claim.watermark).collect();
        watermarks?.into_iter().reduce(f64::max)
    }

    fn asked(&mut self) -> Option<&mut Vec<Asked>> {
        match &mut self.verdict {
            Verdict::Probing { asked, .. } => Some(asked),
            _ => None,
        }
    }

    fn answer(&mut self, directive: u64, well: bool) {
        let asked = self.asked().into_iter().flatten();
        for asked in asked.filter(|asked| asked.directive == directive) {
            asked.well = Some(well);
        }
    }

    fn withdraw(&mut self, directive: u64) {
        if let Some(asked) = self.asked() {
            asked.retain(|asked| asked.directive != directive);
        }
    }
}
