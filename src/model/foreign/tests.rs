//! Small random models beside what transformers makes of them, and how the engine may drive one.

use std::collections::BTreeMap;

use candle_core::Device;

use super::*;
use crate::backend::Slice;
use crate::model::load::open_foreign;
use crate::model::testing::{Prompt, difference, expected, folder, log_softmax};

/// Largest difference in nats: float32 itself loses up to 5e-5 here, the least mistake costs whole nats.
const DIFFERENCE_MAX: f64 = 1e-4;
const CONTEXT: usize = 256;

fn model(name: &str) -> Foreign {
    let folder = open_foreign(&folder(name), &NAMES).unwrap().unwrap();
    let plan = Plan::of(&folder).unwrap();
    let limits = Limits { max_context: CONTEXT, max_rows: None, end_tokens: vec![1] };
    Foreign::load(plan, Device::Cpu, "cpu", limits).unwrap()
}

/// The row after the last of `tokens`, which begin at `start`.
fn last(model: &mut Foreign, tokens: &[u32], start: usize) -> Vec<f32> {
    let slice = Slice { tokens, start, blocks: &[], logits: LogitRows::Last };
    model.forward(&Batch { slices: &[slice] }).unwrap().row(0).to_vec()
}

/// Rows after all tokens of `prompt`, each from its beginning, in one pass.
fn whole(model: &mut Foreign, prompt: &Prompt) -> Vec<Vec<f64>> {
    let ends = 1..=prompt.ids.len();
    ends.map(|end| log_softmax(&last(model, &prompt.ids[..end], 0))).collect()
}

/// The same as a prompt that is scored.
fn scored(model: &mut Foreign, prompt: &Prompt) -> Vec<Vec<f64>> {
    let mut rows = Vec::new();
    while rows.len() < prompt.ids.len() {
        let start = rows.len();
        let tokens = &prompt.ids[start..];
        let tokens = &tokens[..tokens.len().min(model.spec().max_logit_rows)];
        let slice = Slice { tokens, start, blocks: &[], logits: LogitRows::All };
        let logits = model.forward(&Batch { slices: &[slice] }).unwrap();
        rows.extend((0..tokens.len()).map(|row| log_softmax(logits.row(row))));
    }
    rows
}

