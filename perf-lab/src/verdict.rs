//! The word for a difference: faster, slower, the same, or that it cannot be told.
//!
//! "Slower" needs three things: the whole interval lies above 1, the estimate is more than what this
//! machine shows between a program and itself, and the interval does not fit into what is called the
//! same. So an A/A comparison is next to never called different, and a real difference that is too
//! small to matter is called the same.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::statistics::Ratio;

/// The default of what is too small to matter.
pub const SMALLEST: f64 = 0.03;
/// Pairs of a comparison, unless told otherwise: at a noise of 2 % per pair, ten find a difference of
/// 5 % in 99 of 100 comparisons.
pub const PAIRS: u16 = 10;
/// How many standard errors of the machine's own noise a difference must exceed.
const FLOOR_ERRORS: f64 = 3.0;
/// A comparison that would need more than this will not be told by measuring longer.
const PAIRS_MAX: f64 = 1_000.0;

/// What a machine shows between a program and itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Standard deviation of the log ratio of a pair.
    pub deviation: f64,
    /// Number of pairs it is known from.
    pub pairs: usize,
}

impl Noise {
    /// The log ratio that chance reaches between equals, averaged over so many pairs.
    pub fn floor(&self, pairs: usize) -> f64 {
        FLOOR_ERRORS * self.deviation / (pairs.max(1) as f64).sqrt()
    }
}

/// What a difference is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Criterion {
    /// A smaller difference does not matter: 0.03 is three percent.
    pub smallest: f64,
    /// This machine's noise, if it has been calibrated.
    pub noise: Option<Noise>,
}

impl Default for Criterion {
    fn default() -> Criterion {
        Criterion {
            smallest: SMALLEST,
            noise: None,
        }
    }
}

/// The word.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Ours takes less.
    Faster,
    /// Ours takes more.
    Slower,
    /// Whatever difference there is, is smaller than this.
    Same {
        /// As a part: 0.03 is three percent.
        within: f64,
    },
    /// The interval holds both something that matters and nothing.
    CannotTell {
        /// About how many more pairs would tell.
        more_pairs: usize,
    },
}

impl Criterion {
    /// Judges a ratio of something of which less is better.
    pub fn judge(&self, ratio: &Ratio) -> Word {
        let (estimate, low, high) = (ratio.estimate.ln(), ratio.low.ln(), ratio.high.ln());
        let same = (1.0 + self.smallest).ln();
        if -same <= low && high <= same {
            return Word::Same {
                within: self.smallest,
            };
        }
        let floor = self.noise.map_or(0.0, |noise| noise.floor(ratio.pairs));
        if low > 0.0 && estimate > floor {
            return Word::Slower;
        }
        if high < 0.0 && -estimate > floor {
            return Word::Faster;
        }
        Word::CannotTell {
            more_pairs: more_pairs(ratio, same),
        }
    }
}

/// The interval shrinks with the root of the pairs. It tells when it is narrow enough to leave out
/// either 1 or the limit of what is called the same, whichever is further from the estimate.
fn more_pairs(ratio: &Ratio, same: f64) -> usize {
    let estimate = ratio.estimate.ln();
    let half = (ratio.high.ln() - ratio.low.ln()) / 2.0;
    let wanted = estimate.abs().max(same - estimate.abs());
    let pairs = ratio.pairs as f64;
    // One pair has no width: ask for what a comparison usually has.
    if ratio.pairs < 2 || !half.is_finite() {
        return usize::from(PAIRS) - ratio.pairs.min(1);
    }
    let needed = pairs * (half / wanted).powi(2);
    ((needed.min(PAIRS_MAX) - pairs).ceil().max(1.0)) as usize
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Faster => f.write_str("faster"),
            Word::Slower => f.write_str("slower"),
            Word::Same { within } => write!(f, "same within {} %", percent(*within)),
            Word::CannotTell { more_pairs } => {
                write!(f, "cannot tell (needs ~{more_pairs} more pairs)")
            }
        }
    }
}

