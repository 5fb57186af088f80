//! What a peer may do that costs us more than it costs the peer.

use super::error::Flood;
use crate::limits::Http2Limits;

/// A number of times within a span of time.
#[derive(Clone, Copy, Debug)]
struct Budget {
    max: u32,
    spent: u32,
}

impl Budget {
    fn new(max: u32) -> Budget {
        Budget { max, spent: 0 }
    }
}

/// The budgets of a connection. All begin anew together, each [`Http2Limits::budget_span`].
#[derive(Clone, Debug)]
pub(super) struct Budgets {
    span_ns: u64,
    began_ns: u64,
    resets: Budget,
    stream_errors: Budget,
    settings: Budget,
    pings: Budget,
    empty_frames: Budget,
    idle_frames: Budget,
    window_updates: Budget,
    tiny_windows: Budget,
}

impl Budgets {
    pub(super) fn new(limits: &Http2Limits, now_ns: u64) -> Budgets {
        Budgets {
            span_ns: limits.budget_span.as_nanos() as u64,
            began_ns: now_ns,
            resets: Budget::new(limits.resets_max),
            stream_errors: Budget::new(limits.stream_errors_max),
            settings: Budget::new(limits.settings_frames_max),
            pings: Budget::new(limits.pings_max),
            empty_frames: Budget::new(limits.empty_frames_max),
            idle_frames: Budget::new(limits.idle_frames_max),
            window_updates: Budget::new(limits.window_updates_max),
            tiny_windows: Budget::new(limits.tiny_frames_max),
        }
    }

    /// Counts one time of `flood`; above its limit it is an error.
    pub(super) fn spend(&mut self, flood: Flood, now_ns: u64) -> Result<(), Flood> {
        if now_ns.saturating_sub(self.began_ns) >= self.span_ns {
            self.began_ns = now_ns;
            self.all().for_each(|budget| budget.spent = 0);
        }
        let Some(budget) = self.of(flood) else {
            return Ok(());
        };
        budget.spent += 1;
        if budget.spent > budget.max {
            Err(flood)
        } else {
            Ok(())
        }
    }

    /// Takes `times` of `flood` back, for what the peer has done that explains them.
    pub(super) fn refund(&mut self, flood: Flood, times: u32) {
        if let Some(budget) = self.of(flood) {
            budget.spent = budget.spent.saturating_sub(times);
        }
    }

    fn of(&mut self, flood: Flood) -> Option<&mut Budget> {
        Some(match flood {
            Flood::Resets => &mut self.resets,
            Flood::StreamErrors => &mut self.stream_errors,
            Flood::Settings => &mut self.settings,
            Flood::Pings => &mut self.pings,
            Flood::EmptyFrames => &mut self.empty_frames,
            Flood::IdleFrames => &mut self.idle_frames,
            Flood::WindowUpdates => &mut self.window_updates,
            Flood::TinyWindows => &mut self.tiny_windows,
            // Bounds on one block or on the output, not on a span of time.
            Flood::Continuations | Flood::BlockBytes | Flood::Unread => return None,
        })
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Budget> {
        [
            &mut self.resets,
            &mut self.stream_errors,
            &mut self.settings,
            &mut self.pings,
            &mut self.empty_frames,
            &mut self.idle_frames,
            &mut self.window_updates,
            &mut self.tiny_windows,
        ]
        .into_iter()
    }
}
