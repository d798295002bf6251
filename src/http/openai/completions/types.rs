//! The wire types of `/v1/completions`: which fields there are, and the shape of a choice.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::http::openai::generation::declared::{MODEL, SHARED};
use crate::http::openai::generation::extras::Extras;
use crate::http::openai::generation::later::{Later, empty, never};
use crate::http::openai::json::{Field, Form, Kind, Known, Limit};

/// Fields that this endpoint reads, or refuses as [`LATER`].
pub const KNOWN: Known = Known(&[&[MODEL], OWN, SHARED]);

/// The same where the model stands in the path: what the body says of it is not read.
pub const KNOWN_BY_PATH: Known = Known(&[OWN, SHARED]);

const OWN: &[Field] = &[
    Field::new("prompt", PROMPT)
        .about("A text, several, or the same as token ids. Each is a prompt of its own."),
    Field::new("max_tokens", Kind::count(0)).default("16").about(
        "Most tokens to generate. Prompt and answer together must fit into the context; 0 only scores an echoed prompt.",
    ),
    Field::new("logprobs", Kind::Limited { min: 0, limit: Limit::Logprobs })
        .about("Log-probabilities of the tokens, with this many alternatives to each."),
    Field::new("top_logprobs", Kind::Limited { min: 0, limit: Limit::Logprobs })
        .about("Chat's field for what `logprobs` says here: 0 or absent."),
    Field::new("best_of", Kind::Limited { min: 1, limit: Limit::N })
        .about("Candidates for each prompt, of which the `n` most probable ones are sent."),
    Field::new("echo", Kind::Boolean).default("false").about("Send the prompt before the answer."),
    Field::new("suffix", Kind::TEXT).about("What comes after the text that is to be filled in."),
    Field::new("prompt_embeds", Kind::Any).about("Not supported."),
    Field::new("chat_template", Kind::Any).about("Not supported."),
    Field::new("chat_template_kwargs", Kind::Any).about("Not supported."),
];

const PROMPT: Kind = Kind::Input(&[Form::Text, Form::Texts, Form::Ids { min: 1 }, Form::IdLists]);

/// Known fields that are not built yet, beside those of all endpoints.
pub const LATER: &[Later] =
    &[("prompt_embeds", never), ("chat_template", never), ("chat_template_kwargs", empty)];

/// `object` of answers and chunks.
pub const OBJECT: &str = "text_completion";

#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Choice)]
pub struct ChoiceBody {
    pub text: String,
    pub index: u32,
    #[schema(required)]
    pub logprobs: Option<LogprobsBody>,
    /// `stop` or `length`; null in chunks that are not a choice's last.
    #[schema(required)]
    pub finish_reason: Option<&'static str>,
    #[serde(flatten)]
    pub extras: Extras,
}

/// Four arrays of equal length, one entry a token.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Logprobs)]
pub struct LogprobsBody {
    pub tokens: Vec<String>,
    /// Null for the first token of an echoed prompt.
    pub token_logprobs: Vec<Option<f32>>,
    pub top_logprobs: Vec<Option<TopLogprobs>>,
    /// In Unicode scalar values, from the start of the text that is returned.
    pub text_offset: Vec<usize>,
}

/// The most probable tokens at one position, by label: an object in JSON, highest first.
#[derive(Debug, Clone, PartialEq, utoipa::ToSchema)]
#[schema(value_type = std::collections::BTreeMap<String, f32>)]
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
