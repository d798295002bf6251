//! What a choice must answer: the model and the sampler in a plain loop, one history at a time, with
//! no scheduler, no blocks that move and no neighbours.

use super::client::Transcript;
use super::plan::ChoicePlan;
use crate::backend::{Batch, BlockId, LogitRows, Slice};
use crate::engine::message::{FinishReason, TokenEvent, TokenId};
use crate::engine::sampler::{Draw, Sampler};
use crate::model::Model;

/// A model of its own, the same as the engine's.
pub struct Oracle {
    model: Box<dyn Model>,
    sampler: Sampler,
    blocks: Vec<BlockId>,
}

impl Oracle {
    /// `model` must have blocks for the longest history of the lives that it judges.
    pub fn new(model: Box<dyn Model>) -> Self {
        let sampler = Sampler::new(model.spec().vocab);
        let blocks = (0..model.spec().kv_blocks as BlockId).collect();
        Self { model, sampler, blocks }
    }

    /// What the choice yields when nothing goes wrong, in a context of `max_context` tokens: all of it,
    /// or its first `at_most` tokens.
    pub(super) fn answer(
        &mut self,
        plan: &ChoicePlan,
        max_context: usize,
        at_most: usize,
    ) -> Result<Transcript, String> {
        let mut said = Transcript::default();
        let mut row = self.read_prompt(plan, &mut said)?;
        let mut history = plan.prompt.to_vec();
        let mut watch = plan.watch();
        let limit = max_context.min(history.len() + plan.max_new as usize);
        let min_tokens = plan.sampling.min_tokens as usize;
        let end_tokens = self.model.spec().end_tokens.clone();
        while history.len() < limit {
            if said.tokens.len() == at_most {
                return Ok(said);
            }
            if !said.tokens.is_empty() {
                let last = history.len() - 1;
                row = self.feed(&history[last..], last, LogitRows::Last)?;
            }
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
            let sampled =
                self.sampler.sample(&draw).map_err(|_| "the oracle's row is not finite")?;
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

    /// The logits after the prompt; what its own tokens' are goes to `said`, if that was asked.
    fn read_prompt(
        &mut self,
        plan: &ChoicePlan,
        said: &mut Transcript,
    ) -> Result<Vec<f32>, String> {
        let (spec, prompt) = (self.model.spec(), &plan.prompt);
        let mut row = Vec::new();
        let Some(top) = plan.sampling.prompt_logprobs else {
            let rows = spec.max_rows;
            for (i, part) in prompt.chunks(rows).enumerate() {
                row = self.feed(part, i * rows, LogitRows::Last)?;
            }
            return Ok(row);
        };
        let (rows, vocab) = (spec.max_rows.min(spec.max_logit_rows), spec.vocab);
        said.prompt.push(None);
        for (i, part) in prompt.chunks(rows).enumerate() {
            let all = self.feed(part, i * rows, LogitRows::All)?;
            for (row, &token) in all.chunks(vocab).zip(&prompt[i * rows + 1..]) {
                let score = self.sampler.score(row, token, top);
                said.prompt.push(Some(score.map_err(|_| "the oracle's row is not finite")?));
            }
            row = all[all.len() - vocab..].to_vec();
        }
        Ok(row)
    }

    /// Computes `tokens` from position `start` on.
    fn feed(
        &mut self,
        tokens: &[TokenId],
        start: usize,
        logits: LogitRows,
    ) -> Result<Vec<f32>, String> {
        let slice = Slice { tokens, start, blocks: &self.blocks, logits };
        let logits = self.model.forward(&Batch { slices: &[slice] });
        Ok(logits.map_err(|e| format!("the oracle failed: {e}"))?.data.to_vec())
    }
}
