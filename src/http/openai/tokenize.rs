//! `/tokenize`, `/detokenize`, `/tokenizer_info`: vLLM's bodies, and llama.cpp's `content`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::json::{Fields, Input, Known};
use super::{body, large, names};
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

/// Most ids in one request to `/detokenize`: their text may be a hundred times as long as the body.
const IDS_MAX: usize = 1 << 20;

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
    let length = text.len();
    let work = move || encode(&vocabulary, &text, (special, add_bos), token_strs);
    let (tokens, token_strs) = at_its_place(length, work).await?;
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

/// Runs work on an input of that length, in bytes or tokens.
async fn at_its_place<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if length > large::INLINE_MAX { large::run(work).await } else { Ok(work()) }
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
    let ids = ids_to_decode(&mut fields, served.text.vocab())?;
    let vocabulary = served.text.clone();
    let length = ids.len();
    let prompt = at_its_place(length, move || vocabulary.decode(&ids, false)).await?;
    Ok(axum::Json(Prompt { prompt }).into_response())
}

fn ids_to_decode(fields: &mut Fields, vocab: usize) -> Result<Vec<TokenId>, ApiError> {
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
    if ids.len() > IDS_MAX {
        let message = format!("{} tokens are over the maximum of {IDS_MAX} - 'tokens'", ids.len());
        return Err(ApiError::invalid(message, "tokens"));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
        let message =
            format!("{id} is not a token of the vocabulary: ids are below {vocab} - 'tokens'");
        return Err(ApiError::invalid(message, "tokens"));
    }
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
fn check_model(fields: &Fields, served: &Served) -> Result<(), ApiError> {
    match fields.text("model")? {
        None => Ok(()),
        Some(model) => names::find(&served.names, model, Some("model")).map(|_| ()),
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
        for (n, last, part) in [
            (IDS_MAX + 1, "8", "1048577 tokens are over the maximum of 1048576"),
            (2, "9", "below 9"),
        ] {
            let error = ids(n, last).unwrap_err();
            assert_eq!((error.status().as_u16(), error.param()), (400, Some("tokens")));
            assert!(error.message().contains(part), "{}", error.message());
        }
    }
}
