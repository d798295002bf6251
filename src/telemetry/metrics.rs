//! The metrics recorder: the `metrics` crate's macros write to it, `/metrics` renders it.
//!
//! Names are vLLM's where vLLM has one, so that dashboards and the Gateway API's endpoint picker work
//! unchanged. Label values come from closed sets: a client can never add a series.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Submission to first token.
pub const TIME_TO_FIRST_TOKEN: &str = "vllm:time_to_first_token_seconds";
/// One token of a choice to its next.
pub const INTER_TOKEN_LATENCY: &str = "vllm:inter_token_latency_seconds";
/// Submission to the end.
pub const E2E_LATENCY: &str = "vllm:e2e_request_latency_seconds";
/// Submission to the first step that held one of the request's tokens.
pub const QUEUE_TIME: &str = "vllm:request_queue_time_seconds";
/// From there to the first token.
pub const PREFILL_TIME: &str = "vllm:request_prefill_time_seconds";
/// First token to last.
pub const DECODE_TIME: &str = "vllm:request_decode_time_seconds";
/// Prompt tokens of a request.
pub const PROMPT_TOKENS: &str = "vllm:request_prompt_tokens";
/// Generated tokens of a request.
pub const GENERATION_TOKENS: &str = "vllm:request_generation_tokens";
/// Answers, by `handler` (a route's pattern), `method` and `status`.
pub const HTTP_REQUESTS_TOTAL: &str = "http_requests_total";
/// Requests that were answered 401.
pub const AUTH_FAILURES_TOTAL: &str = "millrace_auth_failures_total";
/// Spans that did not reach the collector, by `reason`.
#[cfg(feature = "otel")]
pub(crate) const OTLP_SPANS_DROPPED_TOTAL: &str = "millrace_otlp_spans_dropped_total";

/// Buckets of vLLM's histogram of the same name, in seconds.
const FIRST_TOKEN_S: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// The same, with three below vLLM's first, for models as small as ours.
const INTER_TOKEN_S: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST_S: [f64; 23] = [
    0.01, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];
/// 1, 2, 5 a decade.
const TOKENS: [f64; 18] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
    5e5,
];

const HISTOGRAMS: [(&str, &[f64], &str); 8] = [
    (TIME_TO_FIRST_TOKEN, &FIRST_TOKEN_S, "Time from submission to the first token."),
    (INTER_TOKEN_LATENCY, &INTER_TOKEN_S, "Time between two tokens of a choice."),
    (E2E_LATENCY, &REQUEST_S, "Time from submission to the end of a request."),
    (QUEUE_TIME, &REQUEST_S, "Time a request waited for its first step."),
    (PREFILL_TIME, &REQUEST_S, "Time from a request's first step to its first token."),
    (DECODE_TIME, &REQUEST_S, "Time from a request's first token to its last."),
    (PROMPT_TOKENS, &TOKENS, "Prompt tokens of a request."),
    (GENERATION_TOKENS, &TOKENS, "Generated tokens of a request."),
];

/// Installs the recorder, once for the process; later calls return the same handle.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(build).clone()
}

fn build() -> PrometheusHandle {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets, _) in HISTOGRAMS {
        let with = PrometheusBuilder::new();
        // Only an empty list of buckets is refused.
        builder =
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets).unwrap_or(with);
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another metrics recorder is installed: /metrics stays empty");
    }
    describe();
    handle
}

fn describe() {
    for (name, _, help) in HISTOGRAMS {
        metrics::describe_histogram!(name, help);
    }
    metrics::describe_counter!(HTTP_REQUESTS_TOTAL, "Answers, by route, method and status.");
    metrics::describe_counter!(AUTH_FAILURES_TOTAL, "Requests answered 401.");
    metrics::describe_gauge!(crate::keys::KEYS, "API keys, by how near their expiry is.");
    metrics::describe_counter!(crate::keys::KEY_RELOAD_TOTAL, "Reloads of the key file.");
    // Series that alerts watch exist from the start: a rate over a counter that appears with its
    // first increment misses that increment.
    metrics::counter!(AUTH_FAILURES_TOTAL).increment(0);
    for result in ["ok", "error"] {
        metrics::counter!(crate::keys::KEY_RELOAD_TOTAL, "result" => result).increment(0);
    }
}
