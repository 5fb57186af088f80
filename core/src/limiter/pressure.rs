//! That an application is over its watermark is evidence, too: the center learns of it, and tells one that is
//! full alone from a group that is short of capacity (L12, H13).

use std::{sync::Arc, time::Duration};

use super::{
    application::{Application, UnitStatus},
    watermark::Phase,
};
use crate::healing::report::Overload;

/// How often it is said while it lasts: the center's claims last for seconds.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Interfaces that are named.
const INTERFACES_MAX: usize = 8;

/// What was said last.
#[derive(Clone, Debug, Default)]
pub struct Pressure {
    /// When.
    said: Option<Duration>,
    /// Of the application that was fullest then: its name, when it was looked at, and what it had refused.
    counted: Option<(Arc<str>, Duration, u64)>,
}

impl Pressure {
    /// What is to be reported of `applications`: the fullest of those that are overloaded, at once, and again
    /// while it lasts.
    pub fn step<'a>(
        &mut self,
        now: Duration,
        applications: impl IntoIterator<Item = (&'a Arc<str>, &'a Application)>,
    ) -> Option<Overload> {
        let overloaded = applications.into_iter().filter_map(|(name, application)| {
            let decided = application.last()?;
            let is_over = decided.phase == Phase::Overloaded;
            is_over.then_some((name, application, decided.reading))
        });
        let fullest = overloaded.max_by(|(_, _, a), (_, _, b)| a.watermark.total_cmp(&b.watermark));
        let Some((name, application, reading)) = fullest else {
            *self = Pressure::default();
            return None;
        };
        let is_new = self.counted.as_ref().is_none_or(|(of, ..)| of != name);
        let is_due = self.said.is_none_or(|said| now >= said + AGAIN_AFTER);
        if !is_new && !is_due {
            return None;
        }
        let units: Vec<UnitStatus> = application.units().collect();
        let refused = units.iter().map(|unit| unit.refused + unit.would_refuse);
        let refused: u64 = refused.sum();
        let (since, before) = match &self.counted {
            Some((_, at, refused)) if !is_new => (*at, *refused),
            _ => (now, refused),
        };
        self.counted = Some((name.clone(), now, refused));
        if !is_due {
            return None;
        }
        self.said = Some(now);
        let refused = refused.saturating_sub(before);
        let shed_rate = shed_rate(&units, refused, now.saturating_sub(since));
        Some(Overload {
            watermark: reading.watermark,
            dominant_signal: reading.dominant.map_or("", |signal| signal.word()).into(),
            shed_rate,
            top_interfaces: top(&units),
        })
    }
}

/// Part of the requests that were refused in a time.
fn shed_rate(units: &[UnitStatus], refused: u64, time: Duration) -> f64 {
    let offered: f64 = units.iter().map(|unit| unit.view.rate).sum();
    let offered = offered * time.as_secs_f64();
    match offered > 0.0 {
        true => (refused as f64 / offered).clamp(0.0, 1.0),
        false => 0.0,
    }
}

/// The costliest interfaces, and their part of the cost.
fn top(units: &[UnitStatus]) -> Vec<(Box<str>, f64)> {
    let mut units: Vec<&UnitStatus> = units.iter().filter(|unit| unit.view.share > 0.0).collect();
    units.sort_by(|a, b| b.view.share.total_cmp(&a.view.share));
    let top = units.into_iter().take(INTERFACES_MAX);
    top.map(|unit| ((*unit.name).into(), unit.view.share))
        .collect()
}
