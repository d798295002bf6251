//! From a checked request to what the engine takes: prompts as tokens, a seed, one choice a sample.

use std::sync::Arc;

use super::assemble::{ChoiceState, Echo, Rules};
use super::validate::{Checked, DEFAULT_MAX_TOKENS, Prompts};
use crate::engine::message::{Choice, TokenId};
use crate::http::openai::error::{ApiError, ContextLength};
use crate::http::openai::{body, large};
use crate::text::{ChatMessage, ChatOptions, StopSet, TemplateError, Text};

/// What conversion needs to know of the server.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub text: Text,
    pub max_model_len: usize,
    /// Render text prompts as one user turn of the chat template, if the model has one.
    pub instruct: bool,
}

/// A request that is ready for the engine.
#[derive(Debug)]
pub(super) struct Prepared {
    /// By index: prompt times n, plus sample.
    pub choices: Vec<Choice>,
    pub states: Vec<ChoiceState>,
    /// Over all prompts, each once.
    pub prompt_tokens: usize,
    /// Of the choice that needs the most room: prompt and completion.
    pub longest: (usize, usize),
}

/// One prompt as tokens.
struct Tokens {
    ids: Arc<[TokenId]>,
    /// The first of them was put there by us.
    added_bos: bool,
}

/// Where a conversion runs, so that the async threads, which serve everybody, stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Aside,
    /// Aside, when its turn comes.
    InLine,
}

/// Tokenises, checks against the context, and deals out seeds and samples.
pub(super) async fn prepare(
    checked: Checked,
    setting: Setting,
    seed: u64,
) -> Result<Prepared, ApiError> {
    let place = place(&checked, &setting);
    let work = move || {
        let prompts = tokenise(&checked, &setting)?;
        assemble(&checked, &setting, &prompts, seed)
    };
    match place {
        Place::Here => work(),
        Place::Aside => body::blocking(work).await?,
        Place::InLine => large::run(work).await?,
    }
}

fn place(checked: &Checked, setting: &Setting) -> Place {
    let (bytes, renders): (usize, _) = match &checked.prompts {
        Prompts::Absent => (0, false),
        Prompts::Texts(texts) => (texts.iter().map(String::len).sum(), renders(checked, setting)),
        Prompts::Ids(lists) => (lists.iter().map(|ids| size_of_val(&ids[..])).sum(), false),
    };
    let several = checked.prompts.count() > 1;
    // A rendering takes a thread of its own, and may write far more than the prompt: many are large
    // work however short the prompts.
    if bytes > large::INLINE_MAX || (renders && several) {
        Place::InLine
    } else if renders || several {
        Place::Aside
    } else {
        Place::Here
    }
}

fn tokenise(checked: &Checked, setting: &Setting) -> Result<Vec<Tokens>, ApiError> {
    let given = |ids: Vec<TokenId>| Tokens { ids: ids.into(), added_bos: false };
    match &checked.prompts {
        Prompts::Absent => Ok(vec![given(vec![beginning(&setting.text)?])]),
        Prompts::Ids(lists) => Ok(lists.iter().cloned().map(given).collect()),
        Prompts::Texts(texts) => {
            texts.iter().map(|prompt| tokens_of(prompt, checked, setting)).collect()
        }
    }
}

fn tokens_of(prompt: &str, checked: &Checked, setting: &Setting) -> Result<Tokens, ApiError> {
    let tokens = match rendered(prompt, checked, setting)? {
        // Templates write BOS themselves.
        Some(chat) => {
            Tokens { ids: setting.text.encode(&chat, true, false).into(), added_bos: false }
        }
        None => raw(prompt, checked, &setting.text),
    };
    if tokens.ids.is_empty() {
        return Err(ApiError::invalid("The prompt must not be empty - 'prompt'", "prompt"));
    }
    Ok(tokens)
}

fn raw(prompt: &str, checked: &Checked, text: &Text) -> Tokens {
    let add_bos = checked.add_special_tokens && text.adds_bos();
    Tokens { ids: text.encode(prompt, true, add_bos).into(), added_bos: add_bos }
}

