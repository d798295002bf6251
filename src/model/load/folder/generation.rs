//! `generation_config.json`: which tokens end an answer, and how the makers sample.

use serde_json::Value as Json;

use super::values::{Config, integer, is_minus_one};
use crate::model::load::gguf::{Metadata, Value};

/// Tokens that end an answer.
pub(super) const ENDS: &str = "tokenizer.ggml.eos_token_ids";
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
    for from in generation.into_iter().chain([config]) {
        if let Some(ends) = ends(from)? {
            metadata.values.insert(ENDS.to_owned(), Value::U64s(ends));
            metadata.origins.keys.insert(ENDS.to_owned(), from.name("eos_token_id"));
            break;
        }
    }
    let Some(generation) = generation else { return Ok(()) };
    let mut put = |key: &str, value| {
        metadata.values.insert(format!("general.sampling.{key}"), value);
    };
    for (name, key) in SAMPLING {
        if let Some(number) = generation.number(name)? {
            put(key, Value::F64(number));
        }
    }
    // -1 is how vLLM says that all tokens may be sampled.
    if let Some(top_k) = generation.integer_unless_minus_one("top_k")? {
        put("top_k", Value::U64(top_k));
    }
    // The likeliest token, whatever is said of sampling. Where it is not said, transformers takes that, too; but few files
    // that leave it out mean it, and a client of the API expects to be sampled for.
    if generation.flag("do_sample")? == Some(false) {
        put("temp", Value::F64(0.0));
    }
    Ok(())
}

/// `eos_token_id`: one or several. -1 is written where there is none.
fn ends(config: &Config) -> Result<Option<Vec<u64>>, String> {
    let wrong = || format!("{} is neither a token nor several", config.name("eos_token_id"));
    let tokens = match config.get("eos_token_id") {
        None => return Ok(None),
        Some(Json::Array(tokens)) => &tokens[..],
        Some(token) => std::slice::from_ref(token),
    };
    let tokens = tokens.iter().filter(|token| !is_minus_one(token));
    let ends: Vec<u64> = tokens.map(integer).collect::<Option<_>>().ok_or_else(wrong)?;
    Ok(Some(ends).filter(|ends| !ends.is_empty()))
}
