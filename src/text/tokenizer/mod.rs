//! Strings to token ids, from nothing but GGUF metadata.

mod bpe;
#[cfg(feature = "fake-model")]
mod fake;
pub(super) mod hf;
mod index;
mod merge;
mod special;
mod split;
mod spm;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vocabulary_tests;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

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
#[cfg(feature = "fake-model")]
pub(crate) use split::cut_by_number as cut;
use split::pre::{ENCODERS, Pre};
use spm::Spm;

/// A model's tokenizer.
#[derive(Debug)]
pub(super) struct Tokenizer {
    method: Method,
    /// Ordinary tokens by their bytes.
    index: Index,
    /// Special tokens that take blanks along.
    strips: HashMap<TokenId, Strip>,
    /// Tokens that are found in every text.
    user_defined: Found,
    /// Those, and control tokens.
    all_special: Found,
}

/// Tokens that are found in a text before anything is merged.
#[derive(Debug)]
struct Found {
    /// In the text as it stands.
    plain: Special,
    /// In what is left between those, once it is normalised: some of a `tokenizer.json`.
    normalized: Option<Special>,
}

impl Found {
    fn new(
        vocab: &Vocab,
        normalized: &HashSet<TokenId>,
        wanted: impl Fn(Kind) -> bool,
    ) -> Result<Self, TextError> {
        let those = |second: bool| {
            let wanted = &wanted;
            move |id| wanted(vocab.kind(id)) && normalized.contains(&id) == second
        };
        let second = (!normalized.is_empty()).then(|| Special::new(vocab, those(true)));
        Ok(Self { plain: Special::new(vocab, those(false))?, normalized: second.transpose()? })
    }
}

/// On which sides a special token takes the blanks beside it along.
#[derive(Debug, Clone, Copy, Default)]
struct Strip {
    left: bool,
    right: bool,
}

#[derive(Debug)]
enum Method {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
    #[cfg(feature = "fake-model")]
    Fake(FakePieces),
}

/// How texts become tokens, as a model's file says it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scheme {
    Bpe(&'static Pre),
    Spm,
}

/// Where a blank is put in front of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Prefix {
    #[default]
    Never,
    /// At the start, and behind each special token.
    Always,
    /// There, unless there is one.
    UnlessThere,
    /// At the start, unless there is one.
    First,
}

/// What a text has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Special,
    /// Other text, with which it goes on.
    Text,
}

impl Prefix {
    fn is_due(self, place: Place, text: &str) -> bool {
        let due = match self {
            Self::Never => false,
            Self::Always => place != Place::Text,
            Self::UnlessThere => place != Place::Text && !text.starts_with([' ', '\u{2581}']),
            Self::First => place == Place::Start && !text.starts_with([' ', '\u{2581}']),
        };
        due && !text.is_empty()
    }
}

/// Tokenizers that are known, but not to Millrace.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("bert", "WordPiece"),
    ("hybriddna", "of DNA"),
    ("plamo2", "PLaMo 2"),
    ("rwkv", "RWKV"),
    ("t5", "Unigram"),
    ("whitespace", "of an encoder"),
];

