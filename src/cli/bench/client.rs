//! Requests over HTTP/1.1: connections are kept and used again, each for one request at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::answer::{Answer, Stream, message_of};
use super::fault::{Fault, Kind};
use super::target::Target;

/// More than any list of models or error.
const MAX_BODY_BYTES: usize = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

type Sender = SendRequest<Full<Bytes>>;

/// A server, and connections to it that wait for something to do.
pub(super) struct Client {
    pub(super) target: Target,
    addresses: Vec<SocketAddr>,
    idle: Mutex<Vec<Sender>>,
    timeout: Duration,
}

impl Client {
    /// Looks the server's name up, once for all requests.
    pub(super) async fn new(target: Target, timeout: Duration) -> Result<Self, Fault> {
        let place = (target.host.as_str(), target.port);
        let addresses =
            tokio::net::lookup_host(place).await.map_err(|e| unreachable(&target, &e))?;
        let addresses = addresses.collect();
        Ok(Self { target, addresses, idle: Mutex::default(), timeout })
    }

    /// Sends a request and reads the stream of its answer; `sent` is when it began.
    pub(super) async fn ask(
        &self,
        route: &str,
        body: Vec<u8>,
        sent: Instant,
    ) -> Result<Answer, Fault> {
        let asked = self.ask_patiently(route, body.into(), sent);
        tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    /// `GET` of a JSON document.
    pub(super) async fn get(&self, route: &str) -> Result<Value, Fault> {
        let asked = async {
            let (response, sender) = self.send(Method::GET, route, Bytes::new()).await?;
            let response = refused(response).await?;
            let bytes = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
            let bytes = bytes.map_err(|e| Fault::new(Kind::Cut, &e.to_string()))?.to_bytes();
            self.keep(sender);
            let what = |e| Fault::new(Kind::BadStream, &format!("{route}: no JSON: {e}"));
            serde_json::from_slice(&bytes).map_err(what)
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(self.too_late()))
    }

    fn too_late(&self) -> Fault {
        let s = self.timeout.as_secs_f64();
        Fault::new(Kind::Timeout, &format!("no complete answer in {s} s (--timeout-s)"))
    }

    async fn ask_patiently(
        &self,
        route: &str,
        body: Bytes,
        sent: Instant,
    ) -> Result<Answer, Fault> {
        let (response, sender) = self.send(Method::POST, route, body).await?;
        let mut body = refused(response).await?.into_body();
        let mut stream = Stream::new(sent);
        while let Some(frame) = body.frame().await {
            let now = Instant::now();
            let what = |e| Fault::new(Kind::Cut, &format!("the answer broke off: {}", chain(&e)));
            if let Ok(bytes) = frame.map_err(what)?.into_data() {
                stream.take(&bytes, now)?;
            }
        }
        self.keep(sender);
        stream.finish(Instant::now())
    }

    /// Over a connection that waits, or a new one.
    async fn send(
        &self,
        method: Method,
        route: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Sender), Fault> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let path = self.target.path(route);
        *request.uri_mut() = path.parse().map_err(|_| {
            Fault::new(Kind::Connect, &format!("{path:?} cannot be the path of a request"))
        })?;
        request.headers_mut().clone_from(&self.target.headers);
        loop {
            let (mut sender, is_new) = match self.waiting().await {
                Some(sender) => (sender, false),
                None => (self.connect().await?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut e) => match e.take_message() {
                    // The server closed it while it waited, and has seen nothing of the request.
                    Some(unsent) if !is_new => request = unsent,
                    _ => {
                        let what = format!("the connection broke off: {}", chain(e.error()));
                        return Err(Fault::new(Kind::Cut, &what));
                    }
                },
            }
        }
    }

    /// The connection that was used last, if it still works.
    async fn waiting(&self) -> Option<Sender> {
        loop {
            let sender = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut sender = sender?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }

    async fn connect(&self) -> Result<Sender, Fault> {
        let connected = async {
            let socket = TcpStream::connect(&self.addresses[..]).await?;
            socket.set_nodelay(true)?;
            let Some((connector, name)) = &self.target.tls else {
                return handshake(socket).await;
            };
            handshake(connector.connect(name.clone(), socket).await?).await
        };
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"));
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connected).await;
        connected.unwrap_or_else(|_| late()).map_err(|e| unreachable(&self.target, &e))
    }
}

async fn handshake(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<Sender> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(io::Error::other)?;
    // What goes wrong in it is told to the request.
    tokio::spawn(connection);
    Ok(sender)
}

fn unreachable(target: &Target, e: &io::Error) -> Fault {
    let descriptors = match e.raw_os_error() {
        // EMFILE on every Unix.
        Some(24) => "; raise `ulimit -n`, or ask with fewer at once",
        _ => "",
    };
    Fault::new(
        Kind::Connect,
        &format!("cannot connect to {}: {}{descriptors}", target.base, chain(e)),
    )
}

/// A response of success, or the fault that it tells.
async fn refused(response: Response<Incoming>) -> Result<Response<Incoming>, Fault> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let said = match serde_json::from_slice::<Value>(&body) {
        Ok(body) => message_of(&body),
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let what = format!("the server answered {status}: {said}");
    Err(Fault::new(Kind::Http(status.as_u16()), &what))
}

/// An error and what caused it.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let next = e.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = e.source();
    }
    text
}
