//! From prompts as tokens to what the engine takes: a seed, a sample and a bound for each choice.

use std::sync::Arc;

use super::assemble::{ChoiceState, Echo, Rules};
use super::fields::{Shared, Truncate};
use crate::engine::message::{Choice, Sampling, TokenId};
use crate::http::openai::error::{ApiError, ContextLength};
use crate::text::grammar::Grammar;
use crate::text::{StopSet, Text};

/// Most log-probabilities of prompt tokens in one answer, alternatives included: some 100 MB of JSON,
/// where prompts times samples times alternatives could make many gigabytes.
const SCORES_MAX: usize = 1 << 21;

/// One prompt as tokens.
#[derive(Debug)]
pub struct Tokens {
    pub ids: Arc<[TokenId]>,
    /// The first of them is a BOS that the client did not send.
    pub added_bos: bool,
}

/// What to make of prompts.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    pub shared: &'a Shared,
    pub text: &'a Text,
    /// What every choice keeps within.
    pub grammar: Option<&'a Grammar>,
    pub max_model_len: usize,
    /// The request's own bound, and what holds without one if the context has room for it.
    pub max_tokens: (Option<usize>, usize),
    /// Candidates for each prompt, of which the best `n` are the answer.
    pub candidates: u32,
    /// Give the prompts back in front of what is generated.
    pub echo: bool,
    pub seed: u64,
    /// The field that prompts came in, for errors.
    pub param: &'static str,
}

/// A request that is ready for the engine.
#[derive(Debug)]
pub struct Prepared {
    /// By index: prompt times candidates, plus sample.
    pub choices: Vec<Choice>,
    pub states: Vec<ChoiceState>,
    pub rules: Arc<Rules>,
    /// Candidates for each prompt, and how many of them are the answer.
    pub best: Best,
    /// Over all prompts, each once.
    pub prompt_tokens: usize,
    /// Of the choice that needs the most room: prompt and completion.
    pub longest: (usize, usize),
}

/// Of so many candidates the most probable ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Best {
    pub n: u32,
    pub of: u32,
}

impl Plan<'_> {
    /// Checks against the context, and deals out seeds and samples.
    pub fn prepare(&self, prompts: Vec<Tokens>) -> Result<Prepared, ApiError> {
        let rules = Arc::new(self.rules()?);
        let sampling = Arc::new(self.sampling());
        let choices = prompts.len() * self.candidates as usize;
        let mut prepared = Prepared {
            choices: Vec::with_capacity(choices),
            states: Vec::with_capacity(choices),
            rules: rules.clone(),
            best: Best { n: self.shared.n, of: self.candidates },
            prompt_tokens: 0,
            longest: (0, 0),
        };
        for prompt in prompts {
            let Tokens { ids, added_bos } = self.truncated(prompt);
            let max_new = self.room(ids.len())?;
            prepared.prompt_tokens += ids.len();
            if ids.len() + max_new > prepared.longest.0 + prepared.longest.1 {
                prepared.longest = (ids.len(), max_new);
            }
            let echo = self.echo.then(|| Arc::new(Echo::new(self.text, ids.clone(), added_bos)));
            let watch = |stops: &StopSet| {
                let detokenizer = Echo::detokenizer(echo.as_deref(), rules.skip_special);
                stops.watch(self.text, detokenizer)
            };
            for sample in 0..self.candidates {
                prepared.choices.push(Choice {
                    prompt: ids.clone(),
                    max_new_tokens: max_new as u32,
                    sampling: sampling.clone(),
                    seed: self.seed,
                    sample,
                    stop: rules.stops.as_ref().map(watch),
                    constraint: self.grammar.map(Grammar::constraint),
                });
                prepared.states.push(ChoiceState::new(rules.clone(), ids.clone(), echo.clone()));
            }
        }
        self.check_scores(prepared.prompt_tokens, sampling.prompt_logprobs)?;
        Ok(prepared)
    }

    /// `top`: alternatives for each prompt token, if they are scored.
    fn check_scores(&self, tokens: usize, top: Option<u32>) -> Result<(), ApiError> {
        let Some(top) = top else { return Ok(()) };
        let samples = self.candidates as usize;
        let scores = tokens.saturating_mul(samples).saturating_mul(top as usize + 1);
        if scores <= SCORES_MAX {
            return Ok(());
        }
        let param =
            if self.shared.prompt_logprobs.is_some() { "prompt_logprobs" } else { "logprobs" };
        let message = format!(
            "{tokens} prompt tokens times {samples} samples times {} log-probabilities are over \
             {SCORES_MAX} - '{param}'",
            top + 1
        );
        Err(ApiError::invalid(message, param))
    }

    fn rules(&self) -> Result<Rules, ApiError> {
        let shared = self.shared;
        Ok(Rules {
            text: self.text.clone(),
            stops: stop_set(&shared.stop)?.map(|stops| stops.shown(shared.shows_stop)),
            shows_stop: shared.shows_stop,
            skip_special: shared.skip_special,
            logprobs: shared.sampling.logprobs,
            prompt_logprobs: shared.prompt_logprobs,
            tokens_as_ids: shared.tokens_as_ids,
            return_token_ids: shared.return_token_ids,
            min_tokens: shared.sampling.min_tokens,
        })
    }

    /// What the engine computes: more log-probabilities than are told, where they serve to rank, or
    /// where two fields ask for different numbers of them.
    fn sampling(&self) -> Sampling {
        let asked = &self.shared.sampling;
        let echoed = asked.logprobs.filter(|_| self.echo);
        let ranks = (self.candidates > self.shared.n).then_some(0);
        Sampling {
            logprobs: asked.logprobs.max(ranks),
            prompt_logprobs: self.shared.prompt_logprobs.max(echoed),
            ..asked.clone()
        }
    }

    /// The last tokens, as many as are wanted. A BOS of ours stays: without it some models are lost.
    fn truncated(&self, prompt: Tokens) -> Tokens {
        let keep = match self.shared.truncate_prompt {
            None => return prompt,
            Some(Truncate::To(keep)) => keep,
            Some(Truncate::ToFit) => {
                let (max_tokens, default) = self.max_tokens;
                self.max_model_len.saturating_sub(max_tokens.unwrap_or(default)).max(1)
            }
        };
        let Tokens { ids, added_bos } = &prompt;
        let Some(cut) = ids.len().checked_sub(keep).filter(|&cut| cut > 0) else { return prompt };
        if *added_bos && keep > 1 {
            let ids = ids[..1].iter().chain(&ids[cut + 1..]).copied().collect();
            return Tokens { ids, added_bos: true };
        }
        Tokens { ids: ids[cut..].into(), added_bos: false }
    }

    /// New tokens that a prompt may get, within the context.
    fn room(&self, prompt: usize) -> Result<usize, ApiError> {
        let (max_tokens, default) = self.max_tokens;
        let context = self.max_model_len;
        let left = context.saturating_sub(prompt);
        let wanted = match max_tokens {
            Some(wanted) => wanted,
            None if left > 0 => default.min(left),
            None => default,
        };
        if prompt > context || wanted > left {
            return Err(ApiError::ContextLength(ContextLength {
                limit: context,
                by_cache: false,
                prompt_tokens: prompt,
                completion_tokens: wanted,
                param: self.param,
            }));
        }
        Ok(wanted)
    }
}

fn stop_set(stops: &[String]) -> Result<Option<StopSet>, ApiError> {
    if stops.is_empty() {
        return Ok(None);
    }
    StopSet::new(stops)
        .map(Some)
        .map_err(|error| ApiError::invalid(format!("{error} - 'stop'"), "stop"))
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
