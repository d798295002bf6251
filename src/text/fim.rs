//! Filling in the middle: the tokens that some models, mostly of code, know for it.

use super::vocab::{Kind, Vocab};
use super::{Text, TextError};
use crate::engine::message::TokenId;
use crate::model::load::gguf::Metadata;

/// For each of the three: the metadata's keys, the newer one first, and the names that the families
/// give it (llama.cpp's list, `llama-vocab.cpp`): Qwen, `StarCoder`, Granite, GLM, `DeepSeek`, Code Llama.
const PREFIX: Marker = Marker {
    keys: &["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"],
    names: &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<|code_prefix|>",
        "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
        "<PRE>",
        "\u{2581}<PRE>",
    ],
};
const SUFFIX: Marker = Marker {
    keys: &["tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"],
    names: &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<|code_suffix|>",
        "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
        "<SUF>",
        "\u{2581}<SUF>",
    ],
};
const MIDDLE: Marker = Marker {
    keys: &["tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"],
    names: &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<|code_middle|>",
        "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
        "<MID>",
        "\u{2581}<MID>",
    ],
};

/// What else a model may say when the middle is full: padding, the next file, the next repository.
const ENDS: [Marker; 3] = [
    Marker {
        keys: &["tokenizer.ggml.fim_pad_token_id"],
        names: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>"],
    },
    Marker { keys: &["tokenizer.ggml.fim_sep_token_id"], names: &["<|file_sep|>", "<file_sep>"] },
    Marker {
        keys: &["tokenizer.ggml.fim_rep_token_id"],
        names: &["<|repo_name|>", "<fim-repo>", "<reponame>", "<|fim_repo|>"],
    },
];

struct Marker {
    keys: &'static [&'static str],
    names: &'static [&'static str],
}

impl Marker {
    /// By metadata, else by name. A token that is ordinary text is none.
    fn find(&self, metadata: &Metadata, vocab: &Vocab) -> Result<Option<TokenId>, TextError> {
        for key in self.keys {
            if let Some(id) = vocab.opt_id(metadata, key)? {
                return Ok(Some(id));
            }
        }
        Ok(self.find_by_name(vocab))
    }

    fn find_by_name(&self, vocab: &Vocab) -> Option<TokenId> {
        let is_marker = |id| matches!(vocab.kind(id), Kind::Control | Kind::UserDefined);
        let named = |id| self.names.iter().any(|name| name.as_bytes() == vocab.raw(id));
        (0..vocab.len() as TokenId).find(|&id| is_marker(id) && named(id))
    }
}

/// The tokens of a model that can fill in the middle.
#[derive(Debug)]
pub(super) struct Fim {
    prefix: TokenId,
    suffix: TokenId,
    middle: TokenId,
    ends: Vec<TokenId>,
}

impl Fim {
    pub(super) fn from_gguf(metadata: &Metadata, vocab: &Vocab) -> Result<Option<Self>, TextError> {
        let of = |marker: &Marker| marker.find(metadata, vocab);
        let (Some(prefix), Some(suffix), Some(middle)) = (of(&PREFIX)?, of(&SUFFIX)?, of(&MIDDLE)?)
        else {
            return Ok(None);
        };
        let mut ends = vec![prefix, suffix, middle];
        for end in &ENDS {
            ends.extend(of(end)?);
        }
        Ok(Some(Self { prefix, suffix, middle, ends }))
    }
}

impl Text {
    /// The tokens of what stands around a gap, in the order in which models of code are trained: what
    /// comes before, what comes after, and then the gap. Nothing if the model knows no such tokens.
    pub fn encode_gap(&self, before: &str, after: &str, add_bos: bool) -> Option<Vec<TokenId>> {
        let fim = self.inner.fim.as_ref()?;
        let mut ids = Vec::new();
        ids.extend(self.inner.bos.filter(|_| add_bos && self.inner.adds_bos));
        ids.push(fim.prefix);
        ids.extend(self.encode(before, true, false));
        ids.push(fim.suffix);
        ids.extend(self.encode(after, true, false));
        ids.push(fim.middle);
        Some(ids)
    }

    /// Tokens that end what is filled in, beside [`Self::end_tokens`].
    pub fn gap_ends(&self) -> &[TokenId] {
        self.inner.fim.as_ref().map_or(&[], |fim| &fim.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load::gguf::Value;

    #[cfg(feature = "fake-model")]
    impl Text {
        /// [`Self::fake`] with three tokens for filling in the middle, the last ones of the vocabulary.
        pub fn fake_with_gap(vocab: usize) -> Self {
            let [prefix, suffix, middle] = [3, 2, 1].map(|back| (vocab - back) as TokenId);
            let mut inner = std::sync::Arc::into_inner(Self::fake(vocab).inner).unwrap();
            inner.fim = Some(Fim { prefix, suffix, middle, ends: vec![prefix, suffix, middle] });
            Self { inner: inner.into() }
        }
    }

    fn metadata(tokens: &[(&str, i64)]) -> Metadata {
        let mut m = Metadata::default();
        let texts = tokens.iter().map(|t| t.0.to_owned()).collect();
        m.values.insert("tokenizer.ggml.tokens".to_owned(), Value::Strings(texts));
        let kinds = tokens.iter().map(|t| t.1).collect();
        m.values.insert("tokenizer.ggml.token_type".to_owned(), Value::I64s(kinds));
        m
    }

    fn fim(m: &Metadata) -> Result<Option<Vec<TokenId>>, TextError> {
        let vocab = Vocab::from_gguf(m, crate::text::vocab::Spelling::Blanks)?;
        Ok(Fim::from_gguf(m, &vocab)?.map(|fim| fim.ends))
    }

    const QWEN: [(&str, i64); 6] = [
        ("a", 1),
        ("<|fim_prefix|>", 4),
        ("<|fim_middle|>", 4),
        ("<|fim_suffix|>", 3),
        ("<|file_sep|>", 4),
        ("b", 1),
    ];

    #[test]
    fn tokens_are_found_by_name_and_metadata_goes_first() {
        let mut m = metadata(&QWEN);
        assert_eq!(fim(&m).unwrap(), Some(vec![1, 3, 2, 4]));
        m.values.insert("tokenizer.ggml.prefix_token_id".to_owned(), Value::U64(5));
        assert_eq!(fim(&m).unwrap(), Some(vec![5, 3, 2, 4]));
        m.values.insert("tokenizer.ggml.fim_pre_token_id".to_owned(), Value::U64(0));
        assert_eq!(fim(&m).unwrap(), Some(vec![0, 3, 2, 4]));
        m.values.insert("tokenizer.ggml.fim_mid_token_id".to_owned(), Value::U64(6));
        assert!(fim(&m).unwrap_err().0.contains("fim_mid_token_id is 6"));
    }

    #[test]
    fn a_model_without_all_three_has_none() {
        assert_eq!(fim(&metadata(&QWEN[..3])).unwrap(), None);
        let mut ordinary = QWEN;
        ordinary[3].1 = 1;
        assert_eq!(fim(&metadata(&ordinary)).unwrap(), None);
    }
}
