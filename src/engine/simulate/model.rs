//! A model with accidents, and a record of whom they hit.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::World;
use super::dice::Dice;
use crate::backend::{Batch, BlockId, LogitRows};
use crate::engine::clock::ManualClock;
use crate::engine::message::RequestId;
use crate::engine::scheduler::Work;
use crate::model::{Logits, Model, ModelSpec, Part, StepError};

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

/// Whom the faults hit.
#[derive(Debug, Clone, Default)]
pub(super) struct FaultLog(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    hit: BTreeSet<RequestId>,
    /// A value was poisoned in a row that is read only if a draft was right.
    grazed: BTreeSet<RequestId>,
    /// The last step failed, and none of its requests is in a set yet.
    failed: bool,
    /// The slice of the last step that was hit, in its first row or behind it, and is in neither set
    /// yet.
    slice: Option<(usize, bool)>,
    streak: u32,
    fatal: bool,
    steps: u64,
    /// Steps that took a chunk through some of the layers.
    parts: u64,
}

impl FaultLog {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_hit(&self, request: RequestId) -> bool {
        self.record().hit.contains(&request)
    }

    /// Finds out whose the slices were: the last step was `plan`.
    pub(super) fn attribute(&self, plan: &[Work]) {
        let mut record = self.record();
        let record = &mut *record;
        if std::mem::take(&mut record.failed) {
            record.hit.extend(plan.iter().map(|work| work.request));
        }
        let Some((at, first_row)) = record.slice.take() else { return };
        if let Some(work) = plan.iter().filter(|work| work.stage.is_none()).nth(at) {
            let surely = first_row || work.chunk.drafts == 0;
            if surely { &mut record.hit } else { &mut record.grazed }.insert(work.request);
        }
    }

    pub(super) fn may_have_hit(&self, request: RequestId) -> bool {
        let record = self.record();
        record.hit.contains(&request) || record.grazed.contains(&request)
    }

    pub(super) fn is_fatal(&self) -> bool {
        self.record().fatal
    }

    pub(super) fn steps(&self) -> u64 {
        self.record().steps
    }

    pub(super) fn parts(&self) -> u64 {
        self.record().parts
    }
}

/// See the module. A step takes the time of a real one, by the clock that it moves.
pub(super) struct FaultyModel {
    inner: Box<dyn Model>,
    /// What the engine may know of `inner`.
    spec: ModelSpec,
    hash_bits: u32,
    clock: ManualClock,
    rates: FaultRates,
    dice: Dice,
    log: FaultLog,
    logits: Vec<f32>,
}

impl FaultyModel {
    pub(super) fn new(
        inner: Box<dyn Model>,
        world: &World,
        (dice, log): (Dice, FaultLog),
        clock: ManualClock,
    ) -> Self {
        let World { spec, hash_bits, rates, .. } = world.clone();
        Self { inner, spec, hash_bits, clock, rates, dice, log, logits: Vec::new() }
    }

    fn may_fail(&mut self) -> Result<(), StepError> {
        let (panics, errs) =
            (self.dice.chance(self.rates.panic), self.dice.chance(self.rates.error));
        if panics || errs {
            let mut record = self.log.record();
            record.failed = true;
            record.streak += 1;
            record.fatal |= record.streak >= FATAL_STREAK;
        }
        if panics {
            // Without the panic hook: thousands of expected panics need no backtraces.
            resume_unwind(Box::new("simulated"));
        }
        if errs { Err(StepError("simulated".to_owned())) } else { Ok(()) }
    }

    /// Poisons one value of one row.
    fn poison(&mut self, batch: &Batch<'_>) {
        let vocab = self.spec.vocab;
        let rows = batch.logit_rows();
        if rows == 0 {
            return;
        }
        let row = self.dice.up_to(0, rows - 1);
        let at = row * vocab + self.dice.up_to(0, vocab - 1);
        self.logits[at] = self.dice.one_of(&[f32::NAN, f32::INFINITY]);
        let mut end = 0;
        for (at, slice) in batch.slices.iter().enumerate() {
            let first = end;
            end += match slice.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => slice.tokens.len(),
            };
            if row < end {
                self.log.record().slice = Some((at, row == first));
                return;
            }
        }
    }
}

impl Model for FaultyModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch<'_>) -> Result<Logits<'_>, StepError> {
        self.log.record().steps += 1;
        self.clock.advance(STEP_BASE + STEP_ROW * batch.rows() as u32);
        self.may_fail()?;
        let logits = self.inner.forward(batch)?;
        let vocab = logits.vocab;
        self.logits.clear();
        self.logits.extend_from_slice(logits.data);
        self.log.record().streak = 0;
        if self.dice.chance(self.rates.nan) {
            self.poison(batch);
        }
        Ok(Logits { data: &self.logits, vocab })
    }

    fn advance(&mut self, part: &Part<'_>) -> Result<(), StepError> {
        let (rows, layers) = (part.slice.tokens.len() as u32, part.layers.len() as u32);
        self.clock.advance((STEP_BASE + STEP_ROW * rows) * layers / self.spec.layers as u32);
        self.log.record().parts += 1;
        self.may_fail()?;
        self.inner.advance(part)
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

    fn prefix_hash_bits(&self) -> u32 {
        self.hash_bits
    }

    fn release(&mut self, block: BlockId) {
        self.inner.release(block);
    }
}
