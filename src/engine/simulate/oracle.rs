//! What a choice must answer: the model and the sampler in a plain loop, one history at a time, with
//! no scheduler, no blocks that move and no neighbours.

use super::client::Transcript;
use super::plan::ChoicePlan;
use crate::backend::{BLOCK_TOKENS, Batch, BlockId, LogitRows, Slice};
use crate::engine::message::{FinishReason, TokenEvent};
use crate::engine::sampler::{Draw, Sampler};
use crate::model::Model;
use crate::model::fake::{FakeModel, Options};

/// Everything that the choice yields when nothing goes wrong.
pub(super) fn answer(plan: &ChoicePlan, options: &Options) -> Result<Transcript, String> {
    let mut oracle = Oracle::new(options);
    let mut said = Transcript::default();
    if let Some(top) = plan.sampling.prompt_logprobs {
        said.prompt.push(None);
        for at in 1..plan.prompt.len() {
            let row = oracle.row(&plan.prompt[..at])?;
            let score = oracle.sampler.score(&row, plan.prompt[at], top);
            said.prompt.push(Some(score.map_err(|_| "the oracle's row is not finite")?));
        }
    }
    let mut history = plan.prompt.to_vec();
    let mut watch = plan.watch();
    let limit = options.max_len.min(history.len() + plan.max_new as usize);
    let min_tokens = plan.sampling.min_tokens as usize;
    let end_tokens = oracle.model.spec().end_tokens.clone();
    while history.len() < limit {
        let row = oracle.row(&history)?;
        let generated = &history[plan.prompt.len()..];
        let draw = Draw {
            logits: &row,
            sampling: &plan.sampling,
            prompt: &plan.prompt,
            generated,
            end_tokens: &end_tokens,
            seed: plan.seed,
            sample: plan.sample,
        };
        let sampled = oracle.sampler.sample(&draw).map_err(|_| "the oracle's row is not finite")?;
        let (token, logprobs) = (sampled.token, sampled.logprobs);
        let may_end = generated.len() >= min_tokens && !plan.sampling.ignore_end;
        let is_end = may_end && end_tokens.contains(&token);
        history.push(token);
        let new = history.len() - plan.prompt.len();
        let stops = watch.as_mut().is_some_and(|w| w.is_stop(token)) && new >= min_tokens;
        said.tokens.push(TokenEvent { choice: plan.index, token, logprobs, is_end });
        if is_end || stops {
            said.finished = Some(FinishReason::Stop);
            return Ok(said);
        }
    }
    said.finished = Some(FinishReason::Length);
    Ok(said)
}

struct Oracle {
    model: FakeModel,
    sampler: Sampler,
    blocks: Vec<BlockId>,
}

impl Oracle {
    fn new(options: &Options) -> Self {
        let kv_blocks = options.max_len.div_ceil(BLOCK_TOKENS);
        let options = Options { kv_blocks, max_rows: options.max_len, ..options.clone() };
        let sampler = Sampler::new(options.vocab);
        let blocks = (0..kv_blocks as BlockId).collect();
        Self { model: FakeModel::new(options), sampler, blocks }
    }

    /// The logits after `history`.
    fn row(&mut self, history: &[u32]) -> Result<Vec<f32>, String> {
        let logits = LogitRows::Last;
        let slice = Slice { tokens: history, start: 0, blocks: &self.blocks, logits };
        let batch = Batch { slices: &[slice] };
        let logits = self.model.forward(&batch).map_err(|e| format!("the oracle failed: {e}"))?;
        Ok(logits.row(0).to_vec())
    }
}
