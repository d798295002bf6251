//! Probes. Live: restarting would not help. Ready: new requests are welcome.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::state::State;

/// What a probe is told.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// Why it is not `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Which server this is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Version {
    version: &'static str,
}

/// `/health/live`: 503 only for what a restart repairs: an engine that hangs or ended by itself. A
/// server that loads or drains is alive, and one without work never hangs.
pub(super) async fn live(Shared(app): Shared<Arc<App>>) -> Response {
    match app.state() {
        State::Failed => answer(State::Failed),
        _ if app.stalled() => answer(State::Stalled),
        // Said in the words of a live server, whatever it is doing.
        _ => answer(State::Ready),
    }
}

/// `/health/ready` and `/health`.
pub(super) async fn ready(Shared(app): Shared<Arc<App>>) -> Response {
    answer(match app.state() {
        State::Ready if app.leaving.is_cancelled() => State::Draining,
        state => state,
    })
}

fn answer(state: State) -> Response {
    let reason = match state {
        State::Ready => None,
        State::Loading => Some("model_loading"),
        State::Draining => Some("shutting_down"),
        State::Stalled => Some("engine_stalled"),
        State::Failed => Some("engine_failed"),
    };
    let (status, word) = match reason {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (status, [(CACHE_CONTROL, "no-store")], Json(Health { status: word, reason })).into_response()
}

/// `/version`.
pub(super) async fn version() -> Response {
    Json(Version { version: env!("CARGO_PKG_VERSION") }).into_response()
}
