//! A server of our own for one run: a child on a free loopback port, with a key that nobody else has.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::cli::Failure;
use crate::cli::output::{one_line, say};
use crate::model::load::hex;

/// A server that is ready. It ends with this value.
pub(super) struct Local {
    child: Child,
    pub(super) url: String,
    pub(super) key: String,
    last_line: Arc<Mutex<String>>,
}

/// What the server said that matters here.
enum Said {
    Listens(String),
    IsReady,
}

impl Local {
    /// Starts it and waits until it is ready. Dropping the future ends it.
    pub(super) async fn start(model: &str, options: &[String]) -> Result<Self, Failure> {
        let fault =
            |what: &str| Failure::runtime(format!("cannot start a server of {model}: {what}"));
        let mut secret = [0; 24];
        getrandom::fill(&mut secret).map_err(|e| fault(&e.to_string()))?;
        let key = format!("sk-bench-{}", hex(&secret));
        let program = std::env::current_exe().map_err(|e| fault(&e.to_string()))?;
        let mut command = Command::new(program);
        command.args(["serve", "--host", "127.0.0.1", "--port", "0", "--log-format", "text"]);
        command.args(options).args(["--", model]).env("MILLRACE_API_KEY", &key);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C is for this process; the server goes when the figures are there.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|e| fault(&e.to_string()))?;
        let last_line = Arc::new(Mutex::new(String::new()));
        let mut local = Self { child, url: String::new(), key, last_line };
        let (tell, mut told) = mpsc::unbounded_channel();
        if let Some(stderr) = local.child.stderr.take() {
            let last_line = local.last_line.clone();
            // Reads on when nobody listens any more: a full pipe would stop the server.
            std::thread::spawn(move || listen(stderr, &tell, &last_line));
        }
        loop {
            match told.recv().await {
                Some(Said::Listens(url)) => local.url = url,
                Some(Said::IsReady) => return Ok(local),
                None => return Err(fault(&local.last_words())),
            }
        }
    }

    /// Why the server ended, if it did.
    pub(super) fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the server ended by itself ({status}): {}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let line = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        if line.is_empty() { "it said nothing".to_owned() } else { one_line(line) }
    }
}

/// Passes on what the server says until it is ready, such as how far a download is.
fn listen(stderr: impl Read, tell: &mpsc::UnboundedSender<Said>, last_line: &Mutex<String>) {
    let mut is_ready = false;
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.trim().is_empty() {
            continue;
        }
        if !is_ready {
            is_ready = line.ends_with("is ready to serve");
            say(&format!("server: {}", one_line(&line)));
            if let Some((_, rest)) = line.split_once("listening on ") {
                let url = rest.split([',', ' ']).next().unwrap_or_default();
                let _ = tell.send(Said::Listens(url.to_owned()));
            }
            if is_ready {
                let _ = tell.send(Said::IsReady);
            }
        }
        *last_line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // It has nothing to save, and it may hang: no need to ask.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
