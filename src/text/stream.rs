//! The text of one choice as it grows: detokenised, cut at the first stop string.

#[cfg(test)]
mod tests;

use crate::engine::message::TokenId;
use crate::text::stop::Matcher;
use crate::text::{Detokenizer, StopSet, Text};

/// What one token adds to the text that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// May be empty: a character is not whole yet, or could be the beginning of a stop string.
    pub text: String,
    /// A stop string is complete: nothing comes after `text`.
    pub stopped: bool,
    /// Where this token's own text begins, in Unicode scalar values from the start of the
    /// detokenizer's text, whether or not that text was held back or cut.
    pub offset: usize,
}

/// Detokenises one choice and holds back what could be the beginning of a stop string, and not a byte
/// more.
#[derive(Debug)]
pub struct TextStream {
    text: Text,
    detokenizer: Detokenizer,
    matcher: Option<Matcher>,
    held: String,
    may_stop: bool,
    stopped: bool,
}

impl TextStream {
    /// `detokenizer` is a new one, or goes on with a text that was sent before.
    pub fn new(text: &Text, stops: Option<&StopSet>, detokenizer: Detokenizer) -> Self {
        Self {
            text: text.clone(),
            detokenizer,
            matcher: stops.map(Matcher::new),
            held: String::new(),
            may_stop: true,
            stopped: false,
        }
    }

    /// The next generated token (not an end token that ended the answer: it has no text).
    /// `may_stop` is false for the tokens that `min_tokens` protects: a stop string that is complete
    /// by then stays in the text.
    pub fn push(&mut self, token: TokenId, may_stop: bool) -> Piece {
        self.may_stop = may_stop;
        let whole = self.detokenizer.push(&self.text, token);
        let offset = self.detokenizer.offset();
        let text = self.pass(&whole);
        Piece { text, stopped: self.stopped, offset }
    }

    /// Where the text of a further token would begin: the offset of an end token.
    pub fn offset(&self) -> usize {
        self.detokenizer.chars()
    }

    /// What was held back, once no token comes any more. Empty after a stop.
    pub fn finish(&mut self) -> String {
        let rest = self.detokenizer.finish();
        if self.stopped {
            return String::new();
        }
        // Not searched for stops: a U+FFFD for a character whose end never came is no text of the model's, and the engine
        // did not stop there either.
        let mut text = std::mem::take(&mut self.held);
        text.push_str(rest);
        text
    }

    /// Takes `whole` up to the first stop string; what of it and of the text held back is free now.
    fn pass(&mut self, whole: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(whole);
        let Some(matcher) = &mut self.matcher else { return std::mem::take(&mut self.held) };
        let before = self.held.len() - whole.len();
        for (at, byte) in whole.bytes().enumerate() {
            let stop = matcher.step(byte);
            if stop > 0 && self.may_stop {
                self.stopped = true;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(before + at + 1 - matcher.cut(stop));
                return text;
            }
        }
        let rest = self.held.split_off(self.held.len() - matcher.held());
        std::mem::replace(&mut self.held, rest)
    }
}
