//! Tokens to text, one by one: the longest valid UTF-8 prefix of the bytes so far.

use crate::engine::message::TokenId;
use crate::text::Text;
use crate::text::tokenizer::Prefix;

/// Makes text of bytes that come in pieces. At every moment the text so far is what
/// [`String::from_utf8_lossy`] makes of the bytes so far, without a last character whose bytes may
/// still come.
#[derive(Debug, Clone, Default)]
struct Utf8 {
    /// The beginning of a character: at most three bytes.
    pending: Vec<u8>,
}

impl Utf8 {
    /// Appends to `text` what `bytes` completes.
    fn push(&mut self, bytes: &[u8], text: &mut String) {
        if self.pending.is_empty() {
            self.take(bytes, text);
        } else if !bytes.is_empty() {
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(bytes);
            self.take(&joined, text);
        }
    }

    fn take(&mut self, mut bytes: &[u8], text: &mut String) {
        while !bytes.is_empty() {
            let error = match std::str::from_utf8(bytes) {
                Ok(valid) => return text.push_str(valid),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            text.push_str(std::str::from_utf8(valid).unwrap_or_default());
            let Some(wrong) = error.error_len() else {
                self.pending.extend_from_slice(rest);
                return;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            bytes = &rest[wrong..];
        }
    }

    /// Whether `byte` can go on with the character that has begun.
    fn goes_on(&self, byte: u8) -> bool {
        let mut joined = self.pending.clone();
        joined.push(byte);
        match std::str::from_utf8(&joined) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none(),
        }
    }

    /// What is left of a character that never became whole.
    fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.pending).is_empty() { "" } else { "\u{fffd}" }
    }
}

/// Whether the blank that a tokenizer puts before a text is to be taken away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// The text goes on from another one.
    Keep,
    /// At the start, and after each special token.
    Trim,
    /// Inside a text that began at the start.
    Inside,
}

/// Text of tokens that come one by one.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    skip_special: bool,
    lead: Lead,
    utf8: Utf8,
    /// Characters of the text so far.
    chars: usize,
    /// Where the text of the last token begins.
    offset: usize,
}

impl Detokenizer {
    /// For generated tokens: they go on from another text, so nothing is trimmed at the start.
    /// `skip_special`: special tokens have no text.
    pub fn new(skip_special: bool) -> Self {
        Self { skip_special, lead: Lead::Keep, utf8: Utf8::default(), chars: 0, offset: 0 }
    }

    /// For a sequence from its first token on. A blank that [`Text::encode`] put before the text
    /// (`SentencePiece` does, for some models) is taken away again.
    pub fn at_start(text: &Text, skip_special: bool) -> Self {
        let lead = if text.prefix() == Prefix::Never { Lead::Keep } else { Lead::Trim };
        Self { lead, ..Self::new(skip_special) }
    }

    /// For what is generated behind this text: a character that has begun goes on, and nothing is
    /// trimmed any more.
    #[must_use]
    pub fn go_on(&self, skip_special: bool) -> Self {
        Self { skip_special, lead: Lead::Keep, ..self.clone() }
    }

    /// The text that `token` completes. Never U+FFFD while bytes that would make a character may
    /// still come.
    pub fn push(&mut self, text: &Text, token: TokenId) -> String {
        let mut piece = String::new();
        self.push_to(text, token, &mut piece);
        piece
    }

    /// [`Self::push`], appended to `out`.
    pub(super) fn push_to(&mut self, text: &Text, token: TokenId, out: &mut String) {
        let bytes = self.bytes(text, token);
        self.offset = self.chars;
        if let Some(&first) = bytes.first() {
            // What is pending and does not go on becomes one U+FFFD before this token's text.
            if !self.utf8.pending.is_empty() && !self.utf8.goes_on(first) {
                self.offset += 1;
            }
        }
        let before = out.len();
        self.utf8.push(bytes, out);
        self.chars += out[before..].chars().count();
    }

    /// What is left at the end: U+FFFD for a character that never became whole.
    pub fn finish(&mut self) -> &'static str {
        let rest = self.utf8.finish();
        self.chars += rest.chars().count();
        rest
    }

    /// Where the text of the token pushed last begins, in Unicode scalar values from the start of the
    /// text. A token in the middle of a character begins where the character does.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Unicode scalar values of the text so far.
    pub fn chars(&self) -> usize {
        self.chars
    }

    /// The bytes that `token` adds.
    fn bytes<'t>(&mut self, text: &'t Text, token: TokenId) -> &'t [u8] {
        if text.is_marker(token) && self.lead != Lead::Keep {
            // Text behind BOS begins the sequence; behind others it does not.
            let first = text.prefix() == Prefix::First && text.bos() != Some(token);
            self.lead = if first { Lead::Inside } else { Lead::Trim };
        } else if self.lead == Lead::Trim && !text.token_bytes(token).is_empty() {
            self.lead = Lead::Inside;
            let bytes = text.token_bytes(token);
            return bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        if self.skip_special && text.is_special(token) { &[] } else { text.token_bytes(token) }
    }
}

#[cfg(test)]
mod tests;
