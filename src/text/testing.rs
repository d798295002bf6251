//! What tests of several modules need: the real models' texts, made once.

use std::path::Path;
use std::sync::{LazyLock, OnceLock};

use crate::model::load::gguf::{Gguf, Metadata};
use crate::model::testing::{GEMMA3, QWEN2, SMOLLM2, model_path};
use crate::text::Text;

/// A model of the tests, its golden files' name, and its text side.
pub(crate) struct Real {
    pub(crate) name: &'static str,
    file: &'static str,
    text: OnceLock<Text>,
}

pub(crate) static SMOLLM: Real = Real::new("smollm2-135m-instruct", SMOLLM2);
pub(crate) static GEMMA: Real = Real::new("gemma-3-270m", GEMMA3);
pub(crate) static QWEN: Real = Real::new("qwen2.5-coder-0.5b-instruct", QWEN2);

pub(crate) static FAKE: LazyLock<Text> = LazyLock::new(|| Text::fake(300));

impl Real {
    const fn new(name: &'static str, file: &'static str) -> Self {
        Self { name, file, text: OnceLock::new() }
    }

    pub(crate) fn metadata(&self) -> Metadata {
        Gguf::open(&model_path(self.file)).unwrap().metadata
    }

    pub(crate) fn text(&self) -> &Text {
        self.text.get_or_init(|| Text::from_gguf(&self.metadata()).unwrap())
    }

    /// The lines of a golden file.
    pub(crate) fn golden(&self, ending: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        std::fs::read_to_string(root.join(format!("{}.{ending}", self.name))).unwrap()
    }
}
