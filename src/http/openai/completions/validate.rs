//! Bounds on everything a completions request can say. What comes out is all that the engine ever sees.

use std::collections::HashSet;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::types::{KNOWN, LATER};
use crate::engine::message::{CacheSalt, Sampling, TokenId};
use crate::http::openai::error::ApiError;
use crate::http::openai::json::{self, Fields, Input, Json, PROMPTS_MAX, wrong_type};
use crate::text::{STOP_BYTES_MAX, STOPS_MAX};

/// `max_tokens` where the request has none, if the context has room for it.
pub const DEFAULT_MAX_TOKENS: usize = 16;
/// Most samples of one prompt.
pub const N_MAX: i64 = 20;
/// Most choices (prompts times n) of one request.
pub const FAN_OUT_MAX: usize = PROMPTS_MAX;
/// Most alternatives reported for a token.
pub const LOGPROBS_MAX: i64 = 5;
pub const LOGIT_BIAS_MAX: usize = 1_024;
/// Either way from 0; each point is worth some steps of waiting.
pub const PRIORITY_MAX: i64 = 1_000;
/// Most characters of a cache salt, which are visible ASCII.
pub const CACHE_SALT_MAX: usize = 128;
/// A repetition penalty divides: at zero it would make infinities, and far from one only noise.
pub const REPETITION_MIN: f64 = 0.01;
pub const REPETITION_MAX: f64 = 10.0;

/// What the model bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub vocab: usize,
}

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
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the wire format")]
pub struct Checked {
    pub prompts: Prompts,
    /// Samples a prompt, at least 1.
    pub n: u32,
    /// `None`: the default.
    pub max_tokens: Option<usize>,
    pub echo: bool,
    /// Add the model's BOS to text prompts if it wants one.
    pub add_special_tokens: bool,
    /// Alternatives to report; `Some(0)`: the token's own log-probability only.
    pub logprobs: Option<u32>,
    pub tokens_as_ids: bool,
    pub stop: Vec<String>,
    pub seed: Option<u64>,
    /// Lower is sooner, as vLLM has it.
    pub priority: i32,
    pub cache_salt: Option<CacheSalt>,
    pub sampling: Sampling,
    pub stream: bool,
    pub include_usage: bool,
}

/// Checks every field but `model`, which is not this function's to know.
pub fn validate(mut fields: Fields, bounds: Bounds) -> Result<Checked, ApiError> {
    refuse_later(&fields)?;
    refuse_top_logprobs(&fields)?;
    report_near_misses(&fields);
    fields.text("user")?;
    let n = fields.integer("n", 1..=N_MAX)?.unwrap_or(1) as u32;
    check_best_of(&fields, n)?;
    let prompts = prompts(fields.take_input("prompt"), bounds)?;
    if prompts.count().saturating_mul(n as usize) > FAN_OUT_MAX {
        let message =
            format!("{} prompts times n = {n} is over {FAN_OUT_MAX} - 'prompt'", prompts.count());
        return Err(ApiError::invalid(message, "prompt"));
    }
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let max_tokens = max_tokens(&fields, echo)?;
    let logprobs = fields.integer("logprobs", 0..=LOGPROBS_MAX)?.map(|k| k as u32);
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let mut sampling = sampling(&fields, bounds, max_tokens)?;
    sampling.logprobs = logprobs;
    sampling.prompt_logprobs = logprobs.filter(|_| echo);
    Ok(Checked {
        prompts,
        n,
        max_tokens,
        echo,
        add_special_tokens: fields.boolean("add_special_tokens")?.unwrap_or(true),
        logprobs,
        tokens_as_ids: fields.boolean("return_tokens_as_token_ids")?.unwrap_or(false),
        stop: stops(&fields)?,
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64),
        priority: fields.integer("priority", -PRIORITY_MAX..=PRIORITY_MAX)?.unwrap_or(0) as i32,
        cache_salt: cache_salt(&fields)?,
        sampling,
        stream,
        include_usage: stream_options(&fields, stream)?,
    })
}

fn refuse_later(fields: &Fields) -> Result<(), ApiError> {
    for (name, harmless) in LATER {
        if fields.get(name).is_some_and(|value| !harmless(value)) {
            return Err(ApiError::not_supported(*name));
        }
    }
    Ok(())
}

/// Chat's field for what `logprobs` says here. Whoever sends it wants alternatives, and would miss them
/// without a word.
fn refuse_top_logprobs(fields: &Fields) -> Result<(), ApiError> {
    const NAME: &str = "top_logprobs";
    match fields.integer(NAME, 0..=LOGPROBS_MAX)? {
        None | Some(0) => Ok(()),
        Some(count) => Err(ApiError::Unsupported {
            message: format!("'{NAME}' belongs to chat: say 'logprobs': {count} instead."),
            param: Some(NAME.into()),
        }),
    }
}

