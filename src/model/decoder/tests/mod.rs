//! The decoder with the three real models, and with small ones of every family.

mod golden;
mod invariance;
mod references;
mod steps;

use super::{Decoder, Limits};
use crate::backend::candle::CandleBackend;
use crate::backend::cpu::CpuBackend;
use crate::backend::{Batch, BlockId, KvDtype, LogitRows, Slice};
use crate::config::Kernels;
use crate::model::Model;
use crate::model::testing::{GEMMA3, QWEN2, SMOLLM2, described, model_path};

fn limits(rows: usize, blocks: usize) -> Limits {
    Limits {
        max_rows: rows,
        max_logit_rows: rows,
        blocks,
        kv_dtype: KvDtype::F16,
        max_context: 2048,
        end_tokens: Vec::new(),
    }
}

fn open(file: &str, kernels: Kernels, threads: usize, limits: Limits) -> Decoder<CpuBackend> {
    let backend = CpuBackend::new(Some(threads), kernels).unwrap();
    Decoder::load(backend, &described(&model_path(file)), limits).unwrap()
}

fn open_on_candle(file: &str, backend: CandleBackend, limits: Limits) -> Decoder<CandleBackend> {
    Decoder::load(backend, &described(&model_path(file)), limits).unwrap()
}

/// Logits of all rows of one sequence in one step.
fn score(model: &mut dyn Model, tokens: &[u32], blocks: &[BlockId]) -> Vec<Vec<f32>> {
    let slice = Slice { tokens, start: 0, blocks, logits: LogitRows::All };
    let logits = model.forward(&Batch { slices: &[slice] }).unwrap();
    (0..tokens.len()).map(|i| logits.row(i).to_vec()).collect()
}
