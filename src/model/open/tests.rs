use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::backend::{Batch, KvDtype, LogitRows, Slice};
use crate::model::load::gguf::Value;
use crate::model::load::gguf::testing::{TINY_VOCAB, Writer, tiny, tiny_llama};

pub(super) fn engine() -> EngineConfig {
    EngineConfig {
        max_model_len: None,
        max_num_seqs: 4,
        max_num_batched_tokens: None,
        max_queue_requests: 16,
        max_queue_tokens: 1 << 16,
        kv_cache_bytes: 1 << 20,
        kv_cache_dtype: KvDtype::F32,
        prefix_caching: false,
        seed: None,
        client_stall_timeout: Duration::from_secs(1),
    }
}

pub(super) fn backend(kernels: Kernels) -> BackendConfig {
    BackendConfig {
        threads: Some(1),
        device: Device::Cpu,
        kernels,
        quantize: None,
        memory_bytes: None,
    }
}

pub(super) struct File {
    _folder: tempfile::TempDir,
    pub(super) path: PathBuf,
}

pub(super) fn written(w: &Writer) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    w.write(&path).unwrap();
    File { _folder: folder, path }
}

fn open_with(w: &Writer, engine: &EngineConfig) -> Result<Opened, LoadError> {
    open(&written(w).path, &backend(Kernels::Candle), engine)
}

/// Why `w` is refused: the rest of the one line after the file's name.
pub(super) fn refusal(w: &Writer) -> String {
    let file = written(w);
    let error = open(&file.path, &backend(Kernels::Candle), &engine()).err().unwrap();
    let text = error.to_string();
    let reason = text.strip_prefix(&format!("{}: ", file.path.display())).unwrap();
    assert!(!reason.chars().any(char::is_control), "{reason:?}");
    reason.to_owned()
}

#[test]
fn a_tiny_model_opens_and_computes() {
    let mut opened = open_with(&tiny_llama(), &engine()).unwrap();
    assert_eq!(opened.model.device(), "candle/cpu");
    assert_eq!((opened.name.as_str(), opened.arch.as_str()), ("Tiny", "llama"));
    assert_eq!(opened.quantization, "F32");
    assert_eq!(opened.file_digest.len(), 64);
    let spec = opened.model.spec().clone();
    // Two layers, K and V, two heads of 16, 32 tokens, f32.
    assert_eq!(opened.model.kv_block_bytes(), 2 * 2 * 2 * 16 * 32 * 4);
    assert_eq!((spec.kv_blocks, spec.max_context, spec.vocab), (64, 256, TINY_VOCAB));
    assert_eq!(spec.end_tokens, [0, 2]);
    let slice = |blocks| Slice { tokens: &[5, 6, 7], start: 0, blocks, logits: LogitRows::Last };
    let batch = Batch { slices: &[slice(&[3]), slice(&[9])] };
    let logits = opened.model.forward(&batch).unwrap();
    assert_eq!(logits.data.len(), 2 * TINY_VOCAB);
    assert!(logits.data.iter().all(|x| x.is_finite()));
    for (a, b) in logits.row(0).iter().zip(logits.row(1)) {
        assert!((a - b).abs() < 1e-4, "two equal sequences differ: {a} {b}");
    }
}

/// Logits after 50 tokens that come in chunks, beside a second sequence, from scattered blocks.
fn last_logits(w: &Writer, kernels: Kernels) -> Vec<f32> {
    let mut opened = open(&written(w).path, &backend(kernels), &engine()).unwrap();
    let tokens: Vec<u32> = (0..50).map(|i| 3 + i * 37 % 250).collect();
    let mut last = Vec::new();
    for (start, end) in [(0, 20), (20, 21), (21, 49), (49, 50)] {
        let slice =
            |blocks| Slice { tokens: &tokens[start..end], start, blocks, logits: LogitRows::Last };
        let batch = Batch { slices: &[slice(&[9, 3]), slice(&[4, 60])] };
        let logits = opened.model.forward(&batch).unwrap();
        last = logits.row(1).to_vec();
    }
    last
}

/// The two backends share no line of code, and weights of F32 are not rounded by either.
#[test]
fn the_backends_agree_on_every_family() {
    for architecture in ["llama", "qwen2", "gemma3"] {
        let w = tiny(architecture);
        let (ours, theirs) = (last_logits(&w, Kernels::Auto), last_logits(&w, Kernels::Candle));
        let square = |xs: &mut dyn Iterator<Item = f32>| xs.map(|x| x * x).sum::<f32>();
        let error = square(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b));
        let relative = (error / square(&mut theirs.iter().copied())).sqrt();
        println!("{architecture}: relative difference {relative}");
        assert!(relative < 1e-4, "{architecture}: {relative}");
    }
}

