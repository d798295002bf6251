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

use axum::Router;
use axum::routing::{get, post};
use http::Uri;

use self::error::ApiError;
use crate::http::App;

/// Everything under `/v1`, its legacy forms, and the tokenizer's routes. All of them want a key.
pub fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/v1/completions", post(completions::by_body))
        .route("/v1/engines/{engine}/completions", post(completions::by_path))
        .route("/openai/deployments/{id}/completions", post(completions::by_path))
        .route("/v1/chat/completions", post(not_built))
        .route("/v1/engines/{engine}/chat/completions", post(not_built))
        .route("/openai/deployments/{id}/chat/completions", post(not_built))
        .route("/v1/models", get(models::list_models))
        .route("/v1/models/{*id}", get(models::get_model))
        .route("/v1/engines", get(models::list_engines))
        .route("/v1/engines/{engine}", get(models::get_engine));
    for prefix in ["", "/v1"] {
        router = router
            .route(&format!("{prefix}/tokenize"), post(tokenize::tokenize))
            .route(&format!("{prefix}/detokenize"), post(tokenize::detokenize))
            .route(&format!("{prefix}/tokenizer_info"), get(tokenize::info));
    }
    router
}

/// A part of the API that clients know and this server does not have yet. 404, not 501: the SDKs
/// would send the same request again after a 5xx.
async fn not_built(uri: Uri) -> ApiError {
    ApiError::EndpointNotSupported { path: uri.path().to_owned() }
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
