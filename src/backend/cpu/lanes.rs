//! Sixteen floats side by side: the one vector type that attention, norms and activations are written
//! in. Every tier runs the same source, each operation rounds the same way, and sums fold in one fixed
//! tree, so that all tiers give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::f16;

use super::act::ROUND;

/// Floats in a vector, whatever the machine's registers hold.
pub(super) const LANES: usize = 16;

/// Largest finite f16: what is written to an f16 cache stays finite, so that `0 * v` is 0.
const F16_MAX: f32 = 65504.0;

/// Some f32 lanes: all that products need of floats.
///
/// # Safety
/// Values of an implementation may be made only on a machine that has the instructions it uses:
/// code generic over it is reached only through a table that was chosen after asking the machine.
pub(super) unsafe trait Floats: Copy {
    /// How many.
    const LANES: usize;
    fn splat(x: f32) -> Self;
    /// # Safety
    /// `p` is readable for `LANES` floats.
    unsafe fn load(p: *const f32) -> Self;
    /// # Safety
    /// `p` is writable for `LANES` floats.
    unsafe fn store(self, p: *mut f32);
    /// # Safety
    /// `p` is readable for `LANES` halves.
    unsafe fn load_f16(p: *const f16) -> Self;
    /// # Safety
    /// `p` is readable for `LANES` bfloat16.
    unsafe fn load_bf16(p: *const u16) -> Self;
    fn add(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
    /// `self * m + a`, rounded once.
    fn mul_add(self, m: Self, a: Self) -> Self;
}

/// Sixteen f32 lanes.
///
/// Methods that take pointers read or write sixteen elements there; no alignment is needed.
///
/// # Safety
/// As for [`Floats`].
pub(super) unsafe trait Lanes: Floats {
    /// Vectors that are multiplied at once where there are many; at most 8.
    const PASS: usize;
    /// Sums that fit the registers beside what is added to them.
    const SUMS: usize;
    /// Rounds to nearest even; beyond the largest half it stays there.
    ///
    /// # Safety
    /// `p` is writable for 16 halves.
    unsafe fn store_f16(self, p: *mut f16);
    fn sub(self, o: Self) -> Self;
    fn div(self, o: Self) -> Self;
    /// `self > o ? self : o`: a NaN on the left gives way.
    fn max(self, o: Self) -> Self;
    /// `self < o ? self : o`
    fn min(self, o: Self) -> Self;
    /// Zero where `x < limit`, else `self`.
    fn zero_where_below(self, x: Self, limit: Self) -> Self;
    /// `self * 2^n` for lanes of `shifted` that hold `1.5 * 2^23 + n`.
    fn scale_by_shifted(self, shifted: Self) -> Self;
    /// Lanes `from..to` of `self`, `fill` elsewhere.
    fn keep(self, from: usize, to: usize, fill: f32) -> Self;
    fn to_array(self) -> [f32; LANES];
    /// Largest magnitude in both; NaN if there is one.
    fn largest_magnitude(self, o: Self) -> f32;
    /// Writes the integers of lanes that hold `1.5 * 2^23 + n`, -127 <= n <= 127, as bytes, and returns their sum. What it
    /// makes of other lanes is not specified.
    ///
    /// # Safety
    /// `p` is writable for 16 bytes.
    unsafe fn store_integers(self, p: *mut i8) -> i32;

    /// Sum of all lanes: halves are folded onto each other, 16, 8, 4, 2.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut a = self.to_array();
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }

    /// Largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut a = self.to_array();
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] = if a[i] > a[i + half] { a[i] } else { a[i + half] };
            }
        }
        a[0]
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::avx2::{Avx2, Eight};
#[cfg(target_arch = "x86_64")]
pub(super) use self::avx512::Avx512;
pub(super) use self::portable::Portable;

/// What [`exp`] takes for minus infinity: results below `e^-80` are zero, so that no product with a half can underflow.
const LOWEST: f32 = -80.0;

/// `e^x` to about 2 ulp, 0 below -80, NaN for NaN; the same bits in every tier.
#[inline(always)]
pub(super) fn exp<L: Lanes>(x: L) -> L {
    // In this order a NaN stays one.
    let inside = L::splat(88.0).min(L::splat(LOWEST).max(x));
    exp_inside(inside).zero_where_below(x, L::splat(LOWEST))
}

/// The same for `x <= 0`, which needs no bounds.
#[inline(always)]
pub(super) fn exp_down<L: Lanes>(x: L) -> L {
    exp_inside(x).zero_where_below(x, L::splat(LOWEST))
}

