//! Self-healing: what was found and decided goes to the log, to the admin server and to the counters; and what
//! an operator asks for.

use tidegate_core::{
    coordinator::Healing,
    healing::ejection::{Event, Evidence},
};

use super::Coordinator;
use crate::status::{HealCommand, unix_ms};

impl Coordinator {
    /// Takes an endpoint out by hand, or back in, or says whether that could be.
    ///
    /// # Errors
    ///
    /// Why it cannot be, and what can.
    pub(super) fn heal_by_hand(&mut self, command: &HealCommand) -> Result<(), String> {
        let HealCommand {
            cluster, endpoint, ..
        } = command;
        let now = self.status.started.elapsed();
        let changed = match (command.out_for, command.is_trial) {
            (Some(_), true) => return self.policy.may_eject(cluster, *endpoint),
            (None, true) => return self.policy.may_restore(cluster, *endpoint),
            (Some(time), false) => self.policy.eject(cluster, *endpoint, now, time)?,
            (None, false) => self.policy.restore(cluster, *endpoint, now)?,
        };
        self.carry_out_by_hand(&changed);
        Ok(())
    }

    /// Logs what was found or decided, and keeps it for those who look.
    pub(super) fn carry_out_healing(&mut self, healing: &Healing) {
        let Healing {
            cluster,
            address,
            event,
            enforced,
        } = healing;
        let mode = if *enforced { "" } else { " (shadow)" };
        match event {
            Event::Suspected {
                cause,
                guard,
                evidence,
                ..
            } => tracing::warn!(
                "cluster `{cluster}`: {address} is sick ({}) and stays in{mode}, by {}: {}",
                cause.word(),
                guard.word(),
                numbers(evidence)
            ),
            Event::Ejected {
                cause,
                penalty,
                times,
                evidence,
                ..
            } => tracing::warn!(
                "cluster `{cluster}`: {address} is ejected{mode} for {penalty:.1?}, time {times} ({}): {}",
                cause.word(),
                numbers(evidence)
            ),
            Event::Probation { .. } => {
                tracing::info!(
                    "cluster `{cluster}`: {address} is tried out{mode} with one request"
                );
            }
            Event::Recovered { .. } => {
                tracing::info!("cluster `{cluster}`: {address} is well again{mode}");
            }
        }
        self.report(healing);
        self.status.live_mut().healing.note(healing, unix_ms());
    }

    /// Shows where every endpoint of a cluster that heals stands.
    pub(super) fn show_healing(&self) {
        let wards = self.policy.wards();
        let mut live = self.status.live_mut();
        live.healing.show(wards);
        let priors = self.policy.priors().iter();
        live.priors = priors
            .map(|(address, share, until)| (address, (share, until)))
            .collect();
    }

    /// What was asked for by hand is done and shown at once.
    fn carry_out_by_hand(&mut self, healing: &Healing) {
        self.carry_out_healing(healing);
        self.decide();
        self.show_healing();
    }
}

/// What a decision rests on, for people.
pub(crate) fn numbers(evidence: &Evidence) -> String {
    let percent = |rate: tidegate_core::healing::detector::Rate| rate.mean() * 100.0;
    let mut said = format!(
        "{:.1} % of {:.0} calls failed, of its peers' {:.1} %",
        percent(evidence.own),
        evidence.own.calls,
        percent(evidence.peers)
    );
    if evidence.run > 0 {
        said += &format!("; {} failures in a row", evidence.run);
    }
    if let (Some(own), Some(peers)) = (evidence.latency_s, evidence.peers_latency_s) {
        said += &format!(
            "; median {:.1} ms, of its peers {:.1} ms",
            own * 1e3,
            peers * 1e3
        );
    }
    if evidence.waiting > 0 {
        said += &format!("; {} requests waiting", evidence.waiting);
    }
    said
}
