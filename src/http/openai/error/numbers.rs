//! The limits that errors tell in numbers.

use std::time::Duration;

/// The four numbers of a request that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContextLength {
    /// What there is, in tokens.
    pub limit: usize,
    /// It is the KV cache, not the model's context, that is too small.
    pub by_cache: bool,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// `prompt` or `messages`.
    pub param: &'static str,
}

/// A limit of a key that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub what: Limited,
    pub limit: u64,
    /// When it may be tried again; `None`: never, the request alone is more than the whole limit.
    pub retry_after: Option<Duration>,
}

/// What keys are limited in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    Requests,
    Tokens,
    Concurrency,
}

impl Limited {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests per minute (rpm)",
            Self::Tokens => "tokens per minute (tpm)",
            Self::Concurrency => "requests at one time (concurrency)",
        }
    }
}

impl ContextLength {
    pub(super) fn message(&self) -> String {
        let Self { limit, prompt_tokens: prompt, completion_tokens: completion, .. } = *self;
        let sum = prompt.saturating_add(completion);
        let what = if self.by_cache {
            format!("This server's KV cache holds {limit} tokens")
        } else {
            format!("This model's maximum context length is {limit} tokens")
        };
        format!(
            "{what}, however you requested {sum} tokens ({prompt} in your prompt; {completion} \
            for the completion). Please reduce your prompt; or completion length."
        )
    }
}

impl RateLimit {
    pub(super) fn message(&self) -> String {
        let (limit, name) = (self.limit, self.what.name());
        match self.retry_after {
            // The words that clients look for in OpenAI's message.
            Some(wait) => format!(
                "Rate limit reached for your key: {limit} {name}. Please try again in {:.1}s.",
                wait.as_secs_f64().max(0.1)
            ),
            None => format!("This request alone is over the limit of your key: {limit} {name}."),
        }
    }
}
