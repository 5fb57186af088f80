//! What the lab's main thread and the loaded thread tell each other: a few atomics, each with one
//! writer, so that taking part in a measurement costs the loaded thread nothing to speak of.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What the loaded thread should do. Phases only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Only the origin answers.
    Origin = 0,
    /// Open the connections, one exchange on each.
    Open,
    /// Load, without recording.
    WarmUp,
    /// Load, and record what is due.
    Measure,
    /// Send nothing more, wait for what is outstanding.
    Drain,
    /// End.
    Stop,
}

impl Phase {
    /// The one after it; nothing comes after [`Phase::Stop`].
    pub fn next(self) -> Phase {
        Phase::numbered(self as u8 + 1)
    }

    fn numbered(number: u8) -> Phase {
        match number {
            0 => Phase::Origin,
            1 => Phase::Open,
            2 => Phase::WarmUp,
            3 => Phase::Measure,
            4 => Phase::Drain,
            _ => Phase::Stop,
        }
    }
}

/// Shared by the two threads.
#[derive(Debug, Default)]
pub struct Control {
    phase: AtomicU8,
    opened: AtomicU64,
    completed: AtomicU64,
    drained: AtomicBool,
    failed: AtomicBool,
}

impl Control {
    /// Asks for a phase. Written by the main thread.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// The phase asked for.
    pub fn phase(&self) -> Phase {
        Phase::numbered(self.phase.load(Ordering::Acquire))
    }

    /// Connections that have done their first exchange.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Exchanges completed since the warm-up began.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Whether nothing recorded is outstanding any more.
    pub fn drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    /// Whether the generator gave up.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn count_opened(&self) {
        add_one(&self.opened);
    }

    pub(crate) fn count_completed(&self) {
        add_one(&self.completed);
    }

    pub(crate) fn set_drained(&self) {
        self.drained.store(true, Ordering::Release);
    }

    pub(crate) fn set_failed(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

/// One writer, so a load and a store do: cheaper than a locked increment.
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The phases in order, and the last again after the last.
    #[test]
    fn phases_go_forward() {
        let mut phase = Phase::Origin;
        for next in [
            Phase::Open,
            Phase::WarmUp,
            Phase::Measure,
            Phase::Drain,
            Phase::Stop,
        ] {
            assert!(phase < next);
            phase = phase.next();
            assert_eq!(phase, next);
        }
        assert_eq!(phase.next(), Phase::Stop);
    }
}
