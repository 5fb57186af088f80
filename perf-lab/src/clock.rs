//! Monotonic time as plain nanoseconds, so that everything that reckons with it can be tested with
//! made-up times.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Nanoseconds since the [`Clock`] was started, or a difference of two such times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The beginning.
    pub const ZERO: Nanos = Nanos(0);

    /// From micro- to nanoseconds.
    pub const fn from_micros(us: u64) -> Nanos {
        Nanos(us * 1_000)
    }

    /// From milli- to nanoseconds.
    pub const fn from_millis(ms: u64) -> Nanos {
        Nanos(ms * 1_000_000)
    }

    /// In microseconds, for people.
    pub fn as_micros(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// In seconds.
    pub fn as_secs(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for Nanos {
    type Output = Nanos;

    fn add(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_add(other.0))
    }
}

/// A difference never underflows: what did not happen yet is zero away.
impl Sub for Nanos {
    type Output = Nanos;

    fn sub(self, other: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(other.0))
    }
}

impl From<Duration> for Nanos {
    fn from(duration: Duration) -> Nanos {
        Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} µs", self.as_micros())
    }
}

/// The one source of [`Nanos`].
#[derive(Clone, Copy, Debug)]
pub struct Clock(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    Started(Instant),
    /// A reference that lives for ever, so that clocks stay as easily copied as numbers.
    Made(&'static AtomicU64),
}

impl Clock {
    /// Starts at zero.
    pub fn start() -> Clock {
        Clock(Source::Started(Instant::now()))
    }

    /// Shows the nanoseconds that somebody else writes: time for tests, in which a thread can be
    /// robbed of its CPU at will.
    pub fn made(time: &'static AtomicU64) -> Clock {
        Clock(Source::Made(time))
    }

    /// Time since the start.
    pub fn now(&self) -> Nanos {
        match self.0 {
            Source::Started(started) => started.elapsed().into(),
            Source::Made(time) => Nanos(time.load(Ordering::Relaxed)),
        }
    }
}
