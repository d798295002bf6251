//! Passes over a row of logits, plain loops that the compiler turns into vector code, once a tier.
//!
//! Every sum has one fixed order: the same row gives the same bits, on every processor.

use super::gemm::Tier;

/// Logits that are summed in f32 before the sum goes on in f64.
pub(crate) const SPAN: usize = 64;
const LANES: usize = 16;

/// Functions that are compiled for each tier from one inlined source: loops, since a closure that is not inlined is compiled
/// without the tier's features.
macro_rules! for_all_tiers {
    ($($(#[$doc:meta])* $name:ident = $inner:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    $inner($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    $inner($($arg),*)
                }
                if Tier::Avx512.is_available() {
                    // SAFETY: asked just now.
                    return unsafe { avx512($($arg),*) };
                }
                if Tier::Avx2.is_available() {
                    // SAFETY: asked just now.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $inner($($arg),*)
        }
    )*};
}

for_all_tiers! {
    /// The highest logit; nothing if the row holds a NaN or +infinity.
    peak = peak_in(logits: &[f32]) -> Option<f32>;
    /// The lowest id whose logit is `max`.
    argmax = argmax_in(logits: &[f32], max: f32) -> usize;
    /// Sums of `e^((x - max) * scale)` over each [`SPAN`] logits of a row, first to last.
    exp_sums = exp_sums_in(row: &[f32], max: f32, scale: f32, sums: &mut Vec<f64>);
}

#[inline(always)]
fn peak_in(logits: &[f32]) -> Option<f32> {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let mut bad = [false; LANES];
    // Loops, not closures: one that is not inlined is compiled without the features.
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for ((high, bad), &x) in highest.iter_mut().zip(&mut bad).zip(chunk) {
            *high = if x > *high { x } else { *high };
            *bad |= x.is_nan() || x == f32::INFINITY;
        }
    }
    for ((high, bad), &x) in highest.iter_mut().zip(&mut bad).zip(rest) {
        *high = if x > *high { x } else { *high };
        *bad |= x.is_nan() || x == f32::INFINITY;
    }
    let highest = highest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (!bad.contains(&true)).then_some(highest)
}

#[inline(always)]
fn argmax_in(logits: &[f32], max: f32) -> usize {
    for (at, span) in logits.chunks(SPAN).enumerate() {
        // Without an early exit inside: that part vectorises.
        let mut highest = max.next_down();
        for &x in span {
            highest = if x > highest { x } else { highest };
        }
        if highest >= max {
            return at * SPAN + span.iter().position(|&x| x >= max).unwrap_or(0);
        }
    }
    0
}

/// `e^x` for x at most 0, within 2e-7 of it in relation; 0 below -87.
///
/// Cephes' `expf` (Moshier): x = n ln 2 + r, a polynomial in r, and n goes into the exponent. Without
/// a branch or a conversion, so that it vectorises.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let y = if x > LOWEST { x } else { LOWEST };
    let shifted = y * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = y - n * 0.693_359_375 + n * 2.121_944_40e-4;
    let mut p = 1.987_569_150_0e-4;
    p = p * r + 1.398_199_950_7e-3;
    p = p * r + 8.333_451_907_3e-3;
    p = p * r + 4.166_579_589_4e-2;
    p = p * r + 1.666_666_545_9e-1;
    p = p * r + 5.000_000_120_1e-1;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    let value = (p * r * r + r + 1.0) * power;
    if x > LOWEST { value } else { 0.0 }
}

#[inline(always)]
fn exp_sums_in(row: &[f32], max: f32, scale: f32, sums: &mut Vec<f64>) {
    sums.clear();
    for span in row.chunks(SPAN) {
        sums.push(exp_sum(span, max, scale));
    }
}

#[inline(always)]
fn exp_sum(span: &[f32], max: f32, scale: f32) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = span.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += exp((x - max) * scale);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += exp((x - max) * scale);
    }
    lanes.into_iter().map(f64::from).sum()
}

/// `ln(sum of e^x)`, given the row's highest logit; `sums` is a buffer.
pub(crate) fn log_sum_exp(logits: &[f32], max: f32, sums: &mut Vec<f64>) -> f64 {
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    exp_sums(logits, max, 1.0, sums);
    f64::from(max) + sums.iter().sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "{x}: {error}");
        }
        assert!((exp(0.0) - 1.0).abs() < f32::EPSILON);
        assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
        assert_eq!(exp(-1e30).to_bits(), 0);
    }

    #[test]
    fn a_bad_value_anywhere_is_seen() {
        for len in [1, 15, 16, 17, 100] {
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut row = vec![1.0; len];
                    row[at] = bad;
                    assert_eq!(peak(&row), None);
                }
                let mut row = vec![-2.0; len];
                row[at] = -1.0;
                assert_eq!(peak(&row), Some(-1.0));
                assert_eq!(argmax(&row, -1.0), at);
            }
        }
        assert_eq!(peak(&[f32::NEG_INFINITY; 3]), Some(f32::NEG_INFINITY));
    }

    #[test]
    fn the_sum_is_that_of_f64() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 / 50.0 - 10.0).collect();
        let max = peak(&row).unwrap();
        let exact = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&row, max, &mut Vec::new()) - exact).abs() < 1e-6);
    }
}
