//! Log-probabilities against values made in float32 from the exactly dequantised weights.

use serde::Deserialize;

use super::{GEMMA3, QWEN2, SMOLLM2, limits, open, open_on_candle, score};
use crate::backend::KvDtype;
use crate::backend::candle::{CandleBackend, Place};
use crate::config::Kernels;
use crate::model::Model;
use crate::model::decoder::Limits;
use crate::model::testing::log_softmax;

/// Tokens less likely than this are noise in both.
const WORTH_COMPARING: f64 = -8.0;
/// Where the reference leads by this much, the top token must agree.
const CLEAR_LEAD: f64 = 0.5;

#[derive(Deserialize)]
struct Golden {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    #[serde(rename = "prompt_logprobs")]
    logprobs: Vec<Option<f64>>,
    greedy: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    id: u32,
    top: Vec<(u32, f64)>,
}

/// Differences of one prompt, taught with the reference's own continuation.
fn compare(rows: &[Vec<f64>], prompt: &Prompt, differences: &mut Vec<f64>) {
    let mut add = |row: usize, id: u32, want: f64| {
        if want > WORTH_COMPARING {
            differences.push((rows[row][id as usize] - want).abs());
        }
    };
    for (i, want) in prompt.logprobs.iter().enumerate() {
        if let Some(want) = want {
            add(i - 1, prompt.ids[i], *want);
        }
    }
    for (i, step) in prompt.greedy.iter().enumerate() {
        let row = prompt.ids.len() - 1 + i;
        for &(id, want) in &step.top {
            add(row, id, want);
        }
        if step.top[0].1 - step.top[1].1 >= CLEAR_LEAD {
            let best = (0..rows[row].len()).max_by(|&a, &b| rows[row][a].total_cmp(&rows[row][b]));
            assert_eq!(best, Some(step.id as usize), "top token after {i} of {:?}", prompt.ids);
        }
    }
}

/// Holds `model` against the values for `file`: the bounds are nats.
fn check_model(model: &mut dyn Model, file: &str, golden: &str, median_max: f64, worst_max: f64) {
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let blocks: Vec<u32> = (0..8).collect();
    let mut differences = Vec::new();
    for prompt in &golden.prompts {
        let mut tokens = prompt.ids.clone();
        tokens.extend(prompt.greedy.iter().map(|s| s.id));
        tokens.pop();
        let rows: Vec<Vec<f64>> =
            score(model, &tokens, &blocks).iter().map(|r| log_softmax(r)).collect();
        compare(&rows, prompt, &mut differences);
    }
    differences.sort_by(f64::total_cmp);
    let (median, worst) = (differences[differences.len() / 2], differences[differences.len() - 1]);
    println!("{file}: {} tokens, median {median:.4}, worst {worst:.4} nats", differences.len());
    assert!(median <= median_max && worst <= worst_max, "{file}: {median} {worst}");
}

const SMOLLM2_GOLDEN: &str =
    include_str!("../../../../tests/golden/smollm2-135m-instruct.logprobs.json");
const GEMMA3_GOLDEN: &str = include_str!("../../../../tests/golden/gemma-3-270m.logprobs.json");
const QWEN2_GOLDEN: &str =
    include_str!("../../../../tests/golden/qwen2.5-coder-0.5b-instruct.logprobs.json");

/// Without rounding, what is left is the order of sums: the decoder and the descriptions are right.
/// For one model: the weights of the others take gigabytes as floats, and `oracle_tests` covers them.
fn check_exact(file: &str, golden: &str) {
    let backend = CandleBackend::exact(Place::Cpu).unwrap();
    let limits = Limits { kv_dtype: KvDtype::F32, ..limits(128, 8) };
    check_model(&mut open_on_candle(file, backend, limits), file, golden, 0.0001, 0.001);
}

#[test]
fn smollm2_without_rounding_is_the_reference() {
    check_exact(SMOLLM2, SMOLLM2_GOLDEN);
}

/// Our own kernels; `invariance` shows that every tier gives the bits of this one.
fn check_packed(file: &str, golden: &str, median_max: f64, worst_max: f64) {
    let mut model = open(file, Kernels::Auto, 2, limits(128, 8));
    check_model(&mut model, file, golden, median_max, worst_max);
}

#[test]
fn smollm2_is_near_the_reference() {
    check_packed(SMOLLM2, SMOLLM2_GOLDEN, 0.04, 0.4);
}

#[test]
fn gemma3_is_near_the_reference() {
    check_packed(GEMMA3, GEMMA3_GOLDEN, 0.04, 0.4);
}

#[test]
fn qwen2_is_near_the_reference() {
    check_packed(QWEN2, QWEN2_GOLDEN, 0.05, 0.5);
}
