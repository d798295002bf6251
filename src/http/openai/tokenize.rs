//! `/tokenize`, `/detokenize`, `/tokenizer_info`: vLLM's bodies, and llama.cpp's `content`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::json::{Fields, Input, Known};
use super::{body, names};
use crate::engine::message::TokenId;
use crate::http::{App, Served};
use crate::text::Text;

const TOKENIZE: Known = Known {
    fields: &[
        "model",
        "add_special_tokens",
        "add_special",
        "parse_special",
        "return_token_strs",
        "with_pieces",
        "messages",
    ],
    inputs: &["prompt", "content"],
};

const DETOKENIZE: Known = Known { fields: &["model"], inputs: &["tokens"] };

/// Texts longer than this are tokenised off the async threads.
const INLINE_BYTES_MAX: usize = 4_096;

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "names of the wire format")]
struct Tokens {
    tokens: Vec<TokenId>,
    count: usize,
    max_model_len: usize,
    /// Null unless `return_token_strs`.
    token_strs: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct Prompt {
    prompt: String,
}

#[derive(Debug, Serialize)]
struct Info<'a> {
    tokenizer_class: &'static str,
    bos_token: Option<String>,
    eos_token: Option<String>,
    add_bos_token: bool,
    vocab_size: usize,
    model_max_length: usize,
    chat_template: Option<&'a str>,
}

/// `POST /tokenize`
pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = app.served()?;
    let mut fields = body::fields(request, TOKENIZE).await?;
    check_model(&fields, served)?;
    if fields.get("messages").is_some() {
        return Err(ApiError::not_supported("messages"));
    }
    if fields.boolean("with_pieces")? == Some(true) {
        return Err(ApiError::not_supported("with_pieces"));
    }
    let (text, special, add_bos) = text_to_encode(&mut fields)?;
    let token_strs = fields.boolean("return_token_strs")?.unwrap_or(false);
    let vocabulary = served.text.clone();
    let large = text.len() > INLINE_BYTES_MAX;
    let work = move || encode(&vocabulary, &text, (special, add_bos), token_strs);
    let (tokens, token_strs) = if large { body::blocking(work).await? } else { work() };
    let count = tokens.len();
    let max_model_len = served.max_model_len;
    Ok(axum::Json(Tokens { tokens, count, max_model_len, token_strs }).into_response())
}

/// The text, whether special tokens in it are read as such, and whether BOS is put in front: vLLM's
/// defaults for `prompt`, llama.cpp's for `content`.
fn text_to_encode(fields: &mut Fields) -> Result<(String, bool, bool), ApiError> {
    let special = fields.boolean("parse_special")?.unwrap_or(true);
    let vllm = fields.boolean("add_special_tokens")?;
    let llama = fields.boolean("add_special")?;
    let (input, name, add_bos) = match (fields.take_input("prompt"), fields.take_input("content")) {
        (Some(input), None) => (input, "prompt", vllm.or(llama).unwrap_or(true)),
        (None, Some(input)) => (input, "content", llama.or(vllm).unwrap_or(false)),
        (None, None) => {
            return Err(ApiError::invalid("A text is required - 'prompt'", "prompt"));
        }
        (Some(_), Some(_)) => {
            let message = "Only one of 'prompt' and 'content' is allowed - 'content'";
            return Err(ApiError::invalid(message, "content"));
        }
    };
    match input {
        Input::Text(text) => Ok((text, special, add_bos)),
        _ => Err(ApiError::invalid(format!("The text must be a string - '{name}'"), name)),
    }
}

fn encode(
    vocabulary: &Text,
    text: &str,
    (special, add_bos): (bool, bool),
    token_strs: bool,
) -> (Vec<TokenId>, Option<Vec<String>>) {
    let tokens = vocabulary.encode(text, special, add_bos);
    let strs = token_strs.then(|| tokens.iter().map(|&id| vocabulary.token_label(id)).collect());
    (tokens, strs)
}

/// `POST /detokenize`
pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = app.served()?;
    let mut fields = body::fields(request, DETOKENIZE).await?;
    check_model(&fields, served)?;
    let ids = match fields.take_input("tokens") {
        Some(Input::Ids(ids)) => ids,
        Some(_) => {
            let message = "The tokens must be a list of token ids - 'tokens'";
            return Err(ApiError::invalid(message, "tokens"));
        }
        None => {
            return Err(ApiError::invalid("A list of tokens is required - 'tokens'", "tokens"));
        }
    };
    let vocab = served.text.vocab();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
        let message =
            format!("{id} is not a token of the vocabulary: ids are below {vocab} - 'tokens'");
        return Err(ApiError::invalid(message, "tokens"));
    }
    let vocabulary = served.text.clone();
    let large = ids.len() > INLINE_BYTES_MAX;
    let work = move || vocabulary.decode(&ids, false);
    let prompt = if large { body::blocking(work).await? } else { work() };
    Ok(axum::Json(Prompt { prompt }).into_response())
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
fn check_model(fields: &Fields, served: &Served) -> Result<(), ApiError> {
    match fields.text("model")? {
        None => Ok(()),
        Some(model) => names::find(&served.names, model, Some("model")).map(|_| ()),
    }
}
