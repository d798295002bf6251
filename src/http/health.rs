//! Probes. Live: restarting would not help. Ready: new requests are welcome.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::App;
use super::state::State;

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
    answer(app.state())
}

fn answer(state: State) -> Response {
    let (status, body) = match state {
        State::Ready => (StatusCode::OK, r#"{"status":"ok"}"#),
        State::Loading => unavailable(r#"{"status":"unavailable","reason":"model_loading"}"#),
        State::Draining => unavailable(r#"{"status":"unavailable","reason":"shutting_down"}"#),
        State::Stalled => unavailable(r#"{"status":"unavailable","reason":"engine_stalled"}"#),
        State::Failed => unavailable(r#"{"status":"unavailable","reason":"engine_failed"}"#),
    };
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

fn unavailable(body: &'static str) -> (StatusCode, &'static str) {
    (StatusCode::SERVICE_UNAVAILABLE, body)
}

/// `/version`.
pub(super) async fn version() -> Response {
    let body = concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
