//! `generation_config.json`: which tokens end an answer, and how the makers sample.

use serde_json::Value as Json;

use super::config::Config;
use crate::model::load::gguf::{Metadata, Value};

/// Names there, and those of the keys.
const SAMPLING: [(&str, &str); 4] = [
    ("temperature", "temp"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("repetition_penalty", "penalty_repeat"),
];

/// Adds what the file says, if there is one; ends come from `config.json` otherwise.
pub(super) fn keys(
    config: &Config,
    generation: Option<&Config>,
    metadata: &mut Metadata,
) -> Result<(), String> {
    let ends = generation.map(ends).transpose()?.flatten();
    let ends = if ends.is_none() { self::ends(config)? } else { ends };
    let mut put = |key: &str, value| drop(metadata.values.insert(key.to_owned(), value));
    if let Some(ends) = ends {
        put("tokenizer.ggml.eos_token_ids", Value::U64s(ends));
    }
    let Some(generation) = generation else { return Ok(()) };
    for (name, key) in SAMPLING {
        if let Some(number) = generation.number(name)? {
            put(&format!("general.sampling.{key}"), Value::F64(number));
        }
    }
    if let Some(top_k) = generation.integer("top_k")? {
        put("general.sampling.top_k", Value::U64(top_k));
    }
    Ok(())
}

/// `eos_token_id`: one or several.
fn ends(config: &Config) -> Result<Option<Vec<u64>>, String> {
    let wrong = || "eos_token_id is neither a token nor several".to_owned();
    match config.get("eos_token_id") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Array(ids)) => {
            ids.iter().map(Json::as_u64).collect::<Option<_>>().map(Some).ok_or_else(wrong)
        }
        Some(id) => id.as_u64().map(|id| Some(vec![id])).ok_or_else(wrong),
    }
}
