//! A deterministic model with fault injection, for tests: `fake:key=value,…`.
//!
//! Its "keys and values" are kept by block and slot: a token, and a hash of all that came before it,
//! as a real model's depend on their whole prefix. The logits of a position are a hash of the whole
//! history read back through the block table, so that a wrong block, a lost one, one that followed
//! another prefix, a wrong position or a neighbour's token changes everything that follows. Text
//! depends only on the prompt and on how the request samples.
//!
//! Logits are multiples of a quarter in [-8, 8), so that ties are common. [`END_TOKEN`] stands at +20
//! after one history in `end_every`, else at -20: answers end by themselves, at lengths that vary. With
//! `repeats` most histories prefer what followed their last token before, so that text repeats itself.

mod options;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{Logits, Model, ModelSpec, Part, StepError};
use crate::backend::{BLOCK_TOKENS, Batch, BlockId, LogitRows, Slice};
use options::{Fault, FaultKind};

pub use options::Options;

/// The token that ends an answer.
pub const END_TOKEN: u32 = 0;

/// How long a step takes that `fault=slow@N` names.
const SLOW_STEP: Duration = Duration::from_secs(5);

/// Logit of a token that repeats what was before; only the end token's can be higher.
const PREFERRED: f32 = 16.0;

/// What stands in the cache for one token.
#[derive(Debug, Clone, Copy)]
struct Slot {
    token: u32,
    /// Of the history up to this token, as it was when this was written.
    history: u64,
}

/// What a slot holds that no living sequence has written.
const EMPTY: Slot = Slot { token: u32::MAX, history: 0 };

/// See the module.
#[derive(Debug)]
pub struct FakeModel {
    spec: ModelSpec,
    options: Options,
    slots: Vec<Slot>,
    logits: Vec<f32>,
    /// Start, tokens and next layer of the chunk that is under way.
    under_way: Option<(usize, Vec<u32>, usize)>,
    /// Tokens of the sequence of the last step, where it is one at a time.
    fed: usize,
    /// Steps since the start.
    steps: u64,
}

/// Opens `fake:key=value,…`; an unknown key or a value that makes no sense is refused by name.
/// Takes `load_ms` milliseconds.
pub fn open(spec: &str) -> Result<FakeModel, String> {
    let options = Options::parse(spec)?;
    std::thread::sleep(Duration::from_millis(options.load_ms));
    Ok(FakeModel::new(options))
}

impl FakeModel {
    pub fn new(options: Options) -> Self {
        let spec = ModelSpec {
            vocab: options.vocab,
            layers: options.layers,
            max_context: options.max_len,
            kv_blocks: options.kv_blocks,
            max_rows: options.max_rows,
            max_logit_rows: options.max_logit_rows,
            max_later_rows: options.max_rows,
            one_at_a_time: options.one_at_a_time,
            end_tokens: vec![END_TOKEN],
        };
        let slots = vec![EMPTY; spec.kv_blocks * BLOCK_TOKENS];
        Self { spec, options, slots, logits: Vec::new(), under_way: None, fed: 0, steps: 0 }
    }

    /// Longest sequence in tokens, where the command line says so.
    #[must_use]
    pub fn with_max_context(mut self, tokens: usize) -> Self {
        self.spec.max_context = tokens.min(self.spec.max_context);
        self
    }

    fn slot(&self, blocks: &[BlockId], position: usize) -> Result<usize, StepError> {
        let block = blocks.get(position / BLOCK_TOKENS).map(|&b| b as usize);
        let block = block.filter(|&b| b < self.spec.kv_blocks);
        let block = block.ok_or_else(|| StepError(format!("no block for position {position}")))?;
        Ok(block * BLOCK_TOKENS + position % BLOCK_TOKENS)
    }

    /// Refuses what a model that keeps one sequence by itself cannot compute.
    fn follow(&mut self, batch: &Batch<'_>) -> Result<(), StepError> {
        let fed = self.fed;
        match batch.slices {
            [] => Ok(()),
            [slice] if slice.start == 0 || slice.start == fed => {
                self.fed = slice.start + slice.tokens.len();
                Ok(())
            }
            [slice] => Err(StepError(format!("a step at {} after {fed} tokens", slice.start))),
            all => Err(StepError(format!("{} sequences at a time", all.len()))),
        }
    }

    fn write(&mut self, slice: &Slice<'_>) -> Result<(), StepError> {
        let mut history = match slice.start {
            0 => 0,
            start => self.slots[self.slot(slice.blocks, start - 1)?].history,
        };
        for (position, &token) in (slice.start..).zip(slice.tokens) {
            if token as usize >= self.spec.vocab {
                return Err(StepError(format!("token {token} is outside the vocabulary")));
            }
            history = append(history, token, position);
            let slot = self.slot(slice.blocks, position)?;
            self.slots[slot] = Slot { token, history };
        }
        Ok(())
    }

