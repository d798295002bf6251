//! Programs that the server talks to: the store of shared limits and the collector of traces. It serves without either.

use super::report::Check;
use crate::config::{Config, StoreUrl};
use crate::keys::LimitStore;

/// `None` without a store.
pub(super) fn store(config: &Config) -> Option<Check> {
    let url = config.rate_limit_store.as_ref()?;
    Some(match ask(url) {
        Ok(()) => Check::new("limit store", format!("{url} answers")),
        Err(fault) => Check::new("limit store", format!("{url}: {fault}")).better(
            "Until the store answers, each server keeps to the limits of keys by itself: start it, or mend \
             --rate-limit-store.",
        ),
    })
}

fn ask(url: &StoreUrl) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    let answer = runtime.block_on(LimitStore::reach(url));
    // A name that nobody resolves would be waited for.
    runtime.shutdown_background();
    answer
}

/// `None` where no traces are wanted.
#[cfg(feature = "otel")]
pub(super) fn collector(config: &Config) -> Option<Check> {
    let reached = crate::telemetry::traces::reach(config.otlp_endpoint.as_deref())?;
    let place = config.otlp_endpoint.as_deref().unwrap_or("where OpenTelemetry's variables say");
    Some(match reached {
        Ok(()) => Check::new("collector", format!("{place}: takes traces")),
        Err(fault) => Check::new("collector", format!("{place}: {fault}")).better(
            "Spans are dropped until the collector takes them: start it, or mend --otlp-endpoint (OTLP over HTTP, port \
             4318 as a rule).",
        ),
    })
}

#[cfg(not(feature = "otel"))]
pub(super) fn collector(_: &Config) -> Option<Check> {
    None
}
