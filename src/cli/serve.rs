//! `millrace serve`: checks everything that can be checked at once, listens, and hands over to
//! [`crate::run`].

use std::net::SocketAddr;

use super::flags::Flags;
use super::output::say;
use super::settings::{self, Layers};
use super::{Failure, Outcome, source};
use crate::config::{AuthConfig, Config};

/// Workers of the runtime. Requests cost it little; the cores belong to the engine.
const HTTP_THREADS: usize = 2;

const LOCKED_OUT: &str = "no keys, so nobody could use the server. There are three ways:
  --api-key-file FILE      with keys from `millrace keys add NAME --file FILE`
  MILLRACE_API_KEY         in the environment: one key (never a flag: others can read those)
  --allow-unauthenticated  no keys at all, on a loopback address only";

/// Options of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A .gguf file (also relative to the model folder) or a name of `millrace pull --list`
    /// [env: MILLRACE_MODEL] [default: smollm2-135m-instruct]
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
    if is_locked_out(&config.auth) {
        return Err(Failure::Refusal(LOCKED_OUT));
    }
    source::resolve(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|e| Failure::runtime(format!("cannot start the runtime: {e}")))?;
    let outcome = runtime.block_on(listen_and_run(config));
    // A thread that still loads, or an engine that hangs, must not keep the process from ending.
    runtime.shutdown_background();
    outcome
}

async fn listen_and_run(config: Config) -> Outcome {
    let address = SocketAddr::new(config.http.host, config.http.port);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|e| Failure::runtime(format!("cannot listen on {address}: {e}")))?;
    let shutdown = async {
        signal().await;
        say("stopping: running requests may finish; a second signal ends at once");
        tokio::spawn(async {
            signal().await;
            end_at_once();
        });
    };
    crate::run(config, listener, shutdown).await.map_err(|e| Failure::runtime(format!("{e:#}")))
}

/// Does what a second signal asks for.
#[expect(clippy::exit, reason = "whoever signals twice wants no destructor to be waited for")]
fn end_at_once() {
    std::process::exit(1);
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                () = interrupt() => {}
            }
            return;
        }
    }
    interrupt().await;
}

async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // No handler could be set, so the signal does what it does by default: ends the process.
        std::future::pending::<()>().await;
    }
}
