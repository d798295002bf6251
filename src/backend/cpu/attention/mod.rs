//! Paged attention: causal, grouped queries, sliding windows, over the cache of [`super::kv`].
//!
//! A unit is a few rows of one sequence with all query heads that share one kv head. Tokens are taken
//! in spans of [`SPAN`], which begin at multiples of it whoever asks; the spans of a row are merged
//! first to last. A unit may do all its spans, or, where there are too few units for the threads, one
//! span only, with the merge afterwards: the operations, and so the bits, are the same.

mod span;
#[cfg(test)]
mod tests;

use super::kv::{Element, LayerView};
use super::lanes::{LANES, Lanes, exp_down};
use super::vocab::exp;
use crate::backend::{Attention, BlockId};
use span::Sight;

/// Tokens in a span: the weights of a unit's vectors stay in the first cache, and long sequences
/// make enough spans for all threads.
pub(super) const SPAN: usize = 256;

/// Query vectors that a unit of several rows aims at: enough to pay for widening keys and values
/// once, few enough to stay in the second cache.
const VECTORS: usize = 60;

/// Rows of one sequence in a unit, when `group` heads share a kv head.
pub(super) fn rows_in_unit(group: usize) -> usize {
    (VECTORS / group).max(1)
}

/// A few rows of one sequence, and the kv head whose query heads are computed for them.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    /// Of the first row, in its sequence.
    pub(super) position: usize,
    pub(super) rows: usize,
    pub(super) blocks: &'a [BlockId],
    pub(super) kv_head: usize,
    /// Query heads a kv head.
    pub(super) group: usize,
    /// A further score of each of those heads, which has no value; empty: there are none.
    pub(super) sinks: &'a [f32],
}

/// Where a unit's queries are and where its result goes: both at the first row and the first head of
/// the group, with the distance from row to row.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) queries: *const f32,
    pub(super) query_stride: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

/// Scratch of one thread.
pub(super) struct Work<'a> {
    vectors: usize,
    /// `[vectors][d]`, scaled.
    queries: &'a mut [f32],
    /// `[vectors][SPAN]`: scores, then weights.
    scores: &'a mut [f32],
    /// Twice sixteen columns of keys or values, widened.
    strip: &'a mut [f32],
    /// `[vectors][d]`, of one span.
    values: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// The merged spans so far.
    total: Partial<'a>,
}

/// A softmax that is not divided yet: values weighted by `exp(score - max)`, the sum of the weights.
struct Partial<'a> {
    values: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
}

impl<'a> Work<'a> {
    /// Floats of scratch that units of `rows_in_unit(group)` rows need.
    pub(super) fn floats(group: usize, d: usize) -> usize {
        let n = rows_in_unit(group) * group;
        n * (3 * d + SPAN) + 4 * n.next_multiple_of(LANES) + 2 * LANES * d.max(SPAN) + LANES
    }

    fn new(memory: &'a mut [f32], vectors: usize, d: usize) -> Self {
        // Whole cache lines: a load of one tile should touch one of them.
        let skip = memory.as_ptr().align_offset(4 * LANES);
        let mut rest = &mut memory[skip..];
        let lanes = vectors.next_multiple_of(LANES);
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(n);
            rest = tail;
            head
        };
        Self {
            vectors,
            strip: take(2 * LANES * d.max(SPAN)),
            queries: take(vectors * d),
            scores: take(vectors * SPAN),
            values: take(vectors * d),
            max: take(lanes),
            sum: take(lanes),
            total: Partial { values: take(vectors * d), max: take(lanes), sum: take(lanes) },
        }
    }
}

/// Floats of a span's partial result for `vectors` query vectors.
pub(super) fn partial_floats(vectors: usize, d: usize) -> usize {
    vectors * d + 2 * vectors.next_multiple_of(LANES)
}

fn partial(memory: &mut [f32], vectors: usize, d: usize) -> Partial<'_> {
    let (values, rest) = memory.split_at_mut(vectors * d);
    let (max, sum) = rest.split_at_mut(vectors.next_multiple_of(LANES));
    Partial { values, max, sum }
}

/// Spans that a unit's rows see.
pub(super) fn spans(unit: &Unit<'_>, window: Option<usize>) -> std::ops::Range<usize> {
    let first = window.map_or(0, |w| (unit.position + 1).saturating_sub(w));
    first / SPAN..(unit.position + unit.rows).div_ceil(SPAN)
}

/// Computes a unit from its queries to its result.
///
/// # Safety
/// The unit's blocks hold every token that its rows see, and `rows` points at that many rows.
#[inline(always)]
pub(super) unsafe fn whole<L: Lanes, E: Element>(
    view: LayerView<'_, E>,
    attention: Attention,
    unit: Unit<'_>,
    rows: Rows,
    memory: &mut [f32],
) {
    let d = view.head_dim;
    let vectors = unit.rows * unit.group;
    let mut work = Work::new(memory, vectors, d);
    // SAFETY: the caller's promise.
    unsafe { load_queries::<L>(&unit, rows, attention.scale, &mut work, d) };
    let sight = Sight { view, unit, attention };
    clear(&mut work.total);
    for span in spans(&unit, attention.window) {
        // SAFETY: the caller's promise.
        unsafe { span::compute::<L, E>(&sight, span, &mut work) };
        merge::<L>(&mut work.total, (work.values, work.max, work.sum), d);
    }
    // SAFETY: the caller's promise.
    unsafe { divide::<L>(&unit, &work.total, rows, d) };
}

