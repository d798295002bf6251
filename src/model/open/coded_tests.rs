//! Models whose file has types that no backend computes with, from the file to logits.

use super::tests::{backend, engine, refusal, written};
use super::*;
use crate::backend::{Batch, BlockType, Coded, LogitRows, Slice, read_all};
use crate::model::load::gguf::testing::{TINY_VOCAB, TensorData, Writer, tiny_llama, type_number};
use crate::model::load::gguf::{Gguf, Value};

/// Rows are whole blocks of every type.
const WIDTH: u64 = 256;
const EXPERTS: u64 = 2;
const HEAD: &str = "blk.0.attn_q.weight";

/// Random bytes whose scales make weights of a few hundredths.
fn blocks(stored: Stored, count: usize, next: &mut impl FnMut() -> u8) -> Vec<u8> {
    let size = stored.block_bytes();
    let mut bytes: Vec<u8> = (0..count * size).map(|_| next()).collect();
    // What d multiplies: the usual integer times the usual scale.
    let (places, usual): (&[usize], f32) = match stored {
        Stored::Block(BlockType::Q2K) => (&[80, 82], 16.0),
        Stored::Block(BlockType::Q3K) => (&[108], 40.0),
        Stored::Coded(Coded::Iq1S) => (&[0], 8.0),
        Stored::Coded(Coded::Iq2Xxs | Coded::Iq2Xs | Coded::Iq2S) => (&[0], 50.0),
        Stored::Coded(Coded::Iq3Xxs | Coded::Iq3S) => (&[0], 130.0),
        Stored::Coded(Coded::Iq4Nl) => (&[0], 60.0),
        Stored::Coded(Coded::Iq4Xs) => (&[0], 1000.0),
        Stored::Coded(Coded::Tq1_0) => (&[52], 1.0),
        Stored::Coded(Coded::Tq2_0) => (&[64], 1.0),
        Stored::Coded(Coded::Q1_0 | Coded::Q2_0) => (&[0], 1.0),
        _ => (&[], 1.0),
    };
    let d = half::f16::from_f32(0.05 / usual).to_le_bytes();
    for block in bytes.chunks_exact_mut(size) {
        for &at in places {
            block[at..at + 2].copy_from_slice(&d);
        }
        match stored {
            Stored::Coded(Coded::Mxfp4) => block[0] = 120,
            Stored::Coded(Coded::Nvfp4) => block[..4].iter_mut().for_each(|b| *b %= 24),
            // A half of 2^-8, in the upper nibbles of four words.
            Stored::Coded(Coded::Iq1M) => {
                for (i, nibble) in [0, 0, 12, 1].into_iter().enumerate() {
                    block[49 + 2 * i] = block[49 + 2 * i] & 15 | nibble << 4;
                }
            }
            _ => {}
        }
    }
    bytes
}

/// The tiny model, wider and with one layer, of two experts or none: all matrices but k's are of the type.
fn model(stored: Stored, has_experts: bool) -> Writer {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let mut w = tiny_llama();
    for (key, n) in [
        ("block_count", 1),
        ("embedding_length", WIDTH),
        ("feed_forward_length", WIDTH),
        ("rope.dimension_count", WIDTH / 4),
    ] {
        w.set(&format!("llama.{key}"), &Value::U64(n));
    }
    w.tensors.retain(|t| !t.name.starts_with("blk.1."));
    if has_experts {
        w.set("llama.expert_count", &Value::U64(EXPERTS));
        // Both compute every row: no error decides which.
        w.set("llama.expert_used_count", &Value::U64(EXPERTS));
        let router: Vec<f32> = (0..EXPERTS * WIDTH).map(|_| f32::from(next()) / 1e4).collect();
        w.f32s("blk.0.ffn_gate_inp.weight", &[WIDTH, EXPERTS], &router);
    }
    for t in &mut w.tensors {
        let stack = ["ffn_gate.", "ffn_up.", "ffn_down."].iter().any(|part| t.name.contains(part));
        if t.name.contains("norm") {
            t.dims = vec![WIDTH];
            t.data =
                (0..WIDTH).flat_map(|_| (0.9 + f32::from(next()) / 1e3).to_le_bytes()).collect();
            continue;
        }
        if t.name.contains("gate_inp") {
            continue;
        }
        t.dims = match &t.name[..] {
            "token_embd.weight" => vec![WIDTH, TINY_VOCAB as u64],
            name if name.contains("attn_k") || name.contains("attn_v") => vec![WIDTH, WIDTH / 2],
            _ if stack && has_experts => vec![WIDTH, WIDTH, EXPERTS],
            _ => vec![WIDTH, WIDTH],
        };
        if stack && has_experts {
            t.name = t.name.replace(".weight", "_exps.weight");
        }
        // Others in one group with it.
        let stored = if t.name.contains("attn_k") { Coded::Iq3S.into() } else { stored };
        let stored = if t.name.contains("attn_v") && stored == Coded::Nvfp4.into() {
            BlockType::Q3K.into()
        } else {
            stored
        };
        let count = t.dims.iter().product::<u64>() as usize / stored.block_len();
        (t.kind, t.data) = (type_number(stored), blocks(stored, count, &mut next));
    }
    w
}

