//! The registers of a step, reserved once.

use super::attention::Work;
use super::input::Activations;
use crate::backend::{BackendError, Reserve, Shape};

/// Rows of the current step, and scratch of each thread.
pub(super) struct Registers {
    pub(super) shape: Shape,
    /// The residual stream, `[rows][hidden]`.
    pub(super) x: Vec<f32>,
    /// A stream that was put aside between two layers, `[rows][hidden]`, and its rows.
    kept: (Vec<f32>, usize),
    /// `[rows][q, k, v]`
    pub(super) qkv: Vec<f32>,
    /// `[rows][heads * head_dim]`
    pub(super) attention: Vec<f32>,
    /// `[rows][gate, up]`
    pub(super) gate_up: Vec<f32>,
    /// What a block adds to the stream, before its norm: `[rows][hidden]`.
    pub(super) delta: Vec<f32>,
    /// `[logit rows][vocab]`
    pub(super) logits: Vec<f32>,
    /// Input of the next product, quantised.
    pub(super) input: Activations,
    /// Partial results of units that were cut into spans.
    pub(super) partials: Vec<f32>,
    scratch: Vec<f32>,
    scratch_stride: usize,
}

impl Registers {
    pub(super) fn reserve(plan: &Reserve, threads: usize) -> Result<Self, BackendError> {
        let s = plan.shape;
        let rows = plan.max_rows;
        let widest = s.hidden.max(s.mlp).max(s.heads * s.head_dim);
        let attention = Work::floats(s.heads / s.kv_heads, s.head_dim);
        // Rounded up to a cache line, so that threads share none.
        let scratch_stride = widest.max(attention).next_multiple_of(16);
        Ok(Self {
            x: floats(rows, s.hidden)?,
            kept: (floats(rows, s.hidden)?, 0),
            qkv: floats(rows, qkv_width(&s))?,
            attention: floats(rows, s.heads * s.head_dim)?,
            gate_up: floats(rows, 2 * s.mlp)?,
            delta: floats(rows, s.hidden)?,
            logits: floats(plan.max_logit_rows, s.vocab)?,
            input: Activations::reserve(rows.max(plan.max_logit_rows), widest)?,
            partials: floats(super::plan::PARTIAL_FLOATS, 1)?,
            scratch: floats(threads, scratch_stride)?,
            scratch_stride,
            shape: s,
        })
    }

    /// Puts the stream of `rows` rows aside.
    pub(super) fn keep(&mut self, rows: usize) {
        std::mem::swap(&mut self.x, &mut self.kept.0);
        self.kept.1 = rows;
    }

    /// Takes the stream that was put aside back, once; false if it is not one of `rows` rows.
    pub(super) fn resume(&mut self, rows: usize) -> bool {
        let is_kept = std::mem::take(&mut self.kept.1) == rows;
        std::mem::swap(&mut self.x, &mut self.kept.0);
        is_kept
    }

    /// Scratch of the threads, to be handed out by [`Scratch::of`].
    pub(super) fn scratch(&mut self) -> Scratch {
        Scratch { all: Shared::new(&mut self.scratch), stride: self.scratch_stride }
    }
}

/// Width of a row of q, k and v.
pub(super) fn qkv_width(s: &Shape) -> usize {
    (s.heads + 2 * s.kv_heads) * s.head_dim
}

/// Zeroed floats; fresh pages stay untouched until they are used.
pub(super) fn floats(rows: usize, cols: usize) -> Result<Vec<f32>, BackendError> {
    let n = rows
        .checked_mul(cols)
        .filter(|n| n.checked_mul(4).is_some_and(|b| b < isize::MAX as usize));
    n.map(|n| vec![0.0; n])
        .ok_or_else(|| BackendError::Device(format!("no room for {rows} x {cols} floats")))
}

/// A slice that threads of one phase cut disjoint pieces from.
#[derive(Clone, Copy)]
pub(super) struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: pieces are handed out by `slice`, whose callers answer for their being disjoint.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// Elements `at..at + len`.
    ///
    /// # Safety
    /// The slice this was made from is alive, and no other piece that overlaps is in use.
    #[expect(clippy::mut_from_ref, reason = "the caller answers for disjointness")]
    pub(super) unsafe fn slice(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at <= self.len && len <= self.len - at, "piece {at}+{len} of {}", self.len);
        // SAFETY: inside the slice; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }

    /// Where elements `at..at + len` begin.
    pub(super) fn pointer(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "piece {at}+{len} of {}", self.len);
        self.start.wrapping_add(at)
    }

    /// Row `i` of rows that are `width` long.
    ///
    /// # Safety
    /// As for [`Self::slice`].
    #[expect(clippy::mut_from_ref, reason = "the caller answers for disjointness")]
    pub(super) unsafe fn row(&self, i: usize, width: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.slice(i * width, width) }
    }
}

/// Scratch floats, one piece a thread.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    all: Shared<f32>,
    stride: usize,
}

impl Scratch {
    /// # Safety
    /// Only thread `worker` asks for its piece, once at a time.
    #[expect(clippy::mut_from_ref, reason = "the caller answers for disjointness")]
    pub(super) unsafe fn of(&self, worker: usize) -> &mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.all.row(worker, self.stride) }
    }
}
