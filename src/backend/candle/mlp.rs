//! MLPs, alone and as experts.

use candle_core::{Result, Tensor};
use candle_nn::ops;

use super::CandleBackend;
use super::weights::Linear;
use crate::backend::{Activation, Choice, Experts, MlpWeights};

/// `down(act(up(x)))`
pub(super) fn mlp(x: &Tensor, w: &MlpWeights<Linear>, activation: Activation) -> Result<Tensor> {
    let wide = w.up.forward(x)?;
    // candle's `gelu` is the approximation by tanh.
    let hidden = match activation {
        Activation::SiluGate => ops::swiglu(&wide)?,
        Activation::Gelu => wide.gelu()?,
        Activation::GeluGate | Activation::ClampedGate => {
            let halves = wide.chunk(2, 1)?;
            let (gate, up) = (&halves[0], &halves[1]);
            if activation == Activation::GeluGate {
                (gate.gelu()? * up)?
            } else {
                clamped_gate(gate, up)?
            }
        }
    };
    w.down.forward(&hidden.contiguous()?)
}

/// With the limit and the slope of gpt-oss.
fn clamped_gate(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (gate, up) = (gate.minimum(7.0)?, up.clamp(-7.0, 7.0)?);
    (up + 1.0)? * (&gate * ops::sigmoid(&(&gate * 1.702)?)?)?
}

/// The weighted sum of what the experts of each row of `x` make of it.
pub(super) fn experts(x: &Tensor, e: &Experts<'_, CandleBackend>) -> Result<Tensor> {
    let mut sum = match &e.weights.shared {
        None => x.zeros_like()?,
        Some(shared) => {
            let share = ops::sigmoid(&shared.gate.forward(x)?)?;
            mlp(x, &shared.mlp, e.activation)?.broadcast_mul(&share)?
        }
    };
    let used = e.routing.used;
    let scores = e.weights.router.forward(x)?.to_vec2::<f32>()?;
    let mut chosen = vec![Choice::default(); scores.len() * used];
    for (scores, chosen) in scores.iter().zip(chosen.chunks_mut(used)) {
        e.routing.choose(scores, chosen);
    }
    for (expert, weights) in e.weights.experts.iter().enumerate() {
        let of_this = chosen.iter().enumerate().filter(|(_, choice)| choice.expert == expert);
        let (rows, shares): (Vec<u32>, Vec<f32>) =
            of_this.map(|(i, choice)| ((i / used) as u32, choice.weight)).unzip();
        if rows.is_empty() {
            continue;
        }
        let shares = Tensor::from_vec(shares, (rows.len(), 1), x.device())?;
        let rows = Tensor::new(rows, x.device())?;
        let y = mlp(&x.index_select(&rows, 0)?, weights, e.activation)?;
        sum = sum.index_add(&rows, &y.broadcast_mul(&shares)?, 0)?;
    }
    Ok(sum)
}
