//! From the engine's events to the text and log-probabilities of each choice.

use std::sync::Arc;

use super::types::{LogprobsBody, TopLogprobs};
use crate::engine::message::{FinishReason, LOGPROB_MIN, Logprobs, TokenEvent, TokenId};
use crate::text::{Detokenizer, StopSet, Text, TextStream};

/// How the answer's text is made: the same for all choices of a request.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub text: Text,
    pub stops: Option<StopSet>,
    pub logprobs: bool,
    /// Tokens read `token_id:N`.
    pub tokens_as_ids: bool,
    pub min_tokens: u32,
}

impl Rules {
    fn label(&self, token: TokenId) -> String {
        if self.tokens_as_ids {
            return format!("token_id:{token}");
        }
        self.text.token_label(token)
    }

    /// The most probable tokens at one position, with `own` always among them.
    fn top(&self, token: TokenId, logprobs: &Logprobs) -> TopLogprobs {
        let mut top: Vec<(String, f32)> = Vec::with_capacity(logprobs.top.len() + 1);
        let own_label = self.label(token);
        for &(id, logprob) in &logprobs.top {
            let label = if id == token { own_label.clone() } else { self.label(id) };
            // The same bits as `token_logprobs` has: evaluation harnesses compare them with ==.
            let value = if id == token { logprobs.own } else { logprob };
            top.push((label, value.max(LOGPROB_MIN)));
        }
        if !logprobs.top.iter().any(|&(id, _)| id == token) {
            top.push((own_label, logprobs.own.max(LOGPROB_MIN)));
        }
        TopLogprobs(top)
    }

    fn push(&self, body: &mut LogprobsBody, at: (TokenId, usize), logprobs: Option<&Logprobs>) {
        let (token, offset) = at;
        body.tokens.push(self.label(token));
        body.token_logprobs.push(logprobs.map(|l| l.own.max(LOGPROB_MIN)));
        body.top_logprobs.push(logprobs.map(|l| self.top(token, l)));
        body.text_offset.push(offset);
    }
}

/// A prompt as it is sent back in front of the completion.
#[derive(Debug)]
pub(super) struct Echo {
    pub ids: Arc<[TokenId]>,
    /// Without a last character that the completion may make whole.
    pub text: String,
    /// Where each token's text begins, in Unicode scalar values.
    pub offsets: Vec<usize>,
    /// Behind [`Self::text`].
    end: Detokenizer,
}

impl Echo {
    /// `added_bos`: the first token was put in front by us, and is no part of what the client sent.
    pub(super) fn new(text: &Text, ids: Arc<[TokenId]>, added_bos: bool) -> Self {
        let sent = &ids[usize::from(added_bos).min(ids.len())..];
        let (decoded, offsets, end) = text.decode_with_offsets(sent, false);
        let mut all = vec![0; ids.len() - sent.len()];
        all.extend(offsets);
        Self { ids, text: decoded, offsets: all, end }
    }

    /// What makes text of generated tokens, behind this prompt where it is sent back: they may go on
    /// with its last character.
    pub(super) fn detokenizer(echo: Option<&Self>) -> Detokenizer {
        echo.map_or_else(|| Detokenizer::new(true), |echo| echo.end.go_on(true))
    }
}

/// What one event adds to a choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Delta {
    pub text: String,
    pub logprobs: LogprobsBody,
    pub finish: Option<FinishReason>,
}

impl Delta {
    /// Nothing that a client needs a chunk for.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.is_empty() && self.finish.is_none()
    }

    /// This delta and the one after it, as one.
    pub(super) fn append(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.logprobs.append(next.logprobs);
        self.finish = self.finish.or(next.finish);
    }
}

/// One choice as it grows.
#[derive(Debug)]
pub(super) struct ChoiceState {
    rules: Arc<Rules>,
    stream: TextStream,
    echo: Option<Arc<Echo>>,
    /// Prompt positions and bytes of the prompt's text that were sent back.
    echoed: (usize, usize),
    pub generated: u32,
}

impl ChoiceState {
    pub(super) fn new(rules: Arc<Rules>, echo: Option<Arc<Echo>>) -> Self {
        let detokenizer = Echo::detokenizer(echo.as_deref());
        let stream = TextStream::new(&rules.text, rules.stops.as_ref(), detokenizer);
        Self { rules, stream, echo, echoed: (0, 0), generated: 0 }
    }

    /// The next positions of a prompt that is scored.
    pub(super) fn prompt(&mut self, logprobs: &[Option<Logprobs>]) -> Delta {
        let mut delta = Delta::default();
        let Some(echo) = self.echo.clone() else { return delta };
        let from = self.echoed.0;
        let to = (from + logprobs.len()).min(echo.ids.len());
        for (position, logprobs) in (from..to).zip(logprobs) {
            let at = (echo.ids[position], echo.offsets[position]);
            self.rules.push(&mut delta.logprobs, at, logprobs.as_ref());
        }
        delta.text = self.echo_until(&echo, to);
        delta
    }

    /// The prompt's text up to the token at `position`, from where it was left.
    fn echo_until(&mut self, echo: &Echo, position: usize) -> String {
        let (seen, byte) = self.echoed;
        let rest = &echo.text[byte..];
        let start = echo.offsets.get(seen).copied().unwrap_or(echo.end.chars());
        let piece = match echo.offsets.get(position) {
            None => rest,
            Some(end) => {
                let chars = end.saturating_sub(start);
                let end = rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at);
                &rest[..end]
            }
        };
        self.echoed = (position.max(seen), byte + piece.len());
        piece.to_owned()
    }

    /// What is left of the prompt's text, before anything generated.
    fn rest_of_echo(&mut self) -> String {
        match self.echo.clone() {
            Some(echo) if self.echoed.1 < echo.text.len() => self.echo_until(&echo, echo.ids.len()),
            _ => String::new(),
        }
    }

    /// A generated token.
    pub(super) fn token(&mut self, event: &TokenEvent) -> Delta {
        let mut delta = Delta { text: self.rest_of_echo(), ..Delta::default() };
        let offset = if event.is_end {
            self.stream.offset()
        } else {
            // As the engine counts: the token that makes it `min_tokens` may complete a stop string.
            let may_stop = self.generated + 1 >= self.rules.min_tokens;
            let piece = self.stream.push(event.token, may_stop);
            delta.text.push_str(&piece.text);
            piece.offset
        };
        self.generated += 1;
        if self.rules.logprobs {
            let at = (event.token, offset);
            self.rules.push(&mut delta.logprobs, at, event.logprobs.as_ref());
        }
        delta
    }

    /// The end of the choice.
    pub(super) fn finish(&mut self, reason: FinishReason) -> Delta {
        let mut text = self.rest_of_echo();
        text.push_str(&self.stream.finish());
        Delta { text, finish: Some(reason), ..Delta::default() }
    }
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
