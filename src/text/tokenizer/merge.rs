//! Merging of neighbours, best pair first: what byte-level BPE and `SentencePiece` have in common.
//!
//! As llama.cpp's `llm_tokenizer_spm` and `llm_tokenizer_bpe` do it: a doubly linked list of symbols
//! and a queue of candidate pairs; a candidate whose symbols have changed since is dropped when it
//! comes up. O(n log n) in the length of the word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::message::TokenId;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// The id of a symbol that is no token by itself.
pub(super) const NO_TOKEN: TokenId = TokenId::MAX;

/// Longest word that is merged as one; a longer one is cut, so that a long text without a blank takes
/// no more memory than this (about 50 bytes a byte). Positions are `u32`.
pub(super) const MAX_WORD_BYTES: usize = 1 << 20;

/// A part of the word that is being merged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// Byte offset in the word.
    pub(super) start: u32,
    /// In bytes; 0 once it was merged into its left neighbour.
    pub(super) len: u32,
    pub(super) id: TokenId,
    previous: u32,
    next: u32,
}

/// Smallest first: rank, then position. Then the right symbol, the length of both, the merged id.
type Candidate = Reverse<(u32, u32, u32, u32, TokenId)>;

/// Buffers for merging, reused from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Candidate>,
}

impl Merger {
    /// Starts a new word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol to the word.
    pub(super) fn add(&mut self, start: usize, len: usize, id: TokenId) {
        let at = self.symbols.len() as u32;
        let previous = at.checked_sub(1).unwrap_or(NONE);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol {
            start: start as u32,
            len: len as u32,
            id,
            previous,
            next: NONE,
        });
    }

    /// Merges until nothing can be merged; the symbols that remain, in order. `pair` says what two
    /// neighbours become, and with what rank: lower ranks first, then the leftmost pair.
    pub(super) fn run(
        &mut self,
        pair: impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>,
    ) -> impl Iterator<Item = Symbol> {
        for right in 1..self.symbols.len() as u32 {
            self.propose(right - 1, right, &pair);
        }
        while let Some(Reverse((_, left, right, len, id))) = self.queue.pop() {
            let (l, r) = (self.symbols[left as usize], self.symbols[right as usize]);
            if l.len == 0 || r.len == 0 || l.len + r.len != len {
                continue;
            }
            self.symbols[right as usize].len = 0;
            let merged = &mut self.symbols[left as usize];
            merged.len = len;
            merged.id = id;
            merged.next = r.next;
            if r.next != NONE {
                self.symbols[r.next as usize].previous = left;
                self.propose(left, r.next, &pair);
            }
            if l.previous != NONE {
                self.propose(l.previous, left, &pair);
            }
        }
        self.symbols.iter().copied().filter(|s| s.len > 0)
    }

    fn propose(
        &mut self,
        left: u32,
        right: u32,
        pair: impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>,
    ) {
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((rank, id)) = pair(l, r) {
            self.queue.push(Reverse((rank, left, right, l.len + r.len, id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    /// Merges of letters: any two neighbours of the same length, as long as that is below `limit`.
    fn merge(word: &str, limit: u32) -> (Vec<u32>, usize) {
        let mut merger = Merger::default();
        for (at, c) in word.char_indices() {
            merger.add(at, c.len_utf8(), u32::from(c));
        }
        let asked = Cell::new(0);
        let merged = merger.run(|left, right| {
            asked.set(asked.get() + 1);
            let fits = left.id == right.id && left.len == right.len && left.len < limit;
            fits.then_some((left.len, left.id))
        });
        (merged.map(|symbol| symbol.len).collect(), asked.get())
    }

    #[test]
    fn lower_ranks_go_first_and_then_the_leftmost() {
        assert_eq!(merge("aaaaaaa", 4).0, [4, 2, 1]);
        assert_eq!(merge("aabaaa", 4).0, [2, 1, 2, 1]);
        assert_eq!(merge("", 4).0, [0; 0]);
    }

    proptest! {
        #[test]
        fn pairs_are_looked_at_in_proportion_to_the_length(word in "[ab]{0,400}", limit in 0_u32..64) {
            let (lens, asked) = merge(&word, limit);
            prop_assert_eq!(lens.iter().sum::<u32>() as usize, word.len());
            prop_assert!(asked <= 3 * word.len());
        }
    }
}
