//! What stands around OpenTelemetry's queue of spans and its exporter: a bound, a count of what is lost, and a
//! warning now and then.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

use crate::telemetry::metrics::OTLP_SPANS_DROPPED_TOTAL;
use crate::telemetry::one_line;

/// Spans that may wait to be sent: those of some 1,600 requests.
pub(super) const QUEUE_SPANS: usize = 8_192;

/// Between two warnings.
const WARN_INTERVAL: Duration = Duration::from_mins(1);

/// Spans on their way, and those that did not get there.
#[derive(Debug)]
pub(super) struct Losses {
    waiting: AtomicUsize,
    /// In all.
    dropped: AtomicU64,
    warned: Mutex<Option<Instant>>,
    /// Why the last request to the collector failed.
    reason: Mutex<String>,
}

impl Losses {
    pub(super) fn new() -> Self {
        metrics::describe_counter!(
            OTLP_SPANS_DROPPED_TOTAL,
            "Spans that did not reach the collector, by reason."
        );
        for reason in ["queue_full", "export_failed"] {
            metrics::counter!(OTLP_SPANS_DROPPED_TOTAL, "reason" => reason).increment(0);
        }
        Self {
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            warned: Mutex::new(None),
            reason: Mutex::new(String::new()),
        }
    }

    /// The collector did not answer, for this reason.
    pub(super) fn unreachable(&self, reason: &str) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = one_line(reason);
    }

    fn drop_spans(&self, spans: usize, label: &'static str, why: &str) {
        metrics::counter!(OTLP_SPANS_DROPPED_TOTAL, "reason" => label).increment(spans as u64);
        let in_all = self.dropped.fetch_add(spans as u64, Ordering::Relaxed) + spans as u64;
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| at.elapsed() < WARN_INTERVAL) {
            return;
        }
        *warned = Some(Instant::now());
        drop(warned);
        tracing::warn!(why, in_all, "spans were dropped");
    }

    /// A place in the queue, if there is one.
    fn enter(&self) -> bool {
        if self.waiting.fetch_add(1, Ordering::AcqRel) < QUEUE_SPANS {
            return true;
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.drop_spans(1, "queue_full", "the collector takes them too slowly");
        false
    }

    fn leave(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
    }

    fn failed(&self, spans: usize, error: &str) {
        self.drop_spans(spans, "export_failed", &self.reason(error));
    }

    /// Why the collector was not reached, else what OpenTelemetry says.
    pub(super) fn reason(&self, error: &str) -> String {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if reason.is_empty() { one_line(error) } else { reason }
    }

    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The last word, on what the process ends with.
    pub(super) fn at_end(&self) {
        let spans = self.waiting.load(Ordering::Acquire);
        if spans > 0 {
            tracing::warn!(spans, "spans were not sent before the end");
        }
    }
}

/// OpenTelemetry's queue, which drops what it has no room for without a count that one could read: so it is never
/// given more than it has room for.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: BatchSpanProcessor,
    losses: Arc<Losses>,
}

impl Bounded {
    pub(super) fn new(inner: BatchSpanProcessor, losses: Arc<Losses>) -> Self {
        Self { inner, losses }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.losses.enter() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// OpenTelemetry's exporter, with what it fails at counted.
#[derive(Debug)]
pub(super) struct Watched<E = Otlp> {
    inner: E,
    losses: Arc<Losses>,
}

impl<E> Watched<E> {
    pub(super) fn new(inner: E, losses: Arc<Losses>) -> Self {
        Self { inner, losses }
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.losses.leave(spans);
        self.losses.unreachable("");
        let sent = self.inner.export(batch).await;
        if let Err(error) = &sent {
            self.losses.failed(spans, &error.to_string());
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
