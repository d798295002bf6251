//! The effective configuration: defaults < `config/millrace.toml` < `MILLRACE_*` < flags.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::KvDtype;

/// Everything `serve` needs, checked and with units resolved. Layering and messages: `cli/settings.rs`.
#[derive(Debug, Clone)]
pub struct Config {
    /// As given: a path, a name of `pull --list`, or `fake:…` with the feature of that name.
    pub model: String,
    pub http: HttpConfig,
    pub auth: AuthConfig,
    /// Where replicas share the limits of keys.
    pub rate_limit_store: Option<StoreUrl>,
    pub names: NamesConfig,
    pub engine: EngineConfig,
    pub backend: BackendConfig,
    pub log: LogConfig,
    /// Where traces are sent to; `None`: where OpenTelemetry's variables say, if anywhere.
    pub otlp_endpoint: Option<String>,
    /// Where `pull` puts models; a model path may be relative to it.
    pub model_dir: PathBuf,
    pub offline: bool,
}

#[derive(Debug, Clone)]
pub struct HttpConfig {
    pub host: IpAddr,
    pub port: u16,
    /// Where health and metrics are served instead of beside the API.
    pub admin: Option<SocketAddr>,
    pub tls: Option<TlsConfig>,
    pub max_connections: usize,
    pub max_body_bytes: usize,
    /// New tokens of a chat's answer where the request has no bound of its own.
    pub default_max_tokens: usize,
    /// From SIGTERM to the drain: unready, but serving.
    pub shutdown_delay: Duration,
    /// From the drain's begin to the moment when unfinished requests are failed.
    pub shutdown_timeout: Duration,
    /// Without progress for this long while there is work, the engine counts as hung.
    pub engine_stall_timeout: Duration,
    /// A client that takes no event for this long is aborted.
    pub client_stall_timeout: Duration,
    pub sse_ping_interval: Duration,
    pub header_timeout: Duration,
    /// Between two pieces of a request body.
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    pub cors_origins: Vec<String>,
    pub metrics_require_key: bool,
    /// Serve the pages for people: the playground and the API reference.
    pub webui: bool,
    pub limits: RequestLimits,
}

/// PEM files: the certificate with those that vouch for it, and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The most that one request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Samples of one prompt: `n` and `best_of`.
    pub n: usize,
    /// Choices in all: prompts times samples.
    pub fan_out: usize,
    /// Alternatives for each token: `logprobs` and `prompt_logprobs` of completions.
    pub logprobs: usize,
}

impl RequestLimits {
    /// How far operators may go.
    pub const N_MAX: usize = 128;
    pub const FAN_OUT_MAX: usize = 4_096;
    pub const LOGPROBS_MAX: usize = 20;
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { n: 20, fan_out: 1_024, logprobs: 5 }
    }
}

#[derive(Clone, Default)]
pub struct AuthConfig {
    pub api_key_file: Option<PathBuf>,
    /// `MILLRACE_API_KEY`, SHA-256 of it: the clear text is gone once the configuration is read.
    pub env_key_digest: Option<[u8; 32]>,
    pub allow_unauthenticated: bool,
    pub i_know_this_is_open: bool,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("api_key_file", &self.api_key_file)
            .field("env_key", &self.env_key_digest.map(|_| "redacted"))
            .field("allow_unauthenticated", &self.allow_unauthenticated)
            .field("i_know_this_is_open", &self.i_know_this_is_open)
            .finish()
    }
}

/// The address of a store, which may hold a password. It shows itself without.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// All of it, for whoever connects.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// A user, and maybe a password, stand in it.
    pub fn has_user(&self) -> bool {
        self.0.contains('@')
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The last one: a password may hold others.
        let Some((secret, rest)) = self.0.rsplit_once('@') else { return f.write_str(&self.0) };
        let scheme = secret.split_once("://").map_or("", |(scheme, _)| scheme);
        write!(f, "{scheme}://redacted@{rest}")
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone)]
pub struct NamesConfig {
    /// First one is shown. Empty: the model's own name and [`LEGACY_NAMES`].
    pub served: Vec<String>,
    /// Names whose text prompts are rendered by the chat template (API.md 0.26).
    pub instruct: BTreeSet<String>,
}

/// Aliases that a default server also answers to, so that old code runs unchanged.
pub const LEGACY_NAMES: [&str; 5] = [
    "text-davinci-002",
    "text-davinci-003",
    "gpt-3.5-turbo-instruct",
    "davinci-002",
    "babbage-002",
];

/// Legacy names that were instruction-following models at OpenAI.
pub const INSTRUCT_NAMES: [&str; 3] =
    ["text-davinci-002", "text-davinci-003", "gpt-3.5-turbo-instruct"];

#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Longest sequence; `None`: what the model was trained for, or what the KV cache holds.
    pub max_model_len: Option<usize>,
    pub max_num_seqs: usize,
    /// Token budget of a step; `None`: by its time, see `engine::Settings`.
    pub max_num_batched_tokens: Option<usize>,
    pub max_queue_requests: usize,
    pub max_queue_tokens: usize,
    pub kv_cache_bytes: u64,
    pub kv_cache_dtype: KvDtype,
    pub prefix_caching: bool,
    pub seed: Option<u64>,
    /// Copied from [`HttpConfig`]: how long a paused request may keep its blocks.
    pub client_stall_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct BackendConfig {
    /// `None`: one per core.
    pub threads: Option<usize>,
    pub device: Device,
    pub kernels: Kernels,
    /// `None`: `q8_0` on the CPU, nothing on a device.
    pub quantize: Option<Quantize>,
    /// Of the machine, or of the container where that is less; `None` where the system does not tell.
    pub memory_bytes: Option<u64>,
}

/// What the float matrices of a folder become when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantize {
    Q8_0,
    /// And `Q6_K` for the embedding and the head; `Q8_0` where rows are not whole blocks of 256.
    Q4K,
    /// They stay as they are.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    #[default]
    Auto,
    Cpu,
    Cuda,
    Metal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernels {
    #[default]
    Auto,
    Avx512,
    AvxVnni,
    Avx2,
    Neon,
    Scalar,
    Candle,
}

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub json: bool,
    /// An env-filter directive, such as `info` or `millrace=debug`.
    pub level: String,
    /// Errors alone: no banner, no progress.
    pub quiet: bool,
}
