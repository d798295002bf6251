//! `/metrics`, and what handlers of completions measure.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::metrics::{Histogram, counter, describe_counter, describe_gauge, gauge, histogram};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::openai::error::{ApiError, REJECTED_TOTAL};
use super::trace::{Asked, Trace};
use super::{App, Served};
use crate::backend::BLOCK_TOKENS;
use crate::engine::message::Summary;
use crate::telemetry::metrics as names;
use crate::telemetry::process;

/// Handles of the histograms of one model: looked up once, then free of locks.
#[derive(Debug, Clone)]
pub(super) struct Histograms {
    first_token: Histogram,
    gap: Histogram,
    whole: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt: Histogram,
    generation: Histogram,
}

impl Histograms {
    pub(super) fn new(model: &str) -> Self {
        describe();
        let get = |name: &'static str| histogram!(name, "model_name" => model.to_owned());
        Self {
            first_token: get(names::TIME_TO_FIRST_TOKEN),
            gap: get(names::INTER_TOKEN_LATENCY),
            whole: get(names::E2E_LATENCY),
            queue: get(names::QUEUE_TIME),
            prefill: get(names::PREFILL_TIME),
            decode: get(names::DECODE_TIME),
            prompt: get(names::PROMPT_TOKENS),
            generation: get(names::GENERATION_TOKENS),
        }
    }
}

/// Measures one request, from its submission on. Tell it of every token, and of the end if that is
/// a good one.
#[derive(Debug)]
pub struct RequestMetrics {
    histograms: Option<Histograms>,
    started: Instant,
    /// When each choice had its last token.
    last: Vec<Option<Instant>>,
    generated: u64,
    trace: Trace,
}

impl RequestMetrics {
    /// Begins to measure a request of so many choices.
    pub fn start(app: &App, trace: Trace, choices: usize) -> Self {
        Self {
            histograms: app.histograms().cloned(),
            started: Instant::now(),
            last: vec![None; choices],
            generated: 0,
            trace,
        }
    }

    /// The engine took the request.
    pub(super) fn accepted(&self, asked: Asked) {
        self.trace.begin(asked);
    }

    /// A token of this choice arrived, and then became text.
    pub fn token(&mut self, choice: u32) {
        let now = Instant::now();
        self.trace.note(|generation| generation.token(now));
        if let Some(h) = &self.histograms {
            match self.last.get(choice as usize).copied().flatten() {
                Some(last) => h.gap.record(now - last),
                None if self.generated == 0 => h.first_token.record(now - self.started),
                None => {}
            }
        }
        self.generated += 1;
        if let Some(last) = self.last.get_mut(choice as usize) {
            *last = Some(now);
        }
    }

    /// The last token was made text.
    pub fn detokenised(&self) {
        if cfg!(feature = "otel") {
            self.trace.note(|g| g.detokenising += g.last.map_or(Duration::ZERO, |at| at.elapsed()));
        }
    }

    /// The client is told why this choice ended.
    pub fn choice_finished(&self, choice: u32, reason: &'static str) {
        self.trace.note(|generation| generation.reasons.push((choice, reason)));
    }

    /// The client is told of an error, in the middle of its answer.
    pub fn failed(&self, error: &ApiError) {
        self.trace.note(|generation| generation.error = Some(error.reason()));
    }

    /// The request succeeded. `prompt_tokens`: over all its prompts.
    pub fn finished(&self, summary: &Summary, prompt_tokens: usize) {
        self.trace.note(|generation| generation.summary = Some(*summary));
        let Some(h) = &self.histograms else {
            return;
        };
        h.whole.record(self.started.elapsed());
        h.queue.record(summary.queued);
        h.prefill.record(summary.prefill);
        h.decode.record(summary.decode);
        h.prompt.record(prompt_tokens as f64);
        h.generation.record(self.generated as f64);
    }
}

