//! What a model will take up, told and checked before it takes anything.

use super::Maker;
use crate::config::EngineConfig;
use crate::model::arch::Description;
use crate::model::decoder::kv_block_bytes;
use crate::model::load::Checkpoint;

/// What the engine keeps of each KV block beside it: its tokens, what it is found by, its place among the free ones. Counted
/// in `engine/prefix_cache.rs`, whose test holds it to this.
pub(crate) const BLOCK_BOOKKEEPING_BYTES: u64 = 512;

/// Bytes of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) weights: u64,
    pub(super) kv_cache: u64,
}

impl Plan {
    /// As `maker` keeps it, with so many blocks.
    pub(super) fn of(
        checkpoint: &Checkpoint,
        description: &Description,
        engine: &EngineConfig,
        blocks: usize,
        maker: Maker,
    ) -> Self {
        let block_bytes = kv_block_bytes(&description.shape, engine.kv_cache_dtype);
        let weights = checkpoint.tensors.values().map(|tensor| maker.bytes_of(tensor));
        let weights = weights.fold(0, u64::saturating_add);
        Self::of_bytes(weights, block_bytes, blocks)
    }

    /// Of weights that take so much, and blocks of keys and values.
    pub(super) fn of_bytes(weights: u64, block_bytes: usize, blocks: usize) -> Self {
        let block = (block_bytes as u64).saturating_add(BLOCK_BOOKKEEPING_BYTES);
        Self { weights, kv_cache: block.saturating_mul(blocks as u64) }
    }

    /// Refuses what `memory`, of the machine or its container, cannot hold, and logs the rest.
    pub(super) fn check(self, memory: Option<u64>) -> Result<(), String> {
        let (weights, kv_cache) = (gib(self.weights), gib(self.kv_cache));
        tracing::info!(weights, kv_cache, "memory that the model will take");
        self.fits(memory)
    }

    /// Whether `memory` can hold it.
    pub(super) fn fits(self, memory: Option<u64>) -> Result<(), String> {
        let (weights, kv_cache) = (gib(self.weights), gib(self.kv_cache));
        match memory {
            Some(memory) if self.weights.saturating_add(self.kv_cache) > memory => Err(format!(
                "its weights take {weights} and the KV cache {kv_cache} (--kv-cache-memory), more than the {} that there are: lower \
                 --kv-cache-memory, or take a model of fewer bits",
                gib(memory)
            )),
            _ => Ok(()),
        }
    }
}

/// For people.
pub(super) fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Kernels;

    /// Tiny blocks take less than what is kept of them.
    #[test]
    fn what_is_kept_of_each_block_counts() {
        let gguf = crate::model::load::gguf::testing::tiny_llama();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), gguf.bytes()).unwrap();
        let checkpoint = Checkpoint::open(file.path(), crate::config::Quantize::None).unwrap();
        let Checkpoint { metadata, tensors, unusable, .. } = &checkpoint;
        let description = crate::model::arch::describe(metadata, tensors, unusable).unwrap();
        let engine = crate::model::open::tests::engine();
        let block = kv_block_bytes(&description.shape, engine.kv_cache_dtype) as u64;
        let plan =
            Plan::of(&checkpoint, &description, &engine, 1 << 20, Maker::Cpu(Kernels::Auto, None));
        assert_eq!(plan.kv_cache, (block + BLOCK_BOOKKEEPING_BYTES) << 20);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_the_figures() {
        let plan = Plan { weights: 3 << 30, kv_cache: 1 << 30 };
        assert_eq!(plan.check(None), Ok(()));
        assert_eq!(plan.check(Some(4 << 30)), Ok(()));
        let refusal = plan.check(Some((4 << 30) - 1)).unwrap_err();
        assert!(
            refusal.starts_with("its weights take 3.00 GiB and the KV cache 1.00 GiB"),
            "{refusal}"
        );
        let endless = Plan { weights: u64::MAX, kv_cache: u64::MAX };
        assert!(endless.check(Some(u64::MAX - 1)).is_err());
    }
}
