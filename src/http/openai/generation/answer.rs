//! The answer to a request: whole, or as a stream of chunks.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Instant;

use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use super::assemble::{ChoiceState, Delta};
use super::fields::StreamOptions;
use super::prepare::Best;
use super::types::{AnswerBody, PromptTokensDetails, Usage, UsageField};
use crate::engine::message::{Event, FinishReason, Summary};
use crate::http::RequestMetrics;
use crate::http::openai::error::ApiError;
use crate::http::openai::running::{Next, Running};
use crate::http::openai::sse;

/// What all chunks of an answer repeat.
#[derive(Debug, Clone)]
pub struct Head {
    pub id: String,
    /// Wall clock, seconds since 1970.
    pub created: u64,
    /// As the client named it.
    pub model: String,
    pub fingerprint: String,
}

/// How an endpoint writes what its choices say.
pub trait Wire: std::fmt::Debug + Send + 'static {
    type Choice: Serialize;

    /// `object` of whole answers, and of chunks.
    const OBJECTS: (&'static str, &'static str);

    /// A whole choice.
    fn choice(&mut self, index: u32, all: Delta) -> Self::Choice;

    /// What a stream sends for the next delta of a choice: nothing, if no client needs a chunk for it.
    fn chunks(&mut self, index: u32, delta: Delta) -> Vec<Self::Choice>;

    /// Which choice it is, and why it ended, if it did.
    fn finish(choice: &Self::Choice) -> (u32, Option<&'static str>);
}

/// One answer in the making.
#[derive(Debug)]
pub struct Answer<W> {
    pub head: Head,
    pub wire: W,
    pub running: Running,
    pub states: Vec<ChoiceState>,
    /// Which of the states are the answer.
    pub best: Best,
    pub prompt_tokens: usize,
    /// So far, over all states.
    pub completion_tokens: usize,
    pub options: StreamOptions,
    /// Absent in tests.
    pub metrics: Option<RequestMetrics>,
}

impl<W: Wire> Answer<W> {
    /// What an event adds to which choice. `None` for the events that belong to no choice.
    fn delta(&mut self, event: Event) -> Option<(u32, Delta)> {
        let (index, delta) = match event {
            Event::Prompt { choice, logprobs } => {
                (choice, self.states.get_mut(choice as usize)?.prompt(logprobs))
            }
            Event::Token(token) => {
                let choice = token.choice;
                self.completion_tokens += 1;
                if let Some(metrics) = &mut self.metrics {
                    metrics.token(choice);
                }
                let delta = self.states.get_mut(choice as usize)?.token(token);
                if let Some(metrics) = &self.metrics {
                    metrics.detokenised();
                }
                (choice, delta)
            }
            Event::ChoiceFinished { choice, reason } => {
                (choice, self.states.get_mut(choice as usize)?.finish(reason))
            }
            Event::Finished(_) | Event::Failed(_) => return None,
        };
        Some((index, delta))
    }

