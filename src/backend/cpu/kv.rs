//! The paged KV cache in memory: `[block][layer][kv_head]`, and for each of those the keys of the
//! block's 32 tokens as `[2][head_dim][16 tokens]`, then the values as `[32][head_dim]`.
//!
//! Keys stand with sixteen tokens side by side so that a query is broadcast over them: scores of
//! sixteen tokens grow in one vector, with no transposition and no sum across lanes.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;

use half::f16;

use super::lanes::{LANES, Lanes};
use crate::backend::{BLOCK_TOKENS, BackendError, BlockId, KvDtype, Reserve};

/// An element of the cache.
pub(super) trait Element: Copy {
    /// # Safety
    /// `p` is readable for 16 elements.
    unsafe fn load<L: Lanes>(p: *const Self) -> L;
    /// # Safety
    /// `p` is writable for 16 elements.
    unsafe fn store<L: Lanes>(p: *mut Self, v: L);
    const ZERO: Self;
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_f16(p) }
    }
    #[inline(always)]
    unsafe fn store<L: Lanes>(p: *mut Self, v: L) {
        // SAFETY: the caller's promise.
        unsafe { v.store_f16(p) }
    }
    const ZERO: Self = f16::ZERO;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const Self) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(p) }
    }
    #[inline(always)]
    unsafe fn store<L: Lanes>(p: *mut Self, v: L) {
        // SAFETY: the caller's promise.
        unsafe { v.store(p) }
    }
    const ZERO: Self = 0.0;
}

/// Keys and values of all blocks and layers.
pub(super) struct KvCache {
    memory: Zeroed,
    dtype: KvDtype,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    blocks: usize,
}

/// The cache as elements of one type, for one layer; cheap to copy into work units.
#[derive(Clone, Copy)]
pub(super) struct LayerView<'a, E> {
    base: *mut E,
    /// Elements from one block to the next.
    block_stride: usize,
    pub(super) head_dim: usize,
    /// Elements of one kv head's keys (or values) in a block.
    plane: usize,
    blocks: usize,
    cache: PhantomData<&'a KvCache>,
}

// SAFETY: work units of one step write disjoint tokens and read only in later phases of the step.
unsafe impl<E: Sync> Sync for LayerView<'_, E> {}
// SAFETY: as above.
unsafe impl<E: Send> Send for LayerView<'_, E> {}

impl KvCache {
    /// Reserves address space for the plan's blocks; pages are touched only when written.
    pub(super) fn reserve(plan: &Reserve) -> Result<Self, BackendError> {
        let s = &plan.shape;
        let element = match plan.kv_dtype {
            KvDtype::F16 => 2,
            KvDtype::F32 => 4,
        };
        let bytes = [s.layers, s.kv_heads, s.head_dim, 2 * BLOCK_TOKENS, element, plan.blocks]
            .into_iter()
            .try_fold(1_usize, usize::checked_mul);
        let memory = bytes.and_then(Zeroed::new).ok_or_else(|| {
            BackendError::Device(format!("cannot reserve {} blocks of KV cache", plan.blocks))
        })?;
        Ok(Self {
            memory,
            dtype: plan.kv_dtype,
            layers: s.layers,
            kv_heads: s.kv_heads,
            head_dim: s.head_dim,
            blocks: plan.blocks,
        })
    }

    pub(super) fn dtype(&self) -> KvDtype {
        self.dtype
    }

    /// # Safety
    /// `E` is the element type that [`Self::dtype`] names.
    pub(super) unsafe fn layer<E: Element>(&self, layer: usize) -> LayerView<'_, E> {
        assert!(layer < self.layers, "layer {layer} of {}", self.layers);
        let plane = self.head_dim * BLOCK_TOKENS;
        let layer_stride = self.kv_heads * 2 * plane;
        LayerView {
            // SAFETY: the layer was checked, and memory holds at least one block or none is asked for.
            base: unsafe { self.memory.start().cast::<E>().add(layer * layer_stride) },
            block_stride: self.layers * layer_stride,
            head_dim: self.head_dim,
            plane,
            blocks: self.blocks,
            cache: PhantomData,
        }
    }
}

impl<E: Element> LayerView<'_, E> {
    /// Keys of one kv head in a block: `[2][head_dim][16]`.
    #[inline(always)]
    pub(super) fn keys(&self, block: BlockId, kv_head: usize) -> *mut E {
        debug_assert!((block as usize) < self.blocks);
        // SAFETY: block ids were checked when the step began; the head is below `kv_heads`.
        unsafe { self.base.add(block as usize * self.block_stride + kv_head * 2 * self.plane) }
    }

    /// Values of one kv head in a block: `[32][head_dim]`.
    #[inline(always)]
    pub(super) fn values(&self, block: BlockId, kv_head: usize) -> *mut E {
        // SAFETY: values follow the keys.
        unsafe { self.keys(block, kv_head).add(self.plane) }
    }

    /// Writes one token's key and value of one kv head; `slot` is its place in the block.
    ///
    /// # Safety
    /// `k` and `v` are readable for `head_dim` floats, a multiple of 16; nobody else touches this
    /// slot meanwhile.
    #[inline(always)]
    pub(super) unsafe fn write<L: Lanes>(
        &self,
        block: BlockId,
        slot: usize,
        kv_head: usize,
        k: *const f32,
        v: *const f32,
    ) {
        let d = self.head_dim;
        let keys = self.keys(block, kv_head);
        let values = self.values(block, kv_head);
        let column = (slot / LANES) * d * LANES + slot % LANES;
        for i in (0..d).step_by(LANES) {
            // SAFETY: `i + 16 <= d` on both sides; slot < 32 stays inside the planes.
            unsafe {
                E::store(values.add(slot * d + i), L::load(v.add(i)));
                let mut narrow = [E::ZERO; LANES];
                E::store(narrow.as_mut_ptr(), L::load(k.add(i)));
                for (j, x) in narrow.into_iter().enumerate() {
                    keys.add(column + (i + j) * LANES).write(x);
                }
            }
        }
    }
}

/// Zeroed memory aligned to a huge page, which the system is asked to back with huge pages.
///
/// It comes from `calloc`, which leaves fresh pages untouched: an aligned allocation would be cleared
/// by hand and so be resident from the start.
struct Zeroed {
    raw: *mut u8,
    layout: Layout,
}

// SAFETY: plain memory, owned.
unsafe impl Send for Zeroed {}
// SAFETY: shared only as pointers, whose users answer for disjointness.
unsafe impl Sync for Zeroed {}

const HUGE_PAGE: usize = 2 << 20;

impl Zeroed {
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.checked_add(HUGE_PAGE)?, 16).ok()?;
        // SAFETY: the size is not zero.
        let raw = unsafe { alloc_zeroed(layout) };
        if raw.is_null() {
            return None;
        }
        let memory = Self { raw, layout };
        #[cfg(target_os = "linux")]
        // SAFETY: advice on a range inside our own allocation; a refusal changes nothing.
        unsafe {
            libc::madvise(memory.start().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        Some(memory)
    }

    fn start(&self) -> *mut u8 {
        let skip = self.raw.align_offset(HUGE_PAGE);
        // SAFETY: one huge page more than asked for was allocated.
        unsafe { self.raw.add(skip) }
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.raw, self.layout) };
    }
}
