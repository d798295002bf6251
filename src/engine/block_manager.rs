//! The KV cache's blocks: which are free, which are held, and by how many.
//!
//! Every block is either free or held; a block is held as long as at least one block table names it.
//! What a block holds is the model's business.

use crate::backend::BlockId;

/// Hands out blocks and takes them back.
#[derive(Debug)]
pub(super) struct BlockManager {
    /// A stack: the block that was freed last is the warmest in the processor's caches.
    free: Vec<BlockId>,
    /// Block tables that name each block; 0 for free blocks.
    holders: Vec<u32>,
    /// Freed since [`Self::take_released`]: the model is told before its next step.
    released: Vec<BlockId>,
}

impl BlockManager {
    pub(super) fn new(total: usize) -> Self {
        Self {
            free: (0..total as BlockId).rev().collect(),
            holders: vec![0; total],
            released: Vec::new(),
        }
    }

    pub(super) fn total(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn held(&self) -> usize {
        self.total() - self.free.len()
    }

    pub(super) fn can_allocate(&self, blocks: usize) -> bool {
        blocks <= self.free.len()
    }

    /// Adds `blocks` free blocks to `table`; none if there are not enough.
    pub(super) fn allocate(&mut self, blocks: usize, table: &mut Vec<BlockId>) -> bool {
        if !self.can_allocate(blocks) {
            return false;
        }
        for block in self.free.drain(self.free.len() - blocks..).rev() {
            self.holders[block as usize] = 1;
            table.push(block);
        }
        true
    }

    /// Empties `table`; blocks that no other table names become free.
    pub(super) fn free(&mut self, table: &mut Vec<BlockId>) {
        for block in table.drain(..).rev() {
            let Some(holders) = self.holders.get_mut(block as usize) else { continue };
            match holders {
                0 => tracing::error!(block, "a kv block was freed twice"),
                1 => {
                    *holders = 0;
                    self.free.push(block);
                    self.released.push(block);
                }
                _ => *holders -= 1,
            }
        }
    }

    /// Blocks whose contents nobody needs any more, each once since the last call.
    pub(super) fn take_released(&mut self) -> impl Iterator<Item = BlockId> + '_ {
        self.released.drain(..)
    }

    /// Free + held = all, no block is both, and the tables of `tables` are what holds them.
    pub(super) fn check_integrity<'a>(
        &self,
        tables: impl Iterator<Item = &'a [BlockId]>,
    ) -> Result<(), String> {
        let mut named = vec![0_u32; self.total()];
        for &block in tables.flatten() {
            match named.get_mut(block as usize) {
                Some(count) => *count += 1,
                None => return Err(format!("block {block} does not exist")),
            }
        }
        if let Some(block) = (0..self.total()).find(|&b| named[b] != self.holders[b]) {
            let (named, held) = (named[block], self.holders[block]);
            return Err(format!("block {block} is in {named} tables and has {held} holders"));
        }
        for &block in &self.free {
            let count = &mut named[block as usize];
            if *count != 0 {
                return Err(format!("block {block} is free and held, or free twice"));
            }
            *count = u32::MAX;
        }
        match named.iter().position(|&count| count == 0) {
            Some(block) => Err(format!("block {block} is lost: neither free nor held")),
            None => Ok(()),
        }
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
        let mut pool = BlockManager::new(3);
        let mut table = Vec::new();
        assert!(!pool.allocate(4, &mut table));
        assert!(table.is_empty());
        assert!(pool.allocate(3, &mut table));
        assert!(!pool.can_allocate(1));
        assert_eq!(pool.held(), 3);
    }

    #[test]
    fn a_freed_block_is_released_once() {
        let mut pool = BlockManager::new(2);
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
            let mut pool = BlockManager::new(4);
            let mut table = Vec::new();
            pool.allocate(2, &mut table);
            (pool, table)
        };
        let (pool, table) = fresh();
        assert_eq!(pool.check_integrity(tables(&[table])), Ok(()));
        let (pool, _table) = fresh();
        assert!(pool.check_integrity(tables(&[])).is_err(), "a table that forgot its blocks");
        let (pool, table) = fresh();
        assert!(pool.check_integrity(tables(&[table.clone(), table])).is_err(), "held by two");
        let (mut pool, table) = fresh();
        pool.free.push(table[0]);
        assert!(pool.check_integrity(tables(&[table])).is_err(), "free and held");
        let (mut pool, table) = fresh();
        pool.free.pop();
        assert!(pool.check_integrity(tables(&[table])).is_err(), "lost");
        let (mut pool, table) = fresh();
        pool.free[0] = pool.free[1];
        assert!(pool.check_integrity(tables(&[table])).is_err(), "free twice");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_block_is_lost_or_shared(
            total in 1_usize..20,
            moves in prop::collection::vec((0_usize..5, 0_usize..6), 1..60),
        ) {
            let mut pool = BlockManager::new(total);
            let mut held: Vec<Vec<BlockId>> = vec![Vec::new(); 5];
            for (owner, blocks) in moves {
                let free = total - pool.held();
                if blocks == 0 {
                    pool.free(&mut held[owner]);
                } else {
                    prop_assert_eq!(pool.allocate(blocks, &mut held[owner]), blocks <= free);
                }
                prop_assert_eq!(pool.held(), held.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(pool.check_integrity(tables(&held)), Ok(()));
            }
        }
    }
}
