//! The fake model's tokenizer: the longest piece that fits, from left to right.

use super::special::Special;
use crate::engine::message::TokenId;
use crate::text::TextError;
use crate::text::vocab::{Kind, Vocab};

#[derive(Debug)]
pub(super) struct FakePieces {
    pieces: Special,
    /// Ordinary tokens there are; bytes that are no piece are spread over them.
    ordinary: Vec<TokenId>,
}

impl FakePieces {
    pub(super) fn new(vocab: &Vocab) -> Result<Self, TextError> {
        let normal = |id| vocab.kind(id) == Kind::Normal;
        let ordinary = (0..vocab.len() as TokenId).filter(|&id| normal(id)).collect();
        Ok(Self { pieces: Special::new(vocab, normal)?, ordinary })
    }

    pub(super) fn encode(&self, text: &str, ids: &mut Vec<TokenId>) {
        let mut at = 0;
        let gap = |bytes: &[u8], ids: &mut Vec<TokenId>| {
            let known = self.ordinary.len();
            ids.extend(
                bytes.iter().filter_map(|&b| self.ordinary.get(usize::from(b) % known.max(1))),
            );
        };
        for (range, id) in self.pieces.find(text) {
            gap(&text.as_bytes()[at..range.start], ids);
            ids.push(id);
            at = range.end;
        }
        gap(&text.as_bytes()[at..], ids);
    }
}
