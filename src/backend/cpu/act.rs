//! Activations as the quantised kernels read them: signed bytes with a scale per group of 32.
//!
//! Symmetric: `scale = max|x| / 127`, `q = round_ties_even(x / scale)`. All tiers give the same bits: every step is one
//! exactly rounded operation per element.

use super::quant::GROUP;

/// What belongs to one group of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub(crate) struct GroupMeta {
    pub(crate) scale: f32,
    /// `scale * (sums[0] + sums[1])`: what a weight group's minimum is multiplied with.
    pub(crate) scaled_sum: f32,
    /// Integer sums of the first and the second 16 bytes, for zero points.
    pub(crate) sums: [i32; 2],
}

/// Quantised rows in memory reserved once.
#[derive(Debug, Default)]
pub(crate) struct Acts {
    cols: usize,
    q: Vec<i8>,
    meta: Vec<GroupMeta>,
}

impl Acts {
    /// Room for `rows` rows of at most `cols` values.
    pub(crate) fn with_capacity(rows: usize, cols: usize) -> Self {
        let groups = cols.div_ceil(GROUP);
        Self {
            cols: 0,
            q: vec![0; rows * groups * GROUP],
            meta: vec![GroupMeta::default(); rows * groups],
        }
    }

    /// Starts a set of rows of `cols` values (a multiple of 32).
    pub(crate) fn set_cols(&mut self, cols: usize) {
        debug_assert!(cols.is_multiple_of(GROUP));
        self.cols = cols;
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Mutable parts of `rows` rows from `first` on: bytes and metadata, for filling by several threads.
    pub(crate) fn rows_mut(&mut self, first: usize, rows: usize) -> (&mut [i8], &mut [GroupMeta]) {
        let groups = self.cols / GROUP;
        (
            &mut self.q[first * self.cols..(first + rows) * self.cols],
            &mut self.meta[first * groups..(first + rows) * groups],
        )
    }

    pub(crate) fn q(&self) -> &[i8] {
        &self.q
    }

    pub(crate) fn meta(&self) -> &[GroupMeta] {
        &self.meta
    }
}

/// `1.5 * 2^23`: adding it rounds a float of small magnitude to an integer, ties to even, and leaves it in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Quantises one row. `x`, `q` have the same length, a multiple of 32; `meta` one entry per 32.
///
/// A NaN in a group makes its scale NaN, so that it reaches every output instead of vanishing.
#[inline(always)]
pub(crate) fn quantize_row(x: &[f32], q: &mut [i8], meta: &mut [GroupMeta]) {
    for ((x, q), meta) in x.chunks_exact(GROUP).zip(q.chunks_exact_mut(GROUP)).zip(meta) {
        // Magnitudes compare as integers, with NaN above everything.
        let mut largest = 0_i32;
        for x in x {
            largest = largest.max((x.to_bits() & 0x7fff_ffff).cast_signed());
        }
        let largest = f32::from_bits(largest.cast_unsigned());
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let mut sums = [0_i32; 2];
        for (half, sum) in sums.iter_mut().enumerate() {
            for k in half * 16..half * 16 + 16 {
                let rounded = (x[k] * inverse + ROUND).to_bits().cast_signed();
                let value = rounded.wrapping_sub(ROUND.to_bits().cast_signed()) as i8;
                q[k] = value;
                *sum += i32::from(value);
            }
        }
        let scale = largest / 127.0;
        *meta = GroupMeta { scale, scaled_sum: scale * (sums[0] + sums[1]) as f32, sums };
    }
}

/// Subtracts from `x` what [`quantize_row`] made of it.
#[inline(always)]
pub(crate) fn residual_row(x: &mut [f32], q: &[i8], meta: &[GroupMeta]) {
    for ((x, q), meta) in x.chunks_exact_mut(GROUP).zip(q.chunks_exact(GROUP)).zip(meta) {
        for (x, q) in x.iter_mut().zip(q) {
            *x -= f32::from(*q) * meta.scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(x: &[f32]) -> (Vec<i8>, Vec<GroupMeta>) {
        let (mut q, mut meta) = (vec![0; x.len()], vec![GroupMeta::default(); x.len() / GROUP]);
        quantize_row(x, &mut q, &mut meta);
        (q, meta)
    }

    #[test]
    fn a_second_term_leaves_a_hundredth_of_the_error() {
        let x: Vec<f32> = (0..320).map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 0.01).collect();
        let (q, meta) = quantized(&x);
        let mut rest = x.clone();
        residual_row(&mut rest, &q, &meta);
        let (q2, meta2) = quantized(&rest);
        residual_row(&mut rest, &q2, &meta2);
        for (i, rest) in rest.iter().enumerate() {
            assert!(rest.abs() <= meta[i / GROUP].scale * 0.0041, "{i}: {rest}");
        }
    }

    #[test]
    fn values_come_back_within_half_a_step() {
        let x: Vec<f32> = (0..640).map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 0.01).collect();
        let (q, meta) = quantized(&x);
        for (i, (&x, &q)) in x.iter().zip(&q).enumerate() {
            let scale = meta[i / GROUP].scale;
            assert!((x - scale * f32::from(q)).abs() <= scale * 0.5001, "{i}");
        }
        for (m, q) in meta.iter().zip(q.chunks(GROUP)) {
            assert_eq!(m.sums[0], q[..16].iter().map(|&q| i32::from(q)).sum::<i32>());
            assert_eq!(m.sums[1], q[16..].iter().map(|&q| i32::from(q)).sum::<i32>());
        }
    }

    #[test]
    fn zeros_stay_zero_and_nan_is_not_lost() {
        let (q, meta) = quantized(&[0.0; 32]);
        assert!(q.iter().all(|&q| q == 0) && meta[0].scale == 0.0 && meta[0].scaled_sum == 0.0);
        let mut x = [1.0; 64];
        x[40] = f32::NAN;
        let (_, meta) = quantized(&x);
        assert!(meta[0].scale.is_finite() && meta[1].scale.is_nan());
        x[40] = f32::INFINITY;
        assert!(quantized(&x).1[1].scale.is_infinite());
    }
}