#[test]
fn every_family_is_its_reference_whole_and_token_by_token() {
    let mut faults = Vec::new();
    for name in NAMES {
        let mut model = model(name);
        let prompts = expected(name).prompts;
        for way in [whole, scored] {
            let rows = prompts.iter().map(|prompt| way(&mut model, prompt)).collect();
            let worst = difference(&rows, &prompts);
            println!("{name}: {worst:.6} nats");
            if worst.is_nan() || worst > DIFFERENCE_MAX {
                faults.push(format!("{name}: {worst}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join(", "));
}

#[test]
fn chunks_of_any_length_come_to_the_same() {
    for name in NAMES {
        let mut model = model(name);
        let prompt = expected(name).prompts.pop().unwrap();
        let wanted = log_softmax(&last(&mut model, &prompt.ids, 0));
        for chunk in [1, 7, 37] {
            let (mut start, mut row) = (0, Vec::new());
            for tokens in prompt.ids.chunks(chunk) {
                row = last(&mut model, tokens, start);
                start += tokens.len();
            }
            for (got, want) in log_softmax(&row).iter().zip(&wanted) {
                assert!((got - want).abs() < DIFFERENCE_MAX, "{name} {chunk}: {got} {want}");
            }
        }
    }
}

/// More than the first room that any of them makes for keys and values.
#[test]
fn long_sequences_come_to_the_same_in_chunks() {
    // The positions of the other one are learned.
    for name in NAMES.into_iter().filter(|&name| name != "gpt_bigcode") {
        let mut folder = open_foreign(&folder(name), &NAMES).unwrap().unwrap();
        folder.config.insert("max_position_embeddings".to_owned(), 1024.into());
        let limits = Limits { max_context: 700, max_rows: Some(700), end_tokens: vec![1] };
        let plan = Plan::of(&folder).unwrap();
        let mut model = Foreign::load(plan, Device::Cpu, "cpu", limits).unwrap();
        let ids = expected(name).prompts.pop().unwrap().ids;
        let ids: Vec<u32> = ids.into_iter().cycle().take(600).collect();
        let wanted = last(&mut model, &ids, 0);
        let (mut start, mut row) = (0, Vec::new());
        for tokens in ids.chunks(256) {
            row = last(&mut model, tokens, start);
            start += tokens.len();
        }
        assert_near(name, &row, &wanted);
    }
}

/// Bits may differ: one pass and several have another order of sums.
fn assert_near(name: &str, got: &[f32], want: &[f32]) {
    let near = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-3);
    assert!(near, "{name}: {:?} for {:?}", &got[..4], &want[..4]);
}

#[test]
fn a_sequence_begins_anew_goes_back_and_survives_a_failure() {
    for name in NAMES {
        let mut model = model(name);
        let ids = &expected(name).prompts[0].ids;
        let wanted = last(&mut model, &ids[..20], 0);
        // Another sequence comes between.
        last(&mut model, &ids[20..], 0);
        assert_near(name, &last(&mut model, &ids[..20], 0), &wanted);
        // Back to a token that was read before.
        assert_near(name, &last(&mut model, &ids[15..20], 15), &wanted);
        model.recover();
        assert!(model.forward(&Batch { slices: &[slice(&ids[15..20], 15)] }).is_err(), "{name}");
        assert_near(name, &last(&mut model, &ids[..20], 0), &wanted);
    }
}

fn slice(tokens: &[u32], start: usize) -> Slice<'_> {
    Slice { tokens, start, blocks: &[], logits: LogitRows::Last }
}

#[test]
fn steps_that_were_not_promised_are_refused() {
    let mut model = model("stablelm");
    for slices in [
        &[slice(&[1], 0), slice(&[1], 0)][..],
        &[slice(&[1], 5)],
        &[slice(&[1], CONTEXT)],
        &[slice(&[100_000], 0)],
        &[slice(&[1; 300], 0)],
        &[Slice { logits: LogitRows::All, ..slice(&[1; 200], 0) }],
    ] {
        assert!(model.forward(&Batch { slices }).is_err());
    }
    assert!(model.advance(&Part { slice: slice(&[1], 0), layers: 0..1 }).is_err());
    assert_eq!(model.forward(&Batch { slices: &[] }).unwrap().data.len(), 0);
    assert_eq!(last(&mut model, &[1], 0).len(), model.spec().vocab);
}

#[test]
fn what_would_be_computed_otherwise_is_refused_by_its_key() {
    let refusals: BTreeMap<(&str, &str), &str> = [
        (("phi", "qk_layernorm"), "true"),
        (("stablelm", "use_parallel_residual"), "true"),
        (("glm4", "hidden_act"), "\"gelu\""),
        (("gpt_bigcode", "multi_query"), "false"),
        (("lfm2", "conv_bias"), "true"),
        (("olmo", "rope_scaling"), "{\"type\":\"linear\"}"),
    ]
    .into();
    for ((name, key), value) in refusals {
        let mut folder = open_foreign(&folder(name), &NAMES).unwrap().unwrap();
        folder.config.insert(key.to_owned(), serde_json::from_str(value).unwrap());
        let refusal = Plan::of(&folder).err().unwrap();
        assert!(refusal.contains("is not supported here"), "{name}: {refusal}");
    }
}

#[test]
fn tensors_are_all_there_and_all_of_use() {
    const UP: &str = "model.layers.1.mlp.up_proj.weight";
    let load = |change: &dyn Fn(&mut load::Foreign)| {
        let mut folder = open_foreign(&folder("olmo"), &NAMES).unwrap().unwrap();
        change(&mut folder);
        let limits = Limits { max_context: CONTEXT, max_rows: None, end_tokens: Vec::new() };
        let loaded = Foreign::load(Plan::of(&folder).unwrap(), Device::Cpu, "cpu", limits);
        loaded.err().unwrap().to_string()
    };
    let refusal = load(&|folder| drop(folder.checkpoint.tensors.remove(UP)));
    assert_eq!(refusal, format!("tensor {UP} is missing"));
    let refusal = load(&|folder| {
        let more = folder.checkpoint.tensors[UP].clone();
        folder.checkpoint.tensors.insert("model.layers.1.mlp.scale".to_owned(), more);
    });
    assert_eq!(refusal, "tensor model.layers.1.mlp.scale has no use in this architecture");
    let refusal =
        load(&|folder| drop(folder.config.insert("intermediate_size".to_owned(), 32.into())));
    assert!(refusal.contains("the configuration says [32, 32]"), "{refusal}");
}
