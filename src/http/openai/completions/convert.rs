//! From a checked request to prompts as tokens, and on to what the engine takes.

use std::sync::Arc;

use super::validate::{Checked, DEFAULT_MAX_TOKENS, Prompts};
use crate::engine::message::TokenId;
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::prepare::{Plan, Prepared, Tokens};
use crate::http::openai::generation::rendering;
use crate::http::openai::{body, large};
use crate::text::grammar::Grammar;
use crate::text::{ChatMessage, ChatOptions, TemplateError, Text};

/// What conversion needs to know of the server.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub text: Text,
    pub grammar: Option<Arc<Grammar>>,
    pub max_model_len: usize,
    /// Render text prompts as one user turn of the chat template, if the model has one.
    pub instruct: bool,
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
    let work = move || prepare_here(checked, &setting, seed);
    match place {
        Place::Here => work(),
        Place::Aside => body::blocking(work).await?,
        Place::InLine => large::run(work).await?,
    }
}

/// [`prepare`] on this thread.
pub(super) fn prepare_here(
    mut checked: Checked,
    setting: &Setting,
    seed: u64,
) -> Result<Prepared, ApiError> {
    let prompts = tokenise(&checked, setting)?;
    if checked.suffix.is_some() && !checked.shared.sampling.ignore_end {
        checked.shared.sampling.stop_tokens.extend(setting.text.gap_ends());
    }
    let plan = Plan {
        shared: &checked.shared,
        text: &setting.text,
        grammar: setting.grammar.as_deref(),
        max_model_len: setting.max_model_len,
        max_tokens: (checked.max_tokens, DEFAULT_MAX_TOKENS),
        candidates: checked.best_of,
        echo: checked.echo,
        seed,
        param: "prompt",
    };
    plan.prepare(prompts)
}

fn place(checked: &Checked, setting: &Setting) -> Place {
    let (bytes, renders): (usize, _) = match &checked.prompts {
        Prompts::Absent => (0, false),
        Prompts::Texts(texts) => (texts.iter().map(String::len).sum(), renders(checked, setting)),
        Prompts::Ids(lists) => (lists.iter().map(|ids| size_of_val(&ids[..])).sum(), false),
    };
    let suffix = checked.suffix.as_ref().map_or(0, String::len);
    let bytes = bytes + suffix.saturating_mul(checked.prompts.count());
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
        Prompts::Absent if checked.suffix.is_some() => Ok(vec![tokens_of("", checked, setting)?]),
        Prompts::Absent => Ok(vec![given(vec![beginning(&setting.text)?])]),
        Prompts::Ids(lists) => Ok(lists.iter().cloned().map(given).collect()),
        Prompts::Texts(texts) => {
            texts.iter().map(|prompt| tokens_of(prompt, checked, setting)).collect()
        }
    }
}

fn tokens_of(prompt: &str, checked: &Checked, setting: &Setting) -> Result<Tokens, ApiError> {
    let text = &setting.text;
    let add_bos = checked.add_special_tokens && text.adds_bos();
    let tokens = if let Some(suffix) = &checked.suffix {
        let ids = text.encode_gap(prompt, suffix, add_bos).ok_or_else(no_gaps)?;
        Tokens { ids: ids.into(), added_bos: add_bos }
    } else if let Some(chat) = rendered(prompt, checked, setting)? {
        // Templates write BOS themselves.
        let ids = text.encode(&chat, true, false);
        let added_bos = text.bos().is_some_and(|bos| ids.first() == Some(&bos));
        Tokens { ids: ids.into(), added_bos }
    } else {
        Tokens { ids: text.encode(prompt, true, add_bos).into(), added_bos: add_bos }
    };
    if tokens.ids.is_empty() {
        // What was not sent is not echoed.
        return Ok(Tokens { ids: vec![beginning(text)?].into(), added_bos: true });
    }
    Ok(tokens)
}

fn no_gaps() -> ApiError {
    ApiError::Unsupported {
        message:
            "This model does not support 'suffix': its vocabulary has no tokens for filling in \
                  the middle."
                .to_owned(),
        param: Some("suffix".into()),
    }
}

/// Whether text prompts become a user turn each: the name that was asked for is an
/// instruction-following model's. An echo must give back what was sent, and what stands around a gap
/// is no instruction: both stay raw.
fn renders(checked: &Checked, setting: &Setting) -> bool {
    let raw = checked.echo || checked.suffix.is_some();
    setting.instruct && !raw && setting.text.chat_template().is_some()
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
        Err(error) => Err(rendering::refusal(error, "prompt")),
    }
}

/// What stands for an absent prompt, and for an empty one to which no BOS is added: the document separator,
/// else BOS, else an end token.
fn beginning(text: &Text) -> Result<TokenId, ApiError> {
    let separator = text.encode("<|endoftext|>", true, false);
    match separator[..] {
        [id] if text.is_special(id) => Some(id),
        _ => text.bos().or_else(|| text.end_tokens().first().copied()),
    }
    .ok_or_else(|| ApiError::invalid("A prompt is required - 'prompt'", "prompt"))
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
