//! Chance, the same for the same seed.

use std::f64::consts::TAU;

/// A generator of numbers (SplitMix64: Steele et al., Fast splittable pseudorandom number generators, 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws a number from 0 to 1, without 1.
    #[allow(clippy::cast_precision_loss, reason = "it has 53 bits")]
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws one of so many places.
    #[allow(clippy::cast_possible_truncation, reason = "it is below a usize")]
    pub fn place(&mut self, places: usize) -> usize {
        (self.next() % places as u64) as usize
    }

    /// Draws a number of seconds below so many.
    pub fn below(&mut self, seconds: u32) -> u32 {
        whole(f64::from(seconds) * self.share())
    }

    /// Tells whether something happens that does in this share of cases.
    pub fn happens(&mut self, share: f64) -> bool {
        self.share() < share
    }

    /// Draws from a skewed distribution (lognormal): half are below the median, few are far above it.
    pub fn skewed(&mut self, (median, sigma): (f64, f64)) -> f64 {
        let normal = (-2.0 * (1.0 - self.share()).ln()).sqrt() * (TAU * self.share()).cos();
        median * (sigma * normal).exp()
    }

    /// Draws how often something happens that does so often on average (Poisson, by Knuth).
    pub fn times(&mut self, average: f64) -> u32 {
        let (mut times, mut left) = (0, self.share());
        while left > (-average).exp() {
            left *= self.share();
            times += 1;
        }
        times
    }
}

/// Cuts a number down to a whole one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it ends at the largest and the smallest"
)]
pub fn whole(number: f64) -> u32 {
    number as u32
}
