//! The patterns of most models, written out by hand: nearly twice as fast as by an automaton.

use super::class::{Bits, Set, has};

/// A pattern that covers every text: where its first match in a text ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words {
    /// [`super::pre::GPT2`], perhaps on what [`super::pre::DIGIT`] has cut.
    Gpt2 { digits: bool },
    /// [`super::pre::QWEN2`] and its kin: what counts as a letter, and how many digits a word has at
    /// most.
    Qwen2 { letters: Set, digits: usize },
}

impl Words {
    /// Calls `word` with each word of `text`, in order.
    pub(super) fn cut<'t>(self, text: &'t str, word: &mut (impl FnMut(&'t str) + ?Sized)) {
        match self {
            Self::Gpt2 { digits } => {
                let letters = Set::Letters.bits();
                cut(text, |rest| gpt2(rest, letters, digits), word);
            }
            Self::Qwen2 { letters, digits } => {
                let letters = letters.bits();
                cut(text, |rest| qwen2(rest, letters, digits), word);
            }
        }
    }
}

/// Cuts `text` into words; `first` says how long the first word of a text is.
fn cut<'t>(
    text: &'t str,
    first: impl Fn(&str) -> usize,
    word: &mut (impl FnMut(&'t str) + ?Sized),
) {
    let mut rest = text;
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(first(rest));
        word(head);
        rest = tail;
    }
}

/// What the patterns tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `\p{L}`, in some also `\p{M}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    Other,
}

fn kind(c: char, letters: &Bits) -> Kind {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' => Kind::Letter,
            '0'..='9' => Kind::Number,
            ' ' | '\t'..='\r' => Kind::Space,
            _ => Kind::Other,
        };
    }
    if has(letters, c) {
        Kind::Letter
    } else if c.is_numeric() {
        Kind::Number
    } else if c.is_whitespace() {
        Kind::Space
    } else {
        Kind::Other
    }
}

/// Bytes of `text` up to the first character that is not of `wanted`.
fn run(text: &str, wanted: Kind, letters: &Bits) -> usize {
    text.find(|c| kind(c, letters) != wanted).unwrap_or(text.len())
}

/// `\s+(?!\S)|\s+`: a run of blanks, without its last one if a word follows (which takes it along),
/// unless there is only that one. No number takes it along where `digits` are cut off.
fn blanks(text: &str, letters: &Bits, digits: bool) -> usize {
    let end = run(text, Kind::Space, letters);
    let rest = &text[end..];
    if rest.is_empty() || digits && rest.starts_with(char::is_numeric) {
        return end;
    }
    match text[..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => end,
    }
}

/// The contraction that `text` begins with: `'s|'t|'re|'ve|'m|'ll|'d`.
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let fold = |c: char| match c {
        // Both fold to s; all other letters here have ASCII cases only.
        'S' | 'ſ' if any_case => 's',
        c if any_case => c.to_ascii_lowercase(),
        c => c,
    };
    let mut chars = rest.char_indices().map(|(at, c)| (1 + at + c.len_utf8(), fold(c)));
    let (first_end, first) = chars.next()?;
    let pair = match first {
        's' | 't' | 'm' | 'd' => return Some(first_end),
        'r' | 'v' => 'e',
        'l' => 'l',
        _ => return None,
    };
    chars.next().filter(|&(_, second)| second == pair).map(|(end, _)| end)
}

fn gpt2(text: &str, letters: &Bits, digits: bool) -> usize {
    if let Some(end) = contraction(text, false) {
        return end;
    }
    let rest = text.strip_prefix(' ').unwrap_or(text);
    let head = text.len() - rest.len();
    match rest.chars().next().map(|c| kind(c, letters)) {
        None | Some(Kind::Space) => blanks(text, letters, digits),
        Some(Kind::Number) if digits && head == 0 => numbers(text, 1),
        Some(Kind::Number) if digits => head,
        Some(of) => head + run(rest, of, letters),
    }
}

fn qwen2(text: &str, letters: &Bits, digits: usize) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    if let Some(end) = contraction(text, true) {
        return end;
    }
    let rest = chars.as_str();
    let head = text.len() - rest.len();
    let second = chars.next().map(|c| kind(c, letters));
    match kind(first, letters) {
        Kind::Letter => return head + run(rest, Kind::Letter, letters),
        Kind::Number => return numbers(text, digits),
        _ if second == Some(Kind::Letter) && first != '\r' && first != '\n' => {
            return head + run(rest, Kind::Letter, letters);
        }
        Kind::Other => return with_line_ends(text, head + run(rest, Kind::Other, letters)),
        Kind::Space if first == ' ' && second == Some(Kind::Other) => {
            return with_line_ends(text, head + run(rest, Kind::Other, letters));
        }
        Kind::Space => {}
    }
    let end = run(text, Kind::Space, letters);
    match text[..end].rfind(['\r', '\n']) {
        Some(last) => last + 1,
        None => blanks(text, letters, false),
    }
}

/// Where the numbers end that `text` begins with, or the first `most` of them.
pub(super) fn numbers(text: &str, most: usize) -> usize {
    let numbers = text.chars().take(most).take_while(|c| c.is_numeric());
    numbers.map(char::len_utf8).sum()
}

/// `end`, moved past the line ends that follow.
fn with_line_ends(text: &str, end: usize) -> usize {
    let rest = &text[end..];
    end + rest.find(|c| c != '\r' && c != '\n').unwrap_or(rest.len())
}
