//! The text side of a model in a folder: `tokenizer.json` and what stands beside it.

use serde::Deserialize;
use serde_json::Value;

use super::fim::Fim;
use super::template::Template;
use super::tokenizer::hf;
use super::{Inner, Text, TextError};
use crate::engine::message::TokenId;
use crate::model::load::gguf::Metadata;

/// What the other files of a folder say.
#[derive(Debug, Default)]
pub struct Beside<'a> {
    /// `tokenizer_config.json`, if it is there.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.jinja`, which comes before the template in the configuration.
    pub chat_template: Option<String>,
    /// Tokens that end an answer: `eos_token_id` of `generation_config.json` or `config.json`.
    pub end_tokens: Vec<TokenId>,
    /// Rows of the embedding: tokens that the model knows of.
    pub rows: usize,
}

/// `tokenizer_config.json`
#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    add_bos_token: Option<bool>,
    #[serde(default)]
    bos_token: Option<Named>,
    #[serde(default)]
    eos_token: Option<Named>,
    #[serde(default)]
    unk_token: Option<Named>,
    #[serde(default)]
    pad_token: Option<Named>,
    #[serde(default)]
    chat_template: Option<Value>,
}

/// A token by its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Token { content: String },
}

impl Named {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

impl Text {
    /// From the bytes of `tokenizer.json`. A tokenizer that is not BPE, or has a part that is not known, is
    /// refused by name.
    pub fn from_hf(tokenizer: &[u8], beside: Beside<'_>) -> Result<Self, TextError> {
        let wrong = |e| TextError(format!("tokenizer_config.json: {e}"));
        let config = beside.tokenizer_config.map(serde_json::from_slice::<Config>).transpose();
        let mut config = config.map_err(wrong)?.unwrap_or_default();
        let loaded = hf::load(tokenizer, beside.rows)?;
        let id = |name: &str| loaded.vocab.marker(name.as_bytes());
        let mut named = Vec::new();
        let mut take = |name, token: Option<Named>| {
            let text = token?.text();
            let found = id(&text);
            named.push((name, text));
            found
        };
        let bos = take("bos_token", config.bos_token.take());
        let eos = take("eos_token", config.eos_token.take());
        take("unk_token", config.unk_token.take());
        take("pad_token", config.pad_token.take());
        let source = match (beside.chat_template, config.chat_template) {
            (Some(source), _) => Some(source),
            (None, Some(given)) => chat_template(&given)?,
            (None, None) => None,
        };
        let mut end_tokens = beside.end_tokens;
        if end_tokens.is_empty() {
            end_tokens.extend(eos);
        }
        end_tokens.sort_unstable();
        end_tokens.dedup();
        if let Some(id) = end_tokens.iter().find(|&&id| id as usize >= loaded.vocab.len()) {
            let count = loaded.vocab.len();
            return Err(TextError(format!("end token {id}, but there are only {count} tokens")));
        }
        // The configuration's word counts, as transformers has it.
        let front = match config.add_bos_token {
            Some(true) => bos,
            Some(false) => None,
            None => loaded.bos,
        };
        let inner = Inner {
            bos: front.or(bos),
            eos,
            adds_bos: front.is_some(),
            end_tokens,
            prefix: loaded.prefix,
            fim: Fim::from_gguf(&Metadata::default(), &loaded.vocab)?,
            vocab: loaded.vocab,
            tokenizer: loaded.tokenizer,
            template: source.map(|source| Template::new(source, named)),
        };
        Ok(Self { inner: std::sync::Arc::new(inner) })
    }
}

/// One template, or the one of several that is called `default`.
fn chat_template(given: &Value) -> Result<Option<String>, TextError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let by_name = |templates: &Vec<Value>| {
        let default =
            |template: &&Value| template.get("name").and_then(Value::as_str) == Some("default");
        text(templates.iter().find(default)?.get("template")?)
    };
    match given {
        Value::Null => Ok(None),
        Value::String(_) => Ok(text(given)),
        Value::Array(templates) => Ok(by_name(templates)),
        _ => Err(TextError("tokenizer_config.json: chat_template is no text".to_owned())),
    }
}

#[cfg(test)]
mod tests;
