//! Adaptive limiting: what was decided goes to the shards, to the log and to the admin server.

use std::sync::Arc;

use tidegate_core::{
    id::{ClusterId, Epoch},
    limiter::{
        application::{Told, UnitLimit},
        decision::Share,
        hand::{Ended, HandLimit, Whose},
        watermark::Phase,
    },
    message::{Directive, LimitCause, ShardLimit},
};

use super::Coordinator;
use crate::status::{LimitCommand, unix_ms};

impl Coordinator {
    /// Sets a limit by hand, or takes it back.
    ///
    /// # Errors
    ///
    /// Why it cannot be, and what can.
    pub(super) fn set_limit(&mut self, command: LimitCommand) -> Result<(), String> {
        let LimitCommand { cluster, whose, .. } = command;
        let Some(total) = command.total else {
            if !command.is_trial {
                self.policy.clear_limit(&cluster, &whose)?;
                tracing::warn!("cluster `{cluster}`: the limit by hand on {whose} is taken back");
            }
            self.show_limits();
            return Ok(());
        };
        if command.is_trial {
            return self.policy.may_set_limit(&cluster, &whose);
        }
        let until = self.status.started.elapsed() + command.lasts;
        let limit = HandLimit { total, until };
        self.policy.set_limit(&cluster, whose.clone(), limit)?;
        tracing::warn!(
            "cluster `{cluster}`: {whose} limited by hand to {total} in flight, for {:.0?}",
            command.lasts
        );
        self.show_limits();
        Ok(())
    }

    /// Whether limits are set by hand.
    pub(super) fn is_limited_by_hand(&self) -> bool {
        let mut applications = self.policy.applications().values();
        applications.any(|application| application.by_hand().next().is_some())
    }

    pub(super) fn tell_limits(
        &mut self,
        epoch: Epoch,
        cluster: ClusterId,
        name: &Arc<str>,
        told: &Told,
    ) {
        let cause = LimitCause {
            watermark: told.reading.watermark as f32,
            signal: told.reading.dominant,
            epoch: told.epoch,
        };
        self.fleet.tell(|shard| {
            let limit = |unit: &UnitLimit| ShardLimit {
                interface: unit.interface,
                priority: unit.priority,
                total: unit.total,
                share: Share {
                    slots: unit
                        .shares
                        .get(shard.index())
                        .map_or(0, |share| share.slots),
                },
                cohort: unit.cohort,
                by_hand: unit.by_hand,
            };
            Directive::Limits {
                epoch,
                cluster,
                cause,
                limits: told.limits.iter().map(limit).collect(),
            }
        });
        let began = self.status.live_mut().limits.note(name, told, unix_ms());
        let mode = if told.enforced { "" } else { " (shadow)" };
        let (watermark, signal) = (told.reading.watermark, told.reading.dominant);
        let signal = signal.map_or("none", |signal| signal.word());
        match (began, told.phase) {
            (true, Phase::Overloaded) => tracing::warn!(
                "cluster `{name}`: overloaded{mode}: watermark {watermark:.2} by {signal}; {}",
                limited(&told.limits)
            ),
            (true, Phase::Healthy) => {
                tracing::info!(
                    "cluster `{name}`: no longer overloaded{mode}: watermark {watermark:.2}"
                );
            }
            (false, _) => {}
        }
    }

    /// Shows what every application's rule sees.
    pub(super) fn show_limits(&self) {
        let applications = self.policy.applications();
        let mut live = self.status.live_mut();
        live.limits.show(applications);
    }
}

/// Logs that a limit by hand is no more.
pub(super) fn tell_end(cluster: &str, whose: &Whose, why: Ended) {
    match why {
        Ended::Expired => tracing::info!(
            "cluster `{cluster}`: the limit by hand on {whose} ends, its time is over"
        ),
        Ended::Gone => tracing::warn!(
            "cluster `{cluster}`: the limit by hand on {whose} ends, there is no such interface any more"
        ),
    }
}

/// Interfaces that a line of the log names.
const NAMED_MAX: usize = 3;

/// Who is limited, in words.
fn limited(limits: &[UnitLimit]) -> String {
    let named = limits.iter().take(NAMED_MAX);
    let mut said = named
        .map(|unit| {
            format!(
                "{} ({}) to {} in flight",
                unit.name,
                unit.priority.word(),
                unit.total
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    if limits.len() > NAMED_MAX {
        said += &format!(" and {} more", limits.len() - NAMED_MAX);
    }
    match limits.is_empty() {
        true => "nobody is limited".to_owned(),
        false => format!("limited: {said}"),
    }
}
