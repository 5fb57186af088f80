//! What the service manager (systemd) is told, if there is one.

use std::time::Duration;

use sd_notify::NotifyState;

use super::TICK;

/// Tells the service manager, if there is one. That it does not listen is no reason to stop serving.
pub(crate) fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("sd_notify: {e}");
    }
}

/// systemd wants the moment of a reload in the same message (sd_notify(3), RELOADING=1).
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

/// A sign of life goes out at a third of the period that the service manager allows.
pub(super) fn watchdog_ticks(period: Duration) -> u64 {
    let third = period.as_millis() / 3 / TICK.as_millis();
    u64::try_from(third).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the service manager hears of us well within its period, never zero ticks. Method: table.
    #[test]
    fn watchdog_period_is_kept() {
        assert_eq!(watchdog_ticks(Duration::from_secs(30)), 100);
        assert_eq!(watchdog_ticks(Duration::from_millis(1)), 1);
    }
}
