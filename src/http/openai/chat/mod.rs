//! `POST /v1/chat/completions` and its two legacy forms.
//!
//! [`types`] is what goes over the wire; [`messages`] and [`tools`] are its two large fields,
//! [`conversation`] what of them becomes a text, by [`prompt`]; [`validate`] bounds the rest, [`convert`] makes it
//! tokens; [`calls`] finds tool calls in
//! the answer, [`wire`] writes it. The rest is [`super::generation`]'s.

pub mod calls;
pub mod conversation;
mod convert;
pub mod messages;
pub mod prompt;
pub mod tools;
pub mod types;
pub mod validate;
pub mod wire;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use self::convert::Setting;
use self::types::{KNOWN, KNOWN_BY_PATH};
use self::validate::validate;
use self::wire::Chat;
use super::error::ApiError;
use super::generation::call::{Call, random};
#[cfg(feature = "fake-model")]
use super::generation::fields::Bounds;
use super::json::Fields;
use super::structured;
use crate::http::{App, Identity};
#[cfg(feature = "fake-model")]
use crate::model::load::SamplingDefaults;

/// `POST /v1/chat/completions`: the model stands in the body.
pub async fn by_body(
    State(app): State<Arc<App>>,
    identity: Identity,
    request: Request,
) -> Result<Response, ApiError> {
    let (call, fields) = Call::by_body(&app, &identity, request, KNOWN).await?;
    complete(call, fields).await
}

/// The legacy routes: the model stands in the path.
pub async fn by_path(
    State(app): State<Arc<App>>,
    identity: Identity,
    request: Request,
) -> Result<Response, ApiError> {
    let form = ("/chat/completions", KNOWN_BY_PATH);
    let (call, fields) = Call::by_path(&app, &identity, request, form).await?;
    complete(call, fields).await
}

async fn complete(call: Call<'_>, fields: Fields) -> Result<Response, ApiError> {
    let Call { app, served, .. } = call;
    let bounds = served.bounds(app.config.limits);
    let default_max_tokens = app.config.default_max_tokens;
    let mut checked = validate(&fields, bounds, default_max_tokens)?;
    drop(fields);
    let wanted = calls::grammar::wanted(&checked.conversation.tools, checked.shared.wanted.take())?;
    let setting = Setting {
        text: served.text.clone(),
        calls_only_in_tags: wanted.is_some(),
        grammar: structured::compile(&served.grammars, wanted).await?,
        max_model_len: served.max_model_len,
        default_max_tokens,
    };
    let terms = call.terms(&checked.shared, "chatcmpl", "messages")?;
    let legacy = checked.conversation.tools.legacy;
    let (prepared, calls) = convert::prepare(checked, setting, terms.seed).await?;
    let choices = prepared.choices.len();
    let wire = Chat::new(prepared.rules.clone(), Arc::new(calls), legacy, (choices, random()?));
    call.answer(terms, prepared, wire).await
}

/// A body on its way to the engine, without a server, on this thread; no grammar is compiled.
#[cfg(feature = "fake-model")]
pub(crate) fn prepare(
    body: &[u8],
    text: &crate::text::Text,
    max_model_len: usize,
) -> Result<super::generation::prepare::Prepared, ApiError> {
    let limits = crate::config::RequestLimits::default();
    let default_max_tokens = max_model_len / 4;
    let fields = super::json::parse(body, KNOWN)?;
    let bounds = Bounds { vocab: text.vocab(), limits, defaults: SamplingDefaults::OPENAI };
    let mut checked = validate(&fields, bounds, default_max_tokens)?;
    let wanted = calls::grammar::wanted(&checked.conversation.tools, checked.shared.wanted.take())?;
    let setting = Setting {
        text: text.clone(),
        grammar: None,
        calls_only_in_tags: wanted.is_some(),
        max_model_len,
        default_max_tokens,
    };
    convert::prepare_here(&checked, &setting, 0).map(|(prepared, _)| prepared)
}
