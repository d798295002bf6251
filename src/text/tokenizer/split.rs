//! Pre-tokenizers: where a text is cut into words before merging.
//!
//! Written out by hand rather than as regular expressions, because theirs need look-ahead, and a
//! backtracking engine gives up (or takes quadratic time) on a long run of blanks.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// A way to cut text into words, named as `tokenizer.ggml.pre` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// Every digit by itself, then GPT-2's pattern on what lies between: llama.cpp's
    /// `LLAMA_VOCAB_PRE_TYPE_SMOLLM`; `Digits` and `ByteLevel` in `SmolLM2`'s `tokenizer.json`.
    Smollm,
    /// Qwen 2's pattern, on text in normalisation form C.
    Qwen2,
}

impl Split {
    /// The pre-tokenizer of this name, if Millrace has it.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "smollm" => Some(Self::Smollm),
            "qwen2" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// Whether text is brought to normalisation form C first.
    pub(super) fn normalizes(self) -> bool {
        self == Self::Qwen2
    }

    /// Calls `word` with each word of `text`, in order. Together they are `text`.
    pub(super) fn words<'t>(self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self {
            Self::Smollm => {
                let mut rest = text;
                while let Some(digit) = rest.find(char::is_numeric) {
                    let (before, from) = rest.split_at(digit);
                    cut(before, gpt2, &mut word);
                    let end = from.chars().next().map_or(from.len(), char::len_utf8);
                    let (digit, after) = from.split_at(end);
                    word(digit);
                    rest = after;
                }
                cut(rest, gpt2, &mut word);
            }
            Self::Qwen2 => cut(text, qwen2, &mut word),
        }
    }
}

/// Cuts `text` into words; `first` says how long the first word of a text is.
fn cut<'t>(text: &'t str, first: impl Fn(&str) -> usize, word: &mut impl FnMut(&'t str)) {
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
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    Other,
}

fn kind(c: char) -> Kind {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' => Kind::Letter,
            '0'..='9' => Kind::Number,
            ' ' | '\t'..='\r' => Kind::Space,
            _ => Kind::Other,
        };
    }
    if is_letter(c) {
        Kind::Letter
    } else if c.is_numeric() {
        Kind::Number
    } else if c.is_whitespace() {
        Kind::Space
    } else {
        Kind::Other
    }
}

/// General category L, one bit a character. [`char::is_alphabetic`] is wider: it has marks too.
fn is_letter(c: char) -> bool {
    static LETTERS: OnceLock<Vec<u64>> = OnceLock::new();
    let letters = LETTERS.get_or_init(|| {
        let mut bits = vec![0; char::MAX as usize / 64 + 1];
        let class = regex_syntax::parse(r"\p{L}");
        if let Ok(HirKind::Class(Class::Unicode(class))) =
            class.as_ref().map(regex_syntax::hir::Hir::kind)
        {
            for range in class.ranges() {
                for c in range.start()..=range.end() {
                    bits[c as usize / 64] |= 1 << (c as usize % 64);
                }
            }
        }
        bits
    });
    letters[c as usize / 64] >> (c as usize % 64) & 1 == 1
}

/// Bytes of `text` up to the first character that is not of `wanted`.
fn run(text: &str, wanted: Kind) -> usize {
    text.find(|c| kind(c) != wanted).unwrap_or(text.len())
}

/// `\s+(?!\S)|\s+`: a run of blanks, without its last one if a word follows (which takes it along),
/// unless there is only that one.
fn blanks(text: &str) -> usize {
    let end = run(text, Kind::Space);
    if end == text.len() {
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

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(text: &str) -> usize {
    if let Some(end) = contraction(text, false) {
        return end;
    }
    let rest = text.strip_prefix(' ').unwrap_or(text);
    match rest.chars().next().map(kind) {
        None | Some(Kind::Space) => blanks(text),
        Some(of) => text.len() - rest.len() + run(rest, of),
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|`
/// `\s*[\r\n]+|\s+(?!\S)|\s+`
fn qwen2(text: &str) -> usize {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    if let Some(end) = contraction(text, true) {
        return end;
    }
    let rest = chars.as_str();
    let head = text.len() - rest.len();
    let second = chars.next().map(kind);
    match kind(first) {
        Kind::Letter => return head + run(rest, Kind::Letter),
        Kind::Number => return head,
        _ if second == Some(Kind::Letter) && first != '\r' && first != '\n' => {
            return head + run(rest, Kind::Letter);
        }
        Kind::Other => return with_line_ends(text, head + run(rest, Kind::Other)),
        Kind::Space if first == ' ' && second == Some(Kind::Other) => {
            return with_line_ends(text, head + run(rest, Kind::Other));
        }
        Kind::Space => {}
    }
    let end = run(text, Kind::Space);
    match text[..end].rfind(['\r', '\n']) {
        Some(last) => last + 1,
        None => blanks(text),
    }
}

/// `end`, moved past the line ends that follow.
fn with_line_ends(text: &str, end: usize) -> usize {
    let rest = &text[end..];
    end + rest.find(|c| c != '\r' && c != '\n').unwrap_or(rest.len())
}
