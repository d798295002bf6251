//! Regular expressions, as far as they mean something else to llguidance than to those who write them.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// Few.
const TEXTS_MAX: usize = 64;
/// Stand for `^` and `$` in texts.
const START: char = '\u{2}';
const END: char = '\u{3}';

/// Refuses what the dialects of Python and JavaScript refuse, but Rust's does not: a repetition that is
/// repeated (`a**`).
pub(super) fn check(regex: &str) -> Result<(), String> {
    let mut scan = Scan::default();
    for (at, c) in regex.char_indices() {
        if scan.step(c) == Role::SecondRepetition {
            return Err(format!("'{c}' at byte {at} repeats a repetition"));
        }
    }
    if scan.deepest > super::NESTING_MAX {
        return Err("its brackets are nested too deep".to_owned());
    }
    Ok(())
}

/// How deep brackets are nested, whatever they are.
pub(super) fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// A pattern of a JSON schema, which is JavaScript's, in Rust's dialect. Where dialects differ on rare
/// characters, what comes out matches those on which all of them agree.
pub(super) fn from_ecma(regex: &str) -> Result<String, String> {
    check(regex)?;
    let mut scan = Scan::default();
    let mut out = String::with_capacity(regex.len() + 16);
    let mut last = ' ';
    for c in regex.chars() {
        match (scan.step(c), c) {
            (Role::Plain, '.') => out.push_str("[^\\n\\r\\x{85}\\x{2028}\\x{2029}]"),
            (Role::Escaped, 's') => replace_escape(&mut out, "[ \\t\\n\\r\\f\\v]"),
            (Role::Escaped, 'S') => {
                replace_escape(&mut out, "[^\\s\\x{1c}-\\x{1f}\\x{feff}]");
            }
            // Rust knows sets within sets, and operations on them.
            (Role::InClass, '[' | '&' | '~') => {
                out.push('\\');
                out.push(c);
            }
            (Role::InClass, '-') if last == '-' => out.push_str("\\-"),
            (Role::EmptyClass, _) => out.push_str("\\s&&\\S]"),
            (Role::EmptyNegatedClass, _) => {
                // `[^` stands there already: anything but nothing.
                out.push_str("\\s&&\\S]");
            }
            _ => out.push(c),
        }
        last = c;
    }
    Ok(out)
}

/// The texts that a pattern in Rust's dialect matches, if they are few: it is then anchored at both ends.
pub(super) fn texts(regex: &str) -> Option<Vec<String>> {
    let anchored = |text: &String| {
        let inner = text.trim_start_matches(START).trim_end_matches(END);
        let is_whole = text.starts_with(START) && text.ends_with(END);
        (is_whole && !inner.contains([START, END])).then(|| inner.to_owned())
    };
    let hir = regex_syntax::parse(regex).ok().filter(|_| !regex.contains([START, END]))?;
    let texts = texts_of(&hir)?;
    let anchored: Vec<_> = texts.iter().map(anchored).collect::<Option<_>>()?;
    bounded([Some(anchored)].into_iter())
}

/// With `START` and `END` where the beginning and the end must be.
fn texts_of(hir: &Hir) -> Option<Vec<String>> {
    let one = |text: &str| Some(vec![text.to_owned()]);
    match hir.kind() {
        HirKind::Empty => one(""),
        HirKind::Look(Look::Start) => one(START.encode_utf8(&mut [0; 4])),
        HirKind::Look(Look::End) => one(END.encode_utf8(&mut [0; 4])),
        HirKind::Literal(literal) => one(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(Class::Unicode(class)) => {
            let chars = || class.iter().flat_map(|range| range.start()..=range.end());
            let few = chars().take(TEXTS_MAX + 1).count() <= TEXTS_MAX;
            few.then(|| chars().map(String::from).collect())
        }
        HirKind::Repetition(Repetition { min, max: Some(max), sub, .. }) => {
            let times = |count| in_order(&vec![(**sub).clone(); count as usize]);
            let is_short = *max as usize <= TEXTS_MAX;
            is_short.then(|| bounded((*min..=*max).map(times))).flatten()
        }
        HirKind::Capture(capture) => texts_of(&capture.sub),
        HirKind::Concat(parts) => in_order(parts),
        HirKind::Alternation(ways) => bounded(ways.iter().map(texts_of)),
        _ => None,
    }
}

/// One of each part, in their order.
fn in_order(parts: &[Hir]) -> Option<Vec<String>> {
    parts.iter().try_fold(vec![String::new()], |before, part| {
        let after = texts_of(part)?;
        if before.len() * after.len() > TEXTS_MAX {
            return None;
        }
        Some(before.iter().flat_map(|a| after.iter().map(move |b| format!("{a}{b}"))).collect())
    })
}

/// All of them, each once, unless they are many.
fn bounded(ways: impl Iterator<Item = Option<Vec<String>>>) -> Option<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for way in ways {
        for text in way? {
            if !all.contains(&text) {
                all.push(text);
            }
        }
        if all.len() > TEXTS_MAX {
            return None;
        }
    }
    Some(all)
}

/// `\s` and the like, of which the backslash stands there already.
fn replace_escape(out: &mut String, class: &str) {
    out.pop();
    out.push_str(class);
}

/// What a character of a regular expression is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Escaped,
    InClass,
    /// The `]` of `[]`.
    EmptyClass,
    /// The `]` of `[^]`.
    EmptyNegatedClass,
    SecondRepetition,
}

/// Goes through a regular expression.
#[derive(Debug, Default)]
struct Scan {
    escaped: bool,
    /// Characters of the class so far.
    class: Option<String>,
    /// Inside `{n,m}`.
    counts: bool,
    /// What was just there is a repetition: 1, or one that is made lazy: 2.
    repetition: u8,
    depth: usize,
    deepest: usize,
}

impl Scan {
    fn step(&mut self, c: char) -> Role {
        if std::mem::take(&mut self.escaped) {
            if let Some(class) = &mut self.class {
                class.push(c);
            }
            return Role::Escaped;
        }
        if let Some(class) = &mut self.class {
            return match c {
                ']' if class.is_empty() => {
                    self.class = None;
                    Role::EmptyClass
                }
                ']' if class == "^" => {
                    self.class = None;
                    Role::EmptyNegatedClass
                }
                ']' => {
                    self.class = None;
                    Role::Plain
                }
                _ => {
                    self.escaped = c == '\\';
                    let role =
                        if class.is_empty() && c == '^' { Role::Plain } else { Role::InClass };
                    class.push(c);
                    role
                }
            };
        }
        if self.counts {
            self.counts = c != '}';
            return Role::InClass;
        }
        self.outside(c)
    }

    fn outside(&mut self, c: char) -> Role {
        let before = std::mem::take(&mut self.repetition);
        match c {
            '\\' => self.escaped = true,
            '[' => self.class = Some(String::new()),
            '(' => {
                self.depth += 1;
                self.deepest = self.deepest.max(self.depth);
            }
            ')' => self.depth = self.depth.saturating_sub(1),
            '?' if before == 1 => self.repetition = 2,
            '*' | '+' | '?' | '{' if before > 0 => return Role::SecondRepetition,
            '*' | '+' | '?' => self.repetition = 1,
            '{' => {
                self.counts = true;
                self.repetition = 1;
            }
            _ => {}
        }
        Role::Plain
    }
}
