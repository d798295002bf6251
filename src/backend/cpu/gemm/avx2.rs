//! AVX2, FMA and F16C: 8 outputs side by side, `maddubs` products.
//!
//! `maddubs` adds two products in i16, which saturates. How many of its results may be added in i16 before they are widened
//! depends on the bits of a weight, at |a| <= 127: four bits 8 (8 * 2 * 15 * 127 = 30,480), five bits 4 (31,496), six bits 2 (32,004).
//! Eight-bit weights are taken as signed and their sign is moved to the activation: 2 * 128 * 127 = 32,512, one at a time.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_abs_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps,
    _mm256_cmpeq_epi8, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_set1_ps, _mm256_setr_epi64x, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_slli_epi32,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_xor_si256,
};

use half::f16;

use super::simd::Simd;

/// Needs avx2, fma and f16c.
pub(crate) enum Avx2 {}

// SAFETY: callers have the features, as the trait demands.
unsafe impl Simd for Avx2 {
    const LANES: usize = 8;
    type W = __m256i;
    type I = __m256i;
    type F = __m256;

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        // SAFETY: a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }

    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        // SAFETY: features and 32 readable bytes, as the trait demands.
        unsafe {
            let bytes = _mm256_loadu_si256(p.cast());
            let mask = _mm256_set1_epi8(15);
            (_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask))
        }
    }

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> Self::W {
        // SAFETY: features and 32 readable bytes, as the trait demands.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W {
        // SAFETY: features and 4 readable bytes, as the trait demands.
        unsafe {
            // Byte i of the vector gets bit byte i / 8, then keeps bit i % 8 of it.
            let spread = _mm256_setr_epi64x(
                0,
                0x0101_0101_0101_0101,
                0x0202_0202_0202_0202,
                0x0303_0303_0303_0303,
            );
            let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
            let all = _mm256_set1_epi32(bits.cast::<i32>().read_unaligned());
            let own = _mm256_and_si256(_mm256_shuffle_epi8(all, spread), select);
            let set = _mm256_cmpeq_epi8(own, select);
            _mm256_or_si256(w, _mm256_and_si256(set, _mm256_set1_epi8(16)))
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
            let ones = _mm256_set1_epi16(1);
            let four = |g: usize| _mm256_set1_epi32(a.add(4 * g).cast::<i32>().read_unaligned());
            if BITS == 8 {
                let flip = _mm256_set1_epi8(i8::MIN);
                let mut sum = _mm256_set1_epi32(0);
                for (g, &w) in w.iter().enumerate() {
                    let w = _mm256_xor_si256(w, flip);
                    let products =
                        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(four(g), w));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
                }
                return sum;
            }
            let at_once = match BITS {
                4 => 8,
                5 => 4,
                _ => 2,
            };
            let mut sum = _mm256_set1_epi32(0);
            let mut g = 0;
            while g < N {
                let mut products = _mm256_maddubs_epi16(w[g], four(g));
                let end = if g + at_once < N { g + at_once } else { N };
                g += 1;
                while g < end {
                    products = _mm256_add_epi16(products, _mm256_maddubs_epi16(w[g], four(g)));
                    g += 1;
                }
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, ones));
            }
            _mm256_sub_epi32(sum, _mm256_set1_epi32(zero_sum))
        }
    }

    #[inline(always)]
    unsafe fn to_f32(i: Self::I) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm256_cvtepi32_ps(i) }
    }

    #[inline(always)]
    unsafe fn halves(p: *const f16) -> Self::F {
        // SAFETY: features and 16 readable bytes, as the trait demands.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast::<__m128i>())) }
    }

    #[inline(always)]
    unsafe fn bfloats(p: *const u16) -> Self::F {
        // SAFETY: features and 16 readable bytes, as the trait demands.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast::<__m128i>()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn floats(p: *const f32) -> Self::F {
        // SAFETY: features and 32 readable bytes, as the trait demands.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: features, as the trait demands.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store(p: *mut f32, f: Self::F) {
        // SAFETY: features and 32 writable bytes, as the trait demands.
        unsafe { _mm256_storeu_ps(p, f) };
    }
}
