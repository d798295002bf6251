//! Families that have no description here, computed by candle-transformers: one sequence at a time, in float32.
//!
//! Its models keep keys and values by themselves, of one sequence, and give the logits of the last token alone. So the
//! engine is told that nothing can be taken back, shared or computed beside it ([`ModelSpec::one_at_a_time`]), and rows for
//! every token are had by feeding one after the other.
//!
//! In float32 on every device: several of its families make their tables of rotations in the type of the weights, and in
//! bfloat16 positions above 256 would be rounded.

mod families;
mod settings;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use self::families::{Builder, FAMILIES, Family, Network};
use self::settings::{Settings, Sizes};
use self::weights::{Shared, Weights};
use super::load;
use super::{Logits, Model, ModelSpec, Part, StepError};
use crate::backend::{BLOCK_TOKENS, BackendError, Batch, LogitRows};

/// `model_type` of each.
pub(super) const NAMES: [&str; FAMILIES.len()] = {
    let mut names = [""; FAMILIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = FAMILIES[i].name;
        i += 1;
    }
    names
};

/// Tokens of a step unless an option says otherwise.
const STEP_TOKENS: usize = 256;
/// The same of a first chunk where later ones are fed token by token: as much as attention to all pairs may take.
const FIRST_TOKENS: usize = 2048;
/// Tokens that are fed one by one in a step: clients are told, and may leave, between two steps.
const SINGLE_TOKENS: usize = 16;

/// A model whose folder was understood, but no weight read.
pub(super) struct Plan {
    family: &'static Family,
    settings: Settings,
    sizes: Sizes,
    weights: Weights,
}

impl Plan {
    /// # Errors
    /// One line that names the key.
    pub(super) fn of(folder: &load::Foreign) -> Result<Self, String> {
        let name = &folder.family;
        let family = FAMILIES.iter().find(|family| family.name == *name);
        let family = family.ok_or_else(|| format!("model_type {name} is not supported"))?;
        let settings = Settings::of(&folder.config)?;
        let sizes = family.sizes(&settings)?;
        let weights =
            Weights::new(folder.checkpoint.tensors.clone(), folder.checkpoint.unusable.clone());
        Ok(Self { family, settings, sizes, weights })
    }

    /// Bytes of the weights, as they are kept.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.weights.float_bytes()
    }

    /// Bytes of the keys and values of as many tokens as a block has.
    pub(super) fn kv_block_bytes(&self) -> usize {
        let Sizes { layers, kv_heads, head_dim, .. } = self.sizes;
        layers.max(1) * 2 * kv_heads * head_dim * BLOCK_TOKENS * size_of::<f32>()
    }

    /// Rows of the embedding.
    pub(super) fn vocab(&self) -> usize {
        self.sizes.vocab
    }

    /// Tokens that the model was trained for.
    pub(super) fn context(&self) -> usize {
        self.sizes.context
    }
}

/// What the engine asked for.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) max_context: usize,
    /// Tokens of a step, where an option says so.
    pub(super) max_rows: Option<usize>,
    pub(super) end_tokens: Vec<u32>,
}

/// A network of candle-transformers as the engine drives it.
pub(super) struct Foreign {
    spec: ModelSpec,
    device: Device,
    name: String,
    kv_block_bytes: usize,
    chunks: bool,
    builder: Builder,
    weights: Arc<Weights>,
    /// None after a step that failed, and before the first.
    network: Option<Network>,
    /// What the network has seen.
    fed: Vec<u32>,
    /// What [`Model::forward`] lends out.
    logits: Vec<f32>,
}

impl Foreign {
    /// Reads all weights, and computes a few tokens to see that it can.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, or of no use; too little memory.
    pub(super) fn load(
        plan: Plan,
        device: Device,
        place: &str,
        limits: Limits,
    ) -> Result<Self, BackendError> {
        let Plan { family, sizes, .. } = &plan;
        let chunks = family.chunks;
        let kv_block_bytes = plan.kv_block_bytes();
        let usual = if chunks { STEP_TOKENS } else { FIRST_TOKENS };
        let max_rows = limits.max_rows.unwrap_or(usual).clamp(1, limits.max_context.max(1));
        let spec = ModelSpec {
            vocab: sizes.vocab,
            layers: 1,
            max_context: limits.max_context,
            kv_blocks: limits.max_context.div_ceil(BLOCK_TOKENS).max(1),
            max_rows,
            max_logit_rows: SINGLE_TOKENS.min(max_rows),
            max_later_rows: if chunks { max_rows } else { SINGLE_TOKENS.min(max_rows) },
            one_at_a_time: true,
            end_tokens: limits.end_tokens,
        };
        let aside = family.aside;
        let builder = family.builder(plan.settings, &plan.weights, limits.max_context);
        let builder = builder.map_err(BackendError::Device)?;
        let mut model = Self {
            spec,
            device,
            name: format!("candle-transformers/{place}"),
            kv_block_bytes,
            chunks,
            builder,
            weights: Arc::new(plan.weights),
            network: None,
            fed: Vec::new(),
            logits: Vec::new(),
        };
        let tried = [0, 0];
        let tried = &tried[..tried.len().min(limits.max_context)];
        model.begin(&[]).and_then(|()| model.feed(tried)).map_err(|e| BackendError::Device(e.0))?;
        model.weights.refuse_unread(aside).map_err(BackendError::Device)?;
        Ok(model)
    }

