//! AVX2, FMA and F16C: 8 outputs side by side; products by `maddubs`, or by `vpdpbusd` where the processor has AVX-VNNI.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_cvtepi32_ps,
    _mm256_dpbusd_avx_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_setr_epi64x, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_srli_epi16, _mm256_xor_si256,
};

use super::super::lanes::Eight;
use super::maddubs::{self, Pairs};
use super::simd::Simd;

/// Needs avx2, fma and f16c; with `VNNI` avxvnni too.
pub(super) enum Avx2<const VNNI: bool> {}

// SAFETY: callers have the features, as the trait demands.
unsafe impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type W = __m256i;
    type F = Eight;

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
    unsafe fn look_up(w: Self::W, table: &[u8; 16]) -> Self::W {
        // SAFETY: features, as the trait demands; the table has 16 bytes.
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), w)
        }
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
    ) -> Self::F {
        // SAFETY: features and 4 N readable bytes, as the trait demands.
        unsafe {
            let sum = if VNNI {
                let mut sum = _mm256_set1_epi32(-zero_sum);
                for (g, &w) in w.iter().enumerate() {
                    sum = _mm256_dpbusd_avx_epi32(sum, w, __m256i::four(a.add(4 * g)));
                }
                sum
            } else {
                maddubs::dot::<__m256i, BITS, N>(w, a, zero_sum)
            };
            Eight::of(_mm256_cvtepi32_ps(sum))
        }
    }
}

// SAFETY: avx2, as the trait demands of callers.
unsafe impl Pairs for __m256i {
    #[inline(always)]
    unsafe fn four(a: *const i8) -> Self {
        // SAFETY: features and 4 readable bytes, as the trait demands.
        unsafe { _mm256_set1_epi32(a.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn word(x: i32) -> Self {
        // SAFETY: features, as the trait demands; likewise below.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn maddubs(self, signed: Self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_maddubs_epi16(self, signed) }
    }
    #[inline(always)]
    unsafe fn add_16(self, o: Self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_add_epi16(self, o) }
    }
    #[inline(always)]
    unsafe fn widen(self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_madd_epi16(self, _mm256_set1_epi16(1)) }
    }
    #[inline(always)]
    unsafe fn add_32(self, o: Self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_add_epi32(self, o) }
    }
    #[inline(always)]
    unsafe fn less_128(self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_xor_si256(self, _mm256_set1_epi8(i8::MIN)) }
    }
    #[inline(always)]
    unsafe fn magnitude(self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_abs_epi8(self) }
    }
    #[inline(always)]
    unsafe fn signed_by(self, o: Self) -> Self {
        // SAFETY: see `word`.
        unsafe { _mm256_sign_epi8(self, o) }
    }
}
