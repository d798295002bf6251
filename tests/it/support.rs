//! The real binary as tests use it: started on a free port, watched, asked, and killed at the end.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The key that every [`Server`] takes, unless it was started with another.
pub(crate) const KEY: &str = "sk-test-0123456789abcdefghijklmnopqrstuvwxyzABCDE";
/// A fake model that answers at once.
pub(crate) const FAKE: &str = "fake:vocab=512";
/// How long a test waits for what must come. Only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A command of the binary, without anything of this user's environment, in `home`.
pub(crate) fn millrace(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLRACE_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("XDG_CACHE_HOME", home).env("XDG_CONFIG_HOME", home);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").current_dir(home);
    command
}

/// A model for tests by its file name. Fails if it was not fetched.
pub(crate) fn model(file: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/models");
    let folder = std::env::var_os("MILLRACE_TEST_MODELS").unwrap_or_else(|| default.into());
    let path = Path::new(&folder).join(file);
    assert!(path.is_file(), "{} is missing: run `make models`", path.display());
    // Absolute, because servers run in folders of their own.
    std::fs::canonicalize(path).unwrap()
}

/// The default model.
pub(crate) fn smollm2() -> String {
    model("SmolLM2-135M-Instruct.Q4_1.gguf").to_str().unwrap().to_owned()
}

/// Lines of the server's stderr so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    fn read(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.lines.lock().unwrap().0.push(line);
            self.more.notify_all();
        }
        self.lines.lock().unwrap().1 = true;
        self.more.notify_all();
    }

    /// The first line for which `found` says something; `None` at the end of the log or of patience.
    fn wait<T>(&self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(value) = lines.0.iter().find_map(|l| found(l)) {
                return Some(value);
            }
            let left = until.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return None;
            }
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
    /// Its home and working folder.
    pub(crate) home: TempDir,
}

impl Server {
    /// Serves `model` and waits until it is ready.
    pub(crate) fn start(model: &str, args: &[&str]) -> Self {
        let server = Self::spawn(model, args);
        server.wait_ready();
        server
    }

    /// Serves `model`; returns as soon as the port is open.
    pub(crate) fn spawn(model: &str, args: &[&str]) -> Self {
        Self::spawn_with(model, args, |command| {
            command.env("MILLRACE_API_KEY", KEY);
        })
    }

    /// As [`Server::spawn`], but without a key; `prepare` may change the command.
    pub(crate) fn spawn_with(
        model: &str,
        args: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = millrace(home.path());
        command.arg("serve").arg(model).args(["--port", "0"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stderr, reader) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || reader.read(stderr));
        let address = log.wait(|line| {
            let (_, rest) = line.split_once("listening on http://")?;
            rest.split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
                .next()?
                .parse()
                .ok()
        });
        let Some(address) = address else {
            let _ = child.kill();
            panic!("the server did not start:\n{}", log.lines.lock().unwrap().0.join("\n"));
        };
        Self { child, address, log, home }
    }

    /// Waits for the line that says that the model is there.
    pub(crate) fn wait_ready(&self) {
        self.wait_log("ready to serve");
    }

    /// Waits for a line of the log that contains `part`, and returns it.
    pub(crate) fn wait_log(&self, part: &str) -> String {
        let line = self.log.wait(|line| line.contains(part).then(|| line.to_owned()));
        line.unwrap_or_else(|| panic!("no {part:?} in the log:\n{}", self.log()))
    }

    /// Everything on stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// A connection that gives up after [`PATIENCE`].
    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// One request without a key, on a connection of its own.
    pub(crate) fn get_public(&self, path: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        ))
    }

    /// GET with the key.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n",
            self.address
        ))
    }

    /// POST of JSON with the key.
    pub(crate) fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.ask(&self.post_text(path, &body.to_string()))
    }

    /// The text of a POST request with the key.
    pub(crate) fn post_text(&self, path: &str, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
    }

    /// Sends bytes as they are and reads until the server closes.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        }
    }
}

/// Waits for a process to end, and kills one that does not.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("the process did not end");
        }
        // There is no wait with a deadline; the state itself ends the loop.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A whole HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    /// Of an HTTP/1.1 answer that ended with the connection.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let at = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let at = at.unwrap_or_else(|| panic!("no HTTP: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap()[9..12].parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|l| l.split_once(':').unwrap())
            .map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()))
            .collect();
        let body = &bytes[at + 4..];
        let chunked = headers.get("transfer-encoding").is_some_and(|v| v == "chunked");
        let body = if chunked { dechunk(body) } else { body.to_vec() };
        Self { status, headers, body: String::from_utf8(body).unwrap() }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }
}

/// The content of a chunked body; of a cut one, what came.
fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 || rest.len() < size {
            break;
        }
        out.extend_from_slice(&rest[..size]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    out
}
