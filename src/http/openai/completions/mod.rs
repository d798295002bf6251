//! `POST /v1/completions` and its two legacy forms.
//!
//! [`types`] is what goes over the wire, [`validate`] bounds it, [`convert`] makes it the engine's,
//! [`assemble`] and [`answer`] turn the engine's events into what is sent back.

mod answer;
mod assemble;
mod convert;
pub mod types;
pub mod validate;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Uri};

use self::answer::{Answer, Head};
use self::convert::{Prepared, Setting};
use self::types::KNOWN;
use self::validate::{Bounds, validate};
use super::error::ApiError;
use super::json::Fields;
use super::running::{Patience, Running};
use super::{body, models, names};
use crate::engine::message::{Namespace, Tenant};
use crate::http::{App, Identity, RequestMetrics, Served};

/// Tells which seed was drawn for a request that had none.
const SEED_HEADER: HeaderName = HeaderName::from_static("x-millrace-seed");

/// `POST /v1/completions`: the model stands in the body.
pub async fn by_body(
    State(app): State<Arc<App>>,
    identity: Option<Extension<Identity>>,
    request: Request,
) -> Result<Response, ApiError> {
    let served = app.served()?;
    let fields = body::fields(request, KNOWN).await?;
    let Some(model) = fields.text("model")? else {
        return Err(ApiError::invalid("you must provide a model parameter", "model"));
    };
    let model = names::find(&served.names, model, Some("model"))?;
    let tenant = identity.map_or_else(Tenant::default, |Extension(identity)| identity.tenant);
    complete(Call { app: &app, served, model, tenant }, fields).await
}

/// The legacy routes: the model stands in the path, and what the body says of it is ignored.
pub async fn by_path(
    State(app): State<Arc<App>>,
    identity: Option<Extension<Identity>>,
    uri: Uri,
    request: Request,
) -> Result<Response, ApiError> {
    let served = app.served()?;
    let model = names::find_in_path(&served.names, engine_segment(uri.path()), None)?;
    let fields = body::fields(request, KNOWN).await?;
    let tenant = identity.map_or_else(Tenant::default, |Extension(identity)| identity.tenant);
    complete(Call { app: &app, served, model, tenant }, fields).await
}

/// The last but one segment of `/v1/engines/{engine}/completions`, as it came.
fn engine_segment(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').nth(1).unwrap_or_default()
}

/// One request, known to be for us.
struct Call<'a> {
    app: &'a App,
    served: &'a Served,
    /// As the client named it.
    model: &'a str,
    tenant: Tenant,
}

async fn complete(call: Call<'_>, fields: Fields) -> Result<Response, ApiError> {
    let Call { app, served, model, tenant } = call;
    let checked = validate(fields, Bounds { vocab: served.text.vocab() })?;
    let setting = Setting {
        text: served.text.clone(),
        max_model_len: served.max_model_len,
        instruct: models::is_instruct(served, model),
    };
    let seed = match checked.seed {
        Some(seed) => seed,
        None => draw_seed(served)?,
    };
    let (stream, include_usage) = (checked.stream, checked.include_usage);
    let whose = (Namespace { tenant, salt: checked.cache_salt }, checked.priority);
    let logprobs = checked.logprobs.is_some();
    let Prepared { choices, states, prompt_tokens, longest } =
        convert::prepare(checked, setting, seed).await?;
    let patience =
        Patience { ping: app.config.sse_ping_interval, stall: app.config.engine_stall_timeout };
    let metrics = RequestMetrics::start(app, choices.len());
    let running = Running::submit(&served.engine, whose, choices, patience)
        .map_err(|rejected| ApiError::from_rejected(rejected, longest.0, longest.1, "prompt"))?;
    let answer = Answer {
        head: head(served, model)?,
        running,
        states,
        prompt_tokens,
        logprobs,
        include_usage,
        metrics: Some(metrics),
    };
    let mut response = if stream {
        answer.stream().await?
    } else {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        ([json], answer.collect().await?).into_response()
    };
    // As a client would send it: seeds are signed on the wire.
    response.headers_mut().insert(SEED_HEADER, HeaderValue::from(seed as i64));
    Ok(response)
}

fn head(served: &Served, model: &str) -> Result<Head, ApiError> {
    let id = (u128::from(random()?) << 64) | u128::from(random()?);
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(Head {
        id: format!("cmpl-{id:032x}"),
        created,
        model: model.to_owned(),
        fingerprint: served.fingerprint.clone(),
    })
}

/// A seed that every JSON parser can send back without loss. With a seed of the server's own, it is
/// drawn by the next of the engine's ids, which submissions take as well: the same requests, one after
/// another from the start, get the same seeds, but the n-th request need not get the n-th.
fn draw_seed(served: &Served) -> Result<u64, ApiError> {
    let bits = match served.server_seed {
        Some(seed) => mix(seed, served.engine.next_id().0),
        None => random()?,
    };
    Ok(bits >> 11)
}

/// The `n`-th number of `SplitMix64`.
fn mix(seed: u64, n: u64) -> u64 {
    let z = seed.wrapping_add((n.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn random() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| {
        tracing::error!(%error, "no random numbers from the operating system");
        ApiError::Internal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_stands_before_the_last_segment() {
        assert_eq!(engine_segment("/v1/engines/a%2Fb+c/completions"), "a%2Fb+c");
        assert_eq!(engine_segment("/openai/deployments/x/completions"), "x");
    }

    #[test]
    fn seeds_are_mixed_as_splitmix64_does() {
        // The first two numbers of the reference implementation for seed 0.
        assert_eq!(mix(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0, 1), 0x6e78_9e6a_a1b9_65f4);
    }
}
