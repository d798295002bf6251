//! What a run found, as it is saved: the names are a contract (docs/benchmarking.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::goodput::Targets;
use super::load::{Run, Sample};
use super::stats::{self, Figures};

/// Of the file's form: raised when a name changes its meaning.
pub(super) const FORMAT: u32 = 1;

/// A saved run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) millrace_bench: u32,
    pub(super) version: String,
    /// RFC 3339, UTC.
    pub(super) begun_at: String,
    pub(super) load: Load,
    pub(super) interrupted: bool,
    pub(super) wall_s: f64,
    pub(super) requests: Requests,
    pub(super) errors: Vec<Errors>,
    pub(super) tokens: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) goodput: Option<Goodput>,
    pub(super) figures: Figures,
    pub(super) standard_errors: Figures,
    pub(super) over_time: OverTime,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) samples: Vec<Row>,
}

/// What was asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Load {
    pub(super) url: String,
    pub(super) model: String,
    /// `completions` or `chat`.
    pub(super) endpoint: String,
    /// `closed` or `open`.
    pub(super) arrivals: String,
    pub(super) max_concurrency: Option<usize>,
    pub(super) request_rate: Option<f64>,
    pub(super) burstiness: Option<f64>,
    pub(super) num_prompts: Option<usize>,
    pub(super) duration_s: Option<f64>,
    pub(super) num_warmups: usize,
    /// `words`, or the file.
    pub(super) prompts: String,
    pub(super) input_len: Option<usize>,
    pub(super) prefix_len: usize,
    pub(super) num_prefixes: usize,
    pub(super) output_len: u32,
    pub(super) ignore_eos: bool,
    pub(super) temperature: Option<f64>,
    pub(super) extra_body: serde_json::Map<String, serde_json::Value>,
    pub(super) seed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Requests {
    pub(super) completed: usize,
    pub(super) failed: usize,
    /// Ended by an interrupt; in no figure.
    pub(super) unfinished: usize,
    /// Open loop: how late requests were sent, because others had to end first.
    pub(super) waited_ms_mean: f64,
    pub(super) waited_ms_max: f64,
}

/// Failures of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Errors {
    /// `http_503`, `connect`, `timeout`, `cut`, `error_event`, `bad_stream`.
    pub(super) kind: String,
    pub(super) count: usize,
    /// The first of them.
    pub(super) message: String,
}

/// Tokens of completed requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Tokens {
    /// `usage`, or `chunks` where the server does not tell: each chunk is then one token.
    pub(super) counted_by: String,
    pub(super) input: u64,
    pub(super) input_min: u64,
    pub(super) input_max: u64,
    /// Of the input, what the server says that it had in a cache; `None` if it says nothing of the kind.
    pub(super) input_cached: Option<u64>,
    pub(super) output: u64,
    pub(super) output_min: u64,
    pub(super) output_max: u64,
    /// Chunks with content.
    pub(super) chunks: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Goodput {
    pub(super) targets: Targets,
    pub(super) requests: usize,
    /// Of all that ended, failures among them.
    pub(super) share: f64,
    pub(super) requests_per_s: f64,
}

/// Equal parts of the run, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OverTime {
    pub(super) part_s: f64,
    pub(super) output_tokens_per_s: Vec<f64>,
    /// The median of each latency: `ttft_ms_p50` and so on; `null` where a part has none.
    #[serde(flatten)]
    pub(super) latencies: BTreeMap<String, Vec<Option<f64>>>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) index: usize,
    pub(super) sent_s: f64,
    pub(super) waited_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttft_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) e2e_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) itl_ms: Vec<f64>,
}

