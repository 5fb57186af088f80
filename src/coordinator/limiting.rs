//! Adaptive limiting: what was decided goes to the shards, to the log and to the admin server.

use std::sync::Arc;

use tidegate_core::{
    id::{ClusterId, Epoch},
    limiter::{
        application::{Told, UnitLimit},
        decision::Share,
        watermark::Phase,
    },
    message::{Directive, LimitCause, ShardLimit},
};

use super::Coordinator;
use crate::status::unix_ms;

impl Coordinator {
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
