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

/// Whether an endpoint serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It listens.
    Alive,
    /// Its connections are closed and nobody listens.
    Dead,
}

/// Shared by the two threads.
#[derive(Debug, Default)]
pub struct Control {
    phase: AtomicU8,
    opened: AtomicU64,
    completed: AtomicU64,
    drained: AtomicBool,
    failed: AtomicBool,
    /// A bit per endpoint of the origin that is dead. Written by the main thread.
    dead: AtomicU64,
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

    /// Kills an endpoint of the origin, or brings it back to life.
    pub fn set_endpoint(&self, i: usize, life: Life) {
        let bit = 1u64
            .checked_shl(u32::try_from(i).unwrap_or(u32::MAX))
            .unwrap_or(0);
        let dead = self.dead.load(Ordering::Relaxed);
        let dead = match life {
            Life::Dead => dead | bit,
            Life::Alive => dead & !bit,
        };
        self.dead.store(dead, Ordering::Release);
    }

    /// The endpoints that are dead, a bit each.
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Acquire)
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

    /// Endpoints die and live apart from each other.
    #[test]
    fn endpoints_are_bits() {
        let control = Control::default();
        control.set_endpoint(1, Life::Dead);
        control.set_endpoint(15, Life::Dead);
        assert_eq!(control.dead(), 0b1000_0000_0000_0010);
        control.set_endpoint(1, Life::Alive);
        control.set_endpoint(1, Life::Alive);
        assert_eq!(control.dead(), 1 << 15);
    }

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
