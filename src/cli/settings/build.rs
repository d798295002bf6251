//! The effective values, read and bounded, as the [`Config`] that the server takes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::layers::{Given, Layers, Raw, Source};
use super::table::Setting;
use super::values as v;
use crate::backend::KvDtype;
use crate::cli::cgroup;
use crate::config::{
    AuthConfig, BackendConfig, Config, Device, EngineConfig, HttpConfig, Kernels, LogConfig,
    NamesConfig, Quantize, RequestLimits, StoreUrl, TlsConfig,
};
use crate::keys::LimitStore;

/// Largest of the counts that only a typing error exceeds.
const MANY: u64 = 1 << 32;
const DAY_S: f64 = 86_400.0;

/// Reads values by name and collects what is wrong with them.
pub(crate) struct Reader<'a> {
    layers: &'a Layers,
    pub(crate) faults: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(layers: &'a Layers) -> Self {
        Self { layers, faults: Vec::new() }
    }

    fn given(&self, name: &str) -> Option<&'a Given> {
        let given = self.layers.values.get(name);
        debug_assert!(given.is_some(), "no setting is called {name}");
        given
    }

    /// The value of setting `name`. A wrong one is noted, and the default of its type goes on in its
    /// place, so that the rest can be checked too.
    pub(crate) fn get<T: Default>(
        &mut self,
        name: &str,
        parse: impl Fn(&Raw) -> v::Parsed<T>,
    ) -> T {
        let Some(given) = self.given(name) else { return T::default() };
        parse(&given.raw).unwrap_or_else(|form| {
            self.faults.push(format!("{}{} is not {form}", place(name, given), given.raw));
            T::default()
        })
    }

    /// As [`Self::get`], for what may hold a password, which no fault shows.
    fn get_unshown<T: Default>(&mut self, name: &str, parse: impl Fn(&Raw) -> v::Parsed<T>) -> T {
        let Some(given) = self.given(name) else { return T::default() };
        parse(&given.raw).unwrap_or_else(|form| {
            let place = place(name, given);
            self.faults
                .push(format!("{place}what was given is not {form} (the value is not shown)"));
            T::default()
        })
    }

    /// An address that may hold a password.
    fn store(&mut self, name: &str) -> Option<StoreUrl> {
        let given = self.given(name)?;
        let raw = v::text(&given.raw);
        if raw == Ok("") {
            return None;
        }
        let url = StoreUrl::new(raw.unwrap_or_default());
        let on_line = matches!(given.source, Source::Flag(_)) && url.has_user();
        let fault = match LimitStore::check(&url) {
            Ok(()) if on_line => {
                "others can read the command line: give a URL with a user or a password in the environment \
                 (MILLRACE_RATE_LIMIT_STORE) or in the file"
            }
            Ok(()) => return Some(url),
            Err(fault) => fault,
        };
        self.faults.push(format!("{}{fault} (the value is not shown)", place(name, given)));
        None
    }

    fn count(&mut self, name: &str, max: u64) -> usize {
        self.get(name, v::count(1..=max)) as usize
    }

    fn auto_count(&mut self, name: &str, max: u64) -> Option<usize> {
        self.get(name, v::auto(v::count(1..=max))).map(|n| n as usize)
    }

    /// Seconds of at least `min`.
    fn seconds(&mut self, name: &str, min: f64) -> Duration {
        self.get(name, v::seconds(min..=DAY_S))
    }
}

/// Where a value stands, before what is wrong with it.
fn place(name: &str, given: &Given) -> String {
    match (&given.source, Setting::by_name(name)) {
        (Source::File { .. }, Some(setting)) => format!("{}: {}: ", given.source, setting.key()),
        // A variable or a flag is called like its setting; a line is not.
        _ => format!("{}: ", given.source),
    }
}

