//! The files that the text side is made from, as they are.

use std::path::Path;

use serde::Deserialize;

use super::files::{self, Folder, TOKENIZER};
use super::generation::ENDS;
use super::values::without_bare_words;
use crate::model::load::bounded::Few;
use crate::model::load::end_tokens::is_end;
use crate::model::load::gguf::{LoadError, Metadata, Value};

/// Texts of a folder, unread but for their length.
#[derive(Debug, Clone)]
pub struct TextFiles {
    /// `tokenizer.json`
    pub tokenizer: String,
    pub tokenizer_config: Option<String>,
    /// `special_tokens_map.json`, which counts where the configuration does not name a token.
    pub special_tokens: Option<String>,
    /// `chat_template.jinja`, which comes before one in the configuration.
    pub chat_template: Option<String>,
}

/// As the tokenizer has it.
const ADDED_MAX: usize = 1 << 17;

/// Of `tokenizer.json`: the rest of it is for the tokenizer itself.
#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    added_tokens: Few<Added, ADDED_MAX>,
}

#[derive(Deserialize)]
struct Added {
    id: u64,
    content: String,
}

/// Those of a folder that has no weights yet.
///
/// # Errors
/// One line that names the file and what in it.
pub(crate) fn read_alone(path: &Path) -> Result<TextFiles, LoadError> {
    read(&path, &mut Metadata::default()).map_err(|reason| LoadError::new(path, reason))
}

/// Reads them, and adds the tokens that end an answer by their name.
pub(super) fn read(folder: &dyn Folder, metadata: &mut Metadata) -> Result<TextFiles, String> {
    let tokenizer = files::text(folder, TOKENIZER)?.ok_or("has no tokenizer.json")?;
    let tokens: Tokens =
        serde_json::from_str(&tokenizer).map_err(|e| format!("{TOKENIZER} {}", files::told(&e)))?;
    let named = tokens.added_tokens.0.iter().filter(|token| is_end(&token.content));
    let ends = metadata.values.entry(ENDS.to_owned());
    if let Value::U64s(ends) = ends.or_insert(Value::U64s(Vec::new())) {
        ends.extend(named.map(|token| token.id));
    }
    let config = |name| {
        let text = files::text(folder, name)?;
        Ok::<_, String>(text.map(|text| without_bare_words(&text).into_owned()))
    };
    Ok(TextFiles {
        tokenizer,
        tokenizer_config: config(files::TOKENIZER_CONFIG)?,
        special_tokens: config(files::SPECIAL_TOKENS)?,
        chat_template: files::text(folder, files::TEMPLATE)?,
    })
}
