//! The text side of a model in a folder: `tokenizer.json` and what stands beside it.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::fim::Fim;
use super::template::Template;
use super::tokenizer::hf;
use super::{Inner, Text, TextError};
use crate::engine::message::TokenId;
use crate::model::load::TextFiles;
use crate::model::load::bounded::told;
use crate::model::load::gguf::Metadata;

/// What the other files of a folder say.
#[derive(Debug, Default)]
pub struct Beside<'a> {
    /// `tokenizer_config.json`, if it is there.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`: tokens that the configuration does not name.
    pub special_tokens: Option<&'a [u8]>,
    /// `chat_template.jinja`, which comes before the template in the configuration.
    pub chat_template: Option<String>,
    /// Tokens that end an answer: `eos_token_id` of `generation_config.json` or `config.json`.
    pub end_tokens: Vec<TokenId>,
    /// Rows of the embedding: tokens that the model knows of.
    pub rows: usize,
}

impl<'a> Beside<'a> {
    /// What a folder has, for a model of so many `rows`.
    pub fn of(files: &'a TextFiles, end_tokens: &[TokenId], rows: usize) -> Self {
        Self {
            tokenizer_config: files.tokenizer_config.as_deref().map(str::as_bytes),
            special_tokens: files.special_tokens.as_deref().map(str::as_bytes),
            chat_template: files.chat_template.clone(),
            end_tokens: end_tokens.to_vec(),
            rows,
        }
    }
}

/// `tokenizer_config.json`, and the part of it that `special_tokens_map.json` repeats.
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
#[derive(Debug)]
struct Named(String);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Token {
            content: String,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the text of a token, or an object with that as its `content`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Named, E> {
                Ok(Named(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
                Token::deserialize(MapAccessDeserializer::new(map))
                    .map(|token| Named(token.content))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What a file beside `tokenizer.json` says, if it is there.
fn config(file: &str, bytes: Option<&[u8]>) -> Result<Config, TextError> {
    let read = bytes.map(serde_json::from_slice).transpose();
    read.map(Option::unwrap_or_default).map_err(|e| TextError(format!("{file}: {}", told(&e))))
}

impl Text {
    /// From the files of a folder, for a model of so many `rows`.
    pub fn from_folder(
        files: &TextFiles,
        end_tokens: &[TokenId],
        rows: usize,
    ) -> Result<Self, TextError> {
        let beside = Beside::of(files, end_tokens, rows);
        let text = Self::from_hf(files.tokenizer.as_bytes(), beside)?;
        if text.vocab() > rows {
            let tokens = text.vocab();
            return Err(TextError(format!(
                "tokenizer.json has {tokens} tokens, the embedding {rows} rows"
            )));
        }
        Ok(text)
    }

    /// From the bytes of `tokenizer.json`. A tokenizer that is not BPE, or has a part that is not known, is
    /// refused by name.
    pub fn from_hf(tokenizer: &[u8], beside: Beside<'_>) -> Result<Self, TextError> {
        let config = self::config("tokenizer_config.json", beside.tokenizer_config)?;
        // Files of before 2024 have tokens there only.
        let map = self::config("special_tokens_map.json", beside.special_tokens)?;
        let loaded = hf::load(tokenizer, beside.rows)?;
        let id = |name: &str| loaded.vocab.marker(name.as_bytes());
        let mut named = Vec::new();
        let mut take = |name, token: Option<Named>| {
            let Named(text) = token?;
            let found = id(&text);
            named.push((name, text));
            found
        };
        let bos = take("bos_token", config.bos_token.or(map.bos_token));
        let eos = take("eos_token", config.eos_token.or(map.eos_token));
        take("unk_token", config.unk_token.or(map.unk_token));
        take("pad_token", config.pad_token.or(map.pad_token));
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

/// One template, or of several the one that is called `default`. Where none is, the only one serves; of others the files
/// do not say which one is for whom (transformers wants it named then), so that there is none.
fn chat_template(given: &Value) -> Result<Option<String>, TextError> {
    let wrong = |what| TextError(format!("tokenizer_config.json: chat_template {what}"));
    let templates = match given {
        Value::String(template) => return Ok(Some(template.clone())),
        Value::Array(templates) => templates,
        _ => return Err(wrong("is neither a text nor an array")),
    };
    let field = |template: &Value, name| template.get(name)?.as_str().map(str::to_owned);
    let named: Option<Vec<(String, String)>> = templates
        .iter()
        .map(|template| Some((field(template, "name")?, field(template, "template")?)))
        .collect();
    let mut named =
        named.ok_or_else(|| wrong("has something else than objects with name and template"))?;
    let at = named.iter().position(|(name, _)| name == "default");
    if let Some(at) = at.or((named.len() == 1).then_some(0)) {
        return Ok(Some(named.swap_remove(at).1));
    }
    if !named.is_empty() {
        let templates = named.len();
        tracing::warn!(templates, "no chat template is called default: messages are refused");
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
