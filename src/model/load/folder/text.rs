//! The files that the text side is made from, as they are.

use std::path::Path;

use serde::Deserialize;

use super::files::{self, TOKENIZER};
use crate::model::load::end_tokens::is_end;
use crate::model::load::gguf::{Metadata, Value};

/// Texts of a folder, unread but for their length.
#[derive(Debug, Clone)]
pub struct TextFiles {
    /// `tokenizer.json`
    pub tokenizer: String,
    pub tokenizer_config: Option<String>,
    /// `chat_template.jinja`, which comes before one in the configuration.
    pub chat_template: Option<String>,
}

/// Of `tokenizer.json`: the rest of it is for the tokenizer itself.
#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
    content: String,
}

/// Reads them, and adds the tokens that end an answer by their name.
pub(super) fn read(folder: &Path, metadata: &mut Metadata) -> Result<TextFiles, String> {
    let tokenizer = files::text(folder, TOKENIZER)?.ok_or("has no tokenizer.json")?;
    let tokens: Tokens =
        serde_json::from_str(&tokenizer).map_err(|e| format!("{TOKENIZER} {}", files::told(&e)))?;
    let named = tokens.added_tokens.iter().filter(|token| is_end(&token.content));
    let ends = metadata.values.entry("tokenizer.ggml.eos_token_ids".to_owned());
    if let Value::U64s(ends) = ends.or_insert(Value::U64s(Vec::new())) {
        ends.extend(named.map(|token| token.id));
    }
    Ok(TextFiles {
        tokenizer,
        tokenizer_config: files::text(folder, files::TOKENIZER_CONFIG)?,
        chat_template: files::text(folder, files::TEMPLATE)?,
    })
}
