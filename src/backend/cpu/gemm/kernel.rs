//! The inner loops, once for all tiers: some activation rows times one panel of 16 outputs.
//!
//! For each (row, output) the order of float operations over k is fixed: tile by tile, `acc = dot * (d * scale) + acc`, then with a
//! minimum `acc = m * scaled_sum + acc`; where both are for 16 k, dots come before minima. It depends neither on how many rows are computed together nor on the tier.

use half::f16;

use super::super::act::{self, GroupMeta};
use super::super::lanes::Floats;
use super::super::pack::{LevelBytes, PANEL};
use super::super::quant::GROUP;
use super::simd::Simd;

/// One panel and the rows to multiply it with. Pointers are to the first row, and valid for `rows` of them.
pub(super) struct Job {
    pub(super) tiles: usize,
    pub(super) lines: *const u8,
    pub(super) scales: *const f16,
    /// For tiles of codes: what they stand for.
    pub(super) levels: LevelBytes,
    /// Values in a row of activations.
    pub(super) cols: usize,
    pub(super) q: *const i8,
    pub(super) meta: *const GroupMeta,
    /// Quantised rows in a block.
    pub(super) height: usize,
    /// Float activations, for float panels only.
    pub(super) x: *const f32,
    pub(super) x_stride: usize,
    pub(super) rows: usize,
    /// Terms that each quantised row is the sum of; those of one order are side by side: `[terms][rows]`.
    pub(super) terms: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    /// The product is added to what `out` holds.
    pub(super) add: bool,
    /// What is added to each output, as many as are valid; null: nothing.
    pub(super) bias: *const f32,
    /// Outputs of this panel that exist: 16 but for the last one.
    pub(super) valid: usize,
}

/// A kind of tile, and how one of its rows is added to an accumulator.
pub(super) trait Tile {
    const LINES: usize;
    const SCALE_SETS: usize;
    type Weights<S: Simd>: Copy;

    /// # Safety
    /// As [`Simd`]; `lines` points at lane group `part` of a tile, `scales` at its scales.
    unsafe fn load<S: Simd>(
        lines: *const u8,
        scales: *const f16,
        part: usize,
        levels: &LevelBytes,
    ) -> Self::Weights<S>;
    /// # Safety
    /// As [`Simd`]; `a` is readable for 32 bytes.
    unsafe fn add<S: Simd>(w: &Self::Weights<S>, a: *const i8, meta: &GroupMeta, acc: S::F)
    -> S::F;
}

/// Integers of 32 k, the scales, and (with a minimum, or per 16) the second set.
type Loaded<S> = ([<S as Simd>::W; 8], <S as Simd>::F, <S as Simd>::F);

/// Tiles of one scale a group: `BITS` 4, 5 or 8; `ZERO` stands for zero; `MIN` adds a minimum.
pub(super) enum Single<const BITS: u32, const ZERO: i32, const MIN: bool> {}

/// Tiles of codes of 4 bits that stand for 8, with one scale a group.
pub(super) enum Levels {}

/// Tiles of 6 bits with a scale for each 16 k.
pub(super) enum Six {}

/// Tiles of 4 bits with a scale for each 16 k: `ZERO` stands for zero; `MIN` adds a minimum for each 16, too.
pub(super) enum FourBy16<const ZERO: i32, const MIN: bool> {}

/// # Safety
/// As [`Tile::load`].
#[inline(always)]
unsafe fn load_bytes<S: Simd>(lines: *const u8) -> [S::W; 8] {
    // SAFETY: a tile of bytes has eight lines.
    std::array::from_fn(|j| unsafe { S::bytes(lines.add(64 * j)) })
}

/// # Safety
/// As [`Tile::load`].
#[inline(always)]
unsafe fn load_nibbles<S: Simd>(lines: *const u8) -> [S::W; 8] {
    // SAFETY: a tile of nibbles has at least four lines. A loop: a closure that is not inlined loses the tier's features.
    unsafe {
        let mut w = [S::nibbles(lines).0; 8];
        for j in 0..4 {
            (w[j], w[4 + j]) = S::nibbles(lines.add(64 * j));
        }
        w
    }
}

