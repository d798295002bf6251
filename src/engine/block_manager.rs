//! The KV cache's blocks: which are free, which are held, by how many, and which are kept for their
//! contents though nobody holds them.
//!
//! A block is held as long as at least one block table names it. What a block holds is the model's
//! business; which tokens that stands for is the [`PrefixCache`]'s.

use super::prefix_cache::{Hashing, Offer, PrefixCache};
use super::scheduler::blocks_needed;
use super::sequence::Sequence;
use crate::backend::{BLOCK_TOKENS, BlockId};

/// What the prefix cache did since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Prompt tokens of sequences that looked for their prefix.
    pub(super) queried_tokens: u64,
    /// Those of them that were found.
    pub(super) hit_tokens: u64,
    pub(super) evicted_blocks: u64,
    /// Sequences that waited for what another was computing, and found it.
    pub(super) awaited: u64,
}

/// Hands out blocks and takes them back.
#[derive(Debug)]
pub(super) struct BlockManager {
    /// A stack: the block that was freed last is the warmest in the processor's caches.
    free: Vec<BlockId>,
    /// Block tables that name each block; 0 for those that are free or only cached.
    holders: Vec<u32>,
    /// Freed since [`Self::take_released`]: the model is told before its next step.
    released: Vec<BlockId>,
    cache: PrefixCache,
    counts: Counts,
}

impl BlockManager {
    /// Keeps no contents if `hashing` is `None`.
    pub(super) fn new(total: usize, hashing: Option<Hashing>) -> Self {
        Self {
            free: (0..total as BlockId).rev().collect(),
            holders: vec![0; total],
            released: Vec::new(),
            cache: PrefixCache::new(hashing, total),
            counts: Counts::default(),
        }
    }

    /// Makes all blocks free, where no sequence holds any, and forgets their contents.
    pub(super) fn reset(&mut self) {
        let counts = self.counts;
        *self = Self { counts, ..Self::new(self.total(), self.cache.hashing()) };
    }

