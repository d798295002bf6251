//! Cosines and sines of the current step's positions, made once a step for each rotation.

use super::registers::Shared;
use crate::backend::{Reserve, Rope};

/// Rotations that a model mixes: Gemma has two. More would be made anew in each layer.
const KINDS: usize = 2;

/// Angles of every row of the step, for the last few rotations asked for.
pub(super) struct Angles {
    kinds: [Kind; KINDS],
    /// Which kind is overwritten when a new one is asked for.
    next: usize,
}

struct Kind {
    /// Of the rotation that the angles belong to; empty: of none.
    inv_freq: Vec<f32>,
    magnitude: f32,
    /// `[rows][cos of all pairs, sin of all pairs]`
    table: Vec<f32>,
}

/// Angles of one rotation: to be filled row by row if they are new, then read.
#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    table: Shared<f32>,
    pub(super) inv_freq: &'a [f32],
    magnitude: f32,
    pub(super) is_new: bool,
}

impl Angles {
    pub(super) fn reserve(plan: &Reserve) -> Self {
        let pairs = plan.shape.head_dim / 2;
        let kind = || Kind {
            inv_freq: Vec::with_capacity(pairs),
            magnitude: 1.0,
            table: vec![0.0; plan.max_rows * 2 * pairs],
        };
        Self { kinds: [kind(), kind()], next: 0 }
    }

    /// A step with other positions begins.
    pub(super) fn forget(&mut self) {
        for kind in &mut self.kinds {
            kind.inv_freq.clear();
        }
        self.next = 0;
    }

    /// The angles of `rope`: the caller fills each row that it uses if they are new.
    pub(super) fn of(&mut self, rope: &Rope) -> Rotation<'_> {
        let is_of = |k: &Kind| k.inv_freq == rope.inv_freq && k.magnitude == rope.magnitude;
        let known = self.kinds.iter().position(is_of);
        let at = known.unwrap_or_else(|| {
            let at = self.next;
            self.next = (at + 1) % KINDS;
            self.kinds[at].inv_freq.clear();
            self.kinds[at].inv_freq.extend_from_slice(&rope.inv_freq);
            self.kinds[at].magnitude = rope.magnitude;
            at
        });
        let kind = &mut self.kinds[at];
        Rotation {
            table: Shared::new(&mut kind.table),
            inv_freq: &kind.inv_freq,
            magnitude: kind.magnitude,
            is_new: known.is_none(),
        }
    }
}

impl Rotation<'_> {
    /// Cosines and sines of a row at `position`, one each a pair, times what rotated elements grow by.
    ///
    /// # Safety
    /// No two threads ask for the same row at a time.
    pub(super) unsafe fn row(&self, row: usize, position: usize) -> (&[f32], &[f32]) {
        let pairs = self.inv_freq.len();
        // SAFETY: rows are below the plan's `max_rows`; the caller has this one for itself.
        let table = unsafe { self.table.slice(row * 2 * pairs, 2 * pairs) };
        let (cos, sin) = table.split_at_mut(pairs);
        if self.is_new {
            for ((c, s), f) in cos.iter_mut().zip(&mut *sin).zip(self.inv_freq) {
                let (sin, cos) = (position as f32 * f).sin_cos();
                (*s, *c) = (sin * self.magnitude, cos * self.magnitude);
            }
        }
        (cos, sin)
    }
}
