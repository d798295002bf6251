//! The accept loop. `axum::serve` has none of this: no timer (so hyper's limits never fire), no cap
//! on connections, no limit on writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use super::wire::{Phase, Wire};
use crate::config::HttpConfig;

/// Longest request head, and what hyper buffers of an answer, in bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// Waits between failed accepts: from the first to the longest. Out of file descriptors, the loop
/// must not spin, and must come back soon after some are free.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long connections may take at least to close, once nothing is running on them.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// All connections that are open. Dropping it cuts them.
pub(super) struct Connections {
    graceful: GracefulShutdown,
    cut: DropGuard,
}

impl Connections {
    /// Closes each when its answer is on the wire, and cuts whoever is not done when `time_left` (of the
    /// drain) is over: a request counts as over when hyper has taken its last byte, and a slow client
    /// may then still have most of an answer to read. A second signal, `now`, ends the patience.
    pub(super) async fn close(self, time_left: Duration, now: &CancellationToken) {
        let Self { graceful, cut } = self;
        let patience = async {
            tokio::time::sleep(CLOSE_TIMEOUT).await;
            let more = tokio::time::sleep(time_left.saturating_sub(CLOSE_TIMEOUT));
            now.run_until_cancelled(more).await;
        };
        tokio::select! {
            () = graceful.shutdown() => {}
            () = patience => {}
        }
        drop(cut);
    }
}

/// Accepts until `closing`.
pub(super) async fn accept(
    listener: TcpListener,
    router: Router,
    config: HttpConfig,
    closing: CancellationToken,
) -> Connections {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(config.max_connections));
    let cut = CancellationToken::new();
    let next = async || {
        // A place first: at the cap, new sockets wait in the kernel's backlog.
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        Some((accept_one(&listener).await, place))
    };
    while let Some(Some((stream, place))) = closing.run_until_cancelled(next()).await {
        let connection = graceful.watch(connection(stream, router.clone(), &config));
        let cut = cut.clone();
        tokio::spawn(async move {
            // Broken connections are the clients' business, and no news: the access log has what
            // became of requests.
            let _ = cut.run_until_cancelled(connection).await;
            drop(place);
        });
    }
    Connections { graceful, cut: cut.drop_guard() }
}

async fn accept_one(listener: &TcpListener) -> TcpStream {
    let mut wait = BACKOFF.0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Tokens are small and should go out one by one. Failing to say so is no harm.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            // That one connection is gone already; the next one may be fine.
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// HTTP/1.1 on one socket.
fn connection(
    stream: TcpStream,
    router: Router,
    config: &HttpConfig,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + use<> {
    let phase = Arc::new(Phase::default());
    let wire =
        Wire::new(stream, Arc::clone(&phase), config.header_timeout, config.client_stall_timeout);
    let service = service_fn(move |req: hyper::Request<hyper::body::Incoming>| {
        let phase = Arc::clone(&phase);
        let router = router.clone();
        async move {
            let response = router.oneshot(req.map(|body| phase.begin(body))).await;
            response.map(|mut response| {
                if phase.is_unread() {
                    // What is left of a refused body is not read: the next request would stand
                    // behind it.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|body| phase.answer(body))
            })
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle_timeout.max(config.header_timeout))
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(wire), service)
}
