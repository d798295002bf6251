//! A server in this process, with routes whose requests the test holds in its hand.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_TYPE;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::config::{AuthConfig, HttpConfig, RequestLimits};
use crate::http::{App, Listeners, Served, Shutdown, openai, serve_with};
use crate::keys::{self, KeyStore};

pub(super) const KEY: &str = "sk-test-canary-5Jq0";

/// What `/v1/large` answers: far more than the sockets' buffers take.
pub(super) const LARGE_BYTES: usize = 16 << 20;

/// Nothing in a test waits longer than this for a thing that must happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    pub(super) app: Arc<App>,
    pub(super) shutdown: Shutdown,
    pub(super) task: JoinHandle<io::Result<()>>,
    pub(super) hold: Arc<Hold>,
}

/// What the test routes wait for, and tell.
pub(super) struct Hold {
    /// A permit lets one request of `/v1/held` or `/v1/plain` go on.
    pub(super) go: Semaphore,
    /// Something for each held request that began, and for each that was dropped.
    news: mpsc::UnboundedSender<&'static str>,
    pub(super) told: tokio::sync::Mutex<mpsc::UnboundedReceiver<&'static str>>,
}

impl Hold {
    fn new() -> Arc<Self> {
        let (news, told) = mpsc::unbounded_channel();
        Arc::new(Self { go: Semaphore::new(0), news, told: tokio::sync::Mutex::new(told) })
    }

    pub(super) async fn wait_for(&self, what: &str) {
        let told = async { while self.told.lock().await.recv().await != Some(what) {} };
        tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("no news of {what}"));
    }

    fn begin(self: &Arc<Self>) -> News {
        let _ = self.news.send("began");
        News(Arc::clone(self))
    }
}

struct News(Arc<Hold>);

impl Drop for News {
    fn drop(&mut self) {
        let _ = self.0.news.send("dropped");
    }
}

/// Patient settings, so that only what a test makes impatient can time out.
pub(super) fn config() -> HttpConfig {
    HttpConfig {
        host: [127, 0, 0, 1].into(),
        port: 0,
        admin: None,
        tls: None,
        max_connections: 100,
        max_body_bytes: 1000,
        default_max_tokens: 1024,
        shutdown_delay: Duration::ZERO,
        shutdown_timeout: PATIENCE,
        engine_stall_timeout: PATIENCE,
        client_stall_timeout: PATIENCE,
        sse_ping_interval: PATIENCE,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        cors_origins: Vec::new(),
        metrics_require_key: false,
        webui: true,
        limits: RequestLimits::default(),
    }
}

pub(super) fn keyless(open: bool) -> AuthConfig {
    AuthConfig { allow_unauthenticated: true, i_know_this_is_open: open, ..AuthConfig::default() }
}

/// Without a model, with [`KEY`].
pub(super) async fn start(config: HttpConfig) -> Server {
    let keys = KeyStore::open(None, Some(keys::digest(KEY.as_bytes()))).unwrap();
    start_with(config, &AuthConfig::default(), keys).await
}

pub(super) async fn start_with(
    config: HttpConfig,
    auth: &AuthConfig,
    keys: Arc<KeyStore>,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let app = App::new(config, auth, keys);
    let shutdown = Shutdown::default();
    let hold = Hold::new();
    let routes = [openai::routes(), test_routes(&hold)].concat();
    let listeners = Listeners { api: listener, tls: None, admin: None };
    let serving = serve_with(listeners, routes, Arc::clone(&app), shutdown.clone());
    Server { addr, app, shutdown, task: tokio::spawn(serving), hold }
}

/// With [`KEY`] and the fake model.
#[cfg(feature = "fake-model")]
pub(super) async fn start_ready(config: HttpConfig) -> Server {
    start_with_model(config, "fake:").await
}

#[cfg(feature = "fake-model")]
pub(super) async fn start_with_model(config: HttpConfig, model: &str) -> Server {
    let server = start(config).await;
    server.app.set_served(served(model));
    server
}

#[cfg(feature = "fake-model")]
fn served(model: &str) -> Served {
    let model = crate::model::fake::open(model).unwrap();
    let settings = crate::engine::Settings {
        max_num_seqs: 4,
        max_num_batched_tokens: Some(64),
        max_speculating_seqs: 4,
        max_queue_requests: 16,
        max_queue_tokens: 4096,
        client_stall_timeout: PATIENCE,
        prefix_caching: true,
    };
    Served {
        engine: crate::engine::spawn(Box::new(model), settings).unwrap(),
        grammars: crate::text::grammar::Grammars::new(&crate::text::Text::fake(256)),
        text: crate::text::Text::fake(256),
        names: vec!["fake".to_owned()],
        instruct: std::collections::BTreeSet::new(),
        max_model_len: 1024,
        fingerprint: "fp_test".to_owned(),
        created_s: 0,
        server_seed: None,
        defaults: crate::model::load::SamplingDefaults::OPENAI,
    }
}

