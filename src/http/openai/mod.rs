//! The OpenAI API: routes, wire types, errors and server-sent events.
//!
//! * [`error`]: the only maker of error bodies.
//! * [`completions`]: `/v1/completions` and its legacy forms.
//! * [`models`], [`tokenize`]: what else a client asks of a model.
//! * [`body`], [`json`]: from bytes to bounded fields; [`names`]: from paths to models.
//! * [`large`]: where long texts are tokenised.
//! * [`running`], [`sse`]: a request on its way through the engine and back.

mod body;
pub mod completions;
pub mod error;
pub mod json;
mod large;
mod models;
mod names;
mod running;
mod sse;
mod tokenize;

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use http::Uri;

use self::error::ApiError;
use crate::http::App;

/// Paths and what answers there.
pub(super) type Routes = Vec<(&'static str, MethodRouter<Arc<App>>)>;

/// Everything under `/v1`, its legacy forms, and the tokenizer's routes. All of them want a key.
pub(super) fn routes() -> Routes {
    vec![
        ("/v1/completions", post(completions::by_body)),
        ("/v1/engines/{engine}/completions", post(completions::by_path)),
        ("/openai/deployments/{id}/completions", post(completions::by_path)),
        ("/v1/chat/completions", post(not_built)),
        ("/v1/engines/{engine}/chat/completions", post(not_built)),
        ("/openai/deployments/{id}/chat/completions", post(not_built)),
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

/// A part of the API that clients know and this server does not have yet. 404, not 501: the SDKs
/// would send the same request again after a 5xx.
async fn not_built(uri: Uri) -> ApiError {
    ApiError::EndpointNotSupported { path: uri.path().to_owned() }
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
