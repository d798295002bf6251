//! Which full KV blocks hold which tokens, so that what was computed once need not be computed again.
//!
//! A block is found by its key: a keyed 128-bit hash over the key of the block before it and its own
//! tokens; above the first block stands the [`Namespace`]. A key only finds: namespace, the block
//! before and the tokens are compared, so that two prefixes of one key never share a block.
//!
//! Cached blocks that nobody holds stand in a line to be evicted. Whoever holds a block holds all
//! before it, and gives them back last one first: so leaves are evicted before what they follow.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::message::{Namespace, TokenId};
use super::sequence::Sequence;
use crate::backend::{BLOCK_TOKENS, BlockId};

/// What a block is found by.
type Key = u128;

/// How blocks are found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashing {
    /// Drawn for each process, so that nobody can look for prefixes of one key.
    pub(super) secret: [u8; 32],
    /// Bits that keys are cut to: 128, but for tests that want collisions.
    pub(super) bits: u32,
}

impl Hashing {
    fn first(&self, namespace: &Namespace) -> Key {
        let mut hash = Sha256::new_with_prefix(self.secret);
        hash.update(namespace.tenant.0.to_le_bytes());
        if let Some(salt) = &namespace.salt {
            hash.update(salt.0);
        }
        self.cut(hash)
    }

    fn next(&self, above: Key, tokens: &[TokenId]) -> Key {
        let mut hash = Sha256::new_with_prefix(self.secret);
        hash.update(above.to_le_bytes());
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        self.cut(hash)
    }

    fn cut(&self, hash: Sha256) -> Key {
        let digest: [u8; 32] = hash.finalize().into();
        let key = Key::from_le_bytes(digest.as_chunks().0[0]);
        key >> (Key::BITS - self.bits.clamp(1, Key::BITS))
    }
}

/// One sequence's way through the cache.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    /// Of the full blocks of its tokens, as far as they were needed.
    keys: Vec<Key>,
    /// So many blocks of its table, from the first, are in the cache.
    cached: usize,
    /// The first block that is still promised to others.
    promised: usize,
    /// The last block that another promised when it was looked for.
    awaited: usize,
}

/// What a cached block holds.
#[derive(Debug)]
struct Node {
    key: Key,
    namespace: Namespace,
    tokens: [TokenId; BLOCK_TOKENS],
    /// The [`Self::serial`] of the block before it.
    above: Option<u64>,
    /// Never used twice, so that what followed a block that is gone follows no other.
    serial: u64,
    /// Its place in the line, while nobody holds it.
    place: u64,
}

/// What became of a full block that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Taken,
    /// This block holds the same already.
    Known(BlockId),
    /// Its key finds another block, or the block before it is not cached.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PrefixCache {
    /// `None`: nothing is cached.
    hashing: Option<Hashing>,
    found_by: HashMap<Key, BlockId>,
    /// By block.
    nodes: Vec<Option<Node>>,
    /// Blocks that nobody holds, by place: the next to be evicted first.
    line: BTreeMap<u64, BlockId>,
    /// Blocks that are being computed, and the sequence that does it.
    promises: HashMap<Key, u64>,
    /// Serials and places so far.
    numbers: u64,
}

impl PrefixCache {
    pub(super) fn new(hashing: Option<Hashing>, blocks: usize) -> Self {
        Self {
            hashing,
            found_by: HashMap::new(),
            nodes: (0..blocks).map(|_| None).collect(),
            line: BTreeMap::new(),
            promises: HashMap::new(),
            numbers: 0,
        }
    }

    pub(super) fn hashing(&self) -> Option<Hashing> {
        self.hashing
    }

    /// Cached blocks that nobody holds.
    pub(super) fn idle(&self) -> usize {
        self.line.len()
    }

    /// Makes keys for the first `blocks` blocks of `s`, which are full.
    pub(super) fn make_keys(&self, s: &mut Sequence, blocks: usize) {
        let Some(hashing) = &self.hashing else { return };
        let keys = &mut s.prefix.keys;
        for at in keys.len()..blocks {
            let above = keys.last().copied().unwrap_or_else(|| hashing.first(&s.namespace));
            keys.push(hashing.next(above, tokens_of(&s.tokens, at)));
        }
    }

    /// The blocks that `s` can begin with, as far as it may read them.
    pub(super) fn hits<'a>(&'a self, s: &'a Sequence) -> impl Iterator<Item = BlockId> + 'a {
        let mut above = None;
        s.prefix.keys.iter().take(s.readable_blocks()).enumerate().map_while(move |(at, key)| {
            let &block = self.found_by.get(key)?;
            let node = self.node(block).filter(|node| node.holds(s, at, above))?;
            above = Some(node.serial);
            Some(block)
        })
    }

    /// The sequence that is computing a block of the prefix of `s`.
    pub(super) fn awaited(&self, s: &mut Sequence) -> Option<u64> {
        if self.promises.is_empty() {
            return None;
        }
        let promised = |at: usize| self.promises.get(s.prefix.keys.get(at)?).copied();
        let readable = s.readable_blocks();
        let (at, owner) = std::iter::once(s.prefix.awaited)
            .chain((0..readable).rev())
            .filter(|&at| at < readable)
            .find_map(|at| Some((at, promised(at)?)))?;
        s.prefix.awaited = at;
        Some(owner)
    }

    /// Begins `s` with `hits` cached blocks. Who needs those that follow may wait for it.
    pub(super) fn begin(&mut self, s: &mut Sequence, hits: usize) {
        s.prefix.cached = hits;
        s.prefix.promised = hits;
        self.promises.extend(s.prefix.keys[hits..].iter().map(|&key| (key, s.arrival)));
    }

