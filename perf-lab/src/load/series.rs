//! Latency over time: percentiles of slices of a tenth of a second, by when requests were due.
//!
//! By due time, a stall shows where it began, and as what it did to everyone who would have come; but
//! then answers arrive out of order, so every slice stays open until the end. Each is therefore a
//! small histogram of its own, coarse (a bucket is 1/16 of its value wide) because it is for a plot.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

/// Of the first slices; they widen when there would be too many.
const WIDTH: Nanos = Nanos::from_millis(100);
/// More than a plot has pixels for is of no use: at this many, neighbours are merged.
const SLICES_MAX: usize = 600;
/// Buckets for each doubling of the value.
const PER_DOUBLING: u64 = 16;
const PER_DOUBLING_BITS: u32 = PER_DOUBLING.trailing_zeros();
/// Up to 2^36 ns, a little more than a minute; what is slower counts as that.
const BUCKETS: usize = (37 - PER_DOUBLING_BITS as usize) * PER_DOUBLING as usize;

/// Collects.
#[derive(Clone, Debug)]
pub struct Series {
    width: Nanos,
    slices: Vec<Slice>,
}

#[derive(Clone, Debug)]
struct Slice {
    counts: Vec<u32>,
    max: Nanos,
}

/// One slice, summed up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When it began, in seconds of the measurement.
    pub at_s: f64,
    /// Requests that were due in it.
    pub count: u64,
    /// Median latency, to 1/16.
    pub p50_us: f64,
    /// One in a hundred was slower.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// How many took how long: bands of the heat map and requests, those with any.
    #[serde(default)]
    pub bands: Vec<(u8, u32)>,
}

/// The bands of the heat map: quarters of a doubling, which is as fine as an eye can use.
const BUCKETS_PER_BAND: usize = 4;

/// Where a band of the heat map begins and ends, in microseconds.
pub fn band_us(band: u8) -> (f64, f64) {
    let from = usize::from(band) * BUCKETS_PER_BAND;
    let at = |bucket| Nanos(low(bucket as u64)).as_micros();
    (at(from), at(from + BUCKETS_PER_BAND))
}

impl Default for Series {
    fn default() -> Series {
        Series {
            width: WIDTH,
            slices: Vec::new(),
        }
    }
}

impl Series {
    /// Records a request that was due `at` after the beginning of the measurement.
    pub fn record(&mut self, at: Nanos, latency: Nanos) {
        let mut index = (at.0 / self.width.0) as usize;
        while index >= SLICES_MAX {
            self.widen();
            index = (at.0 / self.width.0) as usize;
        }
        if index >= self.slices.len() {
            self.slices.resize_with(index + 1, Slice::new);
        }
        if let Some(slice) = self.slices.get_mut(index) {
            slice.record(latency);
        }
    }

    fn widen(&mut self) {
        self.width = self.width + self.width;
        let mut wide: Vec<Slice> = Vec::with_capacity(SLICES_MAX);
        for (i, slice) in self.slices.drain(..).enumerate() {
            match wide.last_mut() {
                Some(last) if i % 2 == 1 => last.add(&slice),
                _ => wide.push(slice),
            }
        }
        self.slices = wide;
    }

    /// The slices in order; those in which nothing was due are left out.
    pub fn moments(&self) -> Vec<Moment> {
        let slices = self.slices.iter().enumerate();
        slices
            .filter_map(|(i, slice)| slice.moment(self.width.as_secs() * i as f64))
            .collect()
    }
}

impl Slice {
    fn new() -> Slice {
        Slice {
            counts: vec![0; BUCKETS],
            max: Nanos::ZERO,
        }
    }

    fn record(&mut self, latency: Nanos) {
        if let Some(count) = self.counts.get_mut(bucket(latency)) {
            *count += 1;
        }
        self.max = self.max.max(latency);
    }

    fn add(&mut self, other: &Slice) {
        for (ours, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *ours += theirs;
        }
        self.max = self.max.max(other.max);
    }

    fn moment(&self, at_s: f64) -> Option<Moment> {
        let count: u64 = self.counts.iter().map(|&count| u64::from(count)).sum();
        let at = |quantile: f64| {
            let rank = (count as f64 * quantile).ceil() as u64;
            let mut seen = 0;
            let reached = self.counts.iter().position(|&count| {
                seen += u64::from(count);
                seen >= rank
            });
            // The middle of a bucket may lie above the greatest value in it.
            let value = middle(reached.unwrap_or(BUCKETS - 1));
            Nanos(value).min(self.max).as_micros()
        };
        (count > 0).then(|| Moment {
            at_s,
            count,
            p50_us: at(0.5),
            p99_us: at(0.99),
            max_us: self.max.as_micros(),
            bands: self.bands(),
        })
    }

