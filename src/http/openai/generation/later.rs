//! Fields that are known, but not built yet: refused by name, unless their value asks for nothing.

use crate::http::openai::error::ApiError;
use crate::http::openai::json::{Fields, Json};

/// A field, and whether a value asks for nothing beyond what happens without it.
pub type Later = (&'static str, fn(&Json) -> bool);

/// Of all endpoints.
pub const SHARED: &[Later] = &[
    ("spaces_between_special_tokens", is_true),
    ("guided_json", never),
    ("guided_regex", never),
    ("guided_choice", never),
    ("guided_grammar", never),
    ("allowed_token_ids", empty),
    ("bad_words", empty),
    ("logits_processors", empty),
    ("use_beam_search", is_false),
    ("length_penalty", is_one),
];

/// Refuses what is asked for and not built.
pub fn refuse(fields: &Fields, later: &[Later]) -> Result<(), ApiError> {
    for (name, harmless) in later {
        if fields.get(name).is_some_and(|value| !harmless(value)) {
            return Err(ApiError::not_supported(*name));
        }
    }
    Ok(())
}

pub fn never(_: &Json) -> bool {
    false
}

pub fn is_true(value: &Json) -> bool {
    *value == Json::Bool(true)
}

pub fn is_false(value: &Json) -> bool {
    *value == Json::Bool(false)
}

pub fn is_one(value: &Json) -> bool {
    matches!(value, Json::Number(n) if n.as_f64() == Some(1.0))
}

pub fn empty(value: &Json) -> bool {
    match value {
        Json::Text(s) => s.is_empty(),
        Json::List(items) => items.is_empty(),
        Json::Object(entries) => entries.is_empty(),
        _ => false,
    }
}
