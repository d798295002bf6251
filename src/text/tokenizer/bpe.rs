//! BPE: words of bytes or of characters, merged in the order of a list.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization as _;

use super::index::Index;
use super::merge::{MAX_WORD_BYTES, Merger, NO_TOKEN};
use super::split::Split;
use super::split::pre::Whole;
use super::{Place, Prefix};
use crate::engine::message::TokenId;
use crate::text::TextError;
use crate::text::vocab::{Spelling, Vocab};

/// What merging begins with.
#[derive(Debug)]
enum Units {
    /// Bytes, as GPT-2 has it. A byte without a token is left out of the text, as the `tokenizers`
    /// library does: `SmolLM2` has none for some control characters.
    Bytes(Box<[Option<TokenId>; 256]>),
    /// Characters; the bytes of those that are no token have one each.
    Chars { bytes: Box<[TokenId; 256]>, prefix: Prefix },
}

/// The merges of a model, by the ids of what is merged.
#[derive(Debug)]
pub(super) struct Bpe {
    split: Split,
    units: Units,
    /// Two neighbours, left in the high half: the rank of their merge and what they become.
    merges: HashMap<u64, (u32, TokenId)>,
}

impl Bpe {
    /// Merges are read from `key`; how tokens are spelt says what merging begins with.
    pub(super) fn new<'m>(
        split: Split,
        (key, merges): (&str, impl ExactSizeIterator<Item = Option<(&'m str, &'m str)>>),
        (vocab, index): (&Vocab, &Index),
        (spelling, unknown, prefix): (Spelling, Option<TokenId>, Prefix),
    ) -> Result<Self, TextError> {
        let id_of = |bytes: &[u8]| index.get(bytes, |id| vocab.raw(id));
        let mut map = HashMap::with_capacity(merges.len());
        let (mut joined, mut part) = (Vec::new(), Vec::new());
        for (rank, merge) in merges.enumerate() {
            let wrong = |what: &str| TextError(format!("{key}[{rank}] {what}"));
            let (left, right) =
                merge.ok_or_else(|| wrong("is not two tokens with a blank between them"))?;
            joined.clear();
            let mut id_of_part = |text: &str| {
                part.clear();
                let spelt = spelling.read(text, &mut part);
                joined.extend_from_slice(&part);
                if spelt { id_of(&part).map(Some) } else { Some(None) }
                    .ok_or_else(|| wrong("names something that is no token"))
            };
            // Of what no text is spelt like, nothing is merged.
            let (Some(left), Some(right)) = (id_of_part(left)?, id_of_part(right)?) else {
                continue;
            };
            let id = id_of(&joined).ok_or_else(|| wrong("makes something that is no token"))?;
            map.entry(pair_key(left, right)).or_insert((rank as u32, id));
        }
        let units = match spelling {
            Spelling::Chars => {
                Units::Bytes(Box::new(std::array::from_fn(|byte| id_of(&[byte as u8]))))
            }
            Spelling::Blanks => {
                Units::Chars { bytes: Box::new(vocab.byte_tokens(unknown)?), prefix }
            }
        };
        Ok(Self { split, units, merges: map })
    }

    /// `text` in the form in which it is cut into words.
    pub(super) fn normal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.split.normalizes && !text.is_ascii() {
            Cow::Owned(text.nfc().collect())
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Appends the tokens of `text`, in which nothing is special.
    pub(super) fn encode(
        &self,
        (text, place): (&str, Place),
        (vocab, index): (&Vocab, &Index),
        ids: &mut Vec<TokenId>,
    ) {
        let mut merger = Merger::default();
        let text = match self.units {
            Units::Chars { prefix, .. } => with_blanks(text, prefix.is_due(place, text)),
            Units::Bytes(_) => Cow::Borrowed(text),
        };
        let text = match self.normal(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(normal) => Cow::Owned(normal),
        };
        let id_of = |bytes: &[u8]| index.get(bytes, |id| vocab.raw(id));
        self.split.words(&text, |word| {
            let whole = match self.split.whole {
                Whole::Never => false,
                Whole::LineEnds => word.bytes().all(|byte| byte == b'\n'),
                Whole::Always => true,
            };
            if let Some(id) = whole.then(|| id_of(word.as_bytes())).flatten() {
                return ids.push(id);
            }
            self.merge(word, &id_of, &mut merger, ids);
        });
    }

    /// Appends the tokens of a word.
    fn merge(
        &self,
        word: &str,
        id_of: &impl Fn(&[u8]) -> Option<TokenId>,
        merger: &mut Merger,
        ids: &mut Vec<TokenId>,
    ) {
        let mut rest = word;
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(rest.floor_char_boundary(MAX_WORD_BYTES));
            rest = tail;
            merger.clear();
            match &self.units {
                Units::Bytes(bytes) => {
                    for (at, &byte) in part.as_bytes().iter().enumerate() {
                        if let Some(id) = bytes[usize::from(byte)] {
                            merger.add(at, 1, id);
                        }
                    }
                }
                Units::Chars { .. } => {
                    for (at, c) in part.char_indices() {
                        let len = c.len_utf8();
                        let id = id_of(&part.as_bytes()[at..at + len]);
                        merger.add(at, len, id.unwrap_or(NO_TOKEN));
                    }
                }
            }
            let merged =
                merger.run(|left, right| self.merges.get(&pair_key(left.id, right.id)).copied());
            for symbol in merged {
                match &self.units {
                    Units::Chars { bytes, .. } if symbol.id == NO_TOKEN => {
                        let unknown =
                            &part.as_bytes()[symbol.start as usize..][..symbol.len as usize];
                        ids.extend(unknown.iter().map(|&byte| bytes[usize::from(byte)]));
                    }
                    _ => ids.push(symbol.id),
                }
            }
        }
    }
}

fn pair_key(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// The two tokens of a merge as GGUF writes it. The left one may itself be a blank in hand-made
/// files: llama.cpp looks from 1 on, too.
pub(super) fn parts(merge: &str) -> Option<(&str, &str)> {
    let at = merge.char_indices().skip(1).find_map(|(at, c)| (c == ' ').then_some(at))?;
    Some((&merge[..at], &merge[at + 1..]))
}

/// `text` as vocabularies have it that write blanks as U+2581: those are blanks, and one may be put in
/// front.
pub(super) fn with_blanks(text: &str, prefix: bool) -> Cow<'_, str> {
    if !prefix && !text.contains('\u{2581}') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 1);
    if prefix {
        plain.push(' ');
    }
    plain.extend(
        text.split('\u{2581}')
            .enumerate()
            .flat_map(|(at, part)| [if at > 0 { " " } else { "" }, part]),
    );
    Cow::Owned(plain)
}
