//! One streamed answer: when its chunks came and what they said.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::fault::{Fault, Kind};
use super::sse::Parser;

/// What a complete answer took. The clock starts when its request is sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// To the first chunk with content.
    pub(super) ttft_s: f64,
    /// To the last chunk of the answer: content, or the reason for its end.
    pub(super) e2e_s: f64,
    /// Between chunks with content.
    pub(super) gaps_s: Vec<f64>,
    /// Chunks with content.
    pub(super) chunks: u64,
    pub(super) usage: Option<Usage>,
}

/// Tokens as the server counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    /// Of the prompt's, those that a cache of prefixes gave.
    pub(super) cached: Option<u64>,
}

impl Answer {
    /// As the server counts them, or one for each chunk if it does not tell.
    pub(super) fn output_tokens(&self) -> u64 {
        self.usage.map_or(self.chunks, |u| u.completion)
    }

    /// Time per output token after the first; an answer of one token has none.
    pub(super) fn tpot_s(&self) -> Option<f64> {
        let tokens = self.output_tokens();
        (tokens > 1).then(|| (self.e2e_s - self.ttft_s) / (tokens - 1) as f64)
    }

    /// The longest wait within the answer.
    pub(super) fn gap_max_s(&self) -> f64 {
        self.gaps_s.iter().copied().fold(0.0, f64::max)
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<RawUsage>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

impl Choice {
    fn has_content(&self) -> bool {
        let is_text = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
        is_text(&self.text)
            || self.delta.as_ref().is_some_and(|d| {
                [&d.content, &d.reasoning_content, &d.reasoning, &d.refusal]
                    .into_iter()
                    .any(is_text)
                    || d.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
            })
    }
}

/// An answer while it comes.
pub(super) struct Stream {
    sent: Instant,
    parser: Parser,
    seen: Seen,
}

/// What was in the events so far, with times since the request was sent.
#[derive(Default)]
struct Seen {
    first: Option<Duration>,
    last_content: Duration,
    last: Option<Duration>,
    gaps_s: Vec<f64>,
    chunks: u64,
    usage: Option<Usage>,
    is_finished: bool,
    fault: Option<Fault>,
}

impl Stream {
    /// Of a request that was sent at `sent`.
    pub(super) fn new(sent: Instant) -> Self {
        Self { sent, parser: Parser::default(), seen: Seen::default() }
    }

    /// Takes bytes that came at `now`. A fault in them ends the answer.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> Result<(), Fault> {
        let at = now.saturating_duration_since(self.sent);
        let seen = &mut self.seen;
        let taken = self.parser.take(bytes, |data| seen.event(data, at));
        if taken.is_err() {
            return Err(Fault::new(Kind::BadStream, "an event of the stream has no end"));
        }
        self.seen.fault.take().map_or(Ok(()), Err)
    }

    /// The end of the stream, as its protocol tells it.
    pub(super) fn finish(mut self, now: Instant) -> Result<Answer, Fault> {
        let at = now.saturating_duration_since(self.sent);
        let seen = &mut self.seen;
        self.parser.finish(|data| seen.event(data, at));
        self.seen.answer()
    }
}

impl Seen {
    fn event(&mut self, data: &[u8], at: Duration) {
        if self.fault.is_some() || data.is_empty() {
            return;
        }
        if data == b"[DONE]" {
            self.is_finished = true;
            return;
        }
        let chunk: Chunk = match serde_json::from_slice(data) {
            Ok(chunk) => chunk,
            Err(e) => {
                let data = String::from_utf8_lossy(data);
                let what = format!("an event of the stream is no chunk of an answer ({e}): {data}");
                self.fault = Some(Fault::new(Kind::BadStream, &what));
                return;
            }
        };
        if let Some(error) = chunk.error {
            self.fault = Some(Fault::new(Kind::ErrorEvent, &message_of(&error)));
            return;
        }
        if let Some(usage) = chunk.usage {
            self.usage = Some(Usage {
                prompt: usage.prompt_tokens,
                completion: usage.completion_tokens,
                cached: usage.prompt_tokens_details.and_then(|d| d.cached_tokens),
            });
        }
        let choices = chunk.choices.unwrap_or_default();
        if choices.is_empty() {
            return;
        }
        self.is_finished |= choices.iter().any(|c| c.finish_reason.is_some());
        self.last = Some(at);
        if choices.iter().any(Choice::has_content) {
            if self.first.is_some() {
                self.gaps_s.push(at.saturating_sub(self.last_content).as_secs_f64());
            }
            self.first.get_or_insert(at);
            self.last_content = at;
            self.chunks += 1;
        }
    }

    fn answer(self) -> Result<Answer, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if !self.is_finished {
            let what = "the stream ended before the answer did: neither a finish_reason nor [DONE]";
            return Err(Fault::new(Kind::Cut, what));
        }
        let Some(last) = self.last else {
            return Err(Fault::new(Kind::BadStream, "the stream had no chunk of an answer"));
        };
        // Tokens without text (an answer that ends at once): its end is when something came.
        let first = self.first.unwrap_or(last);
        Ok(Answer {
            ttft_s: first.as_secs_f64(),
            e2e_s: last.as_secs_f64(),
            gaps_s: self.gaps_s,
            chunks: self.chunks,
            usage: self.usage,
        })
    }
}

/// The message in an error body, of whichever of the usual forms.
pub(super) fn message_of(error: &Value) -> String {
    let inner = error.get("error").unwrap_or(error);
    let text = [inner.get("message"), error.get("message"), error.get("detail"), Some(inner)];
    let text = text.into_iter().flatten().find_map(Value::as_str);
    text.map_or_else(|| error.to_string(), str::to_owned)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
