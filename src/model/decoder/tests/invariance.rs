//! Architecture invariant 7 on the real kernels: the same request gives the same bits whatever else
//! is in the batch, however it was chunked, wherever its blocks are, however many threads compute it,
//! and on every tier.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{GEMMA3, QWEN2, SMOLLM2, limits, open, open_on_candle};
use crate::backend::candle::{CandleBackend, Place};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::gemm::Tier;
use crate::backend::{BLOCK_TOKENS, Batch, BlockId, LogitRows, Slice};
use crate::config::Kernels;
use crate::model::decoder::Decoder;
use crate::model::{Model, Part};

const BLOCKS: usize = 64;
const MATES: usize = 15;

fn tokens(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| 300 + (i * 7919 + seed * 104_729) % 40_000).collect()
}

/// A hash of each row's bits.
fn hashes(data: &[f32], vocab: usize) -> Vec<u64> {
    data.chunks(vocab)
        .map(|row| {
            let mut hasher = DefaultHasher::new();
            for x in row {
                x.to_bits().hash(&mut hasher);
            }
            hasher.finish()
        })
        .collect()
}

/// How the sequence under test is computed.
struct Way<'a> {
    /// Tokens of the first step, and of every further one.
    first: usize,
    chunk: usize,
    blocks: &'a [BlockId],
    /// Other sequences in every step, before and after it.
    mates: bool,
}

/// Hashes of all logit rows of `sequence`.
fn run(model: &mut Decoder<CpuBackend>, sequence: &[u32], way: &Way<'_>) -> Vec<u64> {
    let vocab = model.spec().vocab;
    let mates: Vec<(Vec<u32>, BlockId)> = (0..MATES)
        .map(|i| (tokens(i as u32 + 1, 1 + i % 3), (BLOCKS - 1 - i) as BlockId))
        .collect();
    let mut found = Vec::new();
    let (first, rest) = sequence.split_at(way.first);
    let mut start = 0;
    for chunk in std::iter::once(first).chain(rest.chunks(way.chunk)) {
        let mut slices: Vec<Slice<'_>> = Vec::new();
        if way.mates {
            slices.extend(mates.iter().map(|(tokens, block)| Slice {
                tokens,
                start: 0,
                blocks: std::slice::from_ref(block),
                logits: LogitRows::None,
            }));
        }
        let own = Slice { tokens: chunk, start, blocks: way.blocks, logits: LogitRows::All };
        slices.insert(slices.len() / 2, own);
        let logits = model.forward(&Batch { slices: &slices }).unwrap();
        found.extend(hashes(logits.data, vocab));
        start += chunk.len();
    }
    found
}

fn kernels(tier: Tier) -> Kernels {
    match tier {
        Tier::Scalar => Kernels::Scalar,
        Tier::Avx2 => Kernels::Avx2,
        Tier::AvxVnni => Kernels::AvxVnni,
        Tier::Avx512 => Kernels::Avx512,
    }
}

/// All ways to compute `n` tokens of a model agree with one.
fn check(file: &str, n: usize) {
    let sequence = tokens(0, n);
    let held = n.div_ceil(BLOCK_TOKENS);
    let plain: Vec<BlockId> = (0..held as BlockId).collect();
    let shuffled: Vec<BlockId> = (0..held).map(|i| ((i * 5 + 11) % 37) as BlockId).collect();
    let way = |first, chunk, blocks, mates| Way { first, chunk, blocks, mates };
    // Token by token towards the end only: the way of a decoding sequence, at its price.
    let prompt = n - n.min(24);
    let mut expected = Vec::new();
    for threads in [2, 1] {
        let mut model = open(file, Kernels::Auto, threads, limits(n + 200, BLOCKS));
        if expected.is_empty() {
            expected = run(&mut model, &sequence, &way(n, n, &plain, false));
            assert_eq!(expected.len(), n);
        }
        for (first, chunk, blocks, mates) in [
            (n, n, &shuffled, true),
            (prompt, 1, &plain, false),
            (prompt, 1, &shuffled, true),
            (7, 7, &shuffled, false),
            (32, 32, &plain, true),
            (n.min(100), 100, &shuffled, true),
        ] {
            let got = run(&mut model, &sequence, &way(first, chunk, blocks, mates));
            let first = got.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(first, None, "{file}: {threads} threads, chunk {chunk}, mates {mates}");
        }
    }
}

#[test]
fn smollm2_gives_the_same_bits_every_way() {
    // More than a span, so that merging and cutting are in it.
    check(SMOLLM2, 300);
}

#[test]
fn gemma3_gives_the_same_bits_every_way() {
    check(GEMMA3, 40);
}

#[test]
fn qwen2_gives_the_same_bits_every_way() {
    check(QWEN2, 40);
}

