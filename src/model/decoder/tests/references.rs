//! Small random models of each family (`tests/models`) beside what transformers makes of the same
//! weights in float32: every description, whole, in chunks, token by token, and in a batch.

use std::path::PathBuf;

use super::limits;
use crate::backend::candle::{CandleBackend, Place};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Batch, BlockId, KvDtype, LogitRows, Slice};
use crate::config::{Kernels, Quantize};
use crate::model::Model;
use crate::model::arch::{Description, describe};
use crate::model::decoder::{Decoder, Limits};
use crate::model::load::Checkpoint;
use crate::model::testing::{Prompt, Rows, difference, expected, folder, log_softmax};

const MODELS: [&str; 23] = [
    "llama",
    "llama3",
    "llama-linear",
    "llama-yarn",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2-yarn",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3-longrope",
    "phi4-mini",
    "smollm3",
    "olmo2",
    "granite",
    "starcoder2",
    "gpt2",
    "gpt_oss",
];
/// Blocks of one prompt; the longest has 150 tokens.
const BLOCKS: usize = 5;

/// Largest difference in nats. The weights are floats, which nothing here rounds, so what differs is the
/// order of sums: transformers in float64 differs from itself by up to 5e-5, and so does this, where the
/// least mistake that a reader of these files could make costs 1.9.
const DIFFERENCE_MAX: f64 = 1e-3;

/// The model's file, or the first one.
pub(super) fn file(model: &str) -> PathBuf {
    let name = if model == "llama-linear" { "model-00001-of-00003.gguf" } else { "model.gguf" };
    folder(model).join(name)
}

/// As what a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Gguf,
    Folder,
}

/// The model, and what is expected of it.
fn reference(name: &str, form: Form) -> (Description, Vec<Prompt>) {
    let path = if form == Form::Gguf { file(name) } else { folder(name) };
    let checkpoint = Checkpoint::open(&path, Quantize::None).unwrap();
    let Checkpoint { metadata, tensors, unusable, .. } = &checkpoint;
    let expected = expected(name);
    let prompts = match expected.as_gguf {
        // llama.cpp turns the window off that the file has.
        Some(as_gguf) if form == Form::Gguf && name != "phi3" => as_gguf.prompts,
        _ => expected.prompts,
    };
    (describe(metadata, tensors, unusable).unwrap(), prompts)
}

/// Each as a file, and as a folder.
fn models() -> impl Iterator<Item = (&'static str, Form)> {
    let forms = |name| [Form::Gguf, Form::Folder].map(|form| (name, form));
    MODELS.into_iter().flat_map(forms)
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
fn rows(model: &mut dyn Model, prompts: &[Prompt], way: Way) -> Rows {
    let blocks: Vec<BlockId> = (0..(4 * BLOCKS) as BlockId).rev().collect();
    let mut all: Rows = prompts.iter().map(|_| Vec::new()).collect();
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

#[test]
fn every_family_is_its_reference_on_candle() {
    for (name, form) in models() {
        let backend = CandleBackend::exact(Place::Cpu).unwrap();
        let (description, prompts) = reference(name, form);
        let mut model = Decoder::load(backend, &description, room()).unwrap();
        for way in [Way::Whole, Way::Chunks(37), Way::Chunks(1), Way::Batch] {
            let worst = difference(&rows(&mut model, &prompts, way), &prompts);
            println!("{name} {form:?} {way:?}: {worst:.6} nats");
            assert!(worst <= DIFFERENCE_MAX, "{name} {form:?} {way:?}: {worst}");
        }
    }
}

#[test]
fn every_family_is_its_reference_on_our_kernels() {
    for (name, form) in models() {
        let backend = CpuBackend::new(Some(2), Kernels::Auto).unwrap();
        let (description, prompts) = reference(name, form);
        let mut model = Decoder::load(backend, &description, room()).unwrap();
        let whole = rows(&mut model, &prompts, Way::Whole);
        let worst = difference(&whole, &prompts);
        println!("{name} {form:?}: {worst:.6} nats");
        assert!(worst <= DIFFERENCE_MAX, "{name} {form:?}: {worst}");
        // Not near: the same.
        for way in [Way::Chunks(37), Way::Chunks(1), Way::Batch] {
            assert!(rows(&mut model, &prompts, way) == whole, "{name} {form:?} {way:?}");
        }
        let backend = CpuBackend::new(Some(1), Kernels::Scalar).unwrap();
        let mut plain = Decoder::load(backend, &description, room()).unwrap();
        assert!(rows(&mut plain, &prompts, Way::Batch) == whole, "{name} on one thread, scalar");
    }
}

#[test]
fn factors_of_longrope_follow_the_servers_context() {
    let longrope = |(name, _): &(&str, Form)| matches!(*name, "phi3-longrope" | "phi4-mini");
    for (name, form) in models().filter(longrope) {
        let backend = CpuBackend::new(Some(2), Kernels::Auto).unwrap();
        let limits = Limits { max_context: 64, ..room() };
        let (description, _) = reference(name, form);
        let mut model = Decoder::load(backend, &description, limits).unwrap();
        let prompts = expected(name).original_context.unwrap().prompts;
        let worst = difference(&rows(&mut model, &prompts, Way::Chunks(37)), &prompts);
        assert!(worst <= DIFFERENCE_MAX, "{name} {form:?}: {worst}");
    }
}

/// Its experts are in four bits, which our kernels multiply by activations of eight: routers then choose
/// otherwise here and there.
#[test]
fn mxfp4_is_exact_on_candle_and_near_on_our_kernels() {
    for form in [Form::Gguf, Form::Folder] {
        mxfp4_is_exact_or_near(form);
    }
}

fn mxfp4_is_exact_or_near(form: Form) {
    let (description, prompts) = reference("gpt_oss-mxfp4", form);
    let backend = CandleBackend::exact(Place::Cpu).unwrap();
    let mut model = Decoder::load(backend, &description, room()).unwrap();
    let exact = rows(&mut model, &prompts, Way::Whole);
    let worst = difference(&exact, &prompts);
    println!("gpt_oss-mxfp4 {form:?}: {worst:.6} nats");
    assert!(worst <= DIFFERENCE_MAX, "{form:?}: {worst}");
    let backend = CpuBackend::new(Some(2), Kernels::Auto).unwrap();
    let mut model = Decoder::load(backend, &description, room()).unwrap();
    let ours = rows(&mut model, &prompts, Way::Whole);
    for way in [Way::Chunks(37), Way::Chunks(1), Way::Batch] {
        assert!(rows(&mut model, &prompts, way) == ours, "{way:?}");
    }
    let pairs = ours.iter().flatten().flatten().zip(exact.iter().flatten().flatten());
    let mut differences: Vec<f64> = pairs.map(|(a, b)| (a - b).abs()).collect();
    differences.sort_by(f64::total_cmp);
    let median = differences[differences.len() / 2];
    println!("median {median:.4} nats");
    assert!(median < 0.1, "{median}");
}