/// All settings, or every fault there is.
pub(crate) fn config(layers: &Layers) -> Result<Config, Vec<String>> {
    let mut r = Reader::new(layers);
    let http = http(&mut r);
    let config = Config {
        model: r.get("model", v::non_empty),
        auth: auth(&mut r, http.host),
        rate_limit_store: r.store("rate-limit-store"),
        names: names(&mut r),
        engine: engine(&mut r, http.client_stall_timeout),
        backend: backend(&mut r),
        log: log(&mut r),
        otlp_endpoint: otlp_endpoint(&mut r),
        model_dir: model_dir(&mut r),
        offline: r.get("offline", v::switch),
        http,
    };
    let mut faults = layers.faults.clone();
    faults.append(&mut r.faults);
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

fn log(r: &mut Reader<'_>) -> LogConfig {
    let quiet = r.get("quiet", v::switch);
    let asked = r.given("log-level").is_some_and(|given| given.source != Source::Default);
    let level = r.get("log-level", v::log_level);
    LogConfig {
        json: r.get("log-format", v::one_of(&[("text", false), ("json", true)])),
        level: if quiet && !asked { "error".to_owned() } else { level },
        quiet,
    }
}

/// Where the server would tell its health, and whether over TLS: what `healthcheck` wants to know.
pub(crate) fn health_address(r: &mut Reader<'_>) -> (IpAddr, u16, bool) {
    let (host, port) = address(r);
    let api = (host, port, tls(r).is_some());
    r.get("admin-listen", v::listen).map_or(api, |admin| (admin.ip(), admin.port(), false))
}

fn address(r: &mut Reader<'_>) -> (IpAddr, u16) {
    let host = r.get("host", v::host).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    (host, r.get("port", v::port))
}

fn http(r: &mut Reader<'_>) -> HttpConfig {
    let (host, port) = address(r);
    HttpConfig {
        host,
        port,
        admin: r.get("admin-listen", v::listen),
        tls: tls(r),
        max_connections: r.count("max-connections", 1_000_000),
        max_body_bytes: r.get("max-body-bytes", v::size) as usize,
        default_max_tokens: r.count("default-max-tokens", MANY),
        shutdown_delay: r.seconds("shutdown-delay-s", 0.0),
        shutdown_timeout: r.seconds("shutdown-timeout-s", 0.0),
        engine_stall_timeout: r.seconds("engine-stall-timeout-s", 0.1),
        client_stall_timeout: r.seconds("client-stall-timeout-s", 0.1),
        sse_ping_interval: r.seconds("sse-ping-interval-s", 0.1),
        // Not settings: no client that works needs more, and each second more is a gift to those
        // that hold connections open without using them.
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(75),
        cors_origins: r.get("cors-origins", v::origins),
        metrics_require_key: r.get("metrics-require-key", v::switch),
        webui: !r.get("no-webui", v::switch),
        limits: RequestLimits {
            n: r.count("max-n", RequestLimits::N_MAX as u64),
            fan_out: r.count("max-fan-out", RequestLimits::FAN_OUT_MAX as u64),
            logprobs: r.get("max-logprobs", v::count(0..=RequestLimits::LOGPROBS_MAX as u64))
                as usize,
        },
    }
}

/// A collector that would never hear of anything is a fault.
fn otlp_endpoint(r: &mut Reader<'_>) -> Option<String> {
    let endpoint = r.get_unshown("otlp-endpoint", v::url);
    if endpoint.is_some() && cfg!(not(feature = "otel")) {
        r.faults.push(
            "otlp-endpoint is set, but this build has no feature otel: build it with --features otel, or take \
             otlp-endpoint away"
                .to_owned(),
        );
    }
    endpoint
}

fn tls(r: &mut Reader<'_>) -> Option<TlsConfig> {
    match (r.get("ssl-certfile", v::path), r.get("ssl-keyfile", v::path)) {
        (Some(cert), Some(key)) => Some(TlsConfig { cert, key }),
        (None, None) => None,
        (cert, _) => {
            let missing = if cert.is_some() { "ssl-keyfile" } else { "ssl-certfile" };
            r.faults.push(format!("{missing} is missing: a certificate and its key go together"));
            None
        }
    }
}

fn auth(r: &mut Reader<'_>, host: IpAddr) -> AuthConfig {
    let auth = AuthConfig {
        api_key_file: r.get("api-key-file", v::path),
        env_key_digest: r.layers.key_digest,
        allow_unauthenticated: r.get("allow-unauthenticated", v::switch),
        i_know_this_is_open: r.get("i-know-this-is-open", v::switch),
    };
    if auth.allow_unauthenticated && (auth.env_key_digest.is_some() || auth.api_key_file.is_some())
    {
        r.faults.push(
            "allow-unauthenticated beside a key or a key file would let everybody in all the same: take \
             one of them away"
                .to_owned(),
        );
    }
    if auth.allow_unauthenticated && !host.is_loopback() && !auth.i_know_this_is_open {
        r.faults.push(format!(
            "allow-unauthenticated on {host} would let everybody in who reaches it: use keys, listen on \
             127.0.0.1, or set i-know-this-is-open too"
        ));
    }
    auth
}

fn names(r: &mut Reader<'_>) -> NamesConfig {
    let served = r.get("served-model-name", v::names);
    let instruct = r.get("instruct-names", v::names_or_none);
    NamesConfig { served, instruct: instruct.into_iter().collect() }
}

fn engine(r: &mut Reader<'_>, client_stall_timeout: Duration) -> EngineConfig {
    EngineConfig {
        max_model_len: r.auto_count("max-model-len", MANY),
        max_num_seqs: r.count("max-num-seqs", 4096),
        max_num_batched_tokens: r.auto_count("max-num-batched-tokens", 1 << 20),
        max_queue_requests: r.count("max-queue-requests", MANY),
        max_queue_tokens: r.count("max-queue-tokens", 1 << 48),
        kv_cache_bytes: r.get("kv-cache-memory", v::auto(v::size)).unwrap_or_else(kv_cache_auto),
        kv_cache_dtype: r
            .get("kv-cache-dtype", v::one_of(&[("f16", KvDtype::F16), ("f32", KvDtype::F32)])),
        prefix_caching: !r.get("no-prefix-caching", v::switch),
        seed: r.get("seed", v::auto(v::count(0..=u64::MAX))),
        client_stall_timeout,
    }
}

fn backend(r: &mut Reader<'_>) -> BackendConfig {
    let devices = [
        ("auto", Device::Auto),
        ("cpu", Device::Cpu),
        ("cuda", Device::Cuda),
        ("metal", Device::Metal),
    ];
    let kernels = [
        ("auto", Kernels::Auto),
        ("avx512", Kernels::Avx512),
        ("avxvnni", Kernels::AvxVnni),
        ("avx2", Kernels::Avx2),
        ("neon", Kernels::Neon),
        ("scalar", Kernels::Scalar),
        ("candle", Kernels::Candle),
    ];
    let quantize = [
        ("auto", None),
        ("q8_0", Some(Quantize::Q8_0)),
        ("q4_k", Some(Quantize::Q4K)),
        ("none", Some(Quantize::None)),
    ];
    BackendConfig {
        threads: r.auto_count("threads", 1024),
        device: r.get("device", v::one_of(&devices)),
        kernels: r.get("kernels", v::one_of(&kernels)),
        quantize: r.get("quantize", v::one_of(&quantize)),
        memory_bytes: memory_bytes(),
    }
}

/// How a model would be served.
pub(crate) fn terms(r: &mut Reader<'_>) -> (EngineConfig, BackendConfig) {
    // How long clients may stall has no part in it.
    (engine(r, Duration::ZERO), backend(r))
}

/// Where `pull` puts models.
pub(crate) fn model_dir(r: &mut Reader<'_>) -> PathBuf {
    r.get("model-dir", v::path).unwrap_or_else(|| user_folder("XDG_CACHE_HOME", ".cache", "models"))
}

/// The key file of `millrace keys` where none is named.
pub(crate) fn default_key_file() -> PathBuf {
    user_folder("XDG_CONFIG_HOME", ".config", "keys.toml")
}

/// `millrace/LAST` in the user's folder for caches or configuration: the variable's, else the usual
/// one under the home folder, else (a container without a home) the working folder.
fn user_folder(variable: &str, usual: &str, last: &str) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| Path::new(v).is_absolute());
    let base = set(variable).map(PathBuf::from).or_else(|| {
        let home = PathBuf::from(set("HOME")?);
        let mac = cfg!(target_os = "macos") && usual == ".cache";
        Some(home.join(if mac { "Library/Caches" } else { usual }))
    });
    base.unwrap_or_else(|| PathBuf::from(usual)).join("millrace").join(last)
}

/// 2 GiB, or a quarter of the memory that this process may use, the less.
fn kv_cache_auto() -> u64 {
    let most = 2 << 30;
    memory_bytes().map_or(most, |all| most.min(all / 4))
}

/// Memory of the machine, or of the container where that is less; `None` where the system does not
/// tell in a file.
fn memory_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let machine = line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? * 1024;
    Some(cgroup::memory_limit().map_or(machine, |limit| limit.min(machine)))
}
