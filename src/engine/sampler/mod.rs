//! From a row of logits to a token.
//!
//! Order: log-probabilities from the untouched logits; then `min_tokens`, `logit_bias`, the penalties
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

use super::message::{LOGPROB_MIN, Logprobs, Sampling, TokenId};
use super::random;
use crate::backend::cpu::vocab::{argmax, log_sum_exp, peak};

/// Below this temperature the most probable token is taken.
const GREEDY_BELOW: f32 = 1e-5;

/// The model yielded NaN or +infinity: whatever was chosen from it would be silently wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFinite;

/// What a token is chosen from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw<'a> {
    pub(super) logits: &'a [f32],
    pub(super) sampling: &'a Sampling,
    pub(super) prompt: &'a [TokenId],
    pub(super) generated: &'a [TokenId],
    pub(super) end_tokens: &'a [TokenId],
    pub(super) seed: u64,
    pub(super) sample: u32,
}

/// The token, and what was asked for about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sampled {
    pub(super) token: TokenId,
    pub(super) logprobs: Option<Logprobs>,
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

    /// Chooses the next token. If the masks leave nothing, they are dropped and the most probable
    /// token of the untouched row is taken; a row of nothing but -infinity yields token 0.
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
            return argmax(draw.logits, raw_max);
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
        Logprobs { own, top: best.map(|(id, logit)| (id, logprob(logit))).collect() }
    }
}
