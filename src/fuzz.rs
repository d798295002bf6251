//! What fuzzers call: every reader of bytes from outside, and what must hold of it whatever they are.
//!
//! Each target returns, or panics where something does not hold. `tests/fuzz` gives them to libFuzzer,
//! and `cargo test` runs them over the seeds there and what becomes of those by chance.

mod folder;
mod grammar;
mod models;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

pub use self::folder::folder;
pub use self::grammar::grammar;
pub use self::text::{stream, tokenizer};

use crate::backend::KvDtype;
use crate::config::{EngineConfig, RequestLimits};
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::prepare::Prepared;
use crate::http::openai::{chat, completions};
use crate::model::load::Checkpoint;
use crate::model::load::gguf::{Gguf, LoadError};
use crate::text::Text;

/// What is given bytes.
pub type Target = fn(&[u8]);

/// Every target by name: that of its file in `tests/fuzz/fuzz_targets` and of its seeds' folder.
pub const TARGETS: [(&str, Target); 8] = [
    ("gguf", gguf),
    ("shards", shards),
    ("folder", folder),
    ("request", request),
    ("tokenizer", tokenizer),
    ("stream", stream),
    ("grammar", grammar),
    ("keys", keys),
];

/// Longest line that anything refused may answer with.
const LINE_BYTES_MAX: usize = 2_048;
/// Bytes of weights that a model file claims to have behind what is there of it.
const WEIGHT_BYTES: u64 = 4 << 20;
const CONTEXT: usize = 4_096;
/// Files that a model is cut into.
const SHARDS_MAX: usize = 8;

/// The fake model's vocabulary with all bytes and some longer pieces.
static FAKE: LazyLock<Text> = LazyLock::new(|| Text::fake(300));

/// An error for people and for logs.
fn assert_is_line(line: &str) {
    assert!(!line.trim().is_empty(), "a refusal without a word");
    assert!(!line.chars().any(char::is_control), "more than a line: {line:?}");
    assert!(line.len() <= LINE_BYTES_MAX, "{} bytes: {line:.200}…", line.len());
}

/// The header of a model file, and all that the loader and the tokenizer make of it. The file counts as
/// somewhat longer than it is, so that the tensors of a header alone lie within it.
pub fn gguf(data: &[u8]) {
    let path = Path::new("fuzz.gguf");
    let checkpoint = match Gguf::read(path, data, data.len() as u64 + WEIGHT_BYTES) {
        Ok(gguf) => Checkpoint::from(gguf),
        Err(error) => return assert_is_line(&error.to_string()),
    };
    if let Err(error) = crate::model::examine(&checkpoint, &engine()) {
        assert_is_line(&error.to_string());
    }
    let text = match Text::from_gguf(&checkpoint.metadata) {
        Ok(text) => text,
        Err(error) => return assert_is_line(&error.to_string()),
    };
    assert_is_usable(&text);
}

/// What holds of every text side that was not refused.
fn assert_is_usable(text: &Text) {
    for special in [false, true] {
        let ids = text.encode("<s> The 1st\u{2581}é\n\n😀 <|im_end|>", special, true);
        assert!(ids.iter().all(|&id| (id as usize) < text.vocab()));
        text.decode(&ids, true);
    }
    assert!(text.end_tokens().is_sorted());
}

/// Headers of a model in several files, one behind the other: each begins with its magic.
pub fn shards(data: &[u8]) {
    let starts: Vec<usize> =
        (0..data.len()).filter(|&at| data[at..].starts_with(b"GGUF")).take(SHARDS_MAX).collect();
    let end = |i: usize| starts.get(i + 1).copied().unwrap_or(data.len());
    let path = |number: usize| format!("fuzz-{number:05}-of-{:05}.gguf", starts.len());
    let open = |wanted: &Path| {
        let index = (0..starts.len()).find(|&i| wanted == Path::new(&path(i + 1)));
        let index = index.ok_or_else(|| LoadError::new(wanted, "is missing"))?;
        let bytes = &data[starts[index]..end(index)];
        Gguf::read(wanted, bytes, bytes.len() as u64 + WEIGHT_BYTES)
    };
    let gguf = match Gguf::open_with(Path::new(&path(1)), &open) {
        Ok(gguf) => gguf,
        Err(error) => return assert_is_line(&error.to_string()),
    };
    if let Err(error) = crate::model::examine(&Checkpoint::from(gguf), &engine()) {
        assert_is_line(&error.to_string());
    }
}

fn engine() -> EngineConfig {
    EngineConfig {
        max_model_len: None,
        max_num_seqs: 4,
        max_num_batched_tokens: None,
        max_queue_requests: 16,
        max_queue_tokens: 1 << 16,
        kv_cache_bytes: 1 << 20,
        kv_cache_dtype: KvDtype::F16,
        prefix_caching: true,
        seed: None,
        client_stall_timeout: Duration::from_secs(1),
    }
}

/// A body, to what the engine gets of it, at both endpoints.
pub fn request(data: &[u8]) {
    for prepare in [completions::prepare, chat::prepare] {
        match prepare(data, &FAKE, CONTEXT) {
            Ok(prepared) => assert_is_bounded(&prepared),
            Err(error) => assert_is_clients_fault(&error),
        }
    }
}

fn assert_is_bounded(prepared: &Prepared) {
    let limits = RequestLimits::default();
    assert!((1..=limits.fan_out).contains(&prepared.choices.len()));
    assert_eq!(prepared.choices.len(), prepared.states.len());
    for choice in &prepared.choices {
        assert!(!choice.prompt.is_empty());
        assert!(choice.prompt.iter().all(|&id| (id as usize) < FAKE.vocab()));
        assert!(choice.prompt.len() + choice.max_new_tokens as usize <= CONTEXT);
        assert!(choice.sampling.temperature.is_finite());
        assert!(choice.sampling.stop_tokens.iter().all(|&id| (id as usize) < FAKE.vocab()));
    }
}

fn assert_is_clients_fault(error: &ApiError) {
    assert!(error.status().is_client_error(), "{error}");
    assert_is_line(&error.message());
    // The name of a field may be any, even none.
    let param = error.param().unwrap_or_default();
    assert!(!param.chars().any(char::is_control) && param.len() <= LINE_BYTES_MAX, "{param:?}");
    let body: Result<serde_json::Value, _> = serde_json::from_str(&error.body());
    assert!(body.is_ok_and(|body| body["error"]["message"].is_string()));
}

/// The key file: what is taken is written and read again as it is, what is not shows no secret.
pub fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (keys, written) = match crate::keys::rewritten(text) {
        Ok(read) => read,
        Err(reason) => {
            assert_is_line(&reason);
            // Ids may be anything that they may consist of, and are told.
            let told: String = reason.split('\'').step_by(2).collect();
            assert!(!told.contains("sk-"), "{reason}");
            return;
        }
    };
    let again = written.and_then(|text| crate::keys::rewritten(&text));
    assert!(again.as_ref().is_ok_and(|(again, _)| *again == keys), "{keys:?} became {again:?}");
}
