//! From numbers to the forms that backends take.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::BlockType;

/// Appends rows of `cols` numbers as `kind`. Quantisation is candle's, which is ggml's.
pub(super) fn encode(
    kind: BlockType,
    values: &[f32],
    cols: usize,
    out: &mut Vec<u8>,
) -> Result<(), candle_core::Error> {
    match kind {
        BlockType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        BlockType::F16 => {
            out.extend(values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()));
        }
        BlockType::BF16 => {
            out.extend(values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()));
        }
        _ => {
            let rows = values.len() / cols;
            let tensor = Tensor::from_slice(values, (rows, cols), &Device::Cpu)?;
            out.extend_from_slice(&QTensor::quantize(&tensor, dtype(kind))?.data()?);
        }
    }
    Ok(())
}

/// What candle keeps it as.
pub(super) fn dtype(kind: BlockType) -> GgmlDType {
    match kind {
        BlockType::F32 => GgmlDType::F32,
        BlockType::F16 => GgmlDType::F16,
        BlockType::BF16 => GgmlDType::BF16,
        BlockType::Q4_0 => GgmlDType::Q4_0,
        BlockType::Q4_1 => GgmlDType::Q4_1,
        BlockType::Q5_0 => GgmlDType::Q5_0,
        BlockType::Q5_1 => GgmlDType::Q5_1,
        BlockType::Q8_0 => GgmlDType::Q8_0,
        BlockType::Q2K => GgmlDType::Q2K,
        BlockType::Q3K => GgmlDType::Q3K,
        BlockType::Q4K => GgmlDType::Q4K,
        BlockType::Q5K => GgmlDType::Q5K,
        BlockType::Q6K => GgmlDType::Q6K,
    }
}
