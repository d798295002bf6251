//! How a chat writes its choices: messages with texts and calls, and log-probabilities token by token.

use std::sync::Arc;

use super::calls::{self, CallParser, Part};
use super::types::{
    CallBody, CallDelta, ChoiceBody, ChunkBody, DeltaBody, FunctionBody, FunctionDelta,
    LogprobsBody, MessageBody, OBJECTS, TokenBody, TopBody, WholeBody,
};
use crate::engine::message::{FinishReason, LOGPROB_MIN, TokenId};
use crate::http::openai::generation::answer::{Wire, reason};
use crate::http::openai::generation::assemble::{Delta, Rules, Scored};
use crate::http::openai::generation::extras::Extras;

/// Choices in the form of chats.
#[derive(Debug)]
pub struct Chat {
    rules: Arc<Rules>,
    calls: Arc<calls::Rules>,
    /// Calls are called `function_call`.
    legacy: bool,
    /// What ids of calls begin with.
    id: u64,
    /// By index; of streams only.
    speakers: Vec<Speaker>,
}

/// One choice of a stream.
#[derive(Debug)]
struct Speaker {
    parser: CallParser,
    /// It was told whose message it is.
    has_begun: bool,
}

impl Chat {
    /// `id`: drawn at random, so that no two calls of a conversation have the same.
    pub fn new(
        rules: Arc<Rules>,
        calls: Arc<calls::Rules>,
        legacy: bool,
        (choices, id): (usize, u64),
    ) -> Self {
        let speaker = || Speaker { parser: CallParser::new(calls.clone()), has_begun: false };
        let speakers = (0..choices).map(|_| speaker()).collect();
        Self { rules, calls, legacy, id, speakers }
    }

    fn call_id(&self, choice: u32, call: usize) -> String {
        format!("call_{:016x}{choice:04x}{call:04x}", self.id)
    }

    /// Why it ended, in a chat's words. Who reads that there are calls executes them: one that a stop
    /// string has cut off is none to be executed.
    fn finish(&self, finish: FinishReason, has_called: bool) -> &'static str {
        match finish {
            FinishReason::Stop if has_called && self.legacy => "function_call",
            FinishReason::Stop if has_called => "tool_calls",
            finish => reason(finish),
        }
    }

    fn logprobs(&self, scored: Vec<Scored>) -> Option<LogprobsBody> {
        let told = |s: Scored| token(&self.rules, &s);
        (!scored.is_empty()).then(|| LogprobsBody {
            content: scored.into_iter().filter_map(told).collect(),
            refusal: None,
        })
    }

    fn message(&self, index: u32, parts: Vec<Part>) -> MessageBody {
        let mut content = String::new();
        let mut calls: Vec<CallBody> = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => content.push_str(&text),
                Part::Begin(name) => {
                    let function = FunctionBody { name, arguments: String::new() };
                    let id = self.call_id(index, calls.len());
                    calls.push(CallBody { id, r#type: "function", function });
                }
                Part::Arguments(more) => {
                    if let Some(call) = calls.last_mut() {
                        call.function.arguments.push_str(&more);
                    }
                }
            }
        }
        let only_calls = content.is_empty() && !calls.is_empty();
        let function_call = if self.legacy { calls.pop().map(|call| call.function) } else { None };
        MessageBody {
            role: "assistant",
            content: (!only_calls).then_some(content),
            refusal: None,
            tool_calls: calls,
            function_call,
        }
    }

    fn delta(&self, index: u32, call: usize, part: Part) -> DeltaBody {
        let (name, arguments) = match part {
            Part::Text(text) => return said(text),
            Part::Begin(name) => (Some(name), String::new()),
            Part::Arguments(more) => (None, more),
        };
        let is_new = name.is_some();
        let function = FunctionDelta { name, arguments };
        if self.legacy {
            return DeltaBody { function_call: Some(function), ..DeltaBody::default() };
        }
        let call = CallDelta {
            index: call,
            id: is_new.then(|| self.call_id(index, call)),
            r#type: is_new.then_some("function"),
            function,
        };
        DeltaBody { tool_calls: Some([call]), ..DeltaBody::default() }
    }

    /// The first chunk of a choice.
    fn first(&self) -> DeltaBody {
        let is_text = self.calls.form == calls::Form::Never;
        DeltaBody {
            role: Some("assistant"),
            content: Some(is_text.then(String::new)),
            refusal: Some(None),
            ..DeltaBody::default()
        }
    }
}

