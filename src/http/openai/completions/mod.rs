//! `POST /v1/completions` and its two legacy forms.
//!
//! [`types`] is what goes over the wire, [`validate`] bounds it, [`convert`] makes it tokens, [`wire`]
//! writes what is sent back. The rest is [`super::generation`]'s.

mod convert;
pub mod types;
pub mod validate;
pub mod wire;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use self::convert::Setting;
use self::types::{KNOWN, KNOWN_BY_PATH};
use self::validate::validate;
use self::wire::Completions;
use super::error::ApiError;
use super::generation::call::Call;
#[cfg(feature = "fake-model")]
use super::generation::fields::Bounds;
use super::json::Fields;
use super::{models, structured};
use crate::http::{App, Identity};
#[cfg(feature = "fake-model")]
use crate::model::load::SamplingDefaults;

/// `POST /v1/completions`: the model stands in the body.
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
    let form = ("/completions", KNOWN_BY_PATH);
    let (call, fields) = Call::by_path(&app, &identity, request, form).await?;
    complete(call, fields).await
}

async fn complete(call: Call<'_>, fields: Fields) -> Result<Response, ApiError> {
    let Call { served, model, .. } = call;
    let bounds = served.bounds(call.app.config.limits);
    let mut checked = validate(fields, bounds)?;
    let setting = Setting {
        text: served.text.clone(),
        grammar: structured::compile(&served.grammars, checked.shared.wanted.take()).await?,
        max_model_len: served.max_model_len,
        instruct: models::is_instruct(served, model),
    };
    let terms = call.terms(&checked.shared, "cmpl", "prompt")?;
    let prepared = convert::prepare(checked, setting, terms.seed).await?;
    let wire = Completions { rules: prepared.rules.clone() };
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
    let fields = super::json::parse(body, KNOWN)?;
    let checked = validate(
        fields,
        Bounds { vocab: text.vocab(), limits, defaults: SamplingDefaults::OPENAI },
    )?;
    let text = text.clone();
    let setting = Setting { text, grammar: None, max_model_len, instruct: true };
    convert::prepare_here(checked, &setting, 0)
}
