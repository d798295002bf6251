//! What is asked: random words of about so many tokens, or a file of prompts.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::options::Options;
use super::random::Rng;
use super::words::{BEGINNINGS, WORDS};
use crate::cli::Failure;

/// Most bytes of a file of prompts.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Streams of random numbers that must not meet.
const PREFIXES: u64 = 1 << 62;
const WARMUPS: u64 = 1 << 61;
const PROBES: u64 = 1 << 60;

/// A prompt, and how long an answer it wants if it says so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prompt {
    pub(super) content: Content,
    max_tokens: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Text(String),
    Messages(Value),
}

/// How the server's tokenizer counts random words: found by asking it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) tokens_per_word: f64,
    /// Of a prompt without words: what a template adds.
    pub(super) overhead: f64,
}

impl Default for Scale {
    /// Common words are one token each in most vocabularies.
    fn default() -> Self {
        Self { tokens_per_word: 1.0, overhead: 0.0 }
    }
}

impl Scale {
    /// From two prompts: words, and the tokens that they were.
    pub(super) fn through(
        (words_a, tokens_a): (usize, u64),
        (words_b, tokens_b): (usize, u64),
    ) -> Self {
        let slope = (tokens_b as f64 - tokens_a as f64) / (words_b as f64 - words_a as f64);
        if !slope.is_finite() || slope <= 0.0 {
            return Self::default();
        }
        Self { tokens_per_word: slope, overhead: tokens_a as f64 - slope * words_a as f64 }
    }

    /// Words that make so many tokens with what is added.
    pub(super) fn words(self, tokens: usize) -> usize {
        ((tokens as f64 - self.overhead) / self.tokens_per_word).round().max(1.0) as usize
    }

    /// Words that make so many tokens by themselves.
    fn words_within(self, tokens: usize) -> usize {
        (tokens as f64 / self.tokens_per_word).round().max(0.0) as usize
    }
}

/// Prompts by their number.
#[derive(Debug, Clone)]
pub(super) enum Prompts {
    Words(Words),
    File(Vec<Prompt>),
}

/// Random words behind shared prefixes.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub(super) input_tokens: usize,
    pub(super) prefix_tokens: usize,
    pub(super) prefixes: usize,
    pub(super) seed: u64,
    pub(super) scale: Scale,
}

impl Words {
    fn prompt(&self, index: u64, prefix: u64) -> String {
        let all = self.scale.words(self.prefix_tokens + self.input_tokens);
        let shared = self.scale.words_within(self.prefix_tokens).min(all.saturating_sub(1));
        let mut text = String::with_capacity(5 * all);
        add_words(&mut text, Rng::nth(self.seed, PREFIXES + prefix), shared);
        add_words(&mut text, Rng::nth(self.seed, index), all - shared);
        text
    }
}

fn add_words(text: &mut String, mut rng: Rng, words: usize) {
    for _ in 0..words {
        let among = if text.is_empty() {
            BEGINNINGS
        } else {
            text.push(' ');
            WORDS.len()
        };
        text.push_str(WORDS[rng.below(among)]);
    }
}

/// So many random words, which no prompt has: to find out how they are counted.
pub(super) fn probe(seed: u64, words: usize) -> Prompt {
    let mut text = String::new();
    add_words(&mut text, Rng::nth(seed, PROBES + words as u64), words);
    Prompt { content: Content::Text(text), max_tokens: Some(1) }
}

impl Prompts {
    pub(super) fn of(options: &Options, seed: u64) -> Result<Self, Failure> {
        let Some(path) = &options.prompts else {
            return Ok(Self::Words(Words {
                input_tokens: options.input_tokens(),
                prefix_tokens: options.prefix_len,
                prefixes: options.num_prefixes.get(),
                seed,
                scale: Scale::default(),
            }));
        };
        let prompts = read(path).map_err(|e| Failure::usage(format!("--prompts: {e}")))?;
        let has_messages = |p: &Prompt| matches!(p.content, Content::Messages(_));
        if !options.chat && prompts.iter().any(has_messages) {
            let path = path.display();
            return Err(Failure::usage(format!("--prompts: {path} has messages: add --chat")));
        }
        Ok(Self::File(prompts))
    }

    /// In the file, if there is one.
    pub(super) fn lines(&self) -> Option<usize> {
        match self {
            Self::Words(_) => None,
            Self::File(prompts) => Some(prompts.len()),
        }
    }

