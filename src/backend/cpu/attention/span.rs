//! Scores, weights and weighted values of one span of tokens, for the query vectors of one unit.
//!
//! A query vector is one head of one row. Its numbers depend on its own position and on the span's
//! place in the sequence, never on the vectors computed beside it: sums run over k in one order, a
//! token outside its sight has weight zero, and zero times a (finite) value adds nothing.

use super::super::kv::{Element, LayerView};
use super::super::lanes::{LANES, Lanes, exp};
use super::super::rows::soft_cap;
use super::{SPAN, Unit, Work};
use crate::backend::{Attention, BLOCK_TOKENS};

/// What is the same for all spans of a unit.
pub(super) struct Sight<'a, E> {
    pub(super) view: LayerView<'a, E>,
    pub(super) unit: Unit<'a>,
    pub(super) attention: Attention,
}

impl<E: Element> Sight<'_, E> {
    /// Tokens that the row at this place of the unit sees.
    fn range(&self, row: usize) -> (usize, usize) {
        let position = self.unit.position + row;
        let first = self.attention.window.map_or(0, |w| (position + 1).saturating_sub(w));
        (first, position + 1)
    }
}

/// Fills `work.max`, `work.sum` and `work.values` for span number `span`.
///
/// # Safety
/// The unit's blocks hold every token that its rows see; `work` is as large as [`Work::floats`] says.
#[inline(always)]
pub(super) unsafe fn compute<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    span: usize,
    work: &mut Work<'_>,
) {
    let (begin, end) = (span * SPAN, (span + 1) * SPAN);
    // What the unit sees of this span, relative to its beginning.
    let from = sight.range(0).0.clamp(begin, end) - begin;
    let to = sight.range(sight.unit.rows - 1).1.clamp(begin, end) - begin;
    if from >= to {
        work.max.fill(f32::NEG_INFINITY);
        return;
    }
    // SAFETY: the caller's promise; the range lies inside the span and inside the blocks.
    unsafe {
        scores::<L, E>(sight, begin, (from, to), work);
        for row in 0..sight.unit.rows {
            let (first, last) = sight.range(row);
            let seen = (first.clamp(begin, end) - begin, last.clamp(begin, end) - begin);
            for g in 0..sight.unit.group {
                weights::<L>(row * sight.unit.group + g, (from, to), seen, sight, work);
            }
        }
        weighted_values::<L, E>(sight, begin, (from, to), work);
    }
}

/// First vector and size of pass `i` of `count`, which share `vectors` as evenly as can be.
///
/// A function and loops, not closures: a closure is compiled without the features of the function
/// around it unless it happens to be inlined, and then every vector operation in it is a call.
#[inline(always)]
fn pass(vectors: usize, count: usize, i: usize) -> (usize, usize) {
    let (size, longer) = (vectors / count, vectors % count);
    (i * size + i.min(longer), size + usize::from(i < longer))
}

/// `acc[m] += sum over i of a[m][i] * b[i]`, where `b[i]` is sixteen elements.
///
/// # Safety
/// `a` is readable for `M` rows of stride `a_stride` and `k` floats each, `b` for `k` rows of stride
/// `b_stride` and 16 elements each.
#[inline(always)]
unsafe fn multiply<L: Lanes, E: Element, const M: usize>(
    (a, a_stride): (*const f32, usize),
    (b, b_stride): (*const E, usize),
    k: usize,
    acc: &mut [L; M],
) {
    for i in 0..k {
        // SAFETY: the caller's promise.
        unsafe {
            let row = E::load::<L>(b.add(i * b_stride));
            for (m, acc) in acc.iter_mut().enumerate() {
                *acc = L::splat(*a.add(m * a_stride + i)).mul_add(row, *acc);
            }
        }
    }
}

