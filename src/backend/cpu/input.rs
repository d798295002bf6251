//! The input of the next product: rows that threads fill side by side, as its weights read them.

use super::act::{self, Acts};
use super::gemm::{Input, Kernels};
use super::pack::Packed;
use super::registers::{Shared, floats};
use crate::backend::BackendError;

/// Rows of activations, quantised, and as floats where a weight is a float matrix.
pub(super) struct Activations {
    acts: Acts,
    floats: Vec<f32>,
    terms: usize,
}

/// How finely rows are quantised.
///
/// One term is a byte a value. A second one quantises what the first lost, for twice the arithmetic
/// over the same weights. It goes to the products whose errors are not averaged away behind them:
/// that of q, k and v, whose errors move the weights of attention and stay in the cache, and the
/// head, whose errors are the answer's. The bounds that `tests/golden` sets are not met without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    OneTerm,
    TwoTerms,
}

/// Access to the rows while they are filled.
pub(super) struct Filling<'a> {
    kernels: Kernels,
    cols: usize,
    rows: usize,
    terms: usize,
    acts: Option<act::Filling<'a>>,
    floats: Option<Shared<f32>>,
}

impl Activations {
    /// Room for `rows` rows of at most `cols` values.
    pub(super) fn reserve(rows: usize, cols: usize) -> Result<Self, BackendError> {
        Ok(Self {
            floats: floats(rows, cols)?,
            acts: Acts::with_capacity(2 * rows, cols),
            terms: 1,
        })
    }

    /// Starts `rows` rows of input of a product with `w`.
    pub(super) fn begin(
        &mut self,
        kernels: Kernels,
        w: &Packed,
        rows: usize,
        precision: Precision,
    ) -> Filling<'_> {
        self.terms = if precision == Precision::TwoTerms { 2 } else { 1 };
        let acts = self.acts.begin(rows * self.terms, w.cols());
        Filling {
            kernels,
            cols: w.cols(),
            rows,
            terms: self.terms,
            acts: w.reads_quantized().then_some(acts),
            floats: w.reads_float().then(|| Shared::new(&mut self.floats)),
        }
    }

    /// The first `rows` rows, filled.
    pub(super) fn rows(&self, rows: usize) -> Input<'_> {
        Input {
            acts: &self.acts,
            x: &self.floats,
            x_stride: self.acts.cols(),
            rows,
            terms: self.terms,
        }
    }
}

impl Filling<'_> {
    /// Fills one row; `x` is spent on it.
    ///
    /// # Safety
    /// No other thread fills the same row.
    pub(super) unsafe fn fill(&self, row: usize, x: &mut [f32]) {
        // SAFETY: the caller's promise; terms of a row are rows of their own.
        unsafe {
            if let Some(floats) = &self.floats {
                floats.row(row, self.cols).copy_from_slice(x);
            }
            let Some(acts) = &self.acts else { return };
            let first = acts.row(row);
            self.kernels.quantize(x, first);
            if self.terms == 2 {
                self.kernels.residual(x, first);
                self.kernels.quantize(x, acts.row(self.rows + row));
            }
        }
    }
}
