//! `/v1/models` and its ancestor `/v1/engines`: one entry for each name that the model answers to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::ApiError;
use super::names;
use crate::http::{App, Identity, Served};

/// A model as OpenAI lists it, and what vLLM adds.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// The name that is shown first: the others are aliases of it.
    root: &'a str,
    /// Longest prompt and completion together, in tokens.
    max_model_len: usize,
    /// `instruct`: text prompts are rendered as a user turn of the chat template.
    prompt_format: &'static str,
}

/// The same in the words of the API before models: an engine.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Engine<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owner: &'static str,
    ready: bool,
    max_model_len: usize,
    prompt_format: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct List<T> {
    object: &'static str,
    data: Vec<T>,
}

const OWNER: &str = "millrace";

fn model<'a>(served: &'a Served, id: &'a str) -> Model<'a> {
    Model {
        id,
        object: "model",
        created: served.created_s,
        owned_by: OWNER,
        root: served.names.first().map_or(id, String::as_str),
        max_model_len: served.max_model_len,
        prompt_format: prompt_format(served, id),
    }
}

fn engine<'a>(served: &'a Served, id: &'a str) -> Engine<'a> {
    Engine {
        id,
        object: "engine",
        created: served.created_s,
        owner: OWNER,
        ready: true,
        max_model_len: served.max_model_len,
        prompt_format: prompt_format(served, id),
    }
}

fn prompt_format(served: &Served, name: &str) -> &'static str {
    if is_instruct(served, name) { "instruct" } else { "raw" }
}

/// Whether text prompts sent to `name` are rendered by the chat template.
pub(super) fn is_instruct(served: &Served, name: &str) -> bool {
    served.instruct.contains(name) && served.text.chat_template().is_some()
}

type Answer = Result<axum::response::Response, ApiError>;

fn json(body: &impl Serialize) -> axum::response::Response {
    axum::response::IntoResponse::into_response(Json(body))
}

/// `GET /v1/models`
pub(super) async fn list_models(State(app): State<Arc<App>>, identity: Identity) -> Answer {
    let served = app.served()?;
    let names = served.names.iter().filter(|name| identity.may_use(name));
    let data = names.map(|name| model(served, name)).collect();
    Ok(json(&List { object: "list", data }))
}

/// `GET /v1/models/{id}`, where the id may hold slashes.
pub(super) async fn get_model(State(app): State<Arc<App>>, identity: Identity, uri: Uri) -> Answer {
    let served = app.served()?;
    let id = names::find_in_path(&served.names, &identity, after(&uri, "/models/"), None)?;
    Ok(json(&model(served, id)))
}

/// `GET /v1/engines`
pub(super) async fn list_engines(State(app): State<Arc<App>>, identity: Identity) -> Answer {
    let served = app.served()?;
    let names = served.names.iter().filter(|name| identity.may_use(name));
    let data = names.map(|name| engine(served, name)).collect();
    Ok(json(&List { object: "list", data }))
}

/// `GET /v1/engines/{id}`
pub(super) async fn get_engine(
    State(app): State<Arc<App>>,
    identity: Identity,
    uri: Uri,
) -> Answer {
    let served = app.served()?;
    let id = names::find_in_path(&served.names, &identity, after(&uri, "/engines/"), None)?;
    Ok(json(&engine(served, id)))
}

/// What follows `prefix` in the path, as it came.
fn after<'a>(uri: &'a Uri, prefix: &str) -> &'a str {
    uri.path().split_once(prefix).map_or("", |(_, rest)| rest)
}
