//! Dot products of bytes where a processor has none: pairs are multiplied and added in i16, pairs of those in i32.
//!
//! `maddubs` adds two products in i16, which saturates. How many of its results may be added in i16 before they are widened
//! depends on the bits of a weight, at |a| <= 127: four bits 8 (8 * 2 * 15 * 127 = 30,480), five bits 4 (31,496), six bits 2 (32,004).
//! Eight-bit weights are taken as signed and their sign is moved to the activation: 2 * 128 * 127 = 32,512, one at a time.

/// What that is made of, on vectors of bytes, words of 16 and of 32 bits.
///
/// # Safety
/// The methods may be called only on a processor that has the implementation's features.
pub(super) unsafe trait Pairs: Copy {
    /// The same four bytes everywhere.
    unsafe fn four(a: *const i8) -> Self;
    /// The same integer in every 32-bit word.
    unsafe fn word(x: i32) -> Self;
    /// Sums of two products of unsigned bytes with signed ones, saturated to 16 bits.
    unsafe fn maddubs(self, signed: Self) -> Self;
    /// Sums in 16 bits.
    unsafe fn add_16(self, o: Self) -> Self;
    /// Sums of two words of 16 bits in 32.
    unsafe fn widen(self) -> Self;
    unsafe fn add_32(self, o: Self) -> Self;
    /// Unsigned bytes, made signed by taking 128 off.
    unsafe fn less_128(self) -> Self;
    /// Magnitudes of signed bytes.
    unsafe fn magnitude(self) -> Self;
    /// Bytes with the sign of another's turned into them; zero where that is zero.
    unsafe fn signed_by(self, o: Self) -> Self;
}

/// As [`super::simd::Simd::dot`], in 32-bit integers.
#[inline(always)]
pub(super) unsafe fn dot<V: Pairs, const BITS: u32, const N: usize>(
    w: &[V; N],
    a: *const i8,
    zero_sum: i32,
) -> V {
    // SAFETY: features and 4 N readable bytes, as the caller promises.
    unsafe {
        if BITS == 8 {
            let mut sum = V::word(0);
            for (g, w) in w.iter().enumerate() {
                let w = w.less_128();
                let products = w.magnitude().maddubs(V::four(a.add(4 * g)).signed_by(w));
                sum = sum.add_32(products.widen());
            }
            return sum;
        }
        let at_once = match BITS {
            4 => 8,
            5 => 4,
            _ => 2,
        };
        let mut sum = V::word(-zero_sum);
        let mut g = 0;
        while g < N {
            let mut products = w[g].maddubs(V::four(a.add(4 * g)));
            let end = if g + at_once < N { g + at_once } else { N };
            g += 1;
            while g < end {
                products = products.add_16(w[g].maddubs(V::four(a.add(4 * g))));
                g += 1;
            }
            sum = sum.add_32(products.widen());
        }
        sum
    }
}
