//! The glue: starts HTTP, loads the model behind it, starts the engine, and ends all of it in order.

use std::future::Future;

use anyhow::bail;
use tokio::net::TcpListener;

use crate::config::Config;

/// Serves `config.model` on `listener` until `shutdown` completes and running requests have ended.
///
/// # Errors
/// The model cannot be loaded, or the engine could not go on.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    drop((listener, shutdown));
    bail!("{} cannot be served yet", config.model)
}
