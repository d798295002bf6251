//! Activations as the quantised kernels read them: signed bytes with a scale per group of 32.
//!
//! Symmetric: `scale = max|x| / 127`, `q = round_ties_even(x / scale)`. All tiers give the same bits: every step is one
//! exactly rounded operation per element.
//!
//! Rows lie in blocks, in the order in which a kernel reads them:
//!
//! ```text
//! q[block][group of 32 k][row of the block][32]      meta[block][group][row of the block]
//! ```
//!
//! so that all rows of a block are at constant distances from one pointer. Operands at a base and an index register instead
//! cost AVX-512 a quarter of its speed: Intel splits `vpdpbusd` and `vfmadd` with such an operand in two.

use std::marker::PhantomData;

use super::lanes::{LANES, Lanes};
use super::quant::GROUP;

/// Rows in a block at most: as many as a kernel multiplies at once.
const BLOCK_ROWS: usize = 16;

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
    /// Rows in a block: few rows lie close together.
    height: usize,
    q: Vec<i8>,
    meta: Vec<GroupMeta>,
}

impl Acts {
    /// Room for `rows` rows of at most `cols` values.
    pub(crate) fn with_capacity(rows: usize, cols: usize) -> Self {
        let cells = rows.next_multiple_of(BLOCK_ROWS) * cols.div_ceil(GROUP);
        Self {
            cols: 0,
            height: 1,
            q: vec![0; cells * GROUP],
            meta: vec![GroupMeta::default(); cells],
        }
    }

    /// Starts a set of `rows` rows of `cols` values (a multiple of 32).
    pub(crate) fn begin(&mut self, rows: usize, cols: usize) -> Filling<'_> {
        debug_assert!(cols.is_multiple_of(GROUP));
        self.cols = cols;
        self.height = rows.next_power_of_two().min(BLOCK_ROWS);
        let cells = rows.next_multiple_of(self.height) * self.groups();
        assert!(cells <= self.meta.len(), "{rows} rows of {cols}");
        Filling {
            q: self.q.as_mut_ptr(),
            meta: self.meta.as_mut_ptr(),
            rows,
            groups: self.groups(),
            height: self.height,
            acts: PhantomData,
        }
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// Groups in a row.
    pub(crate) fn groups(&self) -> usize {
        self.cols / GROUP
    }

    pub(crate) fn height(&self) -> usize {
        self.height
    }

    pub(crate) fn q(&self) -> &[i8] {
        &self.q
    }

    pub(crate) fn meta(&self) -> &[GroupMeta] {
        &self.meta
    }
}

/// Place of a row's first group among the groups of all; the next ones are `height` apart.
pub(crate) fn first_cell(row: usize, groups: usize, height: usize) -> usize {
    row / height * groups * height + row % height
}

/// Access to the rows of a set, for filling by several threads.
#[derive(Clone, Copy)]
pub(crate) struct Filling<'a> {
    q: *mut i8,
    meta: *mut GroupMeta,
    rows: usize,
    groups: usize,
    height: usize,
    acts: PhantomData<&'a mut Acts>,
}

// SAFETY: rows are handed out by `row`, whose callers answer for each being in one thread's hands.
unsafe impl Send for Filling<'_> {}
// SAFETY: as above.
unsafe impl Sync for Filling<'_> {}

impl<'a> Filling<'a> {
    /// # Safety
    /// Nobody else has the row.
    pub(crate) unsafe fn row(&self, row: usize) -> Row<'a> {
        assert!(row < self.rows);
        let cell = first_cell(row, self.groups, self.height);
        // SAFETY: `Acts::begin` has seen that all cells of all rows are there.
        let (q, meta) = unsafe { (self.q.add(cell * GROUP), self.meta.add(cell)) };
        Row { q, meta, groups: self.groups, height: self.height, filling: PhantomData }
    }
}

/// One row's groups: the first one, how many, and the distance between them.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    q: *mut i8,
    meta: *mut GroupMeta,
    groups: usize,
    height: usize,
    filling: PhantomData<&'a mut Acts>,
}

