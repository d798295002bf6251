//! What tests of several modules need: the real models' texts, made once.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

use crate::model::load::gguf::{Gguf, Metadata};
use crate::text::Text;

/// A model of the tests, its golden files' name, and its text side.
pub(super) struct Real {
    pub(super) name: &'static str,
    file: &'static str,
    text: OnceLock<Text>,
}

pub(super) static SMOLLM: Real =
    Real::new("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf");
pub(super) static GEMMA: Real = Real::new("gemma-3-270m", "gemma-3-270m-Q4_K_M.gguf");
pub(super) static QWEN: Real =
    Real::new("qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf");

pub(super) static FAKE: LazyLock<Text> = LazyLock::new(|| Text::fake(300));

impl Real {
    const fn new(name: &'static str, file: &'static str) -> Self {
        Self { name, file, text: OnceLock::new() }
    }

    pub(super) fn metadata(&self) -> Metadata {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = std::env::var_os("MILLRACE_TEST_MODELS")
            .map_or_else(|| root.join(".cache/models"), PathBuf::from);
        let path = folder.join(self.file);
        assert!(path.exists(), "{} is missing: run `make models`", path.display());
        Gguf::open(&path).unwrap().metadata
    }

    pub(super) fn text(&self) -> &Text {
        self.text.get_or_init(|| Text::from_gguf(&self.metadata()).unwrap())
    }

    /// The lines of a golden file.
    pub(super) fn golden(&self, ending: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        std::fs::read_to_string(root.join(format!("{}.{ending}", self.name))).unwrap()
    }
}
