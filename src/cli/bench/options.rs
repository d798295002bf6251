//! What `millrace bench` is asked, and the plan that it makes.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::goodput::Targets;
use crate::cli::Failure;

/// Closed loop, if nothing is said of arrivals.
const CLIENTS: usize = 8;
/// Requests, if neither their number nor a duration is given.
const REQUESTS: usize = 100;
const INPUT_TOKENS: usize = 128;
const OUTPUT_TOKENS: u32 = 64;
/// The variable with the key, as other clients have it.
pub(super) const KEY_VARIABLE: &str = "OPENAI_API_KEY";

/// Load on any OpenAI-compatible server: latencies, throughput, goodput
///
/// Two kinds of load. Closed loop (the default): --max-concurrency clients, each of which sends its next request
/// when it has its answer. Open loop: --request-rate requests a second arrive as a Poisson process, however slow
/// the server is. The words are those of `vllm bench serve`; docs/benchmarking.md defines every figure.
///
/// The server's key comes from the environment, `OPENAI_API_KEY` unless --api-key-env names another variable.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Start a server of this model for the run, anything that `serve` takes; options of `serve` may stand behind `--`
    #[arg(value_name = "MODEL", conflicts_with = "url")]
    pub(super) served: Option<String>,
    /// A running server's base URL, with or without /v1
    #[arg(long, visible_alias = "base-url", value_name = "URL")]
    pub(super) url: Option<String>,
    /// The name to ask for [default: the first of /v1/models]
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// The environment variable that holds the server's key
    #[arg(long, value_name = "VARIABLE", default_value = KEY_VARIABLE)]
    pub(super) api_key_env: String,
    /// Ask for chat completions instead of completions
    #[arg(long)]
    pub(super) chat: bool,

    /// Requests [default: 100, or as many as --prompts has; without bound if there is --duration-s]
    #[arg(long, value_name = "N")]
    pub(super) num_prompts: Option<NonZeroUsize>,
    /// Begin no request after so many seconds; those that run are waited for
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub(super) duration_s: Option<f64>,
    /// Closed loop: clients at once [default: 8]. With --request-rate: most requests at once; the others wait their turn
    #[arg(long, value_name = "N")]
    pub(super) max_concurrency: Option<NonZeroUsize>,
    /// Open loop: requests a second, on average
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub(super) request_rate: Option<f64>,
    /// Shape of the gaps between arrivals (gamma): 1 is a Poisson process, less comes in bursts, more is more even
    #[arg(long, value_name = "SHAPE", value_parser = positive, requires = "request_rate", default_value_t = 1.0)]
    pub(super) burstiness: f64,
    /// Requests before those that count
    #[arg(long, visible_alias = "warmup", value_name = "N", default_value_t = 1)]
    pub(super) num_warmups: usize,
    /// Give a request up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = positive, default_value_t = 600.0)]
    pub(super) timeout_s: f64,

    /// Tokens of a prompt of random words, behind its prefix [default: 128]
    #[arg(
        long,
        visible_alias = "random-input-len",
        value_name = "TOKENS",
        conflicts_with = "prompts"
    )]
    pub(super) input_len: Option<NonZeroUsize>,
    /// Tokens to ask for: `max_tokens` [default: 64]
    #[arg(long, visible_alias = "random-output-len", value_name = "TOKENS")]
    pub(super) output_len: Option<std::num::NonZeroU32>,
    /// Prompts from a file in place of random words: one a line, or JSON Lines with "prompt" or "messages",
    /// and `max_tokens` if need be. Begins again at its end
    #[arg(long, value_name = "FILE")]
    pub(super) prompts: Option<PathBuf>,
    /// Tokens of a prefix that prompts share
    #[arg(
        long,
        visible_alias = "random-prefix-len",
        value_name = "TOKENS",
        conflicts_with = "prompts",
        default_value_t = 0
    )]
    pub(super) prefix_len: usize,
    /// Different prefixes, which prompts take in turn
    #[arg(long, value_name = "N", requires = "prefix_len", default_value = "1")]
    pub(super) num_prefixes: NonZeroUsize,
    /// Ask for all of --output-len (`ignore_eos`; not every server knows it)
    #[arg(long)]
    pub(super) ignore_eos: bool,
    /// Temperature [default: the server's]
    #[arg(long, value_name = "T", value_parser = zero_or_more)]
    pub(super) temperature: Option<f64>,
    /// More members for each request's body, or null to take one out
    #[arg(long, value_name = "JSON", value_parser = object)]
    pub(super) extra_body: Option<Map<String, Value>>,
    /// For random words and arrivals [default: another each time, so that no cache knows the prompts]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    /// Count the requests that keep to all of these, in milliseconds: ttft (first token), itl (each gap between
    /// chunks), tpot (mean time per token after the first), e2e (all of it). Example: ttft=500,itl=50
    #[arg(long, value_name = "TARGETS", value_parser = Targets::parse)]
    pub(super) goodput: Option<Targets>,
    /// Save the figures, for scripts and --compare
    #[arg(long, visible_alias = "result-filename", value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// With --json: save each request's times, too
    #[arg(long, requires = "json")]
    pub(super) save_detailed: bool,
    /// Run nothing: show two saved runs side by side
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], exclusive = true)]
    pub(super) compare: Option<Vec<PathBuf>>,

    /// Options of `serve` for the server of MODEL
    #[arg(last = true, conflicts_with = "url", value_name = "OPTIONS OF SERVE")]
    pub(super) for_server: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  millrace bench smollm2-135m-instruct --input-len 512 --output-len 64
  millrace bench --url http://127.0.0.1:8000 --max-concurrency 16 --num-prompts 200 --json a.json
  millrace bench --url http://127.0.0.1:8000 --request-rate 4 --duration-s 60 --goodput ttft=500,itl=50
  millrace bench --url http://127.0.0.1:8000 --prefix-len 1000 --num-prefixes 4 --input-len 32
  millrace bench --compare a.json b.json";

