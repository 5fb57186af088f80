//! How much of its requests a rule takes, and which (S13).
//!
//! A share is a threshold of 2^32. Each rule mixes the key of a request with its own seed; the request is
//! taken if the upper half of the result lies below the threshold. So it is the same on every shard and in
//! every process, it can be repeated off line, a share that grows keeps all it had, and its error is that of
//! drawing.

use super::super::{destination::SPLIT_WHOLE, hash_bytes, mix};
use crate::config::model::steering::DivertShare;

/// The whole, in basis points.
pub const WHOLE: u32 = 10_000;

/// Who is in a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    seed: u64,
    /// Of 2^32.
    threshold: u64,
}

impl Draw {
    /// `name` sets it apart from others; `threshold` is of [`SPLIT_WHOLE`].
    pub fn new(name: &str, threshold: u64) -> Draw {
        Draw {
            seed: hash_bytes(0, name.as_bytes()),
            threshold: threshold.min(SPLIT_WHOLE),
        }
    }

    /// Where `key` falls, of [`SPLIT_WHOLE`].
    #[inline]
    pub fn point(&self, key: u64) -> u64 {
        mix(key ^ self.seed) >> 32
    }

    /// Whether `key` is in it.
    #[inline]
    pub fn takes(&self, key: u64) -> bool {
        self.point(key) < self.threshold
    }

    /// Its share, of [`SPLIT_WHOLE`].
    pub const fn threshold(&self) -> u64 {
        self.threshold
    }
}

/// Basis points as a threshold.
pub const fn threshold(basis_points: u32) -> u64 {
    basis_points as u64 * SPLIT_WHOLE / WHOLE as u64
}

/// What part of its own requests a server gives away, as a threshold.
///
/// A target that is one of `n` equal servers has `1/n` without any steering. For it to have `t` of all, each
/// of the others gives `f` of its own away, with `t = 1/n + f · (n − 1)/n`, so `f = (n·t − 1) / (n − 1)`;
/// never `t` itself, which would be too much.
pub fn own_fraction(share: DivertShare) -> u64 {
    match share {
        DivertShare::Own(points) => threshold(points),
        DivertShare::Target { share, servers } => {
            let (n, whole) = (u128::from(servers.max(2)), u128::from(WHOLE));
            let over = (n * u128::from(share)).saturating_sub(whole);
            let points = over * u128::from(SPLIT_WHOLE) / (whole * (n - 1));
            u64::try_from(points)
                .unwrap_or(SPLIT_WHOLE)
                .min(SPLIT_WHOLE)
        }
    }
}

/// A threshold as a part of one.
pub fn part(threshold: u64) -> f64 {
    threshold as f64 / SPLIT_WHOLE as f64
}

/// What a divert comes to, in words: which of both shares was given, and what it means for a server (S5).
pub fn describe(share: DivertShare) -> String {
    let fraction = part(own_fraction(share));
    match share {
        DivertShare::Own(_) => format!(
            "own_fraction: each server gives {} of its own",
            percent(fraction)
        ),
        DivertShare::Target { share, servers } => format!(
            "target_share: for {} on one of {servers} equal servers, each other server gives {} of its own",
            percent(f64::from(share) / f64::from(WHOLE)),
            percent(fraction)
        ),
    }
}

/// `70 %`, `33.33 %`.
pub fn percent(part: f64) -> String {
    let text = format!("{:.2}", part * 100.0);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Goal: the share trap is not walked into. Method: the example of the formula, its edges, and for many
    /// shares the share that the target ends up with.
    #[test]
    fn target_shares_become_own_fractions() {
        let f = |share, servers| part(own_fraction(DivertShare::Target { share, servers }));
        assert!((f(8_000, 3) - 0.7).abs() < 1e-9);
        assert!((f(10_000, 3) - 1.0).abs() < 1e-9);
        assert!(f(3_333, 3).abs() < 1e-9, "it has that without any steering");
        assert!(f(5_000, 2).abs() < 1e-9);
        for servers in 2..20 {
            for share in (WHOLE / servers + 1..=WHOLE).step_by(97) {
                let n = f64::from(servers);
                let reached = 1.0 / n + f(share, servers) * (n - 1.0) / n;
                let asked = f64::from(share) / f64::from(WHOLE);
                assert!(
                    (reached - asked).abs() < 1e-6,
                    "{share} of {servers}: {reached}"
                );
            }
        }
        let target = DivertShare::Target {
            share: 8_000,
            servers: 3,
        };
        assert_eq!(
            describe(target),
            "target_share: for 80 % on one of 3 equal servers, each other server gives 70 % of its own"
        );
        assert_eq!(
            describe(DivertShare::Own(8_000)),
            "own_fraction: each server gives 80 % of its own"
        );
    }

    proptest! {
        /// Goal: a share is exact but for drawing (S13). Method: of 20,000 keys of any seed, as many are in
        /// as a binomial draw gives, within six standard deviations.
        #[test]
        fn draws_are_binomial(points in 0..=WHOLE, seed: u64, name in "[a-z]{1,12}") {
            const N: u64 = 20_000;
            let draw = Draw::new(&name, threshold(points));
            let hits = (0..N).filter(|i| draw.takes(mix(seed ^ i))).count() as f64;
            let p = f64::from(points) / f64::from(WHOLE);
            let sigma = (N as f64 * p * (1.0 - p)).sqrt();
            prop_assert!((hits - N as f64 * p).abs() <= 6.0 * sigma, "{hits} of {p}");
        }

        /// Goal: a share that grows keeps all it had (S13). Method: any two shares, the keys of the smaller.
        #[test]
        fn draws_are_monotone(a in 0..=WHOLE, b in 0..=WHOLE, seed: u64) {
            let (small, large) = (a.min(b), a.max(b));
            let small = Draw::new("rule", threshold(small));
            let large = Draw::new("rule", threshold(large));
            for key in (0..2_000).map(|i| mix(seed ^ i)) {
                prop_assert!(!small.takes(key) || large.takes(key));
            }
        }
    }

    /// Goal: the arithmetic can be repeated off line (S13). Method: points worked out apart from it, with
    /// FNV-1a and the finaliser of SplitMix64 written down once more.
    #[test]
    fn draws_can_be_repeated() {
        let finish = |mut x: u64| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        let fnv = |text: &str| {
            let byte =
                |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            finish(text.bytes().fold(0xcbf2_9ce4_8422_2325, byte))
        };
        let key = fnv("request-7");
        let point = finish(key ^ fnv("rule42")) >> 32;
        assert_eq!(hash_bytes(0, b"request-7"), key);
        assert_eq!(Draw::new("rule42", 0).point(key), point);
        assert!(Draw::new("rule42", point + 1).takes(key));
        assert!(!Draw::new("rule42", point).takes(key));
    }

    /// Goal: the ends are exact. Method: nothing and all.
    #[test]
    fn none_and_all() {
        for key in (0..5_000).map(mix) {
            assert!(!Draw::new("r", threshold(0)).takes(key));
            assert!(Draw::new("r", threshold(WHOLE)).takes(key));
        }
    }
}
