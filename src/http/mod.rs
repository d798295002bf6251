//! HTTP: the router, the order of its layers, and what all handlers share.

mod access_log;
pub mod auth;
mod body;
mod cors;
mod docs;
mod drain;
mod gate;
mod heads;
mod health;
mod heartbeat;
mod limits;
mod listener;
pub mod metrics;
pub mod openai;
mod openapi;
mod quota;
mod request_id;
#[cfg(feature = "otel")]
mod spans;
mod state;
mod tls;
mod trace;
mod trace_context;
mod webui;
mod wire;

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{ALLOW, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use auth::Identity;
pub use metrics::RequestMetrics;
pub use request_id::RequestId;
pub use state::{App, Served, Shutdown};
pub use tls::{TLS_RELOAD_TOTAL, Tls, TlsError};
pub use trace::Trace;

use openai::error::ApiError;

/// How often histograms are emptied into their buckets when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Where clients come in. Health and metrics have a listener of their own, or share that of the API.
#[derive(Debug)]
pub struct Listeners {
    pub api: TcpListener,
    /// What the API's connections begin with.
    pub tls: Option<Tls>,
    pub admin: Option<TcpListener>,
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Everything.
    Whole,
    /// All but health and metrics.
    Api,
    /// Health and metrics alone.
    Admin,
}

/// Serves until `shutdown`, then drains: `/health/ready` turns 503 at once, new requests are refused,
/// running ones finish within the shutdown timeout and are failed after it. Connections are accepted
/// to the end, so that probes get their answers. `Err`: the engine could not go on.
pub async fn serve(listeners: Listeners, app: Arc<App>, shutdown: Shutdown) -> io::Result<()> {
    serve_with(listeners, openai::routes(), app, shutdown).await
}

async fn serve_with(
    listeners: Listeners,
    api: openai::Routes,
    app: Arc<App>,
    shutdown: Shutdown,
) -> io::Result<()> {
    let closing = CancellationToken::new();
    let accept = |listener, tls: Option<&Tls>, router| {
        let tls = tls.map(Tls::acceptor);
        let config = app.config.clone();
        tokio::spawn(listener::accept(listener, tls, router, config, closing.clone()))
    };
    let Listeners { api: on_api, tls, admin } = listeners;
    let side = if admin.is_some() { Side::Api } else { Side::Whole };
    let mut accepting = vec![accept(on_api, tls.as_ref(), router(&app, api, side))];
    accepting.extend(admin.map(|on| accept(on, None, router(&app, Vec::new(), Side::Admin))));
    let keys = tokio::spawn(crate::keys::watch(Arc::clone(&app.keys)));
    let certificate = tls.map(|tls| tokio::spawn(tls.watch()));
    let upkeep = tokio::spawn(upkeep(app.prometheus.clone()));
    let watchdog = tokio::spawn(heartbeat::watch(Arc::clone(&app)));
    let (outcome, time_left) = drain::until_over(&app, &shutdown).await;
    closing.cancel();
    let closed = accepting.into_iter().map(async |accepting| {
        if let Ok(connections) = accepting.await {
            connections.close(time_left, &shutdown.now).await;
        }
    });
    futures_util::future::join_all(closed).await;
    keys.abort();
    certificate.inspect(tokio::task::JoinHandle::abort);
    upkeep.abort();
    watchdog.abort();
    outcome
}

async fn upkeep(prometheus: metrics_exporter_prometheus::PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        prometheus.run_upkeep();
    }
}

/// The routes of one side, with those of the API as `api`, and the layers around them. A request passes these
/// from the last added to the first:
///
/// 1. `request_id`: first, so that every answer and every log line has the id.
/// 2. `access_log`: outside of everything that can refuse, so that refusals are logged and counted.
/// 3. `headers`: what every answer of the API carries, errors included.
/// 4. `catch_panic`: a panic in any layer or handler below is a 500 in the error form, and logged.
/// 5. `cors`: outside of the guard, because a preflight has no key and a 401 must be readable.
/// 6. `auth`: before the router, so that nothing of which routes exist shows without a key.
/// 7. `not_allowed`: gives the router's 405 the error form, with the methods that it knows.
/// 8. the router; around the methods of API routes, and not their 405, which is true at all times:
///    `gate` and `quota` (before a byte of the body is read: refusals are quick), then `limits`.
fn router(app: &Arc<App>, api: openai::Routes, side: Side) -> Router {
    let guarded = api.into_iter().fold(Router::new(), |routes, (path, methods)| {
        let methods = methods
            .route_layer(from_fn_with_state(Arc::clone(app), limits::buffer))
            .route_layer(from_fn(quota::admit))
            .route_layer(from_fn_with_state(Arc::clone(app), gate::pass));
        routes.route(path, methods)
    });
    let pages = if app.config.webui && side != Side::Admin {
        webui::routes(app).route("/docs", get(docs::page))
    } else {
        Router::new()
    };
    let mut routes = Router::new().route("/version", get(health::version));
    if side != Side::Api {
        routes = routes
            .route("/health", get(health::ready))
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .route("/metrics", get(metrics::render));
    }
    if side != Side::Admin {
        routes = routes.route("/openapi.json", get(openapi::serve));
    }
    let routes = routes
        .merge(guarded)
        .merge(pages)
        .layer(from_fn(access_log::note_route))
        .fallback(unknown)
        .with_state(Arc::clone(app));
    // As a service inside another router: layers of a router itself run after its routing.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn(not_allowed))
        .layer(from_fn_with_state((Arc::clone(app), side), auth::guard))
        .layer(from_fn_with_state(Arc::clone(app), cors::allow))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(headers))
        .layer(from_fn(access_log::log))
        .layer(from_fn(request_id::assign))
}

async fn unknown(method: http::Method, uri: Uri) -> ApiError {
    ApiError::UnknownUrl { method, path: uri.path().to_owned() }
}

async fn not_allowed(req: Request, next: Next) -> Response {
    let (method, uri) = (req.method().clone(), req.uri().clone());
    let response = next.run(req).await;
    let allow = match response.headers().get(ALLOW) {
        Some(allow) if response.status() == StatusCode::METHOD_NOT_ALLOWED => allow,
        _ => return response,
    };
    let allow = allow.to_str().unwrap_or_default().replace(',', ", ");
    ApiError::MethodNotAllowed { method, path: uri.path().to_owned(), allow }.into_response()
}

/// The panic hook logged where it was.
fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::Internal.into_response()
}

/// What SDKs read from every answer of the API (openai-python 0.28: `response_ms`, `organization`).
async fn headers(req: Request, next: Next) -> Response {
    if auth::is_operational(&req) {
        return next.run(req).await;
    }
    let started = Instant::now();
    let mut response = next.run(req).await;
    let headers = response.headers_mut();
    let ms = HeaderValue::from(started.elapsed().as_millis() as u64);
    headers.insert(HeaderName::from_static("openai-processing-ms"), ms);
    for (name, value) in [("openai-version", "2020-10-01"), ("openai-organization", "millrace")] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
