//! Passes over a whole row, written so that the compiler turns them into vector code.
//!
//! Every sum has one fixed order: the same row gives the same bits.

/// Logits that are summed in f32 before the sum goes on in f64.
pub(super) const SPAN: usize = 64;
const LANES: usize = 16;

/// The highest logit; nothing if the row holds a NaN or +infinity.
pub(super) fn peak(logits: &[f32]) -> Option<f32> {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let mut bad = [false; LANES];
    let mut visit = |chunk: &[f32]| {
        for ((high, bad), &x) in highest.iter_mut().zip(&mut bad).zip(chunk) {
            *high = if x > *high { x } else { *high };
            *bad |= !x.is_finite() && x != f32::NEG_INFINITY;
        }
    };
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    chunks.for_each(&mut visit);
    visit(rest);
    let highest = highest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (!bad.contains(&true)).then_some(highest)
}

/// The lowest id whose logit is `max`.
pub(super) fn argmax(logits: &[f32], max: f32) -> usize {
    // Span by span, without an early exit inside: that part vectorises.
    let highest =
        |span: &[f32]| span.iter().fold(max.next_down(), |a, &x| if x > a { x } else { a });
    let first = logits.chunks(SPAN).position(|span| highest(span) >= max).unwrap_or(0) * SPAN;
    first + logits[first..].iter().position(|&x| x >= max).unwrap_or(0)
}

/// `e^x` for x at most 0, within 2e-7 of it in relation; 0 below -87.
///
/// Cephes' `expf` (Moshier): x = n ln 2 + r, a polynomial in r, and n goes into the exponent. Without
/// a branch or a conversion, so that it vectorises.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the constants as Cephes prints them")]
pub(super) fn exp(x: f32) -> f32 {
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

/// Sum of `e^((x - max) * scale)` over at most [`SPAN`] logits.
pub(super) fn exp_sum(span: &[f32], max: f32, scale: f32) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let mut visit = |chunk: &[f32]| {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += exp((x - max) * scale);
        }
    };
    let chunks = span.chunks_exact(LANES);
    let rest = chunks.remainder();
    chunks.for_each(&mut visit);
    visit(rest);
    lanes.into_iter().map(f64::from).sum()
}

/// `ln(sum of e^x)`, given the row's highest logit.
pub(super) fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    if max == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = logits.chunks(SPAN).map(|span| exp_sum(span, max, 1.0)).sum();
    f64::from(max) + sum.ln()
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
        assert!((log_sum_exp(&row, max) - exact).abs() < 1e-6);
    }
}
