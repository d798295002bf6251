//! The client: as many streams at once as asked for, on one thread.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::server::KEY;

/// Streams to run at once, all alike.
pub(crate) struct Load {
    address: SocketAddr,
    requests: Vec<String>,
    tokens: usize,
}

/// What came back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Server-sent events, the last of a stream included.
    pub(crate) events: usize,
    pub(crate) reads: usize,
}

impl Load {
    /// `streams` requests with prompts of their own, for `tokens` tokens each.
    pub(crate) fn new(address: SocketAddr, streams: usize, tokens: usize) -> Self {
        let request = |n: usize| {
            let body = format!(
                "{{\"model\": \"davinci-002\", \"prompt\": [{}, 300, 301, 302], \"seed\": {n}, \"stream\": true, \
                 \"max_tokens\": {tokens}, \"ignore_eos\": true, \"temperature\": 1.5}}",
                10 + n
            );
            format!(
                "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        Self { address, requests: (0..streams).map(request).collect(), tokens }
    }

    /// Tokens of one run.
    pub(crate) fn tokens(&self) -> usize {
        self.requests.len() * self.tokens
    }

    /// Sends all requests and reads all answers to their end.
    pub(crate) fn run(&self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let streams: Vec<_> = self
                .requests
                .iter()
                .map(|request| tokio::spawn(stream(self.address, request.clone())))
                .collect();
            let mut all = Outcome::default();
            for stream in streams {
                let one = stream.await.unwrap().unwrap();
                all.events += one.events;
                all.reads += one.reads;
            }
            all
        })
    }
}

/// One request and its answer.
async fn stream(address: SocketAddr, request: String) -> io::Result<Outcome> {
    let socket = TcpStream::connect(address).await?;
    let mut left = request.as_bytes();
    while !left.is_empty() {
        socket.writable().await?;
        match socket.try_write(left) {
            Ok(written) => left = &left[written..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    let mut outcome = Outcome::default();
    let mut buffer = [0; 16 << 10];
    let (mut last, mut end) = (0, Vec::new());
    loop {
        socket.readable().await?;
        let bytes = match socket.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => &buffer[..n],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        outcome.reads += 1;
        // Only an event has two line feeds in a row: HTTP's own lines end in carriage returns too.
        for &byte in bytes {
            outcome.events += usize::from(byte == b'\n' && last == b'\n');
            last = byte;
        }
        end.extend_from_slice(&bytes[bytes.len().saturating_sub(END.len())..]);
        end.drain(..end.len().saturating_sub(END.len()));
    }
    assert!(end.ends_with(END), "a stream broke off: {}", String::from_utf8_lossy(&end));
    Ok(outcome)
}

/// The last event, and what HTTP ends its body with.
const END: &[u8] = b"data: [DONE]\n\n\r\n0\r\n\r\n";
