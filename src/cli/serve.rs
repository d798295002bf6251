//! `millrace serve`: checks everything that can be checked at once, listens, and hands over to
//! [`crate::run`].

use std::net::SocketAddr;
use std::time::Duration;

use super::address::advice;
use super::flags::Flags;
use super::settings::{self, Layers};
use super::{Failure, Outcome, output, source};
use crate::config::{AuthConfig, Config};
use crate::http::{Listeners, Shutdown, Tls};
use crate::keys::KeyError;

/// Workers of the runtime. Requests cost it little; the cores belong to the engine.
const HTTP_THREADS: usize = 2;

/// What a second signal leaves for telling clients why.
const LAST_WORDS: Duration = Duration::from_millis(500);

const LOCKED_OUT: &str = "no keys, so nobody could use the server. There are three ways:
  --api-key-file FILE      with keys from `millrace keys add NAME --file FILE`
  MILLRACE_API_KEY         in the environment: one key (never a flag: others can read those)
  --allow-unauthenticated  no keys at all, on a loopback address only";

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A .gguf file or a folder with config.json and safetensors (also relative to the model folder), a name
    /// of `millrace pull --list`, or a model of a hub as `millrace pull` takes it: `owner/name` (a .gguf file, or a
    /// folder with safetensors), `owner/name:FILE.gguf`, `owner/name:Q4_K_M`
    /// [env: `MILLRACE_MODEL`] [default: `smollm2-135m-instruct`]
    model: Option<String>,
    #[command(flatten)]
    flags: Flags,
}

/// There is no key, and no leave to go without.
pub(crate) fn is_locked_out(auth: &AuthConfig) -> bool {
    auth.api_key_file.is_none() && auth.env_key_digest.is_none() && !auth.allow_unauthenticated
}

/// Serves until a signal.
pub(crate) fn run(options: Options) -> Outcome {
    let layers = Layers::read(&options.flags.with_model(options.model));
    let config = settings::config(&layers).map_err(Failure::Usage)?;
    output::set_quiet(config.log.quiet);
    if is_locked_out(&config.auth) {
        return Err(Failure::Refusal(LOCKED_OUT));
    }
    source::resolve(&config)?;
    crate::model::check_backend(&config.backend).map_err(Failure::usage)?;
    forbid_memory_dumps();
    let log = crate::telemetry::logs::init(&config.log);
    let log = log.map_err(|e| Failure::runtime(format!("cannot start logging: {e}")))?;
    let traces = Traces::start(config.otlp_endpoint.as_deref())?;
    output::set_json(config.log.json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| Failure::runtime(format!("cannot start the runtime: {e}")))?;
    let outcome = runtime.block_on(listen_and_run(config));
    // A thread that still loads, or an engine that hangs, must not keep the process from ending.
    runtime.shutdown_background();
    // Its last words are lines of the log.
    traces.finish();
    // The log's last lines come before the reason for the end.
    drop(log);
    outcome
}

/// Traces, for as long as there are requests.
#[cfg(feature = "otel")]
struct Traces(Option<crate::telemetry::traces::TraceGuard>);

#[cfg(feature = "otel")]
impl Traces {
    fn start(endpoint: Option<&str>) -> Result<Self, Failure> {
        match crate::telemetry::traces::init(endpoint) {
            Ok(guard) => Ok(Self(guard)),
            // Variables are for all programs of a machine or pod.
            Err(e) if endpoint.is_none() => {
                tracing::warn!("no traces are sent: {e}");
                Ok(Self(None))
            }
            Err(e) => Err(Failure::usage(format!("cannot send traces: {e}"))),
        }
    }

    fn finish(self) {
        drop(self.0);
    }
}

/// A build without traces.
#[cfg(not(feature = "otel"))]
struct Traces;

#[cfg(not(feature = "otel"))]
impl Traces {
    /// The setting is a fault of the configuration. OpenTelemetry's variables are for all programs of a machine or
    /// pod, so that they are none.
    #[expect(clippy::unnecessary_wraps, reason = "a build with traces may fail")]
    fn start(_: Option<&str>) -> Result<Self, Failure> {
        for name in ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
                tracing::warn!(
                    "{name} is set, but this build has no feature otel: no traces are sent"
                );
            }
        }
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "a build with traces sends the last of them")]
    fn finish(self) {}
}

async fn listen_and_run(config: Config) -> Outcome {
    // First, so that a signal from here on is never the death of a process that could clean up.
    let mut signals =
        Signals::new().map_err(|e| Failure::runtime(format!("cannot handle signals: {e}")))?;
    let tls = config.http.tls.clone().map(Tls::open).transpose();
    let tls = tls.map_err(|e| Failure::usage(e.to_string()))?;
    let listen = async |address: SocketAddr, option: &str| {
        let listener = tokio::net::TcpListener::bind(address).await;
        listener.map_err(|e| {
            let advice = advice(address, option, &e);
            Failure::runtime(format!("cannot listen on {address}: {advice}"))
        })
    };
    let api = listen(SocketAddr::new(config.http.host, config.http.port), "--port").await?;
    let admin = match config.http.admin {
        Some(address) => Some(listen(address, "--admin-listen").await?),
        None => None,
    };
    let listeners = Listeners { api, tls, admin };
    let shutdown = Shutdown::default();
    let tokens = shutdown.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: running requests may finish; a second signal ends at once");
        tokens.drain.cancel();
        signals.next().await;
        tokens.now.cancel();
        tokio::time::sleep(LAST_WORDS).await;
        end_at_once();
    });
    crate::run(config, listeners, shutdown).await.map_err(explain)
}

/// One line for whatever ended the server, and the exit code that goes with it.
fn explain(e: anyhow::Error) -> Failure {
    match e.downcast::<Failure>() {
        Ok(failure) => failure,
        Err(e) if e.is::<KeyError>() => Failure::usage(e.to_string()),
        Err(e) => Failure::runtime(format!("{e:#}")),
    }
}

/// A core dump would hold prompts, and the environment with its key. An empty filter leaves nothing of
/// this process's memory in one. Other systems than Linux have no such switch.
fn forbid_memory_dumps() {
    // Where it cannot be set there is nothing better to do, and no reason not to serve.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Does what a second signal asks for, if the orderly way took too long.
#[expect(clippy::exit, reason = "whoever signals twice wants no destructor to be waited for")]
fn end_at_once() {
    std::process::exit(1);
}

/// SIGINT and SIGTERM, from when it was made.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Inside a runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
