//! The specification: plain Rust, one lane after the other.

use half::{bf16, f16};

use super::simd::Simd;

const LANES: usize = 16;

/// Needs nothing of the processor.
pub(crate) enum Plain {}

// SAFETY: no processor features are used.
unsafe impl Simd for Plain {
    const LANES: usize = LANES;
    type W = [u8; 4 * LANES];
    type I = [i32; LANES];
    type F = [f32; LANES];

    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}

    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        // SAFETY: readable for 64 bytes, as the trait demands.
        let bytes = unsafe { p.cast::<Self::W>().read_unaligned() };
        (bytes.map(|b| b & 15), bytes.map(|b| b >> 4))
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::W {
        // SAFETY: readable for 64 bytes, as the trait demands.
        unsafe { p.cast::<Self::W>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W {
        // SAFETY: readable for 8 bytes, as the trait demands.
        let bits = u64::from_le_bytes(unsafe { bits.cast::<[u8; 8]>().read_unaligned() });
        std::array::from_fn(|i| w[i] | ((bits >> i & 1) as u8) << 4)
    }

    #[inline(always)]
    unsafe fn dot<const BITS: u32, const N: usize>(
        w: &[Self::W; N],
        a: *const i8,
        zero_sum: i32,
    ) -> Self::I {
        let mut sums = [-zero_sum; LANES];
        for (g, w) in w.iter().enumerate() {
            for b in 0..4 {
                // SAFETY: readable for 4 N bytes, as the trait demands.
                let a = i32::from(unsafe { *a.add(4 * g + b) });
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum += i32::from(w[4 * row + b]) * a;
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn to_f32(i: Self::I) -> Self::F {
        i.map(|i| i as f32)
    }

    #[inline(always)]
    unsafe fn halves(p: *const f16) -> Self::F {
        // SAFETY: readable for 16 halves, as the trait demands.
        unsafe { p.cast::<[f16; LANES]>().read_unaligned() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn bfloats(p: *const u16) -> Self::F {
        // SAFETY: readable for 16 values, as the trait demands.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(|b| bf16::from_bits(b).to_f32())
    }

    #[inline(always)]
    unsafe fn floats(p: *const f32) -> Self::F {
        // SAFETY: readable for 16 floats, as the trait demands.
        unsafe { p.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, f: Self::F) {
        // SAFETY: writable for 16 floats, as the trait demands.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(f) };
    }
}