fn check_best_of(fields: &Fields, n: u32) -> Result<(), ApiError> {
    match fields.integer("best_of", 1..=N_MAX)? {
        Some(best_of) if best_of < i64::from(n) => {
            let message = format!("{best_of} is less than n = {n} - 'best_of'");
            Err(ApiError::invalid(message, "best_of"))
        }
        Some(best_of) if best_of > i64::from(n) => Err(ApiError::Unsupported {
            message: "This server does not support 'best_of' greater than 'n' yet.".to_owned(),
            param: Some("best_of".into()),
        }),
        _ => Ok(()),
    }
}

fn prompts(input: Option<Input>, bounds: Bounds) -> Result<Prompts, ApiError> {
    let empty = || ApiError::invalid("The prompt must not be empty - 'prompt'", "prompt");
    let lists = match input {
        None => return Ok(Prompts::Absent),
        Some(Input::Text(text)) => return Ok(Prompts::Texts(vec![text])),
        Some(Input::Texts(texts)) => return Ok(Prompts::Texts(texts)),
        Some(Input::Ids(ids)) => vec![ids],
        Some(Input::IdLists(lists)) => lists,
    };
    for ids in &lists {
        if ids.is_empty() {
            return Err(empty());
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= bounds.vocab) {
            let vocab = bounds.vocab;
            let message =
                format!("{id} is not a token of the vocabulary: ids are below {vocab} - 'prompt'");
            return Err(ApiError::invalid(message, "prompt"));
        }
    }
    Ok(Prompts::Ids(lists))
}

fn max_tokens(fields: &Fields, echo: bool) -> Result<Option<usize>, ApiError> {
    // Any upper bound: the context's comes with the sentence that names its four numbers.
    let max_tokens = match fields.get("max_tokens") {
        Some(Json::Number(n)) if n.as_i64().is_none() && n.is_u64() => n.as_u64(),
        _ => fields.integer("max_tokens", 0..=i64::MAX)?.map(|m| m as u64),
    };
    if max_tokens == Some(0) && !echo {
        let message = "0 is less than the minimum of 1, unless 'echo' is true - 'max_tokens'";
        return Err(ApiError::invalid(message, "max_tokens"));
    }
    Ok(max_tokens.map(|m| usize::try_from(m).unwrap_or(usize::MAX)))
}

fn sampling(
    fields: &Fields,
    bounds: Bounds,
    max_tokens: Option<usize>,
) -> Result<Sampling, ApiError> {
    let or = |name, range, default| -> Result<f32, ApiError> {
        Ok(fields.number(name, range)?.unwrap_or(default))
    };
    let top_k = fields.integer("top_k", -1..=i64::from(i32::MAX))?.unwrap_or(0);
    Ok(Sampling {
        temperature: or("temperature", 0.0..=2.0, 1.0)?,
        top_p: or("top_p", 0.0..=1.0, 1.0)?,
        // As vLLM: -1 and 0 are off; so is any k that keeps the whole vocabulary.
        top_k: if (1..bounds.vocab as i64).contains(&top_k) { top_k as u32 } else { 0 },
        min_p: or("min_p", 0.0..=1.0, 0.0)?,
        frequency_penalty: or("frequency_penalty", -2.0..=2.0, 0.0)?,
        presence_penalty: or("presence_penalty", -2.0..=2.0, 0.0)?,
        repetition_penalty: or("repetition_penalty", REPETITION_MIN..=REPETITION_MAX, 1.0)?,
        logit_bias: logit_bias(fields, bounds)?,
        min_tokens: min_tokens(fields, max_tokens)?,
        ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
        logprobs: None,
        prompt_logprobs: None,
    })
}

fn min_tokens(fields: &Fields, max_tokens: Option<usize>) -> Result<u32, ApiError> {
    let min = fields.integer("min_tokens", 0..=i64::from(u32::MAX))?.unwrap_or(0) as u32;
    let max = max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    if min as usize > max {
        let message = format!("{min} is greater than max_tokens = {max} - 'min_tokens'");
        return Err(ApiError::invalid(message, "min_tokens"));
    }
    Ok(min)
}

fn logit_bias(fields: &Fields, bounds: Bounds) -> Result<Vec<(TokenId, f32)>, ApiError> {
    const NAME: &str = "logit_bias";
    let entries = match fields.get(NAME) {
        None => return Ok(Vec::new()),
        Some(Json::Object(entries)) => entries,
        Some(other) => return Err(wrong_type(other, "object", NAME)),
    };
    if entries.len() > LOGIT_BIAS_MAX {
        let message = format!("More than {LOGIT_BIAS_MAX} entries - '{NAME}'");
        return Err(ApiError::invalid(message, NAME));
    }
    let mut bias = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        // Only an id's one canonical spelling, so that no id can come twice.
        let id = key.parse::<TokenId>().ok().filter(|id| id.to_string() == *key);
        let Some(id) = id.filter(|&id| (id as usize) < bounds.vocab) else {
            let key = Json::Text(key.clone());
            let vocab = bounds.vocab;
            let message = format!("{key} is not a token id below {vocab} - '{NAME}'");
            return Err(ApiError::invalid(message, NAME));
        };
        bias.push((id, json::number(value, &(-100.0..=100.0), NAME)?));
    }
    Ok(bias)
}