impl Report {
    pub(super) fn of(run: &Run, load: Load, targets: Option<Targets>, begun_at: String) -> Self {
        let samples = &run.samples;
        let completed = stats::answers(samples).count();
        let waited: Vec<f64> = samples.iter().map(|s| s.waited_s * 1e3).collect();
        Self {
            millrace_bench: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            begun_at,
            load,
            interrupted: run.is_interrupted,
            wall_s: run.wall_s,
            requests: Requests {
                completed,
                failed: samples.len() - completed,
                unfinished: run.unfinished,
                waited_ms_mean: stats::mean(&waited).unwrap_or(0.0),
                waited_ms_max: waited.iter().copied().fold(0.0, f64::max),
            },
            errors: errors(samples),
            tokens: Tokens::of(samples),
            goodput: targets.map(|targets| Goodput::of(targets, samples, run.wall_s)),
            figures: stats::figures(samples, run.wall_s),
            standard_errors: stats::standard_errors(samples, run.wall_s),
            over_time: OverTime::of(samples, run.wall_s),
            samples: Vec::new(),
        }
    }
}

fn errors(samples: &[Sample]) -> Vec<Errors> {
    let mut found = BTreeMap::new();
    for fault in samples.iter().filter_map(|s| s.outcome.as_ref().err()) {
        let (count, _) = found.entry(fault.kind).or_insert((0, &fault.message));
        *count += 1;
    }
    let errors = found.into_iter().map(|(kind, (count, message))| Errors {
        kind: kind.to_string(),
        count,
        message: message.clone(),
    });
    let mut errors: Vec<Errors> = errors.collect();
    errors.sort_by_key(|e| std::cmp::Reverse(e.count));
    errors
}

impl Tokens {
    fn of(samples: &[Sample]) -> Self {
        let answers: Vec<&Answer> = stats::answers(samples).collect();
        let input: Vec<u64> = answers.iter().map(|a| stats::input_tokens(a)).collect();
        let output: Vec<u64> = answers.iter().map(|a| a.output_tokens()).collect();
        let cached = answers.iter().filter_map(|a| a.usage?.cached);
        let is_told = answers.iter().all(|a| a.usage.is_some());
        Self {
            counted_by: if is_told { "usage" } else { "chunks" }.to_owned(),
            input: input.iter().sum(),
            input_min: input.iter().copied().min().unwrap_or(0),
            input_max: input.iter().copied().max().unwrap_or(0),
            input_cached: cached.reduce(|a, b| a + b),
            output: output.iter().sum(),
            output_min: output.iter().copied().min().unwrap_or(0),
            output_max: output.iter().copied().max().unwrap_or(0),
            chunks: answers.iter().map(|a| a.chunks).sum(),
        }
    }
}

impl Goodput {
    fn of(targets: Targets, samples: &[Sample], wall_s: f64) -> Self {
        let requests = stats::answers(samples).filter(|a| targets.is_met(a)).count();
        let of = |n: f64| if n > 0.0 { requests as f64 / n } else { 0.0 };
        Self { targets, requests, share: of(samples.len() as f64), requests_per_s: of(wall_s) }
    }
}

impl OverTime {
    fn of(samples: &[Sample], wall_s: f64) -> Self {
        let [_, output_tokens_per_s, _] = stats::rates_over_time(samples, wall_s, stats::POINTS);
        let series =
            |name: &&str| (format!("{name}_ms_p50"), stats::over_time(name, samples, wall_s));
        let latencies = stats::LATENCIES.iter().map(series).collect();
        Self { part_s: wall_s / stats::POINTS as f64, output_tokens_per_s, latencies }
    }
}

/// One row a request, for `--save-detailed`.
pub(super) fn rows(samples: &[Sample]) -> Vec<Row> {
    let row = |s: &Sample| {
        let answer = s.outcome.as_ref().ok();
        Row {
            index: s.index,
            sent_s: s.sent_s,
            waited_ms: s.waited_s * 1e3,
            error: s.outcome.as_ref().err().map(|e| e.kind.to_string()),
            ttft_ms: answer.map(|a| a.ttft_s * 1e3),
            e2e_ms: answer.map(|a| a.e2e_s * 1e3),
            input_tokens: answer.and_then(|a| Some(a.usage?.prompt)),
            output_tokens: answer.map(Answer::output_tokens),
            itl_ms: answer.map_or_else(Vec::new, |a| a.gaps_s.iter().map(|s| s * 1e3).collect()),
        }
    };
    samples.iter().map(row).collect()
}
