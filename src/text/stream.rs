//! The text of one choice as it grows: detokenised, cut at the first stop string.

use crate::engine::message::TokenId;
use crate::text::{StopSet, Text};

/// What one token adds to the text that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// May be empty: a character is not whole yet, or could be the beginning of a stop string.
    pub text: String,
    /// A stop string is complete: nothing comes after `text`.
    pub stopped: bool,
    /// Where this token's own text begins, in Unicode scalar values from the start of the generated
    /// text, whether or not that text was held back or cut.
    pub offset: usize,
}

/// Detokenises one choice and holds back what could be the beginning of a stop string.
#[derive(Debug)]
pub struct TextStream {
    _text: Text,
}

impl TextStream {
    /// `skip_special`: special tokens have no text.
    pub fn new(text: &Text, _stops: Option<&StopSet>, _skip_special: bool) -> Self {
        Self { _text: text.clone() }
    }

    /// The next generated token (not an end token that ended the answer: it has no text).
    /// `may_stop` is false for the tokens that `min_tokens` protects: a stop string that is complete
    /// by then stays in the text.
    pub fn push(&mut self, _token: TokenId, _may_stop: bool) -> Piece {
        Piece::default()
    }

    /// Where the text of a further token would begin: the offset of an end token.
    pub fn offset(&self) -> usize {
        0
    }

    /// What was held back, once no token comes any more. Empty after a stop.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
