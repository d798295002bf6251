//! Byte-level BPE, as GPT-2 has it: words of bytes, merged in the order of a list.

use std::collections::HashMap;

use super::index::Index;
use super::merge::{MAX_WORD_BYTES, Merger};
use super::split::Split;
use crate::engine::message::TokenId;
use crate::text::TextError;
use crate::text::vocab::{Vocab, bytes_of_chars};

/// The merges of a model, by the ids of what is merged.
#[derive(Debug)]
pub(super) struct Bpe {
    split: Split,
    /// The token of each single byte. A byte without one is left out of the text, as the
    /// `tokenizers` library does: `SmolLM2` has none for some control characters.
    bytes: [Option<TokenId>; 256],
    /// Two neighbours, left in the high half: the rank of their merge and what they become.
    merges: HashMap<u64, (u32, TokenId)>,
}

impl Bpe {
    pub(super) fn new(
        split: Split,
        merges: &[String],
        vocab: &Vocab,
        index: &Index,
    ) -> Result<Self, TextError> {
        let id_of = |bytes: &[u8]| index.get(bytes, |id| vocab.raw(id));
        let mut map = HashMap::with_capacity(merges.len());
        let (mut joined, mut part) = (Vec::new(), Vec::new());
        for (rank, merge) in merges.iter().enumerate() {
            let wrong = |what: &str| TextError(format!("tokenizer.ggml.merges[{rank}] {what}"));
            // The left part may itself be a blank in hand-made files: llama.cpp looks from 1 on, too.
            let at = merge
                .char_indices()
                .skip(1)
                .find_map(|(at, c)| (c == ' ').then_some(at))
                .ok_or_else(|| wrong("is not two tokens with a blank between them"))?;
            let (left, right) = (&merge[..at], &merge[at + 1..]);
            let mut id_of_part = |text: &str| {
                part.clear();
                bytes_of_chars(text, &mut part);
                joined.extend_from_slice(&part);
                id_of(&part).ok_or_else(|| wrong("names something that is no token"))
            };
            let pair = key(id_of_part(left)?, id_of_part(right)?);
            let id = id_of(&joined).ok_or_else(|| wrong("makes something that is no token"))?;
            joined.clear();
            map.entry(pair).or_insert((rank as u32, id));
        }
        let bytes = std::array::from_fn(|byte| id_of(&[byte as u8]));
        Ok(Self { split, bytes, merges: map })
    }

    /// Appends the tokens of `text`, in which nothing is special.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) {
        let mut merger = Merger::default();
        let normal;
        let text = if self.split.normalizes() && !text.is_ascii() {
            normal = unicode_normalization::UnicodeNormalization::nfc(text).collect::<String>();
            &normal
        } else {
            text
        };
        self.split.words(text, |word| {
            for word in word.as_bytes().chunks(MAX_WORD_BYTES) {
                merger.clear();
                for (at, &byte) in word.iter().enumerate() {
                    if let Some(id) = self.bytes[usize::from(byte)] {
                        merger.add(at, 1, id);
                    }
                }
                let merged =
                    merger.run(|left, right| self.merges.get(&key(left.id, right.id)).copied());
                ids.extend(merged.map(|symbol| symbol.id));
            }
        });
    }
}

fn key(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
