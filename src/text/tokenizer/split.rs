//! Pre-tokenizers: where a text is cut into words before merging.
//!
//! [`pre`] has their patterns. A backtracking engine would give up on some of them, or take quadratic time
//! on a long run of blanks; an automaton cannot look ahead. So the most common patterns are written out by
//! hand, and so is what looks ahead in the others; the rest is up to a lazily built automaton.

mod class;
mod pattern;
pub(super) mod pre;
#[cfg(test)]
mod tests;
mod thousands;
mod words;

use class::Set;
use pattern::Pattern;
use pre::{Pre, Whole};
use thousands::Thousands;
use words::{Words, numbers};

/// A way to cut text into words.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) normalizes: bool,
    pub(super) whole: Whole,
    steps: Vec<Step>,
}

/// One pattern. What it matches is a word, and so is what lies between two matches.
#[derive(Debug)]
enum Step {
    Words(Words),
    /// `\p{N}{1,n}`
    Numbers(usize),
    Thousands(Thousands),
    /// `\s+$`
    TrailingBlanks,
    Pattern(Box<Pattern>),
}

impl Split {
    pub(super) fn new(pre: &Pre) -> Result<Self, String> {
        Self::of(pre.patterns, pre.nfc, pre.whole)
    }

    pub(super) fn of(patterns: &[&str], normalizes: bool, whole: Whole) -> Result<Self, String> {
        let mut steps = Vec::with_capacity(patterns.len());
        let mut rest = patterns;
        while let [pattern, tail @ ..] = rest {
            rest = tail;
            steps.push(match (*pattern, tail) {
                // Twice as fast as one after the other.
                (pre::DIGIT, [pre::GPT2, tail @ ..]) => {
                    rest = tail;
                    Step::Words(Words::Gpt2 { digits: true })
                }
                (pattern, _) => Step::new(pattern)?,
            });
        }
        Ok(Self { normalizes, whole, steps })
    }

    /// Calls `word` with each word of `text`, in order. Together they are `text`, and none is empty.
    pub(super) fn words<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match &self.steps[..] {
            _ if text.is_empty() => {}
            // The most common case, without a call through a pointer for each word.
            [Step::Words(words)] => words.cut(text, &mut word),
            steps => cut(steps, text, &mut word),
        }
    }
}

/// Calls `word` with each word that the pre-tokenizer of this number makes of `text`: for fuzzing.
#[cfg(feature = "fake-model")]
pub(crate) fn cut_by_number<'t>(number: usize, text: &'t str, word: impl FnMut(&'t str)) {
    static SPLITS: std::sync::LazyLock<Vec<Split>> =
        std::sync::LazyLock::new(|| pre::PRES.iter().flat_map(Split::new).collect());
    SPLITS[number % SPLITS.len()].words(text, word);
}

fn cut<'t>(steps: &[Step], text: &'t str, word: &mut dyn FnMut(&'t str)) {
    match steps {
        [] => word(text),
        [step] => step.cut(text, word),
        [step, rest @ ..] => step.cut(text, &mut |part| cut(rest, part, word)),
    }
}

impl Step {
    fn new(pattern: &str) -> Result<Self, String> {
        let qwen2 = |letters, digits| Self::Words(Words::Qwen2 { letters, digits });
        Ok(match pattern {
            pre::GPT2 => Self::Words(Words::Gpt2 { digits: false }),
            pre::QWEN2 => qwen2(Set::Letters, 1),
            pre::LLAMA3 => qwen2(Set::Letters, 3),
            pre::QWEN35 => qwen2(Set::LettersAndMarks, 1),
            pre::DIGIT => Self::Numbers(1),
            pre::DIGITS_3 => Self::Numbers(3),
            pre::DIGITS => Self::Numbers(usize::MAX),
            pre::THOUSANDS => Self::Thousands(Thousands::Numbers),
            pre::WORD_THOUSANDS => Self::Thousands(Thousands::Words),
            pre::THOUSANDS_MARKS => Self::Thousands(Thousands::Marks),
            pre::TRAILING_BLANKS => Self::TrailingBlanks,
            other => Self::Pattern(Box::new(Pattern::new(other)?)),
        })
    }

    /// Calls `word` with each word of `text`, which is not empty, in order.
    fn cut<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str)) {
        match self {
            Self::Words(words) => words.cut(text, word),
            Self::Thousands(thousands) => thousands.cut(text, word),
            Self::Pattern(pattern) => pattern.cut(text, word),
            &Self::Numbers(most) => {
                let mut rest = text;
                while let Some(found) = rest.find(char::is_numeric) {
                    let (before, from) = rest.split_at(found);
                    if !before.is_empty() {
                        word(before);
                    }
                    let (number, after) = from.split_at(numbers(from, most));
                    word(number);
                    rest = after;
                }
                if !rest.is_empty() {
                    word(rest);
                }
            }
            Self::TrailingBlanks => {
                let parts = text.split_at(text.trim_end().len());
                [parts.0, parts.1].into_iter().filter(|part| !part.is_empty()).for_each(word);
            }
        }
    }
}
