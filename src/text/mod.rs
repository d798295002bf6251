//! Strings to tokens and back, and everything that needs both: the only owner of the vocabulary.
//!
//! * [`Text`]: the text side of one model: tokenizer, bytes of each token, chat template.
//! * [`Detokenizer`]: tokens to text, one by one, without breaking characters.
//! * [`StopSet`]: compiled stop strings; [`StopSet::watch`] is what the engine asks.
//! * [`TextStream`]: a [`Detokenizer`] that stops at stop strings and never leaks their beginning.

mod detokenize;
mod stop;
mod stream;
mod template;

use std::sync::Arc;

pub use detokenize::Detokenizer;
pub use stop::{MAX_STOP_BYTES, MAX_STOPS, StopError, StopSet};
pub use stream::{Piece, TextStream};
pub use template::{ChatMessage, ChatOptions, TemplateError};

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
    #[expect(dead_code, reason = "the vocabulary lands with the tokenizers")]
    inner: Arc<()>,
}

impl Text {
    /// From GGUF metadata. An unknown tokenizer model or pre-tokenizer is refused by name.
    pub fn from_gguf(_metadata: &Metadata) -> Result<Self, TextError> {
        Err(TextError("tokenizers are not built yet".to_owned()))
    }

    /// For the fake model: `vocab` tokens, some of several bytes, some special.
    #[cfg(feature = "fake-model")]
    pub fn fake(_vocab: usize) -> Self {
        Self { inner: Arc::new(()) }
    }

    /// Token ids of `text`. `special`: special tokens written in the text become their ids, else they
    /// are plain text. `add_bos`: BOS is put in front where the model's metadata says so.
    pub fn encode(&self, _text: &str, _special: bool, _add_bos: bool) -> Vec<TokenId> {
        Vec::new()
    }

    /// The text of a whole sequence; bytes that are not UTF-8 become U+FFFD, as
    /// [`String::from_utf8_lossy`] has it. `skip_special` leaves special tokens out.
    pub fn decode(&self, _ids: &[TokenId], _skip_special: bool) -> String {
        String::new()
    }

    /// [`Self::decode`], and for each token where its text begins, in Unicode scalar values.
    pub fn decode_with_offsets(
        &self,
        _ids: &[TokenId],
        _skip_special: bool,
    ) -> (String, Vec<usize>) {
        (String::new(), Vec::new())
    }

    /// The bytes that a token stands for; none for an id outside the vocabulary.
    pub fn token_bytes(&self, _id: TokenId) -> &[u8] {
        &[]
    }

    /// A text for one token that no other token has: its own, or `bytes:\xe2\x96` where its bytes
    /// are not valid UTF-8.
    pub fn token_label(&self, _id: TokenId) -> String {
        String::new()
    }

    /// A control token, such as BOS: not text.
    pub fn is_special(&self, _id: TokenId) -> bool {
        false
    }

    /// Ids are below this.
    pub fn vocab(&self) -> usize {
        0
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        None
    }

    /// Whether [`Self::encode`] with `add_bos` puts [`Self::bos`] in front.
    pub fn adds_bos(&self) -> bool {
        false
    }

    /// Tokens that end an answer, ascending.
    pub fn end_tokens(&self) -> &[TokenId] {
        &[]
    }

    /// The model's own chat template, if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        None
    }

    /// Renders a conversation by the model's chat template. Special tokens stand in the result as
    /// text: encode it with `special`, and without `add_bos` (templates write BOS themselves).
    pub fn render_chat(
        &self,
        _messages: &[ChatMessage],
        _options: &ChatOptions,
    ) -> Result<String, TemplateError> {
        Err(TemplateError::Missing)
    }
}