#[test]
fn every_tier_gives_the_same_bits() {
    for file in [SMOLLM2, GEMMA3, QWEN2] {
        let sequence = tokens(0, 10);
        let mut expected: Option<Vec<u64>> = None;
        for tier in Tier::ALL.into_iter().filter(|t| t.is_available()) {
            let mut model = open(file, kernels(tier), 2, limits(16, 1));
            let got =
                run(&mut model, &sequence, &Way { first: 7, chunk: 2, blocks: &[0], mates: false });
            assert_eq!(expected.get_or_insert_with(|| got.clone()), &got, "{file}: {tier:?}");
        }
    }
}

#[test]
fn a_window_that_is_left_behind_is_not_missed() {
    // Beyond Gemma's window of 512, in chunks and at once.
    let sequence = tokens(3, 600);
    let blocks: Vec<BlockId> = (0..19).collect();
    let mut model = open(GEMMA3, Kernels::Auto, 2, limits(600, 19));
    let mut last = |chunk: usize| {
        let mut found = Vec::new();
        for (i, tokens) in sequence.chunks(chunk).enumerate() {
            let slice =
                Slice { tokens, start: i * chunk, blocks: &blocks, logits: LogitRows::Last };
            let logits = model.forward(&Batch { slices: &[slice] }).unwrap();
            found = hashes(logits.data, logits.vocab);
        }
        found
    };
    let whole = last(600);
    assert_eq!(whole, last(100));
    assert_eq!(whole, last(33));
}

/// The last row of `sequence`, whose other tokens went through the layers in parts, with steps of
/// others between them.
fn last_row_by_parts(model: &mut dyn Model, sequence: &[u32]) -> Vec<f32> {
    let (layers, before) = (model.spec().layers, sequence.len() - 1);
    let blocks: Vec<BlockId> = (1..=sequence.len().div_ceil(BLOCK_TOKENS) as BlockId).collect();
    let slice = |from: usize, to: usize, logits| Slice {
        tokens: &sequence[from..to],
        start: from,
        blocks: &blocks,
        logits,
    };
    for (from, to) in [(0, before / 2), (before / 2, before)] {
        for layers in [0..1, 1..layers / 2, layers / 2..layers] {
            let part = Part { slice: slice(from, to, LogitRows::None), layers };
            model.advance(&part).unwrap();
            let mate = Slice {
                tokens: &tokens(9, 20),
                start: 0,
                blocks: &[0],
                ..slice(0, 0, LogitRows::Last)
            };
            model.forward(&Batch { slices: &[mate] }).unwrap();
        }
    }
    let last = slice(before, sequence.len(), LogitRows::Last);
    model.forward(&Batch { slices: &[last] }).unwrap().data.to_vec()
}

#[test]
fn a_chunk_that_stops_between_layers_gives_the_same_bits() {
    let sequence = tokens(0, 70);
    let blocks = [0, 1, 2];
    for file in [SMOLLM2, GEMMA3, QWEN2] {
        let mut model = open(file, Kernels::Auto, 2, limits(70, 4));
        let whole = run(
            &mut model,
            &sequence,
            &Way { first: 70, chunk: 70, blocks: &blocks, mates: false },
        );
        let parts = last_row_by_parts(&mut model, &sequence);
        assert_eq!(hashes(&parts, parts.len())[0], whole[69], "{file}");
    }
    let backend = CandleBackend::new(Place::Cpu).unwrap();
    let mut model = open_on_candle(SMOLLM2, backend, limits(70, 4));
    let whole = super::score(&mut model, &sequence, &blocks);
    let parts = last_row_by_parts(&mut model, &sequence);
    let difference = parts.iter().zip(&whole[69]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 1e-3, "{difference}");
}

#[test]
fn a_part_that_goes_on_with_nothing_is_an_error() {
    let mut model = open(SMOLLM2, Kernels::Auto, 1, limits(16, 1));
    let sequence = tokens(0, 8);
    let mut advance = |tokens: usize, layers| {
        let slice =
            Slice { tokens: &sequence[..tokens], start: 0, blocks: &[0], logits: LogitRows::None };
        model.advance(&Part { slice, layers }).is_ok()
    };
    assert!(!advance(8, 3..5), "nothing is under way");
    assert!(advance(8, 0..3));
    assert!(!advance(7, 3..5), "other tokens");
    assert!(!advance(8, 3..5), "what was under way is lost");
    assert!(advance(8, 0..3) && !advance(8, 4..5), "a layer is left out");
    assert!(!advance(8, 0..31) && !advance(8, 0..0), "no such layers");
    assert!(advance(8, 0..3) && advance(8, 3..30) && !advance(8, 29..30));
}