    pub(super) fn nth(&self, index: usize) -> Prompt {
        match self {
            Self::Words(words) => {
                let prefix = index % words.prefixes;
                let text = words.prompt(index as u64, prefix as u64);
                Prompt { content: Content::Text(text), max_tokens: None }
            }
            Self::File(prompts) => prompts[index % prompts.len()].clone(),
        }
    }

    /// A prompt of random words that no counted request shares anything with, so that no cache learns from it.
    pub(super) fn warmup(&self, index: usize, seed: u64) -> Prompt {
        let text = match self {
            Self::Words(words) => words.prompt(WARMUPS + index as u64, WARMUPS),
            Self::File(_) => return Prompt { max_tokens: Some(8), ..probe(seed, 64 + index) },
        };
        Prompt { content: Content::Text(text), max_tokens: None }
    }
}

/// A line of JSON Lines. Other members (what a data set has besides) do not matter.
#[derive(Deserialize)]
struct Line {
    prompt: Option<String>,
    messages: Option<Value>,
    #[serde(alias = "output_tokens")]
    max_tokens: Option<u32>,
}

fn read(path: &Path) -> Result<Vec<Prompt>, String> {
    let name = path.display();
    let fault = |e: std::io::Error| format!("cannot read {name}: {e}");
    let data = std::fs::metadata(path).map_err(fault)?;
    if !data.is_file() || data.len() > MAX_FILE_BYTES {
        return Err(format!("{name} is not a file of at most 1 GiB"));
    }
    parse(&std::fs::read_to_string(path).map_err(fault)?).map_err(|e| format!("{name}:{e}"))
}

/// JSON Lines if the first line is an object, else one prompt a line.
fn parse(text: &str) -> Result<Vec<Prompt>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let is_json = text.trim_start().starts_with('{');
    let mut prompts = Vec::new();
    for (i, line) in lines {
        if !is_json {
            let content = Content::Text(line.to_owned());
            prompts.push(Prompt { content, max_tokens: None });
            continue;
        }
        let at = |what: &str| format!("{}: {what}", i + 1);
        let line: Line = serde_json::from_str(line).map_err(|e| at(&e.to_string()))?;
        let content = match (line.prompt, line.messages) {
            (Some(prompt), None) => Content::Text(prompt),
            (None, Some(messages @ Value::Array(_))) => Content::Messages(messages),
            _ => return Err(at("give either \"prompt\" (a string) or \"messages\" (a list)")),
        };
        prompts.push(Prompt { content, max_tokens: line.max_tokens.filter(|&n| n > 0) });
    }
    if prompts.is_empty() {
        return Err("1: there is no prompt".to_owned());
    }
    Ok(prompts)
}

/// What all requests have in common.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) model: String,
    pub(super) chat: bool,
    pub(super) output_tokens: u32,
    pub(super) ignore_eos: bool,
    pub(super) temperature: Option<f64>,
    pub(super) extra_body: Map<String, Value>,
}

impl Form {
    pub(super) fn of(options: &Options, model: String) -> Self {
        Self {
            model,
            chat: options.chat,
            output_tokens: options.output_tokens(),
            ignore_eos: options.ignore_eos,
            temperature: options.temperature,
            extra_body: options.extra_body.clone().unwrap_or_default(),
        }
    }

    /// Below `/v1`.
    pub(super) fn route(&self) -> &'static str {
        if self.chat { "/chat/completions" } else { "/completions" }
    }

    /// A request's body.
    pub(super) fn body(&self, prompt: Prompt) -> Vec<u8> {
        let mut body = json!({
            "model": self.model,
            "max_tokens": prompt.max_tokens.unwrap_or(self.output_tokens),
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        match prompt.content {
            Content::Text(text) if self.chat => {
                body["messages"] = json!([{"role": "user", "content": text}]);
            }
            Content::Text(text) => body["prompt"] = text.into(),
            Content::Messages(messages) => body["messages"] = messages,
        }
        if self.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        if let Some(temperature) = self.temperature {
            body["temperature"] = temperature.into();
        }
        for (name, value) in &self.extra_body {
            body[name] = value.clone();
        }
        if let Value::Object(members) = &mut body {
            members.retain(|_, value| !value.is_null());
        }
        body.to_string().into_bytes()
    }
}

#[cfg(test)]
#[path = "prompts_tests.rs"]
mod tests;