fn stops(fields: &Fields) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "stop";
    let stops = match fields.get(NAME) {
        None => return Ok(Vec::new()),
        Some(Json::Text(stop)) => vec![stop.clone()],
        Some(Json::List(items)) => items
            .iter()
            .map(|item| match item {
                Json::Text(stop) => Ok(stop.clone()),
                other => Err(wrong_type(other, "string", NAME)),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(wrong_type(other, "string' or 'array", NAME)),
    };
    if stops.len() > STOPS_MAX {
        return Err(ApiError::invalid(format!("More than {STOPS_MAX} strings - '{NAME}'"), NAME));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid(format!("'' is too short - '{NAME}'"), NAME));
    }
    if stops.iter().any(|stop| stop.len() > STOP_BYTES_MAX) {
        let message = format!("A string of more than {STOP_BYTES_MAX} bytes - '{NAME}'");
        return Err(ApiError::invalid(message, NAME));
    }
    Ok(stops)
}

fn cache_salt(fields: &Fields) -> Result<Option<CacheSalt>, ApiError> {
    const NAME: &str = "cache_salt";
    let Some(salt) = fields.text(NAME)? else { return Ok(None) };
    let is_sound = (1..=CACHE_SALT_MAX).contains(&salt.len());
    if !is_sound || !salt.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("Not 1 to {CACHE_SALT_MAX} visible ASCII characters - '{NAME}'");
        return Err(ApiError::invalid(message, NAME));
    }
    Ok(Some(CacheSalt(Sha256::digest(salt).into())))
}

/// Whether usage is to come at the end of the stream.
fn stream_options(fields: &Fields, stream: bool) -> Result<bool, ApiError> {
    const NAME: &str = "stream_options";
    let entries = match fields.get(NAME) {
        None => return Ok(false),
        Some(Json::Object(entries)) => entries,
        Some(other) => return Err(wrong_type(other, "object", NAME)),
    };
    if !stream {
        let message = "Only allowed when 'stream' is true - 'stream_options'";
        return Err(ApiError::invalid(message, NAME));
    }
    let mut include_usage = false;
    for (key, value) in entries {
        let on = match (key.as_str(), value) {
            (_, Json::Null) => continue,
            ("include_usage" | "include_obfuscation" | "continuous_usage_stats", value) => {
                let Json::Bool(on) = value else {
                    return Err(wrong_type(value, "boolean", NAME));
                };
                *on
            }
            _ => continue,
        };
        match key.as_str() {
            "include_usage" => include_usage = on,
            "continuous_usage_stats" if on => {
                return Err(ApiError::Unsupported {
                    message: "This server does not support 'continuous_usage_stats' yet."
                        .to_owned(),
                    param: Some(NAME.into()),
                });
            }
            _ => {}
        }
    }
    Ok(include_usage)
}

/// Logs an unknown field that looks like a misspelt known one, each spelling once.
fn report_near_misses(fields: &Fields) {
    /// Spellings that were logged; beyond this many, nothing more is.
    const LOGGED_MAX: usize = 256;
    static LOGGED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    for name in &fields.unknown {
        let Some(nearest) = nearest(name) else { continue };
        let mut logged = LOGGED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let logged = logged.get_or_insert_default();
        if logged.len() < LOGGED_MAX && logged.insert(name.clone()) {
            tracing::warn!(field = name, nearest, "ignored an unknown field of a request");
        }
    }
}

/// The known field within two edits of `name`, if there is one. A narrower view than the command
/// line's, which answers an error anyway: here most unknown fields are right ones of other servers.
fn nearest(name: &str) -> Option<&'static str> {
    /// Shorter names are within two edits of anything.
    const NAME_CHARS_MIN: usize = 4;
    if name.len() > 40 || name.chars().count() < NAME_CHARS_MIN {
        return None;
    }
    // A capital is no edit: `top_P` is nearer to `top_p` than to `top_k`.
    let name = name.to_lowercase();
    let known = KNOWN.fields.iter().chain(KNOWN.inputs);
    let near = known.map(|known| (strsim::levenshtein(&name, known), *known)).min()?;
    (near.0 <= 2).then_some(near.1)
}

#[cfg(test)]
mod tests;
