//! The GGUF container: header, metadata, tensor directory.
//!
//! Every count, length, dimension and offset is held against the real size of the file before
//! anything is made from it. What the structure of the file needs is refused at once; what is wrong
//! with a single tensor is remembered and refused only when a model needs that tensor, so that files
//! with extras still load. Format: ggml's `docs/gguf.md`.

mod metadata;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::backend::TensorSource;
pub use metadata::{KeyError, Metadata, Value};

/// Why a model file was refused: one line that names the file and what in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub reason: String,
}

impl LoadError {
    pub fn new(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// A checked GGUF file: every tensor in `tensors` lies inside the file and has the size its type says.
#[derive(Debug, Clone)]
pub struct Gguf {
    pub path: PathBuf,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Bytes of header, metadata and tensor directory, without the padding that follows.
    pub header_bytes: u64,
    pub metadata: Metadata,
    pub tensors: BTreeMap<String, TensorSource>,
    /// Tensors that cannot be used, and why: an unknown type, an impossible shape, outside the file.
    pub unusable: BTreeMap<String, String>,
}

impl Gguf {
    /// Reads and checks the header. Allocates in proportion to what the file really holds.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Err(LoadError::new(path, "cannot be read yet"))
    }
}

/// Characters of a name from a file that an error shows.
const SHOWN_CHARS: usize = 64;

/// A name from a file as an error may show it: control characters escaped, long ones cut.
pub fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        text.push('…');
    }
    text
}
