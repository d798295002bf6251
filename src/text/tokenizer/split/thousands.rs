//! Numbers in groups of three from the right: their patterns look ahead as far as the number goes.

use super::class::{Set, has};

/// Which numbers are grouped, and how.
#[derive(Debug, Clone, Copy)]
pub(super) enum Thousands {
    /// [`super::pre::THOUSANDS`]
    Numbers,
    /// [`super::pre::WORD_THOUSANDS`]
    Words,
    /// [`super::pre::THOUSANDS_MARKS`]
    Marks,
}

impl Thousands {
    /// Calls `word` with each word of `text`, in order.
    pub(super) fn cut<'t>(self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        let (digits, letters) = (Set::Digits.bits(), Set::Word.bits());
        let is_digit = |c: char| match self {
            Self::Numbers => c.is_numeric(),
            Self::Words | Self::Marks => has(digits, c),
        };
        // Where the word that has begun starts, and where to look on.
        let (mut start, mut at) = (0, 0);
        while let Some(found) = text[at..].find(is_digit) {
            let begin = at + found;
            let end = text[begin..].find(|c| !is_digit(c)).map_or(text.len(), |end| begin + end);
            at = end;
            let inside = text[end..].chars().next().is_some_and(|c| has(letters, c));
            if matches!(self, Self::Words) && inside {
                continue;
            }
            let count = text[begin..end].chars().count();
            let mut places = text[begin..end].char_indices().enumerate();
            let begins = |index: &usize| match self {
                // The number itself begins no group, unless it has that many digits.
                Self::Marks => (count - index).is_multiple_of(3),
                _ => *index == 0 || (count - index).is_multiple_of(3),
            };
            for (_, (offset, _)) in places.by_ref().filter(|(index, _)| begins(index)) {
                give(text, &mut start, begin + offset, word);
            }
            if !matches!(self, Self::Marks) {
                give(text, &mut start, end, word);
            }
        }
        give(text, &mut start, text.len(), word);
    }
}

/// Ends a word at `end`, if one has begun.
fn give<'t>(text: &'t str, start: &mut usize, end: usize, word: &mut dyn FnMut(&'t str)) {
    if *start < end {
        word(&text[*start..end]);
        *start = end;
    }
}
