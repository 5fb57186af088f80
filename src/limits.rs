//! What adaptive limiting saw and decided, kept for those who look.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tidegate_core::{
    config::model::AdaptiveLimit,
    limiter::{
        application::{Application, Told, UnitStatus},
        hand::{HandLimit, Whose},
        watermark::{Phase, Reading, Sample},
    },
};

/// Decisions that are kept: half a minute of a limiter that changes its mind at every tick.
pub(crate) const DECISIONS_MAX: usize = 256;

/// All clusters that are limited.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// By name.
    pub(crate) clusters: BTreeMap<Arc<str>, ClusterLimits>,
    /// The last changes of limits, the newest first.
    pub(crate) decisions: VecDeque<Decision>,
}

/// One cluster.
#[derive(Debug)]
pub(crate) struct ClusterLimits {
    pub(crate) rule: AdaptiveLimit,
    /// What was measured in the last tick.
    pub(crate) sample: Sample,
    /// What became of it.
    pub(crate) reading: Reading,
    pub(crate) phase: Phase,
    pub(crate) epoch: u64,
    /// Interfaces that were seen, by priority.
    pub(crate) units: Vec<UnitStatus>,
    /// Limits that are set by hand.
    pub(crate) by_hand: Vec<(Whose, HandLimit)>,
    /// Overloads so far.
    pub(crate) overloads: u64,
    /// The phase that was told last.
    told: Phase,
}

/// One change of limits (L10).
#[derive(Debug)]
pub(crate) struct Decision {
    /// When, in milliseconds since the Unix epoch.
    pub(crate) unix_ms: u64,
    /// Name of the cluster.
    pub(crate) cluster: Arc<str>,
    pub(crate) told: Told,
}

impl Limits {
    /// Takes what shards are told. True if an overload began or ended with it.
    pub(crate) fn note(&mut self, name: &Arc<str>, told: &Told, unix_ms: u64) -> bool {
        let last = self.decisions.iter().find(|d| d.cluster == *name);
        if last.is_none_or(|last| last.told.epoch != told.epoch) {
            self.decisions.truncate(DECISIONS_MAX - 1);
            self.decisions.push_front(Decision {
                unix_ms,
                cluster: name.clone(),
                told: told.clone(),
            });
        }
        let Some(cluster) = self.clusters.get_mut(name) else {
            return false;
        };
        let changed = cluster.told != told.phase;
        cluster.told = told.phase;
        cluster.overloads += u64::from(changed && told.phase == Phase::Overloaded);
        changed
    }

    /// Takes what every rule sees. Clusters that are limited no more are forgotten.
    pub(crate) fn show(&mut self, applications: &BTreeMap<Arc<str>, Application>) {
        self.clusters
            .retain(|name, _| applications.contains_key(name));
        for (name, application) in applications {
            let Some(last) = application.last() else {
                continue;
            };
            let before = self.clusters.get(name);
            let (overloads, told) = before.map_or((0, Phase::Healthy), |c| (c.overloads, c.told));
            let shown = ClusterLimits {
                rule: application.rule().clone(),
                sample: *application.sample(),
                reading: last.reading,
                phase: last.phase,
                epoch: last.epoch,
                units: application.units().collect(),
                by_hand: by_hand(application),
                overloads,
                told,
            };
            self.clusters.insert(name.clone(), shown);
        }
    }
}

fn by_hand(application: &Application) -> Vec<(Whose, HandLimit)> {
    let limits = application.by_hand();
    limits
        .map(|(whose, limit)| (whose.clone(), *limit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an overload that goes on grows nothing, and what does not change is kept once. Method: at the
    /// limit, and one above; then the same epoch again.
    #[test]
    fn decisions_have_a_limit() {
        let mut limits = Limits::default();
        let told = |epoch| Told {
            reading: Reading {
                watermark: 1.2,
                dominant: None,
            },
            phase: Phase::Overloaded,
            epoch,
            enforced: true,
            limits: Vec::new(),
        };
        for epoch in 0..=DECISIONS_MAX as u64 {
            limits.note(&"c".into(), &told(epoch), 0);
            let expected = (epoch as usize + 1).min(DECISIONS_MAX);
            assert_eq!(limits.decisions.len(), expected);
        }
        limits.note(&"c".into(), &told(DECISIONS_MAX as u64), 9);
        assert_eq!(limits.decisions.front().map(|d| d.unix_ms), Some(0));
    }
}