/// The same with each matrix as it is kept, or as floats, written out.
fn rewritten(w: &Writer, as_floats: bool) -> Writer {
    let file = written(w);
    let sources = Gguf::open(&file.path).unwrap().tensors;
    let rewritten = |t: &TensorData| {
        let mut source = sources[&t.name].clone();
        if as_floats {
            source.kind = BlockType::F32;
        }
        let mut data = Vec::new();
        for index in 0..source.matrices {
            let matrix = source.matrix(index);
            let mut bytes = vec![0; matrix.byte_len()];
            read_all(&matrix, &mut bytes).unwrap();
            data.extend(bytes);
        }
        TensorData { kind: type_number(source.kind), data, ..t.clone() }
    };
    Writer { tensors: w.tensors.iter().map(rewritten).collect(), ..w.clone() }
}

fn logits(w: &Writer, kernels: Kernels) -> Vec<f32> {
    let mut opened = open(&written(w).path, &backend(kernels), &engine()).unwrap();
    let tokens: Vec<u32> = (0..20).map(|i| 3 + i * 37 % 250).collect();
    let slice = Slice { tokens: &tokens, start: 0, blocks: &[5], logits: LogitRows::All };
    opened.model.forward(&Batch { slices: &[slice] }).unwrap().data.to_vec()
}

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let lost: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (lost / expected.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// Of each type, on our kernels and on candle's, dense and with experts: the numbers are those of the file with the kept blocks
/// in it, and near those of a file with floats: as near as the kept form and activations of eight bits are.
#[test]
fn models_of_every_type_compute_what_their_numbers_are() {
    let types = Coded::ALL.map(Stored::Coded).into_iter();
    for (i, stored) in types.chain([BlockType::Q2K, BlockType::Q3K].map(Stored::Block)).enumerate()
    {
        let w = model(stored, i % 2 == 0);
        let (kept, floats) = (rewritten(&w, false), rewritten(&w, true));
        let expected = logits(&floats, Kernels::Auto);
        for kernels in [Kernels::Auto, Kernels::Candle] {
            let found = logits(&w, kernels);
            assert!(found == logits(&kept, kernels), "{stored:?} {kernels:?}");
            let error = relative(&found, &expected);
            println!("{} {kernels:?}: {error:.4}", stored.label());
            assert!(error < 0.04, "{stored:?} {kernels:?}: {error}");
        }
    }
}

#[test]
fn a_scale_that_is_no_number_is_refused_by_the_tensor_s_name() {
    // In the blocks of q's first row.
    for (stored, at) in [(Coded::Iq4Nl, 0), (Coded::Tq2_0, 64), (Coded::Iq2Xs, 0)] {
        let mut w = model(stored.into(), false);
        let data = &mut w.tensor(HEAD).data;
        data[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
        assert_eq!(refusal(&w), format!("tensor {HEAD}: holds a number that is not finite"));
    }
}

/// `NVFP4` has a scale beside each matrix, or each expert's.
#[test]
fn scales_beside_weights_multiply_them() {
    let plain = model(Coded::Nvfp4.into(), true);
    let (q, up) = ([0.25_f32], [0.5_f32, 3.0]);
    let (mut w, mut floats) = (plain.clone(), rewritten(&plain, true));
    w.f32s("blk.0.attn_q.scale", &[1], &q);
    w.f32s("blk.0.ffn_up_exps.scale", &[EXPERTS], &up);
    w.f32s("blk.0.attn_q.input_scale", &[1], &[7.0]);
    for (name, scales) in [(HEAD, &q[..]), ("blk.0.ffn_up_exps.weight", &up)] {
        let data = &mut floats.tensor(name).data;
        let size = data.len() / scales.len();
        for (matrix, scale) in data.chunks_exact_mut(size).zip(scales) {
            for number in matrix.as_chunks_mut().0 {
                *number = (f32::from_le_bytes(*number) * scale).to_le_bytes();
            }
        }
    }
    let expected = logits(&floats, Kernels::Auto);
    for kernels in [Kernels::Auto, Kernels::Candle] {
        let error = relative(&logits(&w, kernels), &expected);
        let without = relative(&logits(&plain, kernels), &expected);
        assert!(error < 0.04 && without > 0.1, "{kernels:?}: {error}, {without}");
    }
}

#[test]
fn a_scale_of_another_shape_or_of_packed_weights_is_refused() {
    let mut w = model(Coded::Nvfp4.into(), false);
    w.f32s("blk.0.attn_q.scale", &[2], &[1.0, 1.0]);
    assert_eq!(refusal(&w), "tensor blk.0.attn_q.scale is 1 x 2, the hyperparameters say 1 x 1");
    let mut w = model(BlockType::Q3K.into(), false);
    w.f32s("blk.0.attn_q.scale", &[1], &[1.0]);
    let expected = format!(
        "tensor {HEAD} has type Q3_K and is scaled by another tensor, which is not supported"
    );
    assert_eq!(refusal(&w), expected);
    let mut w = model(Coded::Nvfp4.into(), false);
    w.f32s("blk.0.attn_q.scale", &[1], &[1.0]);
    w.tensor("blk.0.attn_q.scale").kind = type_number(BlockType::F16);
    let expected = "tensor blk.0.attn_q.scale has type F16 and is a scale, which is not supported";
    assert_eq!(refusal(&w), expected);
    w.tensor("blk.0.attn_q.scale").offset = Some(1 << 40);
    assert!(refusal(&w).starts_with("tensor blk.0.attn_q.scale ends at byte"));
}
