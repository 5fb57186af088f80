//! What the tasks around the coordinator report: names that were looked up, endpoints that were probed.

use tidegate_core::{
    coordinator::Report,
    id::{ClusterId, EndpointId},
    message::Availability,
};

use super::Coordinator;
use crate::{
    health::Probed,
    resolver::Resolved,
    status::{EndpointHealth, count, unix_s},
};

impl Coordinator {
    pub(super) fn on_resolved(&mut self, resolved: Resolved) {
        let Resolved { cluster, addresses } = resolved;
        match addresses {
            Ok(addresses) => {
                if self.status.live_mut().dns_errors.remove(&cluster).is_some() {
                    tracing::info!("cluster `{cluster}`: found by DNS again");
                }
                self.reports.push(Report::Resolved { cluster, addresses });
            }
            Err(error) => {
                count(&self.status.process.dns_failures);
                let before = self
                    .status
                    .live_mut()
                    .dns_errors
                    .insert(cluster.clone(), error.clone());
                // Said once, not at every look-up.
                if before.is_none() {
                    tracing::warn!("cluster `{cluster}`: DNS failed, last addresses stay: {error}");
                }
            }
        }
    }

    pub(super) fn on_probed(&mut self, probed: Probed) {
        let Probed { endpoint, result } = probed;
        // A report that was under way when its check ended.
        if !self.checker.checks(&endpoint) {
            return;
        }
        let succeeded = result.is_ok();
        if !succeeded {
            count(&self.status.process.health_failures);
        }
        self.status
            .live_mut()
            .health
            .entry(endpoint.clone())
            .or_insert_with(|| EndpointHealth {
                availability: Availability::Available,
                since_unix_s: unix_s(),
                last: String::new(),
            })
            .last = result.map_or_else(|error| error, |()| "ok".into());
        let (cluster, address) = endpoint;
        self.reports.push(Report::Probed {
            cluster,
            address,
            succeeded,
        });
    }

    /// Logs changes of health and keeps what the admin server shows.
    pub(super) fn show_health(&self, verdicts: &[(ClusterId, EndpointId, Availability)]) {
        let mut live = self.status.live_mut();
        let Some(snapshot) = live.snapshot.clone() else {
            return;
        };
        for (cluster, endpoint, _) in verdicts {
            let Some((cluster, endpoint)) = snapshot
                .clusters
                .get(cluster.index())
                .and_then(|c| Some((c, c.endpoints.get(endpoint.index())?)))
            else {
                continue;
            };
            let key = (cluster.name.clone(), endpoint.address);
            let Some(health) = live.health.get_mut(&key) else {
                continue;
            };
            let availability = self.policy.probed_as(&key);
            // After an install all verdicts are told again, changed or not; and some are not of checks.
            if health.availability == availability {
                continue;
            }
            health.availability = availability;
            health.since_unix_s = unix_s();
            let (name, address) = key;
            match availability {
                Availability::Available => tracing::info!("cluster `{name}`: {address} is back"),
                _ => {
                    tracing::warn!("cluster `{name}`: {address} is out: {}", health.last);
                }
            }
        }
    }
}
