//! Texts from outside, as a log or a terminal may show them.

use std::sync::atomic::{AtomicBool, Ordering};

/// A progress bar stands in the last line of the terminal, and has no end of line behind it.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Says whether such a bar is shown.
pub(crate) fn open_line(open: bool) {
    OPEN.store(open, Ordering::Relaxed);
}

/// What a line on stderr begins with: it takes the place of a bar, which is drawn anew below it.
pub(crate) fn erased() -> &'static str {
    if OPEN.load(Ordering::Relaxed) { "\r\x1b[K" } else { "" }
}

/// Longest message from outside (a file, another program) that is passed on, in characters.
const MAX_CHARS: usize = 400;

/// `text` on one line, of bounded length, without control characters: it may quote a hostile file.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for (i, c) in text.trim().chars().enumerate() {
        if i == MAX_CHARS {
            line.push('…');
            break;
        }
        line.push(if is_unseen(c) { ' ' } else { c });
    }
    line
}

/// Whether `c` shows as nothing and changes what stands around it: controls, ends of lines, and Unicode's
/// format characters (Cf), which turn the direction of a text or hide in it.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_hostile_text_becomes_one_short_line() {
        let hostile = "a\n\u{1b}[31mb\u{202e}c\u{200f}d\u{2028}e\u{e0041}f";
        let line = one_line(&format!("{hostile}{}", "x".repeat(10_000)));
        assert!(line.starts_with("a  [31mb c d e f"));
        assert_eq!(line.chars().count(), 401);
        assert!(!line.chars().any(char::is_control));
    }
}
