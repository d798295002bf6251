//! `/tokenize`, `/detokenize`, `/tokenizer_info`: vLLM's bodies, and llama.cpp's `content`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::chat::conversation::Conversation;
use super::chat::types::{CONVERSATION, MESSAGES};
use super::error::ApiError;
use super::json::{Field, Fields, Form, Input, Kind, Known, check_ids};
use super::{body, large, names};
use crate::engine::message::TokenId;
use crate::http::{App, Identity, Served};
use crate::text::Text;

const MODEL: Field =
    Field::new("model", Kind::TEXT).about("One of the names in `/v1/models`; all are one model.");

pub(in crate::http) const TOKENIZE: Known = Known(&[TEXT, &[MESSAGES], CONVERSATION]);

const TEXT: &[Field] = &[
    MODEL,
    Field::new("prompt", Kind::Input(&[Form::Text])).about("The text."),
    Field::new("content", Kind::Input(&[Form::Text]))
        .about("llama.cpp's name of `prompt`; BOS is then off by default."),
    Field::new("add_special_tokens", Kind::Boolean).about(
        "Put the model's BOS in front, if it has one; true for `prompt`, false for `messages`.",
    ),
    Field::new("add_special", Kind::Boolean).about("llama.cpp's name of `add_special_tokens`."),
    Field::new("parse_special", Kind::Boolean)
        .default("true")
        .about("Special tokens that are written in the text are read as such."),
    Field::new("return_token_strs", Kind::Boolean)
        .default("false")
        .about("Fill `token_strs` with the text of each token."),
    Field::new("with_pieces", Kind::Boolean)
        .default("false")
        .about("llama.cpp's form: each token as an object of `id` and `piece`."),
];

pub(in crate::http) const DETOKENIZE: Known = Known(&[&[
    MODEL,
    Field::new("tokens", Kind::Input(&[Form::Ids { min: 0 }])).required().about("Token ids."),
]]);

/// Most ids in one request to `/detokenize`: their text may be a hundred times as long as the body.
const IDS_MAX: usize = 1 << 20;

#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "names of the wire format")]
pub(in crate::http) struct Tokens {
    #[schema(value_type = Vec<Token>)]
    tokens: TokenList,
    count: usize,
    max_model_len: usize,
    /// Null unless `return_token_strs`.
    #[schema(required)]
    token_strs: Option<Vec<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Prompt {
    prompt: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Info<'a> {
    tokenizer_class: &'static str,
    #[schema(required)]
    bos_token: Option<String>,
    #[schema(required)]
    eos_token: Option<String>,
    add_bos_token: bool,
    vocab_size: usize,
    model_max_length: usize,
    #[schema(required)]
    chat_template: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum TokenList {
    Ids(Vec<TokenId>),
    Pieces(Vec<Pieced>),
}

/// An id, or with `with_pieces` what it stands for, too.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema of what `TokenList` writes")]
enum Token {
    Id(#[schema(inline)] TokenId),
    Pieced(Pieced),
}

#[derive(Debug, Serialize, ToSchema)]
struct Pieced {
    #[schema(value_type = u32)]
    id: TokenId,
    piece: Piece,
}

/// A text, or its bytes where they are not UTF-8 by themselves.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// `POST /tokenize`
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    identity: Identity,
    request: Request,
) -> Result<Response, ApiError> {
    let served = app.served()?;
    let (mut fields, _share) = body::fields(request, TOKENIZE).await?;
    check_model(&fields, served, &identity)?;
    let given = Given::check(&mut fields)?;
    let shown = Shown {
        strs: fields.boolean("return_token_strs")?.unwrap_or(false),
        pieces: fields.boolean("with_pieces")?.unwrap_or(false),
        max_model_len: served.max_model_len,
    };
    let vocabulary = served.text.clone();
    let (length, is_chat) = (given.bytes(), matches!(given, Given::Chat(_)));
    let work = move || Ok::<_, ApiError>(shown.of(&vocabulary, given.encode(&vocabulary)?));
    // A template is a program: small ones, too, keep no async thread.
    let tokens = if is_chat && length <= large::INLINE_MAX {
        body::blocking(work).await??
    } else {
        at_its_place(length, work).await??
    };
    Ok(axum::Json(tokens).into_response())
}

/// What is to be encoded.
enum Given {
    /// Whether special tokens in it are read as such, and whether BOS is put in front.
    Text {
        text: String,
        special: bool,
        add_bos: bool,
    },
    Chat(Conversation),
}

impl Given {
    fn check(fields: &mut Fields) -> Result<Self, ApiError> {
        let only = |name: &'static str| {
            let message =
                format!("Only one of 'prompt', 'content' and 'messages' is allowed - '{name}'");
            Err(ApiError::invalid(message, name))
        };
        // vLLM's defaults for `prompt`, llama.cpp's for `content`.
        let special = fields.boolean("parse_special")?.unwrap_or(true);
        let vllm = fields.boolean("add_special_tokens")?;
        let llama = fields.boolean("add_special")?;
        let (prompt, content) = (fields.take_input("prompt"), fields.take_input("content"));
        let (input, add_bos) = match (prompt, content, fields.get("messages")) {
            (None, None, Some(_)) => return Ok(Self::Chat(Conversation::check(fields)?)),
            (Some(input), None, None) => (input, vllm.or(llama).unwrap_or(true)),
            (None, Some(input), None) => (input, llama.or(vllm).unwrap_or(false)),
            (None, None, None) => {
                return Err(ApiError::invalid("A text is required - 'prompt'", "prompt"));
            }
            (_, _, Some(_)) => return only("messages"),
            (Some(_), Some(_), None) => return only("content"),
        };
        Conversation::check_unused(fields)?;
        let text = if let Input::Text(text) = input { text } else { String::new() };
        Ok(Self::Text { text, special, add_bos })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len(),
            Self::Chat(conversation) => conversation.bytes(),
        }
    }

