//! Durations, counted as a shard counts everything: by one writer, without a lock.

use super::Counter;

/// Sub-buckets per power of two: a recorded value is known within 1/8.
const SUB: u64 = 8;
/// Values below 2^8 ns share the first bucket: nothing we time is faster.
const MIN_EXP: u32 = 8;
/// Values of 2^38 ns (275 s) and more share the last bucket.
const MAX_EXP: u32 = 38;
/// How many buckets a [`Histogram`] has.
pub const BUCKETS: usize = ((MAX_EXP - MIN_EXP) as u64 * SUB) as usize + 2;

/// A log-linear histogram of nanoseconds with one writer; 1.9 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_ns: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&self, ns: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.add(1);
        }
        self.sum_ns.add(ns);
    }

    /// Adds the counts to `into`.
    pub fn add_to(&self, into: &mut HistogramCounts) {
        for (from, to) in self.buckets.iter().zip(into.buckets.iter_mut()) {
            *to += from.get();
        }
        into.sum_ns += self.sum_ns.get();
    }
}

/// The summed counts of one or more [`Histogram`]s, at one moment.
#[derive(Clone, Debug)]
pub struct HistogramCounts {
    /// Counts per bucket; `bucket_upper_ns(i)` says what bucket `i` holds.
    pub buckets: [u64; BUCKETS],
    /// The sum of the recorded values.
    pub sum_ns: u64,
}

impl Default for HistogramCounts {
    fn default() -> Self {
        HistogramCounts {
            buckets: [0; BUCKETS],
            sum_ns: 0,
        }
    }
}

impl HistogramCounts {
    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The value below which a share `q` (0..=1) of the values lie; 0 without values.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        let count = self.count();
        let rank = ((count as f64 * q).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if *n > 0 && seen >= rank {
                return bucket_upper_ns(i);
            }
        }
        0
    }

    /// What was recorded after `earlier` was taken.
    pub fn since(&self, earlier: &HistogramCounts) -> HistogramCounts {
        let mut out = self.clone();
        for (a, b) in out.buckets.iter_mut().zip(earlier.buckets.iter()) {
            *a = a.saturating_sub(*b);
        }
        out.sum_ns = out.sum_ns.saturating_sub(earlier.sum_ns);
        out
    }
}

/// The largest value that bucket `i` holds.
pub fn bucket_upper_ns(i: usize) -> u64 {
    if i == 0 {
        return (1 << MIN_EXP) - 1;
    }
    if i >= BUCKETS - 1 {
        return u64::MAX;
    }
    let i = (i - 1) as u64;
    let exp = MIN_EXP as u64 + i / SUB;
    (1 << exp) + ((i % SUB + 1) << (exp - 3)) - 1
}

#[inline]
fn bucket_of(ns: u64) -> usize {
    let exp = 63 - (ns | 1).leading_zeros();
    if exp < MIN_EXP {
        return 0;
    }
    if exp >= MAX_EXP {
        return BUCKETS - 1;
    }
    let sub = (ns >> (exp - 3)) & (SUB - 1);
    (u64::from(exp - MIN_EXP) * SUB + sub) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no value is lost or misplaced. Method: each value lies in the bucket that claims it.
    #[test]
    fn buckets_are_contiguous() {
        let mut previous = 0;
        for i in 0..BUCKETS - 1 {
            let upper = bucket_upper_ns(i);
            assert_eq!(bucket_of(upper), i);
            assert_eq!(bucket_of(upper + 1), i + 1);
            assert!(upper > previous);
            previous = upper;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(0), 0);
    }

    /// Goal: quantiles are within 1/8. Method: known values.
    #[test]
    fn quantiles_of_known_values() {
        let histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.record(us * 1000));
        let mut counts = HistogramCounts::default();
        histogram.add_to(&mut counts);
        let p50 = counts.quantile_ns(0.5) as f64;
        assert!((500e3..570e3).contains(&p50), "{p50}");
        assert_eq!(counts.count(), 1000);
        assert_eq!(HistogramCounts::default().quantile_ns(0.99), 0);
    }
}
