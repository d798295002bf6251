//! From the bytes of a token to its id, without a second copy of the bytes.

use std::hash::{BuildHasher, RandomState};

use crate::engine::message::TokenId;

const EMPTY: u32 = u32::MAX;

/// An open-addressing table of ids. The bytes stay where they are; callers pass what reads them.
/// Hashes are keyed, so that a hostile vocabulary cannot make loading quadratic.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<u32>,
    hasher: RandomState,
    longest: usize,
}

impl Index {
    /// Room for `tokens` ids.
    pub(super) fn with_capacity(tokens: usize) -> Self {
        let slots = (tokens.saturating_mul(2)).next_power_of_two().max(2);
        Self { slots: vec![EMPTY; slots], hasher: RandomState::new(), longest: 0 }
    }

    /// Adds `id`, which stands for `bytes`, unless another id does already: then returns that.
    pub(super) fn insert<'a>(
        &mut self,
        bytes: &[u8],
        id: TokenId,
        bytes_of: impl Fn(TokenId) -> &'a [u8],
    ) -> Option<TokenId> {
        let slot = self.slot(bytes, bytes_of);
        if self.slots[slot] != EMPTY {
            return Some(self.slots[slot]);
        }
        self.slots[slot] = id;
        self.longest = self.longest.max(bytes.len());
        None
    }

    /// The id that stands for `bytes`.
    pub(super) fn get<'a>(
        &self,
        bytes: &[u8],
        bytes_of: impl Fn(TokenId) -> &'a [u8],
    ) -> Option<TokenId> {
        if bytes.len() > self.longest {
            return None;
        }
        let id = self.slots[self.slot(bytes, bytes_of)];
        (id != EMPTY).then_some(id)
    }

    /// Where `bytes` are, or would go. The table is at most half full, so the walk ends.
    fn slot<'a>(&self, bytes: &[u8], bytes_of: impl Fn(TokenId) -> &'a [u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.hasher.hash_one(bytes) as usize & mask;
        while self.slots[at] != EMPTY && bytes_of(self.slots[at]) != bytes {
            at = (at + 1) & mask;
        }
        at
    }
}
