//! The decoder on candle's tensors beside candle-transformers' own models, which share the matrix
//! products with it and nothing else: not the reader of files, not the cache, not the attention.

use std::fs::File;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device as CandleDevice, Result as CandleResult, Tensor};
use candle_transformers::models::{quantized_gemma3, quantized_llama, quantized_qwen2};

use super::Model;
use super::arch::Description;
use super::decoder::{Decoder, Limits};
use super::testing::{GEMMA3, QWEN2, SMOLLM2, described, model_path};
use crate::backend::candle::{CandleBackend, Place};
use crate::backend::{Activation, Batch, BlockId, KvDtype, LogitRows, Slice};

/// One sequence of candle-transformers: tokens and the position of the first to the last logits.
type Oracle = Box<dyn FnMut(&Tensor, usize) -> CandleResult<Tensor>>;

macro_rules! oracle {
    ($module:ident) => {
        |path: &Path| -> Oracle {
            let mut file = File::open(path).unwrap();
            let content = Content::read(&mut file).unwrap();
            let cpu = CandleDevice::Cpu;
            let mut model = $module::ModelWeights::from_gguf(content, &mut file, &cpu).unwrap();
            Box::new(move |tokens, start| model.forward(tokens, start))
        }
    };
}

/// Where a sequence is cut into steps: the end of each.
type Steps = [usize];
/// A prompt in two chunks, then tokens one by one.
const CHUNKED: &Steps = &[5, 8, 9, 10];
/// A prompt, then tokens one by one. candle picks its kernels by the number of rows, and those for
/// `Q4_K`, `Q6_K` and `Q8_0` round activations differently: only equal shapes give equal numbers.
const PLAIN: &Steps = &[5, 6, 7, 8];

/// The oracle's logits at the end of each step. A chunk after the first is more than
/// candle-transformers' masks know: there it goes token by token.
fn expected(oracle: &mut Oracle, tokens: &[u32], steps: &Steps) -> Vec<Vec<f32>> {
    let mut ask = |start: usize, end: usize| -> Vec<f32> {
        let tokens = Tensor::new(&tokens[start..end], &CandleDevice::Cpu).unwrap();
        let logits = oracle(&tokens.unsqueeze(0).unwrap(), start).unwrap();
        logits.flatten_all().unwrap().to_vec1().unwrap()
    };
    let mut logits = vec![ask(0, steps[0])];
    for pair in steps.windows(2) {
        (pair[0] + 1..pair[1]).for_each(|end| drop(ask(end - 1, end)));
        logits.push(ask(pair[1] - 1, pair[1]));
    }
    logits
}

/// Worst difference of a logit over two sequences whose blocks are out of order: both in each step
/// where the prompt is [`CHUNKED`], else one after the other.
fn worst_difference(
    model: &mut dyn Model,
    oracle: &mut Oracle,
    tokens: [&[u32]; 2],
    steps: &Steps,
) -> f32 {
    const BLOCKS: [&[BlockId]; 2] = [&[7, 2], &[0, 5]];
    let wanted = tokens.map(|t| expected(oracle, t, steps));
    let mut worst: f32 = 0.0;
    for (step, &end) in steps.iter().enumerate() {
        let start = if step == 0 { 0 } else { steps[step - 1] };
        let slices = [0, 1].map(|i| Slice {
            tokens: &tokens[i][start..end],
            start,
            blocks: BLOCKS[i],
            logits: LogitRows::Last,
        });
        let mut compare = |slices: &[Slice<'_>], first: usize| {
            let logits = model.forward(&Batch { slices }).unwrap();
            for i in 0..slices.len() {
                let pairs = logits.row(i).iter().zip(&wanted[first + i][step]);
                let step_worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                println!("step {step} sequence {}: {step_worst}", first + i);
                worst = worst.max(step_worst);
            }
        };
        if steps == CHUNKED {
            compare(&slices, 0);
        } else {
            compare(&slices[..1], 0);
            compare(&slices[1..], 1);
        }
    }
    worst
}

/// The model on candle, and its description changed by `change` first.
fn open_changed(path: &Path, change: impl Fn(&mut Description)) -> Decoder<CandleBackend> {
    let mut description = described(path);
    change(&mut description);
    let limits = Limits {
        max_rows: 64,
        max_logit_rows: 64,
        blocks: 8,
        kv_dtype: KvDtype::F32,
        max_context: 256,
        end_tokens: Vec::new(),
    };
    Decoder::load(CandleBackend::new(Place::Cpu).unwrap(), &description, limits).unwrap()
}

#[test]
fn llama_agrees_with_candle_transformers() {
    let tokens: [&[u32]; 2] = [
        &[504, 3575, 282, 4649, 314, 7042, 30, 504, 2086, 282],
        &[31530, 549, 253, 2470, 563, 253, 13078, 30, 198, 198],
    ];
    let path = model_path(SMOLLM2);
    let mut model = open_changed(&path, |_| {});
    let worst = worst_difference(&mut model, &mut oracle!(quantized_llama)(&path), tokens, CHUNKED);
    assert!(worst < 1e-3, "{worst}");
}

/// candle-transformers 0.11.1 computes Gemma 3 with `SiLU`, where the model was trained with `GELU`:
/// for the comparison, so does ours. Everything else of this family is held against it.
#[test]
fn gemma3_agrees_with_candle_transformers() {
    let tokens: [&[u32]; 2] = [
        &[2, 818, 5279, 529, 7001, 563, 9079, 236_761, 669, 5279],
        &[2, 54_593, 786, 496, 3925, 1003, 496, 16_288, 236_761, 107],
    ];
    let path = model_path(GEMMA3);
    let mut model = open_changed(&path, |d| d.activation = Activation::SiluGate);
    let worst = worst_difference(&mut model, &mut oracle!(quantized_gemma3)(&path), tokens, PLAIN);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn qwen2_agrees_with_candle_transformers() {
    let tokens: [&[u32]; 2] = [
        &[785, 6722, 315, 9625, 374, 12095, 13, 576, 6722, 315],
        &[40451, 752, 264, 3364, 911, 264, 12305, 13, 198, 198],
    ];
    let path = model_path(QWEN2);
    let mut model = open_changed(&path, |_| {});
    let worst = worst_difference(&mut model, &mut oracle!(quantized_qwen2)(&path), tokens, PLAIN);
    assert!(worst < 1e-3, "{worst}");
}
