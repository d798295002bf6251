//! What a step's logits mean for one sequence.

use super::message::{Logprobs, TokenId};
use super::sampler::{Draw, NotFinite, Sampled, Sampler};
use super::scheduler::Work;
use super::sequence::Sequence;
use crate::backend::LogitRows;
use crate::model::Logits;

/// The yield of one sequence's share of a step.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The next positions of a prompt that is scored.
    pub(super) prompt: Option<Vec<Option<Logprobs>>>,
    /// The next token, if the share reached the end of what was known.
    pub(super) token: Option<Sampled>,
}

/// The rows of a step, and what they are read with.
pub(super) struct Reader<'a> {
    pub(super) sampler: &'a mut Sampler,
    pub(super) logits: Logits<'a>,
    pub(super) end_tokens: &'a [TokenId],
    /// First row of the share that is read next.
    pub(super) row: usize,
}

impl Reader<'_> {
    /// Reads the rows of `work`, which come after those of the last call.
    pub(super) fn read(&mut self, work: &Work, s: &Sequence) -> Result<Outcome, NotFinite> {
        let first = self.row;
        let rows = work.chunk.logit_rows();
        self.row += rows;
        let prompt = match work.chunk.logits {
            LogitRows::All if s.is_scoring() => Some(self.score(work, s, first)?),
            _ => None,
        };
        let known = work.start + work.chunk.tokens == s.tokens.len();
        let token = if known && rows > 0 && !s.is_full() {
            Some(self.sampler.sample(&Draw {
                logits: self.logits.row(first + rows - 1),
                sampling: &s.sampling,
                prompt: s.prompt(),
                generated: s.generated(),
                end_tokens: self.end_tokens,
                seed: s.seed,
                sample: s.sample,
            })?)
        } else {
            None
        };
        Ok(Outcome { prompt, token })
    }

    fn score(
        &mut self,
        work: &Work,
        s: &Sequence,
        first: usize,
    ) -> Result<Vec<Option<Logprobs>>, NotFinite> {
        let top = s.sampling.prompt_logprobs.unwrap_or(0);
        let mut scores = Vec::with_capacity(work.chunk.tokens + 1);
        if s.scored == 0 {
            // Nothing comes before the first token that could tell its probability.
            scores.push(None);
        }
        for at in 0..work.chunk.tokens {
            let position = work.start + at + 1;
            if let Some(&token) = s.prompt().get(position)
                && position >= s.scored
            {
                scores.push(Some(self.sampler.score(self.logits.row(first + at), token, top)?));
            }
        }
        Ok(scores)
    }
}
