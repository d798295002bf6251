//! The wire types of `/v1/chat/completions`: which fields there are, and the shape of a choice.

use serde::Serialize;

use super::validate::TOP_LOGPROBS_MAX;
use crate::http::openai::generation::declared::{MODEL, SHARED};
use crate::http::openai::generation::extras::Extras;
use crate::http::openai::generation::later::{Later, empty, is_false, is_one, never};
use crate::http::openai::json::{Field, Kind, Known};

/// Fields that this endpoint reads, or refuses as [`LATER`].
pub const KNOWN: Known = Known(&[&[MODEL, MESSAGES.required()], CONVERSATION, OWN, SHARED]);

/// The same where the model stands in the path: what the body says of it is not read.
pub const KNOWN_BY_PATH: Known = Known(&[&[MESSAGES.required()], CONVERSATION, OWN, SHARED]);

pub const MESSAGES: Field = Field::new("messages", Kind::Schema(CONVERSED))
    .about("The conversation, oldest message first.");

/// What a conversation is rendered from beside [`MESSAGES`]; `/tokenize` reads both, too.
pub const CONVERSATION: &[Field] = &[
    Field::new("tools", Kind::Schema(TOOLS)).about("Functions that the model may call."),
    Field::new("tool_choice", Kind::Schema(TOOL_CHOICE))
        .about("`auto`, `none`, `required`, or the function that must be called."),
    Field::new("parallel_tool_calls", Kind::Boolean).default("true").about("More than one call in an answer."),
    Field::new("functions", Kind::Schema(r#"{"type": "array", "items": {"type": "object"}}"#))
        .about("What `tools` was before."),
    Field::new("function_call", Kind::Any).about("What `tool_choice` was before."),
    Field::new("reasoning_effort", Kind::Word(EFFORTS)).about("Passed on to the chat template."),
    Field::new("chat_template_kwargs", Kind::Schema(r#"{"type": "object"}"#))
        .about("Variables of the chat template: `enable_thinking`, `thinking`, `reasoning_effort`, `date_string`."),
    Field::new("add_generation_prompt", Kind::Boolean)
        .default("true")
        .about("End with the beginning of the assistant's answer."),
    Field::new("continue_final_message", Kind::Boolean)
        .default("false")
        .about("Go on with the last message, which is the assistant's."),
    Field::new("documents", Kind::Any).about("Not supported."),
    Field::new("chat_template", Kind::Any).about("Not supported: the model's own is used."),
];

/// OpenAI's. A template that knows another word gets it as one of `chat_template_kwargs`.
const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

const OWN: &[Field] = &[
    Field::new("max_completion_tokens", Kind::count(1))
        .about("Most tokens to generate. Prompt and answer together must fit into the context."),
    Field::new("max_tokens", Kind::count(1)).about("What `max_completion_tokens` was before."),
    Field::new("logprobs", Kind::Boolean)
        .default("false")
        .about("Log-probabilities of the tokens."),
    Field::new("top_logprobs", Kind::integer(0, TOP_LOGPROBS_MAX))
        .about("This many alternatives to each token; needs `logprobs`."),
    Field::new("metadata", Kind::Pairs { max: 16, name_max: 64, value_max: 512 })
        .about("Accepted, and not used: up to 16 pairs of strings."),
    Field::new("store", Kind::Boolean).about("Accepted, and not used."),
    Field::new("service_tier", Kind::TEXT).about("Accepted, and not used."),
    Field::new("verbosity", Kind::TEXT).about("Accepted, and not used."),
    Field::new("prediction", Kind::Object(&[])).about("Accepted, and not used."),
    Field::new(
        "modalities",
        Kind::Schema(r#"{"type": "array", "items": {"type": "string", "enum": ["text"]}}"#),
    )
    .about("`text` only."),
    Field::new("prompt_cache_retention", Kind::TEXT).about("Accepted, and not used."),
    Field::new("safety_identifier", Kind::TEXT).about("Accepted, and not used."),
    Field::new("audio", Kind::Any).about("Not supported."),
    Field::new("web_search_options", Kind::Any).about("Not supported."),
    Field::new("echo", Kind::Boolean).default("false").about("True is not supported."),
    Field::new("best_of", Kind::count(1)).about("Of completions: more than 1 is not supported."),
    Field::new("suffix", Kind::TEXT).about("Of completions: not supported."),
];

/// What of a message templates read; checked by [`super::messages`].
const CONVERSED: &str = r#"{
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool", "function"]},
            "content": {
                "description": "Text, or parts of type `text`. Null only where an assistant calls.",
                "anyOf": [
                    {"type": "string"},
                    {"type": "null"},
                    {"type": "array", "items": {"type": "object", "required": ["type", "text"], "properties": {
                        "type": {"type": "string", "enum": ["text"]}, "text": {"type": "string"}
                    }}}
                ]
            }
        }
    }
}"#;

/// Checked by [`super::tools`].
const TOOLS: &str = r#"{
    "type": "array",
    "maxItems": 128,
    "items": {
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": {"type": "string", "enum": ["function"]},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                    "description": {"type": ["string", "null"]},
                    "parameters": {"type": ["object", "null"], "description": "A JSON schema of an object."},
                    "strict": {"type": ["boolean", "null"], "description": "What does not fit the schema is no call."}
                }
            }
        }
    }
}"#;

