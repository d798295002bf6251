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

/// `acc[m][t] += sum over i of a[m][i] * b[i][t]`, where `b[i][t]` is sixteen elements.
///
/// `T` of them at once share each broadcast of `a`, and are chains of their own: a single one would
/// wait for its last sum in every step.
///
/// # Safety
/// `a` is readable for `M` rows of stride `a_stride` and `k` floats each, `b` for `k` rows of stride
/// `b_stride` and `T` times 16 elements, `b_tile` apart.
#[inline(always)]
unsafe fn multiply<L: Lanes, E: Element, const M: usize, const T: usize>(
    (a, a_stride): (*const f32, usize),
    (b, b_stride, b_tile): (*const E, usize, usize),
    k: usize,
    acc: &mut [[L; T]; M],
) {
    for i in 0..k {
        // SAFETY: the caller's promise.
        unsafe {
            let mut row = [L::splat(0.0); T];
            for (t, row) in row.iter_mut().enumerate() {
                *row = E::load::<L>(b.add(i * b_stride + t * b_tile));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let a = L::splat(*a.add(m * a_stride + i));
                for (t, acc) in acc.iter_mut().enumerate() {
                    *acc = a.mul_add(row[t], *acc);
                }
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

/// `out[v][t] = sum over i of a[v][i] * strip[t][i]` for `T` tiles of a strip, each of `tile_rows`
/// rows of sixteen floats, and any number of vectors, as many at once as registers hold.
///
/// # Safety
/// `a` is readable for `vectors` rows of its stride and `k` floats each, `k <= tile_rows`; `out` is
/// writable for as many rows of its stride and `T` times 16 floats.
#[inline(always)]
unsafe fn multiply_strip<L: Lanes, const T: usize>(
    vectors: usize,
    (a, a_stride): (*const f32, usize),
    (strip, tile_rows): (*const f32, usize),
    k: usize,
    (out, out_stride): (*mut f32, usize),
) {
    let count = vectors.div_ceil(L::PASS);
    for (v, n) in (0..count).map(|i| pass(vectors, count, i)) {
        // SAFETY: the caller's promise; passes share the vectors.
        unsafe {
            let (a, out) = (a.add(v * a_stride), out.add(v * out_stride));
            with_const!(n, M, {
                let mut acc = [[L::splat(0.0); T]; M];
                let strip = (strip, LANES, tile_rows * LANES);
                multiply::<L, f32, M, T>((a, a_stride), strip, k, &mut acc);
                store_columns(acc, out, out_stride);
            });
        }
    }
}

/// `scores[v][t] = q[v] . k[t]` for the tiles of sixteen tokens that touch `from..to`, both tiles of
/// a block at once.
#[inline(always)]
unsafe fn scores<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    begin: usize,
    (from, to): (usize, usize),
    work: &mut Work<'_>,
) {
    let d = sight.view.head_dim;
    let mut tile = from / LANES;
    while tile < to.div_ceil(LANES) {
        let token = begin + tile * LANES;
        let block = sight.unit.blocks[token / BLOCK_TOKENS];
        let half = token % BLOCK_TOKENS / LANES;
        // SAFETY: `half` is 0 or 1; the strip holds two tiles of `d` rows.
        unsafe {
            let keys = sight.view.keys(block, sight.unit.kv_head).add(half * d * LANES);
            if work.vectors > L::PASS && half == 0 && tile + 1 < to.div_ceil(LANES) {
                tiles_of_scores::<L, E, 2>(keys, d, tile, work);
                tile += 2;
            } else {
                tiles_of_scores::<L, E, 1>(keys, d, tile, work);
                tile += 1;
            }
        }
    }
}

/// Scores of all vectors against `T` tiles of sixteen keys, from tile number `tile` of the span on.
#[inline(always)]
unsafe fn tiles_of_scores<L: Lanes, E: Element, const T: usize>(
    keys: *const E,
    d: usize,
    tile: usize,
    work: &mut Work<'_>,
) {
    let vectors = work.vectors;
    let (q, out) = (work.queries.as_ptr(), work.scores.as_mut_ptr());
    // SAFETY: the callers' promise: T tiles of d rows, vectors of d floats, SPAN scores a vector.
    unsafe {
        let out = out.add(tile * LANES);
        if vectors > L::PASS {
            widen::<L, E>((keys, LANES), T * d, work.strip.as_mut_ptr());
            multiply_strip::<L, T>(vectors, (q, d), (work.strip.as_ptr(), d), d, (out, SPAN));
        } else {
            with_const!(vectors, M, {
                let mut acc = [[L::splat(0.0); T]; M];
                multiply::<L, E, M, T>((q, d), (keys, LANES, d * LANES), d, &mut acc);
                store_columns(acc, out, SPAN);
            });
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

/// `values[v] = sum over t in from..to of weight[v][t] * value[t]`, thirty-two columns at a time.
#[inline(always)]
unsafe fn weighted_values<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    begin: usize,
    (from, to): (usize, usize),
    work: &mut Work<'_>,
) {
    let d = sight.view.head_dim;
    let source = Values { sight, begin, to };
    let mut column = 0;
    while column < d {
        // SAFETY: `d` is a multiple of 16, so the columns lie inside the rows of values.
        unsafe {
            if work.vectors > L::PASS && column + 2 * LANES <= d {
                columns_of_values::<L, E, 2>(&source, column, from, work);
                column += 2 * LANES;
            } else {
                columns_of_values::<L, E, 1>(&source, column, from, work);
                column += LANES;
            }
        }
    }
}

/// `T` times sixteen columns of the weighted values of all vectors.
#[inline(always)]
unsafe fn columns_of_values<L: Lanes, E: Element, const T: usize>(
    source: &Values<'_, '_, E>,
    column: usize,
    from: usize,
    work: &mut Work<'_>,
) {
    let (d, to, vectors) = (source.sight.view.head_dim, source.to, work.vectors);
    let (weights, out) = (work.scores.as_ptr(), work.values.as_mut_ptr());
    // SAFETY: the callers' promise; the strip holds two tiles of SPAN rows.
    unsafe {
        if vectors > L::PASS {
            let strip = work.strip.as_mut_ptr();
            let mut at = from;
            while at < to {
                let (values, n) = source.piece(at, column);
                for t in 0..T {
                    let strip = strip.add((t * SPAN + at - from) * LANES);
                    widen::<L, E>((values.add(t * LANES), d), n, strip);
                }
                at += n;
            }
            let (weights, out) = ((weights.add(from), SPAN), (out.add(column), d));
            multiply_strip::<L, T>(vectors, weights, (strip, SPAN), to - from, out);
        } else {
            with_const!(vectors, M, {
                let mut acc = [[L::splat(0.0); T]; M];
                let mut at = from;
                while at < to {
                    let (values, n) = source.piece(at, column);
                    let values = (values, d, LANES);
                    multiply::<L, E, M, T>((weights.add(at), SPAN), values, n, &mut acc);
                    at += n;
                }
                store_columns(acc, out.add(column), d);
            });
        }
    }
}

/// Writes `M` rows of this stride, `T` times sixteen floats each.
#[inline(always)]
unsafe fn store_columns<L: Lanes, const M: usize, const T: usize>(
    acc: [[L; T]; M],
    out: *mut f32,
    stride: usize,
) {
    for (m, acc) in acc.into_iter().enumerate() {
        for (t, acc) in acc.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { acc.store(out.add(m * stride + t * LANES)) };
        }
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
