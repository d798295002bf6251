//! AVX-512 with VNNI: 16 outputs side by side, one `vpdpbusd` for four k of all of them.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi32_ps,
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_mask_add_epi8, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_shuffle_epi8, _mm512_srli_epi16,
};

use super::super::lanes::Avx512;
use super::simd::Simd;

/// Needs avx512f, avx512bw and avx512vnni.
pub(super) enum Avx512Vnni {}

// SAFETY: callers have the features, as the trait demands.
unsafe impl Simd for Avx512Vnni {
    type W = __m512i;
    type F = Avx512;

    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        // SAFETY: features and 64 readable bytes, as the trait demands.
        unsafe {
            let bytes = _mm512_loadu_si512(p.cast());
            let mask = _mm512_set1_epi8(15);
            (_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask))
        }
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::W {
        // SAFETY: features and 64 readable bytes, as the trait demands.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn look_up(w: Self::W, table: &[u8; 16]) -> Self::W {
        // SAFETY: features, as the trait demands; the table has 16 bytes.
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), w)
        }
    }

    #[inline(always)]
    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W {
        // SAFETY: features and 8 readable bytes, as the trait demands.
        unsafe {
            _mm512_mask_add_epi8(w, bits.cast::<u64>().read_unaligned(), w, _mm512_set1_epi8(16))
        }
    }

    #[inline(always)]
    unsafe fn dot<const BITS: u32, const N: usize>(
        w: &[Self::W; N],
        a: *const i8,
        zero_sum: i32,
    ) -> Self::F {
        // SAFETY: features and 4 N readable bytes, as the trait demands.
        unsafe {
            let mut sum = _mm512_set1_epi32(-zero_sum);
            for (g, &w) in w.iter().enumerate() {
                sum = _mm512_dpbusd_epi32(
                    sum,
                    w,
                    _mm512_set1_epi32(a.add(4 * g).cast::<i32>().read_unaligned()),
                );
            }
            Avx512::of(_mm512_cvtepi32_ps(sum))
        }
    }
}
