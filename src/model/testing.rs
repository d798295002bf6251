//! The three real models, for the tests that need them, and what others make of the small ones.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::arch::{Description, describe};
use super::load::gguf::Gguf;

pub(crate) const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub(crate) const GEMMA3: &str = "gemma-3-270m-Q4_K_M.gguf";
pub(crate) const QWEN2: &str = "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf";

/// A test model's file; `make models` fetches them.
pub(crate) fn model_path(file: &str) -> PathBuf {
    let folder = std::env::var_os("MILLRACE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/models")),
        PathBuf::from,
    );
    let path = folder.join(file);
    assert!(path.exists(), "{} is missing: run `make models`", path.display());
    path
}

/// What the model in a file is.
pub(super) fn described(path: &Path) -> Description {
    let gguf = Gguf::open(path).unwrap();
    describe(&gguf.metadata, &gguf.tensors, &gguf.unusable).unwrap()
}

#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) prompts: Vec<Prompt>,
    /// Where the GGUF is less than the folder: a window that llama.cpp knows nothing of.
    pub(crate) as_gguf: Option<Other>,
    /// For a server whose context is no longer than that of the training.
    pub(crate) original_context: Option<Other>,
}

#[derive(Deserialize)]
pub(crate) struct Other {
    pub(crate) prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    pub(crate) next_logprobs: Vec<f64>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) position: usize,
    /// Little-endian floats in base64.
    pub(crate) logprobs: String,
}

/// A small model in `tests/models`.
pub(crate) fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(model)
}

/// What transformers makes of it.
pub(crate) fn expected(model: &str) -> Expected {
    let text = fs::read_to_string(folder(model).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Log-probabilities after each token of each prompt.
pub(crate) type Rows = Vec<Vec<Vec<f64>>>;

pub(crate) fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x - max) - sum.ln()).collect()
}

/// Largest difference to the reference, in nats.
pub(crate) fn difference(rows: &Rows, prompts: &[Prompt]) -> f64 {
    let mut differences = Vec::new();
    for (prompt, rows) in prompts.iter().zip(rows) {
        for (i, want) in prompt.next_logprobs.iter().enumerate() {
            differences.push((rows[i][prompt.ids[i + 1] as usize] - want).abs());
        }
        for row in &prompt.rows {
            let bytes = BASE64_STANDARD.decode(&row.logprobs).unwrap();
            let wanted = bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)));
            let pairs = rows[row.position].iter().zip(wanted);
            differences.extend(pairs.map(|(got, want)| (got - want).abs()));
        }
    }
    // A NaN must not vanish, as it would in `f64::max`.
    differences.into_iter().max_by(f64::total_cmp).unwrap()
}
