//! Strings to tokens and back, and everything that needs both: the only owner of the vocabulary.

use std::sync::Arc;

use crate::engine::message::TokenId;
use crate::model::load::gguf::Metadata;

/// Why the text side of a model cannot be used; names the metadata key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

/// The text side of one model, shared by all requests: tokenizer, bytes of each token, template.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Text {
    #[allow(dead_code)]
    inner: Arc<()>,
}

impl Text {
    /// From GGUF metadata. An unknown tokenizer model or pre-tokenizer is refused by name.
    pub fn from_gguf(_metadata: &Metadata) -> Result<Self, TextError> {
        Err(TextError("skeleton".to_owned()))
    }

    /// `special`: special tokens written in the text become their ids (API.md 0.21), and BOS is added
    /// where the model's metadata says so. Without it, plain text, no BOS.
    pub fn encode(&self, _text: &str, _special: bool) -> Vec<TokenId> {
        Vec::new()
    }
}