fn test_routes(hold: &Arc<Hold>) -> openai::Routes {
    let (held, plain, endless) = (Arc::clone(hold), Arc::clone(hold), Arc::clone(hold));
    vec![
        ("/v1/held", post(async move || held_stream(held))),
        ("/v1/plain", post(move || held_plain(plain))),
        ("/v1/endless", get(async move || endless_stream(&endless))),
        ("/v1/echo", post(|body: Bytes| async { body })),
        ("/v1/large", post(|| async { "x".repeat(LARGE_BYTES) })),
        ("/v1/panic", get(|| async { panics() })),
    ]
}

fn panics() -> Response {
    panic!("canary-panic");
}

/// One event, then nothing until the test says go, then `[DONE]`.
fn held_stream(hold: Arc<Hold>) -> Response {
    let news = hold.begin();
    let first = stream::iter(["data: {}\n\n"]);
    let last = stream::once(async move {
        hold.go.acquire().await.unwrap().forget();
        drop(news);
        "data: [DONE]\n\n"
    });
    let events = first.chain(last).map(|e| Ok::<_, Infallible>(Bytes::from(e)));
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}

/// Nothing until the test says go.
async fn held_plain(hold: Arc<Hold>) -> Response {
    let _news = hold.begin();
    hold.go.acquire().await.unwrap().forget();
    "done".into_response()
}

/// More than any socket buffers.
fn endless_stream(hold: &Arc<Hold>) -> Response {
    let news = hold.begin();
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let chunks = stream::repeat(chunk).map(move |c| {
        let _held = &news;
        Ok::<_, Infallible>(c)
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(chunks)).into_response()
}

/// A connection that is spoken to in bytes.
pub(super) struct Client(TcpStream);

impl Client {
    pub(super) async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    /// One for which the kernel takes in little more than it reads.
    pub(super) async fn connect_with_small_buffer(addr: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        Self(socket.connect(addr).await.unwrap())
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).await.unwrap();
    }

    /// Fails if the server closed meanwhile.
    async fn try_send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What there is next; nothing: closed.
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; 64 << 10];
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut buf) {
                Ok(n) => {
                    buf.truncate(n);
                    return Ok(buf);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Everything until the server closes; what came before an error, if it resets.
    pub(super) async fn read_to_end(&mut self) -> String {
        let mut all = Vec::new();
        let reading = async {
            while let Ok(piece) = self.read().await
                && !piece.is_empty()
            {
                all.extend_from_slice(&piece);
            }
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "still open after: {}", String::from_utf8_lossy(&all));
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Until what was read contains `mark`.
    pub(super) async fn read_until(&mut self, mark: &str) -> String {
        let mut all = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&all).contains(mark) {
                let piece = self.read().await.unwrap();
                let so_far = String::from_utf8_lossy(&all);
                assert!(!piece.is_empty(), "closed before {mark}: {so_far}");
                all.extend_from_slice(&piece);
            }
        };
        let done = tokio::time::timeout(PATIENCE, reading).await;
        assert!(done.is_ok(), "no {mark}");
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Whether the server says nothing for a moment.
    pub(super) async fn is_silent(&mut self) -> bool {
        let mut buf = [0; 1];
        let moment = Duration::from_millis(30);
        tokio::time::timeout(moment, self.0.peek(&mut buf)).await.is_err()
    }
}

/// One request on a connection of its own.
pub(super) async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut client = Client::connect(addr).await;
    // It may be answered, and closed, before all of it is sent.
    let _ = client.try_send(request.as_bytes()).await;
    client.read_to_end().await
}

/// A GET without a key.
pub(super) async fn get_public(addr: SocketAddr, path: &str) -> String {
    ask(addr, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

/// `METHOD PATH`, with [`KEY`], more header lines, and a body.
pub(super) fn with_key(line: &str, headers: &str, body: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{headers}\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// The value of a header, by its lower-case name.
pub(super) fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        let (n, value) = line.split_once(": ")?;
        n.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// `error.code` of the body.
pub(super) fn code(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    value["error"]["code"].as_str().unwrap_or_default().to_owned()
}