impl<const BITS: u32, const ZERO: i32, const MIN: bool> Tile for Single<BITS, ZERO, MIN> {
    const LINES: usize = match BITS {
        4 => 4,
        5 => 5,
        _ => 8,
    };
    const SCALE_SETS: usize = 1 + MIN as usize;
    type Weights<S: Simd> = Loaded<S>;

    #[inline(always)]
    unsafe fn load<S: Simd>(
        lines: *const u8,
        scales: *const f16,
        part: usize,
        _: &LevelBytes,
    ) -> Loaded<S> {
        // SAFETY: the caller's promise; the fifth line holds eight u64 of fifth bits, `LANES / 2` bytes of each for this part.
        unsafe {
            let mut w = if BITS == 8 { load_bytes::<S>(lines) } else { load_nibbles::<S>(lines) };
            if BITS == 5 {
                let fifths = lines.sub(part * 4 * S::LANES).add(4 * 64 + part * S::LANES / 2);
                for (g, w) in w.iter_mut().enumerate() {
                    *w = S::with_fifth(*w, fifths.add(8 * g));
                }
            }
            let d = S::F::load_f16(scales);
            (w, d, if MIN { S::F::load_f16(scales.add(PANEL)) } else { d })
        }
    }

    #[inline(always)]
    unsafe fn add<S: Simd>(
        (w, d, m): &Loaded<S>,
        a: *const i8,
        meta: &GroupMeta,
        acc: S::F,
    ) -> S::F {
        // SAFETY: the caller's promise.
        unsafe {
            let zero_sum = if ZERO == 0 { 0 } else { ZERO * (meta.sums[0] + meta.sums[1]) };
            let dot = S::dot::<BITS, 8>(w, a, zero_sum);
            let acc = dot.mul_add(d.mul(S::F::splat(meta.scale)), acc);
            if MIN { m.mul_add(S::F::splat(meta.scaled_sum), acc) } else { acc }
        }
    }
}

impl Tile for Levels {
    const LINES: usize = 4;
    const SCALE_SETS: usize = 1;
    type Weights<S: Simd> = Loaded<S>;

    #[inline(always)]
    unsafe fn load<S: Simd>(
        lines: *const u8,
        scales: *const f16,
        _: usize,
        levels: &LevelBytes,
    ) -> Loaded<S> {
        // SAFETY: the caller's promise. A loop, as in `load_nibbles`.
        unsafe {
            let mut w = load_nibbles::<S>(lines);
            for w in &mut w {
                *w = S::look_up(*w, levels);
            }
            let d = S::F::load_f16(scales);
            (w, d, d)
        }
    }

    #[inline(always)]
    unsafe fn add<S: Simd>(w: &Loaded<S>, a: *const i8, meta: &GroupMeta, acc: S::F) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { Single::<8, 128, false>::add::<S>(w, a, meta, acc) }
    }
}

impl Tile for Six {
    const LINES: usize = 8;
    const SCALE_SETS: usize = 2;
    type Weights<S: Simd> = Loaded<S>;

    #[inline(always)]
    unsafe fn load<S: Simd>(
        lines: *const u8,
        scales: *const f16,
        _: usize,
        _: &LevelBytes,
    ) -> Loaded<S> {
        // SAFETY: the caller's promise.
        unsafe {
            (load_bytes::<S>(lines), S::F::load_f16(scales), S::F::load_f16(scales.add(PANEL)))
        }
    }

    #[inline(always)]
    unsafe fn add<S: Simd>(
        (w, d0, d1): &Loaded<S>,
        a: *const i8,
        meta: &GroupMeta,
        acc: S::F,
    ) -> S::F {
        // SAFETY: the caller's promise.
        unsafe {
            let low: &[S::W; 4] = &std::array::from_fn(|g| w[g]);
            let high: &[S::W; 4] = &std::array::from_fn(|g| w[4 + g]);
            let scale = S::F::splat(meta.scale);
            let dot = S::dot::<6, 4>(low, a, 32 * meta.sums[0]);
            let acc = dot.mul_add(d0.mul(scale), acc);
            let dot = S::dot::<6, 4>(high, a.add(16), 32 * meta.sums[1]);
            dot.mul_add(d1.mul(scale), acc)
        }
    }
}