/// Cephes' `expf` for -80 to 88: `x = n ln 2 + r`, a polynomial of degree 6 in r, `2^n` into the exponent.
#[inline(always)]
fn exp_inside<L: Lanes>(x: L) -> L {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let shifted = x.mul_add(L::splat(std::f32::consts::LOG2_E), L::splat(ROUND));
    let n = shifted.sub(L::splat(ROUND));
    let r = n.mul_add(L::splat(-LN2_HIGH), x);
    let r = n.mul_add(L::splat(-LN2_LOW), r);
    let mut p = L::splat(POLYNOMIAL[0]);
    for c in &POLYNOMIAL[1..] {
        p = p.mul_add(r, L::splat(*c));
    }
    p.mul_add(r.mul(r), r.add(L::splat(1.0))).scale_by_shifted(shifted)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(super) fn sigmoid<L: Lanes>(x: L) -> L {
    let one = L::splat(1.0);
    one.div(one.add(exp(L::splat(0.0).sub(x))))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "exact values are what is tested")]

    use super::*;

    fn portable(x: [f32; LANES]) -> Portable {
        Portable(x)
    }

    #[test]
    fn exp_is_close_to_the_real_one() {
        let mut worst = 0.0_f64;
        for i in 0..100_000 {
            let x = -79.9 + i as f32 * (79.9 + 87.0) / 100_000.0;
            let got = f64::from(exp(portable([x; LANES])).0[0]);
            let want = f64::from(x).exp();
            worst = worst.max(((got - want) / want).abs());
        }
        assert!(worst < 3e-7, "{worst}");
        assert_eq!(exp(portable([f32::NEG_INFINITY; LANES])).0, [0.0; LANES]);
        assert_eq!(exp(portable([0.0; LANES])).0, [1.0; LANES]);
        for x in [0.0, -0.3, -50.0, -79.99, -80.01, -1e9, f32::MIN, f32::NEG_INFINITY] {
            let x = portable([x; LANES]);
            assert_eq!(exp_down(x).0, exp(x).0);
        }
        let nan = portable([f32::NAN; LANES]);
        assert!([exp(nan), exp_down(nan), sigmoid(nan)].iter().all(|x| x.0[0].is_nan()));
        assert!(sigmoid(portable([-200.0; LANES])).0[0] >= 0.0);
        assert_eq!(sigmoid(portable([200.0; LANES])).0, [1.0; LANES]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn all_tiers_give_the_same_bits() {
        use crate::backend::cpu::gemm::Tier;
        use proptest::prelude::*;
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(x: &[f32; LANES], from: usize, to: usize) -> Vec<u32> {
            // SAFETY: the array holds 16 floats.
            all(unsafe { Avx2::load(x.as_ptr()) }, from, to)
        }
        #[target_feature(enable = "avx512f")]
        fn avx512(x: &[f32; LANES], from: usize, to: usize) -> Vec<u32> {
            // SAFETY: the array holds 16 floats.
            all(unsafe { Avx512::load(x.as_ptr()) }, from, to)
        }
        #[inline(always)]
        fn all<L: Lanes>(x: L, from: usize, to: usize) -> Vec<u32> {
            let mut halves = [f16::ZERO; LANES];
            // SAFETY: the array holds 16 halves.
            let back = unsafe {
                x.store_f16(halves.as_mut_ptr());
                L::load_f16(halves.as_ptr())
            };
            let kept = x.keep(from, to, f32::NEG_INFINITY);
            let mut out: Vec<f32> = Vec::new();
            for v in [
                exp(x),
                exp_down(x.min(L::splat(0.0))),
                sigmoid(x),
                kept,
                back,
                exp(kept),
                x.max(back).min(kept),
                x.div(back),
            ] {
                out.extend(v.to_array());
                out.extend([v.sum(), v.largest()]);
            }
            let largest = x.largest_magnitude(back);
            let rounded = x.mul(L::splat(127.0 / largest)).add(L::splat(ROUND));
            let mut bytes = [0_i8; LANES];
            // SAFETY: the array holds 16 bytes.
            let sum = unsafe { rounded.store_integers(bytes.as_mut_ptr()) };
            assert_eq!(sum, bytes.iter().map(|&b| i32::from(b)).sum::<i32>());
            out.push(largest);
            out.extend(bytes.map(f32::from));
            out.iter().map(|x| if x.is_nan() { 1 } else { x.to_bits() }).collect()
        }
        proptest!(ProptestConfig::with_cases(64), |(
            x in proptest::array::uniform16(-1e5_f32..1e5), small in any::<bool>(),
            from in 0_usize..17, len in 0_usize..17,
        )| {
            let x = if small { x.map(|x| x / 1e3) } else { x };
            let to = (from + len).min(LANES);
            let want = all(portable(x), from, to);
            if Tier::Avx2.is_available() {
                // SAFETY: asked just now.
                prop_assert_eq!(unsafe { avx2(&x, from, to) }, want.clone());
            }
            if Tier::Avx512.is_available() {
                // SAFETY: asked just now.
                prop_assert_eq!(unsafe { avx512(&x, from, to) }, want);
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn halves_keep_nan_and_stay_finite_otherwise() {
        use crate::backend::cpu::gemm::Tier;
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(x: &[f32; LANES]) -> [f16; LANES] {
            // SAFETY: the array holds 16 floats.
            halves(unsafe { Avx2::load(x.as_ptr()) })
        }
        #[target_feature(enable = "avx512f")]
        fn avx512(x: &[f32; LANES]) -> [f16; LANES] {
            // SAFETY: the array holds 16 floats.
            halves(unsafe { Avx512::load(x.as_ptr()) })
        }
        #[inline(always)]
        fn halves<L: Lanes>(x: L) -> [f16; LANES] {
            let mut halves = [f16::ZERO; LANES];
            // SAFETY: the array holds 16 halves.
            unsafe { x.store_f16(halves.as_mut_ptr()) };
            let one = L::splat(1.0);
            assert!(x.largest_magnitude(one).is_nan() && one.largest_magnitude(x).is_nan());
            halves
        }
        let mut x = [1.0; LANES];
        (x[0], x[5], x[7], x[15]) = (f32::NAN, f32::INFINITY, -1e9, -f32::NAN);
        let mut tiers = vec![halves(portable(x))];
        if Tier::Avx2.is_available() {
            // SAFETY: asked just now.
            tiers.push(unsafe { avx2(&x) });
        }
        if Tier::Avx512.is_available() {
            // SAFETY: asked just now.
            tiers.push(unsafe { avx512(&x) });
        }
        for got in tiers {
            assert!(got[0].is_nan() && got[15].is_nan(), "{got:?}");
            assert_eq!((got[5], got[7], got[1]), (f16::MAX, f16::MIN, f16::ONE));
        }
    }
}