/// Help texts of what [`copy_engine`] sets.
fn describe() {
    for (name, help) in [
        ("vllm:num_requests_running", "Choices that hold KV blocks."),
        ("vllm:num_requests_waiting", "Choices that wait for a step."),
        ("vllm:kv_cache_usage_perc", "Share of KV blocks that are held, 0 to 1."),
        ("vllm:cache_config_info", "Shape of the KV cache, in labels."),
        ("millrace_build_info", "Always 1; the version is in a label."),
    ] {
        describe_gauge!(name, help);
    }
    for (name, help) in [
        ("vllm:prompt_tokens_total", "Prompt tokens of requests that started."),
        ("vllm:generation_tokens_total", "Tokens generated."),
        ("vllm:num_preemptions_total", "Times a choice lost its KV blocks and was recomputed."),
        ("vllm:prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache."),
        ("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache."),
        (
            "millrace_prefix_cache_evictions_total",
            "Cached KV blocks given up for want of free ones.",
        ),
        (
            "millrace_prefix_cache_awaited_total",
            "Choices that waited for a prefix that another computed.",
        ),
        ("vllm:spec_decode_num_drafts_total", "Drafts of what comes next, by prompt lookup."),
        ("vllm:spec_decode_num_draft_tokens_total", "Tokens of drafts."),
        ("vllm:spec_decode_num_accepted_tokens_total", "Tokens of drafts that were right."),
        ("vllm:request_success_total", "Choices that ended, by reason; abort: requests."),
        ("millrace_steps_total", "Steps of the engine."),
        ("millrace_step_failures_total", "Steps that panicked or yielded NaN."),
        (REJECTED_TOTAL, "Requests refused, by reason."),
    ] {
        describe_counter!(name, help);
    }
    // Those that alerts watch are there before they first happen.
    for error in [ApiError::Overloaded, ApiError::Internal, ApiError::EngineStalled] {
        counter!(REJECTED_TOTAL, "reason" => error.reason()).increment(0);
    }
    counter!(REJECTED_TOTAL, "reason" => "rate_limit_exceeded").increment(0);
    gauge!("millrace_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// The handler. Counters that the engine keeps are copied at each scrape: the engine's thread writes
/// atomics and nothing else.
pub(super) async fn render(State(app): State<Arc<App>>) -> Response {
    if let Some(served) = app.model() {
        copy_engine(served);
    }
    process::measure();
    let headers =
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (headers, app.prometheus.render()).into_response()
}

fn copy_engine(served: &Served) {
    let model = served.names.first().cloned().unwrap_or_default();
    let stats = served.engine.stats();
    let gauges = [
        ("vllm:num_requests_running", stats.running.load(Ordering::Relaxed) as f64),
        ("vllm:num_requests_waiting", stats.waiting.load(Ordering::Relaxed) as f64),
        ("vllm:kv_cache_usage_perc", stats.kv_usage()),
    ];
    for (name, value) in gauges {
        gauge!(name, "model_name" => model.clone()).set(value);
    }
    let counters = [
        ("vllm:prompt_tokens_total", stats.prompt_tokens.load(Ordering::Relaxed)),
        ("vllm:generation_tokens_total", stats.generated_tokens.load(Ordering::Relaxed)),
        ("vllm:num_preemptions_total", stats.preemptions.load(Ordering::Relaxed)),
        ("vllm:prefix_cache_queries_total", stats.cache_queries.load(Ordering::Relaxed)),
        ("vllm:prefix_cache_hits_total", stats.cached_tokens.load(Ordering::Relaxed)),
        ("millrace_prefix_cache_evictions_total", stats.cache_evictions.load(Ordering::Relaxed)),
        ("millrace_prefix_cache_awaited_total", stats.cache_awaited.load(Ordering::Relaxed)),
        ("vllm:spec_decode_num_drafts_total", stats.drafts.load(Ordering::Relaxed)),
        ("vllm:spec_decode_num_draft_tokens_total", stats.draft_tokens.load(Ordering::Relaxed)),
        (
            "vllm:spec_decode_num_accepted_tokens_total",
            stats.accepted_tokens.load(Ordering::Relaxed),
        ),
        ("millrace_steps_total", stats.steps.load(Ordering::Relaxed)),
        ("millrace_step_failures_total", stats.step_failures.load(Ordering::Relaxed)),
    ];
    for (name, value) in counters {
        counter!(name, "model_name" => model.clone()).absolute(value);
    }
    let finished = [
        ("stop", &stats.finished_stop),
        ("length", &stats.finished_length),
        ("abort", &stats.finished_abort),
        ("error", &stats.finished_error),
    ];
    for (reason, count) in finished {
        counter!(
            "vllm:request_success_total", "model_name" => model.clone(), "finished_reason" => reason
        )
        .absolute(count.load(Ordering::Relaxed));
    }
    // A gauge that is always 1 and speaks through its labels, as vLLM has it.
    let blocks = stats.kv_blocks_total.load(Ordering::Relaxed);
    gauge!(
        "vllm:cache_config_info", "model_name" => model,
        "block_size" => BLOCK_TOKENS.to_string(), "num_gpu_blocks" => blocks.to_string()
    )
    .set(1.0);
}
