//! What `tokenizer.json` says, in the words of the `tokenizers` library.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    pub(super) normalizer: Option<Part>,
    pub(super) pre_tokenizer: Option<Part>,
    pub(super) post_processor: Option<Part>,
    pub(super) decoder: Option<Part>,
    pub(super) model: Model,
}

#[expect(clippy::struct_excessive_bools, reason = "the library's own fields")]
#[derive(Debug, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    #[serde(default)]
    pub(super) normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

/// A normalizer, pre-tokenizer, post-processor or decoder.
#[derive(Debug, Deserialize)]
pub(super) struct Part {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(flatten)]
    pub(super) fields: HashMap<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Model {
    /// Old files leave it out where it is BPE.
    #[serde(rename = "type", default)]
    pub(super) kind: Option<String>,
    pub(super) vocab: Words,
    #[serde(default)]
    pub(super) merges: Vec<Merge>,
    #[serde(default)]
    pub(super) dropout: Option<f32>,
    #[serde(default)]
    pub(super) unk_token: Option<String>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Pair(String, String),
    Line(String),
}

/// Words and their ids; nothing for the list that other kinds of models have there, which is refused by its
/// kind, and not kept until then.
#[derive(Debug)]
pub(super) struct Words(pub(super) Option<BTreeMap<String, u32>>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of ids below 2^32")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Words, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Some).map(Words)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Words(None))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Merge {
    pub(super) fn parts(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Line(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' ')),
        }
    }
}

impl Part {
    /// The parts of a sequence, or this one.
    pub(super) fn flat(self, key: &str) -> Result<Vec<Self>, String> {
        if self.kind != "Sequence" {
            return Ok(vec![self]);
        }
        let parts = self.fields.get(key).cloned().unwrap_or_default();
        let parts: Vec<Self> = serde_json::from_value(parts).map_err(|e| format!("{key}: {e}"))?;
        match parts.iter().find(|part| part.kind == "Sequence") {
            Some(_) => Err(format!("{key} has a Sequence within a Sequence")),
            None => Ok(parts),
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key)?.as_str()
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.fields.get(key)?.as_bool()
    }

    /// The pattern of a replacement or a split: whether it is a regular expression, and its text.
    pub(super) fn pattern(&self) -> Option<(bool, &str)> {
        let pattern = self.fields.get("pattern")?;
        let of = |key: &str| pattern.get(key)?.as_str();
        of("String").map(|text| (false, text)).or_else(|| of("Regex").map(|text| (true, text)))
    }
}
