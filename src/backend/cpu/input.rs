//! The input of the next product: rows that threads fill side by side, as its weights read them.

use super::act::{Acts, GroupMeta};
use super::gemm::{Input, Kernels};
use super::pack::Packed;
use super::quant::GROUP;
use super::registers::{Shared, floats};
use crate::backend::BackendError;

/// Rows of activations, quantised, and as floats where a weight is a float matrix.
pub(super) struct Activations {
    acts: Acts,
    floats: Vec<f32>,
    max_rows: usize,
}

/// Access to the rows while they are filled.
pub(super) struct Filling<'a> {
    kernels: Kernels,
    cols: usize,
    q: Option<(Shared<i8>, Shared<GroupMeta>)>,
    floats: Option<Shared<f32>>,
    activations: std::marker::PhantomData<&'a mut Activations>,
}

impl Activations {
    /// Room for `rows` rows of at most `cols` values.
    pub(super) fn reserve(rows: usize, cols: usize) -> Result<Self, BackendError> {
        Ok(Self {
            floats: floats(rows, cols)?,
            acts: Acts::with_capacity(rows, cols),
            max_rows: rows,
        })
    }

    /// Starts the input of a product with `w`.
    pub(super) fn begin(&mut self, kernels: Kernels, w: &Packed) -> Filling<'_> {
        self.acts.set_cols(w.cols());
        let (q, meta) = self.acts.rows_mut(0, self.max_rows);
        Filling {
            kernels,
            cols: w.cols(),
            q: w.reads_quantized().then(|| (Shared::new(q), Shared::new(meta))),
            floats: w.reads_float().then(|| Shared::new(&mut self.floats)),
            activations: std::marker::PhantomData,
        }
    }

    /// The first `rows` rows, filled.
    pub(super) fn rows(&self, rows: usize) -> Input<'_> {
        Input { acts: &self.acts, x: &self.floats, x_stride: self.acts.cols(), rows }
    }
}

impl Filling<'_> {
    /// Fills one row.
    ///
    /// # Safety
    /// No other thread fills the same row.
    pub(super) unsafe fn fill(&self, row: usize, x: &[f32]) {
        let groups = self.cols / GROUP;
        // SAFETY: the caller's promise.
        unsafe {
            if let Some((q, meta)) = &self.q {
                self.kernels.quantize(x, q.row(row, self.cols), meta.row(row, groups));
            }
            if let Some(floats) = &self.floats {
                floats.row(row, self.cols).copy_from_slice(x);
            }
        }
    }
}
