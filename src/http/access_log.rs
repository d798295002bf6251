//! One line and one count for each request, when its answer ended, and its spans. Never a query string, a prompt, a
//! key or anything else that a client chose, except its ids of the request and of the trace.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};

use super::body::{Ending, Guarded};
use super::openai::error::Refusal;
use super::request_id::RequestId;
#[cfg(feature = "otel")]
use super::spans;
use super::trace::{Generation, Trace};
use super::trace_context::{self, TraceContext};
use crate::telemetry::metrics::HTTP_REQUESTS_TOTAL;

/// Innermost layer: only the router knows which pattern a path matched.
pub(super) async fn note_route(req: Request, next: Next) -> Response {
    if let (Some(trace), Some(route)) =
        (req.extensions().get::<Trace>(), req.extensions().get::<MatchedPath>())
    {
        trace.set_route(route);
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
        context: trace_context::read(req.headers()),
        trace,
        answered: None,
        complete: false,
    };
    let response = next.run(req).await;
    let error = response.extensions().get::<Refusal>().map(|refusal| refusal.0);
    let wait = record.started.elapsed();
    record.answered = Some(Answered { status: response.status(), wait, error });
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

/// The head of an answer.
#[derive(Debug, Clone, Copy)]
struct Answered {
    status: StatusCode,
    /// How long it took to know it.
    wait: Duration,
    /// Why the request was refused, if it was.
    error: Option<&'static str>,
}

/// A request on its way. Dropped when the answer ended, or when the client left.
struct Record {
    started: Instant,
    method: &'static str,
    id: String,
    context: Option<TraceContext>,
    trace: Trace,
    answered: Option<Answered>,
    /// The answer went out to its last byte.
    complete: bool,
}

impl Ending for Record {
    fn complete(&mut self) {
        self.complete = true;
    }
}

impl Record {
    /// nginx's status for a client that left before it was answered.
    fn status(&self) -> u16 {
        self.answered.map_or(499, |answered| answered.status.as_u16())
    }

    /// The client has what there is of an answer, which may be that there was an error.
    fn is_told(&self) -> bool {
        self.complete || self.answered.is_some_and(|answered| answered.error.is_some())
    }

    /// Gives the id of a trace that was begun here.
    #[cfg(feature = "otel")]
    fn send_spans(
        &self,
        generation: Option<&Generation>,
        error: Option<&'static str>,
    ) -> Option<u128> {
        spans::record(&spans::Ended {
            started: self.started,
            method: self.method,
            route: self.trace.route(),
            status: self.status(),
            request_id: &self.id,
            key: self.trace.key(),
            error,
            is_told: self.is_told(),
            context: self.context.as_ref(),
            generation,
        })
    }

    fn write(
        &self,
        generation: Option<&Generation>,
        error: Option<&'static str>,
        trace_id: Option<u128>,
    ) {
        let (asked, summary) = (generation.map(|g| &g.asked), generation.and_then(|g| g.summary));
        let Self { id, method, complete, answered, .. } = self;
        let (route, status, key) = (self.trace.route(), self.status(), self.trace.key());
        let ms = whole_ms(self.started.elapsed());
        let header_ms = answered.map_or(ms, |answered| whole_ms(answered.wait));
        let completion_id = asked.map(|asked| &asked.id[..]);
        let model = asked.map(|asked| &asked.model[..]);
        let stream = asked.map(|asked| asked.stream);
        let prompt_tokens = asked.map(|asked| asked.prompt_tokens);
        let cached_tokens = summary.map(|summary| summary.cached_tokens);
        let completion_tokens = generation.map(|g| g.tokens);
        let queue_ms = summary.map(|summary| whole_ms(summary.queued));
        let prefill_ms = summary.map(|summary| whole_ms(summary.prefill));
        let ttft_ms = generation.and_then(Generation::first_token).map(whole_ms);
        let decode_ms = generation.and_then(Generation::decode).map(whole_ms);
        let finish_reason = generation.map(|g| distinct(g.finish_reasons(self.is_told())));
        let trace_id = trace_id.map(|id| format!("{id:032x}"));
        // A field that is `None` is not in the line.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    id,
                    method,
                    route,
                    status,
                    header_ms,
                    ms,
                    key,
                    complete,
                    error,
                    completion_id,
                    model,
                    stream,
                    prompt_tokens,
                    cached_tokens,
                    completion_tokens,
                    queue_ms,
                    prefill_ms,
                    ttft_ms,
                    decode_ms,
                    finish_reason,
                    trace_id,
                    "request"
                )
            };
        }
        // Probes and scrapes come every few seconds and say nothing.
        if route.starts_with("/health") || route == "/metrics" {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

fn whole_ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Each reason once.
fn distinct(reasons: Vec<&'static str>) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for reason in reasons {
        if !distinct.contains(&reason) {
            distinct.push(reason);
        }
    }
    distinct.join(",")
}

impl Drop for Record {
    fn drop(&mut self) {
        ::metrics::counter!(
            HTTP_REQUESTS_TOTAL, "handler" => self.trace.route().to_owned(),
            "method" => self.method, "status" => self.status().to_string()
        )
        .increment(1);
        let generation = self.trace.take_generation();
        let error = self.answered.and_then(|answered| answered.error);
        let error = error.or(generation.as_ref().and_then(|g| g.error));
        let trace_id = self.context.as_ref().map(|context| context.trace_id);
        #[cfg(feature = "otel")]
        let trace_id = self.send_spans(generation.as_ref(), error).or(trace_id);
        self.write(generation.as_ref(), error, trace_id);
    }
}
