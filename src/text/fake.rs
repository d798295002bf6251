//! The fake model's vocabulary: short pieces with every difficulty that real ones have.

use std::sync::Arc;

use super::template::Template;
use super::tokenizer::{Prefix, Tokenizer};
use super::vocab::{Kind, Vocab};
use super::{Inner, Text, TextError};
use crate::engine::message::TokenId;

/// Ends an answer, in the fake model's vocabulary.
pub const FAKE_END: TokenId = 0;
/// Further special tokens, from id 1 on.
const SPECIAL: [&str; 3] = ["<|end|>", "<|user|>", "<|assistant|>"];
/// Pieces of several bytes, of several characters, and parts of characters.
const PIECES: [&[u8]; 8] = [
    "é".as_bytes(),
    "日".as_bytes(),
    "😀".as_bytes(),
    b"\xf0\x9f",
    b" the",
    b"\n\n",
    "\u{fe0f}é ".as_bytes(),
    b"END",
];

const TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\
                        {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

impl Text {
    /// For the fake model: `vocab` tokens. First [`FAKE_END`] and two more special tokens, then all
    /// bytes (printable ones first, so that a small vocabulary is readable), then some longer pieces.
    /// Below 259 tokens text is encoded with loss. Its template is `<|role|>content…<|assistant|>`.
    pub fn fake(vocab: usize) -> Self {
        #[expect(clippy::expect_used, reason = "the pieces are constants, and tests build them")]
        build(vocab, TEMPLATE).expect("the fake model's pieces make a vocabulary")
    }

    /// The fake vocabulary with another template.
    #[cfg(test)]
    pub fn fake_with_template(source: &str) -> Self {
        build(300, source).expect("a vocabulary like that of the fake model")
    }
}

fn build(size: usize, template: &str) -> Result<Text, TextError> {
    let printable = b' '..=b'~';
    let others = (0..=u8::MAX).filter(|byte| !(b' '..=b'~').contains(byte));
    let mut pieces = SPECIAL
        .iter()
        .map(|text| (text.as_bytes().to_vec(), Kind::Control))
        .chain(printable.chain(others).map(|byte| (vec![byte], Kind::Normal)))
        .chain(PIECES.iter().map(|piece| (piece.to_vec(), Kind::Normal)));
    let mut vocab = Vocab::default();
    for id in 0..size {
        let (bytes, kind) =
            pieces.next().unwrap_or_else(|| (format!(" w{id}").into_bytes(), Kind::Normal));
        vocab.push_bytes(&bytes, kind)?;
    }
    let tokenizer = Tokenizer::fake(&mut vocab)?;
    let inner = Inner {
        vocab,
        tokenizer,
        bos: None,
        eos: Some(FAKE_END),
        adds_bos: false,
        end_tokens: vec![FAKE_END],
        prefix: Prefix::Never,
        template: Some(Template::new(template.to_owned(), Vec::new())),
        fim: None,
    };
    Ok(Text { inner: Arc::new(inner) })
}
