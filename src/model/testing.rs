//! The three real models, for the tests that need them.

use std::path::{Path, PathBuf};

use super::arch::{Description, describe};
use super::load::gguf::Gguf;

pub(crate) const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
pub(crate) const GEMMA3: &str = "gemma-3-270m-Q4_K_M.gguf";
pub(crate) const QWEN2: &str = "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf";

/// A test model's file; `make models` fetches them.
pub(crate) fn model_path(file: &str) -> PathBuf {
    let folder = std::env::var_os("MILLRACE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/models")),
        PathBuf::from,
    );
    let path = folder.join(file);
    assert!(path.exists(), "{} is missing: run `make models`", path.display());
    path
}

/// What the model in a file is.
pub(super) fn described(path: &Path) -> Description {
    let gguf = Gguf::open(path).unwrap();
    describe(&gguf.metadata, &gguf.tensors, &gguf.unusable).unwrap()
}