/// Whether text prompts become a user turn each: the name that was asked for is an
/// instruction-following model's. An echo must give back what was sent, so it stays raw.
fn renders(checked: &Checked, setting: &Setting) -> bool {
    setting.instruct && !checked.echo && setting.text.chat_template().is_some()
}

/// The prompt as one user turn, where it [`renders`].
fn rendered(
    prompt: &str,
    checked: &Checked,
    setting: &Setting,
) -> Result<Option<String>, ApiError> {
    if !renders(checked, setting) {
        return Ok(None);
    }
    let turn = [ChatMessage::new("user", prompt)];
    match setting.text.render_chat(&turn, &ChatOptions::default()) {
        Ok(chat) => Ok(Some(chat)),
        Err(TemplateError::Missing) => Ok(None),
        Err(error) => {
            tracing::error!(%error, "the chat template does not render one user turn");
            Err(ApiError::Internal)
        }
    }
}

/// What stands for an absent prompt: the document separator, else BOS, else an end token.
fn beginning(text: &Text) -> Result<TokenId, ApiError> {
    let separator = text.encode("<|endoftext|>", true, false);
    match separator[..] {
        [id] if text.is_special(id) => Some(id),
        _ => text.bos().or_else(|| text.end_tokens().first().copied()),
    }
    .ok_or_else(|| ApiError::invalid("A prompt is required - 'prompt'", "prompt"))
}

fn assemble(
    checked: &Checked,
    setting: &Setting,
    prompts: &[Tokens],
    seed: u64,
) -> Result<Prepared, ApiError> {
    let stops = stop_set(checked)?;
    let rules = Arc::new(Rules {
        text: setting.text.clone(),
        stops: stops.clone(),
        logprobs: checked.logprobs.is_some(),
        tokens_as_ids: checked.tokens_as_ids,
        min_tokens: checked.sampling.min_tokens,
    });
    let sampling = Arc::new(checked.sampling.clone());
    let mut prepared = Prepared {
        choices: Vec::with_capacity(prompts.len() * checked.n as usize),
        states: Vec::with_capacity(prompts.len() * checked.n as usize),
        prompt_tokens: prompts.iter().map(|p| p.ids.len()).sum(),
        longest: (0, 0),
    };
    for prompt in prompts {
        let max_new = room(checked.max_tokens, prompt.ids.len(), setting.max_model_len)?;
        if prompt.ids.len() + max_new > prepared.longest.0 + prepared.longest.1 {
            prepared.longest = (prompt.ids.len(), max_new);
        }
        let echo = checked
            .echo
            .then(|| Arc::new(Echo::new(&setting.text, prompt.ids.clone(), prompt.added_bos)));
        for sample in 0..checked.n {
            prepared.choices.push(Choice {
                prompt: prompt.ids.clone(),
                max_new_tokens: max_new as u32,
                sampling: sampling.clone(),
                seed,
                sample,
                stop: stops
                    .as_ref()
                    .map(|stops| stops.watch(&setting.text, Echo::detokenizer(echo.as_deref()))),
            });
            prepared.states.push(ChoiceState::new(rules.clone(), echo.clone()));
        }
    }
    Ok(prepared)
}

fn stop_set(checked: &Checked) -> Result<Option<StopSet>, ApiError> {
    if checked.stop.is_empty() {
        return Ok(None);
    }
    StopSet::new(&checked.stop)
        .map(Some)
        .map_err(|error| ApiError::invalid(format!("{error} - 'stop'"), "stop"))
}

/// New tokens that a prompt may get, within the context.
fn room(max_tokens: Option<usize>, prompt: usize, context: usize) -> Result<usize, ApiError> {
    let left = context.saturating_sub(prompt);
    let wanted = match max_tokens {
        Some(wanted) => wanted,
        None if left > 0 => DEFAULT_MAX_TOKENS.min(left),
        None => DEFAULT_MAX_TOKENS,
    };
    if prompt > context || wanted > left {
        return Err(ApiError::ContextLength(ContextLength {
            limit: context,
            by_cache: false,
            prompt_tokens: prompt,
            completion_tokens: wanted,
            param: "prompt",
        }));
    }
    Ok(wanted)
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
