//! The real binary as tests use it: started on a free port, watched, asked, and killed at the end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Client, said_to};

/// The key that every [`Server`] takes, unless it was started with another.
pub(crate) const KEY: &str = "sk-test-0123456789abcdefghijklmnopqrstuvwxyzABCDE";
/// A fake model that answers at once.
pub(crate) const FAKE: &str = "fake:vocab=512";
/// How long a test waits for what must come. Only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The binary under test.
pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_millrace");

/// A command of the binary, without anything of this user's environment, in `home`.
pub(crate) fn millrace(home: &Path) -> Command {
    clean(BIN, home)
}

/// As [`millrace`], for a program that starts it.
pub(crate) fn clean(program: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if ["MILLRACE_", "HF_", "OTEL_", "SSL_CERT_"].iter().any(|own| upper.starts_with(own))
            || upper.ends_with("_PROXY")
        {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("XDG_CACHE_HOME", home).env("XDG_CONFIG_HOME", home);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE").current_dir(home);
    command
}

/// A model for tests by its file name. Fails if it was not fetched.
pub(crate) fn test_model(file: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/models");
    let folder = std::env::var_os("MILLRACE_TEST_MODELS").unwrap_or_else(|| default.into());
    let path = Path::new(&folder).join(file);
    assert!(path.is_file(), "{} is missing: run `make models`", path.display());
    // Absolute, because servers run in folders of their own.
    std::fs::canonicalize(path).unwrap()
}

/// The default model.
pub(crate) fn smollm2() -> String {
    test_model("SmolLM2-135M-Instruct.Q4_1.gguf").to_str().unwrap().to_owned()
}

/// Lines of the server's stderr so far, and of its stdout, which should have none.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    fn take(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            self.lines.lock().unwrap().0.push(line);
            self.more.notify_all();
        }
    }

    /// As [`Log::take`], of what tells the end.
    fn read(&self, from: impl Read) {
        self.take(from);
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
    /// Ends the server with the tests, also where it stands in a static that is never dropped: it
    /// waits for the end of its stdin, which comes with ours at the latest.
    watchdog: Child,
    address: SocketAddr,
    log: Arc<Log>,
    /// Its home and working folder.
    pub(crate) home: TempDir,
}

impl Server {
    /// `serve` with these arguments, on a free port, with [`KEY`]; waits until it is ready.
    pub(crate) fn start(args: &[&str]) -> Self {
        let server = Self::start_unready(args);
        server.wait_ready();
        server
    }

    /// As [`Server::start`], but returns as soon as the port is open.
    pub(crate) fn start_unready(args: &[&str]) -> Self {
        Self::spawn_with(args, |command| {
            command.env("MILLRACE_API_KEY", KEY);
        })
    }

    /// As [`Server::start_unready`], but without a key; `prepare` may change the command.
    pub(crate) fn spawn_with(args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = millrace(home.path());
        command.arg("serve").args(["--port", "0"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let watchdog = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$0\"", &child.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let (stderr, reader) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || reader.read(stderr));
        if let Some(stdout) = child.stdout.take() {
            let reader = log.clone();
            std::thread::spawn(move || reader.take(stdout));
        }
        let address = log.wait(|line| {
            let (_, rest) = line.split_once("listening on http")?;
            rest.trim_start_matches('s')
                .trim_start_matches("://")
                .split(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
                .next()?
                .parse()
                .ok()
        });
        let Some(address) = address else {
            let mut watchdog = watchdog;
            let _ = (watchdog.kill(), watchdog.wait(), child.kill(), child.wait());
            panic!("the server did not start:\n{}", log.lines.lock().unwrap().0.join("\n"));
        };
        Self { child, watchdog, address, log, home }
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

    /// Everything that it printed so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().0.join("\n")
    }

    /// A client with [`KEY`].
    pub(crate) fn client(&self) -> Client {
        self.client_with(KEY)
    }

    /// A client with this key; empty for none.
    pub(crate) fn client_with(&self, key: &str) -> Client {
        Client { addr: self.address, key: key.to_owned() }
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, `TERM` or `INT`.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits for the process to end; its exit code, unless a signal killed it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child).code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First the watchdog, so that it never signals a number that is somebody else's by then.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of the server:\n{}", self.log());
        } else {
            // Row 26: whatever the test was about.
            let log = self.log();
            assert!(!log.contains(&KEY[3..]), "the key is in the log:\n{log}");
            for said in said_to(self.address) {
                assert!(
                    !log.contains(&said),
                    "{said:?}, which a client sent, is in the log:\n{log}"
                );
            }
        }
    }
}

/// Sends a signal by its name. By the command, since a system call from here would need `unsafe` or one more crate.
pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "kill: {sent}");
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
