//! From the blocks of a model file to candle's quantised tensors, without candle's reader of files.

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};

use crate::backend::convert::dtype;
use crate::backend::read::read_all;
use crate::backend::{BackendError, LinearSource, TensorSource};

/// A matrix of several tensors of the file, stacked by rows. Neighbours of one block type are one
/// matrix; others are multiplied one by one.
pub struct Linear {
    parts: Vec<QMatMul>,
    bias: Option<Tensor>,
}

impl Linear {
    /// `exact`: as f32, not in blocks.
    pub(super) fn load(
        source: &LinearSource,
        device: &Device,
        exact: bool,
    ) -> Result<Self, BackendError> {
        let alike = |a: &TensorSource, b: &TensorSource| (a.kind, a.cols) == (b.kind, b.cols);
        let parts = source.weights.chunk_by(alike).map(|group| {
            let tensor = load(group, device)?;
            let matrix = if exact {
                tensor.dequantize(device).map(QMatMul::Tensor)
            } else {
                QMatMul::from_qtensor(tensor)
            };
            matrix.map_err(|e| unusable(&group[0], e))
        });
        let bias = match &source.bias[..] {
            [] => None,
            bias => Some(load_vector(bias, device)?),
        };
        Ok(Self { parts: parts.collect::<Result<_, _>>()?, bias })
    }

    /// `x` is `[m, cols]` and contiguous; the result `[m, rows]`.
    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let product = if let [one] = &self.parts[..] {
            one.forward(x)?
        } else {
            let all = self.parts.iter().map(|p| p.forward(x)).collect::<Result<Vec<_>, _>>()?;
            Tensor::cat(&all, 1)?
        };
        self.bias.as_ref().map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
    }

    /// The rows `ids`, as an embedding wants them.
    pub(super) fn rows(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        match &self.parts[..] {
            [one] => one.embedding(ids),
            _ => candle_core::bail!("an embedding of several tensors"),
        }
    }
}

/// Joins one-row tensors of any block type into one vector of f32.
pub(super) fn load_vector(
    sources: &[TensorSource],
    device: &Device,
) -> Result<Tensor, BackendError> {
    let mut parts = Vec::with_capacity(sources.len());
    for source in sources {
        let tensor = load(std::slice::from_ref(source), device)?;
        let flat = tensor.dequantize(device).and_then(|t| t.flatten_all());
        parts.push(flat.map_err(|e| unusable(source, e))?);
    }
    Tensor::cat(&parts, 0).map_err(|e| BackendError::Device(e.to_string()))
}

fn unusable(source: &TensorSource, reason: impl std::fmt::Display) -> BackendError {
    BackendError::Tensor { name: source.name.clone(), reason: reason.to_string() }
}

/// Stacks tensors of one type and width.
fn load(group: &[TensorSource], device: &Device) -> Result<QTensor, BackendError> {
    let first = &group[0];
    let mut bytes = vec![0; group.iter().map(TensorSource::byte_len).sum()];
    let mut rest = &mut bytes[..];
    for source in group {
        let (piece, after) = rest.split_at_mut(source.byte_len());
        read_all(source, piece)?;
        rest = after;
    }
    let rows: usize = group.iter().map(|s| s.rows).sum();
    QStorage::from_data(bytes.into(), device, dtype(first.kind))
        .and_then(|storage| QTensor::new(storage, (rows, first.cols)))
        .map_err(|e| unusable(first, e))
}
