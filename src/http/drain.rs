//! From the first signal to the moment when the server may go.

use std::io;
use std::time::{Duration, Instant};

use super::{App, Shutdown};
use crate::engine::handle::Ended;

/// How long an engine that was stopped may take to fail its requests (a step may be running), and
/// then requests that nobody answered to be answered here.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Returns when nothing is left to wait for, with what is left of the drain time then. `Err`: the
/// engine ended by itself.
pub(super) async fn until_over(app: &App, shutdown: &Shutdown) -> (io::Result<()>, Duration) {
    tokio::select! {
        biased;
        () = shutdown.now.cancelled() => {}
        () = shutdown.drain.cancelled() => {}
        ended = app.engine_ended() => return (engine_is_gone(app, ended).await, Duration::ZERO),
    }
    app.leaving.cancel();
    if let Some(ended) = farewell(app, shutdown).await {
        return (engine_is_gone(app, ended).await, Duration::ZERO);
    }
    let began = Instant::now();
    let outcome = drain(app, shutdown).await;
    (outcome, app.config.shutdown_timeout.saturating_sub(began.elapsed()))
}

/// Unready, and serving: whoever chooses among servers takes a moment to see that this one leaves, and sends
/// requests until then. `Some`: the engine ended by itself meanwhile.
async fn farewell(app: &App, shutdown: &Shutdown) -> Option<Ended> {
    let delay = app.config.shutdown_delay;
    if delay.is_zero() {
        return None;
    }
    tracing::info!(
        delay_s = delay.as_secs_f64(),
        "not ready any more; draining begins after a delay"
    );
    tokio::select! {
        biased;
        () = shutdown.now.cancelled() => None,
        ended = app.engine_ended() => Some(ended),
        () = tokio::time::sleep(delay) => None,
    }
}

async fn drain(app: &App, shutdown: &Shutdown) -> io::Result<()> {
    tracing::info!("draining: no new requests");
    app.draining.cancel();
    app.requests.close();
    if let Some(served) = app.model() {
        served.engine.drain();
    }
    tokio::select! {
        biased;
        () = shutdown.now.cancelled() => tracing::info!("ending at once"),
        ended @ Ended::Fatal(_) = app.engine_ended() => return engine_is_gone(app, ended).await,
        () = app.requests.wait() => return engine_outcome(app, STOP_GRACE).await,
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
            () = app.requests.wait() => return engine_outcome(app, STOP_GRACE).await,
            () = tokio::time::sleep(STOP_GRACE) => {}
        }
    }
    abandon(app).await;
    engine_outcome(app, Duration::ZERO).await
}

/// How the engine ended, with a little patience: it fails its requests just before it goes, so their
/// end may be seen first. One that still works by then, for nobody, has not failed.
async fn engine_outcome(app: &App, patience: Duration) -> io::Result<()> {
    let Some(served) = app.model() else {
        return Ok(());
    };
    tokio::time::timeout(patience, served.engine.finished()).await.map_or(Ok(()), outcome)
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
    outcome(ended)
}

fn outcome(ended: Ended) -> io::Result<()> {
    match ended {
        Ended::Drained => Ok(()),
        Ended::Fatal(reason) => Err(io::Error::other(format!("the engine failed: {reason}"))),
    }
}
