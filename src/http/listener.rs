//! The accept loop. `axum::serve` has none of this: no timer (so hyper's limits never fire), no cap
//! on connections, no limit on writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures_util::TryFutureExt as _;
use http::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use super::body::{Ending, Guarded};
use super::openai::error::HEAD_BYTES_MAX;
use super::tls::H2;
use super::wire::{Phase, Socket, Stream, Wire};
use crate::config::HttpConfig;

/// Bytes of answers that may lie in the kernel, not sent yet, before a connection counts as full. Left to
/// itself the kernel takes in megabytes, and then says nothing until a third of them is gone: a client
/// that reads slowly but steadily would look like one that has stopped.
const UNSENT_BYTES: u32 = 64 << 10;

/// Requests at one time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;

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
    tls: Option<TlsAcceptor>,
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
        let connection =
            connection(stream, tls.clone(), router.clone(), config.clone(), graceful.watcher());
        let cut = cut.clone();
        tokio::spawn(async move {
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
                prepare(&stream);
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

/// Failing to say any of it is no harm.
fn prepare(stream: &TcpStream) {
    // Tokens are small and should go out one by one.
    let _ = stream.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
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

/// HTTP on one socket. Broken connections are the clients' business, and no news: the access log has
/// what became of requests.
async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    config: HttpConfig,
    watcher: Watcher,
) {
    let socket = Socket::new(stream);
    let Some(tls) = tls else {
        let _ = watcher.watch(http_1(socket, router, &config)).await;
        return;
    };
    // Before a head can be awaited.
    let shaken = tokio::time::timeout(config.header_timeout, tls.accept(socket)).await;
    let Ok(Ok(stream)) = shaken else { return };
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        let running = watch::Sender::new(0);
        let idle = idle(running.subscribe(), config.idle_timeout);
        tokio::select! {
            _ = watcher.watch(http_2(stream, router, &config, Arc::new(running))) => {}
            () = idle => {}
        }
    } else {
        let _ = watcher.watch(http_1(stream, router, &config)).await;
    }
}

fn http_1<S: Stream>(
    stream: S,
    router: Router,
    config: &HttpConfig,
) -> impl GracefulConnection<Error = hyper::Error> + use<S> {
    let phase = Arc::new(Phase::default());
    let wire =
        Wire::new(stream, Arc::clone(&phase), config.header_timeout, config.client_stall_timeout);
    let service = service_fn(move |req: hyper::Request<hyper::body::Incoming>| {
        let phase = Arc::clone(&phase);
        let router = router.clone();
        async move {
            let response = router.oneshot(req.map(|body| phase.begin(body))).await;
            response.map(|mut response| {
                if phase.is_last() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|body| phase.answer(body))
            })
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle_timeout.max(config.header_timeout))
        // What hyper buffers of an answer, too.
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(wire), service)
}

/// Several requests at once. A client that stops reading holds up its own answers alone, and those end
/// by the engine's limit; one that is gone without a word is found out by a ping.
fn http_2(
    stream: TlsStream<Socket>,
    router: Router,
    config: &HttpConfig,
    running: Arc<watch::Sender<usize>>,
) -> impl GracefulConnection<Error = hyper::Error> + use<> {
    let service = service_fn(move |req: hyper::Request<hyper::body::Incoming>| {
        let one = Running::new(&running);
        let response = router.clone().oneshot(req.map(Body::new));
        response.map_ok(|response| response.map(|body| Body::new(Guarded::new(body, one))))
    });
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(config.idle_timeout)
        .keep_alive_timeout(config.header_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(UNSENT_BYTES as usize)
        .serve_connection(TokioIo::new(stream), service)
}

/// One of the requests of a connection, until the last byte of its answer is taken or it is dropped.
struct Running(Arc<watch::Sender<usize>>);

impl Running {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(Arc::clone(count))
    }
}

impl Ending for Running {}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Over when nothing has run for that long.
async fn idle(mut running: watch::Receiver<usize>, timeout: Duration) {
    while running.wait_for(|&count| count == 0).await.is_ok() {
        if tokio::time::timeout(timeout, running.wait_for(|&count| count > 0)).await.is_err() {
            return;
        }
    }
}
