//! Loading: file formats in, tensors and metadata out. Nothing is believed that was not checked.

mod defaults;
mod digest;
mod end_tokens;
mod folder;
pub mod gguf;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::backend::TensorSource;
use crate::config::Quantize;
pub use defaults::SamplingDefaults;
pub use digest::digest;
pub(crate) use digest::hex;
pub use end_tokens::end_tokens;
pub use folder::TextFiles;
use gguf::{Gguf, LoadError, Metadata, ModelFile};

/// A model as it is kept, checked: a file or a folder, under the names and keys of a GGUF.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub metadata: Metadata,
    pub tensors: BTreeMap<String, TensorSource>,
    /// Tensors that cannot be used, and why.
    pub unusable: BTreeMap<String, String>,
    /// Those that make it what it is.
    pub files: Vec<ModelFile>,
    /// Bytes of those with weights.
    pub bytes: u64,
    /// What a folder has instead of the tokenizer in the metadata.
    pub text: Option<TextFiles>,
}

impl Checkpoint {
    /// Opens a GGUF file or a folder with safetensors, whose matrices become what `quantize` says.
    ///
    /// # Errors
    /// One line that names the file and what in it.
    pub fn open(path: &Path, quantize: Quantize) -> Result<Self, LoadError> {
        if path.is_dir() { folder::open(path, quantize) } else { Gguf::open(path).map(Self::from) }
    }
}

impl From<Gguf> for Checkpoint {
    fn from(gguf: Gguf) -> Self {
        Self {
            files: gguf.files,
            bytes: gguf.file_bytes,
            text: None,
            path: gguf.path,
            metadata: gguf.metadata,
            tensors: gguf.tensors,
            unusable: gguf.unusable,
        }
    }
}
