//! One choice of one request on its way through the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::constraint::{Constraint, OutOfBounds, Stage as Within};
use super::message::{
    Choice, FailureKind, FinishReason, Namespace, Priority, RequestId, Sampling, StopWatch, TokenId,
};
use super::prefix_cache::Prefix;
use super::speculation::Drafter;
use crate::backend::{BLOCK_TOKENS, BlockId, LogitRows, Slice};

/// Tokens of this choice that can ever stand in the KV cache. The last token that is generated is
/// never fed back, so it takes no place.
pub(super) fn tokens_at_most(choice: &Choice, max_context: usize) -> usize {
    let prompt = choice.prompt.len();
    let new = (choice.max_new_tokens as usize).min(max_context.saturating_sub(prompt));
    prompt + new.saturating_sub(1)
}

/// Prompt and answer so far, how much of it the model has seen, and where that lies.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Unique and rising: the order of arrival, and the name of the sequence inside the engine.
    pub(super) arrival: u64,
    pub(super) request: RequestId,
    pub(super) namespace: Namespace,
    pub(super) priority: Priority,
    /// The step it came in, moved by its priority.
    pub(super) due: i64,
    /// What its tenant's counter knows of it.
    pub(super) counted: u64,
    /// Index into the request's choices.
    pub(super) choice: u32,
    /// The prompt, then what was generated.
    pub(super) tokens: Vec<TokenId>,
    prompt_len: usize,
    /// Longest that `tokens` may become.
    limit: usize,
    /// Tokens whose keys and values are in `blocks`.
    pub(super) computed: usize,
    /// The chunk behind them that has been through some of the layers.
    pub(super) under_way: Option<UnderWay>,
    pub(super) blocks: Vec<BlockId>,
    pub(super) prefix: Prefix,
    /// Prompt tokens that were found in the cache when it first started; `None` until then.
    pub(super) cached_tokens: Option<usize>,
    /// It was passed over because another is computing its prefix.
    pub(super) awaited: bool,
    /// Prompt positions whose log-probabilities were sent. They are not sent again when a preempted
    /// prompt is computed a second time.
    pub(super) scored: usize,
    /// Its client takes no events: it keeps its blocks, but has no part in steps.
    pub(super) paused: bool,
    /// When it last had a part in a step: who waited longest goes first when not all fit.
    pub(super) last_turn: u64,
    pub(super) preemptions: u32,
    pub(super) sampling: Arc<Sampling>,
    pub(super) seed: u64,
    pub(super) sample: u32,
    pub(super) stop: Option<Box<dyn StopWatch>>,
    /// Away while its mask is computed.
    pub(super) constraint: Option<Box<dyn Constraint>>,
    /// The next tokens, as the constraint has it.
    pub(super) forced: Vec<TokenId>,
    pub(super) drafter: Drafter,
}

/// A sequence's part in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) tokens: usize,
    /// So many of `tokens`, the last ones, are drafts: nobody said them yet.
    pub(super) drafts: usize,
    pub(super) logits: LogitRows,
    /// Events that it may yield.
    pub(super) events: usize,
}

/// A chunk between two layers: its tokens, and the layer that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnderWay {
    pub(super) tokens: usize,
    pub(super) layer: usize,
}

/// The layers that a chunk goes through in one step, `from..to` of `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) all: usize,
}

impl Stage {
    /// Share of a whole step.
    pub(super) fn share(self) -> f64 {
        (self.to - self.from) as f64 / self.all as f64
    }
}

impl Chunk {
    /// `tokens` tokens that nothing is asked about.
    pub(super) fn silent(tokens: usize) -> Self {
        Self { tokens, drafts: 0, logits: LogitRows::None, events: 0 }
    }

    pub(super) fn logit_rows(&self) -> usize {
        match self.logits {
            LogitRows::None => 0,
            LogitRows::Last => 1,
            LogitRows::All => self.tokens,
        }
    }
}

impl Sequence {
    pub(super) fn new(
        arrival: u64,
        request: RequestId,
        index: u32,
        choice: Choice,
        max_context: usize,
    ) -> Self {
        let prompt_len = choice.prompt.len();
        let limit = prompt_len.saturating_add(choice.max_new_tokens as usize).min(max_context);
        Self {
            arrival,
            request,
            namespace: Namespace::default(),
            priority: Priority::default(),
            due: 0,
            counted: 0,
            choice: index,
            tokens: choice.prompt.to_vec(),
            prompt_len,
            limit: limit.max(prompt_len),
            computed: 0,
            under_way: None,
            blocks: Vec::new(),
            prefix: Prefix::default(),
            cached_tokens: None,
            awaited: false,
            scored: 0,
            paused: false,
            last_turn: 0,
            preemptions: 0,
            sampling: choice.sampling,
            seed: choice.seed,
            sample: choice.sample,
            stop: choice.stop,
            constraint: choice.constraint,
            forced: Vec::new(),
            drafter: Drafter::new(),
        }
    }

