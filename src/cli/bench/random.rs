//! Numbers that look random and are the same for the same seed: prompts, and when requests arrive.

/// `SplitMix64`: small, fast, and good enough for words and waiting times.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator number `index` of `seed`, so that each prompt depends on its own number only.
    pub(super) fn nth(seed: u64, index: u64) -> Self {
        Self::new(Self::new(seed ^ index.wrapping_mul(0xd1b5_4a32_d192_ed03)).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..end`. The bias of the multiplication is far below what a benchmark could notice.
    pub(super) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma with this shape and scale 1, by Marsaglia and Tsang (2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.unit().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// Seconds until the next arrival, `1 / rate` on average: exponential, which makes a Poisson process,
    /// if `burstiness` is 1; as vLLM has it, gamma otherwise: below 1 in bursts, above 1 more even.
    pub(super) fn gap_s(&mut self, rate: f64, burstiness: f64) -> f64 {
        if burstiness == 1.0 {
            return -self.unit().ln() / rate;
        }
        self.gamma(burstiness) / (rate * burstiness)
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    /// Mean and variance of many gaps.
    fn moments(rate: f64, burstiness: f64) -> (f64, f64) {
        let mut rng = Rng::new(7);
        let gaps: Vec<f64> = (0..200_000).map(|_| rng.gap_s(rate, burstiness)).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>();
        (mean, squares / gaps.len() as f64)
    }

    #[test]
    fn gaps_have_the_mean_and_the_variance_of_their_distribution() {
        for (rate, burstiness) in [(4.0, 1.0), (0.5, 1.0), (4.0, 0.25), (4.0, 3.0)] {
            let (mean, variance) = moments(rate, burstiness);
            let expected = 1.0 / rate;
            assert!((mean / expected - 1.0).abs() < 0.02, "{rate} {burstiness}: {mean}");
            let expected = expected * expected / burstiness;
            assert!((variance / expected - 1.0).abs() < 0.05, "{rate} {burstiness}: {variance}");
        }
    }

    #[test]
    fn arrivals_in_equal_times_vary_as_a_poisson_process_does() {
        let mut rng = Rng::new(3);
        let mut counts = vec![0_u32; 10_000];
        let mut at = 0.0;
        loop {
            at += rng.gap_s(5.0, 1.0);
            let Some(count) = counts.get_mut(at as usize) else { break };
            *count += 1;
        }
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        let squares: f64 = counts.iter().map(|&c| (f64::from(c) - mean).powi(2)).sum();
        let variance = squares / counts.len() as f64;
        assert!((mean - 5.0).abs() < 0.1 && (variance / mean - 1.0).abs() < 0.05);
    }

    #[test]
    fn a_seed_says_everything() {
        let of = |seed, index| {
            let mut rng = Rng::nth(seed, index);
            [rng.next(), rng.next()]
        };
        assert_eq!(of(1, 2), of(1, 2));
        assert_ne!(of(1, 2), of(1, 3));
        assert_ne!(of(1, 2), of(2, 2));
        let mut rng = Rng::new(1);
        let mut seen = [false; 10];
        (0..200).for_each(|_| seen[rng.below(10)] = true);
        assert_eq!(seen, [true; 10]);
    }
}
