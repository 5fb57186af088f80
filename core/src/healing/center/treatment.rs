//! What is done about a sick endpoint: its application is restarted, one at a time, and taken off line
//! at last. Only the proxy that fronts it is asked.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;

use super::{
    Center, Remedy,
    record::{Running, Treatment, Verdict},
};
use crate::healing::{
    directive::{Action, Fronted},
    report::{DirectiveAck, Outcome},
};

impl Center {
    /// The next step for a sick endpoint, if it is time for one.
    pub(super) fn treat(&mut self, now: Duration, address: SocketAddr) {
        let settle = self.settings.settle;
        let Some(record) = self.endpoints.get(&address) else {
            return;
        };
        let treatment = &record.treatment;
        if treatment.running.is_some() || treatment.offline || now < treatment.pause {
            return;
        }
        let restarts = treatment.restarts;
        let Some((node, application)) = self.fronting(address) else {
            return;
        };
        if self.running(&application) >= self.settings.restarts_at_once {
            return;
        }
        let fronted = Fronted {
            application: application.clone(),
            endpoint: address,
        };
        let action = match self.settings.remedy {
            Remedy::Restart | Remedy::Offline if restarts < self.settings.restarts_max => {
                Action::Restart(fronted)
            }
            Remedy::Offline if self.has_another(&application, address) => Action::Offline(fronted),
            Remedy::Confirm | Remedy::Restart | Remedy::Offline => return,
        };
        let word = action.word();
        let is_restart = matches!(action, Action::Restart(_));
        let Some(directive) = self.direct(now, &node, action) else {
            return;
        };
        self.counts.restarts += u64::from(is_restart);
        if let Some(record) = self.endpoints.get_mut(&address) {
            record.treatment.restarts += u32::from(is_restart);
            record.treatment.running = Some(Running {
                directive,
                node,
                application,
                action: word.into(),
                done: false,
                until: now + settle,
            });
        }
        self.dirty_endpoints.insert(address);
    }

    /// The connected node that fronts an endpoint, and the application.
    fn fronting(&self, address: SocketAddr) -> Option<(Box<str>, Box<str>)> {
        let mut nodes = self.nodes.values().filter(|record| record.connected);
        let record = nodes.find(|record| record.node.fronts.contains(&address))?;
        Some((record.node.id.clone(), record.node.application.clone()))
    }

    /// Remedies of an application that are under way.
    fn running(&self, application: &str) -> usize {
        let running = self
            .endpoints
            .values()
            .filter_map(|record| record.treatment.running.as_ref());
        running
            .filter(|running| &*running.application == application)
            .count()
    }

    /// Whether the application is served by somebody else whom nobody has anything against.
    fn has_another(&self, application: &str, address: SocketAddr) -> bool {
        let is_well = |other: &SocketAddr| {
            let record = self.endpoints.get(other);
            *other != address
                && record.is_none_or(|record| record.claims.is_empty() && !record.treatment.offline)
        };
        self.nodes
            .values()
            .filter(|record| record.connected && &*record.node.application == application)
            .any(|record| record.node.fronts.iter().any(is_well))
    }

    /// A restart or the like was carried out, or was not.
    pub(super) fn treated(&mut self, now: Duration, id: &str, ack: &DirectiveAck) {
        let settle = self.settings.settle;
        let mut endpoints = self.endpoints.iter_mut();
        let found = endpoints.find(|(_, record)| {
            let running = record.treatment.running.as_ref();
            running.is_some_and(|running| running.directive == ack.id && *running.node == *id)
        });
        let Some((address, record)) = found else {
            return;
        };
        let address = *address;
        self.dirty_endpoints.insert(address);
        let treatment = &mut record.treatment;
        let Some(running) = &mut treatment.running else {
            return;
        };
        if ack.outcome == Outcome::Done {
            running.done = true;
            running.until = now + settle;
            treatment.offline |= &*running.action == "offline";
            return;
        }
        let action = running.action.clone();
        treatment.running = None;
        treatment.pause = now + settle;
        let detail = json!({ "action": action, "why": ack.detail });
        self.note(now, "remedy_failed", "", Some(address), detail);
    }

    /// Endpoints that count as sick.
    pub fn sick(&self) -> usize {
        let is_sick = |verdict: &Verdict| matches!(verdict, Verdict::Sick { .. });
        self.endpoints
            .values()
            .filter(|record| is_sick(&record.verdict))
            .count()
    }
}

impl Treatment {
    /// Ends a remedy whose time is over; whether there was one. One that seems to have helped keeps its
    /// application's place until then as well: the endpoint may fall sick again at once.
    pub(super) fn end(&mut self, now: Duration) -> bool {
        let over = self.running.take_if(|running| now >= running.until);
        over.is_some()
    }
}