    /// Forgets the sequence, and sees the beginning of another one.
    fn begin(&mut self, tokens: &[u32]) -> Result<(), StepError> {
        self.fed.clear();
        self.network = self.network.take().and_then(Network::cleared);
        if self.network.is_none() {
            let weights = Box::new(Shared(Arc::clone(&self.weights)));
            let weights = VarBuilder::from_backend(weights, DType::F32, self.device.clone());
            self.network = Some(self.builder.build(weights, &self.device).map_err(failed)?);
        }
        if tokens.is_empty() { Ok(()) } else { self.feed(tokens).map(drop) }
    }

    /// Puts the network where it has seen `start` tokens. A step that goes back makes it read them again.
    fn seek(&mut self, start: usize) -> Result<(), StepError> {
        if start > self.fed.len() {
            let fed = self.fed.len();
            return Err(StepError(format!("a step at {start} after {fed} tokens")));
        }
        if start == 0 || start < self.fed.len() {
            let again = self.fed[..start].to_vec();
            return self.begin(&again);
        }
        Ok(())
    }

    /// The logits after `tokens`, which follow what was fed.
    fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, StepError> {
        let whole = self.chunks || self.fed.is_empty();
        let mut last = Vec::new();
        for piece in tokens.chunks(if whole { tokens.len().max(1) } else { 1 }) {
            // Taken out, so that nothing goes on with what a failure left.
            let mut network =
                self.network.take().ok_or_else(|| StepError("no network".to_owned()))?;
            let logits = Tensor::new(piece, &self.device)
                .and_then(|tokens| network.forward(&tokens.unsqueeze(0)?, self.fed.len()))
                .and_then(|logits| logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1());
            last = logits.map_err(failed)?;
            self.network = Some(network);
            self.fed.extend_from_slice(piece);
        }
        if last.len() == self.spec.vocab {
            Ok(last)
        } else {
            Err(StepError(format!("{} logits of {}", last.len(), self.spec.vocab)))
        }
    }

    /// Refuses what was not promised.
    fn check(&self, batch: &Batch<'_>) -> Result<(), StepError> {
        let (rows, logit_rows, spec) = (batch.rows(), batch.logit_rows(), &self.spec);
        if batch.slices.len() > 1 || rows > spec.max_rows || logit_rows > spec.max_logit_rows {
            let sequences = batch.slices.len();
            return Err(StepError(format!(
                "{sequences} sequences, {rows} rows, {logit_rows} wanted"
            )));
        }
        for slice in batch.slices {
            let end = slice.start.saturating_add(slice.tokens.len());
            if end > spec.max_context {
                return Err(StepError(format!("slice ends at {end} of {}", spec.max_context)));
            }
            if let Some(token) = slice.tokens.iter().find(|&&t| t as usize >= spec.vocab) {
                return Err(StepError(format!("token {token} of {}", spec.vocab)));
            }
        }
        Ok(())
    }
}

/// candle's errors may have a trace behind their first line.
fn failed(error: impl std::fmt::Display) -> StepError {
    let text = error.to_string();
    StepError(text.lines().next().unwrap_or("failed").to_owned())
}

impl Model for Foreign {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn forward(&mut self, batch: &Batch<'_>) -> Result<Logits<'_>, StepError> {
        self.check(batch)?;
        self.logits.clear();
        if let Some(slice) = batch.slices.first().filter(|slice| !slice.tokens.is_empty()) {
            self.seek(slice.start)?;
            if slice.logits == LogitRows::All {
                for token in slice.tokens.chunks(1) {
                    let row = self.feed(token)?;
                    self.logits.extend(row);
                }
            } else {
                let row = self.feed(slice.tokens)?;
                if slice.logits == LogitRows::Last {
                    self.logits.extend(row);
                }
            }
        }
        Ok(Logits { data: &self.logits, vocab: self.spec.vocab })
    }

    fn advance(&mut self, part: &Part<'_>) -> Result<(), StepError> {
        Err(StepError(format!("layers {:?} of a network that has one", part.layers)))
    }

    fn recover(&mut self) {
        self.network = None;
        self.fed.clear();
    }

    fn device(&self) -> String {
        self.name.clone()
    }

    fn kv_block_bytes(&self) -> usize {
        self.kv_block_bytes
    }
}
