//! The vector operations that the kernels are written in. Each tier implements them; the plain one is the specification.

use half::f16;

/// Outputs side by side in one vector, and what a kernel does with them.
///
/// Integer results are exact, and every float operation is one correctly rounded operation per lane, so that all tiers give
/// the same bits.
///
/// # Safety
/// The methods may be called only on a processor that has the implementation's features. Pointers must be readable (or
/// writable) for the lengths that each method names; no alignment is needed.
pub(crate) unsafe trait Simd {
    /// Outputs in a vector: 8 or 16.
    const LANES: usize;
    /// `LANES` rows x 4 k of unsigned bytes.
    type W: Copy;
    /// `LANES` i32.
    type I: Copy;
    /// `LANES` f32.
    type F: Copy;

    /// A hint that the cache line at `p` will be read soon; `p` may point anywhere.
    unsafe fn prefetch(p: *const u8);
    /// Low and high nibbles of `4 * LANES` bytes.
    unsafe fn nibbles(p: *const u8) -> (Self::W, Self::W);
    /// `4 * LANES` bytes.
    unsafe fn bytes(p: *const u8) -> Self::W;
    /// `w | 16` where a bit of the `LANES / 2` bytes at `bits` is set.
    unsafe fn with_fifth(w: Self::W, bits: *const u8) -> Self::W;
    /// Per lane, the sum of `u * a` over `N` vectors and `4 * N` signed bytes at `a`, minus `zero_sum`. `BITS` bounds u; with 8 bits,
    /// `zero_sum` must be 128 times the sum of `a`, which an implementation may use instead of it. `a` is never -128.
    unsafe fn dot<const BITS: u32, const N: usize>(
        w: &[Self::W; N],
        a: *const i8,
        zero_sum: i32,
    ) -> Self::I;

    unsafe fn to_f32(i: Self::I) -> Self::F;
    /// `LANES` halves.
    unsafe fn halves(p: *const f16) -> Self::F;
    /// `LANES` bfloat16.
    unsafe fn bfloats(p: *const u16) -> Self::F;
    /// `LANES` floats.
    unsafe fn floats(p: *const f32) -> Self::F;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Writes `LANES` floats.
    unsafe fn store(p: *mut f32, f: Self::F);
}
