//! How long to wait before the next attempt to reach a server.

use std::time::Duration;

/// Before attempt number `attempt`, 0 for the first after a connection that worked: doubled each time from `min` up to
/// `max`, and between half of that and all of it, so that a thousand proxies do not come back in the same moment.
/// `random` is in [0, 1).
pub(crate) fn backoff(min: Duration, max: Duration, attempt: u32, random: f64) -> Duration {
    let doubled = min.saturating_mul(1 << attempt.min(20));
    doubled.min(max).mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: attempts get rarer up to a limit, and never all at once (H12). Method: both ends of the
    /// random numbers.
    #[test]
    fn backoff_doubles_with_jitter() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(10));
        for (attempt, most_ms) in [
            (0, 100),
            (1, 200),
            (6, 6400),
            (7, 10_000),
            (u32::MAX, 10_000),
        ] {
            let most = Duration::from_millis(most_ms);
            assert_eq!(backoff(min, max, attempt, 0.0), most / 2);
            let longest = backoff(min, max, attempt, 0.999_999);
            assert!(longest > most * 99 / 100 && longest <= most);
        }
    }
}
