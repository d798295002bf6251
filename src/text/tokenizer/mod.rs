//! Strings to token ids, from nothing but GGUF metadata.

mod bpe;
#[cfg(feature = "fake-model")]
mod fake;
mod index;
mod merge;
mod special;
mod split;
mod spm;
#[cfg(test)]
mod tests;

use crate::engine::message::TokenId;
use crate::model::load::gguf::Metadata;
use crate::text::TextError;
use crate::text::vocab::{Kind, Spelling, Vocab};
use bpe::Bpe;
#[cfg(feature = "fake-model")]
use fake::FakePieces;
use index::Index;
use special::Special;
use split::Split;
use spm::Spm;

/// A model's tokenizer.
#[derive(Debug)]
pub(super) struct Tokenizer {
    method: Method,
    /// Ordinary tokens by their bytes.
    index: Index,
    /// Tokens that are found in every text.
    user_defined: Special,
    /// Those, and control tokens.
    all_special: Special,
}

#[derive(Debug)]
enum Method {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
    #[cfg(feature = "fake-model")]
    Fake(FakePieces),
}

/// How a model's vocabulary is spelt. An unknown `tokenizer.ggml.model` is refused by name.
pub(super) fn spelling(metadata: &Metadata) -> Result<Spelling, TextError> {
    match metadata.str("tokenizer.ggml.model")? {
        "gpt2" => Ok(Spelling::Chars),
        "llama" => Ok(Spelling::Blanks),
        other => Err(unknown("tokenizer.ggml.model", other)),
    }
}

/// Whether the tokenizer puts a blank before a text: `SentencePiece` does unless told otherwise.
pub(super) fn space_prefix(metadata: &Metadata, spelling: Spelling) -> Result<bool, TextError> {
    let given = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?;
    Ok(spelling == Spelling::Blanks && given.unwrap_or(true))
}

/// The error for a name that Millrace does not know.
fn unknown(key: &str, name: &str) -> TextError {
    TextError(format!("unknown {key} {}", crate::model::load::gguf::shown(name)))
}

impl Tokenizer {
    pub(super) fn from_gguf(metadata: &Metadata, vocab: &mut Vocab) -> Result<Self, TextError> {
        let index = index_of(vocab);
        let spelling = spelling(metadata)?;
        let method = match spelling {
            Spelling::Chars => {
                let pre = metadata.str("tokenizer.ggml.pre")?;
                let split =
                    Split::from_name(pre).ok_or_else(|| unknown("tokenizer.ggml.pre", pre))?;
                let merges = metadata.strings("tokenizer.ggml.merges")?;
                Method::Bpe(Box::new(Bpe::new(split, merges, vocab, &index)?))
            }
            Spelling::Blanks => {
                // A pre-tokenizer is no part of SentencePiece: converters write "default".
                let pre = metadata.opt_str("tokenizer.ggml.pre")?;
                if let Some(other) = pre.filter(|&pre| pre != "default") {
                    return Err(unknown("tokenizer.ggml.pre", other));
                }
                let scores = metadata.f32s("tokenizer.ggml.scores")?;
                vocab.same_length("tokenizer.ggml.scores", scores.len())?;
                let unknown = vocab.opt_id(metadata, "tokenizer.ggml.unknown_token_id")?;
                let prefix = space_prefix(metadata, spelling)?;
                Method::Spm(Box::new(Spm::new(scores, unknown, prefix, vocab)?))
            }
        };
        Self::with(method, index, vocab)
    }

    /// For the fake model: pieces found in a text as they stand.
    #[cfg(feature = "fake-model")]
    pub(super) fn fake(vocab: &mut Vocab) -> Result<Self, TextError> {
        let index = index_of(vocab);
        let pieces = FakePieces::new(vocab)?;
        Self::with(Method::Fake(pieces), index, vocab)
    }

    fn with(method: Method, index: Index, vocab: &Vocab) -> Result<Self, TextError> {
        Ok(Self {
            method,
            index,
            user_defined: Special::new(vocab, |kind| kind == Kind::UserDefined)?,
            all_special: Special::new(vocab, |kind| {
                matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown)
            })?,
        })
    }

    /// Tokens of `text`, without BOS. Control tokens are found in it if `special`.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, special: bool) -> Vec<TokenId> {
        let finder = if special { &self.all_special } else { &self.user_defined };
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut at = 0;
        for (range, id) in finder.find(text) {
            self.plain(vocab, (&text[at..range.start], false), &mut ids);
            ids.push(id);
            at = range.end;
        }
        self.plain(vocab, (&text[at..], false), &mut ids);
        ids
    }

    /// Tokens of a text that goes on with what stands before it, nothing in it being special.
    pub(super) fn encode_on(&self, vocab: &Vocab, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        let mut at = 0;
        for (range, id) in self.user_defined.find(text) {
            self.plain(vocab, (&text[at..range.start], true), &mut ids);
            ids.push(id);
            at = range.end;
        }
        self.plain(vocab, (&text[at..], true), &mut ids);
        ids
    }

    /// Appends the tokens of a text that begins the sequence, follows a special token, or goes on.
    fn plain(&self, vocab: &Vocab, (text, goes_on): (&str, bool), ids: &mut Vec<TokenId>) {
        match &self.method {
            Method::Bpe(bpe) => bpe.encode(text, ids),
            Method::Spm(spm) => spm.encode((text, goes_on), (vocab, &self.index), ids),
            #[cfg(feature = "fake-model")]
            Method::Fake(pieces) => pieces.encode(text, ids),
        }
    }
}

/// Ordinary tokens by their bytes. Of several with the same bytes the first counts; the vocabulary
/// is told of the others.
fn index_of(vocab: &mut Vocab) -> Index {
    let mut index = Index::with_capacity(vocab.len());
    let mut twins = Vec::new();
    for id in (0..vocab.len() as TokenId).filter(|&id| vocab.kind(id) == Kind::Normal) {
        if index.insert(vocab.raw(id), id, |id| vocab.raw(id)).is_some() {
            twins.push(id);
        }
    }
    let mut seen = std::collections::HashSet::new();
    for id in (0..vocab.len() as TokenId).filter(|&id| vocab.kind(id) != Kind::Normal) {
        let byte = vocab.kind(id) == Kind::Byte;
        let of_normal = !byte && index.get(vocab.raw(id), |id| vocab.raw(id)).is_some();
        if of_normal || !seen.insert((byte, vocab.raw(id))) {
            twins.push(id);
        }
    }
    drop(seen);
    vocab.set_twins(twins);
    index
}