    /// The first `full` blocks of `s` are computed: nobody need wait for them any more. Those that
    /// are not in the cache yet are to be [offered](Self::offer).
    pub(super) fn keep_promises(&mut self, s: &mut Sequence, full: usize) -> Range<usize> {
        if self.hashing.is_none() {
            return 0..0;
        }
        self.make_keys(s, full);
        let prefix = &mut s.prefix;
        for at in prefix.promised..full {
            self.promises.remove(&prefix.keys[at]);
        }
        prefix.promised = prefix.promised.max(full);
        prefix.cached..full
    }

    /// Nobody will get anything from `s` any more.
    pub(super) fn withdraw(&mut self, s: &mut Sequence) {
        for key in s.prefix.keys.iter().skip(s.prefix.promised) {
            if self.promises.get(key) == Some(&s.arrival) {
                self.promises.remove(key);
            }
        }
        s.prefix.promised = s.prefix.keys.len();
    }

    /// Takes in block number `at` of `s`, the first that is not in the cache.
    pub(super) fn offer(&mut self, s: &mut Sequence, at: usize) -> Offer {
        let above = match at.checked_sub(1).map(|before| self.node(s.blocks[before])) {
            Some(None) => return Offer::Refused,
            Some(Some(node)) => Some(node.serial),
            None => None,
        };
        let key = s.prefix.keys[at];
        if let Some(&block) = self.found_by.get(&key) {
            if !self.node(block).is_some_and(|node| node.holds(s, at, above)) {
                return Offer::Refused;
            }
            s.prefix.cached = at + 1;
            return Offer::Known(block);
        }
        let Ok(tokens) = tokens_of(&s.tokens, at).try_into() else { return Offer::Refused };
        let (namespace, serial) = (s.namespace, self.number());
        self.found_by.insert(key, s.blocks[at]);
        let node = Node { key, namespace, tokens, above, serial, place: 0 };
        self.nodes[s.blocks[at] as usize] = Some(node);
        s.prefix.cached = at + 1;
        Offer::Taken
    }

    /// Nobody holds `block` any more. True if it is cached, and stands in the line now.
    pub(super) fn line_up(&mut self, block: BlockId) -> bool {
        let number = self.number();
        let Some(node) = &mut self.nodes[block as usize] else { return false };
        node.place = number;
        self.line.insert(number, block);
        true
    }

    /// Somebody holds `block` again.
    pub(super) fn leave_line(&mut self, block: BlockId) {
        if let Some(node) = self.node(block) {
            let place = node.place;
            self.line.remove(&place);
        }
    }

    /// Gives up the block that was let go of first.
    pub(super) fn evict(&mut self) -> Option<BlockId> {
        let (_, block) = self.line.pop_first()?;
        self.forget(block);
        Some(block)
    }

    /// Lets nobody find `block` any more, which is held or was in the line.
    pub(super) fn forget(&mut self, block: BlockId) {
        if let Some(node) = self.nodes[block as usize].take() {
            self.found_by.remove(&node.key);
        }
    }

    fn node(&self, block: BlockId) -> Option<&Node> {
        self.nodes[block as usize].as_ref()
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn is_in_line(&self, block: BlockId) -> bool {
        self.node(block).is_some_and(|node| self.line.get(&node.place) == Some(&block))
    }

    pub(super) fn is_cached(&self, block: BlockId) -> bool {
        self.node(block).is_some()
    }

    /// Each cached block is found by its key and no other, and all promises are of `running`.
    pub(super) fn check_integrity(&self, running: impl Fn(u64) -> bool) -> Result<(), String> {
        let nodes = self.nodes.iter().enumerate().filter_map(|(b, n)| Some((b, n.as_ref()?)));
        let mut cached = 0;
        for (block, node) in nodes {
            cached += 1;
            if self.found_by.get(&node.key) != Some(&(block as BlockId)) {
                return Err(format!("block {block} is cached, but not found by its key"));
            }
        }
        if cached != self.found_by.len() {
            return Err(format!("{cached} blocks are cached, {} keys find", self.found_by.len()));
        }
        match self.promises.values().find(|&&arrival| !running(arrival)) {
            Some(arrival) => Err(format!("sequence {arrival} promises blocks, but does not run")),
            None => Ok(()),
        }
    }

    /// The cached blocks of `s` hold its tokens, each after the one before.
    pub(super) fn check_sequence(&self, s: &Sequence) -> Result<(), String> {
        let mut above = None;
        for (at, &block) in s.blocks.iter().enumerate().take(s.prefix.cached) {
            // A block that was forgotten while several held it is found by nobody any more.
            let Some(node) = self.node(block) else { return Ok(()) };
            if !node.holds(s, at, above) {
                return Err(format!("block {block} does not hold part {at} of {}", s.arrival));
            }
            above = Some(node.serial);
        }
        Ok(())
    }
}

impl Node {
    /// It holds part `at` of `s`, and follows the block of serial `above`.
    fn holds(&self, s: &Sequence, at: usize, above: Option<u64>) -> bool {
        self.above == above
            && self.namespace == s.namespace
            && self.tokens == *tokens_of(&s.tokens, at)
    }
}

fn tokens_of(tokens: &[TokenId], block: usize) -> &[TokenId] {
    &tokens[block * BLOCK_TOKENS..(block + 1) * BLOCK_TOKENS]
}

#[cfg(test)]
mod tests;
