//! From a model file and the configuration to a model that the engine can drive.

use std::path::Path;

use super::Model;
use super::load::gguf::{LoadError, Metadata};
use crate::config::{BackendConfig, EngineConfig};

/// A model that is ready to compute, and what the rest of the server must know of its file.
pub struct Opened {
    pub model: Box<dyn Model>,
    /// All of it: the tokenizer and the chat template are made from this.
    pub metadata: Metadata,
    /// `general.name`, else the file's name without its ending.
    pub name: String,
    /// `general.architecture`, such as `llama`.
    pub arch: String,
    /// Hexadecimal; equal files give equal digests. For fingerprints, not a check of integrity.
    pub file_digest: String,
    /// Such as `Q4_K_M`.
    pub quantization: String,
    /// Size of the file.
    pub load_bytes: u64,
}

/// Opens a GGUF file on the backend that the configuration asks for.
///
/// # Errors
/// One line that names the file and the tensor or key in it, or the option that cannot be met.
pub fn open(
    path: &Path,
    _backend: &BackendConfig,
    _engine: &EngineConfig,
) -> Result<Opened, LoadError> {
    Err(LoadError::new(path, "cannot be opened yet"))
}
