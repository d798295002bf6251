//! A socket with the patience of a server: a time limit on request heads and on writes that make no
//! progress, an eye on clients that hang up, and an end that lets the client read its answer.
//!
//! hyper has one limit for what comes before a request, idle time included. A head that dribbles in
//! should end sooner than a pooled connection that merely waits, hence the limit here. hyper's own
//! timer is the limit on idleness.

mod refusal;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::body::{Ending, Guarded};
use super::heads::Heads;

/// How long a closing connection still reads, and throws away, what the client is sending. Closing a
/// socket with unread bytes resets it, and the client may lose the answer (a 413, a 401) for it.
const LINGER: Duration = Duration::from_secs(1);

/// What the two ends of hyper tell each other about one connection. They run in one task, so the
/// order of memory does not matter.
#[derive(Debug, Default)]
pub(super) struct Phase {
    /// A head was read to its end, and [`Wire`] has not taken note of it yet.
    begun: AtomicBool,
    /// A request is being answered.
    busy: AtomicBool,
    /// Part of the last request's body has not been read.
    unread: AtomicBool,
    /// Heads that arrived, and how many of them [`Wire`] followed to their end.
    heads: AtomicUsize,
    followed: AtomicUsize,
    /// The next answer is the last.
    closes: AtomicBool,
}

impl Phase {
    /// A head arrived: wraps the request's body, which tells when it was read to its end.
    pub(super) fn begin(self: &Arc<Self>, body: Incoming) -> Body {
        self.begun.store(true, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
        self.unread.store(!body.is_end_stream(), Ordering::Relaxed);
        let heads = 1 + self.heads.fetch_add(1, Ordering::Relaxed);
        if heads > self.followed.load(Ordering::Relaxed) {
            self.closes.store(true, Ordering::Relaxed);
        }
        Body::new(Watched { body, phase: Arc::clone(self) })
    }

    /// Part of the request's body has not been read.
    fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// No request may follow on this connection: what is left of a refused body would stand before it,
    /// or the lines of this one's head may mean another thing to somebody else.
    pub(super) fn is_last(&self) -> bool {
        self.is_unread() || self.closes.load(Ordering::Relaxed)
    }

    /// An answer is on its way: wraps its body, which tells when it is over.
    pub(super) fn answer(self: &Arc<Self>, body: Body) -> Body {
        Body::new(Guarded::new(body, Answering(Arc::clone(self))))
    }
}

struct Answering(Arc<Phase>);

impl Ending for Answering {}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

/// A request's body.
struct Watched {
    body: Incoming,
    phase: Arc<Phase>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.phase.unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A time limit that can be set again and again without an allocation.
#[derive(Debug)]
struct Limit {
    after: Duration,
    timer: Pin<Box<Sleep>>,
    armed: bool,
}

impl Limit {
    fn new(after: Duration) -> Self {
        Self { after, timer: Box::pin(sleep(after)), armed: false }
    }

    fn arm(&mut self) {
        if !self.armed {
            self.armed = true;
            self.timer.as_mut().reset(Instant::now() + self.after);
        }
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.armed && self.timer.as_mut().poll(cx).is_ready()
    }
}

/// A [`TcpStream`] whose state can be waited for while it is read and written.
pub(super) struct Socket {
    read: Arc<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self { read: Arc::new(read), write }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

/// A socket, with TLS around it or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn socket(&self) -> &Socket;
}

impl Stream for Socket {
    fn socket(&self) -> &Socket {
        self
    }
}

impl Stream for TlsStream<Socket> {
    fn socket(&self) -> &Socket {
        self.get_ref().0
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream: &TcpStream = (*self.read).as_ref();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

/// Waits until the client sends no more, also while bytes that it sent before lie unread. hyper takes
/// that for a hang-up as well, but looks for it only where it has nothing left to parse.
#[cfg(any(target_os = "linux", target_os = "android"))]
async fn hang_up(socket: Arc<OwnedReadHalf>) {
    // Urgent data is not asked of the kernel, so this is over when the reading side is closed, and
    // never before. Waiting to read would be over at once with each unread byte.
    let _ = socket.ready(tokio::io::Interest::PRIORITY).await;
}

/// Other systems have no such state to wait for: hyper's look must do.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
async fn hang_up(_socket: Arc<OwnedReadHalf>) {
    std::future::pending().await
}

/// The socket, as hyper sees it.
pub(super) struct Wire<S> {
    stream: S,
    hang_up: Pin<Box<dyn Future<Output = ()> + Send>>,
    hung_up: bool,
    phase: Arc<Phase>,
    /// From the first byte of a head to its last; on a new connection, from its beginning.
    head: Limit,
    /// Of one write: a client that does not read must not keep its place for ever.
    write: Limit,
    linger: Limit,
    shut: bool,
    heads: Heads,
    /// What is left to write of an answer that stands for one of hyper's own.
    refusal: Bytes,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, phase: Arc<Phase>, head: Duration, write: Duration) -> Self {
        let mut head = Limit::new(head);
        head.arm();
        Self {
            hang_up: Box::pin(hang_up(Arc::clone(&stream.socket().read))),
            hung_up: false,
            stream,
            phase,
            head,
            write: Limit::new(write),
            linger: Limit::new(LINGER),
            shut: false,
            heads: Heads::default(),
            refusal: Bytes::new(),
        }
    }

    /// Bytes of a head, and what came with them.
    fn follow(&mut self, bytes: &[u8]) {
        self.heads.read(bytes);
        self.phase.followed.store(self.heads.ended, Ordering::Relaxed);
        if self.heads.are_ambiguous {
            self.phase.closes.store(true, Ordering::Relaxed);
        }
    }

    /// Whether hyper refuses what is not HTTP with these bytes; then ours go out instead.
    fn takes_over(&mut self, bytes: &[u8]) -> bool {
        let Some(refusal) = refusal::in_our_form(bytes) else { return false };
        self.refusal = refusal;
        // The client may be sending still, and should be able to read why it is cut.
        self.phase.unread.store(true, Ordering::Relaxed);
        true
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.refusal);
            match ready!(self.after_write(cx, written))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => drop(self.refusal.split_to(n)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn after_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write.armed = false;
            return written;
        }
        self.write.arm();
        if self.write.poll_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: Stream> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.phase.begun.swap(false, Ordering::Relaxed) {
            this.head.armed = false;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        match read {
            // What comes now belongs to a body.
            _ if this.phase.busy.load(Ordering::Relaxed) => read,
            Poll::Pending if this.head.poll_over(cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                this.head.arm();
                this.follow(&buf.filled()[before..]);
                read
            }
            _ => read,
        }
    }
}

impl<S: Stream> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.takes_over(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.after_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [head] = pieces
            && self.takes_over(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.after_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_refusal(cx))?;
        // hyper comes by here whenever something happens on the connection, and while a request
        // runs, an error ends it. Before and after, hyper knows best what an end means.
        if this.phase.busy.load(Ordering::Relaxed) {
            this.hung_up = this.hung_up || this.hang_up.as_mut().poll(cx).is_ready();
            if this.hung_up {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            ready!(this.poll_refusal(cx))?;
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.shut = true;
        }
        if !this.phase.is_unread() {
            return Poll::Ready(Ok(()));
        }
        this.linger.arm();
        let mut scratch = [0; 4096];
        loop {
            if this.linger.poll_over(cx) {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
