//! What the server says when it starts: for people, or, with JSON logs, as two events of the log.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering;

use super::load::Loaded;
use crate::backend::{BLOCK_TOKENS, KvDtype};
use crate::cli::output::{one_line, say};
use crate::config::{AuthConfig, Config};

/// The tutorial's own name, in the example where it is served.
const EXAMPLE_NAME: &str = "text-davinci-002";

/// Of a model that keeps one sequence by itself.
const ONE_AT_A_TIME: &str =
    "one at a time, whatever --max-num-seqs says: others wait; no prefix cache, no speculation";

/// The port is open.
pub(super) fn listening(config: &Config, address: SocketAddr, admin: Option<SocketAddr>) {
    let admin = admin.map(|admin| format!(", health and metrics on http://{admin}"));
    let admin = admin.unwrap_or_default();
    let scheme = scheme(config);
    let model = one_line(&config.model);
    let line = format!("listening on {scheme}://{address}{admin}, loading {model}");
    if config.log.json {
        tracing::info!("{line}");
    } else {
        say(&line);
    }
}

/// What both forms of the banner say.
pub(super) struct Facts {
    base: String,
    model: String,
    example: String,
    context: usize,
    device: String,
    kv_tokens: usize,
    kv_cache: String,
    /// Where it is not what the options say.
    sequences: Option<&'static str>,
    keys: String,
    open: bool,
    webui: bool,
}

impl Facts {
    pub(super) fn of(config: &Config, address: SocketAddr, loaded: &Loaded) -> Self {
        let served = &loaded.served;
        let blocks = served.engine.stats().kv_blocks_total.load(Ordering::Relaxed);
        // The engine may not have had its first moment yet.
        let blocks = if blocks == 0 { served.engine.spec().kv_blocks } else { blocks };
        let kv_tokens = blocks * BLOCK_TOKENS;
        let kv_bytes = blocks as u64 * served.engine.kv_block_bytes() as u64;
        let alone = served.engine.spec().one_at_a_time;
        let dtype = match config.engine.kv_cache_dtype {
            KvDtype::F16 if !alone => "f16",
            _ => "f32",
        };
        // A file may be called anything.
        let own = one_line(served.names.first().map_or("", String::as_str));
        let example = served.names.iter().find(|n| *n == EXAMPLE_NAME).unwrap_or(&own).clone();
        let full = kv_tokens as f64 / served.max_model_len.max(1) as f64;
        Self {
            base: format!("{}://{}", scheme(config), reachable(address)),
            model: format!(
                "{own} ({}, {}, {})",
                loaded.arch,
                loaded.quantization,
                size(loaded.bytes)
            ),
            example,
            context: served.max_model_len,
            device: device(served.engine.device(), config.backend.threads),
            kv_tokens,
            kv_cache: format!(
                "{kv_tokens} tokens ({}, {dtype}): {full:.1} sequences at full context",
                size(kv_bytes)
            ),
            sequences: alone.then_some(ONE_AT_A_TIME),
            keys: keys(&config.auth),
            open: config.auth.allow_unauthenticated,
            webui: config.http.webui,
        }
    }

    /// The model is there: says so, and what it costs and gives.
    pub(super) fn show(&self, json: bool) {
        if self.kv_tokens < self.context {
            tracing::warn!(
                kv_tokens = self.kv_tokens,
                context = self.context,
                "the KV cache is smaller than one full context: what cannot fit will be refused"
            );
        }
        if json {
            self.log();
        } else {
            say(&self.text());
        }
    }

    fn log(&self) {
        tracing::info!(
            url = %self.base, model = %self.model, context = self.context, device = %self.device,
            kv_cache = %self.kv_cache, sequences = self.sequences, keys = %self.keys, "ready to serve"
        );
    }

    fn text(&self) -> String {
        let Self { base, model, example, context, device, kv_cache, keys, sequences, .. } = self;
        let mut out = format!("\nmillrace {} is ready to serve\n\n", env!("CARGO_PKG_VERSION"));
        let playground = if self.webui { format!("{base}/") } else { "off".to_owned() };
        for (name, value) in [
            ("url", &format!("{base}/v1")),
            ("playground", &playground),
            ("model", model),
            ("context", &format!("{context} tokens")),
            ("device", device),
            ("kv cache", kv_cache),
            ("sequences", &sequences.unwrap_or_default().to_owned()),
            ("keys", keys),
        ] {
            if value.is_empty() {
                continue;
            }
            let _ = writeln!(out, "  {name:<12}{value}");
        }
        let (curl, python) = if self.open {
            (String::new(), "\"none\"".to_owned())
        } else {
            out.push_str("\nwith your key in MILLRACE_API_KEY:\n");
            let header = " -H \"Authorization: Bearer $MILLRACE_API_KEY\"".to_owned();
            (header, "os.environ[\"MILLRACE_API_KEY\"]".to_owned())
        };
        let import = if self.open { "" } else { "import os; " };
        let prompt = "Tell me a story about a robot.";
        let _ = write!(
            out,
            "\n  curl {base}/v1/completions{curl} -H \"Content-Type: application/json\" \
             -d '{{\"model\": \"{example}\", \"prompt\": \"{prompt}\", \"max_tokens\": 150}}'\n\n  \
             python3 -c '{import}from openai import OpenAI; client = OpenAI(base_url=\"{base}/v1\", \
             api_key={python}); print(client.completions.create(model=\"{example}\", \
             prompt=\"{prompt}\", max_tokens=150).choices[0].text)'\n"
        );
        out
    }
}

fn scheme(config: &Config) -> &'static str {
    if config.http.tls.is_some() { "https" } else { "http" }
}

/// Where it computes, and by which kernels.
fn device(name: &str, threads: Option<usize>) -> String {
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    match name.split_once('/') {
        Some(("cpu", tier)) => format!("cpu, {tier} kernels, threads: {threads}"),
        Some(("candle", place)) => format!("{place}, candle kernels"),
        _ => name.to_owned(),
    }
}

fn keys(auth: &AuthConfig) -> String {
    let mut from = Vec::new();
    if let Some(path) = &auth.api_key_file {
        from.push(path.display().to_string());
    }
    if auth.env_key_digest.is_some() {
        from.push("MILLRACE_API_KEY".to_owned());
    }
    match (auth.allow_unauthenticated, auth.i_know_this_is_open) {
        (true, true) => "none asked for: OPEN to everybody who reaches the port".to_owned(),
        (true, false) => "none asked for: open to everybody on this machine".to_owned(),
        _ => format!("from {}", from.join(" and ")),
    }
}

/// An address that a client here can use: "every address" is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
