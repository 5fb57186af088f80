//! A sketch of durations: two buckets a power of two, so that a quantile is known within a factor of 1.5.
//! Enough to tell four times as slow, and small enough for every endpoint on every shard (336 bytes).

/// Below 2^16 ns (66 µs) all is one.
const MIN_EXP: u32 = 16;
/// 2^36 ns (69 s) and more as well.
const MAX_EXP: u32 = 36;
/// How many buckets there are.
pub const BUCKETS: usize = ((MAX_EXP - MIN_EXP) * 2 + 2) as usize;

/// The bucket of a duration.
#[inline]
pub fn bucket(ns: u64) -> usize {
    let exp = 63 - (ns | 1).leading_zeros();
    if exp < MIN_EXP {
        return 0;
    }
    if exp >= MAX_EXP {
        return BUCKETS - 1;
    }
    let half = (ns >> (exp - 1)) & 1;
    ((exp - MIN_EXP) * 2 + half as u32 + 1) as usize
}

/// What durations of a bucket are below, in nanoseconds; of the last one, where it begins.
pub fn upper_ns(bucket: usize) -> u64 {
    let above = bucket.min(BUCKETS - 1) as u32;
    let exp = MIN_EXP + above / 2;
    match above % 2 {
        0 => 1 << exp,
        _ => (1 << exp) + (1 << (exp - 1)),
    }
}

/// The duration below which a share `q` (0..=1) of what was counted lies, in seconds; `None` if nothing was.
pub fn quantile_s(counts: &[u64; BUCKETS], q: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    let rank = (total as f64 * q).ceil().max(1.0) as u64;
    let mut seen = 0;
    let at = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(upper_ns(at) as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every duration lies in the bucket that claims it, and buckets ascend. Method: both ends of every
    /// bucket.
    #[test]
    fn buckets_are_contiguous() {
        for at in 0..BUCKETS - 1 {
            let upper = upper_ns(at);
            assert_eq!(bucket(upper - 1), at);
            assert_eq!(bucket(upper), at + 1);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    /// Goal: quantiles are within a factor of 1.5, and nothing has none. Method: known durations.
    #[test]
    fn quantiles_of_known_durations() {
        let mut counts = [0; BUCKETS];
        assert_eq!(quantile_s(&counts, 0.5), None);
        for ms in 1..=1000 {
            if let Some(count) = counts.get_mut(bucket(ms * 1_000_000)) {
                *count += 1;
            }
        }
        for (q, exact) in [(0.5, 0.5), (0.99, 0.99)] {
            let found = quantile_s(&counts, q).unwrap_or_default();
            assert!((exact..exact * 1.5).contains(&found), "{q}: {found}");
        }
    }
}
