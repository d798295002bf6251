//! Which tokens end an answer, from the metadata of the tokenizer.

use super::gguf::{KeyError, Metadata};

/// Keys that name an ending token each.
const KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
/// Tokens that end an answer in the model families that use them, whether or not the metadata says
/// so: llama.cpp's list of texts that mark the end of generation (`llama-vocab.cpp`), without those
/// that only end a file in a repository.
const TEXTS: [&str; 13] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
];
/// `LLAMA_TOKEN_TYPE_CONTROL` and `…_USER_DEFINED`: a token of another type with such a text is text.
const MARKS: [i32; 2] = [3, 4];

/// Whether a control token of this text ends an answer.
pub(super) fn is_end(text: &str) -> bool {
    TEXTS.contains(&text)
}

/// Tokens that end an answer, ascending. A key that points outside the vocabulary is an error.
pub fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>, KeyError> {
    let tokens = metadata.opt_strings("tokenizer.ggml.tokens")?.unwrap_or_default();
    let kinds = metadata.opt_i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
    let mut ends = Vec::new();
    for key in KEYS {
        let Some(id) = metadata.opt_u32(key)? else { continue };
        if id as usize >= tokens.len() {
            let count = tokens.len();
            return Err(KeyError(format!("metadata key {key} is {id}, of {count} tokens")));
        }
        ends.push(id);
    }
    // What a folder's `generation_config.json` lists.
    let key = "tokenizer.ggml.eos_token_ids";
    let listed = metadata.opt_u64s(key)?.unwrap_or_default();
    let key = metadata.origins.key(key);
    for &id in listed.iter() {
        let wrong = |_| KeyError(format!("{key} {id} is no token"));
        ends.push(u32::try_from(id).map_err(wrong)?);
    }
    for (id, (text, &kind)) in tokens.iter().zip(&kinds).enumerate() {
        if MARKS.contains(&kind) && is_end(text) {
            ends.push(id as u32);
        }
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load::gguf::Value;

    #[test]
    fn ends_come_from_keys_and_from_control_tokens() {
        let mut m = Metadata::default();
        let tokens =
            ["a", "<|eot_id|>", "<|im_end|>", "<end_of_turn>", "b"].map(str::to_owned).to_vec();
        m.values.insert("tokenizer.ggml.tokens".to_owned(), Value::Strings(tokens));
        let kinds = Value::I64s(vec![1, 1, 3, 4, 1]);
        m.values.insert("tokenizer.ggml.token_type".to_owned(), kinds);
        assert_eq!(end_tokens(&m).unwrap(), [2, 3]);
        m.values.insert(KEYS[0].to_owned(), Value::U64(4));
        m.values.insert(KEYS[1].to_owned(), Value::U64(3));
        assert_eq!(end_tokens(&m).unwrap(), [2, 3, 4]);
        m.values.insert(KEYS[2].to_owned(), Value::U64(5));
        assert!(end_tokens(&m).unwrap_err().to_string().contains("is 5, of 5 tokens"));
        assert_eq!(end_tokens(&Metadata::default()).unwrap(), [0u32; 0]);
    }
}
