//! Work on single rows, generic over [`Lanes`]: norms, rotation, gates. Each row's result depends on
//! that row alone.

use super::lanes::{LANES, Lanes, exp, sigmoid};
use crate::backend::{Activation, RopePairs};

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

/// `x += norm(y)`
#[inline(always)]
pub(super) fn add_rms_norm<L: Lanes>(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32) {
    let n = x.len();
    assert!(n.is_multiple_of(LANES) && weight.len() == n && y.len() == n);
    let scale = L::splat(rms_scale::<L>(y, eps));
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of all three.
        unsafe {
            let y = L::load(y.as_ptr().add(i)).mul(scale).mul(L::load(weight.as_ptr().add(i)));
            L::load(x.as_ptr().add(i)).add(y).store(x.as_mut_ptr().add(i));
        }
    }
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

/// `out = act(gate) * up`, where the row holds gate, then up.
#[inline(always)]
pub(super) fn gate<L: Lanes>(gate_up: &[f32], activation: Activation, out: &mut [f32]) {
    let n = out.len();
    assert!(n.is_multiple_of(LANES) && gate_up.len() == 2 * n);
    let (gate, up) = gate_up.split_at(n);
    for i in (0..n).step_by(LANES) {
        // SAFETY: `i + 16 <= n`, the length of all three.
        unsafe {
            let g = L::load(gate.as_ptr().add(i));
            let y = activate(g, activation).mul(L::load(up.as_ptr().add(i)));
            y.store(out.as_mut_ptr().add(i));
        }
    }
}

#[inline(always)]
fn activate<L: Lanes>(x: L, activation: Activation) -> L {
    /// `2 sqrt(2 / pi)`: `0.5 (1 + tanh u)` is `sigmoid(2 u)`.
    const TWICE_ROOT: f32 = 1.595_769_1;
    match activation {
        Activation::Silu => x.mul(sigmoid(x)),
        Activation::GeluTanh => {
            let cubic = x.mul(x).mul_add(L::splat(0.044_715), L::splat(1.0));
            x.mul(sigmoid(x.mul(cubic).mul(L::splat(TWICE_ROOT))))
        }
    }
}

/// `cap * tanh(x / cap)`
#[inline(always)]
pub(super) fn soft_cap<L: Lanes>(x: L, cap: f32) -> L {
    let one = L::splat(1.0);
    let twice = x.div(L::splat(cap)).mul(L::splat(2.0));
    let tanh = one.sub(L::splat(2.0).div(one.add(exp(twice))));
    tanh.mul(L::splat(cap))
}