/// When requests begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arrivals {
    /// So many clients, each one request after another.
    Closed { clients: usize },
    /// A process with this rate (requests a second) and shape; at most `at_once` run.
    Open { rate: f64, burstiness: f64, at_once: Option<usize> },
}

/// How many requests there are, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    pub(super) arrivals: Arrivals,
    /// Most requests.
    pub(super) requests: Option<usize>,
    /// No request begins after so long.
    pub(super) duration: Option<Duration>,
    pub(super) seed: u64,
}

impl Options {
    /// `lines`: of the file of prompts, if there is one.
    pub(super) fn plan(&self, lines: Option<usize>, seed: u64) -> Plan {
        let at_once = self.max_concurrency.map(NonZeroUsize::get);
        let arrivals = match self.request_rate {
            Some(rate) => Arrivals::Open { rate, burstiness: self.burstiness, at_once },
            None => Arrivals::Closed { clients: at_once.unwrap_or(CLIENTS) },
        };
        let requests = match (self.num_prompts, self.duration_s) {
            (Some(n), _) => Some(n.get()),
            (None, Some(_)) => None,
            (None, None) => Some(lines.unwrap_or(REQUESTS)),
        };
        Plan { arrivals, requests, duration: self.duration_s.map(seconds), seed }
    }

    pub(super) fn timeout(&self) -> Duration {
        seconds(self.timeout_s)
    }

    pub(super) fn input_tokens(&self) -> usize {
        self.input_len.map_or(INPUT_TOKENS, NonZeroUsize::get)
    }

    pub(super) fn output_tokens(&self) -> u32 {
        self.output_len.map_or(OUTPUT_TOKENS, std::num::NonZeroU32::get)
    }

    /// The key, if there is one. It is never an argument: others on the machine can read those.
    pub(super) fn key(&self) -> Result<Option<String>, Failure> {
        let name = &self.api_key_env;
        let Some(key) = std::env::var_os(name).filter(|key| !key.is_empty()) else {
            return if name == KEY_VARIABLE {
                Ok(None)
            } else {
                Err(Failure::usage(format!("--api-key-env: {name} is not set")))
            };
        };
        let key = key.into_string().ok().filter(|key| key.bytes().all(|b| b.is_ascii_graphic()));
        let fault =
            || format!("{name}: a key is visible ASCII without spaces (the value is not shown)");
        key.map(Some).ok_or_else(|| Failure::usage(fault()))
    }
}

/// Bounded, so that no sum with a clock can overflow: 30 years.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(1e9))
}

fn zero_or_more(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
    number.ok_or_else(|| "give a number, 0 or more".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| "give a number above 0".to_owned())
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("give a JSON object, such as {\"top_k\": 1}".to_owned()),
        Err(e) => Err(format!("not JSON: {e}")),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
