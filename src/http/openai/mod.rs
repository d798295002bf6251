//! The OpenAI API: routes, wire types, errors and server-sent events.
//!
//! * [`error`]: the only maker of error bodies.
//! * [`completions`]: `/v1/completions` and its legacy forms; [`chat`]: `/v1/chat/completions`.
//! * [`generation`]: what all endpoints share that generate text.
//! * [`models`], [`tokenize`]: what else a client asks of a model.
//! * [`body`], [`json`]: from bytes to bounded fields; [`names`]: from paths to models.
//! * [`structured`]: what an answer must be, compiled; [`large`]: where long work is done.
//! * [`account`]: what a request costs its key.
//! * [`running`], [`sse`]: a request on its way through the engine and back.

pub mod account;
mod body;
pub mod chat;
pub mod completions;
pub mod error;
pub mod generation;
pub mod json;
mod large;
pub(super) mod models;
mod names;
pub mod running;
mod sse;
pub mod structured;
pub(super) mod tokenize;

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};

pub(super) use self::account::limited;
use crate::http::App;

/// Paths and what answers there.
pub(super) type Routes = Vec<(&'static str, MethodRouter<Arc<App>>)>;

/// Everything under `/v1`, its legacy forms, and the tokenizer's routes. All of them want a key.
pub(super) fn routes() -> Routes {
    vec![
        ("/v1/completions", post(completions::by_body)),
        ("/v1/engines/{engine}/completions", post(completions::by_path)),
        ("/openai/deployments/{id}/completions", post(completions::by_path)),
        ("/v1/chat/completions", post(chat::by_body)),
        ("/v1/engines/{engine}/chat/completions", post(chat::by_path)),
        ("/openai/deployments/{id}/chat/completions", post(chat::by_path)),
        ("/v1/models", get(models::list_models)),
        ("/v1/models/{*id}", get(models::get_model)),
        ("/v1/engines", get(models::list_engines)),
        ("/v1/engines/{engine}", get(models::get_engine)),
        ("/tokenize", post(tokenize::tokenize)),
        ("/v1/tokenize", post(tokenize::tokenize)),
        ("/detokenize", post(tokenize::detokenize)),
        ("/v1/detokenize", post(tokenize::detokenize)),
        ("/tokenizer_info", get(tokenize::info)),
        ("/v1/tokenizer_info", get(tokenize::info)),
    ]
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
