//! The vocabulary as llguidance wants it: a trie of the bytes of all tokens that may stand in a text.

use std::collections::HashSet;

use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenizerEnv};

use crate::engine::message::TokenId;
use crate::text::Text;
use crate::text::vocab::Kind;

/// Longer tokens are left out: the trie's nodes count depth in ten bits.
const TOKEN_BYTES_MAX: usize = 512;

/// Begins the names of special tokens in the trie, and stands in no UTF-8.
const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// The trie, and the tokenizer for what a grammar forces.
pub(super) struct Env {
    trie: TokTrie,
    text: Text,
}

impl Env {
    pub(super) fn new(text: &Text) -> Self {
        let words = words(text);
        let ends = text.end_tokens();
        let end = ends.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(ends);
        }
        Self { trie, text: text.clone() }
    }
}

/// By id: the bytes of each token that may stand in an answer; none for special tokens, for those
/// that end it, and for all but one of several that have the same bytes.
fn words(text: &Text) -> Vec<Vec<u8>> {
    let vocab = &text.inner.vocab;
    let mut words = vec![Vec::new(); vocab.len()];
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(vocab.len());
    // A byte that is a token in its own right is that token, not the stand-in for rare characters.
    for kinds in [&[Kind::Normal, Kind::UserDefined][..], &[Kind::Byte]] {
        for id in (0..vocab.len() as TokenId).filter(|&id| kinds.contains(&vocab.kind(id))) {
            let bytes = vocab.bytes(id);
            let is_text = !text.end_tokens().contains(&id) && !bytes.contains(&MARKER);
            if is_text && (1..=TOKEN_BYTES_MAX).contains(&bytes.len()) && seen.insert(bytes) {
                words[id as usize] = bytes.to_vec();
            }
        }
    }
    words
}

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// As the model's own tokenizer has it, so that forced text reads as the model would write it.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let ids = self.trie.tokenize_with_greedy_fallback(bytes, |text| self.text.encode_on(text));
        // A tokenizer may normalise, or know no token for a byte.
        if self.trie.decode_raw(&ids) == bytes { ids } else { self.trie.greedy_tokenize(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::testing::{FAKE, GEMMA, QWEN, SMOLLM};

    #[test]
    fn special_tokens_and_ends_are_no_text() {
        for text in [SMOLLM.text(), GEMMA.text(), QWEN.text(), &FAKE] {
            let words = words(text);
            for (id, word) in (0..).zip(&words) {
                let is_text = !text.is_special(id) && !text.end_tokens().contains(&id);
                assert!(is_text || word.is_empty(), "{id}");
                assert!(word.is_empty() || word == text.token_bytes(id));
            }
            assert!(words.iter().filter(|word| !word.is_empty()).count() > words.len() * 9 / 10);
        }
    }

    #[test]
    fn what_is_forced_keeps_its_bytes() {
        for text in [SMOLLM.text(), GEMMA.text(), QWEN.text(), &FAKE] {
            let env = Env::new(text);
            for sample in [" {\"name\": \"", "\n\n  é日😀\u{2581} e\u{301}", "a  b", "<|im_end|>"]
            {
                let ids = env.tokenize_bytes(sample.as_bytes());
                assert_eq!(env.trie.decode_raw(&ids), sample.as_bytes(), "{sample}");
                assert!(ids.iter().all(|&id| !text.is_special(id)));
            }
            assert_eq!(env.trie.decode_raw(&env.tokenize_bytes(b"\xe2\x96")), b"\xe2\x96");
        }
    }
}
