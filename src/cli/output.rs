//! What the commands print. A closed or full stderr never stops anything, so nothing here uses the
//! macros that panic then.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Longest message from outside (a file, another program) that is passed on, in characters.
const MAX_CHARS: usize = 400;

/// A line on stderr, for people.
pub(crate) fn say(line: &str) {
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

/// `text` on one line, of bounded length, without control characters: it may quote a hostile file.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for (i, c) in text.trim().chars().enumerate() {
        if i == MAX_CHARS {
            line.push('…');
            break;
        }
        // Also the marks that turn the direction of what follows.
        let bad = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        line.push(if bad { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_hostile_text_becomes_one_short_line() {
        let line = one_line(&format!("a\n\u{1b}[31mb\u{202e}c{}", "x".repeat(10_000)));
        assert!(line.starts_with("a  [31mb c"));
        assert_eq!(line.chars().count(), 401);
        assert!(!line.chars().any(char::is_control));
    }
}
