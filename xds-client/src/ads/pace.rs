//! How fast a server is read that sends what is refused.
//!
//! Some servers answer a NACK with the same resource again, at once and for ever. Whoever reads as fast as that burns a
//! CPU on both sides; who pauses loses nothing, since what is good waits behind it for seconds at most.

use std::time::Duration;

/// Responses in a row of which nothing is taken, before the first pause: a push of each type may be bad at once.
pub const REFUSED_FREE: u32 = 8;

/// The first pause; each further response of the kind doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause, and so the longest that a good response waits behind bad ones.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The responses of one stream.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// In a row, of which nothing was taken.
    refused: u32,
}

impl Pace {
    /// A response came. How long to wait before the next one is read.
    pub(super) fn received(&mut self, is_refused: bool) -> Duration {
        self.refused = match is_refused {
            true => self.refused.saturating_add(1),
            false => 0,
        };
        match self.refused.checked_sub(REFUSED_FREE) {
            None | Some(0) => Duration::ZERO,
            Some(more) => (PAUSE_MIN * (1 << (more - 1).min(16))).min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: pauses begin late, grow up to a limit, and end with the first response of which something is taken. Method:
    /// the limits and one above.
    #[test]
    fn pauses_grow_with_refusals() {
        let mut pace = Pace::default();
        for _ in 0..REFUSED_FREE {
            assert_eq!(pace.received(true), Duration::ZERO);
        }
        assert_eq!(pace.received(true), PAUSE_MIN);
        assert_eq!(pace.received(true), 2 * PAUSE_MIN);
        let longest = (0..1000).map(|_| pace.received(true)).max();
        assert_eq!(longest, Some(PAUSE_MAX));
        assert_eq!(pace.received(false), Duration::ZERO);
        assert_eq!(pace.received(true), Duration::ZERO);
    }
}
