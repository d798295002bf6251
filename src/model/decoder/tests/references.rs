//! Small random models of each family (`tests/models`) beside what transformers makes of the same
//! weights in float32: every description, whole, in chunks, token by token, and in a batch.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::golden::log_softmax;
use super::{described, limits};
use crate::backend::candle::{CandleBackend, Place};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Batch, BlockId, KvDtype, LogitRows, Slice};
use crate::config::Kernels;
use crate::model::Model;
use crate::model::decoder::{Decoder, Limits};

const MODELS: [&str; 10] = [
    "llama", "llama3", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "smollm3",
    "granite",
];
/// Blocks of one prompt; the longest has 150 tokens.
const BLOCKS: usize = 5;

/// Largest difference in nats. The weights are floats, which nothing here rounds, so what differs is the
/// order of sums: transformers in float64 differs from itself by up to 5e-5, and so does this, where the
/// least mistake that a reader of these files could make costs 1.9.
const DIFFERENCE_MAX: f64 = 1e-3;

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Prompt>,
    /// Where the GGUF is less than the folder: a window that llama.cpp knows nothing of.
    as_gguf: Option<AsGguf>,
}

#[derive(Deserialize)]
struct AsGguf {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    next_logprobs: Vec<f64>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    position: usize,
    /// Little-endian floats in base64.
    logprobs: String,
}

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(model)
}

fn prompts(model: &str) -> Vec<Prompt> {
    let text = fs::read_to_string(folder(model).join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    expected.as_gguf.map_or(expected.prompts, |as_gguf| as_gguf.prompts)
}

/// Room for all prompts at once.
fn room() -> Limits {
    Limits { kv_dtype: KvDtype::F32, max_context: 256, ..limits(512, 4 * BLOCKS) }
}

/// How prompts go through the model.
#[derive(Debug, Clone, Copy)]
enum Way {
    Whole,
    /// In chunks of so many tokens.
    Chunks(usize),
    /// Those of all prompts side by side.
    Batch,
}

/// Log-probabilities after each token of each prompt.
fn rows(model: &mut dyn Model, prompts: &[Prompt], way: Way) -> Vec<Vec<Vec<f64>>> {
    let blocks: Vec<BlockId> = (0..(4 * BLOCKS) as BlockId).rev().collect();
    let mut all: Vec<Vec<Vec<f64>>> = prompts.iter().map(|_| Vec::new()).collect();
    let chunk = match way {
        Way::Whole => usize::MAX,
        Way::Chunks(tokens) => tokens,
        Way::Batch => 50,
    };
    loop {
        let waiting = |i: &usize| all[*i].len() < prompts[*i].ids.len();
        let most = if matches!(way, Way::Batch) { prompts.len() } else { 1 };
        let next: Vec<usize> = (0..prompts.len()).filter(waiting).take(most).collect();
        if next.is_empty() {
            return all;
        }
        let slices = next.iter().map(|&i| {
            let start = all[i].len();
            let tokens = &prompts[i].ids[start..];
            Slice {
                tokens: &tokens[..chunk.min(tokens.len())],
                start,
                blocks: &blocks[i * BLOCKS..][..BLOCKS],
                logits: LogitRows::All,
            }
        });
        let slices: Vec<_> = slices.collect();
        let logits = model.forward(&Batch { slices: &slices }).unwrap();
        let mut row = 0;
        for (&i, slice) in next.iter().zip(&slices) {
            for _ in slice.tokens {
                all[i].push(log_softmax(logits.row(row)));
                row += 1;
            }
        }
    }
}

/// Largest difference to the reference, in nats.
fn difference(model: &mut dyn Model, prompts: &[Prompt], way: Way) -> f64 {
    let mut differences = Vec::new();
    for (prompt, rows) in prompts.iter().zip(rows(model, prompts, way)) {
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

#[test]
fn every_family_is_its_reference_on_candle() {
    for name in MODELS {
        let backend = CandleBackend::exact(Place::Cpu).unwrap();
        let description = described(&folder(name).join("model.gguf"));
        let mut model = Decoder::load(backend, &description, room()).unwrap();
        let prompts = prompts(name);
        for way in [Way::Whole, Way::Chunks(37), Way::Chunks(1), Way::Batch] {
            let worst = difference(&mut model, &prompts, way);
            println!("{name} {way:?}: {worst:.6} nats");
            assert!(worst <= DIFFERENCE_MAX, "{name} {way:?}: {worst}");
        }
    }
}

#[test]
fn every_family_is_its_reference_on_our_kernels() {
    for name in MODELS {
        let backend = CpuBackend::new(Some(2), Kernels::Auto).unwrap();
        let description = described(&folder(name).join("model.gguf"));
        let mut model = Decoder::load(backend, &description, room()).unwrap();
        let prompts = prompts(name);
        let whole = difference(&mut model, &prompts, Way::Whole);
        println!("{name}: {whole:.6} nats");
        assert!(whole <= DIFFERENCE_MAX, "{name}: {whole}");
        for way in [Way::Chunks(37), Way::Chunks(1), Way::Batch] {
            // Not near: the same.
            assert_eq!(difference(&mut model, &prompts, way), whole, "{name} {way:?}");
        }
    }
}