impl Scheme {
    /// An unknown `tokenizer.ggml.model` or `tokenizer.ggml.pre` is refused by name.
    pub(super) fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let pre = |name: &str| {
            Pre::named(name).map(Self::Bpe).ok_or_else(|| {
                if ENCODERS.contains(&name) {
                    TextError(format!("tokenizer.ggml.pre {name}, of encoders, is not supported"))
                } else {
                    unknown("tokenizer.ggml.pre", name)
                }
            })
        };
        match metadata.str("tokenizer.ggml.model")? {
            "gpt2" => pre(metadata.str("tokenizer.ggml.pre")?),
            "gemma4" => pre("gemma4"),
            // A pre-tokenizer is no part of SentencePiece: converters write "default".
            "llama" => match metadata.opt_str("tokenizer.ggml.pre")? {
                Some(other) if other != "default" => Err(unknown("tokenizer.ggml.pre", other)),
                _ => Ok(Self::Spm),
            },
            other => Err(match UNSUPPORTED.iter().find(|(name, _)| *name == other) {
                Some((name, what)) => {
                    TextError(format!("tokenizer.ggml.model {name} ({what}) is not supported"))
                }
                None => unknown("tokenizer.ggml.model", other),
            }),
        }
    }

    /// How the vocabulary is spelt.
    pub(super) fn spelling(self) -> Spelling {
        match self {
            Self::Bpe(pre) if !pre.blanks => Spelling::Chars,
            _ => Spelling::Blanks,
        }
    }

    /// Whether BOS is put in front of a text. `add_eos_token` is not followed: a prompt goes on.
    pub(super) fn adds_bos(self, metadata: &Metadata) -> Result<bool, TextError> {
        let given = metadata.opt_bool("tokenizer.ggml.add_bos_token")?;
        Ok(match self {
            // Files of Gemma 4 say otherwise by mistake, as llama.cpp has it.
            Self::Bpe(pre) if pre.names.contains(&"gemma4") => true,
            Self::Bpe(pre) => given.unwrap_or(pre.adds_bos),
            Self::Spm => given.unwrap_or(true),
        })
    }

    /// Where a blank is put before a text: `SentencePiece` does unless told otherwise.
    pub(super) fn prefix(self, metadata: &Metadata) -> Result<Prefix, TextError> {
        let given = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        Ok(if matches!(self, Self::Spm) && given { Prefix::Always } else { Prefix::Never })
    }
}

/// The error for a name that Millrace does not know.
fn unknown(key: &str, name: &str) -> TextError {
    TextError(format!("unknown {key} {}", crate::model::load::gguf::shown(name)))
}

impl Tokenizer {
    pub(super) fn from_gguf(
        metadata: &Metadata,
        scheme: Scheme,
        vocab: &mut Vocab,
    ) -> Result<Self, TextError> {
        let index = index_of(vocab, Vocab::is_ordinary);
        let unknown = vocab.opt_id(metadata, "tokenizer.ggml.unknown_token_id")?;
        let method = match scheme {
            Scheme::Bpe(pre) => {
                let split = Split::new(pre).map_err(TextError)?;
                let merges = metadata.strings("tokenizer.ggml.merges")?.iter();
                let merges = ("tokenizer.ggml.merges", merges.map(|merge| bpe::parts(merge)));
                let how = (scheme.spelling(), unknown, Prefix::Never);
                Method::Bpe(Box::new(Bpe::new(split, merges, (vocab, &index), how)?))
            }
            Scheme::Spm => {
                let scores = metadata.f32s("tokenizer.ggml.scores")?;
                vocab.same_length("tokenizer.ggml.scores", scores.len())?;
                let prefix = scheme.prefix(metadata)?;
                Method::Spm(Box::new(Spm::new(scores, unknown, prefix, vocab)?))
            }
        };
        let mut tokenizer = Self::with(method, index, vocab, &HashSet::new())?;
        if matches!(scheme, Scheme::Spm) && is_phi3(metadata)? {
            tokenizer.strips = phi3_strips(vocab);
        }
        Ok(tokenizer)
    }

    /// For the fake model: pieces found in a text as they stand.
    #[cfg(feature = "fake-model")]
    pub(super) fn fake(vocab: &mut Vocab) -> Result<Self, TextError> {
        let index = index_of(vocab, Vocab::is_ordinary);
        let pieces = FakePieces::new(vocab)?;
        Self::with(Method::Fake(pieces), index, vocab, &HashSet::new())
    }

    fn with(
        method: Method,
        index: Index,
        vocab: &Vocab,
        normalized: &HashSet<TokenId>,
    ) -> Result<Self, TextError> {
        Ok(Self {
            method,
            index,
            strips: HashMap::new(),
            user_defined: Found::new(vocab, normalized, |kind| kind == Kind::UserDefined)?,
            all_special: Found::new(vocab, normalized, |kind| {
                matches!(kind, Kind::UserDefined | Kind::Control | Kind::Unknown)
            })?,
        })
    }

