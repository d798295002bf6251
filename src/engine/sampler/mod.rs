//! From a row of logits to a token.
//!
//! Order: log-probabilities from the untouched logits; then the constraint's mask, `min_tokens`, `logit_bias`, the penalties
//! (`adjust`); then greedy below temperature 1e-5, else temperature, `min_p`, `top_k`, `top_p`, draw
//! (`pick`). Ties go to the lowest id everywhere. What comes out depends on nothing but the row, the
//! request and the token's index, and nothing here allocates once the buffers are warm, except for
//! the log-probabilities that a request asked for.

mod adjust;
mod pick;
#[cfg(test)]
mod tests;

use adjust::Adjuster;
use pick::Picker;

use super::constraint::TokenSet;
use super::message::{FailureKind, LOGPROB_MIN, Logprobs, Sampling, TokenId};
use super::random;
use crate::backend::cpu::vocab::{argmax, log_sum_exp, peak};

/// Below this temperature the most probable token is taken.
const GREEDY_BELOW: f32 = 1e-5;

/// The model yielded NaN or +infinity: whatever was chosen from it would be silently wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFinite;

impl From<NotFinite> for FailureKind {
    fn from(NotFinite: NotFinite) -> Self {
        Self::Step
    }
}

/// What a token is chosen from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw<'a> {
    pub(super) logits: &'a [f32],
    pub(super) sampling: &'a Sampling,
    pub(super) prompt: &'a [TokenId],
    pub(super) generated: &'a [TokenId],
    pub(super) end_tokens: &'a [TokenId],
    /// What the constraint allows; `None`: everything.
    pub(super) allowed: Option<&'a TokenSet>,
    pub(super) seed: u64,
    pub(super) sample: u32,
}

/// The token, and what was asked for about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sampled {
    pub(super) token: TokenId,
    pub(super) logprobs: Option<Logprobs>,
}

/// The place of `token` in the order of a row, from 1 on, ties by lowest id.
fn rank(logits: &[f32], token: TokenId) -> u32 {
    let at = (token as usize).min(logits.len());
    let Some(&own) = logits.get(at) else { return logits.len() as u32 };
    let (before, after) = logits.split_at(at);
    let ahead = count(before, |x| x >= own) + count(after, |x| x > own);
    ahead + 1
}

/// How many logits `is_ahead` holds for, without a branch.
fn count(logits: &[f32], is_ahead: impl Fn(f32) -> bool) -> u32 {
    logits.iter().map(|&x| u32::from(is_ahead(x))).sum()
}

/// The buffers; they hold nothing between two calls.
#[derive(Debug)]
pub(super) struct Sampler {
    adjuster: Adjuster,
    picker: Picker,
}

impl Sampler {
    pub(super) fn new(vocab: usize) -> Self {
        Self { adjuster: Adjuster::new(vocab), picker: Picker::new(vocab) }
    }

    /// Chooses the next token. If the masks leave nothing, all but the constraint's are dropped and the
    /// most probable token of the untouched row is taken; a row of nothing but -infinity yields the
    /// first one that is allowed.
    pub(super) fn sample(&mut self, draw: &Draw<'_>) -> Result<Sampled, NotFinite> {
        let max = peak(draw.logits).ok_or(NotFinite)?;
        let token = self.choose(draw, max) as TokenId;
        let top = draw.sampling.logprobs;
        let logprobs = top.map(|top| self.logprobs(draw.logits, max, token, top));
        Ok(Sampled { token, logprobs })
    }

    /// Log-probabilities where `token` stands: `logits` is the row of the position before it.
    pub(super) fn score(
        &mut self,
        logits: &[f32],
        token: TokenId,
        top: u32,
    ) -> Result<Logprobs, NotFinite> {
        let max = peak(logits).ok_or(NotFinite)?;
        Ok(self.logprobs(logits, max, token, top))
    }

    fn choose(&mut self, draw: &Draw<'_>, raw_max: f32) -> usize {
        let sampling = draw.sampling;
        let (logits, max) = match self.adjuster.adjust(draw) {
            Some(adjusted) => (adjusted, peak(adjusted).unwrap_or(f32::NEG_INFINITY)),
            None => (draw.logits, raw_max),
        };
        if max == f32::NEG_INFINITY {
            return match draw.allowed {
                Some(allowed) => most_probable(draw.logits, allowed),
                None => argmax(draw.logits, raw_max),
            };
        }
        if sampling.temperature < GREEDY_BELOW {
            return argmax(logits, max);
        }
        let uniform = random::uniform(draw.seed, draw.sample, draw.generated.len() as u64);
        self.picker.pick(logits, max, sampling, uniform)
    }

    /// Own value and top list come from one expression, so that their bits agree.
    fn logprobs(&mut self, logits: &[f32], max: f32, token: TokenId, top: u32) -> Logprobs {
        let norm = log_sum_exp(logits, max, self.picker.sums());
        let logprob = |logit: f32| {
            if max == f32::NEG_INFINITY {
                return -(logits.len() as f32).ln();
            }
            ((f64::from(logit) - norm) as f32).max(LOGPROB_MIN)
        };
        let own = logits.get(token as usize).map_or(LOGPROB_MIN, |&logit| logprob(logit));
        let best = self.picker.best(logits, top as usize);
        let top: Vec<_> = best.map(|(id, logit)| (id, logprob(logit))).collect();
        let among = top.iter().position(|&(id, _)| id == token);
        let rank = among.map_or_else(|| rank(logits, token), |at| at as u32 + 1);
        Logprobs { own, rank, top }
    }
}

/// The allowed token with the highest logit, of equal ones the first.
fn most_probable(logits: &[f32], allowed: &TokenSet) -> usize {
    let known = allowed.iter().map(|token| token as usize).filter(|&token| token < logits.len());
    known.reduce(|best, token| if logits[token] > logits[best] { token } else { best }).unwrap_or(0)
}
