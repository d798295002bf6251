//! The fake model with accidents, and a record of whom they hit.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::dice::Dice;
use crate::backend::{BLOCK_TOKENS, Batch, BlockId, LogitRows};
use crate::engine::clock::ManualClock;
use crate::model::fake::FakeModel;
use crate::model::{Logits, Model, ModelSpec, StepError};

/// Failed steps in a row that end an engine.
const FATAL_STREAK: u32 = 3;

/// How long a step takes, and each row of it.
const STEP_BASE: Duration = Duration::from_millis(1);
const STEP_ROW: Duration = Duration::from_micros(100);

/// Probabilities a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FaultRates {
    panic: f64,
    error: f64,
    nan: f64,
}

impl FaultRates {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let mut rate = || dice.one_of(&[0.0, 0.001, 0.003, 0.01, 0.02, 0.3]);
        Self { panic: rate(), error: rate(), nan: rate() }
    }
}

/// Whom the faults hit, by the mark that each request's prompts begin with.
#[derive(Debug, Clone, Default)]
pub(super) struct FaultLog(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    hit: BTreeSet<u32>,
    streak: u32,
    fatal: bool,
    steps: u64,
}

impl FaultLog {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_hit(&self, mark: u32) -> bool {
        self.record().hit.contains(&mark)
    }

    pub(super) fn is_fatal(&self) -> bool {
        self.record().fatal
    }

    pub(super) fn steps(&self) -> u64 {
        self.record().steps
    }
}

/// What may go wrong, and where it is recorded.
pub(super) struct Accidents {
    pub(super) rates: FaultRates,
    pub(super) dice: Dice,
    pub(super) log: FaultLog,
}

/// See the module. A step takes the time of a real one, by the clock that it moves.
pub(super) struct FaultyModel {
    inner: FakeModel,
    clock: ManualClock,
    rates: FaultRates,
    dice: Dice,
    log: FaultLog,
    /// By block: the token in its first slot, to find out whose it is.
    firsts: Vec<u32>,
    logits: Vec<f32>,
}

impl FaultyModel {
    pub(super) fn new(inner: FakeModel, accidents: Accidents, clock: ManualClock) -> Self {
        let firsts = vec![0; inner.spec().kv_blocks];
        let Accidents { rates, dice, log } = accidents;
        Self { inner, clock, rates, dice, log, firsts, logits: Vec::new() }
    }

    /// The mark of each sequence in the step.
    fn marks(&mut self, batch: &Batch<'_>) -> Vec<u32> {
        for slice in batch.slices {
            for (at, &token) in slice.tokens.iter().enumerate() {
                if (slice.start + at).is_multiple_of(BLOCK_TOKENS) {
                    let block = slice.blocks[(slice.start + at) / BLOCK_TOKENS];
                    self.firsts[block as usize] = token;
                }
            }
        }
        batch.slices.iter().map(|s| self.firsts[s.blocks[0] as usize]).collect()
    }

    fn fail(&mut self, marks: &[u32]) {
        let mut record = self.log.record();
        record.hit.extend(marks);
        record.streak += 1;
        record.fatal |= record.streak >= FATAL_STREAK;
    }

    /// Poisons one value of one row.
    fn poison(&mut self, batch: &Batch<'_>, marks: &[u32]) {
        let vocab = self.inner.spec().vocab;
        let rows = batch.logit_rows();
        if rows == 0 {
            return;
        }
        let row = self.dice.up_to(0, rows - 1);
        let at = row * vocab + self.dice.up_to(0, vocab - 1);
        self.logits[at] = self.dice.one_of(&[f32::NAN, f32::INFINITY]);
        let mut end = 0;
        for (slice, &mark) in batch.slices.iter().zip(marks) {
            end += match slice.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => slice.tokens.len(),
            };
            if row < end {
                self.log.record().hit.insert(mark);
                return;
            }
        }
    }
}

impl Model for FaultyModel {
    fn spec(&self) -> &ModelSpec {
        self.inner.spec()
    }

    fn forward(&mut self, batch: &Batch<'_>) -> Result<Logits<'_>, StepError> {
        let marks = self.marks(batch);
        self.log.record().steps += 1;
        self.clock.advance(STEP_BASE + STEP_ROW * batch.rows() as u32);
        if self.dice.chance(self.rates.panic) {
            self.fail(&marks);
            // Without the panic hook: thousands of expected panics need no backtraces.
            resume_unwind(Box::new("simulated"));
        }
        if self.dice.chance(self.rates.error) {
            self.fail(&marks);
            return Err(StepError("simulated".to_owned()));
        }
        let logits = self.inner.forward(batch)?;
        let vocab = logits.vocab;
        self.logits.clear();
        self.logits.extend_from_slice(logits.data);
        self.log.record().streak = 0;
        if self.dice.chance(self.rates.nan) {
            self.poison(batch, &marks);
        }
        Ok(Logits { data: &self.logits, vocab })
    }

    fn recover(&mut self) {
        self.inner.recover();
    }

    fn device(&self) -> String {
        self.inner.device()
    }

    fn kv_block_bytes(&self) -> usize {
        self.inner.kv_block_bytes()
    }

    fn release(&mut self, block: BlockId) {
        self.inner.release(block);
    }
}
