//! What a step's logits mean for one sequence.

use std::borrow::Cow;

use super::constraint::{OutOfBounds, TokenSet};
use super::masks::Masks;
use super::message::{FailureKind, Logprobs, TokenId};
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
    /// Reads the rows of `work`, which come after those of the last call. `masks` are what the
    /// sequence's constraint allows there, if it has one.
    pub(super) fn read(
        &mut self,
        work: &Work,
        s: &Sequence,
        masks: Option<&Result<Masks, OutOfBounds>>,
    ) -> Result<Outcome, FailureKind> {
        let first = self.row;
        let rows = work.chunk.logit_rows();
        self.row += rows;
        let prompt = match work.chunk.logits {
            LogitRows::All if s.is_scoring() => Some(self.score(work, s, first)?),
            _ => None,
        };
        let sets = match masks {
            None => None,
            Some(Ok(masks)) => Some(&masks.sets[..]),
            Some(Err(OutOfBounds)) => return Err(FailureKind::Constraint),
        };
        let tokens = if s.samples(work.start, work.chunk) {
            self.sample(work, s, sets)?
        } else {
            Vec::new()
        };
        Ok(Outcome { prompt, tokens })
    }

    /// Samples from the row of the last token, and from the next as long as the token is what was
    /// drafted. Forced ones come first and are not chosen; `sets` begin behind them.
    fn sample(
        &mut self,
        work: &Work,
        s: &Sequence,
        sets: Option<&[TokenSet]>,
    ) -> Result<Vec<Sampled>, NotFinite> {
        let drafts = s.drafted(work.chunk);
        // The next row is that of the chunk's end; forced tokens need not have any.
        let end = self.row - 1;
        let mut generated = Cow::Borrowed(s.generated());
        let mut tokens = Vec::with_capacity(1);
        for at in 0..=drafts.len() {
            let has_row = work.chunk.logits == LogitRows::All || at == drafts.len();
            let logits = has_row.then(|| self.logits.row(end + at - drafts.len()));
            let allowed = match sets.map(|sets| sets.get(at.saturating_sub(s.forced.len()))) {
                None => None,
                Some(Some(set)) => Some(set),
                Some(None) if at < s.forced.len() => None,
                // The constraint has nothing to say there: the answer ends before.
                Some(None) => break,
            };
            let sampled = match (s.forced.get(at), logits) {
                (Some(&token), logits) => self.forced(token, logits, s),
                (None, None) => break,
                (None, Some(logits)) => self.sampler.sample(&Draw {
                    logits,
                    sampling: &s.sampling,
                    prompt: s.prompt(),
                    generated: &generated,
                    end_tokens: self.end_tokens,
                    allowed,
                    seed: s.seed,
                    sample: s.sample,
                }),
            };
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

    /// A token that needs no choice, with its log-probabilities if they were asked for.
    fn forced(
        &mut self,
        token: TokenId,
        logits: Option<&[f32]>,
        s: &Sequence,
    ) -> Result<Sampled, NotFinite> {
        let asked = s.sampling.logprobs.zip(logits);
        let logprobs = asked.map(|(top, logits)| self.sampler.score(logits, token, top));
        Ok(Sampled { token, logprobs: logprobs.transpose()? })
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
