//! Few numbers, honestly summed up.

use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap: enough that the ends of the widest interval rest on five of them.
const RESAMPLES: usize = 5_000;

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The geometric mean of the pairs' ratios.
    pub estimate: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Number of pairs.
    pub pairs: usize,
    /// Standard deviation of the pairs' log ratios: 0.01 is about one percent.
    #[serde(default)]
    pub deviation: f64,
}

/// How sure an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// 95 %: for an impression.
    Impression,
    /// 99.8 %: for a claim. Of a hundred comparisons of equals, a 99 % interval would call one
    /// different, which is one in every second look at a hundred; this calls two in a thousand.
    Claim,
}

impl Confidence {
    /// What is cut off on either side.
    fn tail(self) -> f64 {
        match self {
            Confidence::Impression => 0.025,
            Confidence::Claim => 0.001,
        }
    }
}

/// The ratio of measurements that were taken side by side.
///
/// Both of a pair saw the same state of the machine, so their ratio is steadier than the ratio of
/// the medians; the mean is taken over the logarithms, so that twice as much and half as much
/// cancel. The interval is a percentile bootstrap, or Student's where that is wider: the bootstrap
/// follows skewed pairs, but of ten pairs it is a fifth too narrow, and of three it knows nothing
/// beyond the three.
pub fn paired_ratio(
    ours: &[f64],
    theirs: &[f64],
    confidence: Confidence,
    seed: u64,
) -> Option<Ratio> {
    let logs: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| (a / b).ln())
        .filter(|log| log.is_finite())
        .collect();
    let pairs = logs.len();
    let count = pairs as f64;
    let mean = match pairs {
        0 => return None,
        _ => logs.iter().sum::<f64>() / count,
    };
    if pairs == 1 {
        return Some(Ratio {
            estimate: mean.exp(),
            low: 0.0,
            high: f64::MAX,
            pairs,
            deviation: 0.0,
        });
    }
    let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0)).sqrt();
    let student = student_quantile(confidence.tail(), pairs - 1) * deviation / count.sqrt();
    let (low, high) = bootstrap(&logs, confidence.tail(), seed)?;
    Some(Ratio {
        estimate: mean.exp(),
        low: low.min(mean - student).exp(),
        high: high.max(mean + student).exp(),
        pairs,
        deviation,
    })
}

/// The percentiles of the means of resamples.
fn bootstrap(logs: &[f64], tail: f64, seed: u64) -> Option<(f64, f64)> {
    let count = logs.len();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..count).filter_map(|_| logs.get(random.usize(..count)));
            drawn.sum::<f64>() / count as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let cut = (RESAMPLES as f64 * tail) as usize;
    Some((*means.get(cut)?, *means.get(RESAMPLES - 1 - cut)?))
}

/// What Student's t exceeds with probability `tail`, below one half.
///
/// With t = √f · tan θ the density becomes cos θ to the power f - 1, which is summed from the tail
/// inwards: exact enough for any number of degrees of freedom, and no table.
pub fn student_quantile(tail: f64, freedom: usize) -> f64 {
    const STEPS: usize = 20_000;
    let power = freedom as f64 - 1.0;
    let step = std::f64::consts::PI / STEPS as f64;
    // Seen from the tail: the cosine of the angle is the sine of the distance to a right angle.
    let density = |i: usize| ((i as f64 + 0.5) * step).sin().powf(power);
    let wanted = tail * (0..STEPS).map(density).sum::<f64>();
    let mut sum = 0.0;
    for i in 0..STEPS {
        let part = density(i);
        if sum + part >= wanted {
            let distance = (i as f64 + (wanted - sum) / part) * step;
            return (freedom as f64).sqrt() / distance.tan();
        }
        sum += part;
    }
    0.0
}

/// By nearest rank. What did not happen is later than everything else, so it is `None` if the rank falls
/// on it.
pub fn percentile(times: impl Iterator<Item = Option<f64>>, part: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = times.map(|time| time.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    let found = sorted.get(rank.saturating_sub(1)).copied();
    found.filter(|time| time.is_finite())
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
        let ratio = paired_ratio(&ours, &theirs, Confidence::Impression, 1).unwrap();
        for value in [ratio.estimate, ratio.low, ratio.high] {
            assert!((value - 0.7).abs() < 1e-9, "{ratio:?}");
        }
    }

    /// Twice and half cancel, the same seed gives the same interval, and nothing gives none.
    #[test]
    fn logarithms_and_seeds() {
        let ratio = paired_ratio(&[2.0, 1.0], &[1.0, 2.0], Confidence::Impression, 5).unwrap();
        assert!((ratio.estimate - 1.0).abs() < 1e-9);
        assert_eq!(
            Some(ratio),
            paired_ratio(&[2.0, 1.0], &[1.0, 2.0], Confidence::Impression, 5)
        );
        assert_eq!(paired_ratio(&[], &[], Confidence::Impression, 5), None);
        assert_eq!(
            paired_ratio(&[0.0], &[1.0], Confidence::Impression, 5),
            None
        );
    }

    /// Over many simulated comparisons of equals with 3 % noise and ten pairs, the interval holds 1
    /// in about 95 of 100, and a difference of 10 % is always seen.
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
            let same = paired_ratio(&noisy(20.0), &theirs, Confidence::Impression, seed).unwrap();
            covered += u32::from(same.low <= 1.0 && 1.0 <= same.high);
            let slower = paired_ratio(&noisy(22.0), &theirs, Confidence::Impression, seed).unwrap();
            seen += u32::from(slower.low > 1.0);
        }
        assert!(covered >= 184, "{covered} of 200");
        assert_eq!(seen, 200);
    }

    /// Student's quantiles, against the printed tables.
    #[test]
    fn quantiles_are_students() {
        for (tail, freedom, expected) in [
            (0.025, 1, 12.706),
            (0.025, 2, 4.303),
            (0.025, 9, 2.262),
            (0.001, 9, 4.297),
            (0.001, 30, 3.385),
            (0.025, 1_000, 1.962),
        ] {
            let quantile = student_quantile(tail, freedom);
            assert!(
                (quantile / expected - 1.0).abs() < 1e-3,
                "{tail} {freedom}: {quantile}"
            );
        }
    }

    /// One pair has an estimate and no interval to speak of.
    #[test]
    fn one_pair_says_nothing() {
        let ratio = paired_ratio(&[2.0], &[1.0], Confidence::Claim, 1).unwrap();
        assert!((ratio.estimate - 2.0).abs() < 1e-9);
        assert!(ratio.low <= 0.0 && ratio.high > 1e300);
    }
}