impl Wire for Chat {
    type Choice = ChoiceBody;

    const OBJECTS: (&'static str, &'static str) = OBJECTS;

    fn choice(&mut self, index: u32, mut all: Delta) -> ChoiceBody {
        let extras = Extras::take(&self.rules, &mut all);
        let mut parser = CallParser::new(self.calls.clone());
        let mut parts = parser.push(&all.text);
        parts.extend(parser.finish());
        let asked = self.rules.logprobs.is_some();
        let logprobs = asked.then(|| self.logprobs(all.scored).unwrap_or_default());
        ChoiceBody::Whole(WholeBody {
            index,
            message: self.message(index, parts),
            logprobs,
            finish_reason: all.finish.map(|finish| self.finish(finish, parser.has_called())),
            extras,
        })
    }

    fn chunks(&mut self, index: u32, mut delta: Delta) -> Vec<ChoiceBody> {
        let mut extras = Extras::take(&self.rules, &mut delta);
        extras.prompt_logprobs = extras.prompt_logprobs.filter(|scores| !scores.is_empty());
        extras.token_ids = extras.token_ids.filter(|ids| !ids.is_empty());
        let Some(speaker) = self.speakers.get_mut(index as usize) else { return Vec::new() };
        let is_first = !std::mem::replace(&mut speaker.has_begun, true);
        let mut call = speaker.parser.calls();
        let mut parts = speaker.parser.push(&delta.text);
        if delta.finish.is_some() {
            parts.extend(speaker.parser.finish());
        }
        let has_called = speaker.parser.has_called();
        let mut deltas: Vec<DeltaBody> = is_first.then(|| self.first()).into_iter().collect();
        for part in parts {
            call += usize::from(matches!(part, Part::Begin(_)));
            deltas.push(self.delta(index, call.saturating_sub(1), part));
        }
        let finish_reason = delta.finish.map(|finish| self.finish(finish, has_called));
        let logprobs = self.logprobs(delta.scored);
        // What is told beside the text needs a chunk even where the text is held back.
        let is_more = logprobs.is_some() || extras != Extras::default();
        if finish_reason.is_some() {
            deltas.push(DeltaBody::default());
        } else if deltas.len() == usize::from(is_first) && is_more {
            deltas.push(said(String::new()));
        }
        let chunk = |delta| ChunkBody {
            index,
            delta,
            logprobs: None,
            finish_reason: None,
            extras: Extras::default(),
        };
        let mut chunks: Vec<ChunkBody> = deltas.into_iter().map(chunk).collect();
        if let Some(chunk) = chunks.get_mut(usize::from(is_first)) {
            chunk.logprobs = logprobs;
            chunk.extras = extras;
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.finish_reason = finish_reason;
        }
        chunks.into_iter().map(ChoiceBody::Chunk).collect()
    }

    fn finish(choice: &ChoiceBody) -> (u32, Option<&'static str>) {
        match choice {
            ChoiceBody::Whole(whole) => (whole.index, whole.finish_reason),
            ChoiceBody::Chunk(chunk) => (chunk.index, chunk.finish_reason),
        }
    }
}

fn said(text: String) -> DeltaBody {
    DeltaBody { content: Some(Some(text)), ..DeltaBody::default() }
}

fn token(rules: &Rules, scored: &Scored) -> Option<TokenBody> {
    let logprobs = scored.logprobs.as_ref()?;
    let top = |&(token, logprob): &(TokenId, f32)| TopBody {
        token: rules.label(token),
        logprob: logprob.max(LOGPROB_MIN),
        bytes: rules.text.token_bytes(token).to_vec(),
    };
    Some(TokenBody {
        token: rules.label(scored.token),
        logprob: logprobs.own.max(LOGPROB_MIN),
        bytes: rules.text.token_bytes(scored.token).to_vec(),
        top_logprobs: logprobs.top.iter().map(top).collect(),
    })
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
