//! AVX-512 with VNNI: 16 outputs side by side, one `vpdpbusd` for four k of all of them.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_add_ps,
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_add_epi8, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps,
};

use half::f16;

use super::simd::Simd;

/// Needs avx512f, avx512bw and avx512vnni.
pub(crate) enum Avx512Vnni {}

// SAFETY: callers have the features, as the trait demands.
unsafe impl Simd for Avx512Vnni {
    const LANES: usize = 16;
    type W = __m512i;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }

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
    ) -> Self::I {
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
            sum
        }
    }

    #[inline(always)]
    unsafe fn to_f32(i: Self::I) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm512_cvtepi32_ps(i) }
    }

    #[inline(always)]
    unsafe fn halves(p: *const f16) -> Self::F {
        // SAFETY: features and 32 readable bytes, as the trait demands.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast::<__m256i>())) }
    }

    #[inline(always)]
    unsafe fn bfloats(p: *const u16) -> Self::F {
        // SAFETY: features and 32 readable bytes, as the trait demands.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast::<__m256i>()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn floats(p: *const f32) -> Self::F {
        // SAFETY: features and 64 readable bytes, as the trait demands.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, f: Self::F) {
        // SAFETY: features and 64 writable bytes, as the trait demands.
        unsafe { _mm512_storeu_ps(p, f) };
    }
}
