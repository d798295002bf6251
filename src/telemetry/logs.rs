//! Logs: text or JSON lines on stderr, by a thread of their own.
//!
//! A request never waits for whoever reads the log, and no state of stderr (closed, full disk, a pipe
//! that nobody empties) can stop the server: lines are dropped instead, and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogConfig;

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 4096;

/// How long the end of the process waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a flush looks for room in a full queue.
const FLUSH_RETRY: Duration = Duration::from_millis(5);

/// Lines that were dropped because stderr took none.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes out what is waiting when it is dropped. Keep it until the end of `main`.
#[derive(Debug)]
pub struct LogGuard {
    lines: Lines,
}

/// Starts logging, once for the process. `Err`: the level is not an env-filter directive.
pub fn init(config: &LogConfig) -> Result<LogGuard, String> {
    let filter = EnvFilter::try_new(&config.level).map_err(|e| e.to_string())?;
    let lines = writer(io::stderr()).map_err(|e| e.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .with_ansi(false)
        // Else a failed write is reported on stderr, by a macro that panics when that fails too.
        .log_internal_errors(false);
    let set = if config.json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.try_init()
    };
    set.map_err(|e| e.to_string())?;
    set_panic_hook();
    Ok(LogGuard { lines })
}

/// Panics are logged by place. Their message may hold text of a request (slicing a string in the
/// middle of a character repeats the string), so it shows at debug level only.
fn set_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        tracing::error!(place, thread, "panic");
        tracing::debug!(message = info.payload_as_str().unwrap_or("no text"), "panic message");
    }));
}

/// The sending side: cheap to clone, never waits.
#[derive(Debug, Clone)]
struct Lines(SyncSender<Message>);

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answer when everything before this is written.
    Flush(SyncSender<()>),
}

fn writer(out: impl Write + Send + 'static) -> io::Result<Lines> {
    let (send, receive) = sync_channel(QUEUE_LINES);
    std::thread::Builder::new().name("logs".to_owned()).spawn(move || write_all(out, &receive))?;
    Ok(Lines(send))
}

fn write_all(mut out: impl Write, lines: &Receiver<Message>) {
    for message in lines {
        match message {
            Message::Line(line) => {
                let dropped = DROPPED.swap(0, Ordering::Relaxed);
                let note = format!("{dropped} log lines dropped\n");
                if dropped > 0 && out.write_all(note.as_bytes()).is_err() {
                    // Told with a later line.
                    DROPPED.fetch_add(dropped, Ordering::Relaxed);
                }
                let erased = super::erased();
                let line =
                    if erased.is_empty() { line } else { [erased.as_bytes(), &line].concat() };
                // A full disk or a reader that left: later lines may get through again.
                let _ = out.write_all(&line);
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.send(());
            }
        }
    }
}

/// One event on its way out.
struct Line<'a> {
    to: &'a Lines,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { to: self, bytes: Vec::new() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = Message::Line(std::mem::take(&mut self.bytes));
        if let Err(TrySendError::Full(_)) = self.to.0.try_send(line) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl LogGuard {
    /// Waits, a second at most, until every line so far is written.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        // Bounded sends that wait do not exist yet; this one happens once, at the end of the process.
        while let Err(TrySendError::Full(back)) = self.lines.0.try_send(message) {
            if Instant::now() > deadline {
                return;
            }
            message = back;
            std::thread::sleep(FLUSH_RETRY);
        }
        // A writer that is stuck, or gone, is no reason to stay.
        let _ = wait.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that takes nothing until it is told to, then fails once, then works.
    struct Stuck {
        gate: Receiver<()>,
        fail: bool,
        to: SyncSender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            if std::mem::take(&mut self.fail) {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let _ = self.to.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_nothing_else() {
        let (open, gate) = sync_channel::<()>(0);
        let (to, written) = sync_channel(2 * QUEUE_LINES);
        let lines = writer(Stuck { gate, fail: true, to }).unwrap();
        for i in 0..QUEUE_LINES + 100 {
            // Must not block: nobody reads.
            let _ = lines.make_writer().write(format!("line {i}\n").as_bytes());
        }
        drop(open);
        let guard = LogGuard { lines };
        guard.flush();
        let all: Vec<Vec<u8>> = written.try_iter().collect();
        assert!(all.len() >= QUEUE_LINES - 1, "{} lines", all.len());
        assert!(all.iter().any(|l| l.ends_with(b"log lines dropped\n")), "the loss is told");
    }
}
