//! One matrix product, ready to be repeated.

use crate::backend::cpu::Packed;
use crate::backend::cpu::act::Acts;
use crate::backend::cpu::gemm::{Input, Kernels, Output};
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::quant::GROUP;

/// A product of some rows of activations and a packed matrix, in memory of its own.
pub struct Product<'a> {
    kernels: Kernels,
    w: &'a Packed,
    acts: Acts,
    x: Vec<f32>,
    out: Vec<f32>,
    rows: usize,
}

impl<'a> Product<'a> {
    /// `rows` rows of activations between -1 and 1, quantised where `w` reads them so.
    pub fn new(kernels: Kernels, w: &'a Packed, rows: usize) -> Self {
        let cols = w.cols();
        let x: Vec<f32> =
            (0..rows * cols).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
        let mut acts = Acts::with_capacity(rows, cols.next_multiple_of(GROUP));
        if w.reads_quantized() {
            let filling = acts.begin(rows, cols);
            for (r, row) in x.chunks(cols).enumerate() {
                // SAFETY: one row at a time.
                kernels.quantize(row, unsafe { filling.row(r) });
            }
        }
        Self { kernels, w, acts, x, out: vec![0.0; rows * w.rows()], rows }
    }

    /// Computes it once.
    pub fn run(&mut self, pool: &mut Pool) {
        let (acts, x, rows, w) = (&self.acts, &self.x[..], self.rows, self.w);
        let input = Input { acts, x, x_stride: w.cols(), rows, terms: 1 };
        let mut output = Output { out: &mut self.out, stride: w.rows(), add: false };
        self.kernels.gemm(pool, w, &input, &mut output);
    }

    /// Whether every output is a number, and some are not zero: what a broken kernel would not give.
    pub fn is_sane(&self) -> bool {
        self.out.iter().all(|y| y.is_finite()) && self.out.iter().any(|&y| y != 0.0)
    }

    /// Multiply-accumulates of one run.
    pub fn macs(&self) -> usize {
        self.rows * self.w.rows() * self.w.cols()
    }
}
