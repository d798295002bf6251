//! The vocabulary: what every token id stands for, as bytes.

use std::fmt::Write as _;

use crate::engine::message::TokenId;
use crate::model::load::gguf::{KeyError, Metadata};
use crate::text::TextError;

/// What a token is, as `tokenizer.ggml.token_type` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Not text: BOS, the end of a turn, …
    Control,
    /// Text that is always a token of its own.
    UserDefined,
    /// A place in the vocabulary that nothing stands at: padding to a round size.
    Unused,
    /// One byte of a character that is no piece, written `<0x0A>`.
    Byte,
}

impl Kind {
    fn from_number(number: i32) -> Option<Self> {
        match number {
            0 | 1 => Some(Self::Normal),
            2 => Some(Self::Unknown),
            3 => Some(Self::Control),
            4 => Some(Self::UserDefined),
            5 => Some(Self::Unused),
            6 => Some(Self::Byte),
            _ => None,
        }
    }
}

/// How ordinary tokens are written in a vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Each byte as a character of GPT-2's alphabet.
    Chars,
    /// As text, with U+2581 for blanks.
    Blanks,
}

impl Spelling {
    /// Appends the bytes that `token` stands for. Whether a text can become it: what is not in GPT-2's
    /// alphabet stands for itself in an answer, but no word is ever spelt like that.
    pub(super) fn read(self, token: &str, bytes: &mut Vec<u8>) -> bool {
        match self {
            Self::Chars => bytes_of_chars(token, bytes),
            Self::Blanks => {
                for (at, part) in token.split('\u{2581}').enumerate() {
                    bytes.extend_from_slice(if at > 0 { b" " } else { b"" });
                    bytes.extend_from_slice(part.as_bytes());
                }
                true
            }
        }
    }
}

/// All tokens of a model.
#[derive(Debug, Default)]
pub(super) struct Vocab {
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// Where the bytes of each token end.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    /// Ordinary tokens that no text becomes, ascending; see [`Spelling::read`].
    unspelt: Vec<TokenId>,
    /// Tokens with the same bytes as another one that comes first, ascending.
    twins: Vec<TokenId>,
}

impl Vocab {
    pub(super) fn from_gguf(metadata: &Metadata, spelling: Spelling) -> Result<Self, TextError> {
        let tokens = metadata.strings("tokenizer.ggml.tokens")?;
        let types = metadata.opt_i32s("tokenizer.ggml.token_type")?;
        let mut vocab = Self::default();
        for (id, token) in tokens.iter().enumerate() {
            let number = match &types {
                Some(types) => *types.get(id).unwrap_or(&-1),
                None => 1,
            };
            let kind = Kind::from_number(number).ok_or_else(|| {
                TextError(format!("tokenizer.ggml.token_type has no known type for token {id}"))
            })?;
            vocab.push(token, kind, spelling)?;
        }
        if let Some(types) = types {
            vocab.same_length("tokenizer.ggml.token_type", types.len())?;
        }
        if vocab.ends.is_empty() {
            return Err(TextError("tokenizer.ggml.tokens is empty".to_owned()));
        }
        Ok(vocab)
    }

    /// Appends the token that the vocabulary writes as `token`.
    pub(super) fn push(
        &mut self,
        token: &str,
        kind: Kind,
        spelling: Spelling,
    ) -> Result<(), TextError> {
        match (kind, spelling) {
            (Kind::Byte, _) => self.bytes.push(byte_of(token).ok_or_else(|| {
                let id = self.ends.len();
                TextError(format!("tokenizer.ggml.tokens[{id}] is no byte such as <0x0A>"))
            })?),
            (Kind::Normal, spelling) => {
                if !spelling.read(token, &mut self.bytes) {
                    self.unspelt.push(self.ends.len() as TokenId);
                }
            }
            _ => self.bytes.extend_from_slice(token.as_bytes()),
        }
        self.end_token(kind)
    }

    /// Appends a token that stands for `bytes`.
    #[cfg(feature = "fake-model")]
    pub(super) fn push_bytes(&mut self, bytes: &[u8], kind: Kind) -> Result<(), TextError> {
        self.bytes.extend_from_slice(bytes);
        self.end_token(kind)
    }

    fn end_token(&mut self, kind: Kind) -> Result<(), TextError> {
        let end = u32::try_from(self.bytes.len())
            .map_err(|_| TextError("tokenizer.ggml.tokens is too large".to_owned()))?;
        self.ends.push(end);
        self.kinds.push(kind);
        Ok(())
    }