    /// Tokens of `text`, without BOS. Control tokens are found in it if `special`.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, special: bool) -> Vec<TokenId> {
        let finder = if special { &self.all_special } else { &self.user_defined };
        self.encode_between(vocab, (text, [Place::Start, Place::Special]), finder)
    }

    /// Tokens of a text that goes on with what stands before it, nothing in it being special.
    pub(super) fn encode_on(&self, vocab: &Vocab, text: &str) -> Vec<TokenId> {
        self.encode_between(vocab, (text, [Place::Text; 2]), &self.user_defined)
    }

    /// The second of the places is that of a text behind a token that was found.
    fn encode_between(
        &self,
        vocab: &Vocab,
        (text, [first, others]): (&str, [Place; 2]),
        found: &Found,
    ) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        self.between((text, [first, others]), &found.plain, &mut ids, &|text, place, ids| {
            let Some(second) = &found.normalized else {
                return self.plain(vocab, (text, place), ids);
            };
            let text = match &self.method {
                Method::Bpe(bpe) => bpe.normal(text),
                Method::Spm(_) => Cow::Borrowed(text),
                #[cfg(feature = "fake-model")]
                Method::Fake(_) => Cow::Borrowed(text),
            };
            self.between((&text, [place, others]), second, ids, &|text, place, ids| {
                self.plain(vocab, (text, place), ids);
            });
        });
        ids
    }

    /// Appends the tokens that are found in a text, and what `each` makes of what is between them.
    fn between(
        &self,
        (text, [first, others]): (&str, [Place; 2]),
        finder: &Special,
        ids: &mut Vec<TokenId>,
        each: &impl Fn(&str, Place, &mut Vec<TokenId>),
    ) {
        let place = |at| if at == 0 { first } else { others };
        let mut at = 0;
        for (range, id) in finder.find(text) {
            // It may stand in the blanks that the one before has taken.
            if range.start < at {
                continue;
            }
            let strip = self.strips.get(&id).copied().unwrap_or_default();
            let before = &text[at..range.start];
            let before = if strip.left { before.trim_end() } else { before };
            each(before, place(at), ids);
            ids.push(id);
            let rest = &text[range.end..];
            let rest = if strip.right { rest.trim_start() } else { rest };
            at = text.len() - rest.len();
        }
        each(&text[at..], place(at), ids);
    }

    /// Appends the tokens of a text in which nothing is special.
    fn plain(&self, vocab: &Vocab, (text, place): (&str, Place), ids: &mut Vec<TokenId>) {
        match &self.method {
            Method::Bpe(bpe) => bpe.encode((text, place), (vocab, &self.index), ids),
            Method::Spm(spm) => spm.encode((text, place), (vocab, &self.index), ids),
            #[cfg(feature = "fake-model")]
            Method::Fake(pieces) => pieces.encode(text, ids),
        }
    }
}

/// GGUF does not say which special tokens take blanks along; llama.cpp goes by the model's name, too.
fn is_phi3(metadata: &Metadata) -> Result<bool, TextError> {
    let name = metadata.opt_str("general.name")?.unwrap_or_default().to_lowercase();
    Ok(name.contains("phi-3") || name.contains("phi3"))
}

fn phi3_strips(vocab: &Vocab) -> HashMap<TokenId, Strip> {
    let kept = |id| ["<unk>", "<s>", "<|endoftext|>"].map(str::as_bytes).contains(&vocab.raw(id));
    (0..vocab.len() as TokenId)
        .filter(|&id| vocab.is_special(id) || vocab.kind(id) == Kind::UserDefined)
        .filter(|&id| !kept(id))
        .map(|id| (id, Strip { left: false, right: true }))
        .collect()
}

/// Ordinary tokens by their bytes. Of several with the same bytes the first counts; the vocabulary
/// is told of the others.
fn index_of(vocab: &mut Vocab, ordinary: impl Fn(&Vocab, TokenId) -> bool) -> Index {
    let mut index = Index::with_capacity(vocab.len());
    let mut twins = Vec::new();
    for id in (0..vocab.len() as TokenId).filter(|&id| ordinary(vocab, id)) {
        if index.insert(vocab.raw(id), id, |id| vocab.raw(id)).is_some() {
            twins.push(id);
        }
    }
    let mut seen = HashSet::new();
    for id in (0..vocab.len() as TokenId).filter(|&id| !ordinary(vocab, id)) {
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
