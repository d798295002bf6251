//! The specification: plain Rust, one lane after the other, and for tests the twin of each tier: as wide as its registers, with
//! its integer logic.

use super::super::lanes::{Floats, Portable};
use super::simd::Simd;

/// `N` outputs; needs nothing of the processor. `B` is four times `N`: bytes in a vector.
pub(super) enum Plain<const N: usize, const B: usize> {}

// SAFETY: no processor features are used.
unsafe impl<const N: usize, const B: usize> Simd for Plain<N, B> {
    type W = [u8; B];
    type F = Portable<N>;

    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        // SAFETY: the caller's promise.
        let bytes = unsafe { Self::bytes(p) };
        (bytes.map(|b| b & 15), bytes.map(|b| b >> 4))
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::W {
        // SAFETY: readable for B bytes, as the trait demands.
        unsafe { p.cast::<Self::W>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn look_up(w: Self::W, table: &[u8; 16]) -> Self::W {
        w.map(|code| table[usize::from(code & 15)])
    }

    #[inline(always)]
    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W {
        // SAFETY: readable for B / 8 bytes, as the trait demands.
        std::array::from_fn(|i| w[i] | (unsafe { *bits.add(i / 8) } >> (i % 8) & 1) << 4)
    }

    #[inline(always)]
    unsafe fn dot<const BITS: u32, const G: usize>(
        w: &[Self::W; G],
        a: *const i8,
        zero_sum: i32,
    ) -> Self::F {
        let mut sums = [-zero_sum; N];
        for (g, w) in w.iter().enumerate() {
            for b in 0..4 {
                // SAFETY: readable for 4 G bytes, as the trait demands.
                let a = i32::from(unsafe { *a.add(4 * g + b) });
                for (row, sum) in sums.iter_mut().enumerate() {
                    *sum += i32::from(w[4 * row + b]) * a;
                }
            }
        }
        // SAFETY: the array has N floats.
        unsafe { Self::F::load(sums.map(|sum| sum as f32).as_ptr()) }
    }
}
