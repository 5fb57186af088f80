//! Few numbers, honestly summed up.

use serde::Serialize;

/// Resamples of a bootstrap: enough that the ends of a 95 % interval rest on 50 of them.
const RESAMPLES: usize = 2_000;
/// What is cut off on either side of a 95 % interval.
const TAIL: f64 = 0.025;

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one number; numbers that are not finite are left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 {
            upper
        } else {
            (sorted.get(middle - 1)? + upper) / 2.0
        };
        Some(Spread { median, min, max })
    }
}

/// How many times as large one side is as the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The geometric mean of the pairs' ratios.
    pub estimate: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Number of pairs.
    pub pairs: usize,
}

/// The ratio of measurements that were taken side by side.
///
/// Both of a pair saw the same state of the machine, so their ratio is steadier than the ratio of
/// the medians; the mean is taken over the logarithms, so that twice as much and half as much
/// cancel. The interval is a percentile bootstrap: with few pairs it is no wider than the pairs
/// themselves, so fewer than five are an impression and not evidence.
pub fn paired_ratio(ours: &[f64], theirs: &[f64], seed: u64) -> Option<Ratio> {
    let logs: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| (a / b).ln())
        .filter(|log| log.is_finite())
        .collect();
    let pairs = logs.len();
    if pairs == 0 {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..pairs)
                .filter_map(|_| logs.get(random.usize(..pairs)))
                .sum();
            sum / pairs as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let cut = (RESAMPLES as f64 * TAIL) as usize;
    Some(Ratio {
        estimate: (logs.iter().sum::<f64>() / pairs as f64).exp(),
        low: means.get(cut)?.exp(),
        high: means.get(RESAMPLES - 1 - cut)?.exp(),
        pairs,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Odd and even counts, disorder, and nothing.
    #[test]
    fn medians() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|s| s.median);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0, f64::NAN]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    /// A drift that both sides share cancels; the estimate is exact and the interval a point.
    #[test]
    fn shared_drift_cancels() {
        let theirs = [10.0, 12.0, 15.0, 11.0];
        let ours = theirs.map(|value| value * 0.7);
        let ratio = paired_ratio(&ours, &theirs, 1).unwrap();
        for value in [ratio.estimate, ratio.low, ratio.high] {
            assert!((value - 0.7).abs() < 1e-9, "{ratio:?}");
        }
    }

    /// Twice and half cancel, the same seed gives the same interval, and nothing gives none.
    #[test]
    fn logarithms_and_seeds() {
        let ratio = paired_ratio(&[2.0, 1.0], &[1.0, 2.0], 5).unwrap();
        assert!((ratio.estimate - 1.0).abs() < 1e-9);
        assert_eq!(Some(ratio), paired_ratio(&[2.0, 1.0], &[1.0, 2.0], 5));
        assert_eq!(paired_ratio(&[], &[], 5), None);
        assert_eq!(paired_ratio(&[0.0], &[1.0], 5), None);
    }

    /// Over many simulated comparisons of equals with 3 % noise and ten pairs, the interval holds 1
    /// in nine of ten or more (a percentile bootstrap of ten is a little too narrow), and a
    /// difference of 10 % is always seen.
    #[test]
    fn intervals_cover() {
        let mut random = fastrand::Rng::with_seed(11);
        // The sum of twelve uniform numbers is close to normal, with deviation 1.
        let mut noisy = |mean: f64| -> Vec<f64> {
            (0..10)
                .map(|_| {
                    let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                    mean * (1.0 + 0.03 * normal)
                })
                .collect()
        };
        let (mut covered, mut seen) = (0, 0);
        for seed in 0..200 {
            let theirs = noisy(20.0);
            let same = paired_ratio(&noisy(20.0), &theirs, seed).unwrap();
            covered += u32::from(same.low <= 1.0 && 1.0 <= same.high);
            let slower = paired_ratio(&noisy(22.0), &theirs, seed).unwrap();
            seen += u32::from(slower.low > 1.0);
        }
        assert!(covered >= 175, "{covered} of 200");
        assert_eq!(seen, 200);
    }
}
