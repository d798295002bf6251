//! What the engine is told and what it answers: two closed enums, and the types inside them.
//!
//! Nothing here is text or JSON. `http` builds a [`Submission`] only from what its validation produced.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::admission::Accepted;
use super::constraint::Constraint;

/// A token of the model's vocabulary.
pub type TokenId = u32;

/// Chosen by the submitter, unique for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Whose request it is, for fairness and cache isolation: a small number per API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tenant(pub u32);

/// A digest of what a client wants its prefixes kept apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSalt(pub [u8; 32]);

/// Requests of one namespace may share what was computed for their prefixes; no others do, so that
/// the time an answer takes tells nobody what another tenant asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespace {
    pub tenant: Tenant,
    pub salt: Option<CacheSalt>,
}

/// Lower is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Priority {
    /// Among the tenant's own requests; it wears off with waiting.
    pub request: i32,
    /// Among tenants: each point halves the tenant's share of what there is, or below 0 doubles it.
    /// Within [`TENANT_PRIORITY_MAX`].
    pub tenant: i32,
}

/// Priorities of tenants lie between this and its negative.
pub const TENANT_PRIORITY_MAX: i32 = 8;

/// What the engine thread can be told.
#[derive(Debug)]
pub enum Command {
    Submit(Accepted),
    /// The client left: free everything of this request before the next step.
    Abort(RequestId),
    /// Refuse new work, finish what is running, then stop the thread.
    Drain,
    /// Fail what is still there with [`FailureKind::ShuttingDown`], then stop the thread.
    Stop,
}

/// One request: some choices (prompts times n) that live and end together.
#[derive(Debug)]
pub struct Submission {
    pub id: RequestId,
    pub namespace: Namespace,
    pub priority: Priority,
    /// At least one.
    pub choices: Vec<Choice>,
    /// Bounded. The engine never waits on it: a full channel pauses the request.
    pub events: mpsc::Sender<Event>,
}

/// One sequence to generate.
#[derive(Debug)]
pub struct Choice {
    /// At least one token, all below the vocabulary size.
    pub prompt: Arc<[TokenId]>,
    /// New tokens at most; 0 only scores the prompt.
    pub max_new_tokens: u32,
    pub sampling: Arc<Sampling>,
    /// Random numbers come from `(seed, sample, token index)`.
    pub seed: u64,
    /// Which of the n samples of its prompt this is.
    pub sample: u32,
    /// Watches for stop strings; absent if the request has none.
    pub stop: Option<Box<dyn StopWatch>>,
    /// Keeps the answer within a grammar; absent if anything may be said.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// Decides after each token whether the text so far contains a stop string. Implemented in `text`;
/// the engine knows nothing of strings. Deterministic, and told every generated token in order.
pub trait StopWatch: Send + std::fmt::Debug {
    fn is_stop(&mut self, token: TokenId) -> bool;
}

/// How tokens are chosen. All values finite and within the bounds of `validate`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Below 1e-5: greedy.
    pub temperature: f32,
    /// 0..=1; 0 keeps the most probable token alone.
    pub top_p: f32,
    /// 0: off.
    pub top_k: u32,
    /// 0..=1; 0: off.
    pub min_p: f32,
    /// Over generated tokens.
    pub frequency_penalty: f32,
    /// Over generated tokens.
    pub presence_penalty: f32,
    /// Over prompt and generated tokens; 1: off.
    pub repetition_penalty: f32,
    pub logit_bias: Vec<(TokenId, f32)>,
    /// End tokens and stop strings do nothing before this many tokens, unless a constraint leaves
    /// nothing but the end.
    pub min_tokens: u32,
    /// Go on past the model's end tokens. With a constraint: as long as it leaves anything else.
    pub ignore_end: bool,
    /// End tokens of the request's own, which nothing ignores.
    pub stop_tokens: Vec<TokenId>,
    /// Top log-probabilities to report for each generated token; `Some(0)`: the token's own only.
    pub logprobs: Option<u32>,
    /// The same for each prompt token.
    pub prompt_logprobs: Option<u32>,
}

impl Sampling {
    /// Whether `token` ends an answer, `end_tokens` being the model's.
    pub fn ends(&self, token: TokenId, end_tokens: &[TokenId]) -> bool {
        (!self.ignore_end && end_tokens.contains(&token)) || self.stop_tokens.contains(&token)
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            min_tokens: 0,
            ignore_end: false,
            stop_tokens: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}

/// The lowest log-probability that is reported, far below any that a softmax yields: JSON has no
/// infinity, and vLLM puts this in its place.
pub const LOGPROB_MIN: f32 = -9999.0;

/// Log-probabilities at one position, from the untouched logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// Of the token that stands at this position.
    pub own: f32,
    /// Its place in the order of the whole vocabulary, from 1 on, ties by lowest id.
    pub rank: u32,
    /// Of the most probable tokens, highest first, ties by lowest id; as many as asked for.
    pub top: Vec<(TokenId, f32)>,
}

impl Logprobs {
    /// With the first `most` alternatives.
    #[must_use]
    pub fn best(&self, most: u32) -> Self {
        let top = self.top[..self.top.len().min(most as usize)].to_vec();
        Self { top, ..*self }
    }
}

/// What the engine answers. Per choice: `Prompt*`, then `Token*`, then one `ChoiceFinished`; per
/// request, after all of that, exactly one of `Finished` and `Failed`. An aborted request's channel
/// is closed and gets nothing.
#[derive(Debug)]
pub enum Event {
    /// The next prompt positions of a choice that asked for `prompt_logprobs`; position 0 is `None`.
    Prompt {
        choice: u32,
        logprobs: Vec<Option<Logprobs>>,
    },
    Token(TokenEvent),
    ChoiceFinished {
        choice: u32,
        reason: FinishReason,
    },
    /// The end of a request that succeeded.
    Finished(Summary),
    /// The end of a request that did not.
    Failed(FailureKind),
}

/// One generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// Index into [`Submission::choices`].
    pub choice: u32,
    pub token: TokenId,
    pub logprobs: Option<Logprobs>,
    /// It is an end token that ends the answer: counted, but not part of the text.
    pub is_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token, a stop string, or a constraint that is fulfilled and allows no more.
    Stop,
    /// `max_new_tokens`, or the end of the context.
    Length,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The step panicked, or its logits were not finite.
    Step,
    /// The constraint could not go on.
    Constraint,
    /// The drain time ended first.
    ShuttingDown,
    /// The client took no event for too long.
    ClientStalled,
}

/// Times and counts of a finished request, for metrics and usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Submission to the first step that held one of its tokens.
    pub queued: Duration,
    /// First step to the first generated token.
    pub prefill: Duration,
    /// First generated token to the last.
    pub decode: Duration,
    /// Prompt tokens taken from the prefix cache, for n samples those of the first.
    pub cached_tokens: u32,
    pub preemptions: u32,
}
