//! Cross-origin requests of browsers: off, unless `--cors-origins` lists who may send them.
//!
//! Written by hand because ready-made layers answer every OPTIONS request themselves, whoever sent
//! it. Here only a preflight of a listed origin passes the guard; any other OPTIONS is a request like
//! all.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use http::{HeaderMap, Method, StatusCode};

use super::App;

/// Lists every origin. Keys are in a header that no browser adds by itself, so this is no hole.
const ANY: &str = "*";

/// What pages may read of an answer's head, beside what browsers always show.
const EXPOSED: &str = "X-Request-ID, request-id, Retry-After, retry-after-ms, x-should-retry, \
    x-millrace-seed, openai-processing-ms, openai-version, openai-organization, WWW-Authenticate, \
    x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, \
    x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens";

/// Longest time, in seconds, that browsers remember a preflight (Chrome's own limit).
const MAX_AGE_S: &str = "7200";

/// The layer.
pub(super) async fn allow(State(app): State<Arc<App>>, req: Request, next: Next) -> Response {
    let Some(origin) = listed(&app.config.cors_origins, req.headers()) else {
        return next.run(req).await;
    };
    let preflight = *req.method() == Method::OPTIONS
        && req.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        if let Some(asked) = req.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
            // SDKs send a dozen `x-stainless-…` headers; what may not be sent is up to the guard.
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        let methods = HeaderValue::from_static("GET, HEAD, POST");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
        response
    } else {
        let mut response = next.run(req).await;
        let exposed = HeaderValue::from_static(EXPOSED);
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        response
    };
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    response
}

/// The request's origin, if it may send requests.
fn listed(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    origins.iter().any(|o| o == ANY || o.eq_ignore_ascii_case(text)).then(|| origin.clone())
}
