//! Scores, weights and weighted values of one span of tokens, for the query vectors of one unit.
//!
//! A query vector is one head of one row. Its numbers depend on its own position and on the span's
//! place in the sequence, never on the vectors computed beside it: sums run over k in one order, a
//! token outside its sight has weight zero, and zero times a (finite) value adds nothing.

use super::super::kv::{Element, LayerView};
use super::super::lanes::{LANES, Lanes, exp_down};
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

/// Runs `$body` with the constant `M` equal to `$n`, which is one of the values.
macro_rules! with_const {
    ($n:expr, $M:ident in $($value:literal)*, $body:expr) => {
        match $n {
            $($value => {
                const $M: usize = $value;
                $body
            })*
            _ => {}
        }
    };
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
        work.sum.fill(0.0);
        return;
    }
    // SAFETY: the caller's promise; the range lies inside the span and inside the blocks.
    unsafe {
        scores::<L, E>(sight, begin, (from, to), work);
        for row in 0..sight.unit.rows {
            let (first, last) = sight.range(row);
            let seen = (first.clamp(begin, end) - begin, last.clamp(begin, end) - begin);
            // The heads of a row see the same.
            let (group, passes) = (sight.unit.group, sight.unit.group.div_ceil(4));
            for (head, n) in (0..passes).map(|i| pass(group, passes, i)) {
                let vector = row * group + head;
                let softcap = sight.attention.softcap;
                with_const!(n, M in 1 2 3 4, weights::<L, M>(vector, (from, to), seen, softcap, work));
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

/// Rows of tiles of sixteen elements, and the distances from row to row and from tile to tile.
#[derive(Clone, Copy)]
struct Tiles<E> {
    at: *const E,
    row: usize,
    tile: usize,
    count: usize,
}

/// `out[v][t] = sum over i of a[v][i] * b[i][t]`, where `b[i][t]` is a tile, added to what is in `out` unless it is to be `fresh`.
/// The sum runs over i in order, whatever is computed beside it.
///
/// # Safety
/// `a` is readable for `vectors` rows of its stride and `k` floats each, `b` for `k` rows of its tiles; `out` is writable for
/// `vectors` rows of its stride and all tiles.
#[inline(always)]
unsafe fn product<L: Lanes, E: Element>(
    vectors: usize,
    (a, a_stride): (*const f32, usize),
    (b, k): (Tiles<E>, usize),
    (out, out_stride): (*mut f32, usize),
    fresh: bool,
) {
    let passes = vectors.div_ceil(L::PASS);
    for (v, n) in (0..passes).map(|i| pass(vectors, passes, i)) {
        // SAFETY: the caller's promise; passes share the vectors.
        unsafe {
            let a = (a.add(v * a_stride), a_stride);
            let out = (out.add(v * out_stride), out_stride);
            with_const!(n, M in 1 2 3 4 5 6 7 8, rows_of_product::<L, E, M>(a, (b, k), out, fresh));
        }
    }
}

/// [`product`] for `M` vectors: as many tiles at once as there are registers for their sums.
#[inline(always)]
unsafe fn rows_of_product<L: Lanes, E: Element, const M: usize>(
    a: (*const f32, usize),
    (mut b, k): (Tiles<E>, usize),
    (mut out, out_stride): (*mut f32, usize),
    fresh: bool,
) {
    while b.count > 0 {
        // SAFETY: the callers' promise.
        unsafe {
            let done = if b.count >= 4 && 4 * M <= L::SUMS {
                multiply::<L, E, M, 4>(a, (b, k), (out, out_stride), fresh);
                4
            } else if b.count >= 2 && 2 * M <= L::SUMS {
                multiply::<L, E, M, 2>(a, (b, k), (out, out_stride), fresh);
                2
            } else {
                multiply::<L, E, M, 1>(a, (b, k), (out, out_stride), fresh);
                1
            };
            (b.at, b.count, out) = (b.at.add(done * b.tile), b.count - done, out.add(done * LANES));
        }
    }
}

/// [`product`] for `M` vectors and `T` tiles, whose sums stay in registers: each element of `a` serves `T` of them, each
/// of `b` serves `M`, and none waits for the one before it.
#[inline(always)]
unsafe fn multiply<L: Lanes, E: Element, const M: usize, const T: usize>(
    (a, a_stride): (*const f32, usize),
    (b, k): (Tiles<E>, usize),
    (out, out_stride): (*mut f32, usize),
    fresh: bool,
) {
    let mut sums = [[L::splat(0.0); T]; M];
    // SAFETY: the callers' promise.
    unsafe {
        if !fresh {
            for (m, sums) in sums.iter_mut().enumerate() {
                for (t, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(out.add(m * out_stride + t * LANES));
                }
            }
        }
        for i in 0..k {
            let mut row = [L::splat(0.0); T];
            for (t, tile) in row.iter_mut().enumerate() {
                *tile = E::load::<L>(b.at.add(i * b.row + t * b.tile));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = L::splat(*a.add(m * a_stride + i));
                for (tile, sum) in row.iter().zip(sums) {
                    *sum = a.mul_add(*tile, *sum);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (t, sum) in sums.into_iter().enumerate() {
                sum.store(out.add(m * out_stride + t * LANES));
            }
        }
    }
}

/// `scores[v][t] = q[v] . k[t]` for the tiles of sixteen tokens that touch `from..to`, block by block.
#[inline(always)]
unsafe fn scores<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    begin: usize,
    (from, to): (usize, usize),
    work: &mut Work<'_>,
) {
    const TILES: usize = BLOCK_TOKENS / LANES;
    let (d, vectors) = (sight.view.head_dim, work.vectors);
    let (mut tile, end) = (from / LANES, to.div_ceil(LANES));
    let queries = (work.queries.as_ptr(), d);
    while tile < end {
        let block = sight.unit.blocks[(begin / LANES + tile) / TILES];
        let count = (TILES - tile % TILES).min(end - tile);
        // SAFETY: the tiles lie inside the block's keys and the vectors' scores; the strip holds two of d rows.
        unsafe {
            let keys = sight.view.keys(block, sight.unit.kv_head).add(tile % TILES * d * LANES);
            let out = (work.scores.as_mut_ptr().add(tile * LANES), SPAN);
            if vectors > L::PASS {
                widen::<L, E>((keys, LANES), count * d, work.strip.as_mut_ptr());
                let keys = Tiles { at: work.strip.as_ptr(), row: LANES, tile: d * LANES, count };
                product::<L, f32>(vectors, queries, (keys, d), out, true);
            } else {
                let keys = Tiles { at: keys.cast_const(), row: LANES, tile: d * LANES, count };
                product::<L, E>(vectors, queries, (keys, d), out, true);
            }
        }
        tile += count;
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

/// Turns the scores of `M` vectors that see the same into `exp(score - max)`, zero outside `seen`, over `from..to`.
#[inline(always)]
unsafe fn weights<L: Lanes, const M: usize>(
    vector: usize,
    (from, to): (usize, usize),
    seen: (usize, usize),
    softcap: Option<f32>,
    work: &mut Work<'_>,
) {
    let scores = &mut work.scores[vector * SPAN..(vector + M) * SPAN];
    if seen.0 >= seen.1 {
        for m in 0..M {
            scores[m * SPAN..][from..to].fill(0.0);
        }
        work.max[vector..vector + M].fill(f32::NEG_INFINITY);
        work.sum[vector..vector + M].fill(0.0);
        return;
    }
    let p = scores.as_mut_ptr();
    let tiles = (from / LANES..to.div_ceil(LANES)).map(|tile| tile * LANES);
    let mut most = [L::splat(f32::NEG_INFINITY); M];
    for at in tiles.clone() {
        let keep = (seen.0.clamp(at, at + LANES) - at, seen.1.clamp(at, at + LANES) - at);
        for (m, most) in most.iter_mut().enumerate() {
            // SAFETY: `at + 16 <= SPAN`.
            unsafe {
                let p = p.add(m * SPAN + at);
                let mut s = L::load(p);
                if let Some(cap) = softcap {
                    s = soft_cap(s, cap);
                }
                if keep != (0, LANES) {
                    s = s.keep(keep.0, keep.1, f32::NEG_INFINITY);
                }
                if softcap.is_some() || keep != (0, LANES) {
                    s.store(p);
                }
                *most = s.max(*most);
            }
        }
    }
    let max = most.map(L::largest);
    let mut sum = [L::splat(0.0); M];
    for at in tiles {
        for (m, sum) in sum.iter_mut().enumerate() {
            // SAFETY: as above.
            unsafe {
                let p = p.add(m * SPAN + at);
                let w = exp_down(L::load(p).sub(L::splat(max[m])));
                w.store(p);
                *sum = sum.add(w);
            }
        }
    }
    work.max[vector..vector + M].copy_from_slice(&max);
    work.sum[vector..vector + M].copy_from_slice(&sum.map(L::sum));
}

/// `values[v] = sum over t in from..to of weight[v][t] * value[t]`
#[inline(always)]
unsafe fn weighted_values<L: Lanes, E: Element>(
    sight: &Sight<'_, E>,
    begin: usize,
    (from, to): (usize, usize),
    work: &mut Work<'_>,
) {
    let (d, vectors) = (sight.view.head_dim, work.vectors);
    let source = Values { sight, begin, to };
    let (weights, out) = (work.scores.as_ptr(), work.values.as_mut_ptr());
    // SAFETY: the callers' promise; the strip holds two tiles of SPAN rows.
    unsafe {
        if vectors <= L::PASS {
            let mut at = from;
            while at < to {
                let (values, n) = source.piece(at, 0);
                let values = Tiles { at: values, row: d, tile: LANES, count: d / LANES };
                let weights = (weights.add(at), SPAN);
                product::<L, E>(vectors, weights, (values, n), (out, d), at == from);
                at += n;
            }
            return;
        }
        for column in (0..d).step_by(2 * LANES) {
            let count = (d - column).min(2 * LANES) / LANES;
            let strip = work.strip.as_mut_ptr();
            let mut at = from;
            while at < to {
                let (values, n) = source.piece(at, column);
                for t in 0..count {
                    let strip = strip.add((t * SPAN + at - from) * LANES);
                    widen::<L, E>((values.add(t * LANES), d), n, strip);
                }
                at += n;
            }
            let values = Tiles { at: strip.cast_const(), row: LANES, tile: SPAN * LANES, count };
            let weights = (weights.add(from), SPAN);
            product::<L, f32>(vectors, weights, (values, to - from), (out.add(column), d), true);
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
