//! What a step's logits mean for one sequence.

use std::borrow::Cow;

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
    /// The next token, if the share reached the end of what was known, and those after it as long as
    /// each was what the draft has.
    pub(super) tokens: Vec<Sampled>,
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
        let known = work.start + work.chunk.tokens - work.chunk.drafts == s.tokens.len();
        let tokens = if known && rows > 0 && !s.is_full() {
            self.sample(work, s, first + rows - 1 - work.chunk.drafts)?
        } else {
            Vec::new()
        };
        Ok(Outcome { prompt, tokens })
    }

    /// Samples from row `first`, and from the next as long as the last token is what was drafted.
    fn sample(
        &mut self,
        work: &Work,
        s: &Sequence,
        first: usize,
    ) -> Result<Vec<Sampled>, NotFinite> {
        let drafts = if work.chunk.drafts > 0 { &s.drafter.tokens()[1..] } else { &[] };
        let mut generated = Cow::Borrowed(s.generated());
        let mut tokens = Vec::with_capacity(1);
        for at in 0..=drafts.len() {
            let sampled = self.sampler.sample(&Draw {
                logits: self.logits.row(first + at),
                sampling: &s.sampling,
                prompt: s.prompt(),
                generated: &generated,
                end_tokens: self.end_tokens,
                seed: s.seed,
                sample: s.sample,
            });
            let sampled = match sampled {
                Ok(sampled) => sampled,
                // The answer may end before this row. If not, the next step comes to it.
                Err(NotFinite) if at > 0 => break,
                Err(NotFinite) => return Err(NotFinite),
            };
            let token = sampled.token;
            tokens.push(sampled);
            if drafts.get(at) != Some(&token) {
                break;
            }
            generated.to_mut().push(token);
        }
        Ok(tokens)
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