    /// Appends the rows of logits that `slice` wants, from what stands in its blocks.
    fn read(&mut self, slice: &Slice<'_>) -> Result<(), StepError> {
        let end = slice.start + slice.tokens.len();
        let first_row = match slice.logits {
            LogitRows::None => return Ok(()),
            LogitRows::Last => end - 1,
            LogitRows::All => slice.start,
        };
        let mut hash = 0;
        let mut history = Vec::with_capacity(end);
        for position in 0..end {
            let slot = self.slots[self.slot(slice.blocks, position)?];
            history.push(slot.token);
            hash = append(hash, slot.token, position);
            if slot.history != hash {
                hash = mix(hash ^ slot.history);
            }
            if position >= first_row {
                self.push_row(hash);
                self.prefer_repetition(hash, &history);
            }
        }
        Ok(())
    }

    fn push_row(&mut self, history: u64) {
        let ends =
            self.options.end_every > 0 && mix(!history).is_multiple_of(self.options.end_every);
        let first = self.logits.len();
        self.logits.extend((0..self.spec.vocab as u64).map(|token| {
            let level = mix(history.wrapping_add(token.wrapping_mul(0x9E37_79B9_7F4A_7C15))) % 64;
            level as f32 / 4.0 - 8.0
        }));
        self.logits[first + END_TOKEN as usize] = if ends { 20.0 } else { -20.0 };
    }

    /// Raises, in the newest row, the token that followed the last one before.
    fn prefer_repetition(&mut self, hash: u64, history: &[u32]) {
        let every = self.options.repeats;
        let Some((last, before)) = history.split_last() else { return };
        if every == 0 || mix(hash.rotate_left(32)).is_multiple_of(every) {
            return;
        }
        if let Some(at) = before.iter().rposition(|token| token == last)
            && history[at + 1] != END_TOKEN
        {
            let first = self.logits.len() - self.spec.vocab;
            self.logits[first + history[at + 1] as usize] = PREFERRED;
        }
    }

    fn inject_fault(&mut self) {
        let now = self.steps;
        let due = |fault: &&Fault| fault.step == now;
        let kinds: Vec<FaultKind> =
            self.options.faults.iter().filter(due).map(|f| f.kind).collect();
        for kind in kinds {
            match kind {
                #[expect(clippy::panic, reason = "it is what was asked for")]
                FaultKind::Panic => panic!("fault=panic@{now}"),
                // Until the process ends: what a hung device looks like from here.
                FaultKind::Hang => loop {
                    std::thread::park();
                },
                FaultKind::Nan => self.logits.fill(f32::NAN),
                FaultKind::Slow => std::thread::sleep(SLOW_STEP),
            }
        }
    }
}

impl Model for FakeModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch<'_>) -> Result<Logits<'_>, StepError> {
        self.steps += 1;
        self.logits.clear();
        if batch.rows() > self.spec.max_rows || batch.logit_rows() > self.spec.max_logit_rows {
            return Err(StepError("the step is larger than what was reserved".to_owned()));
        }
        if self.spec.one_at_a_time {
            self.follow(batch)?;
        }
        // All writes come before all reads, so that a block held by two sequences shows.
        for slice in batch.slices {
            self.write(slice)?;
        }
        for slice in batch.slices {
            self.read(slice)?;
        }
        std::thread::sleep(Duration::from_millis(self.options.step_ms));
        self.inject_fault();
        Ok(Logits { data: &self.logits, vocab: self.spec.vocab })
    }

    /// Writes the slots when the last layer is done, as if the first ones were worth nothing.
    fn advance(&mut self, part: &Part<'_>) -> Result<(), StepError> {
        let Slice { start, tokens, .. } = part.slice;
        let mut chunk = (start, tokens.to_vec(), part.layers.start);
        let before = self.under_way.take();
        if part.layers.start > 0 && before.as_ref() != Some(&chunk) {
            return Err(StepError(format!("{chunk:?} does not go on with {before:?}")));
        }
        if part.layers.is_empty() || part.layers.end > self.spec.layers {
            return Err(StepError(format!("no such layers: {:?}", part.layers)));
        }
        if part.layers.end == self.spec.layers {
            return self.write(&part.slice);
        }
        chunk.2 = part.layers.end;
        self.under_way = Some(chunk);
        Ok(())
    }

    fn recover(&mut self) {
        self.logits.clear();
    }

    fn device(&self) -> String {
        "fake".to_owned()
    }

    fn kv_block_bytes(&self) -> usize {
        BLOCK_TOKENS * size_of::<Slot>()
    }

    fn prefix_hash_bits(&self) -> u32 {
        self.options.hash_bits
    }

    fn release(&mut self, block: BlockId) {
        let first = block as usize * BLOCK_TOKENS;
        self.slots[first..first + BLOCK_TOKENS].fill(EMPTY);
    }
}

/// The hash of a history with one token more.
fn append(history: u64, token: u32, position: usize) -> u64 {
    mix(history ^ (u64::from(token) << 32 | position as u64))
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014), with its increment.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
