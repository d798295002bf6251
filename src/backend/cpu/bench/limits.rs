//! What this processor can do at most: bytes read and multiply-accumulates, with the threads of a pool.

use std::hint::black_box;

use crate::backend::cpu::gemm::{Tier, prefetch};
use crate::backend::cpu::pack::Line;
use crate::backend::cpu::pool::Pool;

/// Lines in a unit of work: 256 KiB, about what a kernel takes at once.
const UNIT: usize = 4096;
/// Lines that are asked for ahead of their use, as the kernels do it.
const AHEAD: usize = 64;

/// A buffer that is read from first to last.
pub struct Reader {
    lines: Vec<Line>,
}

impl Reader {
    /// A buffer of `bytes`, written once so that memory stands behind all of it.
    pub fn new(bytes: usize) -> Self {
        Self { lines: (0..bytes / 64).map(|i| Line([i as u8 | 1; 64])).collect() }
    }

    pub fn bytes(&self) -> usize {
        self.lines.len() * 64
    }

    /// Reads all of it once, in units that the pool's threads take in turn.
    pub fn run(&self, pool: &mut Pool) {
        pool.run(self.lines.len().div_ceil(UNIT), &|unit, _| {
            let first = unit * UNIT;
            let last = (first + UNIT).min(self.lines.len());
            let mut sums = [0_u64; 8];
            for (i, line) in self.lines[first..last].iter().enumerate() {
                prefetch(self.lines.as_ptr().wrapping_add(first + i + AHEAD).cast());
                for (sum, bytes) in sums.iter_mut().zip(line.0.as_chunks::<8>().0) {
                    *sum = sum.wrapping_add(u64::from_ne_bytes(*bytes));
                }
            }
            black_box(sums);
        });
    }
}

/// The innermost arithmetic of a tier alone: its dot instruction and what accumulates it, on registers.
#[derive(Clone, Copy)]
pub struct Peak {
    work: unsafe fn(usize),
    macs_a_round: usize,
}

impl Peak {
    /// For weights of `bits` bits (4, 5, 6 or 8), or float ones (`None`). `None` for a tier that is held to no limit.
    ///
    /// The processor must have the tier.
    pub fn of(tier: Tier, bits: Option<u32>) -> Option<Self> {
        assert!(tier.is_available());
        #[cfg(target_arch = "x86_64")]
        return x86::peak(tier, bits);
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }

    /// `rounds` rounds on each thread.
    pub fn run(&self, pool: &mut Pool, rounds: usize) {
        pool.run(pool.threads(), &|_, _| {
            // SAFETY: `of` has seen that the processor has the tier.
            unsafe { (self.work)(rounds) }
        });
    }

    /// Multiply-accumulates of [`Self::run`].
    pub fn macs(&self, pool: &Pool, rounds: usize) -> usize {
        self.macs_a_round * rounds * pool.threads()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_set1_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_set1_epi8,
        _mm512_set1_ps,
    };
    use std::hint::black_box;

    use super::{Peak, Tier};

    /// Sums that go on side by side: more than latency times ports of any of these instructions.
    const SUMS: usize = 12;

    pub(super) fn peak(tier: Tier, bits: Option<u32>) -> Option<Peak> {
        let (work, macs): (unsafe fn(usize), usize) = match (tier, bits) {
            (Tier::Scalar, _) => return None,
            (Tier::Avx2, Some(4)) => (maddubs::<8>, 8 * 32),
            (Tier::Avx2, Some(5)) => (maddubs::<4>, 4 * 32),
            (Tier::Avx2, Some(6)) => (maddubs::<2>, 2 * 32),
            (Tier::Avx2, Some(_)) => (maddubs::<1>, 32),
            (Tier::AvxVnni, Some(_)) => (dpbusd256, 32),
            (Tier::Avx2 | Tier::AvxVnni, None) => (fma256, 8),
            (Tier::Avx512, Some(_)) => (dpbusd512, 64),
            (Tier::Avx512, None) => (fma512, 16),
        };
        Some(Peak { work, macs_a_round: macs * SUMS })
    }

    /// `$step` adds to each of the sums in every round.
    macro_rules! rounds {
        ($name:ident, $features:literal, $splat:ident($w:literal, $a:literal), |$sum:ident, $x:ident, $y:ident| $step:expr) => {
            #[target_feature(enable = $features)]
            fn $name(rounds: usize) {
                let ($x, $y) = black_box(($splat($w), $splat($a)));
                // They begin apart, or the compiler would compute one of them.
                let mut sums: [_; SUMS] = std::array::from_fn(|i| $splat(i as _));
                for _ in 0..rounds {
                    for sum in &mut sums {
                        let $sum = *sum;
                        *sum = $step;
                    }
                }
                black_box(sums);
            }
        };
    }
    rounds!(dpbusd512, "avx512f,avx512vnni", _mm512_set1_epi8(9, -3), |sum, w, a| {
        _mm512_dpbusd_epi32(sum, w, a)
    });
    rounds!(dpbusd256, "avx2,avxvnni", _mm256_set1_epi8(9, -3), |sum, w, a| {
        _mm256_dpbusd_avx_epi32(sum, w, a)
    });
    rounds!(fma512, "avx512f", _mm512_set1_ps(0.5, 0.25), |sum, w, a| _mm512_fmadd_ps(w, a, sum));
    rounds!(fma256, "avx2,fma", _mm256_set1_ps(0.5, 0.25), |sum, w, a| _mm256_fmadd_ps(w, a, sum));

    /// `AT_ONCE` products are added in i16 before they are widened: what the bits of a weight allow.
    #[target_feature(enable = "avx2")]
    fn maddubs<const AT_ONCE: usize>(rounds: usize) {
        let w = black_box(_mm256_set1_epi8(9));
        let ones = black_box(_mm256_set1_epi16(1));
        let mut a = black_box(_mm256_set1_epi8(-3));
        let mut sums: [__m256i; 4] = std::array::from_fn(|i| _mm256_set1_epi32(i as i32));
        for _ in 0..rounds * SUMS / 4 {
            for sum in &mut sums {
                let mut products = _mm256_maddubs_epi16(w, a);
                for _ in 1..AT_ONCE {
                    a = changed(a);
                    products = _mm256_add_epi16(products, _mm256_maddubs_epi16(w, a));
                }
                a = changed(a);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
            }
        }
        black_box(sums);
    }

    /// The same register, which the compiler takes for another value: it would compute equal products once.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn changed(mut a: __m256i) -> __m256i {
        // SAFETY: no instruction.
        unsafe { asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack, preserves_flags)) };
        a
    }
}
