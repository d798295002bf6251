//! Work on single rows, generic over [`Lanes`]: norms, rotation, gates. Each row's result depends on
//! that row alone.

use super::lanes::{LANES, Lanes, exp, sigmoid};
use crate::backend::{Activation, LogitMap, RopePairs};

/// `out = x / sqrt(mean(x^2) + eps) * weight`, all of one length, a multiple of 16.
#[inline(always)]
pub(super) fn rms_norm<L: Lanes>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len();
    assert!(n.is_multiple_of(LANES) && weight.len() == n && out.len() == n);
    let scale = L::splat(rms_scale::<L>(x, eps));
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of all three.
        unsafe {
            let y = L::load(x.as_ptr().add(i)).mul(scale).mul(L::load(weight.as_ptr().add(i)));
            y.store(out.as_mut_ptr().add(i));
        }
    }
}

/// `out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias`, all of one length, a multiple of 16.
#[inline(always)]
pub(super) fn layer_norm<L: Lanes>(
    x: &[f32],
    (weight, bias): (&[f32], &[f32]),
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len();
    assert!(n.is_multiple_of(LANES) && weight.len() == n && bias.len() == n && out.len() == n);
    let mut sum = L::splat(0.0);
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`.
        sum = sum.add(unsafe { L::load(x.as_ptr().add(i)) });
    }
    let mean = L::splat(sum.sum() / n as f32);
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of both.
        unsafe { L::load(x.as_ptr().add(i)).sub(mean).store(out.as_mut_ptr().add(i)) };
    }
    let scale = L::splat(rms_scale::<L>(out, eps));
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of all three.
        unsafe {
            let y = L::load(out.as_ptr().add(i)).mul(scale);
            let y = y.mul_add(L::load(weight.as_ptr().add(i)), L::load(bias.as_ptr().add(i)));
            y.store(out.as_mut_ptr().add(i));
        }
    }
}

/// `x += norm(y) * times`
#[inline(always)]
pub(super) fn add_rms_norm<L: Lanes>(
    x: &mut [f32],
    y: &[f32],
    weight: &[f32],
    eps: f32,
    times: f32,
) {
    let n = x.len();
    assert!(n.is_multiple_of(LANES) && weight.len() == n && y.len() == n);
    let scale = L::splat(rms_scale::<L>(y, eps) * times);
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of all three.
        unsafe {
            let y = L::load(y.as_ptr().add(i)).mul(scale).mul(L::load(weight.as_ptr().add(i)));
            L::load(x.as_ptr().add(i)).add(y).store(x.as_mut_ptr().add(i));
        }
    }
}

/// `x += y * scale`
#[inline(always)]
pub(super) fn add_scaled<L: Lanes>(x: &mut [f32], y: &[f32], scale: f32) {
    let n = x.len();
    assert!(n.is_multiple_of(LANES) && y.len() == n);
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of both.
        unsafe {
            let y = L::load(y.as_ptr().add(i)).mul(L::splat(scale));
            L::load(x.as_ptr().add(i)).add(y).store(x.as_mut_ptr().add(i));
        }
    }
}

/// In place, for one row. A vocabulary need not be a multiple of 16.
#[inline(always)]
pub(super) fn map_logits<L: Lanes>(logits: &mut [f32], map: LogitMap) {
    let mapped = |x: L| {
        let x = x.mul(L::splat(map.scale));
        map.softcap.map_or(x, |cap| soft_cap(x, cap))
    };
    let (whole, rest) = logits.as_chunks_mut::<LANES>();
    for chunk in whole {
        // SAFETY: a chunk has 16 floats.
        unsafe { mapped(L::load(chunk.as_ptr())).store(chunk.as_mut_ptr()) };
    }
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // SAFETY: the array has 16 floats.
    unsafe { mapped(L::load(last.as_ptr())).store(last.as_mut_ptr()) };
    rest.copy_from_slice(&last[..rest.len()]);
}

/// In place, for one head of q or k.
#[inline(always)]
pub(super) fn rms_norm_in_place<L: Lanes>(x: &mut [f32], weight: &[f32], eps: f32) {
    let n = x.len();
    assert!(n.is_multiple_of(LANES) && weight.len() == n);
    let scale = L::splat(rms_scale::<L>(x, eps));
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of both.
        unsafe {
            let y = L::load(x.as_ptr().add(i)).mul(scale).mul(L::load(weight.as_ptr().add(i)));
            y.store(x.as_mut_ptr().add(i));
        }
    }
}

#[inline(always)]
fn rms_scale<L: Lanes>(x: &[f32], eps: f32) -> f32 {
    let mut sum = L::splat(0.0);
    for i in (0..x.len()).step_by(LANES) {
        // SAFETY: the callers asked that the length is a multiple of 16.
        let v = unsafe { L::load(x.as_ptr().add(i)) };
        sum = v.mul_add(v, sum);
    }
    1.0 / (sum.sum() / x.len() as f32 + eps).sqrt()
}

/// Rotates one head in place by the angles whose cosines and sines are given, one for each pair.
#[inline(always)]
pub(super) fn rotate(x: &mut [f32], pairs: RopePairs, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let sin = &sin[..half];
    match pairs {
        RopePairs::Halves => {
            let (low, high) = x[..2 * half].split_at_mut(half);
            for i in 0..half {
                let (a, b) = (low[i], high[i]);
                low[i] = a * cos[i] - b * sin[i];
                high[i] = a * sin[i] + b * cos[i];
            }
        }
        RopePairs::Interleaved => {
            let (pairs, _) = x[..2 * half].as_chunks_mut::<2>();
            for ([a, b], (c, s)) in pairs.iter_mut().zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
            }
        }
    }
}

/// What stands between the products of an MLP: `out` of one activation, or of gate, then up.
#[inline(always)]
pub(super) fn activate<L: Lanes>(gate_up: &[f32], activation: Activation, out: &mut [f32]) {
    let n = out.len();
    assert!(n.is_multiple_of(LANES) && gate_up.len() == activation.inputs() * n);
    // The last n: all of them where there is no gate.
    let (gate, up) = (&gate_up[..n], &gate_up[gate_up.len() - n..]);
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of all three.
        unsafe {
            let (gate, up) = (L::load(gate.as_ptr().add(i)), L::load(up.as_ptr().add(i)));
            let y = match activation {
                Activation::SiluGate => gate.mul(sigmoid(gate)).mul(up),
                Activation::GeluGate => gelu(gate).mul(up),
                Activation::ClampedGate => clamped_gate(gate, up),
                Activation::Gelu => gelu(up),
            };
            y.store(out.as_mut_ptr().add(i));
        }
    }
}

#[inline(always)]
fn gelu<L: Lanes>(x: L) -> L {
    /// `2 sqrt(2 / pi)`: `0.5 (1 + tanh u)` is `sigmoid(2 u)`.
    const TWICE_ROOT: f32 = 1.595_769;
    let cubic = x.mul(x).mul_add(L::splat(0.044_715), L::splat(1.0));
    x.mul(sigmoid(x.mul(cubic).mul(L::splat(TWICE_ROOT))))
}

#[inline(always)]
fn clamped_gate<L: Lanes>(gate: L, up: L) -> L {
    /// As in gpt-oss; no file says otherwise.
    const LIMIT: f32 = 7.0;
    const SLOPE: f32 = 1.702;
    // In this order a NaN stays one.
    let gate = L::splat(LIMIT).min(gate);
    let up = L::splat(LIMIT).min(L::splat(-LIMIT).max(up));
    up.add(L::splat(1.0)).mul(gate.mul(sigmoid(gate.mul(L::splat(SLOPE)))))
}

/// `cap * tanh(x / cap)`
#[inline(always)]
pub(super) fn soft_cap<L: Lanes>(x: L, cap: f32) -> L {
    let one = L::splat(1.0);
    let twice = x.div(L::splat(cap)).mul(L::splat(2.0));
    let tanh = one.sub(L::splat(2.0).div(one.add(exp(twice))));
    tanh.mul(L::splat(cap))
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "exact values and equal bits are what is tested")]
mod tests {
    use super::super::lanes::{Floats, Portable};
    use super::*;

    fn ramp(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 - n as f32 / 3.0) * 0.1).collect()
    }

    fn close(got: &[f32], want: impl Iterator<Item = f64>) {
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!(
                (f64::from(*got) - want).abs() < 1e-5 * (1.0 + want.abs()),
                "{i}: {got} {want}"
            );
        }
    }

    #[test]
    fn norms_divide_by_the_root_of_the_mean_square() {
        let (x, w) = (ramp(64), ramp(64));
        let square: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let scale = 1.0 / (square / 64.0 + 1e-3).sqrt();
        let want: Vec<f64> =
            x.iter().zip(&w).map(|(x, w)| f64::from(*x) * scale * f64::from(*w)).collect();
        let mut out = vec![0.0; 64];
        rms_norm::<Portable>(&x, &w, 1e-3, &mut out);
        close(&out, want.iter().copied());
        let mut in_place = x.clone();
        rms_norm_in_place::<Portable>(&mut in_place, &w, 1e-3);
        assert_eq!(in_place, out);
        let mut stream = vec![2.0; 64];
        add_rms_norm::<Portable>(&mut stream, &x, &w, 1e-3, 1.0);
        close(&stream, want.iter().map(|x| 2.0 + x));
        let mut stream = vec![2.0; 64];
        add_rms_norm::<Portable>(&mut stream, &x, &w, 1e-3, 0.25);
        close(&stream, want.iter().map(|x| 2.0 + x * 0.25));
        let mut stream = vec![2.0; 64];
        add_scaled::<Portable>(&mut stream, &x, 0.25);
        close(&stream, x.iter().map(|x| 2.0 + f64::from(*x) * 0.25));
    }

    #[test]
    fn layer_norms_take_the_mean_away() {
        let (x, w, b) = (ramp(64), ramp(64), vec![0.5; 64]);
        let of = |x: f32| f64::from(x);
        let mean = x.iter().map(|&x| of(x)).sum::<f64>() / 64.0;
        let variance = x.iter().map(|&x| (of(x) - mean).powi(2)).sum::<f64>() / 64.0;
        let mut out = vec![0.0; 64];
        layer_norm::<Portable>(&x, (&w, &b), 1e-3, &mut out);
        let root = (variance + 1e-3).sqrt();
        close(&out, x.iter().zip(&w).map(|(&x, &w)| (of(x) - mean) / root * of(w) + 0.5));
    }

    #[test]
    fn pairs_are_turned_and_the_rest_passes() {
        let (sin, cos): (Vec<f32>, Vec<f32>) = [0.3_f32, 1.2].iter().map(|a| a.sin_cos()).unzip();
        let turned = |a: f32, b: f32, i: usize| (a * cos[i] - b * sin[i], a * sin[i] + b * cos[i]);
        let mut x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rotate(&mut x, RopePairs::Interleaved, &cos, &sin);
        let ((a, b), (c, d)) = (turned(1.0, 2.0, 0), turned(3.0, 4.0, 1));
        assert_eq!(x, [a, b, c, d, 5.0, 6.0]);
        let mut x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        rotate(&mut x, RopePairs::Halves, &cos, &sin);
        let ((a, c), (b, d)) = (turned(1.0, 3.0, 0), turned(2.0, 4.0, 1));
        assert_eq!(x, [a, b, c, d, 5.0, 6.0]);
    }

    #[test]
    fn activations_are_what_their_names_say() {
        let (gate, up) = (ramp(64), ramp(64).into_iter().rev().map(|x| 3.0 * x));
        let gate_up: Vec<f32> = gate.into_iter().chain(up).collect();
        let silu = |x: f64, slope: f64| x / (1.0 + (-slope * x).exp());
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let gelu = |x: f64| 0.5 * x * (1.0 + (root * (x + 0.044_715 * x.powi(3))).tanh());
        let check = |of: Activation, gate_up: &[f32], want: &dyn Fn(f64, f64) -> f64| {
            let mut out = vec![0.0; 64];
            activate::<Portable>(gate_up, of, &mut out);
            let pairs = gate_up.iter().zip(&gate_up[gate_up.len() - 64..]).take(64);
            close(&out, pairs.map(|(&gate, &up)| want(gate.into(), up.into())));
        };
        check(Activation::SiluGate, &gate_up, &|gate, up| silu(gate, 1.0) * up);
        check(Activation::GeluGate, &gate_up, &|gate, up| gelu(gate) * up);
        check(Activation::Gelu, &gate_up[..64], &|_, up| gelu(up));
        let wide: Vec<f32> = gate_up.iter().map(|x| x * 7.0 / 1.5).collect();
        check(Activation::ClampedGate, &wide, &|gate, up| {
            silu(gate.min(7.0), 1.702) * (up.clamp(-7.0, 7.0) + 1.0)
        });
        let capped = soft_cap(<Portable>::splat(7.0), 5.0).to_array();
        close(&capped, std::iter::repeat_n(5.0 * (1.4_f64).tanh(), 16));
    }

    #[test]
    fn logits_are_scaled_then_capped_to_the_last() {
        for n in [1, 15, 16, 40] {
            let mut logits = ramp(n);
            map_logits::<Portable>(&mut logits, LogitMap { scale: 3.0, softcap: Some(2.0) });
            close(&logits, ramp(n).iter().map(|x| 2.0 * (1.5 * f64::from(*x)).tanh()));
            let mut logits = ramp(n);
            map_logits::<Portable>(&mut logits, LogitMap { scale: 3.0, softcap: None });
            close(&logits, ramp(n).iter().map(|x| 3.0 * f64::from(*x)));
        }
    }
}
