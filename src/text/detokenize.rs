//! Tokens to text, one by one: the longest valid UTF-8 prefix of the bytes so far.

use crate::engine::message::TokenId;
use crate::text::Text;

/// Text of generated tokens, which continue another text: nothing is trimmed at the start.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    _skip_special: bool,
}

impl Detokenizer {
    /// `skip_special`: special tokens have no text.
    pub fn new(skip_special: bool) -> Self {
        Self { _skip_special: skip_special }
    }

    /// The text that `token` completes. Never U+FFFD while bytes that would make a character may
    /// still come.
    pub fn push(&mut self, _text: &Text, _token: TokenId) -> String {
        String::new()
    }

    /// What is left at the end: U+FFFD for a character that never became whole.
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
