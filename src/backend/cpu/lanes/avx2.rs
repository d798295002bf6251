//! Sixteen lanes in two registers of AVX2, with FMA and F16C.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_LT_OQ, _MM_FROUND_TO_NEAREST_INT, _mm_add_epi32,
    _mm_cvtsi128_si32, _mm_loadu_si128, _mm_max_epi32, _mm_packs_epi16, _mm_shuffle_epi32,
    _mm_storeu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_andnot_ps,
    _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cmp_ps, _mm256_cmpgt_epi32, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_ph,
    _mm256_div_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_epi32,
    _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_packs_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_slli_epi32, _mm256_storeu_ps,
    _mm256_sub_epi32, _mm256_sub_ps,
};

use super::{F16_MAX, Floats, LANES, Lanes, ROUND, f16};

/// One AVX2 register; needs avx2, fma and f16c.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Eight(__m256);

/// Two of them.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Avx2(__m256, __m256);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

/// One intrinsic on both halves.
macro_rules! both {
    ($f:path, $($x:expr),+) => {{
        // SAFETY: a value of this type exists only where avx2, fma and f16c do.
        unsafe { Avx2($f($($x.0),+), $f($($x.1),+)) }
    }};
}

// SAFETY: uses avx2, fma and f16c, which the table asks for before it hands out such code.
unsafe impl Floats for Eight {
    const LANES: usize = 8;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see `both!`.
        Self(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(p, self.0) };
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast::<__m128i>())) })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast::<__m128i>()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        // SAFETY: see `both!`.
        Self(unsafe { _mm256_add_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        // SAFETY: see `both!`.
        Self(unsafe { _mm256_mul_ps(self.0, o.0) })
    }
    #[inline(always)]
    fn mul_add(self, m: Self, a: Self) -> Self {
        // SAFETY: see `both!`.
        Self(unsafe { _mm256_fmadd_ps(self.0, m.0, a.0) })
    }
}

impl Eight {
    #[inline(always)]
    pub(in crate::backend::cpu) fn of(register: __m256) -> Self {
        Self(register)
    }
}

impl Avx2 {
    #[inline(always)]
    fn of(low: Eight, high: Eight) -> Self {
        Self(low.0, high.0)
    }
    #[inline(always)]
    fn halves(self) -> (Eight, Eight) {
        (Eight(self.0), Eight(self.1))
    }
}

// SAFETY: as above.
unsafe impl Floats for Avx2 {
    const LANES: usize = LANES;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self::of(Eight::splat(x), Eight::splat(x))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::of(Eight::load(p), Eight::load(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        let (low, high) = self.halves();
        // SAFETY: the caller's promise.
        unsafe {
            low.store(p);
            high.store(p.add(8));
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::of(Eight::load_f16(p), Eight::load_f16(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::of(Eight::load_bf16(p), Eight::load_bf16(p.add(8))) }
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        both!(_mm256_add_ps, self, o)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        both!(_mm256_mul_ps, self, o)
    }
    #[inline(always)]
    fn mul_add(self, m: Self, a: Self) -> Self {
        both!(_mm256_fmadd_ps, self, m, a)
    }
}

// SAFETY: as above.
unsafe impl Lanes for Avx2 {
    const PASS: usize = 6;
    const SUMS: usize = 6;
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16) {
        // In this order a NaN stays one: `max` and `min` answer their right side where either is NaN.
        let inside = Self::splat(F16_MAX).min(Self::splat(-F16_MAX).max(self));
        let p = p.cast::<__m128i>();
        // SAFETY: the caller's promise.
        unsafe {
            _mm_storeu_si128(p, _mm256_cvtps_ph::<NEAREST>(inside.0));
            _mm_storeu_si128(p.add(1), _mm256_cvtps_ph::<NEAREST>(inside.1));
        }
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        both!(_mm256_sub_ps, self, o)
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        both!(_mm256_div_ps, self, o)
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        both!(_mm256_max_ps, self, o)
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        both!(_mm256_min_ps, self, o)
    }
    #[inline(always)]
    fn zero_where_below(self, x: Self, limit: Self) -> Self {
        let below = both!(_mm256_cmp_ps::<_CMP_LT_OQ>, x, limit);
        both!(_mm256_andnot_ps, below, self)
    }
    #[inline(always)]
    fn scale_by_shifted(self, shifted: Self) -> Self {
        #[inline(always)]
        unsafe fn one(a: __m256, s: __m256) -> __m256 {
            // SAFETY: see `both!`.
            unsafe {
                let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(s));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), n))
            }
        }
        both!(one, self, shifted)
    }
    #[inline(always)]
    fn keep(self, from: usize, to: usize, fill: f32) -> Self {
        #[inline(always)]
        unsafe fn one(x: __m256, fill: __m256, lanes: __m256i, from: i32, to: i32) -> __m256 {
            // SAFETY: see `both!`.
            unsafe {
                let inside = _mm256_and_si256(
                    _mm256_cmpgt_epi32(lanes, _mm256_set1_epi32(from - 1)),
                    _mm256_cmpgt_epi32(_mm256_set1_epi32(to), lanes),
                );
                _mm256_blendv_ps(fill, x, _mm256_castsi256_ps(inside))
            }
        }
        let (from, to) = (from as i32, to as i32);
        // SAFETY: see `both!`.
        unsafe {
            let fill = _mm256_set1_ps(fill);
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let low = one(self.0, fill, lanes, from, to);
            Self(low, one(self.1, fill, lanes, from - 8, to - 8))
        }
    }
    #[inline(always)]
    fn largest_magnitude(self, o: Self) -> f32 {
        // SAFETY: see `both!`.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            let magnitude = |x: __m256| _mm256_castps_si256(_mm256_andnot_ps(sign, x));
            let own = _mm256_max_epi32(magnitude(self.0), magnitude(self.1));
            let other = _mm256_max_epi32(magnitude(o.0), magnitude(o.1));
            let eight = _mm256_max_epi32(own, other);
            let four =
                _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b_01_00_11_10>(four));
            let one = _mm_max_epi32(two, _mm_shuffle_epi32::<0b_10_11_00_01>(two));
            f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
        }
    }
    #[inline(always)]
    unsafe fn store_integers(self, p: *mut i8) -> i32 {
        // SAFETY: the caller's promise.
        unsafe {
            let round = _mm256_castps_si256(_mm256_set1_ps(ROUND));
            let low = _mm256_sub_epi32(_mm256_castps_si256(self.0), round);
            let high = _mm256_sub_epi32(_mm256_castps_si256(self.1), round);
            // Packing works within halves of 128 bits; the permutation puts them in order again.
            let words = _mm256_permute4x64_epi64::<0b_11_01_10_00>(_mm256_packs_epi32(low, high));
            let (first, second) =
                (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.cast::<__m128i>(), _mm_packs_epi16(first, second));
            let eight = _mm256_add_epi32(low, high);
            let four =
                _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b_01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b_10_11_00_01>(two)))
        }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut a = [0.0; LANES];
        // SAFETY: the array holds 16 floats.
        unsafe { self.store(a.as_mut_ptr()) };
        a
    }
}
