//! From the engine's events to the text and log-probabilities of each choice.

use std::sync::Arc;

use crate::engine::message::{FinishReason, Logprobs, TokenEvent, TokenId};
use crate::text::{Detokenizer, StopSet, Text, TextStream};

/// How the answer's text is made: the same for all choices of a request.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the wire format")]
pub struct Rules {
    pub text: Text,
    pub stops: Option<StopSet>,
    /// The token that ended an answer is part of its text.
    pub shows_stop: bool,
    /// Special tokens have no text.
    pub skip_special: bool,
    /// Alternatives to report for each token; `Some(0)`: its own log-probability only.
    pub logprobs: Option<u32>,
    /// The same for each prompt token, whether or not it is echoed.
    pub prompt_logprobs: Option<u32>,
    /// Tokens read `token_id:N`.
    pub tokens_as_ids: bool,
    pub return_token_ids: bool,
    pub min_tokens: u32,
}

impl Rules {
    /// Of a text without stop strings, about which nothing but the text is told.
    pub fn plain(text: Text) -> Self {
        Self {
            text,
            stops: None,
            shows_stop: false,
            skip_special: true,
            logprobs: None,
            prompt_logprobs: None,
            tokens_as_ids: false,
            return_token_ids: false,
            min_tokens: 0,
        }
    }
}

impl Rules {
    /// What stands for a token where log-probabilities are told.
    pub fn label(&self, token: TokenId) -> String {
        if self.tokens_as_ids {
            return format!("token_id:{token}");
        }
        self.text.token_label(token)
    }
}

/// A prompt as it is sent back in front of the completion.
#[derive(Debug)]
pub struct Echo {
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
    pub fn new(text: &Text, ids: Arc<[TokenId]>, added_bos: bool) -> Self {
        let sent = &ids[usize::from(added_bos).min(ids.len())..];
        let (decoded, offsets, end) = text.decode_with_offsets(sent, false);
        let mut all = vec![0; ids.len() - sent.len()];
        all.extend(offsets);
        Self { ids, text: decoded, offsets: all, end }
    }

    /// What makes text of generated tokens, behind this prompt where it is sent back: they may go on
    /// with its last character.
    pub fn detokenizer(echo: Option<&Self>, skip_special: bool) -> Detokenizer {
        echo.map_or_else(|| Detokenizer::new(skip_special), |echo| echo.end.go_on(skip_special))
    }
}

/// A token whose log-probabilities were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub token: TokenId,
    /// Where its text begins, in Unicode scalar values from the start of the text that is returned.
    pub offset: usize,
    /// Absent for the first token of a prompt, before which nothing stands.
    pub logprobs: Option<Logprobs>,
}

/// The next positions of a prompt.
pub type PromptLogprobs = Vec<(TokenId, Option<Logprobs>)>;

/// What one event adds to a choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    pub text: String,
    /// Empty unless log-probabilities were asked for.
    pub scored: Vec<Scored>,
    /// Empty unless ids were asked for, like the next two.
    pub token_ids: Vec<TokenId>,
    /// With the first delta of a choice.
    pub prompt_token_ids: Option<Arc<[TokenId]>>,
    pub prompt_logprobs: PromptLogprobs,
    pub finish: Option<FinishReason>,
}

impl Delta {
    /// Nothing that a client needs a chunk for.
    pub fn is_empty(&self) -> bool {
        let tells_tokens = !self.scored.is_empty()
            || !self.token_ids.is_empty()
            || self.prompt_token_ids.is_some()
            || !self.prompt_logprobs.is_empty();
        self.text.is_empty() && !tells_tokens && self.finish.is_none()
    }

    /// This delta and the one after it, as one.
    pub fn append(&mut self, mut next: Self) {
        self.text.push_str(&next.text);
        self.scored.append(&mut next.scored);
        self.token_ids.append(&mut next.token_ids);
        self.prompt_token_ids = self.prompt_token_ids.take().or(next.prompt_token_ids);
        self.prompt_logprobs.append(&mut next.prompt_logprobs);
        self.finish = self.finish.or(next.finish);
    }
}

