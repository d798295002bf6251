//! What a choice must answer: the model and the sampler in a plain loop, one history at a time, with
//! no scheduler, no blocks that move and no neighbours.

use super::client::Transcript;
use super::plan::ChoicePlan;
use super::rules::Rules;
use crate::backend::{Batch, BlockId, LogitRows, Slice};
use crate::engine::constraint::{Constraint, Stage as Within};
use crate::engine::message::{FinishReason, TokenEvent, TokenId};
use crate::engine::sampler::{Draw, Sampled, Sampler};
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
        let mut constraint = plan.rules.as_ref().map(Rules::constraint);
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
            let Some(sampled) = self.choose(plan, &row, generated, constraint.as_mut())? else {
                return Ok(said);
            };
            let Sampled { token, logprobs } = sampled;
            let may_end = generated.len() >= min_tokens;
            let is_end = (may_end && plan.sampling.ends(token, &end_tokens))
                || (constraint.is_some() && end_tokens.contains(&token));
            history.push(token);
            let new = history.len() - plan.prompt.len();
            let stops = watch.as_mut().is_some_and(|w| w.is_stop(token)) && new >= min_tokens;
            said.tokens.push(TokenEvent { choice: plan.index, token, logprobs, is_end });
            let goes_on = |c: &mut Box<dyn Constraint>| c.accept(token) == Ok(Within::Open);
            let complete = !is_end && !constraint.as_mut().is_none_or(goes_on);
            if is_end || stops || complete {
                said.finished = Some(FinishReason::Stop);
                return Ok(said);
            }
        }
        said.finished = Some(FinishReason::Length);
        Ok(said)
    }

    /// The next token of an answer; `None` if its rules are beyond their limits there.
    fn choose(
        &mut self,
        plan: &ChoicePlan,
        logits: &[f32],
        generated: &[TokenId],
        mut rules: Option<&mut Box<dyn Constraint>>,
    ) -> Result<Option<Sampled>, String> {
        let forced = rules.as_mut().map(|rules| rules.forced()).transpose();
        let forced = forced.map_err(|_| "rules know what they force")?.unwrap_or_default();
        let sampled = if let Some(&token) = forced.first() {
            let scores = plan.sampling.logprobs.map(|top| self.sampler.score(logits, token, top));
            scores.transpose().map(|logprobs| Sampled { token, logprobs })
        } else {
            let Ok(allowed) = rules.map(|rules| rules.allowed()).transpose() else {
                return Ok(None);
            };
            let spec = self.model.spec();
            self.sampler.sample(&Draw {
                logits,
                sampling: &plan.sampling,
                prompt: &plan.prompt,
                generated,
                end_tokens: &spec.end_tokens,
                allowed: allowed.as_ref(),
                seed: plan.seed,
                sample: plan.sample,
            })
        };
        sampled.map(Some).map_err(|_| "the oracle's row is not finite".to_owned())
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