/// Without the digits that a float has too many.
fn percent(part: f64) -> f64 {
    (part * 1_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::statistics::{Confidence, paired_ratio};

    fn ratio(estimate: f64, low: f64, high: f64) -> Ratio {
        Ratio {
            estimate,
            low,
            high,
            pairs: 10,
            deviation: 0.01,
        }
    }

    /// The word follows from where the interval lies, and from the machine's noise.
    #[test]
    fn words() {
        let noise = Some(Noise {
            deviation: 0.02,
            pairs: 30,
        });
        let told = |ratio, noise| {
            let criterion = Criterion {
                noise,
                ..Criterion::default()
            };
            criterion.judge(&ratio).to_string()
        };
        let slower = ratio(1.05, 1.04, 1.06);
        assert_eq!(told(slower, None), "slower");
        assert_eq!(told(slower, noise), "slower");
        assert_eq!(told(ratio(0.95, 0.94, 0.96), noise), "faster");
        assert_eq!(told(ratio(1.01, 1.002, 1.02), None), "same within 3 %");
        // Above 1, but not above what the machine shows between equals.
        let faint = ratio(1.017, 1.001, 1.033);
        assert_eq!(told(faint, None), "slower");
        assert!(told(faint, noise).starts_with("cannot tell"));
        // Twice as wide as would tell: four times the pairs, thirty more.
        let wide = ratio(1.0, 1.03f64.powi(-2), 1.03f64.powi(2));
        assert_eq!(told(wide, None), "cannot tell (needs ~30 more pairs)");
        let one = paired_ratio(&[1.0], &[1.1], Confidence::Claim, 0).unwrap();
        assert_eq!(told(one, None), "cannot tell (needs ~9 more pairs)");
    }

    /// Simulates comparisons of ten pairs with the noise of a working machine: 2 % per pair, an
    /// outlier of three times that now and then, and a drift that both sides share.
    fn simulate(slowdown: f64, noise: Option<Noise>) -> impl Iterator<Item = Word> {
        let mut random = fastrand::Rng::with_seed(0x0006_c616_2300);
        // The sum of twelve uniform numbers is close to normal, with deviation 1.
        let mut noisy = move |level: f64, drift: f64| {
            let normal = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
            let scale = if random.u32(..20) == 0 { 0.042 } else { 0.014 };
            level * (1.0 + drift) * (scale * normal).exp()
        };
        (0..200u64).map(move |seed| {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for pair in 0..PAIRS {
                let drift = 0.01 * f64::from(pair);
                theirs.push(noisy(20.0, drift));
                ours.push(noisy(20.0 * slowdown, drift));
            }
            let ratio = paired_ratio(&ours, &theirs, Confidence::Claim, seed).unwrap();
            let criterion = Criterion {
                noise,
                ..Criterion::default()
            };
            criterion.judge(&ratio)
        })
    }

    const NOISE: Noise = Noise {
        deviation: 0.02,
        pairs: 40,
    };

    /// A against A is called "same" or "cannot tell" in 99 of 100 comparisons or more, whether the
    /// machine has been calibrated or not.
    #[test]
    fn equals_are_not_called_different() {
        for noise in [None, Some(NOISE)] {
            let different = simulate(1.0, noise)
                .filter(|word| matches!(word, Word::Faster | Word::Slower))
                .count();
            assert!(different <= 2, "{different} of 200 with {noise:?}");
        }
    }

    /// A slowdown of 5 % is found in 95 of 100 comparisons or more, and never called faster.
    #[test]
    fn a_slowdown_of_five_percent_is_found() {
        for noise in [None, Some(NOISE)] {
            let words: Vec<Word> = simulate(1.05, noise).collect();
            let found = words.iter().filter(|word| **word == Word::Slower).count();
            assert!(found >= 190, "{found} of 200 with {noise:?}");
            assert!(!words.contains(&Word::Faster));
        }
    }
}
