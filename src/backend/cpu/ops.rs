//! The tiers of what is not a matrix product: one table of function pointers each, all made from the
//! same source (see [`super::lanes`]), so that a tier differs in speed and in nothing else.

use half::f16;

use super::attention::{self, Rows, Unit};
use super::gemm::Tier;
use super::kv::{Element, LayerView};
use super::lanes::{Lanes, Portable};
use super::rows;
use crate::backend::{Activation, Attention, BlockId, LogitMap, RopePairs};

/// Row and attention kernels of one tier.
///
/// # Safety
/// All entries may be called only on a machine that has the tier's instructions, which is what
/// choosing the table checked, and with slices of the lengths that each one documents.
pub(super) struct Ops {
    /// `out = norm(x) * weight`
    pub(super) rms_norm: unsafe fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    /// `out = (x - mean(x)) / deviation(x) * weight + bias`, of x, weight, bias, epsilon and out.
    pub(super) layer_norm: LayerNorm,
    /// `x += norm(y) * weight * times`
    pub(super) add_rms_norm:
        unsafe fn(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32, times: f32),
    /// `x += y * scale`
    pub(super) add_scaled: unsafe fn(x: &mut [f32], y: &[f32], scale: f32),
    pub(super) map_logits: unsafe fn(logits: &mut [f32], map: LogitMap),
    /// What stands between the products of an MLP.
    pub(super) activate: unsafe fn(gate_up: &[f32], activation: Activation, out: &mut [f32]),
    pub(super) f16: KvOps<f16>,
    pub(super) f32: KvOps<f32>,
}

/// A layer of the cache, how it is attended to, and for whom.
pub(super) type Sight<'a, E> = (LayerView<'a, E>, Attention, Unit<'a>);
/// A block, and a token's place in it.
pub(super) type Place = (BlockId, usize);
type LayerNorm = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);
type RopeWrite<E> = unsafe fn(&Heads<'_>, LayerView<'_, E>, Place, &mut [f32]);
type Whole<E> = unsafe fn(LayerView<'_, E>, Attention, Unit<'_>, Rows, &mut [f32]);
type OneSpan<E> = unsafe fn(Sight<'_, E>, Rows, usize, &mut [f32], &mut [f32]);

/// Kernels that touch the cache.
pub(super) struct KvOps<E: 'static> {
    /// Finishes one row of q, k and v in place and writes k and v to their slot.
    pub(super) rope_write: RopeWrite<E>,
    pub(super) whole: Whole<E>,
    pub(super) one_span: OneSpan<E>,
    pub(super) join: unsafe fn(Unit<'_>, usize, &mut [f32], Rows, &mut [f32]),
}

/// How a row of q, k and v is finished.
pub(super) struct Heads<'a> {
    pub(super) query: usize,
    pub(super) key: usize,
    pub(super) pairs: RopePairs,
    /// Of this row's position, one a pair.
    pub(super) cos: &'a [f32],
    pub(super) sin: &'a [f32],
    /// Weights of the norms of q and k, and their epsilon: of as many elements as a weight is long, a head or all.
    pub(super) norm: Option<(&'a [f32], &'a [f32], f32)>,
}

#[inline(always)]
unsafe fn rope_write<L: Lanes, E: Element>(
    h: &Heads<'_>,
    view: LayerView<'_, E>,
    (block, slot): Place,
    row: &mut [f32],
) {
    let d = view.head_dim;
    let (q, kv) = row.split_at_mut(h.query * d);
    let (k, v) = kv.split_at_mut(h.key * d);
    if let Some((q_weight, k_weight, eps)) = h.norm {
        for (all, weight) in [(&mut *q, q_weight), (&mut *k, k_weight)] {
            for part in all.chunks_exact_mut(weight.len()) {
                rows::rms_norm_in_place::<L>(part, weight, eps);
            }
        }
    }
    for head in q.chunks_exact_mut(d) {
        rows::rotate(head, h.pairs, h.cos, h.sin);
    }
    for (i, (k, v)) in k.chunks_exact_mut(d).zip(v.chunks_exact(d)).enumerate() {
        rows::rotate(k, h.pairs, h.cos, h.sin);
        // SAFETY: both are d floats; rows of a step have slots of their own.
        unsafe { view.write::<L>(block, slot, i, k.as_ptr(), v.as_ptr()) };
    }
}

