//! Sixteen lanes in one register of AVX-512.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, _CMP_LT_OQ, _MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128,
    _mm256_loadu_si256, _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi8,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_div_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_mov_ps, _mm512_max_epi32, _mm512_max_ps, _mm512_min_ps,
    _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::{F16_MAX, Floats, LANES, Lanes, ROUND, f16};

/// One register; needs avx512f.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Avx512(__m512);

impl Avx512 {
    #[inline(always)]
    pub(in crate::backend::cpu) fn of(register: __m512) -> Self {
        Self(register)
    }
}

/// One intrinsic on the registers of some values.
macro_rules! op {
    ($f:path, $($x:expr),+) => {{
        // SAFETY: a value of this type exists only where avx512f does.
        unsafe { Avx512($f($($x.0),+)) }
    }};
}

// SAFETY: uses avx512f, which the table asks for before it hands out such code.
unsafe impl Floats for Avx512 {
    const LANES: usize = LANES;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see `op!`.
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_loadu_ps(p) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(p, self.0) };
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast::<__m256i>())) })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast::<__m256i>()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        op!(_mm512_add_ps, self, o)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        op!(_mm512_mul_ps, self, o)
    }
    #[inline(always)]
    fn mul_add(self, m: Self, a: Self) -> Self {
        op!(_mm512_fmadd_ps, self, m, a)
    }
}

// SAFETY: as above.
unsafe impl Lanes for Avx512 {
    const PASS: usize = 8;
    const SUMS: usize = 16;
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16) {
        // In this order a NaN stays one: `max` and `min` answer their right side where either is NaN.
        let inside = Self::splat(F16_MAX).min(Self::splat(-F16_MAX).max(self));
        // SAFETY: the caller's promise.
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(inside.0);
            _mm256_storeu_si256(p.cast::<__m256i>(), halves);
        }
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        op!(_mm512_sub_ps, self, o)
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        op!(_mm512_div_ps, self, o)
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        op!(_mm512_max_ps, self, o)
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        op!(_mm512_min_ps, self, o)
    }
    #[inline(always)]
    fn zero_where_below(self, x: Self, limit: Self) -> Self {
        // SAFETY: see `op!`.
        unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x.0, limit.0);
            Self(_mm512_mask_mov_ps(self.0, below, _mm512_setzero_ps()))
        }
    }
    #[inline(always)]
    fn scale_by_shifted(self, shifted: Self) -> Self {
        // SAFETY: see `op!`.
        unsafe {
            let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), n)))
        }
    }
    #[inline(always)]
    fn keep(self, from: usize, to: usize, fill: f32) -> Self {
        let inside = ((1_u32 << to) - 1) & !((1_u32 << from) - 1);
        // SAFETY: see `op!`.
        Self(unsafe { _mm512_mask_mov_ps(_mm512_set1_ps(fill), inside as u16, self.0) })
    }
    #[inline(always)]
    fn largest_magnitude(self, o: Self) -> f32 {
        // SAFETY: see `op!`.
        unsafe {
            let magnitude = |x: Self| _mm512_castps_si512(_mm512_abs_ps(x.0));
            let most = _mm512_max_epi32(magnitude(self), magnitude(o));
            f32::from_bits(_mm512_reduce_max_epi32(most).cast_unsigned())
        }
    }
    #[inline(always)]
    unsafe fn store_integers(self, p: *mut i8) -> i32 {
        // SAFETY: the caller's promise.
        unsafe {
            let round = _mm512_castps_si512(_mm512_set1_ps(ROUND));
            let n = _mm512_sub_epi32(_mm512_castps_si512(self.0), round);
            _mm_storeu_si128(p.cast::<__m128i>(), _mm512_cvtepi32_epi8(n));
            _mm512_reduce_add_epi32(n)
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
