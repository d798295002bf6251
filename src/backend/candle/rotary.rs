//! Rotary embedding of a step's rows, each at its own position.

use candle_core::{Device, Result, Tensor};
use candle_nn::rotary_emb;

use crate::backend::{Rope, RopePairs};

/// Positions of the rows, and the tables made for them so far: layers share few rotations.
#[derive(Default)]
pub(super) struct Rotary {
    positions: Vec<usize>,
    tables: Vec<(Rope, Tensor, Tensor)>,
}

impl Rotary {
    pub(super) fn new(positions: Vec<usize>) -> Self {
        Self { positions, tables: Vec::new() }
    }

    /// Cosines and sines, `[rows, 1, dims / 2]`.
    pub(super) fn tables(&mut self, rope: &Rope, device: &Device) -> Result<(Tensor, Tensor)> {
        if let Some((_, cos, sin)) = self.tables.iter().find(|(known, ..)| known == rope) {
            return Ok((cos.clone(), sin.clone()));
        }
        let angles: Vec<f32> = (self.positions.iter())
            .flat_map(|&p| rope.inv_freq.iter().map(move |f| p as f32 * f))
            .collect();
        let shape = (self.positions.len(), 1, rope.inv_freq.len());
        let angles = Tensor::from_vec(angles, shape, device)?;
        let grown = |x: Tensor| x.affine(rope.magnitude.into(), 0.0);
        let (cos, sin) = (grown(angles.cos()?)?, grown(angles.sin()?)?);
        self.tables.push((rope.clone(), cos.clone(), sin.clone()));
        Ok((cos, sin))
    }
}

/// Turns `x`, `[rows, heads, head_dim]`.
pub(super) fn apply(x: &Tensor, rope: &Rope, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (rows, heads, d) = x.dims3()?;
    if rope.dims == 0 {
        return Ok(x.clone());
    }
    // Each row is a batch of its own with one position, so that rows need not follow each other.
    let turn = |x: &Tensor| {
        let x = x.contiguous()?.reshape((rows, heads, 1, rope.dims))?;
        let turned = match rope.pairs {
            RopePairs::Interleaved => rotary_emb::rope_i(&x, cos, sin)?,
            RopePairs::Halves => rotary_emb::rope(&x, cos, sin)?,
        };
        turned.reshape((rows, heads, rope.dims))
    };
    if rope.dims == d {
        return turn(x);
    }
    let passed = x.narrow(2, rope.dims, d - rope.dims)?;
    Tensor::cat(&[&turn(&x.narrow(2, 0, rope.dims)?)?, &passed.contiguous()?], 2)
}
