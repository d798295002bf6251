//! Random numbers by counter: the n-th token of a choice has its own, whatever else is drawn.
//!
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", 2011).
//! The key is the request's seed, the counter is (token index, sample, 0), so there is no generator
//! whose state a batch, a preemption or a neighbour could move.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Uniform in [0, 1) with 53 bits, for token number `index` of sample `sample`.
pub(super) fn uniform(seed: u64, sample: u32, index: u64) -> f64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let [a, b, ..] = philox([index as u32, (index >> 32) as u32, sample, 0], key);
    let bits = (u64::from(b) << 32 | u64::from(a)) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [low0, high0] = multiply(MULTIPLIERS[0], counter[0]);
        let [low1, high1] = multiply(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

fn multiply(a: u32, b: u32) -> [u32; 2] {
    let product = u64::from(a) * u64::from(b);
    [product as u32, (product >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Random123's `kat_vectors` for philox4x32-10.
    #[test]
    fn known_answers() {
        let zero = philox([0; 4], [0; 2]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let pi = philox(counter, [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn every_coordinate_counts() {
        let base = uniform(1, 0, 0);
        for other in [uniform(2, 0, 0), uniform(1 << 40, 0, 0), uniform(1, 1, 0), uniform(1, 0, 1)]
        {
            assert!((base - other).abs() > 1e-12);
        }
        let mean = (0..10_000).map(|i| uniform(7, 0, i)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
    }
}