impl<const ZERO: i32, const MIN: bool> Tile for FourBy16<ZERO, MIN> {
    const LINES: usize = 4;
    const SCALE_SETS: usize = 2 + 2 * MIN as usize;
    /// Integers, two scales, two minima.
    type Weights<S: Simd> = ([S::W; 8], [S::F; 4]);

    #[inline(always)]
    unsafe fn load<S: Simd>(
        lines: *const u8,
        scales: *const f16,
        _: usize,
        _: &LevelBytes,
    ) -> Self::Weights<S> {
        // SAFETY: the caller's promise.
        unsafe {
            let (d0, d1) = (S::F::load_f16(scales), S::F::load_f16(scales.add(PANEL)));
            let (m0, m1) = if MIN {
                (S::F::load_f16(scales.add(2 * PANEL)), S::F::load_f16(scales.add(3 * PANEL)))
            } else {
                (d0, d1)
            };
            (load_nibbles::<S>(lines), [d0, d1, m0, m1])
        }
    }

    #[inline(always)]
    unsafe fn add<S: Simd>(
        (w, [d0, d1, m0, m1]): &Self::Weights<S>,
        a: *const i8,
        meta: &GroupMeta,
        acc: S::F,
    ) -> S::F {
        // SAFETY: the caller's promise.
        unsafe {
            let [s0, s1] = meta.sums;
            let low: &[S::W; 4] = &std::array::from_fn(|g| w[g]);
            let high: &[S::W; 4] = &std::array::from_fn(|g| w[4 + g]);
            let scale = S::F::splat(meta.scale);
            let acc = S::dot::<4, 4>(low, a, ZERO * s0).mul_add(d0.mul(scale), acc);
            let acc = S::dot::<4, 4>(high, a.add(16), ZERO * s1).mul_add(d1.mul(scale), acc);
            if !MIN {
                return acc;
            }
            let acc = m0.mul_add(S::F::splat(meta.scale * s0 as f32), acc);
            m1.mul_add(S::F::splat(meta.scale * s1 as f32), acc)
        }
    }
}

/// Multiplies all rows of a job with a quantised panel, `M` rows at a time.
///
/// # Safety
/// As [`Simd`], with the job's pointers valid for what its numbers say.
#[inline(always)]
pub(super) unsafe fn quantized<S: Simd, T: Tile, const M: usize>(job: &Job) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut row = 0;
        let rows = job.rows * job.terms;
        while row + M <= rows {
            some_rows::<S, T, M>(job, row);
            row += M;
        }
        while M > 8 && row + 8 <= rows {
            some_rows::<S, T, 8>(job, row);
            row += 8;
        }
        while M > 4 && row + 4 <= rows {
            some_rows::<S, T, 4>(job, row);
            row += 4;
        }
        while M > 2 && row + 2 <= rows {
            some_rows::<S, T, 2>(job, row);
            row += 2;
        }
        while row < rows {
            some_rows::<S, T, 1>(job, row);
            row += 1;
        }
    }
}

/// Bytes between the tile that is multiplied and the one that is asked for: the arithmetic of many rows on a tile fills
/// the processor's window, so that it would not ask for the next one by itself in time.
const AHEAD: usize = 4096;

