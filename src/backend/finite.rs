//! What no weight may be: one number that is not finite makes every answer fail, so a file that has one is refused.

use half::f16;

use super::BlockType;
use super::cpu::quant::for_each_group;

/// Bytes that are looked at between two answers: without a branch for each number, a machine looks at many at once.
const STRETCH_BYTES: usize = 4096;

/// Whether all numbers are finite, and all scales of blocks within what a half holds, as which they are packed. `bytes`
/// are whole blocks.
pub(super) fn are_finite(kind: BlockType, bytes: &[u8]) -> bool {
    match kind {
        BlockType::F32 => all::<4>(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 != 0x7f80_0000),
        BlockType::F16 => all::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7c00 != 0x7c00),
        BlockType::BF16 => all::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7f80 != 0x7f80),
        _ => {
            let mut finite = true;
            let fits = |scale: f32| f16::from_f32(scale).is_finite();
            for_each_group(kind, bytes, |_, group| {
                finite &= group.d.into_iter().chain(group.m).all(fits);
            });
            finite
        }
    }
}

fn all<const WIDTH: usize>(bytes: &[u8], is_finite: impl Fn([u8; WIDTH]) -> bool) -> bool {
    bytes.chunks(STRETCH_BYTES).all(|stretch| {
        stretch.as_chunks().0.iter().fold(true, |finite, &number| finite & is_finite(number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::convert::encode;

    #[test]
    fn one_bad_number_among_many_is_seen() {
        for kind in [BlockType::F32, BlockType::F16, BlockType::BF16] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 1, 2047, 2048, 4999] {
                    let mut values = vec![-1.5; 5000];
                    let written = |values: &[f32]| {
                        let mut bytes = Vec::new();
                        encode(kind, values, values.len(), &mut bytes).unwrap();
                        bytes
                    };
                    assert!(are_finite(kind, &written(&values)));
                    values[at] = bad;
                    assert!(!are_finite(kind, &written(&values)), "{kind:?} {bad} {at}");
                }
            }
        }
    }

    /// Scales of blocks are halves, or a half times an integer.
    #[test]
    fn a_bad_scale_is_seen_wherever_a_block_has_it() {
        let (nan, inf) = (f16::NAN.to_le_bytes(), f16::INFINITY.to_le_bytes());
        for (kind, places) in [
            (BlockType::Q4_0, &[0][..]),
            (BlockType::Q4_1, &[0, 2]),
            (BlockType::Q5_0, &[0]),
            (BlockType::Q5_1, &[0, 2]),
            (BlockType::Q8_0, &[0]),
            (BlockType::Q2K, &[80, 82]),
            (BlockType::Q3K, &[108]),
            (BlockType::Q4K, &[0, 2]),
            (BlockType::Q5K, &[0, 2]),
            (BlockType::Q6K, &[208]),
        ] {
            let good = vec![1; 3 * kind.block_bytes()];
            assert!(are_finite(kind, &good), "{kind:?}");
            for (at, bad) in places.iter().flat_map(|at| [(at, nan), (at, inf)]) {
                let mut bytes = good.clone();
                bytes[2 * kind.block_bytes() + at..][..2].copy_from_slice(&bad);
                assert!(!are_finite(kind, &bytes), "{kind:?} {at}");
            }
        }
        // The largest half, times 63.
        let mut products = vec![255; BlockType::Q4K.block_bytes()];
        products[..2].copy_from_slice(&f16::MAX.to_le_bytes());
        products[2..4].copy_from_slice(&f16::ONE.to_le_bytes());
        assert!(!are_finite(BlockType::Q4K, &products));
    }
}
