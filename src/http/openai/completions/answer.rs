//! The answer to a completions request: whole, or as a stream of chunks.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::Response;
use bytes::Bytes;

use super::assemble::{ChoiceState, Delta};
use super::types::{ChoiceBody, Completion, OBJECT, PromptTokensDetails, Usage, UsageField};
use crate::engine::message::{Event, FinishReason, Summary};
use crate::http::RequestMetrics;
use crate::http::openai::error::ApiError;
use crate::http::openai::running::{Next, Running};
use crate::http::openai::sse;

/// What all chunks of an answer repeat.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub id: String,
    /// Wall clock, seconds since 1970.
    pub created: u64,
    /// As the client named it.
    pub model: String,
    pub fingerprint: String,
}

impl Head {
    fn completion<'a>(&'a self, choices: &'a [ChoiceBody], usage: UsageField) -> Completion<'a> {
        Completion {
            id: &self.id,
            object: OBJECT,
            created: self.created,
            model: &self.model,
            choices,
            system_fingerprint: &self.fingerprint,
            usage,
        }
    }
}

/// One answer in the making.
#[derive(Debug)]
pub(super) struct Answer {
    pub head: Head,
    pub running: Running,
    pub states: Vec<ChoiceState>,
    pub prompt_tokens: usize,
    /// Log-probabilities were asked for.
    pub logprobs: bool,
    /// A stream's last chunk carries usage.
    pub include_usage: bool,
    /// Absent in tests.
    pub metrics: Option<RequestMetrics>,
}

impl Answer {
    /// What an event adds to which choice. `None` for the events that belong to no choice.
    fn delta(&mut self, event: &Event) -> Option<(u32, Delta)> {
        let (index, delta) = match event {
            Event::Prompt { choice, logprobs } => {
                (*choice, self.states.get_mut(*choice as usize)?.prompt(logprobs))
            }
            Event::Token(token) => {
                if let Some(metrics) = &mut self.metrics {
                    metrics.token(token.choice);
                }
                (token.choice, self.states.get_mut(token.choice as usize)?.token(token))
            }
            Event::ChoiceFinished { choice, reason } => {
                (*choice, self.states.get_mut(*choice as usize)?.finish(*reason))
            }
            Event::Finished(_) | Event::Failed(_) => return None,
        };
        Some((index, delta))
    }

    fn body(&self, index: u32, delta: Delta) -> ChoiceBody {
        let bare = self.logprobs && !delta.logprobs.is_empty();
        ChoiceBody {
            text: delta.text,
            index,
            logprobs: bare.then_some(delta.logprobs),
            finish_reason: delta.finish.map(reason),
        }
    }

    fn usage(&self, summary: &Summary) -> Usage {
        let completion_tokens = self.states.iter().map(|s| s.generated as usize).sum();
        Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens,
            total_tokens: self.prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: summary.cached_tokens as usize,
            },
        }
    }

    fn ended(&mut self, summary: &Summary) -> Usage {
        let usage = self.usage(summary);
        if let Some(metrics) = self.metrics.take() {
            metrics.finished(summary, usage.prompt_tokens);
        }
        usage
    }

    /// Waits for the end and gives the whole answer as JSON.
    pub(super) async fn collect(mut self) -> Result<String, ApiError> {
        let mut deltas: Vec<Delta> = self.states.iter().map(|_| Delta::default()).collect();
        let summary = loop {
            let Next::Event(event) = self.running.next().await? else { continue };
            if let Event::Finished(summary) = event {
                break summary;
            }
            if let Some((index, delta)) = self.delta(&event) {
                deltas[index as usize].append(delta);
            }
        };
        let usage = self.ended(&summary);
        let choices: Vec<ChoiceBody> = deltas
            .into_iter()
            .enumerate()
            .map(|(index, delta)| {
                let mut body = self.body(index as u32, delta);
                if self.logprobs {
                    body.logprobs.get_or_insert_default();
                }
                body
            })
            .collect();
        serde_json::to_string(&self.head.completion(&choices, UsageField::Tokens(usage))).map_err(
            |error| {
                tracing::error!(%error, "an answer does not serialise");
                ApiError::Internal
            },
        )
    }

    /// Waits for the first event, or for as long as a client should wait without a sign of life, and
    /// only then answers 200: whatever goes wrong before is an error with a status of its own.
    pub(super) async fn stream(mut self) -> Result<Response, ApiError> {
        let mut ready = VecDeque::new();
        let first = self.running.next().await?;
        let done = self.take(first, &mut ready)?;
        let chunks = Chunks { answer: Some(self).filter(|_| !done), ready };
        Ok(sse::response(futures_util::stream::unfold(chunks, Chunks::next)))
    }

    /// Turns what came into bytes for the client. True at the end.
    fn take(&mut self, next: Next, ready: &mut VecDeque<Bytes>) -> Result<bool, ApiError> {
        let event = match next {
            Next::Quiet => {
                ready.push_back(sse::PING);
                return Ok(false);
            }
            Next::Event(event) => event,
        };
        if let Event::Finished(summary) = event {
            ready.push_back(self.last(&summary)?);
            return Ok(true);
        }
        if let Some((index, mut delta)) = self.delta(&event) {
            // A choice's end usually comes with its last token: one chunk for both.
            let end = self
                .running
                .next_if(|e| matches!(e, Event::ChoiceFinished { choice, .. } if *choice == index));
            if let Some((_, end)) = end.and_then(|end| self.delta(&end)) {
                delta.append(end);
            }
            if !delta.is_empty() {
                ready.push_back(self.chunk(index, delta)?);
            }
        }
        Ok(false)
    }

    fn chunk(&self, index: u32, delta: Delta) -> Result<Bytes, ApiError> {
        let choice = [self.body(index, delta)];
        let usage = if self.include_usage { UsageField::Null } else { UsageField::Absent };
        let mut out = Vec::with_capacity(256);
        sse::event(&mut out, &self.head.completion(&choice, usage))?;
        Ok(out.into())
    }

    /// Usage, if asked for, and `[DONE]`.
    fn last(&mut self, summary: &Summary) -> Result<Bytes, ApiError> {
        let usage = self.ended(summary);
        let mut out = Vec::new();
        if self.include_usage {
            sse::event(&mut out, &self.head.completion(&[], UsageField::Tokens(usage)))?;
        }
        out.extend_from_slice(sse::DONE);
        Ok(out.into())
    }
}

/// `finish_reason` on the wire.
fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// The rest of a stream, pulled by the connection as fast as the client reads: what it does not read
/// stays in the engine's bounded channel.
struct Chunks {
    /// Absent once the last event was turned into bytes.
    answer: Option<Answer>,
    ready: VecDeque<Bytes>,
}

impl Chunks {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some((Ok(bytes), self));
            }
            let answer = self.answer.as_mut()?;
            let step = match answer.running.next().await {
                Ok(next) => answer.take(next, &mut self.ready),
                Err(error) => Err(error),
            };
            match step {
                Ok(false) => {}
                Ok(true) => self.answer = None,
                Err(error) => {
                    self.ready.push_back(sse::failure(&error));
                    self.answer = None;
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