const TOOL_CHOICE: &str = r#"{"anyOf": [
    {"type": "string", "enum": ["none", "auto", "required"]},
    {"type": "object", "required": ["type"]}
]}"#;

/// What this server does not do in a chat.
pub const LATER: &[Later] = &[
    ("audio", never),
    ("web_search_options", never),
    ("echo", is_false),
    ("best_of", is_one),
    ("suffix", empty),
];

/// `object` of answers, and of chunks.
pub const OBJECTS: (&str, &str) = ("chat.completion", "chat.completion.chunk");

/// A choice of a whole answer, or of a chunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ChoiceBody {
    Whole(WholeBody),
    Chunk(ChunkBody),
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatChoice)]
pub struct WholeBody {
    pub index: u32,
    pub message: MessageBody,
    pub logprobs: Option<LogprobsBody>,
    /// `stop`, `length`, `tool_calls` or `function_call`.
    pub finish_reason: Option<&'static str>,
    #[serde(flatten)]
    pub extras: Extras,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatChunkChoice)]
pub struct ChunkBody {
    pub index: u32,
    pub delta: DeltaBody,
    pub logprobs: Option<LogprobsBody>,
    /// Null in chunks that are not a choice's last.
    pub finish_reason: Option<&'static str>,
    #[serde(flatten)]
    pub extras: Extras,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatMessage)]
pub struct MessageBody {
    pub role: &'static str,
    /// Null where there are only calls.
    pub content: Option<String>,
    /// Always null: models that refuse do so in their content.
    pub refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<CallBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ToolCall)]
pub struct CallBody {
    pub id: String,
    pub r#type: &'static str,
    pub function: FunctionBody,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = FunctionCall)]
pub struct FunctionBody {
    pub name: String,
    /// JSON.
    pub arguments: String,
}

/// What a chunk adds to a message: the fields that it adds to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatDelta)]
pub struct DeltaBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Null in the first chunk of a message that may turn out to be calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub refusal: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<CallDelta>>)]
    pub tool_calls: Option<[CallDelta; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_call: Option<FunctionDelta>,
}

/// A call that begins, or more of its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ToolCallDelta)]
pub struct CallDelta {
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<&'static str>,
    pub function: FunctionDelta,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = FunctionCallDelta)]
pub struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub arguments: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatLogprobs)]
pub struct LogprobsBody {
    /// One entry a token, calls included.
    pub content: Vec<TokenBody>,
    /// Always null.
    pub refusal: Option<Vec<TokenBody>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatToken)]
pub struct TokenBody {
    pub token: String,
    pub logprob: f32,
    /// Of the token, which need not be text by itself.
    pub bytes: Vec<u8>,
    pub top_logprobs: Vec<TopBody>,
}

#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = ChatTopToken)]
pub struct TopBody {
    pub token: String,
    pub logprob: f32,
    pub bytes: Vec<u8>,
}
