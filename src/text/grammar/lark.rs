//! Lark as clients may send it: llguidance's, without what is not text or would go unchecked.

use super::{NESTING_MAX, pattern};

/// Why `lark` is not taken.
pub(super) fn check(lark: &str) -> Result<(), &'static str> {
    if lark.trim().is_empty() {
        return Err("it is empty");
    }
    let bare = without_literals(lark);
    if bare.contains("::=") {
        return Err(
            "GBNF and EBNF are not supported: write Lark, such as 'start: \"yes\" | \"no\"'",
        );
    }
    // Special tokens are not text, and an answer is text.
    if bare.contains('<') {
        return Err("tokens by id or name ('<[1]>', '<|end|>') are not supported: only text is");
    }
    // Schemas in there would not be checked for what is followed in part only.
    if bare.contains("%json") {
        return Err("'%json' is not supported: send the schema as 'json'");
    }
    // What may stand anywhere can be all that may stand somewhere, without an end: llguidance would
    // then force it for ever, and none of its limits counts what is ignored.
    if bare.contains("%ignore") {
        return Err("'%ignore' is not supported: say where blanks may stand, such as with '/ */'");
    }
    if pattern::nesting(lark) > NESTING_MAX {
        return Err("its brackets are nested too deep");
    }
    Ok(())
}

/// The grammar without its strings, regular expressions and comments, as llguidance tells them apart.
fn without_literals(lark: &str) -> String {
    let mut bare = String::with_capacity(lark.len());
    let mut chars = lark.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' => drop(chars.by_ref().find(|&c| c == '\n')),
            '/' if chars.peek() == Some(&'/') => drop(chars.by_ref().find(|&c| c == '\n')),
            '"' | '/' => skip_to(c, &mut chars),
            _ => {
                bare.push(c);
                continue;
            }
        }
        // Never made one word of what stands on both sides.
        bare.push(' ');
    }
    bare
}

fn skip_to(end: char, chars: &mut impl Iterator<Item = char>) {
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            _ if c == end => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_literals_hold_is_their_own() {
        for fine in [
            r#"start: "<[1]>" | "\"<b>" | "%json" "%ignore""#,
            r#"start: /<\/?[a-z]+>/ "::=""#,
            "// <html>, it's \"a/b\nstart: \"a\" # <end>\n",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
        for (wrong, says) in [
            ("start: <[1]>", "by id or name"),
            ("start: \"a\" <|end|>", "by id or name"),
            ("start: /a\\/\"/ <end> // \"", "by id or name"),
            ("# \"\nstart: <end> \"", "by id or name"),
            ("root ::= \"a\"", "GBNF"),
            ("start: %json {}", "'json'"),
            ("start: \"a\" b\nb: \"s\" \" y\"\n%ignore / +/\n", "'%ignore'"),
            (" \n", "empty"),
        ] {
            assert!(check(wrong).unwrap_err().contains(says), "{wrong}");
        }
    }
}
