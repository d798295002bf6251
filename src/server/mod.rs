//! The glue: starts HTTP, loads the model behind it, starts the engine, and ends all of it in order.

mod banner;
pub(crate) mod load;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinError;

use banner::Facts;

use crate::cli::pull::Interrupt;
use crate::config::Config;
use crate::http::{self, App, Listeners, Shutdown};
use crate::keys::{KeyStore, LimitStore};

/// What an interrupted download gets for removing its files.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `config.model` on `listeners` until `shutdown` says to end and running requests have ended.
///
/// The port answers at once: while the model is loading, as a server that is alive and not ready.
///
/// # Errors
/// The keys or the model cannot be loaded, or the engine could not go on.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> anyhow::Result<()> {
    let bound =
        |listener: &TcpListener| listener.local_addr().context("cannot tell the bound address");
    let address = bound(&listeners.api)?;
    let admin = listeners.admin.as_ref().map(bound).transpose()?;
    let auth = &config.auth;
    // Before the first that is measured.
    crate::telemetry::metrics::install();
    let shared = config.rate_limit_store.as_ref().map(LimitStore::open).transpose();
    let shared = shared.map_err(|why| anyhow::anyhow!("rate-limit-store: {why}"))?;
    let keys = KeyStore::open_shared(auth.api_key_file.clone(), auth.env_key_digest, shared)?;
    let app = App::new(config.http.clone(), auth, keys);
    banner::listening(&config, address, admin);
    let mut http = tokio::spawn(http::serve(listeners, Arc::clone(&app), shutdown));

    let interrupt = Interrupt::default();
    let mut loading = {
        let (config, interrupt) = (config.clone(), interrupt.clone());
        tokio::task::spawn_blocking(move || load::load(&config, &interrupt))
    };
    tokio::select! {
        loaded = &mut loading => match loaded.map_err(panicked).and_then(|loaded| loaded) {
            Ok(loaded) => {
                let facts = Facts::of(&config, address, &loaded);
                app.set_served(loaded.served);
                // Only now: whoever reads "ready" may ask at once.
                facts.show(config.log.json);
                ended(http.await)
            }
            Err(e) => {
                http.abort();
                Err(e)
            }
        },
        // Told to end before there was a model. Loading cannot be stopped, but fetching can, and it
        // should have the time to remove what it has so far.
        end = &mut http => {
            interrupt.set();
            let _ = tokio::time::timeout(CLEAN_UP_TIMEOUT, loading).await;
            ended(end)
        }
    }
}

fn ended(outcome: Result<std::io::Result<()>, JoinError>) -> anyhow::Result<()> {
    Ok(outcome.map_err(panicked)??)
}

/// The panic itself is in the log already, by its place.
fn panicked(_: JoinError) -> anyhow::Error {
    anyhow::anyhow!("a fault of this program, not of its input: see the log above")
}
