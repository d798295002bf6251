//! One request on its way from a route to the engine, whatever the endpoint.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName};

use super::answer::{Answer, Head, Wire};
use super::fields::{Shared, StreamOptions};
use super::prepare::{Best, Prepared};
use crate::engine::message::{Choice, Namespace};
use crate::http::limits::Share;
use crate::http::openai::account::Account;
use crate::http::openai::error::ApiError;
use crate::http::openai::json::{Fields, Known, missing};
use crate::http::openai::running::{Patience, Running};
use crate::http::openai::{body, names};
use crate::http::trace::Asked;
use crate::http::{App, Identity, RequestMetrics, Served, Trace};

/// Tells which seed was drawn for a request that had none.
const SEED_HEADER: HeaderName = HeaderName::from_static("x-millrace-seed");

/// One request, known to be for us.
#[derive(Debug)]
pub struct Call<'a> {
    pub app: &'a App,
    pub served: &'a Served,
    /// As the client named it.
    pub model: &'a str,
    pub identity: &'a Identity,
    /// Of the memory for bodies, until it is with the engine.
    share: Option<Share>,
    trace: Trace,
}

/// What of a request is needed beside the choices that it became.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub namespace: Namespace,
    pub priority: i32,
    pub seed: u64,
    pub stream: Option<StreamOptions>,
    /// What ids of answers begin with.
    pub id_prefix: &'static str,
    /// The field that prompts came in, for errors.
    pub param: &'static str,
}

impl<'a> Call<'a> {
    /// The model stands in the body.
    pub async fn by_body(
        app: &'a App,
        identity: &'a Identity,
        request: Request,
        known: Known,
    ) -> Result<(Self, Fields), ApiError> {
        let served = app.served()?;
        let trace = trace(&request);
        let (fields, share) = body::fields(request, known).await?;
        let Some(model) = fields.text("model")? else { return Err(missing("model")) };
        let model = names::find(&served.names, identity, model, Some("model"))?;
        Ok((Self { app, served, model, identity, share, trace }, fields))
    }

    /// The legacy routes, such as `/v1/engines/{engine}/completions`: the model stands in the path before
    /// `suffix`, and what the body says of it is ignored.
    pub async fn by_path(
        app: &'a App,
        identity: &'a Identity,
        request: Request,
        (suffix, known): (&str, Known),
    ) -> Result<(Self, Fields), ApiError> {
        let served = app.served()?;
        let engine = engine_segment(request.uri().path(), suffix);
        let model = names::find_in_path(&served.names, identity, engine, None)?;
        let trace = trace(&request);
        let (fields, share) = body::fields(request, known).await?;
        Ok((Self { app, served, model, identity, share, trace }, fields))
    }

    /// What holds for a request of these fields; draws its seed if it has none.
    pub fn terms(
        &self,
        shared: &Shared,
        id_prefix: &'static str,
        param: &'static str,
    ) -> Result<Terms, ApiError> {
        Ok(Terms {
            namespace: shared.namespace(self.identity.tenant()),
            priority: shared.priority,
            seed: match shared.seed {
                Some(seed) => seed,
                None => draw_seed(self.served)?,
            },
            stream: shared.stream,
            id_prefix,
            param,
        })
    }

    /// Hands the choices to the engine and answers in the words of `wire`.
    pub async fn answer<W: Wire>(
        self,
        terms: Terms,
        prepared: Prepared,
        wire: W,
    ) -> Result<Response, ApiError> {
        let Self { app, served, model, identity, share, trace } = self;
        // Its prompts are tokens now.
        drop(share);
        let Prepared { choices, states, best, prompt_tokens, longest, .. } = prepared;
        let patience =
            Patience { ping: app.config.sse_ping_interval, stall: app.config.engine_stall_timeout };
        let head = head(served, model, terms.id_prefix)?;
        let stream = terms.stream.is_some();
        let asked = asked(&head, served, stream, prompt_tokens, (&choices, best));
        let metrics = RequestMetrics::start(app, trace, choices.len());
        let whose = (terms.namespace, terms.priority);
        let new_tokens = choices.iter().map(|c| u64::from(c.max_new_tokens)).sum();
        let account = Account::open(identity, whose, (prompt_tokens as u64, new_tokens)).await?;
        let running = Running::submit(&served.engine, account, choices, patience)
            .map_err(|reason| ApiError::from_rejected(reason, longest.0, longest.1, terms.param))?;
        metrics.accepted(asked);
        let answer = Answer {
            head,
            wire,
            running,
            states,
            best,
            prompt_tokens,
            completion_tokens: 0,
            options: terms.stream.unwrap_or_default(),
            metrics: Some(metrics),
        };
        let mut response = if stream {
            answer.stream().await?
        } else {
            let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
            ([json], answer.collect().await?).into_response()
        };
        // As a client would send it: seeds are signed on the wire.
        response.headers_mut().insert(SEED_HEADER, HeaderValue::from(terms.seed as i64));
        Ok(response)
    }
}

/// The segment before `suffix`, as it came.
fn engine_segment<'p>(path: &'p str, suffix: &str) -> &'p str {
    let path = path.trim_end_matches('/');
    path.strip_suffix(suffix).unwrap_or(path).rsplit('/').next().unwrap_or_default()
}

fn head(served: &Served, model: &str, id_prefix: &str) -> Result<Head, ApiError> {
    let id = (u128::from(random()?) << 64) | u128::from(random()?);
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(Head {
        id: format!("{id_prefix}-{id:032x}"),
        created,
        model: model.to_owned(),
        fingerprint: served.fingerprint.clone(),
    })
}

/// Where to tell what becomes of a request.
fn trace(request: &Request) -> Trace {
    request.extensions().get().cloned().unwrap_or_default()
}

/// What the log and the spans say of a request.
fn asked(
    head: &Head,
    served: &Served,
    stream: bool,
    prompt_tokens: usize,
    (choices, best): (&[Choice], Best),
) -> Asked {
    let sampling = choices.first().map(|choice| &*choice.sampling);
    Asked {
        id: head.id.clone(),
        model: head.model.clone(),
        served: served.names.first().cloned().unwrap_or_default(),
        stream,
        prompt_tokens,
        max_tokens: choices.iter().map(|choice| choice.max_new_tokens).max().unwrap_or(0),
        temperature: sampling.map_or(1.0, |s| s.temperature),
        top_p: sampling.map_or(1.0, |s| s.top_p),
        choices: choices.len() / best.of.max(1) as usize * best.n as usize,
    }
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

/// From the operating system.
pub fn random() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| {
        tracing::error!(%error, "no random numbers from the operating system");
        ApiError::Internal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_stands_before_the_endpoint() {
        let engine = |path| engine_segment(path, "/completions");
        assert_eq!(engine("/v1/engines/a%2Fb+c/completions"), "a%2Fb+c");
        assert_eq!(engine("/openai/deployments/x/completions"), "x");
        assert_eq!(engine_segment("/v1/engines/x/chat/completions", "/chat/completions"), "x");
    }

    #[test]
    fn seeds_are_mixed_as_splitmix64_does() {
        // The first two numbers of the reference implementation for seed 0.
        assert_eq!(mix(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0, 1), 0x6e78_9e6a_a1b9_65f4);
    }
}
