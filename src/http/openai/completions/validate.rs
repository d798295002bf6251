//! Bounds on everything a completions request can say. What comes out is all that the engine ever sees.

use super::types::{KNOWN, LATER};
use crate::engine::message::TokenId;
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::fields::{Bounds, Shared};
use crate::http::openai::generation::{later, misspelt};
use crate::http::openai::json::{Fields, Input, check_ids};

/// `max_tokens` where the request has none, if the context has room for it.
pub const DEFAULT_MAX_TOKENS: usize = 16;

/// What to complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompts {
    /// Nothing was given: as if from the beginning of a document.
    Absent,
    Texts(Vec<String>),
    Ids(Vec<Vec<TokenId>>),
}

impl Prompts {
    pub fn count(&self) -> usize {
        match self {
            Self::Absent => 1,
            Self::Texts(texts) => texts.len(),
            Self::Ids(lists) => lists.len(),
        }
    }
}

/// A request within all bounds but the context's, which needs its prompts as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub shared: Shared,
    pub prompts: Prompts,
    /// What comes after the gap that is to be filled.
    pub suffix: Option<String>,
    /// Candidates for each prompt, at least `n`.
    pub best_of: u32,
    /// `None`: the default.
    pub max_tokens: Option<usize>,
    pub echo: bool,
    /// Add the model's BOS to text prompts if it wants one.
    pub add_special_tokens: bool,
}

/// Checks every field but `model`, which is not this function's to know.
pub fn validate(mut fields: Fields, bounds: Bounds) -> Result<Checked, ApiError> {
    later::refuse(&fields, LATER)?;
    refuse_top_logprobs(&fields, bounds)?;
    misspelt::report(&fields, KNOWN);
    let max_tokens = fields.count("max_tokens")?;
    let mut shared = Shared::check(&fields, bounds, max_tokens.unwrap_or(DEFAULT_MAX_TOKENS))?;
    shared.sampling.logprobs = fields.limited("logprobs", bounds.limits)?;
    let checked = Checked {
        best_of: best_of(&fields, &shared, bounds)?,
        prompts: prompts(fields.take_input("prompt"), bounds)?,
        suffix: fields.text("suffix")?.filter(|suffix| !suffix.is_empty()).map(str::to_owned),
        max_tokens,
        echo: fields.boolean("echo")?.unwrap_or(false),
        add_special_tokens: fields.boolean("add_special_tokens")?.unwrap_or(true),
        shared,
    };
    check_fan_out(&checked, bounds)?;
    check_suffix(&checked)?;
    Ok(checked)
}

/// Prompts times candidates.
fn check_fan_out(checked: &Checked, bounds: Bounds) -> Result<(), ApiError> {
    let (prompts, best_of) = (checked.prompts.count(), checked.best_of);
    let most = bounds.limits.fan_out;
    if prompts.saturating_mul(best_of as usize) <= most {
        return Ok(());
    }
    let message = format!("{prompts} prompts times {best_of} samples are over {most} - 'prompt'");
    Err(ApiError::invalid(message, "prompt"))
}

/// A gap has a text on both sides, and what stands around it is not what comes first in the answer.
fn check_suffix(checked: &Checked) -> Result<(), ApiError> {
    if checked.suffix.is_none() {
        return Ok(());
    }
    let other = if checked.echo {
        "'echo'"
    } else if matches!(checked.prompts, Prompts::Ids(_)) {
        "a prompt of token ids"
    } else if checked.shared.truncate_prompt.is_some() {
        "'truncate_prompt_tokens'"
    } else {
        return Ok(());
    };
    Err(ApiError::invalid(format!("Not allowed together with {other} - 'suffix'"), "suffix"))
}

/// Chat's field for what `logprobs` says here. Whoever sends it wants alternatives, and would miss them
/// without a word.
fn refuse_top_logprobs(fields: &Fields, bounds: Bounds) -> Result<(), ApiError> {
    const NAME: &str = "top_logprobs";
    match fields.limited(NAME, bounds.limits)? {
        None | Some(0) => Ok(()),
        Some(count) => Err(ApiError::Unsupported {
            message: format!("'{NAME}' belongs to chat: say 'logprobs': {count} instead."),
            param: Some(NAME.into()),
        }),
    }
}

fn best_of(fields: &Fields, shared: &Shared, bounds: Bounds) -> Result<u32, ApiError> {
    const NAME: &str = "best_of";
    let n = shared.n;
    let best_of = fields.limited(NAME, bounds.limits)?.unwrap_or(n);
    if best_of < n {
        let message = format!("{best_of} is less than n = {n} - '{NAME}'");
        return Err(ApiError::invalid(message, NAME));
    }
    if best_of > n && shared.stream.is_some() {
        // Which candidates are the best is known only when the last of them has ended.
        let message = format!("{best_of} is greater than n = {n}, and 'stream' is true - '{NAME}'");
        return Err(ApiError::invalid(message, NAME));
    }
    Ok(best_of)
}

fn prompts(input: Option<Input>, bounds: Bounds) -> Result<Prompts, ApiError> {
    match input {
        None => Ok(Prompts::Absent),
        Some(Input::Text(text)) => Ok(Prompts::Texts(vec![text])),
        Some(Input::Texts(texts)) => Ok(Prompts::Texts(texts)),
        Some(Input::Ids(ids)) => {
            check_ids(&ids, bounds.vocab, "prompt")?;
            Ok(Prompts::Ids(vec![ids]))
        }
        Some(Input::IdLists(lists)) => {
            for (at, ids) in lists.iter().enumerate() {
                check_ids(ids, bounds.vocab, format_args!("prompt[{at}]"))?;
            }
            Ok(Prompts::Ids(lists))
        }
    }
}

#[cfg(test)]
mod tests;
