//! The Transformer, written once and generic over the backend, and the loading of its weights.

pub mod arch;
pub mod decoder;
#[cfg(any(test, feature = "fake-model"))]
pub mod fake;
mod foreign;
pub mod load;
mod open;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
pub(crate) mod testing;

use std::any::Any;

use std::ops::Range;

use crate::backend::{Batch, BlockId, Slice};
#[cfg(test)]
pub(crate) use open::BLOCK_BOOKKEEPING_BYTES;
#[cfg(feature = "fake-model")]
pub(crate) use open::examine;
pub(crate) use open::{NoPreview, Preview, Remote, Survey, preview, survey};
pub use open::{Opened, Progress, check_backend, open, open_telling};

/// What the engine must know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Rows of logits have this many entries; token ids are below it.
    pub vocab: usize,
    /// Layers that a [`Part`] can stop between.
    pub layers: usize,
    /// Longest sequence (prompt and completion) in tokens.
    pub max_context: usize,
    /// KV blocks there are; ids are `0..kv_blocks`.
    pub kv_blocks: usize,
    /// Most tokens a step may hold.
    pub max_rows: usize,
    /// Most rows of logits a step may ask for.
    pub max_logit_rows: usize,
    /// Most tokens of a chunk that does not begin its sequence.
    pub max_later_rows: usize,
    /// It keeps keys and values by itself, of one sequence, in the order in which they come. A step goes on where the
    /// last one ended, or begins a sequence: nothing is taken back, shared, or computed beside it.
    pub one_at_a_time: bool,
    /// Tokens that end an answer unless the request ignores them.
    pub end_tokens: Vec<u32>,
}

/// A chunk of a prompt on its way through the layers, some of them in each of several steps: a chunk
/// large enough to be worth the reading of weights and keys need not make one long step. Its tokens
/// sample nothing.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    pub slice: Slice<'a>,
    /// Those of this step. The first ones begin a chunk; all others go on with the same slice, where
    /// the last call ended.
    pub layers: Range<usize>,
}

/// Logits of the rows that asked for them, in batch order.
#[derive(Debug, Clone, Copy)]
pub struct Logits<'a> {
    pub data: &'a [f32],
    pub vocab: usize,
}

impl<'a> Logits<'a> {
    /// Row `i`, `vocab` long.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.vocab..(i + 1) * self.vocab]
    }
}

/// A step that failed as a whole. The text goes to the log, never to a client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StepError(pub String);

/// The first line of what a panic in a model's code says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|t| t.lines().next()).unwrap_or("no reason was given")
}

/// A model as the engine drives it: one step at a time, from one thread.
pub trait Model: Send {
    fn spec(&self) -> &ModelSpec;
    /// Computes one step: writes KV for every token, yields logits for the rows that want them.
    fn forward(&mut self, batch: &Batch<'_>) -> Result<Logits<'_>, StepError>;
    /// Takes a chunk through some of the layers; one at a time is under way. Bits are the same as by
    /// [`Self::forward`], which may be called between two parts for other sequences.
    fn advance(&mut self, part: &Part<'_>) -> Result<(), StepError>;
    /// Makes the model usable after one of the above panicked.
    fn recover(&mut self);
    /// For banners and fingerprints, such as `cpu/avx2`.
    fn device(&self) -> String;
    /// Bytes of one KV block over all layers, for the banner.
    fn kv_block_bytes(&self) -> usize;
    /// Bits that the keys of cached prefixes are cut to; a model for tests may want collisions.
    fn prefix_hash_bits(&self) -> u32 {
        128
    }
    /// Tells the model that a block's contents are no longer needed (a device may reuse it).
    fn release(&mut self, _block: BlockId) {}
}
