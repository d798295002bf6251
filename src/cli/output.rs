//! What the commands print. A closed or full stderr never stops anything, so nothing here uses the
//! macros that panic then.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::telemetry::is_unseen;
pub(crate) use crate::telemetry::one_line;

/// A line or several on stderr, for people. A path in it may have any name.
pub(crate) fn say(text: &str) {
    let clean = |c: char| if is_unseen(c) && c != '\n' { ' ' } else { c };
    let line: String = text.chars().map(clean).collect();
    // Nobody is left to be told of a stderr that does not work.
    // One write, so that lines of two threads do not mix.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Text on stdout, for scripts.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `error: …` on one line.
pub(crate) fn complain(error: &str) {
    say(&format!("error: {}", one_line(error)));
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
    say(&text);
}