    /// The same, as a request of `namespace`.
    pub(super) fn of(self, namespace: Namespace, priority: Priority) -> Self {
        Self { namespace, priority, ..self }
    }

    pub(super) fn prompt(&self) -> &[TokenId] {
        &self.tokens[..self.prompt_len]
    }

    pub(super) fn generated(&self) -> &[TokenId] {
        &self.tokens[self.prompt_len..]
    }

    /// The model has computed `chunk`, or a stage of it.
    pub(super) fn pass(&mut self, chunk: Chunk, stage: Option<Stage>) {
        let stopped = stage.filter(|stage| stage.to < stage.all);
        self.under_way = stopped.map(|stage| UnderWay { tokens: chunk.tokens, layer: stage.to });
        if self.under_way.is_none() {
            self.computed += chunk.tokens - chunk.drafts;
        }
    }

    /// Tokens that the model has not seen.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= self.limit
    }

    /// Takes in a new token, and says whether it is an end token that ends the answer and, if
    /// anything ends it, what.
    pub(super) fn push(
        &mut self,
        token: TokenId,
        end_tokens: &[TokenId],
    ) -> Result<(bool, Option<FinishReason>), FailureKind> {
        let min_tokens = self.sampling.min_tokens as usize;
        let before = self.generated().len();
        // A constraint allows the model's end tokens only where the answer may end.
        let is_end = (before >= min_tokens && self.sampling.ends(token, end_tokens))
            || (self.constraint.is_some() && end_tokens.contains(&token));
        self.tokens.push(token);
        // The watch sees every token, but its word counts only from `min_tokens` on.
        let stopped = self.hits_stop(token)? && before + 1 >= min_tokens;
        let complete = !is_end && self.completes(token)?;
        let reason = if is_end || stopped || complete {
            Some(FinishReason::Stop)
        } else {
            self.is_full().then_some(FinishReason::Length)
        };
        Ok((is_end, reason))
    }

    /// The watch is another layer's code: if it panics, that is this request's trouble alone.
    fn hits_stop(&mut self, token: TokenId) -> Result<bool, FailureKind> {
        let Some(stop) = &mut self.stop else { return Ok(false) };
        catch_unwind(AssertUnwindSafe(|| stop.is_stop(token))).map_err(|_| FailureKind::Step)
    }

    /// The constraint allows nothing behind `token`.
    fn completes(&mut self, token: TokenId) -> Result<bool, FailureKind> {
        let Some(constraint) = &mut self.constraint else { return Ok(false) };
        let stage = catch_unwind(AssertUnwindSafe(|| constraint.accept(token)));
        let stage =
            stage.unwrap_or(Err(OutOfBounds)).map_err(|OutOfBounds| FailureKind::Constraint);
        Ok(stage? == Within::Complete)
    }

    /// Asks the constraint what must come next.
    pub(super) fn look_ahead(&mut self) -> Result<(), FailureKind> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        let forced = catch_unwind(AssertUnwindSafe(|| constraint.forced()));
        let forced = forced.unwrap_or(Err(OutOfBounds));
        self.forced = forced.map_err(|OutOfBounds| FailureKind::Constraint)?;
        Ok(())
    }

    /// Prompt positions still have to be scored.
    pub(super) fn is_scoring(&self) -> bool {
        self.sampling.prompt_logprobs.is_some() && self.scored < self.prompt_len
    }

    /// Blocks that it may take from the cache: not that of its last token, whose logits it needs, nor
    /// those of prompt positions that are to be scored.
    pub(super) fn readable_blocks(&self) -> usize {
        let known = self.tokens.len().saturating_sub(1);
        let unread = if self.is_scoring() { self.scored.saturating_sub(1) } else { known };
        unread.min(known) / BLOCK_TOKENS
    }

    /// What the model needs to know of `chunk` from position `start`.
    pub(super) fn slice(&self, start: usize, chunk: Chunk) -> Slice<'_> {
        let drafted = self.drafter.tokens();
        let is_draft = chunk.drafts > 0;
        Slice {
            tokens: if is_draft { drafted } else { &self.tokens[start..start + chunk.tokens] },
            start,
            blocks: &self.blocks,
            logits: chunk.logits,
        }
    }

    /// The largest part in a step that takes at most `tokens` tokens and `rows` rows of logits.
    pub(super) fn next_chunk(&self, tokens: usize, rows: usize) -> Option<Chunk> {
        if self.is_scoring() {
            return self.next_scored_chunk(tokens, rows);
        }
        let mut tokens = tokens.min(self.pending());
        let mut chunk = Chunk::silent(tokens);
        if tokens == self.pending() {
            if self.is_full() {
                chunk.events = 1;
            } else if rows > 0 {
                chunk = Chunk { tokens, drafts: 0, logits: LogitRows::Last, events: 2 };
            } else {
                // All but the token that would sample: that one waits for a row.
                tokens -= 1;
                chunk.tokens = tokens;
            }
        }
        (tokens > 0).then_some(chunk)
    }

    /// Adds drafts to a chunk that samples, `most` at most: as many as need no other block, and no more
    /// than may be said. What the constraint forces is a draft that cannot fail; only where nothing
    /// is forced is it looked up, and only if `looks_up`.
    pub(super) fn speculate(&mut self, chunk: &mut Chunk, most: usize, looks_up: bool) {
        if chunk.tokens != 1 || chunk.logits != LogitRows::Last {
            return;
        }
        let len = self.tokens.len();
        let held = (self.blocks.len() * BLOCK_TOKENS).saturating_sub(len);
        let most = most.min(held).min(self.limit.saturating_sub(len + 1));
        let drafts = if !self.forced.is_empty() {
            self.drafter.force(&self.tokens, &self.forced[..most.min(self.forced.len())])
        } else if looks_up {
            self.drafter.draft(&self.tokens, most)
        } else {
            0
        };
        if drafts > 0 {
            let (tokens, events) = (1 + drafts, chunk.events + drafts);
            // Nothing is asked of the rows in which nothing is chosen.
            let silent = !self.forced.is_empty() && self.sampling.logprobs.is_none();
            let logits = if silent { LogitRows::Last } else { LogitRows::All };
            *chunk = Chunk { tokens, drafts, logits, events };
        }
    }

    /// Tokens drafted behind the last one, in a chunk that has drafts.
    pub(super) fn drafted(&self, chunk: Chunk) -> &[TokenId] {
        if chunk.drafts > 0 { &self.drafter.tokens()[1..] } else { &[] }
    }

    /// The logits of `chunk` from position `start` will yield the next token.
    pub(super) fn samples(&self, start: usize, chunk: Chunk) -> bool {
        let known = start + chunk.tokens - chunk.drafts == self.tokens.len();
        known && chunk.logit_rows() > 0 && !self.is_full()
    }

    /// The row of position p tells the log-probabilities of position p + 1, and that of the prompt's
    /// last position yields the first token.
    fn next_scored_chunk(&self, tokens: usize, rows: usize) -> Option<Chunk> {
        let first_row = self.scored.saturating_sub(1);
        if self.computed < first_row {
            let tokens = tokens.min(first_row - self.computed);
            return (tokens > 0).then_some(Chunk::silent(tokens));
        }
        let tokens = tokens.min(rows).min(self.pending());
        let ends = tokens == self.pending();
        let events = 1 + if ends { 2 } else { 0 };
        (tokens > 0).then_some(Chunk { tokens, drafts: 0, logits: LogitRows::All, events })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::engine) fn choice(prompt: usize, new: u32, sampling: Sampling) -> Choice {
        Choice {
            prompt: (0..prompt as u32).collect(),
            max_new_tokens: new,
            sampling: Arc::new(sampling),
            seed: 0,
            sample: 0,
            stop: None,
            constraint: None,
        }
    }

    fn sequence(prompt: usize, new: u32, sampling: Sampling) -> Sequence {
        Sequence::new(0, RequestId(0), 0, choice(prompt, new, sampling), 1000)
    }

    #[test]
    fn a_prompt_samples_only_at_its_end() {
        let mut s = sequence(10, 5, Sampling::default());
        let part = Chunk { tokens: 4, drafts: 0, logits: LogitRows::None, events: 0 };
        assert_eq!(s.next_chunk(4, 1), Some(part));
        s.computed = 8;
        let end = Chunk { tokens: 2, drafts: 0, logits: LogitRows::Last, events: 2 };
        assert_eq!(s.next_chunk(4, 1), Some(end));
        assert_eq!(s.next_chunk(4, 0), Some(Chunk { tokens: 1, ..part }));
        s.computed = 9;
        assert_eq!(s.next_chunk(4, 0), None);
    }

    #[test]
    fn a_scored_prompt_asks_for_its_rows_once() {
        let sampling = Sampling { prompt_logprobs: Some(0), ..Sampling::default() };
        let mut s = sequence(10, 5, sampling);
        assert_eq!(s.next_chunk(6, 4).map(|c| (c.tokens, c.logits)), Some((4, LogitRows::All)));
        // Preempted after five positions were sent: rows 0..=3 are known.
        s.scored = 5;
        assert_eq!(s.next_chunk(6, 4).map(|c| (c.tokens, c.logits)), Some((4, LogitRows::None)));
        s.computed = 4;
        let end = Chunk { tokens: 6, drafts: 0, logits: LogitRows::All, events: 3 };
        assert_eq!(s.next_chunk(9, 9), Some(end));
    }

    #[test]
    fn the_context_bounds_what_is_generated() {
        let long = choice(10, 5000, Sampling::default());
        assert_eq!(tokens_at_most(&long, 100), 99);
        let mut s = Sequence::new(0, RequestId(0), 0, long, 12);
        s.tokens.push(0);
        assert!(!s.is_full());
        s.tokens.push(0);
        assert!(s.is_full());
        assert_eq!(tokens_at_most(&choice(10, 0, Sampling::default()), 100), 10);
        assert_eq!(tokens_at_most(&choice(10, 1, Sampling::default()), 100), 10);
    }
}
