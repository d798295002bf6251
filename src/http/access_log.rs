//! One line and one count for each request, when its answer ended. Never a query string, a prompt, a
//! key or anything else that a client chose, except its request id.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};

use super::body::{Ending, Guarded};
use super::request_id::RequestId;
use crate::telemetry::metrics::HTTP_REQUESTS_TOTAL;

/// What inner layers tell this one of a request. In the extensions of every request.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    route: OnceLock<MatchedPath>,
    key: OnceLock<Arc<str>>,
}

impl Trace {
    /// The id of the key, once it was found good.
    pub(super) fn set_key(&self, id: &Arc<str>) {
        let _ = self.0.key.set(Arc::clone(id));
    }

    /// The pattern of the route, such as `/v1/models/{id}`: a closed set, unlike paths.
    fn route(&self) -> &str {
        self.0.route.get().map_or("unmatched", MatchedPath::as_str)
    }
}

/// Innermost layer: only the router knows which pattern a path matched.
pub(super) async fn note_route(req: Request, next: Next) -> Response {
    if let (Some(trace), Some(route)) =
        (req.extensions().get::<Trace>(), req.extensions().get::<MatchedPath>())
    {
        let _ = trace.0.route.set(route.clone());
    }
    next.run(req).await
}

/// The layer.
pub(super) async fn log(mut req: Request, next: Next) -> Response {
    let trace = Trace::default();
    req.extensions_mut().insert(trace.clone());
    let mut record = Record {
        started: Instant::now(),
        method: known(req.method()),
        id: req.extensions().get::<RequestId>().map_or_else(String::new, |id| id.0.clone()),
        trace,
        answered: None,
        complete: false,
    };
    let response = next.run(req).await;
    record.answered = Some((response.status(), record.started.elapsed()));
    response.map(|body| Body::new(Guarded::new(body, record)))
}

/// Method names are the client's to choose; labels are not.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// A request on its way. Dropped when the answer ended, or when the client left.
struct Record {
    started: Instant,
    method: &'static str,
    id: String,
    trace: Trace,
    /// Status, and how long it took to know it.
    answered: Option<(StatusCode, Duration)>,
    /// The answer went out to its last byte.
    complete: bool,
}

impl Ending for Record {
    fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let route = self.trace.route();
        // nginx's status for a client that left before it was answered.
        let status = self.answered.map_or(499, |(status, _)| status.as_u16());
        let ms = self.started.elapsed().as_millis() as u64;
        let header_ms = self.answered.map_or(ms, |(_, wait)| wait.as_millis() as u64);
        ::metrics::counter!(
            HTTP_REQUESTS_TOTAL,
            "handler" => route.to_owned(), "method" => self.method, "status" => status.to_string()
        )
        .increment(1);
        let Self { id, method, complete, .. } = self;
        let key = self.trace.0.key.get().map_or("-", |key| key.as_ref());
        // Probes and scrapes come every few seconds and say nothing.
        if route.starts_with("/health") || route == "/metrics" {
            tracing::debug!(id, method, route, status, header_ms, ms, key, complete, "request");
        } else {
            tracing::info!(id, method, route, status, header_ms, ms, key, complete, "request");
        }
    }
}
