//! The same lives with the real models on the real kernels: whatever the crowd, the budget, the cache,
//! the drafts, the tier and the number of threads, every answer has the bits that the same model gives
//! to it alone, in a plain loop, on the best tier.
//!
//! `MILLRACE_REAL_ROUNDS` multiplies the lives of each model, `MILLRACE_REAL_SEED` runs one of them alone.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use millrace::backend::KvDtype;
use millrace::config::{BackendConfig, Device, EngineConfig, Kernels};
use millrace::engine::simulate::{Oracle, Scale, Tally, live_with};
use millrace::model::{self, Model};

use crate::number;

/// A few requests of all kinds.
const FEW: Scale = Scale {
    requests: (2, 7),
    places: (1, 8),
    context: (60, 330),
    prompt: 50,
    new_tokens: 12,
    faulty: 0.2,
    roomy: false,
};

/// Many at once that are short.
const CROWD: Scale = Scale {
    requests: (32, 32),
    places: (64, 64),
    context: (36, 36),
    prompt: 6,
    new_tokens: 8,
    faulty: 0.0,
    roomy: true,
};

/// What the scalar kernels bear, which are the specification and not fast.
const TINY: Scale = Scale {
    requests: (2, 2),
    places: (1, 2),
    context: (34, 40),
    prompt: 8,
    new_tokens: 2,
    faulty: 0.0,
    roomy: false,
};

/// Tier, threads and scale of one life after another.
const ROUND: [(Kernels, usize, Scale); 8] = [
    (Kernels::Avx512, 1, FEW),
    (Kernels::Avx2, 2, FEW),
    (Kernels::Avx512, 3, CROWD),
    (Kernels::AvxVnni, 2, FEW),
    (Kernels::Scalar, 2, TINY),
    (Kernels::Avx512, 2, FEW),
    (Kernels::Avx2, 1, CROWD),
    (Kernels::Avx2, 3, FEW),
];

fn path(file: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/models");
    let folder = std::env::var_os("MILLRACE_TEST_MODELS").unwrap_or_else(|| default.into());
    let path = PathBuf::from(folder).join(file);
    assert!(path.is_file(), "{} is missing: run `make models`", path.display());
    path
}

fn backend(kernels: Kernels, threads: usize) -> BackendConfig {
    BackendConfig {
        threads: Some(threads),
        device: Device::Cpu,
        kernels,
        quantize: None,
        memory_bytes: None,
    }
}

fn open(file: &str, backend: &BackendConfig) -> Box<dyn Model> {
    let engine = EngineConfig {
        max_model_len: Some(FEW.context.1),
        max_num_seqs: CROWD.places.1,
        max_num_batched_tokens: Some(256),
        max_queue_requests: 1,
        max_queue_tokens: 1,
        kv_cache_bytes: 96 << 20,
        kv_cache_dtype: KvDtype::F16,
        prefix_caching: true,
        seed: None,
        client_stall_timeout: Duration::ZERO,
    };
    model::open(&path(file), backend, &engine).unwrap_or_else(|e| panic!("{e}")).model
}

/// Life number `seed` of a model. A tier that cannot run here is named, past the test harness, which
/// shows nothing of a test that passes; its life is lived on the best one.
fn life(file: &str, oracle: &mut Oracle, seed: u64) -> Tally {
    let (tier, threads, scale) = ROUND[seed as usize % ROUND.len()];
    let mut backend = backend(tier, threads);
    if let Err(reason) = model::check_backend(&backend) {
        let _ = writeln!(std::io::stderr(), "NOT RUN: life {seed} of {file} on {tier:?}: {reason}");
        backend.kernels = Kernels::Auto;
    }
    live_with(open(file, &backend), oracle, scale, seed).unwrap_or_else(|fault| {
        panic!(
            "{fault}\n\nlife {seed} of {file} did not hold on {backend:?}; to see it again:\n    \
             MILLRACE_REAL_SEED={seed} cargo test --release --features fake-model --test sim real::\n"
        )
    })
}

#[expect(clippy::print_stdout, reason = "what happened in the lives is worth a line")]
fn lives(file: &str) {
    let mut oracle = Oracle::new(open(file, &backend(Kernels::Auto, 2)));
    if let Some(seed) = number("MILLRACE_REAL_SEED") {
        println!("{:?}", life(file, &mut oracle, seed));
        return;
    }
    let mut total = Tally::default();
    let rounds = number("MILLRACE_REAL_ROUNDS").unwrap_or(1);
    for seed in 0..rounds * ROUND.len() as u64 {
        total.add(&life(file, &mut oracle, seed));
    }
    println!("{file}: {total:?}");
    let Tally { finished, aborted, preemptions, cache_hits, .. } = total;
    // What never happens is not checked.
    let happened = [finished, aborted, preemptions, cache_hits];
    assert!(happened.iter().all(|&n| n > 0), "something never happened: {total:?}");
    assert!(total.widest_step >= 40, "no step held a crowd: {total:?}");
}

#[test]
fn smollm2_says_the_same_whatever_else_runs() {
    lives("SmolLM2-135M-Instruct.Q4_1.gguf");
}

#[test]
fn gemma3_says_the_same_whatever_else_runs() {
    lives("gemma-3-270m-Q4_K_M.gguf");
}

#[test]
fn qwen2_says_the_same_whatever_else_runs() {
    lives("qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf");
}
