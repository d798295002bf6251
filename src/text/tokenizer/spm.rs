//! `SentencePiece`'s BPE: characters merged into pieces, the piece with the highest score first.
//!
//! After llama.cpp's `llm_tokenizer_spm`. Loading such a model as Unigram gives other tokens: that
//! looks for the best sum of scores, this merges greedily.

use super::bpe::with_blanks;
use super::index::Index;
use super::merge::{MAX_WORD_BYTES, Merger, NO_TOKEN, Symbol};
use super::{Place, Prefix};
use crate::engine::message::TokenId;
use crate::text::TextError;
use crate::text::vocab::{Kind, Vocab};

/// The pieces of a model and the order in which they are made.
#[derive(Debug)]
pub(super) struct Spm {
    /// By id: low for a high score.
    ranks: Vec<u32>,
    /// The token of each single byte, for characters that are no piece; or the unknown token.
    bytes: [TokenId; 256],
    prefix: Prefix,
    /// Bytes that stand before a blank inside some piece. Behind all others a blank begins a word of
    /// its own, which nothing merges with what stands before it.
    before_blank: [bool; 256],
}

impl Spm {
    pub(super) fn new(
        scores: &[f32],
        unknown: Option<TokenId>,
        prefix: Prefix,
        vocab: &Vocab,
    ) -> Result<Self, TextError> {
        let mut before_blank = [false; 256];
        for id in (0..vocab.len() as TokenId).filter(|&id| vocab.kind(id) == Kind::Normal) {
            for pair in vocab.bytes(id).windows(2).filter(|pair| pair[1] == b' ') {
                before_blank[usize::from(pair[0])] = true;
            }
        }
        Ok(Self {
            ranks: scores.iter().map(|&s| rank(s)).collect(),
            bytes: vocab.byte_tokens(unknown)?,
            prefix,
            before_blank,
        })
    }

    /// Appends the tokens of `text`, in which nothing is special.
    pub(super) fn encode(
        &self,
        (text, place): (&str, Place),
        (vocab, index): (&Vocab, &Index),
        ids: &mut Vec<TokenId>,
    ) {
        let plain = with_blanks(text, self.prefix.is_due(place, text));
        let mut merger = Merger::default();
        let mut rest = &*plain;
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(self.word_end(rest));
            self.encode_word(word, (vocab, index), &mut merger, ids);
            rest = tail;
        }
    }

    /// Where the first word of `text` ends: before a blank that merges with nothing before it.
    fn word_end(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let end = (1..bytes.len())
            .find(|&at| bytes[at] == b' ' && !self.before_blank[usize::from(bytes[at - 1])])
            .unwrap_or(bytes.len());
        if end <= MAX_WORD_BYTES { end } else { text.floor_char_boundary(MAX_WORD_BYTES) }
    }

    fn encode_word(
        &self,
        word: &str,
        (vocab, index): (&Vocab, &Index),
        merger: &mut Merger,
        ids: &mut Vec<TokenId>,
    ) {
        let bytes = word.as_bytes();
        let id_of =
            |start: usize, len: usize| index.get(&bytes[start..start + len], |id| vocab.raw(id));
        merger.clear();
        for (at, c) in word.char_indices() {
            merger.add(at, c.len_utf8(), id_of(at, c.len_utf8()).unwrap_or(NO_TOKEN));
        }
        let merged = merger.run(|left: &Symbol, right: &Symbol| {
            let id = id_of(left.start as usize, (left.len + right.len) as usize)?;
            Some((self.ranks[id as usize], id))
        });
        for symbol in merged {
            if symbol.id == NO_TOKEN {
                let start = symbol.start as usize;
                let unknown = &bytes[start..start + symbol.len as usize];
                ids.extend(unknown.iter().map(|&byte| self.bytes[usize::from(byte)]));
            } else {
                ids.push(symbol.id);
            }
        }
    }
}

/// A total order of scores as integers, highest first; what is not a number has its place too.
fn rank(score: f32) -> u32 {
    let bits = score.to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}
