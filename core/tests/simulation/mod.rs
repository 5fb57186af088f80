//! What simulations share: a generator whose traces depend on nothing but the seed, and how many seeds.

pub mod machine;
pub mod queue;

/// A xorshift* generator (Vigna 2016): the same seed, the same trace.
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// In [0, 1).
    pub fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    /// A whole number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() * n as f64) as usize
    }
}

/// How many seeds: `usual`, or as many as TIDEGATE_TEST_SEEDS says.
#[allow(clippy::disallowed_methods)]
pub fn seeds(usual: u64) -> u64 {
    let asked = std::env::var("TIDEGATE_TEST_SEEDS").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(usual)
}
