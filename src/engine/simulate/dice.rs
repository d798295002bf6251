//! Where a life's accidents come from.

use std::ops::RangeInclusive;

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and good enough for accidents.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice whose throws do not depend on how often these are thrown from here on.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.throw())
    }

    pub(super) fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// Uniform, both ends included.
    pub(super) fn up_to(&mut self, least: usize, most: usize) -> usize {
        least + (self.throw() % (most - least + 1) as u64) as usize
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(super) fn unit(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn within(&mut self, range: RangeInclusive<f32>) -> f32 {
        range.start() + self.unit() as f32 * (range.end() - range.start())
    }

    pub(super) fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.up_to(0, values.len() - 1)]
    }
}
