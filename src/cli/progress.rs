//! Progress in bytes: a bar on a terminal, a plain line now and then elsewhere, nothing where the user wants it quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{self, say};
use crate::telemetry::open_line;

const LINE_EVERY: Duration = Duration::from_secs(5);
/// The bar gives way to the figures where a terminal is narrow.
const FORM: &str = "{msg} [{wide_bar}] {percent}% {bytes}/{total_bytes} {bytes_per_sec} {eta}";

/// Work whose size is known, of one piece or several.
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    /// Bytes of the pieces that are done.
    before: u64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    /// When the last line was.
    Lines(Instant),
    Nothing,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let shown = if shows_bars() {
            let style = ProgressStyle::with_template(FORM);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let bar = bar.with_message(what).with_style(style.progress_chars("=> "));
            open_line(true);
            bar.tick();
            Shown::Bar(bar)
        } else {
            say(&format!("{what}: {} MB", mega(total)));
            Shown::Lines(Instant::now())
        };
        Self { what, total, done: 0, before: 0, shown }
    }

    /// Of what takes no time: nothing is said.
    pub(crate) fn silent() -> Self {
        Self { what: "", total: 0, done: 0, before: 0, shown: Shown::Nothing }
    }

    /// A piece of so many bytes is done, and the next one begins.
    pub(crate) fn next(&mut self, bytes: u64) {
        self.before += bytes;
        self.at(0);
    }

    /// `done` of the present piece. Less than before changes nothing: those who tell may overtake each other.
    pub(crate) fn at(&mut self, done: u64) {
        let done = self.before.saturating_add(done).min(self.total);
        self.done = self.done.max(done);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_position(self.done);
        } else if let Some(line) = self.line(Instant::now()) {
            say(&line);
        }
    }

    /// What to say, if it is time to say something.
    fn line(&mut self, now: Instant) -> Option<String> {
        let Shown::Lines(last) = &mut self.shown else { return None };
        if now.saturating_duration_since(*last) < LINE_EVERY {
            return None;
        }
        *last = now;
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let (done, total) = (mega(self.done), mega(self.total));
        Some(format!("{}: {done} of {total} MB ({percent}%)", self.what))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
            open_line(false);
        }
    }
}

/// Somebody watches, on a terminal that can go back in a line.
fn shows_bars() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stderr().is_terminal() && !is_dumb && output::shows_bars()
}

fn mega(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_at_most_every_few_seconds_and_never_go_back() {
        let begin = Instant::now();
        let mut progress = Progress::silent();
        (progress.what, progress.total, progress.shown) =
            ("loading", 200_000_000, Shown::Lines(begin));
        progress.at(50_000_000);
        assert_eq!(progress.line(begin + Duration::from_secs(4)), None);
        let line = progress.line(begin + Duration::from_secs(5));
        assert_eq!(line.as_deref(), Some("loading: 50 of 200 MB (25%)"));
        assert_eq!(progress.line(begin + Duration::from_secs(9)), None);
        progress.at(20_000_000);
        let line = progress.line(begin + Duration::from_secs(10));
        assert_eq!(line.as_deref(), Some("loading: 50 of 200 MB (25%)"));
        progress.at(900_000_000);
        let line = progress.line(begin + Duration::from_secs(99));
        assert_eq!(line.as_deref(), Some("loading: 200 of 200 MB (100%)"));
    }

    #[test]
    fn the_bar_is_one_that_can_be_drawn() {
        assert!(ProgressStyle::with_template(FORM).is_ok());
    }
}
