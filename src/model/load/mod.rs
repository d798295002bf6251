//! Loading: file formats in, tensors and metadata out. Nothing is believed that was not checked.

pub mod bounded;
mod defaults;
mod digest;
mod end_tokens;
mod folder;
pub mod gguf;
mod origins;

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::backend::TensorSource;
use crate::config::Quantize;
pub use defaults::SamplingDefaults;
pub use digest::digest;
pub(crate) use digest::hex;
pub use end_tokens::end_tokens;
pub use folder::{Folder, Foreign, Opened, TextFiles, open_foreign};
pub(crate) use folder::{
    files as folder_files, preview as preview_folder, preview_foreign, read_text,
};
use gguf::{Gguf, LoadError, Metadata, ModelFile};
pub use origins::Origins;

/// Opens a file of a model somewhere, and says how many bytes it has. Errors are clauses about the file.
pub(crate) type Input<'a> = &'a dyn Fn(&Path) -> Result<(Box<dyn Read + 'a>, u64), String>;

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
        if path.is_dir() { Self::of(&path, quantize) } else { Gguf::open(path).map(Self::from) }
    }

    /// Of a folder, wherever its files are.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(folder: &dyn Folder, quantize: Quantize) -> Result<Self, LoadError> {
        folder::open(folder, quantize)
    }

    /// A GGUF file that is elsewhere: its header alone is read, and those of its other parts.
    ///
    /// # Errors
    /// As of [`Checkpoint::open`]; also what `open` says.
    pub(crate) fn preview_file(path: &Path, open: Input<'_>) -> Result<Self, LoadError> {
        let one = |path: &Path| {
            let (input, bytes) = open(path).map_err(|reason| LoadError::new(path, reason))?;
            Gguf::read(path, BufReader::new(input), bytes)
        };
        Gguf::open_with(path, &one).map(Self::from)
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
