//! Traces by OTLP over HTTP: spans go to a collector in batches, from a thread of their own.
//!
//! No request waits for a collector. Spans for which the queue has no room, and those that a collector does not
//! take, are dropped and counted. Off until [`init`] is given an endpoint.

mod client;
mod export;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanExporter as _,
};

use self::client::Client;
use self::export::{Bounded, Losses, QUEUE_SPANS, Watched};

const SERVICE: &str = "millrace";

/// How long the end of the process waits for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Where spans go when nobody says.
const PATH: &str = "/v1/traces";

/// Variables of OpenTelemetry that name an endpoint, as their SDK looks at them.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends what is waiting when it is dropped. Keep it until the last request has ended.
#[derive(Debug)]
pub struct TraceGuard {
    provider: SdkTracerProvider,
    losses: Arc<Losses>,
}

impl Drop for TraceGuard {
    fn drop(&mut self) {
        // What fails, or takes too long, is lost; what was waiting behind it is told.
        let _ = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        self.losses.at_end();
    }
}

/// Starts to trace, once for the process, if `endpoint` or a variable of OpenTelemetry names a collector. Service
/// name, headers, sampling and the rest are those of OpenTelemetry's variables.
pub fn init(endpoint: Option<&str>) -> Result<Option<TraceGuard>, String> {
    if !is_wanted(endpoint) {
        return Ok(None);
    }
    let losses = Arc::new(Losses::new());
    let exporter = Watched::new(exporter(endpoint, &losses)?, Arc::clone(&losses));
    let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE_SPANS).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Bounded::new(batches, Arc::clone(&losses)))
        .with_resource(resource())
        .build();
    let scope = InstrumentationScope::builder(SERVICE).with_version(env!("CARGO_PKG_VERSION"));
    // A second call would be a mistake of the caller; the first tracer stays.
    let _ = TRACER.set(provider.tracer_with_scope(scope.build()));
    Ok(Some(TraceGuard { provider, losses }))
}

/// Whether the collector that [`init`] would send to takes spans: it is sent none, in the way that they are sent. `None`
/// if nothing would be sent anywhere.
pub fn reach(endpoint: Option<&str>) -> Option<Result<(), String>> {
    let losses = Arc::new(Losses::new());
    let send = || {
        let sent = exporter(endpoint, &losses)?.export(Vec::new()).now_or_never();
        let sent = sent.unwrap_or_else(|| Err(OTelSdkError::InternalFailure("no answer".into())));
        sent.map_err(|error| losses.reason(&error.to_string()))
    };
    is_wanted(endpoint).then(send)
}

fn is_wanted(endpoint: Option<&str>) -> bool {
    !is_disabled() && (endpoint.is_some() || ENDPOINTS.iter().any(|name| is_set(name)))
}

fn exporter(endpoint: Option<&str>, losses: &Arc<Losses>) -> Result<SpanExporter, String> {
    let builder = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new(Arc::clone(losses)))
        .with_protocol(Protocol::HttpBinary);
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(traces_at(endpoint)),
        None => builder,
    };
    // What a variable says may hold a password.
    builder.build().map_err(|e| match endpoint {
        Some(_) => e.to_string(),
        None => "what OpenTelemetry's variables say is no address of a collector".to_owned(),
    })
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// By the switches that hold for every program with OpenTelemetry.
fn is_disabled() -> bool {
    let says = |name: &str, word: &str| {
        std::env::var(name).is_ok_and(|value| value.trim().eq_ignore_ascii_case(word))
    };
    says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none")
}

/// The endpoint of a collector, with the path of traces behind it unless it is there.
fn traces_at(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    format!("{}{PATH}", base.strip_suffix(PATH).unwrap_or(base))
}

/// Who the spans are from: as the variables say, else by our name.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let named = Resource::builder().build();
    let name = named.get(&"service.name".into()).map(|name| name.to_string());
    let unnamed = name.is_none_or(|name| name.starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(version);
    if unnamed { builder.with_service_name(SERVICE).build() } else { builder.build() }
}

/// Whether spans go anywhere.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// The span of a caller, of which a request's is a part.
#[derive(Debug, Clone)]
pub struct Parent<'a> {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
    /// `tracestate`, as it came.
    pub state: &'a str,
}

impl Parent<'_> {
    fn context(&self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        // The trace goes on without one that is not as it should be.
        let state: TraceState = self.state.parse().unwrap_or_default();
        let (trace, span) = (TraceId::from(self.trace_id), SpanId::from(self.span_id));
        SpanContext::new(trace, span, flags, true, state)
    }
}

/// Times are measured by a clock that never jumps, and told by the one on the wall: both, read at once.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    pub now: Instant,
    wall: SystemTime,
}

impl Clock {
    pub fn read() -> Self {
        Self { now: Instant::now(), wall: SystemTime::now() }
    }

    /// What the clock on the wall showed then, or would have, had it not been set since.
    pub fn wall(self, then: Instant) -> SystemTime {
        self.wall.checked_sub(self.now.saturating_duration_since(then)).unwrap_or(self.wall)
    }
}

/// A time that has begun and ended.
#[derive(Debug, Clone)]
pub struct Phase {
    pub name: &'static str,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<KeyValue>,
}

/// A request, and its phases.
#[derive(Debug, Clone)]
pub struct Request {
    pub name: String,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<KeyValue>,
    /// What went wrong, where that is this server's fault.
    pub fault: Option<&'static str>,
    pub phases: Vec<Phase>,
}

/// Hands the spans of a request to the thread that sends them, if its trace is sampled, and gives the trace's id.
pub fn send(request: Request, parent: Option<&Parent<'_>>) -> Option<u128> {
    send_by(TRACER.get()?, request, parent)
}

fn send_by(tracer: &SdkTracer, request: Request, parent: Option<&Parent<'_>>) -> Option<u128> {
    let above = match parent {
        Some(parent) => Context::new().with_remote_span_context(parent.context()),
        None => Context::new(),
    };
    let builder = SpanBuilder::from_name(request.name)
        .with_kind(SpanKind::Server)
        .with_start_time(request.start)
        .with_attributes(request.attributes);
    let mut root = tracer.build_with_context(builder, &above);
    if !root.is_recording() {
        return None;
    }
    let within = Context::new().with_remote_span_context(root.span_context().clone());
    for Phase { name, start, end, attributes } in request.phases {
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(start)
            .with_attributes(attributes);
        tracer.build_with_context(builder, &within).end_with_timestamp(end);
    }
    if let Some(fault) = request.fault {
        root.set_status(Status::error(fault));
    }
    root.end_with_timestamp(request.end);
    Some(u128::from_be_bytes(root.span_context().trace_id().to_bytes()))
}

#[cfg(test)]
mod tests;
