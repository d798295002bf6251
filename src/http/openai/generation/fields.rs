//! What the fields say that requests to all generating endpoints have: each within its declaration
//! ([`super::declared`]), and here within what the model, the operator and the other fields bound. What comes out is
//! all that the engine ever sees of them.

use sha2::{Digest, Sha256};

use super::later;
use crate::config::RequestLimits;
use crate::engine::message::{CacheSalt, Namespace, Sampling, Tenant, TokenId};
use crate::http::openai::error::ApiError;
use crate::http::openai::json::{self, At, Fields, Json, wrong_type};
use crate::http::openai::structured::{self, Wanted};
use crate::model::load::SamplingDefaults;

pub const LOGIT_BIAS_MAX: usize = 1_024;
pub const STOP_TOKENS_MAX: usize = 1_024;
/// Either way from 0; each point is worth some steps of waiting.
pub const PRIORITY_MAX: i64 = 1_000;
/// Most characters of a cache salt, which are visible ASCII.
pub const CACHE_SALT_MAX: usize = 128;
/// A repetition penalty divides: at zero it would make infinities, and far from one only noise.
pub(super) const REPETITION_MIN: f64 = 0.01;
pub(super) const REPETITION_MAX: f64 = 10.0;

/// What the model and the operator bound.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub vocab: usize,
    pub limits: RequestLimits,
    /// What a request does not say.
    pub defaults: SamplingDefaults,
}

/// The shared fields of a request, within their bounds.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the wire format")]
pub struct Shared {
    /// Samples a prompt, at least 1.
    pub n: u32,
    pub stop: Vec<String>,
    /// The stop string or token that ended an answer is part of its text.
    pub shows_stop: bool,
    /// Special tokens have no text.
    pub skip_special: bool,
    pub seed: Option<u64>,
    /// Lower is sooner, as vLLM has it.
    pub priority: i32,
    pub cache_salt: Option<CacheSalt>,
    /// Without log-probabilities, which endpoints ask for in their own ways.
    pub sampling: Sampling,
    /// What the answer must be, not compiled yet.
    pub wanted: Option<Wanted>,
    /// Alternatives to report for each prompt token.
    pub prompt_logprobs: Option<u32>,
    /// Tokens read `token_id:N`.
    pub tokens_as_ids: bool,
    /// Answers tell the ids of prompt and answer.
    pub return_token_ids: bool,
    pub truncate_prompt: Option<Truncate>,
    /// Absent: the whole answer at once.
    pub stream: Option<StreamOptions>,
}

/// How many tokens of a prompt are kept, the last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncate {
    To(usize),
    /// As many as the context has room for beside the answer.
    ToFit,
}

/// What a stream tells beside the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamOptions {
    /// In a last chunk of its own.
    pub include_usage: bool,
    /// In every chunk, so far: with [`Self::include_usage`] only, as vLLM has it.
    pub continuous_usage: bool,
}

impl Shared {
    /// `max_tokens`: new tokens that the request may get, as far as it or the endpoint says.
    pub fn check(fields: &Fields, bounds: Bounds, max_tokens: usize) -> Result<Self, ApiError> {
        later::refuse(fields, later::SHARED)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let options = stream_options(fields, stream)?;
        Ok(Self {
            n: fields.limited("n", bounds.limits)?.unwrap_or(1),
            stop: stops(fields)?,
            shows_stop: fields.boolean("include_stop_str_in_output")?.unwrap_or(false),
            skip_special: fields.boolean("skip_special_tokens")?.unwrap_or(true),
            seed: fields.integer("seed")?.map(|seed| seed as u64),
            priority: fields.integer("priority")?.unwrap_or(0) as i32,
            cache_salt: cache_salt(fields)?,
            sampling: sampling(fields, bounds, max_tokens)?,
            wanted: structured::read(fields)?,
            prompt_logprobs: fields.limited("prompt_logprobs", bounds.limits)?,
            tokens_as_ids: fields.boolean("return_tokens_as_token_ids")?.unwrap_or(false),
            return_token_ids: fields.boolean("return_token_ids")?.unwrap_or(false),
            truncate_prompt: truncate_prompt(fields)?,
            stream: stream.then_some(options),
        })
    }

    pub fn namespace(&self, tenant: Tenant) -> Namespace {
        Namespace { tenant, salt: self.cache_salt }
    }
}

fn truncate_prompt(fields: &Fields) -> Result<Option<Truncate>, ApiError> {
    const NAME: &str = "truncate_prompt_tokens";
    match fields.integer(NAME)? {
        None => Ok(None),
        Some(-1) => Ok(Some(Truncate::ToFit)),
        Some(0) => Err(ApiError::invalid(format!("0 keeps no token at all - '{NAME}'"), NAME)),
        Some(k) => Ok(Some(Truncate::To(usize::try_from(k).unwrap_or(usize::MAX)))),
    }
}