    /// Remembers which tokens have the same bytes as an earlier one.
    pub(super) fn set_twins(&mut self, mut twins: Vec<TokenId>) {
        twins.sort_unstable();
        self.twins = twins;
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Ids outside the vocabulary are [`Kind::Unused`].
    pub(super) fn kind(&self, id: TokenId) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Part of texts, and found by merging.
    pub(super) fn is_ordinary(&self, id: TokenId) -> bool {
        self.kind(id) == Kind::Normal && self.unspelt.binary_search(&id).is_err()
    }

    /// Not text.
    pub(super) fn is_special(&self, id: TokenId) -> bool {
        matches!(self.kind(id), Kind::Control | Kind::Unknown)
    }

    /// The bytes that a token stands for in a text; none if it is [`Kind::Unused`].
    pub(super) fn bytes(&self, id: TokenId) -> &[u8] {
        if self.kind(id) == Kind::Unused { &[] } else { self.raw(id) }
    }

    /// [`Self::bytes`], and the name of an unused token.
    pub(super) fn raw(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// A text that no other token has; see [`super::Text::token_label`].
    pub(super) fn label(&self, id: TokenId) -> String {
        if id as usize >= self.len() || self.twins.binary_search(&id).is_ok() {
            return format!("token_id:{id}");
        }
        let bytes = self.raw(id);
        match std::str::from_utf8(bytes) {
            Ok(text) if self.kind(id) != Kind::Byte => text.to_owned(),
            _ => bytes.iter().fold("bytes:".to_owned(), |mut label, byte| {
                // Writing to a string cannot fail.
                let _ = write!(label, "\\x{byte:02x}");
                label
            }),
        }
    }

    /// A token id from the metadata, which must be in the vocabulary.
    pub(super) fn opt_id(
        &self,
        metadata: &Metadata,
        key: &str,
    ) -> Result<Option<TokenId>, TextError> {
        match metadata.opt_u32(key)? {
            Some(id) if id as usize >= self.len() => {
                Err(TextError(format!("{key} is {id}, but there are only {} tokens", self.len())))
            }
            id => Ok(id),
        }
    }

    /// The token of each single byte, for characters that are no token; or the unknown token.
    pub(super) fn byte_tokens(
        &self,
        unknown: Option<TokenId>,
    ) -> Result<[TokenId; 256], TextError> {
        let mut found = [unknown; 256];
        for id in (0..self.len() as TokenId).rev().filter(|&id| self.kind(id) == Kind::Byte) {
            if let &[byte] = self.raw(id) {
                found[usize::from(byte)] = Some(id);
            }
        }
        let mut bytes = [0; 256];
        for (byte, found) in found.into_iter().enumerate() {
            bytes[byte] = found.ok_or_else(|| {
                let what = "in the vocabulary, and there is no unknown token";
                TextError(format!("no token for byte 0x{byte:02x} is {what}"))
            })?;
        }
        Ok(bytes)
    }

    /// Whether `token` is written as a byte is: `<0x0A>`.
    pub(super) fn is_byte(token: &str) -> bool {
        byte_of(token).is_some()
    }

    /// The first token that texts have as `text` because they are marked by it.
    pub(super) fn marker(&self, text: &[u8]) -> Option<TokenId> {
        let marker = |kind| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
        (0..self.len() as TokenId).find(|&id| marker(self.kind(id)) && self.raw(id) == text)
    }

    /// An array that has one element a token.
    pub(super) fn same_length(&self, key: &str, len: usize) -> Result<(), TextError> {
        if len == self.len() {
            return Ok(());
        }
        Err(TextError(format!("{key} has {len} elements for {} tokens", self.len())))
    }
}

impl From<KeyError> for TextError {
    fn from(error: KeyError) -> Self {
        Self(error.to_string())
    }
}

/// The byte that `<0x0A>` names.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Appends the bytes that `text` spells in GPT-2's alphabet (printable Latin-1 characters stand for
/// themselves, the other bytes for U+0100 and up, in order), or those of `text` itself if it has a
/// character outside: what the `tokenizers` library does with added tokens. Whether it has none.
fn bytes_of_chars(text: &str, bytes: &mut Vec<u8>) -> bool {
    let start = bytes.len();
    for c in text.chars() {
        let Some(byte) = byte_of_char(c) else {
            bytes.truncate(start);
            bytes.extend_from_slice(text.as_bytes());
            return false;
        };
        bytes.push(byte);
    }
    true
}

fn byte_of_char(c: char) -> Option<u8> {
    match u32::from(c) {
        c @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(c as u8),
        // The bytes left out above, in order: 0x00-0x20, 0x7f-0xa0, 0xad.
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}
