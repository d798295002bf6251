//! Tokens that are found in a text as they are written, before anything is merged.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::engine::message::TokenId;
use crate::text::TextError;
use crate::text::vocab::Vocab;

/// Most bytes of all special tokens together. Gemma has 70 kB of them; the automaton takes some forty
/// bytes for each.
const MAX_BYTES: usize = 1 << 20;
/// Most bytes of one; real ones have some dozens. Building the automaton takes time with the square of its
/// longest pattern, where that repeats itself.
const MAX_TOKEN_BYTES: usize = 1 << 10;

/// Finds tokens in a text: from left to right, the longest of those that begin at one place.
#[derive(Debug)]
pub(super) struct Special {
    finder: AhoCorasick,
    /// The ids of the patterns.
    ids: Vec<TokenId>,
}

impl Special {
    /// Of all tokens that are `wanted`. Of several with the same text the first one counts.
    pub(super) fn new(vocab: &Vocab, wanted: impl Fn(TokenId) -> bool) -> Result<Self, TextError> {
        let ids = (0..vocab.len() as TokenId)
            .filter(|&id| wanted(id) && !vocab.raw(id).is_empty())
            .collect::<Vec<_>>();
        if ids.iter().map(|&id| vocab.raw(id).len()).sum::<usize>() > MAX_BYTES {
            let reason = "there is more than 1 MiB of special tokens";
            return Err(TextError(reason.to_owned()));
        }
        if let Some(id) = ids.iter().find(|&&id| vocab.raw(id).len() > MAX_TOKEN_BYTES) {
            let reason = format!("special token {id} is longer than {MAX_TOKEN_BYTES} bytes");
            return Err(TextError(reason));
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(ids.iter().map(|&id| vocab.raw(id)))
            .map_err(|e| TextError(format!("special tokens: {e}")))?;
        Ok(Self { finder, ids })
    }

    /// Where they stand in `text`, without overlaps.
    pub(super) fn find<'t>(
        &'t self,
        text: &'t str,
    ) -> impl Iterator<Item = (Range<usize>, TokenId)> + 't {
        self.finder
            .find_iter(text)
            .map(|found| (found.range(), self.ids[found.pattern().as_usize()]))
    }
}
