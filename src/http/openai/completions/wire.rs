//! How completions write their choices: text, and log-probabilities as four arrays.

use std::sync::Arc;

use super::types::{ChoiceBody, LogprobsBody, OBJECT, TopLogprobs};
use crate::engine::message::{LOGPROB_MIN, Logprobs, TokenId};
use crate::http::openai::generation::answer::{Wire, reason};
use crate::http::openai::generation::assemble::{Delta, Rules, Scored};
use crate::http::openai::generation::extras::Extras;

/// Choices in the form of completions; chunks have the same.
#[derive(Debug)]
pub struct Completions {
    pub rules: Arc<Rules>,
}

impl Wire for Completions {
    type Choice = ChoiceBody;

    const OBJECTS: (&'static str, &'static str) = (OBJECT, OBJECT);

    fn choice(&mut self, index: u32, mut all: Delta) -> ChoiceBody {
        let rules = &self.rules;
        let extras = Extras::take(rules, &mut all);
        ChoiceBody {
            text: all.text,
            index,
            logprobs: rules.logprobs.map(|_| logprobs(rules, all.scored)),
            finish_reason: all.finish.map(reason),
            extras,
        }
    }

    fn chunks(&mut self, index: u32, delta: Delta) -> Vec<ChoiceBody> {
        if delta.is_empty() {
            return Vec::new();
        }
        let mut choice = self.choice(index, delta);
        choice.logprobs = choice.logprobs.filter(|l| !l.tokens.is_empty());
        choice.extras.prompt_logprobs = choice.extras.prompt_logprobs.filter(|s| !s.is_empty());
        vec![choice]
    }

    fn finish(choice: &ChoiceBody) -> (u32, Option<&'static str>) {
        (choice.index, choice.finish_reason)
    }
}

fn logprobs(rules: &Rules, scored: Vec<Scored>) -> LogprobsBody {
    let mut body = LogprobsBody::default();
    for Scored { token, offset, logprobs } in scored {
        body.tokens.push(rules.label(token));
        body.token_logprobs.push(logprobs.as_ref().map(|l| l.own.max(LOGPROB_MIN)));
        body.top_logprobs.push(logprobs.map(|l| top(rules, token, &l)));
        body.text_offset.push(offset);
    }
    body
}

/// The most probable tokens at one position, with `own` always among them.
fn top(rules: &Rules, token: TokenId, logprobs: &Logprobs) -> TopLogprobs {
    let mut top: Vec<(String, f32)> = Vec::with_capacity(logprobs.top.len() + 1);
    let own_label = rules.label(token);
    for &(id, logprob) in &logprobs.top {
        let label = if id == token { own_label.clone() } else { rules.label(id) };
        // The same bits as `token_logprobs` has: evaluation harnesses compare them with ==.
        let value = if id == token { logprobs.own } else { logprob };
        top.push((label, value.max(LOGPROB_MIN)));
    }
    if !logprobs.top.iter().any(|&(id, _)| id == token) {
        top.push((own_label, logprobs.own.max(LOGPROB_MIN)));
    }
    TopLogprobs(top)
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
