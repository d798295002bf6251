//! The wire types of `/v1/completions`: which fields there are, and the shape of the answer.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::http::openai::json::{Json, Known};

/// Fields that this endpoint reads; [`LATER`] is the rest of what it knows.
pub const KNOWN: Known = Known { fields: FIELDS, inputs: &["prompt"] };

const FIELDS: &[&str] = &[
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "best_of",
    "stop",
    "stream",
    "stream_options",
    "seed",
    "logprobs",
    "top_logprobs",
    "echo",
    "logit_bias",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "ignore_eos",
    "min_tokens",
    "add_special_tokens",
    "return_tokens_as_token_ids",
    "user",
    "suffix",
    "stop_token_ids",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "prompt_logprobs",
    "return_token_ids",
    "response_format",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "truncate_prompt_tokens",
    "priority",
    "cache_salt",
    "allowed_token_ids",
    "bad_words",
    "logits_processors",
    "prompt_embeds",
    "use_beam_search",
    "length_penalty",
    "chat_template",
    "chat_template_kwargs",
];

/// Whether a value asks for nothing beyond what happens without the field.
type Harmless = fn(&Json) -> bool;

/// Known fields that are not built yet, each with the values that change no answer.
pub const LATER: &[(&str, Harmless)] = &[
    ("suffix", empty),
    ("stop_token_ids", empty),
    ("include_stop_str_in_output", is_false),
    ("skip_special_tokens", is_true),
    ("spaces_between_special_tokens", is_true),
    ("prompt_logprobs", never),
    ("return_token_ids", is_false),
    ("response_format", is_text_format),
    ("structured_outputs", never),
    ("guided_json", never),
    ("guided_regex", never),
    ("guided_choice", never),
    ("guided_grammar", never),
    ("truncate_prompt_tokens", never),
    ("allowed_token_ids", empty),
    ("bad_words", empty),
    ("logits_processors", empty),
    ("prompt_embeds", never),
    ("use_beam_search", is_false),
    ("length_penalty", is_one),
    ("chat_template", never),
    ("chat_template_kwargs", empty),
];

fn never(_: &Json) -> bool {
    false
}

fn is_true(value: &Json) -> bool {
    *value == Json::Bool(true)
}

fn is_false(value: &Json) -> bool {
    *value == Json::Bool(false)
}

fn is_one(value: &Json) -> bool {
    matches!(value, Json::Number(n) if n.as_f64() == Some(1.0))
}

fn empty(value: &Json) -> bool {
    match value {
        Json::Text(s) => s.is_empty(),
        Json::List(items) => items.is_empty(),
        Json::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

fn is_text_format(value: &Json) -> bool {
    let Json::Object(entries) = value else { return false };
    matches!(&entries[..], [(key, Json::Text(kind))] if key == "type" && kind == "text")
}

/// An answer, or one chunk of it: OpenAI gives both the same shape.
#[derive(Debug, serde::Serialize)]
pub struct Completion<'a> {
    pub id: &'a str,
    pub object: &'static str,
    /// Wall clock, seconds since 1970.
    pub created: u64,
    pub model: &'a str,
    pub choices: &'a [ChoiceBody],
    pub system_fingerprint: &'a str,
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    pub usage: UsageField,
}

/// `usage`, which a stream has only if it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum UsageField {
    Absent,
    /// Not yet: a chunk before the last.
    Null,
    Tokens(Usage),
}

impl UsageField {
    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

/// `object` of answers and chunks.
pub const OBJECT: &str = "text_completion";

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ChoiceBody {
    pub text: String,
    pub index: u32,
    pub logprobs: Option<LogprobsBody>,
    /// `stop` or `length`; null in chunks that are not a choice's last.
    pub finish_reason: Option<&'static str>,
}

/// Four arrays of equal length, one entry a token.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct LogprobsBody {
    pub tokens: Vec<String>,
    /// Null for the first token of an echoed prompt.
    pub token_logprobs: Vec<Option<f32>>,
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// In Unicode scalar values, from the start of the text that is returned.
    pub text_offset: Vec<usize>,
}

impl LogprobsBody {
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn append(&mut self, mut other: Self) {
        self.tokens.append(&mut other.tokens);
        self.token_logprobs.append(&mut other.token_logprobs);
        self.top_logprobs.append(&mut other.top_logprobs);
        self.text_offset.append(&mut other.text_offset);
    }
}

/// The most probable tokens at one position, by label: an object in JSON, highest first.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprobs(pub Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (label, logprob) in &self.0 {
            map.serialize_entry(label, logprob)?;
        }
        map.end()
    }
}

/// Tokens of a whole request: every prompt once, every choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    pub total_tokens: usize,
    pub prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct PromptTokensDetails {
    /// Taken from the prefix cache.
    pub cached_tokens: usize,
}
