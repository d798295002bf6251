//! The decoder with the three real models.

mod golden;
mod invariance;
mod steps;

use std::path::PathBuf;

use super::{Decoder, Limits};
use crate::backend::candle::CandleBackend;
use crate::backend::cpu::CpuBackend;
use crate::backend::{Batch, BlockId, KvDtype, LogitRows, Slice};
use crate::config::Kernels;
use crate::model::Model;
use crate::model::arch::describe;
use crate::model::load::gguf::Gguf;

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GEMMA3: &str = "gemma-3-270m-Q4_K_M.gguf";
const QWEN2: &str = "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf";

/// A test model's file; `make models` fetches them.
fn model_path(file: &str) -> PathBuf {
    let folder = std::env::var_os("MILLRACE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/models")),
        PathBuf::from,
    );
    let path = folder.join(file);
    assert!(path.exists(), "{} is missing: run `make models`", path.display());
    path
}

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
    let gguf = Gguf::open(&model_path(file)).unwrap();
    let description = describe(&gguf.metadata, &gguf.tensors, &gguf.unusable).unwrap();
    Decoder::load(CpuBackend::new(Some(threads), kernels).unwrap(), &description, limits).unwrap()
}

fn open_on_candle(file: &str, backend: CandleBackend, limits: Limits) -> Decoder<CandleBackend> {
    let gguf = Gguf::open(&model_path(file)).unwrap();
    let description = describe(&gguf.metadata, &gguf.tensors, &gguf.unusable).unwrap();
    Decoder::load(backend, &description, limits).unwrap()
}

/// Logits of all rows of one sequence in one step.
fn score(model: &mut dyn Model, tokens: &[u32], blocks: &[BlockId]) -> Vec<Vec<f32>> {
    let slice = Slice { tokens, start: 0, blocks, logits: LogitRows::All };
    let logits = model.forward(&Batch { slices: &[slice] }).unwrap();
    (0..tokens.len()).map(|i| logits.row(i).to_vec()).collect()
}
