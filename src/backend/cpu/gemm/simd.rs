//! The integer operations that the kernels are written in. Each tier implements them; the plain ones are the specification.

use super::super::lanes::Floats;

/// Outputs side by side in one vector, and what a kernel does with them.
///
/// Integer results are exact, and every float operation is one correctly rounded operation per lane, so that all tiers give
/// the same bits.
///
/// # Safety
/// The methods may be called only on a processor that has the implementation's features. Pointers must be readable for the
/// lengths that each method names; no alignment is needed.
pub(super) unsafe trait Simd {
    /// Outputs in a vector: 8 or 16.
    const LANES: usize = Self::F::LANES;
    /// `LANES` rows x 4 k of unsigned bytes.
    type W: Copy;
    /// `LANES` f32.
    type F: Floats;

    /// Low and high nibbles of `4 * LANES` bytes.
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W);
    /// `4 * LANES` bytes.
    unsafe fn bytes(p: *const u8) -> Self::W;
    /// The bytes of `table` that the bytes of `w`, all below 16, are the places of.
    unsafe fn look_up(w: Self::W, table: &[u8; 16]) -> Self::W;
    /// `w | 16` where a bit of the `LANES / 2` bytes at `bits` is set.
    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W;
    /// Per lane, the sum of `u * a` over `N` vectors and `4 * N` signed bytes at `a`, minus `zero_sum`. `BITS` bounds u; with 8 bits,
    /// `zero_sum` must be 128 times the sum of `a`, which an implementation may use instead of it. `a` is never -128.
    unsafe fn dot<const BITS: u32, const N: usize>(
        w: &[Self::W; N],
        a: *const i8,
        zero_sum: i32,
    ) -> Self::F;
}
