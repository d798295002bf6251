//! The specification: an array.

use half::bf16;

use super::{F16_MAX, Floats, LANES, Lanes, ROUND, f16};

/// Needs nothing of the processor.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Portable<const N: usize = LANES>(pub(super) [f32; N]);

impl<const N: usize> Portable<N> {
    #[inline(always)]
    fn zip(self, o: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], o.0[i])))
    }
}

// SAFETY: nothing but baseline instructions.
unsafe impl<const N: usize> Floats for Portable<N> {
    const LANES: usize = N;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { p.cast::<[f32; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; N]>().write_unaligned(self.0) };
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        // SAFETY: the caller's promise.
        let halves = unsafe { p.cast::<[f16; N]>().read_unaligned() };
        Self(halves.map(f16::to_f32))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's promise.
        let values = unsafe { p.cast::<[u16; N]>().read_unaligned() };
        Self(values.map(|bits| bf16::from_bits(bits).to_f32()))
    }
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        self.zip(o, |a, b| a + b)
    }
    #[inline(always)]
    fn mul(self, o: Self) -> Self {
        self.zip(o, |a, b| a * b)
    }
    #[inline(always)]
    fn mul_add(self, m: Self, a: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(m.0[i], a.0[i])))
    }
}

// SAFETY: nothing but baseline instructions.
unsafe impl Lanes for Portable {
    const PASS: usize = 6;
    const SUMS: usize = 6;
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16) {
        // In this order a NaN stays one: `max` and `min` answer their right side where either is NaN.
        let inside = Self::splat(F16_MAX).min(Self::splat(-F16_MAX).max(self));
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f16; LANES]>().write_unaligned(inside.0.map(f16::from_f32)) };
    }
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        self.zip(o, |a, b| a - b)
    }
    #[inline(always)]
    fn div(self, o: Self) -> Self {
        self.zip(o, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, o: Self) -> Self {
        self.zip(o, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, o: Self) -> Self {
        self.zip(o, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn zero_where_below(self, x: Self, limit: Self) -> Self {
        Self(std::array::from_fn(|i| if x.0[i] < limit.0[i] { 0.0 } else { self.0[i] }))
    }
    #[inline(always)]
    fn scale_by_shifted(self, shifted: Self) -> Self {
        self.zip(shifted, |a, s| f32::from_bits(a.to_bits().wrapping_add(s.to_bits() << 23)))
    }
    #[inline(always)]
    fn keep(self, from: usize, to: usize, fill: f32) -> Self {
        Self(std::array::from_fn(|i| if (from..to).contains(&i) { self.0[i] } else { fill }))
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        self.0
    }
    #[inline(always)]
    fn largest_magnitude(self, o: Self) -> f32 {
        // As integers they compare the same way, with NaN above everything.
        let bits = self.zip(o, |a, b| f32::from_bits((a.abs().to_bits()).max(b.abs().to_bits())));
        f32::from_bits(bits.0.iter().map(|x| x.to_bits()).fold(0, u32::max))
    }
    #[inline(always)]
    unsafe fn store_integers(self, p: *mut i8) -> i32 {
        let n = self.0.map(|x| x.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed());
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(n.map(|n| n as i8)) };
        n.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }
}