/// A hint that the cache line at `p` will be read soon; `p` may point anywhere.
#[inline(always)]
pub(in crate::backend::cpu) fn prefetch(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, of an instruction that every such processor has.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for a part of a tile that comes later, in this panel or the next.
#[inline(always)]
fn ahead<S: Simd, T: Tile>(lines: *const u8, scales: *const f16) {
    let tiles = AHEAD / (64 * T::LINES);
    for line in 0..T::LINES * S::LANES / PANEL {
        prefetch(lines.wrapping_add(64 * (tiles * T::LINES + line)));
    }
    prefetch(scales.wrapping_add(tiles * T::SCALE_SETS * PANEL).cast());
}

/// Writes out a loop over `M` rows: a loop that the compiler left one would keep its accumulators in memory.
macro_rules! for_each_row {
    ($M:ident, |$r:ident| $body:block) => {
        for_each_row!(@ $M, $r, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $M:ident, $r:ident, $body:block, $($row:literal)*) => {
        $(if $row < $M {
            let $r = $row;
            $body
        })*
    };
}

/// `M` rows of one block, from `row` on.
#[inline(always)]
unsafe fn some_rows<S: Simd, T: Tile, const M: usize>(job: &Job, row: usize) {
    let first = act::first_cell(row, job.cols / GROUP, job.height);
    for part in 0..PANEL / S::LANES {
        // SAFETY: the caller's promise: every tile, row and group read here is within the job.
        unsafe {
            let (mut q, mut meta) = (job.q.add(first * GROUP), job.meta.add(first));
            let mut acc = [S::F::splat(0.0); M];
            for t in 0..job.tiles {
                let lines = job.lines.add(t * T::LINES * 64 + part * 4 * S::LANES);
                let scales = job.scales.add(t * T::SCALE_SETS * PANEL + part * S::LANES);
                if row == 0 {
                    ahead::<S, T>(lines, scales);
                }
                let w = T::load::<S>(lines, scales, part, &job.levels);
                for_each_row!(M, |r| {
                    acc[r] = T::add::<S>(&w, q.add(r * GROUP), &*meta.add(r), acc[r]);
                });
                q = opaque(q.wrapping_add(job.height * GROUP));
                meta = opaque(meta.wrapping_add(job.height));
            }
            store::<S, M>(job, row, part, &acc);
        }
    }
}

/// The same pointer, which the compiler knows nothing about: it would make one index out of several pointers that walk
/// together, and operands with an index are slow (see [`act`]).
#[inline(always)]
#[cfg_attr(
    target_arch = "x86_64",
    expect(clippy::pointers_in_nomem_asm_block, reason = "nothing is read through it here")
)]
fn opaque<P>(p: *const P) -> *const P {
    #[cfg(target_arch = "x86_64")]
    {
        let mut p = p;
        // SAFETY: no instruction.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack)) };
        p
    }
    #[cfg(not(target_arch = "x86_64"))]
    p
}

/// Multiplies all rows of a job with a float panel; `weights` reads the 16 weights of one k from element `k * 16` on.
///
/// # Safety
/// As [`quantized`].
#[inline(always)]
pub(super) unsafe fn float<S: Simd>(job: &Job, weights: impl Fn(*const u8, usize) -> S::F) {
    for row in 0..job.rows {
        for part in 0..PANEL / S::LANES {
            // SAFETY: the caller's promise.
            unsafe {
                let mut acc = [S::F::splat(0.0)];
                for k in 0..job.cols {
                    let w = weights(job.lines, k * PANEL + part * S::LANES);
                    acc[0] = w.mul_add(S::F::splat(*job.x.add(row * job.x_stride + k)), acc[0]);
                }
                store::<S, 1>(job, row, part, &acc);
            }
        }
    }
}

#[inline(always)]
unsafe fn store<S: Simd, const M: usize>(job: &Job, row: usize, part: usize, acc: &[S::F; M]) {
    for (r, acc) in acc.iter().enumerate() {
        // SAFETY: the caller's promise: `valid` outputs of each row are writable.
        unsafe {
            let (row, add, bias) = match row + r {
                row if row < job.rows => (row, job.add, job.bias),
                // A further term of a row, whose first one is there already.
                term => (term % job.rows, true, std::ptr::null()),
            };
            let bias = if bias.is_null() { bias } else { bias.add(part * S::LANES) };
            let out = job.out.add(row * job.out_stride + part * S::LANES);
            if job.valid >= (part + 1) * S::LANES {
                let sum = if bias.is_null() { *acc } else { S::F::load(bias).add(*acc) };
                let sum = if add { S::F::load(out).add(sum) } else { sum };
                sum.store(out);
            } else {
                let mut all = [0.0; PANEL];
                acc.store(all.as_mut_ptr());
                for (i, x) in all.iter().enumerate().take(job.valid.saturating_sub(part * S::LANES))
                {
                    let out = out.add(i);
                    let sum = if bias.is_null() { *x } else { *bias.add(i) + x };
                    *out = if add { *out + sum } else { sum };
                }
            }
        }
    }
}