    fn encode(&self, vocabulary: &Text) -> Result<Vec<TokenId>, ApiError> {
        match self {
            Self::Text { text, special, add_bos } => {
                Ok(vocabulary.encode(text, *special, *add_bos))
            }
            Self::Chat(conversation) => Ok(conversation.encode(vocabulary)?.0),
        }
    }
}

/// What an answer is to show beside the ids.
#[derive(Debug, Clone, Copy)]
struct Shown {
    strs: bool,
    pieces: bool,
    max_model_len: usize,
}

impl Shown {
    fn of(self, vocabulary: &Text, ids: Vec<TokenId>) -> Tokens {
        let label = |&id: &TokenId| vocabulary.token_label(id);
        let piece = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => Piece::Text(text.to_owned()),
            Err(_) => Piece::Bytes(bytes.to_vec()),
        };
        let pieced = |id| Pieced { id, piece: piece(vocabulary.token_bytes(id)) };
        Tokens {
            count: ids.len(),
            max_model_len: self.max_model_len,
            token_strs: self.strs.then(|| ids.iter().map(label).collect()),
            tokens: if self.pieces {
                TokenList::Pieces(ids.into_iter().map(pieced).collect())
            } else {
                TokenList::Ids(ids)
            },
        }
    }
}

/// Runs work on an input of that length, in bytes or tokens.
async fn at_its_place<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if length > large::INLINE_MAX { large::run(work).await } else { Ok(work()) }
}

/// `POST /detokenize`
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    identity: Identity,
    request: Request,
) -> Result<Response, ApiError> {
    let served = app.served()?;
    let (mut fields, _share) = body::fields(request, DETOKENIZE).await?;
    check_model(&fields, served, &identity)?;
    let ids = ids_to_decode(&mut fields, served.text.vocab())?;
    let vocabulary = served.text.clone();
    let length = ids.len();
    let prompt = at_its_place(length, move || vocabulary.decode(&ids, false)).await?;
    Ok(axum::Json(Prompt { prompt }).into_response())
}

fn ids_to_decode(fields: &mut Fields, vocab: usize) -> Result<Vec<TokenId>, ApiError> {
    let Some(Input::Ids(ids)) = fields.take_input("tokens") else { return Ok(Vec::new()) };
    if ids.len() > IDS_MAX {
        let message = format!("{} tokens are over the maximum of {IDS_MAX} - 'tokens'", ids.len());
        return Err(ApiError::invalid(message, "tokens"));
    }
    check_ids(&ids, vocab, "tokens")?;
    Ok(ids)
}

/// `GET /tokenizer_info`: what evaluation harnesses ask for before they tokenise by `/tokenize`.
pub(super) async fn info(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let served = app.served()?;
    let text = &served.text;
    let label = |id: Option<TokenId>| id.map(|id| text.token_label(id));
    let info = Info {
        tokenizer_class: "millrace",
        bos_token: label(text.bos()),
        eos_token: label(text.eos()),
        add_bos_token: text.adds_bos(),
        vocab_size: text.vocab(),
        model_max_length: served.max_model_len,
        chat_template: text.chat_template(),
    };
    Ok(axum::Json(info).into_response())
}

/// `model` is optional here, but a wrong one is still wrong.
fn check_model(fields: &Fields, served: &Served, identity: &Identity) -> Result<(), ApiError> {
    match fields.text("model")? {
        None => Ok(()),
        Some(model) => names::find(&served.names, identity, model, Some("model")).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openai::json::parse;

    #[test]
    fn ids_to_decode_are_bounded_in_number_and_by_the_vocabulary() {
        let ids = |n: usize, last: &str| {
            let body = format!(r#"{{"tokens": [{}{last}]}}"#, "1,".repeat(n - 1));
            ids_to_decode(&mut parse(body.as_bytes(), DETOKENIZE).unwrap(), 9)
        };
        assert_eq!(ids(IDS_MAX, "8").unwrap().len(), IDS_MAX);
        for (n, last, param, part) in [
            (IDS_MAX + 1, "8", "tokens", "1048577 tokens are over the maximum of 1048576"),
            (2, "9", "tokens[1]", "below 9"),
        ] {
            let error = ids(n, last).unwrap_err();
            assert_eq!((error.status().as_u16(), error.param()), (400, Some(param)));
            assert!(error.message().contains(part), "{}", error.message());
        }
    }
}
