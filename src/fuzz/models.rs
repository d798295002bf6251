//! Headers of small models of each kind, without weights: for the loader, and for their vocabularies.

use std::path::Path;

use crate::model::load::gguf::testing::{Writer, tiny};
use crate::model::load::gguf::{Gguf, Metadata, Value};

/// Merges of the byte-level vocabularies, each of which makes a token.
const MERGES: [&str; 12] =
    ["t h", "th e", "Ġ the", "Ġ t", "i n", "in g", "e r", "Ã ©", "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ", "1 2"];

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {{ message.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}\
    <|im_start|>assistant\n{% endif %}";

/// By name; a vocabulary of each kind that there is.
pub(super) fn models() -> [(&'static str, Writer); 3] {
    [("llama", llama()), ("qwen2", qwen2()), ("gemma3", gemma3())]
}

/// The header of the model `w`, its weights left out.
pub(super) fn header(w: &Writer) -> Vec<u8> {
    let mut w = w.clone();
    let mut at = 0;
    for tensor in &mut w.tensors {
        let bytes = tensor.dims.iter().product::<u64>() * size_of::<f32>() as u64;
        tensor.offset = Some(at);
        at = (at + bytes).next_multiple_of(w.alignment);
        tensor.data.clear();
    }
    w.bytes()
}

/// A seed: the headers of the model `w` in three files, one behind the other.
#[cfg(test)]
pub(super) fn shards(w: &Writer) -> Vec<u8> {
    let mut parts = vec![Writer { tensors: Vec::new(), ..w.clone() }];
    parts.resize(3, Writer::default());
    for (i, tensor) in w.tensors.iter().enumerate() {
        parts[i % 3].tensors.push(tensor.clone());
    }
    let mut bytes = Vec::new();
    for (number, part) in parts.iter_mut().enumerate() {
        part.set("split.no", &Value::U64(number as u64));
        part.set("split.count", &Value::U64(3));
        part.set("split.tensors.count", &Value::U64(w.tensors.len() as u64));
        bytes.extend(header(part));
    }
    bytes
}

pub(super) fn metadata(header: &[u8]) -> Option<Metadata> {
    let file_bytes = header.len() as u64 + super::WEIGHT_BYTES;
    Gguf::read(Path::new("fuzz.gguf"), header, file_bytes).ok().map(|gguf| gguf.metadata)
}

fn llama() -> Writer {
    let mut w = byte_level("llama", "smollm", &["<|pad|>"]);
    w.set("tokenizer.ggml.add_bos_token", &Value::Bool(true));
    w
}

fn qwen2() -> Writer {
    let gaps = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];
    let mut w = byte_level("qwen2", "qwen2", &gaps);
    w.set("tokenizer.chat_template", &Value::String(TEMPLATE.to_owned()));
    w
}

/// The tiny model's bytes, [`MERGES`] of them, and more control tokens.
fn byte_level(architecture: &str, pre: &str, control: &[&str]) -> Writer {
    let mut w = tiny(architecture);
    let bytes = metadata(&w.bytes());
    let bytes = bytes.as_ref().and_then(|m| m.strings("tokenizer.ggml.tokens").ok());
    let mut tokens: Vec<_> =
        bytes.into_iter().flatten().zip(0..).map(|(t, at)| (t.clone(), kind_of(at))).collect();
    tokens.extend(MERGES.iter().map(|merge| (merge.replace(' ', ""), 1)));
    tokens.extend(control.iter().map(|&name| (name.to_owned(), 3)));
    tokens.push(("<tool_call>".to_owned(), 4));
    w.set("tokenizer.ggml.merges", &Value::Strings(MERGES.map(str::to_owned).to_vec()));
    w.set("tokenizer.ggml.pre", &Value::String(pre.to_owned()));
    set_tokens(&mut w, architecture, tokens);
    w
}

/// The tiny model begins with three control tokens.
fn kind_of(at: i64) -> i64 {
    if at < 3 { 3 } else { 1 }
}

/// A vocabulary of `SentencePiece`'s: single bytes, letters and some longer pieces.
fn gemma3() -> Writer {
    let mut w = tiny("gemma3");
    let named = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<start_of_turn>", 3), ("\n\n", 4)];
    let pieces = ["▁", "th", "the", "▁the", "▁▁", "▁t", "in", "ing", "é", "日本", "12", "\n", ".▁"];
    let mut tokens: Vec<_> = named.iter().map(|&(name, kind)| (name.to_owned(), kind)).collect();
    tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    tokens.extend(('a'..='z').chain('0'..='9').map(|c| (c.to_string(), 1)));
    tokens.extend(pieces.map(|piece| (piece.to_owned(), 1)));
    let scores = (0..tokens.len()).map(|at| -(at as f32)).collect();
    w.set("tokenizer.ggml.model", &Value::String("llama".to_owned()));
    w.remove("tokenizer.ggml.pre").remove("tokenizer.ggml.merges");
    w.remove("tokenizer.ggml.add_bos_token");
    w.set("tokenizer.ggml.scores", &Value::F32s(scores));
    w.set("tokenizer.ggml.unknown_token_id", &Value::U64(0));
    set_tokens(&mut w, "gemma3", tokens);
    w
}

/// The vocabulary, with an embedding of that size.
fn set_tokens(w: &mut Writer, architecture: &str, tokens: Vec<(String, i64)>) {
    let count = tokens.len() as u64;
    let (texts, kinds) = tokens.into_iter().unzip();
    w.set("tokenizer.ggml.tokens", &Value::Strings(texts));
    w.set("tokenizer.ggml.token_type", &Value::I64s(kinds));
    w.set(&format!("{architecture}.vocab_size"), &Value::U64(count));
    w.tensor("token_embd.weight").dims[1] = count;
}
