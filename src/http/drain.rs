//! From the first signal to the moment when the server may go.

use std::io;
use std::time::Duration;

use super::{App, Shutdown};
use crate::engine::handle::Ended;

/// How long an engine that was stopped may take to fail its requests (a step may be running), and
/// then requests that nobody answered to be answered here.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Returns when nothing is left to wait for. `Err`: the engine ended by itself.
pub(super) async fn until_over(app: &App, shutdown: &Shutdown) -> io::Result<()> {
    tokio::select! {
        biased;
        () = shutdown.now.cancelled() => {}
        () = shutdown.drain.cancelled() => {}
        ended = app.engine_ended() => return engine_is_gone(app, ended).await,
    }
    tracing::info!("draining: no new requests");
    app.draining.cancel();
    app.requests.close();
    if let Some(served) = app.model() {
        served.engine.drain();
    }
    tokio::select! {
        biased;
        () = shutdown.now.cancelled() => tracing::info!("ending at once"),
        () = app.requests.wait() => return Ok(()),
        () = tokio::time::sleep(app.config.shutdown_timeout) => {
            tracing::warn!(requests = app.requests.len(), "drain time is over");
        }
    }
    if let Some(served) = app.model() {
        served.engine.stop();
    }
    if !shutdown.now.is_cancelled() {
        tokio::select! {
            () = shutdown.now.cancelled() => {}
            () = app.requests.wait() => return Ok(()),
            () = tokio::time::sleep(STOP_GRACE) => {}
        }
    }
    abandon(app).await;
    Ok(())
}

/// Answers everybody who still waits, without the engine.
async fn abandon(app: &App) {
    app.abandoned.cancel();
    let _ = tokio::time::timeout(STOP_GRACE, app.requests.wait()).await;
}

async fn engine_is_gone(app: &App, ended: Ended) -> io::Result<()> {
    app.fail();
    app.draining.cancel();
    app.requests.close();
    // The engine failed its requests before it went; this waits for those answers to go out.
    let _ = tokio::time::timeout(STOP_GRACE, app.requests.wait()).await;
    abandon(app).await;
    match ended {
        Ended::Drained => Ok(()),
        Ended::Fatal(reason) => Err(io::Error::other(format!("the engine failed: {reason}"))),
    }
}
