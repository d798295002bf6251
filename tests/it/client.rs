//! A plain HTTP/1.1 client over a blocking socket: what a test sends and gets is bytes, not an SDK's view of them.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use serde_json::Value;

/// Long enough for a debug-sized machine under load; a test that reaches it has hung.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// What clients have said to each server, as far as it can be told from what a server says by itself.
static SAID: LazyLock<Mutex<HashMap<SocketAddr, BTreeSet<String>>>> = LazyLock::new(Mutex::default);
/// Shorter texts may stand in a log for other reasons.
const SAID_CHARS_MIN: usize = 12;
/// The beginning of a text is as telling as all of it.
const SAID_CHARS_MAX: usize = 60;
const PARSED_BYTES_MAX: usize = 1 << 20;

/// Beginnings of all prompts, messages and stop strings that were sent to the server at `addr`.
pub(crate) fn said_to(addr: SocketAddr) -> BTreeSet<String> {
    SAID.lock().unwrap().get(&addr).cloned().unwrap_or_default()
}

fn note_said(addr: SocketAddr, body: &str) {
    if body.len() > PARSED_BYTES_MAX {
        return;
    }
    // What is no JSON is some tests' business.
    let Ok(body) = serde_json::from_str::<Value>(body) else { return };
    let mut said = SAID.lock().unwrap();
    for field in ["prompt", "suffix", "messages", "stop", "user"] {
        texts(&body[field], said.entry(addr).or_default());
    }
}

fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.chars().count() >= SAID_CHARS_MIN => {
            found.insert(text.chars().take(SAID_CHARS_MAX).collect());
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// Where to send requests, and with which key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
    pub(crate) key: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// `error.NAME` of an error body.
    pub(crate) fn error(&self, name: &str) -> Value {
        self.json()["error"][name].clone()
    }

    /// `choices[i].text`.
    pub(crate) fn text(&self, i: usize) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["choices"][i]["text"].as_str().unwrap().to_owned()
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

impl Client {
    /// Opens a connection and writes these bytes to it.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<TcpStream> {
        let mut socket = TcpStream::connect(self.addr)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        socket.set_nodelay(true)?;
        socket.write_all(bytes)?;
        Ok(socket)
    }

    fn head(&self, method: &str, path: &str, body: Option<&str>) -> String {
        let key = match &self.key[..] {
            "" => String::new(),
            key => format!("Authorization: Bearer {key}\r\n"),
        };
        let length = body
            .map(|b| format!("Content-Type: application/json\r\nContent-Length: {}\r\n", b.len()));
        let length = length.unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}{length}\r\n"
        )
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let socket = self.raw(self.head("GET", path, None).as_bytes()).unwrap();
        read_answer(socket).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub(crate) fn post_text(&self, path: &str, body: &str) -> Answer {
        self.try_post(path, body).unwrap()
    }

    pub(crate) fn try_post(&self, path: &str, body: &str) -> io::Result<Answer> {
        note_said(self.addr, body);
        read_answer(self.raw((self.head("POST", path, Some(body)) + body).as_bytes())?)
    }

    pub(crate) fn complete(&self, body: &Value) -> Answer {
        self.post("/v1/completions", body)
    }

    /// Sends a request and leaves its answer where it is.
    pub(crate) fn send(&self, body: &Value) -> TcpStream {
        let text = body.to_string();
        note_said(self.addr, &text);
        let head = self.head("POST", "/v1/completions", Some(&text));
        self.raw((head + &text).as_bytes()).unwrap()
    }

    /// Sends a streaming request and reads its head.
    pub(crate) fn stream(&self, body: &Value) -> Stream {
        let mut reader = BufReader::new(self.send(body));
        let (status, headers) = read_head(&mut reader).unwrap();
        Stream { status, headers, reader, rest: Vec::new() }
    }

    /// How many requests their clients left, or were cut off from.
    pub(crate) fn aborted(&self) -> f64 {
        let page = self.get("/metrics").body;
        let of_aborts = |line: &&str| {
            line.starts_with("vllm:request_success_total{") && line.contains("=\"abort\"")
        };
        page.lines().find(of_aborts).and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// The value of a metric whose line begins with `name`, all label sets added up.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics");
        assert_eq!(page.status, 200);
        let of_name = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) || name.ends_with('}'))
        };
        page.body
            .lines()
            .filter(of_name)
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok((status, headers));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads one answer to its end.
pub(crate) fn read_answer(socket: TcpStream) -> io::Result<Answer> {
    let mut reader = BufReader::new(socket);
    let (status, headers) = read_head(&mut reader)?;
    let mut body = Vec::new();
    if find(&headers, "transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(&mut reader)? {
            body.extend(chunk);
        }
    } else if let Some(length) = find(&headers, "content-length") {
        reader.take(length.parse().map_err(io::Error::other)?).read_to_end(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The next chunk of a chunked body; `None` is its regular end, an error an irregular one.
fn read_chunk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let length = usize::from_str_radix(line.trim_end(), 16)
        .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, format!("chunk: {line:?}")))?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(chunk))
}

/// A server-sent event, or a comment between events.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sse {
    Data(Value),
    Done,
    Comment,
}

/// A begun stream. Dropping it closes the connection, as a client that leaves does.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    rest: Vec<u8>,
}

impl Stream {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Leaves without a word: the connection is reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.reader.get_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The next event; `None` when the body has ended as it should.
    pub(crate) fn next(&mut self) -> io::Result<Option<Sse>> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                return Ok(Some(match event.trim_end().strip_prefix("data: ") {
                    Some("[DONE]") => Sse::Done,
                    Some(data) => Sse::Data(serde_json::from_str(data).unwrap()),
                    None if event.starts_with(':') => Sse::Comment,
                    None => panic!("not an event: {event:?}"),
                }));
            }
            match read_chunk(&mut self.reader)? {
                Some(chunk) => self.rest.extend(chunk),
                None => return Ok(None),
            }
        }
    }

    /// Reads until the first event with data.
    pub(crate) fn first(&mut self) -> Value {
        loop {
            match self.next().unwrap() {
                Some(Sse::Data(value)) => return value,
                Some(Sse::Comment) => {}
                other => panic!("no first event: {other:?}"),
            }
        }
    }

    /// Reads to the end: all data, and whether `[DONE]` came last.
    pub(crate) fn finish(mut self) -> (Vec<Value>, bool) {
        assert_eq!(self.status, 200);
        let (mut data, mut done) = (Vec::new(), false);
        while let Some(event) = self.next().unwrap() {
            assert!(!done, "an event after [DONE]");
            match event {
                Sse::Data(value) => data.push(value),
                Sse::Done => done = true,
                Sse::Comment => {}
            }
        }
        (data, done)
    }
}

/// The text of choice 0 over all chunks.
pub(crate) fn streamed_text(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect()
}
