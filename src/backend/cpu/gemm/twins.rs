//! Plain twins of the tiers, so that their layout and integer logic are tested on machines without their instructions.

use super::super::lanes::{Floats, Portable};
use super::maddubs::{self, Pairs};
use super::plain::Plain;
use super::simd::Simd;
use super::*;

/// Eight lanes, as AVX2 and AVX-VNNI have.
type EightLanes = Plain<8, 32>;

/// AVX2's `maddubs` in plain Rust.
enum Maddubs {}

// SAFETY: no processor features are used.
unsafe impl Simd for Maddubs {
    type W = Words;
    type F = Portable<8>;

    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W) {
        // SAFETY: the caller's promise.
        let (low, high) = unsafe { EightLanes::nibbles(p) };
        (Words(low), Words(high))
    }

    unsafe fn bytes(p: *const u8) -> Self::W {
        // SAFETY: the caller's promise.
        Words(unsafe { EightLanes::bytes(p) })
    }

    unsafe fn look_up(w: Self::W, table: &[u8; 16]) -> Self::W {
        // SAFETY: no processor features are used.
        Words(unsafe { EightLanes::look_up(w.0, table) })
    }

    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W {
        // SAFETY: the caller's promise.
        Words(unsafe { EightLanes::with_fifth(w.0, bits) })
    }

    unsafe fn dot<const BITS: u32, const N: usize>(
        w: &[Self::W; N],
        a: *const i8,
        zero_sum: i32,
    ) -> Self::F {
        // SAFETY: the caller's promise; the array has eight floats.
        unsafe {
            let sums = maddubs::dot::<Words, BITS, N>(w, a, zero_sum);
            let floats: [f32; 8] = std::array::from_fn(|i| sums.word_32(i) as f32);
            Portable::load(floats.as_ptr())
        }
    }
}

/// A register of 32 bytes.
#[derive(Clone, Copy)]
struct Words([u8; 32]);

impl Words {
    fn byte(self, i: usize) -> i8 {
        self.0[i].cast_signed()
    }

    fn word_16(self, i: usize) -> i16 {
        i16::from_le_bytes([self.0[2 * i], self.0[2 * i + 1]])
    }

    fn word_32(self, i: usize) -> i32 {
        i32::from_le_bytes(std::array::from_fn(|b| self.0[4 * i + b]))
    }

    fn of_16(f: impl Fn(usize) -> i16) -> Self {
        Self(std::array::from_fn(|i| f(i / 2).to_le_bytes()[i % 2]))
    }

    fn of_32(f: impl Fn(usize) -> i32) -> Self {
        Self(std::array::from_fn(|i| f(i / 4).to_le_bytes()[i % 4]))
    }
}

// SAFETY: no processor features are used.
unsafe impl Pairs for Words {
    unsafe fn four(a: *const i8) -> Self {
        // SAFETY: four readable bytes, as the trait demands.
        Self(std::array::from_fn(|i| unsafe { *a.add(i % 4) }.cast_unsigned()))
    }
    unsafe fn word(x: i32) -> Self {
        Self::of_32(|_| x)
    }
    unsafe fn maddubs(self, signed: Self) -> Self {
        Self::of_16(|i| {
            let product = |i: usize| i32::from(self.0[i]) * i32::from(signed.byte(i));
            let sum = product(2 * i) + product(2 * i + 1);
            sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
        })
    }
    unsafe fn add_16(self, o: Self) -> Self {
        Self::of_16(|i| self.word_16(i).wrapping_add(o.word_16(i)))
    }
    unsafe fn widen(self) -> Self {
        Self::of_32(|i| i32::from(self.word_16(2 * i)) + i32::from(self.word_16(2 * i + 1)))
    }
    unsafe fn add_32(self, o: Self) -> Self {
        Self::of_32(|i| self.word_32(i).wrapping_add(o.word_32(i)))
    }
    unsafe fn less_128(self) -> Self {
        Self(self.0.map(|b| b ^ 0x80))
    }
    unsafe fn magnitude(self) -> Self {
        Self(std::array::from_fn(|i| self.byte(i).unsigned_abs()))
    }
    unsafe fn signed_by(self, o: Self) -> Self {
        let byte = |i| i32::from(self.byte(i)) * i32::from(o.byte(i).signum());
        Self(std::array::from_fn(|i| (byte(i) as i8).cast_unsigned()))
    }
}

table!(eight_lanes, EightLanes, lanes::Portable, 4);
table!(maddubs_table, Maddubs, lanes::Portable, 4);
table!(many_rows, Plain<16, 64>, lanes::Portable, 16);

/// Twins by the tier whose logic they have, AVX-512's with its sixteen rows at a time.
pub(super) fn all() -> [(&'static str, Kernels); 3] {
    let of = |table| Kernels { tier: Tier::Scalar, table };
    [
        ("avx512's twin", of(&many_rows::TABLE)),
        ("avxvnni's twin", of(&eight_lanes::TABLE)),
        ("avx2's twin", of(&maddubs_table::TABLE)),
    ]
}

#[test]
fn the_largest_sums_fit_their_words() {
    fn check<const BITS: u32, const N: usize>() {
        for a in [127_i8, -127] {
            for u in [0_u8, ((1_u32 << BITS) - 1) as u8] {
                let a_sum = 4 * N as i32 * i32::from(a);
                let zero_sum = if BITS == 8 { 128 * a_sum } else { 0 };
                let a = vec![a; 4 * N];
                // SAFETY: 4 N readable bytes.
                let sums = unsafe {
                    maddubs::dot::<Words, BITS, N>(&[Words([u; 32]); N], a.as_ptr(), zero_sum)
                };
                let expected = i32::from(u) * a_sum - zero_sum;
                assert!((0..8).all(|i| sums.word_32(i) == expected), "{BITS} bits, {u} x {}", a[0]);
            }
        }
    }
    check::<4, 8>();
    check::<4, 4>();
    check::<5, 8>();
    check::<6, 4>();
    check::<8, 8>();
}
