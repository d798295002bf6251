//! What a step may not do: allocate, trust its batch, or break the model when it panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{SMOLLM2, described, limits, open, references, score};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::testing::allocations;
use crate::backend::{Batch, KvDtype, LogitRows, Slice};
use crate::config::Kernels;
use crate::model::Model;
use crate::model::decoder::{Decoder, Limits};

const TOKENS: [u32; 40] = [504; 40];

fn slice<'a>(tokens: &'a [u32], start: usize, blocks: &'a [u32]) -> Slice<'a> {
    Slice { tokens, start, blocks, logits: LogitRows::Last }
}

#[test]
fn a_step_does_not_allocate() {
    for threads in [1, 2] {
        let mut model = open(SMOLLM2, Kernels::Auto, threads, limits(64, 32));
        let long: Vec<u32> = (0..20).collect();
        let mixed = [
            slice(&TOKENS, 300, &long),
            slice(&TOKENS[..1], 5, &[20]),
            slice(&TOKENS[..9], 0, &[21]),
        ];
        let alone = [slice(&TOKENS[..1], 600, &long)];
        for slices in [&mixed[..], &alone[..]] {
            let batch = Batch { slices };
            // The first one is no exception.
            for _ in 0..2 {
                let count = allocations(|| {
                    assert_eq!(model.forward(&batch).unwrap().data.len() % 49_152, 0);
                });
                assert_eq!(count, 0, "{threads} threads, {} slices", slices.len());
            }
        }
    }
}

#[test]
fn experts_do_not_allocate() {
    for name in ["qwen2_moe", "gpt_oss-mxfp4"] {
        let backend = CpuBackend::new(Some(2), Kernels::Auto).unwrap();
        let limits = Limits { max_context: 256, ..limits(64, 8) };
        let mut model =
            Decoder::load(backend, &described(&references::file(name)), limits).unwrap();
        let (tokens, blocks): (Vec<u32>, Vec<u32>) = ((0..40).collect(), (0..8).collect());
        for slice in [slice(&tokens, 100, &blocks), slice(&tokens[..1], 140, &blocks)] {
            let batch = Batch { slices: &[slice] };
            let count = allocations(|| assert_eq!(model.forward(&batch).unwrap().data.len(), 288));
            assert_eq!(count, 0, "{name}");
        }
    }
}

#[test]
fn a_batch_that_does_not_fit_is_an_error() {
    let mut model = open(SMOLLM2, Kernels::Auto, 1, limits(16, 4));
    let mut refused =
        |slice: Slice<'_>| model.forward(&Batch { slices: &[slice] }).unwrap_err().to_string();
    assert!(refused(slice(&TOKENS, 0, &[0, 1])).contains("40 rows"));
    assert!(refused(slice(&TOKENS[..2], 31, &[0])).contains("1 blocks"));
    assert!(refused(slice(&TOKENS[..2], 0, &[4])).contains("block 4 of 4"));
    assert!(refused(slice(&[49_152], 0, &[0])).contains("token 49152"));
    assert!(refused(slice(&TOKENS[..1], usize::MAX, &[0])).contains("slice ends"));
    let nothing = model.forward(&Batch { slices: &[] }).unwrap();
    assert!(nothing.data.is_empty());
}

#[test]
fn a_panic_in_a_step_leaves_a_model_that_computes_the_same() {
    let mut model = open(SMOLLM2, Kernels::Auto, 2, limits(64, 4));
    let before = score(&mut model, &TOKENS[..8], &[0]);
    let thrown = catch_unwind(AssertUnwindSafe(|| {
        // Past the check that forbids it: the second slice has no block.
        let slices = [slice(&TOKENS, 0, &[1, 2]), slice(&TOKENS[..3], 0, &[])];
        model.step(&Batch { slices: &slices }).map(<[f32]>::len).ok();
    }));
    assert!(thrown.is_err());
    model.recover();
    assert_eq!(before, score(&mut model, &TOKENS[..8], &[3]));
}

#[test]
fn a_cache_of_floats_is_close_to_one_of_halves() {
    let floats = Limits { kv_dtype: KvDtype::F32, ..limits(64, 4) };
    let mut model = open(SMOLLM2, Kernels::Auto, 2, floats);
    let exact = score(&mut model, &TOKENS, &[1, 0]);
    let mut model = open(SMOLLM2, Kernels::Auto, 2, limits(64, 4));
    assert_eq!(model.kv_block_bytes(), 30 * 2 * 3 * 64 * 32 * 2);
    let rounded = score(&mut model, &TOKENS, &[0, 1]);
    let far = exact.iter().flatten().zip(rounded.iter().flatten());
    let far = far.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far > 0.0 && far < 0.5, "{far}");
}
