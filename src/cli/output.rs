//! What the commands print. A closed or full stderr never stops anything, so nothing here uses the
//! macros that panic then.
//!
//! stdout is for what a command is for, stderr for all else. With `--quiet`, stderr has errors alone. Nothing is coloured
//! but clap's own help, which heeds `NO_COLOR`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use crate::telemetry::one_line;
use crate::telemetry::{erased, is_unseen};

static QUIET: AtomicBool = AtomicBool::new(false);
static JSON: AtomicBool = AtomicBool::new(false);

/// Errors alone, from here on.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// stderr is a log of JSON lines, and what is said becomes one of them.
pub(crate) fn set_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// People read along.
pub(crate) fn shows_bars() -> bool {
    !QUIET.load(Ordering::Relaxed) && !JSON.load(Ordering::Relaxed)
}

/// A line or several on stderr, for people. A path in it may have any name.
pub(crate) fn say(text: &str) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    if JSON.load(Ordering::Relaxed) {
        tracing::info!("{}", text.trim());
        return;
    }
    write(text);
}

fn write(text: &str) {
    let clean = |c: char| if is_unseen(c) && c != '\n' { ' ' } else { c };
    let line: String = text.chars().map(clean).collect();
    // Nobody is left to be told of a stderr that does not work.
    // One write, so that lines of two threads do not mix.
    let _ = io::stderr().write_all(format!("{}{line}\n", erased()).as_bytes());
}

/// Text on stdout, for scripts.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `error: …` on one line.
pub(crate) fn complain(error: &str) {
    write(&format!("error: {}", one_line(error)));
}

/// An error that explains itself in several lines.
pub(crate) fn refuse(text: &str) {
    write(&format!("error: {text}"));
}

/// A list of faults: one alone on its line, several below a headline.
pub(crate) fn complain_of(faults: &[String]) {
    if let [fault] = faults {
        return complain(fault);
    }
    let mut text = format!("error: {} faults in the configuration", faults.len());
    for fault in faults {
        let _ = write!(text, "\n  {}", one_line(fault));
    }
    write(&text);
}
