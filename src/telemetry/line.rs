//! Texts from outside, as a log or a terminal may show them.

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
