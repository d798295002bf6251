//! Who may do what: deny by default over an explicit list of public routes.
//!
//! A key in clear exists only here, for the length of a hash: the header is taken out of the request
//! before anything else sees it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, Method};

use super::App;
use super::access_log::Trace;
use super::openai::error::ApiError;
use crate::config::AuthConfig;
use crate::engine::message::Tenant;
use crate::keys;
use crate::telemetry::metrics::AUTH_FAILURES_TOTAL;

/// GET and HEAD on exactly these paths need no key. Everything else does: other methods, other
/// spellings, paths that do not exist.
const PUBLIC: [&str; 4] = ["/health", "/health/live", "/health/ready", "/version"];

/// Public unless `--metrics-require-key`.
const METRICS: &str = "/metrics";

/// Where Azure's clients send their key in a header of its own.
const AZURE_PREFIX: &str = "/openai/deployments/";
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Hosts by which a keyless server may be addressed. Any other name means that some web page got a
/// browser to talk to it (DNS rebinding).
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Who sent a request. In the extensions of every request that needed a key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What logs call the key; `None` on a keyless server.
    pub key_id: Option<Arc<str>>,
    pub tenant: Tenant,
}

/// Which requests pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Those with a key.
    Keys,
    /// All that are addressed to this machine by a local name.
    LocalHost,
    /// All.
    Open,
}

impl Access {
    pub(super) fn new(auth: &AuthConfig) -> Self {
        match (auth.allow_unauthenticated, auth.i_know_this_is_open) {
            (false, _) => Self::Keys,
            (true, false) => Self::LocalHost,
            (true, true) => Self::Open,
        }
    }
}

/// The layer: lets a request through with its [`Identity`], or answers 401 or 403.
pub(super) async fn guard(State(app): State<Arc<App>>, mut req: Request, next: Next) -> Response {
    let identity = match app.access {
        Access::Open => Identity { key_id: None, tenant: Tenant::default() },
        Access::LocalHost if is_local(&req) => Identity { key_id: None, tenant: Tenant::default() },
        Access::LocalHost => return ApiError::HostNotAllowed.into_response(),
        Access::Keys if is_public(&app, &req) => {
            hide_keys(req.headers_mut());
            return next.run(req).await;
        }
        Access::Keys => {
            let Some(identity) = identify(&app, &req) else {
                ::metrics::counter!(AUTH_FAILURES_TOTAL).increment(1);
                return ApiError::Unauthorized.into_response();
            };
            identity
        }
    };
    hide_keys(req.headers_mut());
    if let (Some(trace), Some(id)) = (req.extensions().get::<Trace>(), &identity.key_id) {
        trace.set_key(id);
    }
    req.extensions_mut().insert(identity);
    next.run(req).await
}

/// From here on nobody can log, echo or forward them by mistake.
fn hide_keys(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(API_KEY);
}

fn is_public(app: &App, req: &Request) -> bool {
    is_operational(req) && (req.uri().path() != METRICS || !app.config.metrics_require_key)
}

/// It is for operators, not for clients of the API.
pub(super) fn is_operational(req: &Request) -> bool {
    let path = req.uri().path();
    matches!(*req.method(), Method::GET | Method::HEAD)
        && (PUBLIC.contains(&path) || path == METRICS)
}

/// Whose key this is. Hashes and compares also where there is no key to speak of, so that the time
/// says nothing.
fn identify(app: &App, req: &Request) -> Option<Identity> {
    let presented = presented(req);
    let digest = keys::digest(presented.unwrap_or_default());
    let key = app.keys.find(&digest);
    presented?;
    key.map(|key| Identity { key_id: Some(Arc::clone(&key.id)), tenant: key.tenant })
}

/// The one key that a request carries. Two headers are no key: a proxy in front may have read the
/// other one.
fn presented(req: &Request) -> Option<&[u8]> {
    let bearer = only(req.headers(), &AUTHORIZATION);
    let azure = if req.uri().path().starts_with(AZURE_PREFIX) {
        only(req.headers(), &API_KEY)
    } else {
        Presented::None
    };
    match (bearer, azure) {
        (Presented::One(value), Presented::None) => bearer_token(value),
        (Presented::None, Presented::One(value)) => (!value.is_empty()).then_some(value),
        _ => None,
    }
}

enum Presented<'a> {
    None,
    One(&'a [u8]),
    Many,
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Presented<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Presented::None,
        (Some(value), None) => Presented::One(value.as_bytes()),
        (Some(_), Some(_)) => Presented::Many,
    }
}

/// `Bearer`, in any case (RFC 9110 section 11.1), one space, and the key to the last byte.
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let (scheme, key) = value.split_at_checked(SCHEME.len())?;
    (scheme.eq_ignore_ascii_case(SCHEME) && !key.is_empty()).then_some(key)
}

/// The request names this machine, and nothing else: by exactly one Host header, and by the
/// authority of its target if that has one.
fn is_local(req: &Request) -> bool {
    let Presented::One(host) = only(req.headers(), &HOST) else {
        return false;
    };
    let host = std::str::from_utf8(host).ok().and_then(|h| h.parse::<Authority>().ok());
    host.is_some_and(|h| is_local_authority(&h))
        && req.uri().authority().is_none_or(is_local_authority)
}

fn is_local_authority(authority: &Authority) -> bool {
    // A user part would let `localhost@evil` pass for a host in a sloppier parser than this one.
    !authority.as_str().contains('@')
        && LOCAL_HOSTS.iter().any(|local| authority.host().eq_ignore_ascii_case(local))
}
