//! Draining: stop accepting, tell peers, finish what is in flight.
//!
//! An HTTP/1.1 connection that closes while idle can always race with a request on its way. So idle
//! connections are not cut at once: their next answer carries `Connection: close`, and only those that
//! stay silent for [`IDLE_GRACE`] are closed.

use std::{cell::Cell, time::Duration};

/// How long an idle connection may stay silent once the drain has begun, or its listener is gone.
pub(crate) const IDLE_GRACE: Duration = Duration::from_secs(2);

/// Whether this shard drains.
#[derive(Default)]
pub(crate) struct Drain {
    /// When silent connections are closed, on the driver's clock.
    idle_until_ns: Cell<Option<u64>>,
}

impl Drain {
    /// Begins to drain at `now_ns`; connections are cut after `deadline` by the coordinator.
    pub(crate) fn begin(&self, deadline: Duration, now_ns: u64) {
        let grace = IDLE_GRACE.min(deadline / 2);
        self.idle_until_ns
            .set(Some(now_ns.saturating_add(grace.as_nanos() as u64)));
    }

    /// Serves as usual again.
    pub(crate) fn end(&self) {
        self.idle_until_ns.set(None);
    }

    /// Whether answers say `Connection: close`.
    pub(crate) fn is_on(&self) -> bool {
        self.idle_until_ns.get().is_some()
    }

    /// Until when an idle connection is kept: `usual_ns`, or the end of the grace.
    pub(crate) fn idle_until_ns(&self, usual_ns: u64) -> u64 {
        self.idle_until_ns
            .get()
            .map_or(usual_ns, |grace| grace.min(usual_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a short deadline leaves time for requests under way. Method: the limits in each state.
    #[test]
    fn idle_limits() {
        let drain = Drain::default();
        let (now, minute) = (5_000_000_000, 65_000_000_000);
        assert_eq!(drain.idle_until_ns(minute), minute);
        drain.begin(Duration::from_secs(60), now);
        assert!(drain.is_on());
        assert_eq!(drain.idle_until_ns(minute), now + 2_000_000_000);
        drain.begin(Duration::from_secs(1), now);
        assert_eq!(drain.idle_until_ns(minute), now + 500_000_000);
        drain.end();
        assert!(!drain.is_on());
    }
}
