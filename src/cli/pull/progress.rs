//! Progress in bytes: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::say;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Work whose size is known, of one piece or several.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    /// Bytes of the pieces that are done.
    before: u64,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let form = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(form);
            let bar = ProgressBar::new(total).with_message(what);
            bar.with_style(
                style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "),
            )
        });
        if bar.is_none() {
            say(&format!("{what}: {} MB", mega(total)));
        }
        Self { what, total, before: 0, bar, last_line: Instant::now() }
    }

    /// Of what takes no time: nothing is said.
    pub(super) fn silent() -> Self {
        Self { what: "", total: 0, before: 0, bar: None, last_line: Instant::now() }
    }

    /// A piece of so many bytes is done, and the next one begins.
    pub(super) fn next(&mut self, bytes: u64) {
        self.before += bytes;
        self.at(0);
    }

    /// `done` of the present piece.
    pub(super) fn at(&mut self, done: u64) {
        let done = self.before.saturating_add(done).min(self.total);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.total > 0 && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(&format!("{}: {} of {} MB", self.what, mega(done), mega(self.total)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn mega(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
