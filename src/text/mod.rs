//! Strings to tokens and back, and everything that needs both: the only owner of the vocabulary.
//!
//! * [`Text`]: the text side of one model: tokenizer, bytes of each token, chat template.
//! * [`Detokenizer`]: tokens to text, one by one, without breaking characters.
//! * [`StopSet`]: compiled stop strings; [`StopSet::watch`] is what the engine asks.
//! * [`grammar`]: what keeps an answer within a schema or a grammar.
//! * [`TextStream`]: a [`Detokenizer`] that stops at stop strings and never leaks their beginning.

mod detokenize;
#[cfg(feature = "fake-model")]
mod fake;
mod fim;
pub mod grammar;
mod hf;
mod stop;
mod stream;
mod template;
#[cfg(test)]
pub(crate) mod testing;
mod tokenizer;
mod vocab;

use std::sync::Arc;

pub use detokenize::Detokenizer;
#[cfg(feature = "fake-model")]
pub use fake::FAKE_END;
pub use hf::Beside;
pub use stop::{STOP_BYTES_MAX, STOPS_MAX, StopError, StopSet};
pub use stream::{Piece, TextStream};
pub use template::{ChatMessage, ChatOptions, Json, Knows, TemplateError};
#[cfg(feature = "fake-model")]
pub(crate) use tokenizer::cut;

use crate::engine::message::TokenId;
use crate::model::load::gguf::Metadata;
use fim::Fim;
use template::Template;
use tokenizer::{Prefix, Scheme, Tokenizer};
use vocab::{Kind, Vocab};

/// Why the text side of a model cannot be used; names the metadata key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

/// The text side of one model, shared by all requests: tokenizer, bytes of each token, template.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Text {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vocab: Vocab,
    tokenizer: Tokenizer,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    adds_bos: bool,
    end_tokens: Vec<TokenId>,
    /// Where encoding puts a blank before a text.
    prefix: Prefix,
    template: Option<Template>,
    fim: Option<Fim>,
}

impl Text {
    /// From GGUF metadata. An unknown tokenizer model or pre-tokenizer is refused by name.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let scheme = Scheme::from_gguf(metadata)?;
        let mut vocab = Vocab::from_gguf(metadata, scheme.spelling())?;
        let tokenizer = Tokenizer::from_gguf(metadata, scheme, &mut vocab)?;
        let id = |name: &str| vocab.opt_id(metadata, &format!("tokenizer.ggml.{name}_token_id"));
        let bos = id("bos")?;
        let eos = id("eos")?;
        let tokens = [
            ("bos_token", bos),
            ("eos_token", eos),
            ("unk_token", id("unknown")?),
            ("pad_token", id("padding")?),
        ];
        let template = metadata.opt_str("tokenizer.chat_template")?.map(|source| {
            let text = |id| String::from_utf8_lossy(vocab.raw(id)).into_owned();
            let named = |(name, id): (_, Option<_>)| id.map(|id| (name, text(id)));
            Template::new(source.to_owned(), tokens.into_iter().filter_map(named).collect())
        });
        let inner = Inner {
            bos,
            eos,
            adds_bos: scheme.adds_bos(metadata)? && bos.is_some(),
            end_tokens: crate::model::load::end_tokens(metadata)?,
            prefix: scheme.prefix(metadata)?,
            fim: Fim::from_gguf(metadata, &vocab)?,
            vocab,
            tokenizer,
            template,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Token ids of `text`. `special`: special tokens written in the text become their ids, else they
    /// are plain text. `add_bos`: BOS is put in front where the model's metadata says so, even if the
    /// text itself begins with it. About linear in time; a megabyte takes from
    /// 30 ms (words) to a second (one single word).
    pub fn encode(&self, text: &str, special: bool, add_bos: bool) -> Vec<TokenId> {
        let mut ids = self.inner.tokenizer.encode(&self.inner.vocab, text, special);
        if let Some(bos) = self.inner.bos.filter(|_| add_bos && self.inner.adds_bos) {
            ids.insert(0, bos);
        }
        ids
    }

    /// Token ids of a text that goes on with what stands before it; nothing in it is special.
    fn encode_on(&self, text: &str) -> Vec<TokenId> {
        self.inner.tokenizer.encode_on(&self.inner.vocab, text)
    }

    /// The text of a whole sequence; bytes that are not UTF-8 become U+FFFD, as
    /// [`String::from_utf8_lossy`] has it. `skip_special` leaves special tokens out.
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        let (mut text, _, mut detokenizer) = self.decode_with_offsets(ids, skip_special);
        text.push_str(detokenizer.finish());
        text
    }

    /// [`Self::decode`] without a last character that never became whole, for each token where its
    /// text begins, in Unicode scalar values, and what can go on with that text.
    pub fn decode_with_offsets(
        &self,
        ids: &[TokenId],
        skip_special: bool,
    ) -> (String, Vec<usize>, Detokenizer) {
        let mut detokenizer = Detokenizer::at_start(self, skip_special);
        let mut text = String::new();
        let mut offsets = Vec::with_capacity(ids.len());
        for &id in ids {
            detokenizer.push_to(self, id, &mut text);
            offsets.push(detokenizer.offset());
        }
        (text, offsets, detokenizer)
    }

    /// The bytes that a token stands for; none for an id outside the vocabulary or for one that only
    /// fills it up. Of a special token, its name.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.inner.vocab.bytes(id)
    }

    /// A text for one token that no other token has: its own, or `bytes:\xe2\x96` where its bytes
    /// are not valid UTF-8 or it stands for a single byte, or `token_id:7` where another token has the
    /// same text.
    pub fn token_label(&self, id: TokenId) -> String {
        self.inner.vocab.label(id)
    }

    /// A control token, such as BOS: not text.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.inner.vocab.is_special(id)
    }

    /// Ids are below this.
    pub fn vocab(&self) -> usize {
        self.inner.vocab.len()
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<TokenId> {
        self.inner.bos
    }

    /// The one end token that the metadata calls by that name, if it does.
    pub fn eos(&self) -> Option<TokenId> {
        self.inner.eos
    }

    /// Whether [`Self::encode`] with `add_bos` puts [`Self::bos`] in front.
    pub fn adds_bos(&self) -> bool {
        self.inner.adds_bos
    }

    /// Tokens that end an answer, ascending: those that the metadata names, and those that are known
    /// by their text to end a turn.
    pub fn end_tokens(&self) -> &[TokenId] {
        &self.inner.end_tokens
    }

    /// The model's own chat template, if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.inner.template.as_ref().map(Template::source)
    }

    /// What the chat template has words for; nothing without a template.
    pub fn template_knows(&self) -> Knows {
        self.inner.template.as_ref().map_or_else(Knows::default, Template::knows)
    }

    /// Renders a conversation by the model's chat template, on a thread of its own. Special tokens stand in the result as
    /// text: encode it with `special`, and without `add_bos` (templates write BOS themselves).
    pub fn render_chat(
        &self,
        messages: &[ChatMessage],
        options: &ChatOptions,
    ) -> Result<String, TemplateError> {
        let template = self.inner.template.as_ref().ok_or(TemplateError::Missing)?;
        template.render(messages, options)
    }

    /// Where encoding puts a blank before a text.
    fn prefix(&self) -> Prefix {
        self.inner.prefix
    }

    /// A token that encoding finds in a text as it is written.
    fn is_marker(&self, id: TokenId) -> bool {
        self.is_special(id) || self.inner.vocab.kind(id) == Kind::UserDefined
    }
}