/// Runs `$body` with the constant `M` equal to `$n`, which is in `1..=8`.
macro_rules! with_const {
    ($n:expr, $M:ident, $body:expr) => {
        with_const!(@match $n, $M, $body, 1 2 3 4 5 6 7)
    };
    (@match $n:expr, $M:ident, $body:expr, $($value:literal)*) => {
        match $n {
            $($value => {
                const $M: usize = $value;
                $body
            })*
            _ => {
                const $M: usize = 8;
                $body
            }
        }
    };
}

/// `scores[v][t] = q[v] . k[t]` for the tiles of sixteen tokens that touch `from..to`.
#[inline(always)]
unsafe fn scores<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    begin: usize,
    (from, to): (usize, usize),
    work: &mut Work<'_>,
) {
    let d = sight.view.head_dim;
    let vectors = work.vectors;
    for tile in from / LANES..to.div_ceil(LANES) {
        let token = begin + tile * LANES;
        let block = sight.unit.blocks[token / BLOCK_TOKENS];
        let half = token % BLOCK_TOKENS / LANES;
        let (q, out) = (work.queries.as_ptr(), work.scores.as_mut_ptr());
        // SAFETY: `half` is 0 or 1; the strip holds `d` or `SPAN` rows, whichever is more.
        unsafe {
            let keys = sight.view.keys(block, sight.unit.kv_head).add(half * d * LANES);
            if vectors > L::PASS {
                widen::<L, E>((keys, LANES), d, work.strip.as_mut_ptr());
                let strip = work.strip.as_ptr();
                let count = vectors.div_ceil(L::PASS);
                for (v, n) in (0..count).map(|i| pass(vectors, count, i)) {
                    let (q, out) = (q.add(v * d), out.add(v * SPAN + tile * LANES));
                    with_const!(n, M, one_tile::<L, f32, M>((q, d), strip, out));
                }
            } else {
                with_const!(vectors, M, one_tile::<L, E, M>((q, d), keys, out.add(tile * LANES)));
            }
        }
    }
}

/// Scores of `M` query vectors against one tile of sixteen keys.
#[inline(always)]
unsafe fn one_tile<L: Lanes, E: Element, const M: usize>(
    (q, d): (*const f32, usize),
    keys: *const E,
    out: *mut f32,
) {
    let mut acc = [L::splat(0.0); M];
    // SAFETY: the callers' promise: M vectors of d floats, a tile of d rows, M rows of scores.
    unsafe {
        multiply::<L, E, M>((q, d), (keys, LANES), d, &mut acc);
        for (m, acc) in acc.into_iter().enumerate() {
            acc.store(out.add(m * SPAN));
        }
    }
}

/// Copies `rows` rows of sixteen elements, `stride` apart, to floats side by side.
#[inline(always)]
unsafe fn widen<L: Lanes, E: Element>(
    (from, stride): (*const E, usize),
    rows: usize,
    to: *mut f32,
) {
    for i in 0..rows {
        // SAFETY: the callers' promise.
        unsafe { E::load::<L>(from.add(i * stride)).store(to.add(i * LANES)) };
    }
}

/// Turns the scores of one vector into `exp(score - max)`, zero outside `seen`, over `from..to`.
#[inline(always)]
unsafe fn weights<L: Lanes>(
    vector: usize,
    (from, to): (usize, usize),
    seen: (usize, usize),
    sight: &Sight<'_, impl Element>,
    work: &mut Work<'_>,
) {
    let row = &mut work.scores[vector * SPAN..(vector + 1) * SPAN];
    let tiles = from / LANES..to.div_ceil(LANES);
    if seen.0 >= seen.1 {
        row[from..to].fill(0.0);
        work.max[vector] = f32::NEG_INFINITY;
        work.sum[vector] = 0.0;
        return;
    }
    let p = row.as_mut_ptr();
    let mut most = L::splat(f32::NEG_INFINITY);
    for tile in tiles.clone() {
        let at = tile * LANES;
        // SAFETY: `at + 16 <= SPAN`.
        unsafe {
            let mut s = L::load(p.add(at));
            if let Some(cap) = sight.attention.softcap {
                s = soft_cap(s, cap);
            }
            if at < seen.0 || at + LANES > seen.1 {
                let keep = (seen.0.clamp(at, at + LANES) - at, seen.1.clamp(at, at + LANES) - at);
                s = s.keep(keep.0, keep.1, f32::NEG_INFINITY);
            }
            s.store(p.add(at));
            most = s.max(most);
        }
    }
    let max = most.largest();
    let shift = L::splat(max);
    let mut sum = L::splat(0.0);
    for tile in tiles {
        // SAFETY: as above.
        unsafe {
            let w = exp(L::load(p.add(tile * LANES)).sub(shift));
            w.store(p.add(tile * LANES));
            sum = sum.add(w);
        }
    }
    work.max[vector] = max;
    work.sum[vector] = sum.sum();
}