/// Makes the table of a tier, whose functions are compiled for `$features`.
macro_rules! tier {
    ($table:ident, $module:ident, $lanes:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            /// Bodies that differ by the cache's element only.
            macro_rules! kv_ops {
                ($kv:ident, $element:ty) => {
                    pub(super) mod $kv {
                        use super::*;

                        $(#[target_feature(enable = $features)])?
                        unsafe fn rope_write(
                            heads: &Heads<'_>,
                            view: LayerView<'_, $element>,
                            place: Place,
                            row: &mut [f32],
                        ) {
                            // SAFETY: the caller's promise.
                            unsafe { super::super::rope_write::<$lanes, _>(heads, view, place, row) }
                        }
                        $(#[target_feature(enable = $features)])?
                        unsafe fn whole(
                            view: LayerView<'_, $element>,
                            attention: Attention,
                            unit: Unit<'_>,
                            rows: Rows,
                            scratch: &mut [f32],
                        ) {
                            // SAFETY: the caller's promise.
                            unsafe {
                                attention::whole::<$lanes, _>(view, attention, unit, rows, scratch)
                            }
                        }
                        $(#[target_feature(enable = $features)])?
                        unsafe fn one_span(
                            sight: Sight<'_, $element>,
                            rows: Rows,
                            span: usize,
                            scratch: &mut [f32],
                            out: &mut [f32],
                        ) {
                            // SAFETY: the caller's promise.
                            unsafe {
                                attention::one_span::<$lanes, _>(sight, rows, span, scratch, out)
                            }
                        }
                        $(#[target_feature(enable = $features)])?
                        unsafe fn join(
                            unit: Unit<'_>,
                            d: usize,
                            partials: &mut [f32],
                            rows: Rows,
                            scratch: &mut [f32],
                        ) {
                            // SAFETY: the caller's promise.
                            unsafe { attention::join::<$lanes>(unit, d, partials, rows, scratch) }
                        }
                        pub(in super::super) const OPS: KvOps<$element> =
                            KvOps { rope_write, whole, one_span, join };
                    }
                };
            }
            kv_ops!(half_floats, f16);
            kv_ops!(floats, f32);

            $(#[target_feature(enable = $features)])?
            unsafe fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
                rows::rms_norm::<$lanes>(x, weight, eps, out);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn layer_norm(
                x: &[f32],
                weight: &[f32],
                bias: &[f32],
                eps: f32,
                out: &mut [f32],
            ) {
                rows::layer_norm::<$lanes>(x, (weight, bias), eps, out);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn add_rms_norm(
                x: &mut [f32],
                y: &[f32],
                weight: &[f32],
                eps: f32,
                times: f32,
            ) {
                rows::add_rms_norm::<$lanes>(x, y, weight, eps, times);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn add_scaled(x: &mut [f32], y: &[f32], scale: f32) {
                rows::add_scaled::<$lanes>(x, y, scale);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn map_logits(logits: &mut [f32], map: LogitMap) {
                rows::map_logits::<$lanes>(logits, map);
            }
            $(#[target_feature(enable = $features)])?
            unsafe fn activate(gate_up: &[f32], activation: Activation, out: &mut [f32]) {
                rows::activate::<$lanes>(gate_up, activation, out);
            }
            pub(super) const OPS: Ops = Ops {
                rms_norm,
                layer_norm,
                add_rms_norm,
                add_scaled,
                map_logits,
                activate,
                f16: half_floats::OPS,
                f32: floats::OPS,
            };
        }
        pub(super) static $table: Ops = $module::OPS;
    };
}

tier!(SCALAR, scalar, Portable);
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
#[cfg(target_arch = "x86_64")]
tier!(AVX2, avx2, Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
tier!(AVX512, avx512, Avx512, "avx512f,avx512bw,avx512vnni,avx2,fma,f16c");

/// The table of a tier that the processor has.
pub(super) fn of(tier: Tier) -> &'static Ops {
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 | Tier::AvxVnni => &AVX2,
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => &AVX512,
        _ => &SCALAR,
    }
}