/// One choice as it grows.
#[derive(Debug)]
pub struct ChoiceState {
    rules: Arc<Rules>,
    stream: TextStream,
    prompt: Arc<[TokenId]>,
    /// Prompt positions that were scored.
    scored: usize,
    echo: Option<Arc<Echo>>,
    /// Prompt positions and bytes of the prompt's text that were sent back.
    echoed: (usize, usize),
    /// What is told of the prompt once was told.
    has_begun: bool,
    generated: u32,
    /// Sum of the log-probabilities of what was generated, where they were asked for.
    logprob: f64,
}

impl ChoiceState {
    pub fn new(rules: Arc<Rules>, prompt: Arc<[TokenId]>, echo: Option<Arc<Echo>>) -> Self {
        let detokenizer = Echo::detokenizer(echo.as_deref(), rules.skip_special);
        let stream = TextStream::new(&rules.text, rules.stops.as_ref(), detokenizer);
        Self {
            rules,
            stream,
            prompt,
            scored: 0,
            echo,
            echoed: (0, 0),
            has_begun: false,
            generated: 0,
            logprob: 0.0,
        }
    }

    /// The next delta, with what is told only once.
    fn delta(&mut self, text: String) -> Delta {
        let first = !std::mem::replace(&mut self.has_begun, true);
        let tells_ids = first && self.rules.return_token_ids;
        let prompt_token_ids = tells_ids.then(|| self.prompt.clone());
        Delta { text, prompt_token_ids, ..Delta::default() }
    }

    /// The next positions of a prompt that is scored.
    pub fn prompt(&mut self, logprobs: Vec<Option<Logprobs>>) -> Delta {
        let from = self.scored;
        self.scored = (from + logprobs.len()).min(self.prompt.len());
        let text = match self.echo.clone() {
            Some(echo) => self.echo_until(&echo, self.scored),
            None => String::new(),
        };
        let mut delta = self.delta(text);
        for (position, logprobs) in (from..self.scored).zip(logprobs) {
            let token = self.prompt[position];
            if let (Some(echo), Some(most)) = (&self.echo, self.rules.logprobs) {
                let offset = echo.offsets[position];
                let logprobs = logprobs.as_ref().map(|l| l.best(most));
                delta.scored.push(Scored { token, offset, logprobs });
            }
            if let Some(most) = self.rules.prompt_logprobs {
                delta.prompt_logprobs.push((token, logprobs.map(|l| l.best(most))));
            }
        }
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
    pub fn token(&mut self, event: TokenEvent) -> Delta {
        let text = self.rest_of_echo();
        let mut delta = self.delta(text);
        let offset = if event.is_end && !self.rules.shows_stop {
            self.stream.offset()
        } else {
            // As the engine counts: the token that makes it `min_tokens` may complete a stop string.
            let may_stop = self.generated + 1 >= self.rules.min_tokens;
            let piece = self.stream.push(event.token, may_stop);
            delta.text.push_str(&piece.text);
            piece.offset
        };
        self.generated += 1;
        self.logprob += event.logprobs.as_ref().map_or(0.0, |l| f64::from(l.own));
        if self.rules.return_token_ids {
            delta.token_ids.push(event.token);
        }
        if self.rules.logprobs.is_some() {
            delta.scored.push(Scored { token: event.token, offset, logprobs: event.logprobs });
        }
        delta
    }

    /// The end of the choice.
    pub fn finish(&mut self, reason: FinishReason) -> Delta {
        let mut text = self.rest_of_echo();
        text.push_str(&self.stream.finish());
        Delta { finish: Some(reason), ..self.delta(text) }
    }

    /// How probable the model holds what was generated, in nats a token; nothing is as good as it gets.
    pub fn mean_logprob(&self) -> f64 {
        self.logprob / f64::from(self.generated.max(1))
    }
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