/// `values[v] = sum over t in from..to of weight[v][t] * value[t]`, sixteen columns at a time.
#[inline(always)]
unsafe fn weighted_values<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    begin: usize,
    (from, to): (usize, usize),
    work: &mut Work<'_>,
) {
    let d = sight.view.head_dim;
    let vectors = work.vectors;
    let weights = work.scores.as_ptr();
    let out = work.values.as_mut_ptr();
    let source = Values { sight, begin, to };
    for column in (0..d).step_by(LANES) {
        // SAFETY: columns lie inside the rows of values; the strip holds SPAN rows of sixteen.
        unsafe {
            if vectors > L::PASS {
                let strip = work.strip.as_mut_ptr();
                let mut at = from;
                while at < to {
                    let (values, n) = source.piece(at, column);
                    widen::<L, E>((values, d), n, strip.add((at - from) * LANES));
                    at += n;
                }
                let count = vectors.div_ceil(L::PASS);
                for (v, n) in (0..count).map(|i| pass(vectors, count, i)) {
                    let (w, out) = (weights.add(v * SPAN + from), out.add(v * d + column));
                    with_const!(n, M, {
                        let mut acc = [L::splat(0.0); M];
                        multiply::<L, f32, M>((w, SPAN), (strip, LANES), to - from, &mut acc);
                        store_columns(acc, out, d);
                    });
                }
            } else {
                with_const!(vectors, M, {
                    let mut acc = [L::splat(0.0); M];
                    let mut at = from;
                    while at < to {
                        let (values, n) = source.piece(at, column);
                        multiply::<L, E, M>((weights.add(at), SPAN), (values, d), n, &mut acc);
                        at += n;
                    }
                    store_columns(acc, out.add(column), d);
                });
            }
        }
    }
}

#[inline(always)]
unsafe fn store_columns<L: Lanes, const M: usize>(acc: [L; M], out: *mut f32, stride: usize) {
    for (m, acc) in acc.into_iter().enumerate() {
        // SAFETY: the caller's promise: M rows of this stride, 16 floats each.
        unsafe { acc.store(out.add(m * stride)) };
    }
}

/// The values of a span, block by block.
struct Values<'a, 'b, E> {
    sight: &'a Sight<'b, E>,
    begin: usize,
    to: usize,
}

impl<E: Element> Values<'_, '_, E> {
    /// The values of token `at` of the span, from this column on, and how many tokens are left in
    /// its block.
    #[inline(always)]
    fn piece(&self, at: usize, column: usize) -> (*const E, usize) {
        let (view, unit) = (&self.sight.view, &self.sight.unit);
        let slot = (self.begin + at) % BLOCK_TOKENS;
        let block = unit.blocks[(self.begin + at) / BLOCK_TOKENS];
        // SAFETY: slot < 32 and column < head_dim stay inside the block's values.
        let values = unsafe { view.values(block, unit.kv_head).add(slot * view.head_dim + column) };
        (values, (BLOCK_TOKENS - slot).min(self.to - at))
    }
}