/// Computes one span of a unit into `out`, which is [`partial_floats`] long.
///
/// # Safety
/// As for [`whole`].
#[inline(always)]
pub(super) unsafe fn one_span<L: Lanes, E: Element>(
    sight: (LayerView<'_, E>, Attention, Unit<'_>),
    rows: Rows,
    span: usize,
    memory: &mut [f32],
    out: &mut [f32],
) {
    let (view, attention, unit) = sight;
    let d = view.head_dim;
    let vectors = unit.rows * unit.group;
    let mut work = Work::new(memory, vectors, d);
    let out = partial(out, vectors, d);
    (work.values, work.max, work.sum) = (out.values, out.max, out.sum);
    // SAFETY: the caller's promise.
    unsafe {
        load_queries::<L>(&unit, rows, attention.scale, &mut work, d);
        span::compute::<L, E>(&Sight { view, unit, attention }, span, &mut work);
    }
}

/// Merges what [`one_span`] left for the spans of a unit, in their order, into its result.
///
/// # Safety
/// `rows.out` points at the unit's rows.
#[inline(always)]
pub(super) unsafe fn join<L: Lanes>(
    unit: Unit<'_>,
    d: usize,
    partials: &mut [f32],
    rows: Rows,
    memory: &mut [f32],
) {
    let vectors = unit.rows * unit.group;
    let mut work = Work::new(memory, vectors, d);
    clear(&mut work.total);
    for one in partials.chunks_exact_mut(partial_floats(vectors, d)) {
        let one = partial(one, vectors, d);
        merge::<L>(&mut work.total, (one.values, one.max, one.sum), d);
    }
    // SAFETY: the caller's promise.
    unsafe { divide::<L>(&unit, &work.total, rows, d) };
}

/// Copies the queries side by side, times the scale.
#[inline(always)]
unsafe fn load_queries<L: Lanes>(
    unit: &Unit<'_>,
    rows: Rows,
    scale: f32,
    work: &mut Work<'_>,
    d: usize,
) {
    let scale = L::splat(scale);
    let width = unit.group * d;
    for row in 0..unit.rows {
        for i in (0..width).step_by(LANES) {
            // SAFETY: the caller's promise; `width` is a multiple of 16.
            unsafe {
                let q = L::load(rows.queries.add(row * rows.query_stride + i));
                q.mul(scale).store(work.queries.as_mut_ptr().add(row * width + i));
            }
        }
    }
}

fn clear(total: &mut Partial<'_>) {
    total.values.fill(0.0);
    total.max.fill(f32::NEG_INFINITY);
    total.sum.fill(0.0);
}

/// Adds one span to what came before it.
#[inline(always)]
fn merge<L: Lanes>(total: &mut Partial<'_>, span: (&[f32], &[f32], &[f32]), d: usize) {
    let (values, max, sum) = span;
    let vectors = values.len() / d;
    for begin in (0..vectors).step_by(LANES) {
        let (shrink, weight) = merge_sums::<L>(total, (max, sum), begin);
        for v in begin..vectors.min(begin + LANES) {
            if max[v] == f32::NEG_INFINITY {
                continue;
            }
            let (shrink, weight) = (L::splat(shrink[v - begin]), L::splat(weight[v - begin]));
            let (to, from) = (&mut total.values[v * d..(v + 1) * d], &values[v * d..(v + 1) * d]);
            for i in (0..d).step_by(LANES) {
                // SAFETY: both slices are d long, a multiple of 16.
                unsafe {
                    let new = L::load(from.as_ptr().add(i)).mul(weight);
                    let to = to.as_mut_ptr().add(i);
                    L::load(to).mul_add(shrink, new).store(to);
                }
            }
        }
    }
}

/// Merges the largest scores and the sums of sixteen vectors from `begin` on, and tells what to multiply the values by: those
/// from before, and those of the span.
#[inline(always)]
fn merge_sums<L: Lanes>(
    total: &mut Partial<'_>,
    (max, sum): (&[f32], &[f32]),
    begin: usize,
) -> ([f32; LANES], [f32; LANES]) {
    let lanes = begin..begin + LANES;
    let (max, sum) = (&max[lanes.clone()], &sum[lanes.clone()]);
    let (total_max, total_sum) = (&mut total.max[lanes.clone()], &mut total.sum[lanes]);
    // SAFETY: all four are sixteen long.
    unsafe {
        let (before, new) = (L::load(total_max.as_ptr()), L::load(max.as_ptr()));
        let after = before.max(new);
        after.store(total_max.as_mut_ptr());
        // Finite even where a vector has seen nothing yet.
        let after = after.max(L::splat(f32::MIN));
        let (shrink, weight) = (exp_down(before.sub(after)), exp_down(new.sub(after)));
        let new = L::load(sum.as_ptr()).mul(weight);
        L::load(total_sum.as_ptr()).mul_add(shrink, new).store(total_sum.as_mut_ptr());
        (shrink.to_array(), weight.to_array())
    }
}

/// What values that were weighted by `exp(score - max)` are multiplied by, where a sink takes its share.
fn with_sink(sink: f32, max: f32, sum: f32) -> f32 {
    let highest = if sink > max { sink } else { max };
    let weight = exp(max - highest);
    weight / (sum * weight + exp(sink - highest))
}

/// Divides by the sum of the weights and writes the rows.
#[inline(always)]
unsafe fn divide<L: Lanes>(unit: &Unit<'_>, total: &Partial<'_>, rows: Rows, d: usize) {
    for v in 0..unit.rows * unit.group {
        let (row, head) = (v / unit.group, v % unit.group);
        let scale = L::splat(match unit.sinks.get(head) {
            Some(&sink) => with_sink(sink, total.max[v], total.sum[v]),
            None => 1.0 / total.sum[v],
        });
        for i in (0..d).step_by(LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let x = L::load(total.values.as_ptr().add(v * d + i)).mul(scale);
                x.store(rows.out.add(row * rows.out_stride + head * d + i));
            }
        }
    }
}
