//! Who may do what: deny by default over an explicit list of public routes.
//!
//! A key in clear exists only here, for the length of a hash: the header is taken out of the request
//! before anything else sees it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Version};

use super::openai::error::ApiError;
use super::trace::Trace;
use super::{App, Side};
use crate::config::AuthConfig;
use crate::engine::message::Tenant;
use crate::keys::{self, Key};
use crate::telemetry::metrics::AUTH_FAILURES_TOTAL;

/// GET and HEAD on exactly these paths need no key. Everything else does: other methods, other
/// spellings, paths that do not exist.
const HEALTH: [&str; 3] = ["/health", "/health/live", "/health/ready"];
const VERSION: &str = "/version";
const OPENAPI: &str = "/openapi.json";

/// Pages for people, and public as well unless `--no-webui`: they hold nothing but themselves, and
/// call the API with the key that their reader types in.
const PAGES: [&str; 2] = ["/", "/docs"];

/// Public unless `--metrics-require-key`.
const METRICS: &str = "/metrics";

/// Where Azure's clients send their key in a header of its own.
const AZURE_PREFIX: &str = "/openai/deployments/";
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Hosts by which a keyless server may be addressed. Any other name means that some web page got a
/// browser to talk to it (DNS rebinding).
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Who sent a request. In the extensions of every request that needed a key, where handlers find it.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// `None` on a keyless server.
    pub key: Option<Arc<Key>>,
}

impl Identity {
    pub fn tenant(&self) -> Tenant {
        self.key.as_ref().map_or_else(Tenant::default, |key| key.tenant)
    }

    /// Whether the key may use the model under this name.
    pub fn may_use(&self, model: &str) -> bool {
        let models = self.key.as_ref().and_then(|key| key.models.as_ref());
        models.is_none_or(|models| models.iter().any(|m| m == model))
    }
}

impl<S: Sync> FromRequestParts<S> for Identity {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
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
pub(super) async fn guard(
    State((app, side)): State<(Arc<App>, Side)>,
    mut req: Request,
    next: Next,
) -> Response {
    let identity = match app.access {
        Access::Open => Identity::default(),
        Access::LocalHost if is_local(&req) => Identity::default(),
        Access::LocalHost => return ApiError::HostNotAllowed.into_response(),
        Access::Keys if is_public(&app, side, &req) => {
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
    if let (Some(trace), Some(key)) = (req.extensions().get::<Trace>(), &identity.key) {
        trace.set_key(&key.id);
    }
    req.extensions_mut().insert(identity);
    next.run(req).await
}

/// From here on nobody can log, echo or forward them by mistake.
fn hide_keys(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(API_KEY);
}

/// What is not there on this side is like any path that does not exist.
fn is_public(app: &App, side: Side, req: &Request) -> bool {
    let path = req.uri().path();
    let is_admin = path == METRICS || HEALTH.contains(&path);
    match path {
        _ if is_admin && side == Side::Api => false,
        _ if !is_admin && path != VERSION && side == Side::Admin => false,
        METRICS if app.config.metrics_require_key => false,
        path if PAGES.contains(&path) && !app.config.webui => false,
        _ => is_operational(req),
    }
}

/// It is for operators and readers, not for clients of the API.
pub(super) fn is_operational(req: &Request) -> bool {
    let path = req.uri().path();
    matches!(*req.method(), Method::GET | Method::HEAD)
        && (HEALTH.contains(&path)
            || [VERSION, OPENAPI].contains(&path)
            || PAGES.contains(&path)
            || path == METRICS)
}

/// Whose key this is. Hashes and compares also where there is no key to speak of, so that the time
/// says nothing.
fn identify(app: &App, req: &Request) -> Option<Identity> {
    let presented = presented(req);
    let digest = keys::digest(presented.unwrap_or_default());
    let key = app.keys.find(&digest);
    presented?;
    key.map(|key| Identity { key: Some(key) })
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
    let authority = req.uri().authority();
    let host = match only(req.headers(), &HOST) {
        Presented::One(host) => std::str::from_utf8(host).ok().and_then(|h| h.parse().ok()),
        // HTTP/2 has it in the address.
        Presented::None if req.version() == Version::HTTP_2 => authority.cloned(),
        _ => None,
    };
    host.is_some_and(|h| is_local_authority(&h)) && authority.is_none_or(is_local_authority)
}

fn is_local_authority(authority: &Authority) -> bool {
    // A user part would let `localhost@evil` pass for a host in a sloppier parser than this one.
    !authority.as_str().contains('@')
        && LOCAL_HOSTS.iter().any(|local| authority.host().eq_ignore_ascii_case(local))
}
