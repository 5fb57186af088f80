//! CPU time that an answer costs, for an application whose CPU is the bottleneck.

use nix::time::{ClockId, clock_gettime};

use crate::clock::Nanos;

/// Between two looks at the clock, which costs a quarter of a microsecond.
const SPINS: u32 = 64;

/// Computes for so long: time in which the thread runs, whatever else the CPU does meanwhile.
pub(super) fn burn(time: Nanos) {
    if time == Nanos::ZERO {
        return;
    }
    let Some(start) = run_time() else {
        return;
    };
    while run_time().is_some_and(|now| now - start < time) {
        (0..SPINS).for_each(|_| std::hint::spin_loop());
    }
}

/// How long this thread has run.
fn run_time() -> Option<Nanos> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    let (seconds, nanos) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec()));
    Some(Nanos(seconds.ok()? * 1_000_000_000 + nanos.ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What is burnt is run time of this thread, and no less than was asked for.
    #[test]
    fn time_is_spent() {
        let before = run_time().unwrap();
        burn(Nanos::from_millis(3));
        assert!(run_time().unwrap() - before >= Nanos::from_millis(3));
    }
}
