//! What the patterns tell apart.

use std::sync::OnceLock;

use regex_syntax::hir::{Class, HirKind};

/// Kinds of characters that have no one-liner in the standard library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// `\p{L}`. [`char::is_alphabetic`] is wider: it has marks too.
    Letters,
    /// `[\p{L}\p{M}]`
    LettersAndMarks,
    /// `\d`
    Digits,
    /// `\w`
    Word,
}

/// The characters of a set, one bit each.
pub(super) type Bits = [u64];

impl Set {
    pub(super) fn bits(self) -> &'static Bits {
        static SETS: [OnceLock<Vec<u64>>; 4] = [const { OnceLock::new() }; 4];
        let (place, class) = match self {
            Self::Letters => (0, r"\p{L}"),
            Self::LettersAndMarks => (1, r"[\p{L}\p{M}]"),
            Self::Digits => (2, r"\d"),
            Self::Word => (3, r"\w"),
        };
        SETS[place].get_or_init(|| bits_of(class))
    }
}

fn bits_of(class: &str) -> Vec<u64> {
    let mut bits = vec![0; char::MAX as usize / 64 + 1];
    let class = regex_syntax::parse(class);
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
}

pub(super) fn has(bits: &Bits, c: char) -> bool {
    bits[c as usize / 64] >> (c as usize % 64) & 1 == 1
}