#[test]
fn options_bound_the_model() {
    let tiny = tiny_llama();
    let spec = |engine: &EngineConfig| open_with(&tiny, engine).unwrap().model.spec().clone();
    let refused = |engine: &EngineConfig| open_with(&tiny, engine).err().unwrap().reason;
    let block = 2 * 2 * 2 * 16 * 32 * 4;
    // A cache of two blocks holds 64 tokens; asked for more, the answer is the engine's.
    let small = EngineConfig { kv_cache_bytes: 2 * block + 1, ..engine() };
    assert_eq!((spec(&small).kv_blocks, spec(&small).max_context), (2, 64));
    let asked = EngineConfig { max_model_len: Some(200), ..small };
    assert_eq!((spec(&asked).kv_blocks, spec(&asked).max_context), (2, 200));
    let none = EngineConfig { kv_cache_bytes: block - 1, ..engine() };
    assert!(refused(&none).contains("--kv-cache-memory of 16383 bytes"), "{}", refused(&none));
    let long = EngineConfig { max_model_len: Some(257), ..engine() };
    assert!(refused(&long).contains("--max-model-len 257 is above the 256 tokens"));
    let zero = EngineConfig { max_model_len: Some(0), ..engine() };
    assert!(refused(&zero).contains("--max-model-len is 0"));
    assert_eq!((spec(&engine()).max_rows, spec(&engine()).max_logit_rows), (256, 256));
    let few = EngineConfig { max_num_batched_tokens: Some(2), ..engine() };
    assert_eq!((spec(&few).max_rows, spec(&few).max_logit_rows), (2, 2));
    let many = EngineConfig { max_num_seqs: 500, ..engine() };
    assert_eq!(spec(&many).max_rows, 500);
}

#[test]
fn what_the_model_needs_is_named() {
    let mut w = tiny_llama();
    w.tensor("blk.1.ffn_up.weight").kind = 9;
    let text = refusal(&w);
    assert!(text.starts_with("tensor blk.1.ffn_up.weight has type Q8_1"), "{text}");
    let mut w = tiny_llama();
    w.tensor("blk.1.ffn_up.weight").offset = Some(1 << 40);
    assert!(refusal(&w).starts_with("tensor blk.1.ffn_up.weight ends at byte"));
    let mut w = tiny_llama();
    w.tensor("blk.1.ffn_up.weight").dims = vec![64, 32];
    assert!(refusal(&w).contains("tensor blk.1.ffn_up.weight is 32 x 64"));
    let mut w = tiny_llama();
    w.tensors.retain(|t| t.name != "output_norm.weight");
    assert_eq!(refusal(&w), "tensor output_norm.weight is missing");
    let mut w = tiny_llama();
    w.set("general.architecture", &Value::String("mam\nba".to_owned()));
    assert!(refusal(&w).contains("\"mam\\nba\" is not supported"));
    let mut w = tiny_llama();
    w.tensor("token_embd.weight").dims[1] -= 1;
    assert_eq!(
        refusal(&w),
        "tokenizer.ggml.tokens has 259 entries, tensor token_embd.weight only 258 rows"
    );
    let mut w = tiny_llama();
    w.set("tokenizer.ggml.eos_token_id", &Value::U64(100_000));
    assert!(refusal(&w).contains("tokenizer.ggml.eos_token_id is 100000"));
}

#[test]
fn extras_are_tolerated() {
    let mut w = tiny_llama();
    w.set("some.key", &Value::Nested);
    w.set("general.name", &Value::NotUtf8);
    w.f32s("extra", &[4], &[0.0; 4]);
    w.tensor("extra").kind = 16;
    w.f32s("another", &[4, 4, 4], &[0.0; 64]);
    let opened = open_with(&w, &engine()).unwrap();
    assert_eq!(opened.name, "tiny");
}

#[test]
fn every_cut_of_a_file_is_refused() {
    let file = written(&tiny_llama());
    let bytes = std::fs::read(&file.path).unwrap();
    let config = backend(Kernels::Candle);
    for len in (0..bytes.len()).step_by(64).chain([bytes.len() - 1]).rev() {
        let handle = std::fs::OpenOptions::new().write(true).open(&file.path).unwrap();
        handle.set_len(len as u64).unwrap();
        let error = open(&file.path, &config, &engine()).err().unwrap();
        assert!(!error.to_string().chars().any(char::is_control), "{len}: {error}");
    }
}

#[test]
fn devices_and_kernels_are_held_against_the_build() {
    let choose = |device, kernels| {
        Maker::choose(&BackendConfig {
            threads: None,
            device,
            kernels,
            quantize: None,
            memory_bytes: None,
        })
    };
    assert_eq!(choose(Device::Cpu, Kernels::Candle), Ok(Maker::Candle(Place::Cpu)));
    assert_eq!(choose(Device::Cpu, Kernels::Scalar), Ok(Maker::Cpu(Kernels::Scalar, None)));
    for (device, name) in [(Device::Cuda, "cuda"), (Device::Metal, "metal")] {
        let place = if device == Device::Cuda { Place::Cuda } else { Place::Metal };
        let expected = if place.built_in() {
            format!(
                "--kernels avx2 are for the CPU, not for --device {name}: leave one of them at auto"
            )
        } else {
            format!(
                "--device {name}: this build has no {name} support; take --device cpu, or build with \
                 --features {name}"
            )
        };
        assert_eq!(choose(device, Kernels::Avx2), Err(expected));
    }
}

/// Whatever is wrong with a file, a panic inside a library still ends in one line.
#[test]
fn a_panic_becomes_a_line() {
    assert_eq!(panic_text(&"first\nsecond"), "first");
    assert_eq!(panic_text(&format!("{} tensors", 3)), "3 tensors");
    assert_eq!(panic_text(&3), "no reason was given");
}