fn sampling(fields: &Fields, bounds: Bounds, max_tokens: usize) -> Result<Sampling, ApiError> {
    let or =
        |name, default| -> Result<f32, ApiError> { Ok(fields.number(name)?.unwrap_or(default)) };
    let defaults = bounds.defaults;
    let top_k = fields.integer("top_k")?.unwrap_or_else(|| defaults.top_k.into());
    Ok(Sampling {
        temperature: or("temperature", defaults.temperature)?,
        top_p: or("top_p", defaults.top_p)?,
        // As vLLM: -1 and 0 are off; so is any k that keeps the whole vocabulary.
        top_k: if (1..bounds.vocab as i64).contains(&top_k) { top_k as u32 } else { 0 },
        min_p: or("min_p", defaults.min_p)?,
        frequency_penalty: or("frequency_penalty", 0.0)?,
        presence_penalty: or("presence_penalty", 0.0)?,
        repetition_penalty: or("repetition_penalty", defaults.repetition_penalty)?,
        logit_bias: logit_bias(fields, bounds)?,
        min_tokens: min_tokens(fields, max_tokens)?,
        ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
        stop_tokens: stop_tokens(fields, bounds)?,
        logprobs: None,
        prompt_logprobs: None,
    })
}

fn min_tokens(fields: &Fields, max: usize) -> Result<u32, ApiError> {
    let min = fields.integer("min_tokens")?.unwrap_or(0) as u32;
    if min as usize > max {
        let message = format!("{min} is greater than max_tokens = {max} - 'min_tokens'");
        return Err(ApiError::invalid(message, "min_tokens"));
    }
    Ok(min)
}

fn stop_tokens(fields: &Fields, bounds: Bounds) -> Result<Vec<TokenId>, ApiError> {
    const NAME: &str = "stop_token_ids";
    let Some(given) = fields.get(NAME) else { return Ok(Vec::new()) };
    At::field(NAME, given).items()?.map(|item| token_id(&item, bounds)).collect()
}

fn token_id(at: &At<'_>, bounds: Bounds) -> Result<TokenId, ApiError> {
    let Json::Number(number) = at.value else { return Err(at.wrong_type("integer")) };
    let id = json::whole(number).filter(|id| (0..bounds.vocab as i128).contains(id));
    let fault = || at.fault(format!("{number} is not a token id below {}", bounds.vocab));
    id.map(|id| id as TokenId).ok_or_else(fault)
}

fn logit_bias(fields: &Fields, bounds: Bounds) -> Result<Vec<(TokenId, f32)>, ApiError> {
    const NAME: &str = "logit_bias";
    let entries = match fields.get(NAME) {
        None => return Ok(Vec::new()),
        Some(Json::Object(entries)) => entries,
        Some(other) => return Err(wrong_type(other, "object", NAME)),
    };
    let mut bias = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Some(id) = json::token_key(key).filter(|&id| (id as usize) < bounds.vocab) else {
            let (vocab, place) = (bounds.vocab, format!("{NAME}.{key}"));
            let message = format!("'{key}' is not a token id below {vocab} - '{place}'");
            return Err(ApiError::invalid(message, place));
        };
        let Json::Number(number) = value else { return Err(wrong_type(value, "number", NAME)) };
        bias.push((id, number.as_f64().unwrap_or_default() as f32));
    }
    Ok(bias)
}

fn stops(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let text = |value: &Json| match value {
        Json::Text(stop) => Ok(stop.clone()),
        other => Err(wrong_type(other, "string", "stop")),
    };
    match fields.get("stop") {
        None => Ok(Vec::new()),
        Some(Json::List(items)) => items.iter().map(text).collect(),
        Some(one) => Ok(vec![text(one)?]),
    }
}

fn cache_salt(fields: &Fields) -> Result<Option<CacheSalt>, ApiError> {
    Ok(fields.text("cache_salt")?.map(|salt| CacheSalt(Sha256::digest(salt).into())))
}

fn stream_options(fields: &Fields, stream: bool) -> Result<StreamOptions, ApiError> {
    const NAME: &str = "stream_options";
    let entries = match fields.get(NAME) {
        None => return Ok(StreamOptions::default()),
        Some(Json::Object(entries)) => entries,
        Some(other) => return Err(wrong_type(other, "object", NAME)),
    };
    if !stream {
        let message = "Only allowed when 'stream' is true - 'stream_options'";
        return Err(ApiError::invalid(message, NAME));
    }
    let mut options = StreamOptions::default();
    // Padding against whoever measures the lengths of chunks: checked like the others, and ignored.
    let mut obfuscation = false;
    for (key, value) in entries {
        let option = match key.as_str() {
            "include_usage" => &mut options.include_usage,
            "continuous_usage_stats" => &mut options.continuous_usage,
            "include_obfuscation" => &mut obfuscation,
            _ => continue,
        };
        match value {
            Json::Null => {}
            Json::Bool(on) => *option = *on,
            other => return Err(wrong_type(other, "boolean", NAME)),
        }
    }
    Ok(options)
}