impl Row<'_> {
    /// # Safety
    /// `group` is one of the row's.
    #[inline(always)]
    unsafe fn group(self, group: usize) -> (*mut i8, *mut GroupMeta) {
        // SAFETY: the caller's promise.
        unsafe { (self.q.add(group * self.height * GROUP), self.meta.add(group * self.height)) }
    }
}

/// `1.5 * 2^23`: adding it rounds a float of small magnitude to an integer, ties to even, and leaves it in the low bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Quantises `x` into a row.
///
/// A NaN in a group makes its scale NaN, so that it reaches every output instead of vanishing.
#[inline(always)]
pub(super) fn quantize_row<L: Lanes>(x: &[f32], row: Row<'_>) {
    assert_eq!(x.len(), row.groups * GROUP);
    for (g, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
        // SAFETY: the array has twice 16 floats, and a row all its groups, 32 bytes each.
        unsafe {
            let (q, meta) = row.group(g);
            let halves = [L::load(x.as_ptr()), L::load(x.as_ptr().add(LANES))];
            let largest = halves[0].largest_magnitude(halves[1]);
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let rounded = |x: L| x.mul(L::splat(inverse)).add(L::splat(ROUND));
            let sums = [
                rounded(halves[0]).store_integers(q),
                rounded(halves[1]).store_integers(q.add(LANES)),
            ];
            let scale = largest / 127.0;
            let scaled_sum = scale * sums[0].wrapping_add(sums[1]) as f32;
            meta.write(GroupMeta { scale, scaled_sum, sums });
        }
    }
}

/// Subtracts from `x` what [`quantize_row`] made of it.
#[inline(always)]
pub(crate) fn residual_row(x: &mut [f32], row: Row<'_>) {
    assert_eq!(x.len(), row.groups * GROUP);
    for (g, x) in x.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        // SAFETY: a row has all its groups, 32 bytes each.
        let (q, meta) = unsafe {
            let (q, meta) = row.group(g);
            (q.cast::<[i8; GROUP]>().read(), meta.read())
        };
        for (x, q) in x.iter_mut().zip(q) {
            *x -= f32::from(q) * meta.scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Portable;
    use super::*;

    /// A single row is contiguous.
    fn quantized(x: &[f32]) -> (Vec<i8>, Vec<GroupMeta>) {
        let mut acts = Acts::with_capacity(1, x.len());
        // SAFETY: nobody else is here.
        quantize_row::<Portable>(x, unsafe { acts.begin(1, x.len()).row(0) });
        (acts.q[..x.len()].to_vec(), acts.meta[..x.len() / GROUP].to_vec())
    }

    fn rest(x: &[f32]) -> Vec<f32> {
        let (mut acts, mut x) = (Acts::with_capacity(1, x.len()), x.to_vec());
        // SAFETY: nobody else is here.
        let row = unsafe { acts.begin(1, x.len()).row(0) };
        quantize_row::<Portable>(&x, row);
        residual_row(&mut x, row);
        x
    }

    #[test]
    fn rows_of_a_set_do_not_touch_each_other() {
        for rows in [1, 2, 3, 8, 16, 17, 40] {
            let mut acts = Acts::with_capacity(rows, 96);
            let x = |row: usize| -> Vec<f32> { (0..96).map(|k| (row * 96 + k) as f32).collect() };
            let filling = acts.begin(rows, 96);
            for row in 0..rows {
                // SAFETY: one at a time.
                quantize_row::<Portable>(&x(row), unsafe { filling.row(row) });
            }
            let height = acts.height();
            for row in 0..rows {
                let (q, meta) = quantized(&x(row));
                for group in 0..3 {
                    let cell = first_cell(row, 3, height) + group * height;
                    assert_eq!(acts.q[cell * GROUP..][..GROUP], q[group * GROUP..][..GROUP]);
                    assert_eq!(acts.meta[cell], meta[group], "row {row} of {rows}");
                }
            }
        }
    }

    #[test]
    fn a_second_term_leaves_a_hundredth_of_the_error() {
        let x: Vec<f32> = (0..320).map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 0.01).collect();
        let (_, meta) = quantized(&x);
        for (i, rest) in rest(&rest(&x)).iter().enumerate() {
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