    fn bands(&self) -> Vec<(u8, u32)> {
        let bands = self.counts.chunks(BUCKETS_PER_BAND).zip(0u8..);
        bands
            .map(|(counts, band)| (band, counts.iter().sum()))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Values below 16 have a bucket each; above, the exponent and the four bits after the first.
fn bucket(value: Nanos) -> usize {
    let value = value.0;
    let index = match value.checked_ilog2() {
        None => 0,
        Some(exponent) if exponent < PER_DOUBLING_BITS => value,
        Some(exponent) => {
            let shift = exponent - PER_DOUBLING_BITS;
            // The leading bit is worth one row of buckets itself.
            u64::from(shift) * PER_DOUBLING + (value >> shift)
        }
    };
    (index as usize).min(BUCKETS - 1)
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    low(bucket) + (low(bucket + 1) - low(bucket)) / 2
}

/// The least value of a bucket.
fn low(bucket: u64) -> u64 {
    if bucket < 2 * PER_DOUBLING {
        return bucket;
    }
    let shift = bucket / PER_DOUBLING - 1;
    (bucket % PER_DOUBLING + PER_DOUBLING) << shift
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// The middle of a value's bucket is within 1/32 of the value, over the whole range, and buckets
    /// ascend without a gap.
    #[test]
    fn buckets_are_narrow() {
        let mut value = 1u64;
        while value < 1 << 36 {
            let error = middle(bucket(Nanos(value))).abs_diff(value) as f64 / value as f64;
            assert!(error <= 1.0 / 32.0, "{value}: {error}");
            let step = bucket(Nanos(value + 1)) - bucket(Nanos(value));
            assert!(step <= 1, "{value}");
            value += 1 + value / 100;
        }
        assert_eq!(bucket(Nanos(u64::MAX)), BUCKETS - 1);
        assert_eq!(bucket(Nanos::ZERO), 0);
    }

    /// A stall shows in the slices of those who were due in it, whatever order answers come in.
    #[test]
    fn a_stall_shows_where_it_began() {
        let mut series = Series::default();
        for ms in (0..1_000u64).rev() {
            let wait = if (300..500).contains(&ms) {
                500 - ms
            } else {
                0
            };
            series.record(
                Nanos::from_millis(ms),
                Nanos::from_micros(100 + 1_000 * wait),
            );
        }
        let moments = series.moments();
        assert_eq!(moments.len(), 10);
        assert!(moments.iter().all(|moment| moment.count == 100));
        assert!(moments[2].max_us < 110.0 && moments[5].p99_us < 110.0);
        assert!((moments[3].max_us - 200_100.0).abs() < 1.0, "{moments:?}");
        assert!((moments[4].p50_us / 50_000.0 - 1.0).abs() < 0.05);
    }

    /// Bands join without a gap, hold what was recorded, and each request is in exactly one.
    #[test]
    fn bands_hold_every_request() {
        for band in 0..=(BUCKETS / BUCKETS_PER_BAND - 2) as u8 {
            assert_eq!(band_us(band).1, band_us(band + 1).0);
        }
        let mut series = Series::default();
        for us in [1, 90, 100, 110, 7_000] {
            series.record(Nanos::ZERO, Nanos::from_micros(us));
        }
        let moments = series.moments();
        let bands = &moments[0].bands;
        assert_eq!(bands.iter().map(|band| band.1).sum::<u32>(), 5);
        for us in [1.0, 90.0, 100.0, 110.0, 7_000.0] {
            let holds = |&(band, _): &(u8, u32)| {
                let (low, high) = band_us(band);
                low <= us && us < high
            };
            assert_eq!(bands.iter().filter(|band| holds(band)).count(), 1, "{us}");
        }
    }

    /// However long the measurement, the number of slices is bounded, and nothing is lost.
    #[test]
    fn long_series_widen() {
        let mut series = Series::default();
        for second in 0..600u64 {
            series.record(
                Nanos::from_millis(second * 1_000),
                Nanos::from_micros(second + 1),
            );
        }
        let moments = series.moments();
        assert!(moments.len() <= SLICES_MAX && moments.len() > SLICES_MAX / 4);
        assert_eq!(moments.iter().map(|moment| moment.count).sum::<u64>(), 600);
        assert!(moments.windows(2).all(|pair| pair[0].at_s < pair[1].at_s));
    }
}