    fn body<'a>(
        &'a self,
        object: &'static str,
        choices: &'a [W::Choice],
        usage: UsageField,
    ) -> AnswerBody<'a, W::Choice> {
        AnswerBody {
            id: &self.head.id,
            object,
            created: self.head.created,
            model: &self.head.model,
            choices,
            system_fingerprint: &self.head.fingerprint,
            usage,
        }
    }

    /// So far: every prompt once, and all that was generated, whether or not it is told.
    fn usage(&self) -> Usage {
        let (prompt_tokens, completion_tokens) = (self.prompt_tokens, self.completion_tokens);
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: None,
        }
    }

    fn ended(&self, summary: &Summary) -> Usage {
        let cached_tokens = summary.cached_tokens as usize;
        let details = PromptTokensDetails { cached_tokens };
        let usage = Usage { prompt_tokens_details: Some(details), ..self.usage() };
        if let Some(metrics) = &self.metrics {
            metrics.finished(summary, usage.prompt_tokens);
        }
        usage
    }

    /// Notes why a choice ends that is about to be sent.
    fn note_finish(&self, choice: &W::Choice) {
        if let (Some(metrics), (index, Some(reason))) = (&self.metrics, W::finish(choice)) {
            metrics.choice_finished(index, reason);
        }
    }

    /// Waits for the end and gives the whole answer as JSON.
    pub async fn collect(mut self) -> Result<String, ApiError> {
        let mut deltas: Vec<Delta> = self.states.iter().map(|_| Delta::default()).collect();
        let summary = loop {
            let Next::Event(event) = self.running.next().await? else { continue };
            if let Event::Finished(summary) = event {
                break summary;
            }
            if let Some((index, delta)) = self.delta(event) {
                deltas[index as usize].append(delta);
            }
        };
        let usage = self.ended(&summary);
        let deltas = best(deltas, &self.states, self.best).into_iter().zip(0..);
        let choices: Vec<W::Choice> =
            deltas.map(|(delta, index)| self.wire.choice(index, delta)).collect();
        for choice in &choices {
            self.note_finish(choice);
        }
        let body = self.body(W::OBJECTS.0, &choices, UsageField::Tokens(usage));
        serde_json::to_string(&body).map_err(|error| {
            tracing::error!(%error, "an answer does not serialise");
            ApiError::Internal
        })
    }

    /// Waits for the first event, or for as long as a client should wait without a sign of life, and
    /// only then answers 200: whatever goes wrong before is an error with a status of its own.
    pub async fn stream(mut self) -> Result<Response, ApiError> {
        let mut ready = VecDeque::new();
        let first = self.running.next().await?;
        let done = self.take(first, &mut ready)?;
        let answer = Some(self).filter(|_| !done);
        let chunks = Chunks { answer, ready, heard: Instant::now() };
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
        if let Some((index, mut delta)) = self.delta(event) {
            // A choice's end usually comes with its last token: one chunk for both.
            let end = self
                .running
                .next_if(|e| matches!(e, Event::ChoiceFinished { choice, .. } if *choice == index));
            if let Some((_, end)) = end.and_then(|end| self.delta(end)) {
                delta.append(end);
            }
            for choice in self.wire.chunks(index, delta) {
                self.note_finish(&choice);
                ready.push_back(self.chunk(&choice)?);
            }
        }
        Ok(false)
    }

    fn chunk(&self, choice: &W::Choice) -> Result<Bytes, ApiError> {
        let StreamOptions { include_usage, continuous_usage } = self.options;
        let usage = match (include_usage, continuous_usage) {
            (false, _) => UsageField::Absent,
            (true, false) => UsageField::Null,
            (true, true) => UsageField::Tokens(self.usage()),
        };
        let mut out = Vec::with_capacity(256);
        sse::event(&mut out, &self.body(W::OBJECTS.1, std::slice::from_ref(choice), usage))?;
        Ok(out.into())
    }

    /// Usage, if asked for, and `[DONE]`.
    fn last(&self, summary: &Summary) -> Result<Bytes, ApiError> {
        let usage = self.ended(summary);
        let mut out = Vec::new();
        if self.options.include_usage {
            sse::event(&mut out, &self.body(W::OBJECTS.1, &[], UsageField::Tokens(usage)))?;
        }
        out.extend_from_slice(sse::DONE);
        Ok(out.into())
    }
}

/// Of each prompt's candidates the most probable, best first; the earlier one of equals.
fn best(deltas: Vec<Delta>, states: &[ChoiceState], best: Best) -> Vec<Delta> {
    if best.n == best.of {
        return deltas;
    }
    let mut candidates: Vec<(Delta, f64)> =
        deltas.into_iter().zip(states.iter().map(ChoiceState::mean_logprob)).collect();
    let mut chosen = Vec::new();
    for group in candidates.chunks_mut(best.of as usize) {
        group.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let first = group.iter_mut().take(best.n as usize);
        chosen.extend(first.map(|(delta, _)| std::mem::take(delta)));
    }
    chosen
}

/// `finish_reason` on the wire.
pub fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// The rest of a stream, pulled by the connection as fast as the client reads: what it does not read
/// stays in the engine's bounded channel.
struct Chunks<W> {
    /// Absent once the last event was turned into bytes.
    answer: Option<Answer<W>>,
    ready: VecDeque<Bytes>,
    /// When the client got something last.
    heard: Instant,
}

impl<W: Wire> Chunks<W> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.heard = Instant::now();
                return Some((Ok(bytes), self));
            }
            let answer = self.answer.as_mut()?;
            let step = match answer.running.next().await {
                Ok(next) => answer.take(next, &mut self.ready),
                Err(error) => Err(error),
            };
            match step {
                // Tokens came, but what they say is held back.
                Ok(false)
                    if self.ready.is_empty() && self.heard.elapsed() >= answer.running.ping() =>
                {
                    self.ready.push_back(sse::PING);
                }
                Ok(false) => {}
                Ok(true) => self.answer = None,
                Err(error) => {
                    if let Some(metrics) = &answer.metrics {
                        metrics.failed(&error);
                    }
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