    pub(super) fn total(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn held(&self) -> usize {
        self.total() - self.available()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &PrefixCache {
        &self.cache
    }

    /// Blocks that can be had: the free ones, and those that are only cached.
    fn available(&self) -> usize {
        self.free.len() + self.cache.idle()
    }

    /// Looks at the tokens of a sequence that may start later.
    pub(super) fn prepare(&self, s: &mut Sequence) {
        self.cache.make_keys(s, s.tokens.len() / BLOCK_TOKENS);
    }

    /// There are blocks for all tokens of `s`, beside those that others hold and it can share, and
    /// `spare` more.
    pub(super) fn can_start(&self, s: &Sequence, spare: usize) -> bool {
        let shared = self.cache.hits(s).filter(|&b| self.holders[b as usize] > 0).count();
        blocks_needed(s.tokens.len()) + spare <= shared + self.available()
    }

    /// Gives `s` what it [can start](Self::can_start) with; what is cached counts as computed.
    pub(super) fn start(&mut self, s: &mut Sequence) {
        let hits: Vec<BlockId> = self.cache.hits(s).collect();
        for &block in &hits {
            self.hold(block);
        }
        self.cache.begin(s, hits.len());
        s.computed = hits.len() * BLOCK_TOKENS;
        s.blocks = hits;
        if s.cached_tokens.is_none() && self.cache.hashing().is_some() && !s.is_scoring() {
            self.counts.queried_tokens += s.tokens.len() as u64;
            self.counts.hit_tokens += s.computed as u64;
        }
        s.cached_tokens.get_or_insert(s.computed);
        self.counts.awaited += u64::from(std::mem::take(&mut s.awaited) && s.computed > 0);
        let missing = blocks_needed(s.tokens.len()).saturating_sub(s.blocks.len());
        self.allocate(missing, &mut s.blocks);
    }

    /// The sequence that is computing some of the prefix of `s` just now.
    pub(super) fn awaited(&self, s: &mut Sequence) -> Option<u64> {
        self.cache.awaited(s)
    }

    /// Lets others find the full blocks that `s` has computed. What was cached meanwhile takes the
    /// place of what holds the same.
    pub(super) fn publish(&mut self, s: &mut Sequence) {
        let full = s.computed.min(s.tokens.len()) / BLOCK_TOKENS;
        for at in self.cache.keep_promises(s, full) {
            match self.cache.offer(s, at) {
                Offer::Taken => {}
                Offer::Known(block) => {
                    self.hold(block);
                    let own = std::mem::replace(&mut s.blocks[at], block);
                    self.let_go(own);
                }
                Offer::Refused => return,
            }
        }
    }

    /// Takes all blocks of `s` back. What is cached stays so until its place is needed.
    pub(super) fn take_back(&mut self, s: &mut Sequence) {
        self.cache.withdraw(s);
        self.free(&mut s.blocks);
        s.computed = 0;
    }

    /// What `s` has computed is in doubt: nobody else shall find it.
    pub(super) fn forget(&mut self, s: &Sequence) {
        for &block in &s.blocks {
            self.cache.forget(block);
        }
    }

    pub(super) fn can_allocate(&self, blocks: usize) -> bool {
        blocks <= self.available()
    }

    /// Adds `blocks` blocks to `table`, free ones first, then those that were cached longest; none if
    /// there are not enough.
    pub(super) fn allocate(&mut self, blocks: usize, table: &mut Vec<BlockId>) -> bool {
        if !self.can_allocate(blocks) {
            return false;
        }
        for _ in 0..blocks {
            let block = self.free.pop().or_else(|| self.evict());
            let Some(block) = block else { return false };
            self.holders[block as usize] = 1;
            table.push(block);
        }
        true
    }

    fn evict(&mut self) -> Option<BlockId> {
        let block = self.cache.evict()?;
        self.counts.evicted_blocks += 1;
        self.released.push(block);
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        let holders = &mut self.holders[block as usize];
        *holders += 1;
        if *holders == 1 {
            self.cache.leave_line(block);
        }
    }

    /// Empties `table`; blocks that no other table names become free, or are only cached.
    pub(super) fn free(&mut self, table: &mut Vec<BlockId>) {
        for block in table.drain(..).rev() {
            self.let_go(block);
        }
    }

    fn let_go(&mut self, block: BlockId) {
        let Some(holders) = self.holders.get_mut(block as usize) else { return };
        match holders {
            0 => tracing::error!(block, "a kv block was freed twice"),
            1 => {
                *holders = 0;
                if !self.cache.line_up(block) {
                    self.free.push(block);
                    self.released.push(block);
                }
            }
            _ => *holders -= 1,
        }
    }

    /// Blocks whose contents nobody needs any more, each once since the last call.
    pub(super) fn take_released(&mut self) -> impl Iterator<Item = BlockId> + '_ {
        self.released.drain(..)
    }

    /// Free + held + cached = all, no block is two of these, and what `running` have is what is held.
    pub(super) fn check_integrity(&self, running: &[Sequence]) -> Result<(), String> {
        self.check_blocks(running.iter().map(|s| s.blocks.as_slice()))?;
        running.iter().try_for_each(|s| self.cache.check_sequence(s))?;
        self.cache.check_integrity(|arrival| running.iter().any(|s| s.arrival == arrival))
    }

    fn check_blocks<'a>(&self, tables: impl Iterator<Item = &'a [BlockId]>) -> Result<(), String> {
        let mut named = vec![0_u32; self.total()];
        for &block in tables.flatten() {
            match named.get_mut(block as usize) {
                Some(count) => *count += 1,
                None => return Err(format!("block {block} does not exist")),
            }
        }
        let mut free = vec![0_u32; self.total()];
        for &block in &self.free {
            free[block as usize] += 1;
        }
        for block in 0..self.total() {
            let (named, held) = (named[block], self.holders[block]);
            if named != held {
                return Err(format!("block {block} is in {named} tables and has {held} holders"));
            }
            let id = block as BlockId;
            let states = free[block] + u32::from(held > 0) + u32::from(self.cache.is_in_line(id));
            if states != 1 || (free[block] > 0 && self.cache.is_cached(id)) {
                return Err(format!("block {block} is free, held or cached {states} times"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables(tables: &[Vec<BlockId>]) -> impl Iterator<Item = &[BlockId]> {
        tables.iter().map(Vec::as_slice)
    }

    #[test]
    fn a_pool_too_small_gives_nothing() {
        let mut pool = BlockManager::new(3, None);
        let mut table = Vec::new();
        assert!(!pool.allocate(4, &mut table));
        assert!(table.is_empty());
        assert!(pool.allocate(3, &mut table));
        assert!(!pool.can_allocate(1));
        assert_eq!(pool.held(), 3);
    }

    #[test]
    fn a_freed_block_is_released_once() {
        let mut pool = BlockManager::new(2, None);
        let mut table = Vec::new();
        pool.allocate(2, &mut table);
        let held = table.clone();
        pool.free(&mut table);
        let mut released: Vec<_> = pool.take_released().collect();
        released.sort_unstable();
        assert_eq!(released, held);
        assert_eq!(pool.take_released().count(), 0);
    }

    #[test]
    fn integrity_sees_each_kind_of_damage() {
        let fresh = || {
            let mut pool = BlockManager::new(4, None);
            let mut table = Vec::new();
            pool.allocate(2, &mut table);
            (pool, table)
        };
        let (pool, table) = fresh();
        assert_eq!(pool.check_blocks(tables(&[table])), Ok(()));
        let (pool, _table) = fresh();
        assert!(pool.check_blocks(tables(&[])).is_err(), "a table that forgot its blocks");
        let (pool, table) = fresh();
        assert!(pool.check_blocks(tables(&[table.clone(), table])).is_err(), "held by two");
        let (mut pool, table) = fresh();
        pool.free.push(table[0]);
        assert!(pool.check_blocks(tables(&[table])).is_err(), "free and held");
        let (mut pool, table) = fresh();
        pool.free.pop();
        assert!(pool.check_blocks(tables(&[table])).is_err(), "lost");
        let (mut pool, table) = fresh();
        pool.free[0] = pool.free[1];
        assert!(pool.check_blocks(tables(&[table])).is_err(), "free twice");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_block_is_lost_or_shared(
            total in 1_usize..20,
            moves in prop::collection::vec((0_usize..5, 0_usize..6), 1..60),
        ) {
            let mut pool = BlockManager::new(total, None);
            let mut held: Vec<Vec<BlockId>> = vec![Vec::new(); 5];
            for (owner, blocks) in moves {
                let free = total - pool.held();
                if blocks == 0 {
                    pool.free(&mut held[owner]);
                } else {
                    prop_assert_eq!(pool.allocate(blocks, &mut held[owner]), blocks <= free);
                }
                prop_assert_eq!(pool.held(), held.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(pool.check_blocks(tables(&held)), Ok(()));
            }
        }
    }
}
