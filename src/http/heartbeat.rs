//! An eye on the engine. That it hangs shows in `/health` and to clients by itself; operators hear of it
//! in the log, by a counter, and when it goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::metrics::{counter, describe_counter, describe_gauge, gauge};
use tokio::time::{MissedTickBehavior, interval};

use super::App;

/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often it says again that the engine still hangs.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);

const STALLED: &str = "millrace_engine_stalled";
const STALLS_TOTAL: &str = "millrace_engine_stalls_total";

/// Watches for as long as it is polled.
pub(super) async fn watch(app: Arc<App>) {
    describe_gauge!(STALLED, "1 while the engine has work and makes no progress.");
    describe_counter!(STALLS_TOTAL, "Times that the engine had work and made no progress.");
    gauge!(STALLED).set(0);
    counter!(STALLS_TOTAL).increment(0);
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stall: Option<Stall> = None;
    loop {
        looks.tick().await;
        match (app.stalled(), &mut stall) {
            (true, None) => {
                gauge!(STALLED).set(1);
                counter!(STALLS_TOTAL).increment(1);
                let now = Instant::now();
                stall = Some(Stall { since: now, said: now });
                say(&app);
            }
            (true, Some(stall)) if stall.said.elapsed() >= REMINDER_INTERVAL => {
                stall.said = Instant::now();
                say(&app);
            }
            (false, Some(over)) => {
                gauge!(STALLED).set(0);
                let seen_for_ms = over.since.elapsed().as_millis() as u64;
                tracing::warn!(seen_for_ms, "the engine goes on");
                stall = None;
            }
            _ => {}
        }
    }
}

struct Stall {
    since: Instant,
    said: Instant,
}

fn say(app: &App) {
    let Some(served) = app.model() else { return };
    let stats = served.engine.stats();
    let (running, waiting) =
        (stats.running.load(Ordering::Relaxed), stats.waiting.load(Ordering::Relaxed));
    let timeout_s = app.config.engine_stall_timeout.as_secs_f64();
    tracing::error!(
        timeout_s,
        running,
        waiting,
        steps = stats.steps.load(Ordering::Relaxed),
        "THE ENGINE HANGS: it has work and made no progress; new requests are refused, and \
        /health/live says 503 so that the process is restarted"
    );
}
