//! What `tokenizer.json` says, in the words of the `tokenizers` library. Texts are those of the file's bytes, lists are
//! bounded, and what nobody asks for is not kept: so a file takes about as much memory again as it is long.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::model::load::bounded::{Few, told};

/// Most words of the model. Gemma has the most, 262,144.
const WORDS_MAX: usize = 1 << 20;
/// Most merges: Gemma 3 has 514,906.
const MERGES_MAX: usize = 1 << 20;
/// Most tokens outside of the model. Those with codes of pictures have some ten thousand.
const ADDED_MAX: usize = 1 << 17;
/// Most parts of a sequence, tokens of a template, …: some ten at most in real files.
const PARTS_MAX: usize = 64;

#[derive(Debug, Deserialize)]
pub(super) struct File<'a> {
    #[serde(default, borrow)]
    pub(super) added_tokens: Few<AddedToken<'a>, ADDED_MAX>,
    #[serde(borrow)]
    pub(super) normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Model<'a>,
}

#[expect(clippy::struct_excessive_bools, reason = "the library's own fields")]
#[derive(Debug, Deserialize)]
pub(super) struct AddedToken<'a> {
    pub(super) id: u32,
    #[serde(borrow)]
    pub(super) content: Text<'a>,
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

/// A normalizer, pre-tokenizer or decoder: what some kind of them has.
#[derive(Debug, Deserialize)]
pub(super) struct Part<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) prepend: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) content: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) pattern: Option<Pattern<'a>>,
    #[serde(borrow)]
    pub(super) behavior: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) replacement: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) prepend_scheme: Option<Text<'a>>,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) use_regex: Option<bool>,
    pub(super) individual_digits: Option<bool>,
    pub(super) invert: Option<bool>,
    pub(super) split: Option<bool>,
}

/// The pattern of a replacement or a split.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Pattern<'a> {
    String(#[serde(borrow)] Text<'a>),
    Regex(#[serde(borrow)] Text<'a>),
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct Sequence<'a> {
    #[serde(
        alias = "normalizers",
        alias = "pretokenizers",
        alias = "decoders",
        alias = "processors",
        borrow
    )]
    parts: Few<&'a RawValue, PARTS_MAX>,
}

/// `TemplateProcessing`
#[derive(Debug, Deserialize)]
pub(super) struct Template<'a> {
    #[serde(default, borrow)]
    pub(super) single: Few<Piece<'a>, PARTS_MAX>,
    #[serde(default, borrow)]
    pub(super) special_tokens: SpecialTokens<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) enum Piece<'a> {
    /// A text.
    Sequence(IgnoredAny),
    SpecialToken {
        #[serde(borrow)]
        id: Text<'a>,
    },
}

/// Tokens of a template by name.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens<'a>(pub(super) Vec<(Text<'a>, Vec<u32>)>);

#[derive(Debug, Deserialize)]
pub(super) struct Model<'a> {
    /// Old files leave it out where it is BPE.
    #[serde(rename = "type", default, borrow)]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) vocab: Words<'a>,
    #[serde(default, borrow)]
    pub(super) merges: Few<Merge<'a>, MERGES_MAX>,
    #[serde(default)]
    pub(super) dropout: Option<f32>,
    #[serde(default, borrow)]
    pub(super) unk_token: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(super) continuing_subword_prefix: Option<Text<'a>>,
    #[serde(default, borrow)]
    pub(super) end_of_word_suffix: Option<Text<'a>>,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
}

/// A text, without a copy where nothing in it is escaped.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Words and their ids, as they come; nothing for the list that other kinds of models have there, which is refused
/// by its kind, and not kept until then.
#[derive(Debug)]
pub(super) struct Words<'a>(pub(super) Option<Vec<(Text<'a>, u32)>>);

impl<'de: 'a, 'a> Deserialize<'de> for Words<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Words<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of ids below 2^32")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Words<'de>, A::Error> {
                entries(map, WORDS_MAX, "words").map(Some).map(Words)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Words<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Words(None))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for SpecialTokens<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct SpecialToken {
            ids: Few<u32, PARTS_MAX>,
        }
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = SpecialTokens<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tokens")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let tokens: Vec<(_, SpecialToken)> = entries(map, PARTS_MAX, "tokens")?;
                let ids = tokens.into_iter().map(|(name, token)| (name, token.ids.0));
                Ok(SpecialTokens(ids.collect()))
            }
        }
        deserializer.deserialize_map(Tokens)
    }
}

/// What an object has, unless that is more than `max`.
fn entries<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    mut map: A,
    max: usize,
    what: &str,
) -> Result<Vec<(Text<'de>, T)>, A::Error> {
    let mut entries = Vec::new();
    while let Some((name, value)) = map.next_entry()? {
        if entries.len() == max {
            return Err(A::Error::custom(format_args!("more than {max} {what}")));
        }
        entries.push((name, value));
    }
    Ok(entries)
}

/// What is merged: two tokens, or a line with both as old files have it.
#[derive(Debug)]
pub(super) enum Merge<'a> {
    Pair(Text<'a>, Text<'a>),
    Line(Text<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens in an array, or in a text with a blank between them")
            }

            fn visit_borrowed_str<E: Error>(self, line: &'de str) -> Result<Self::Value, E> {
                Ok(Merge::Line(Text(Cow::Borrowed(line))))
            }

            fn visit_str<E: Error>(self, line: &str) -> Result<Self::Value, E> {
                Ok(Merge::Line(Text(Cow::Owned(line.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let pair = (seq.next_element()?, seq.next_element()?);
                match (pair, seq.next_element::<IgnoredAny>()?) {
                    ((Some(left), Some(right)), None) => Ok(Merge::Pair(left, right)),
                    _ => Err(A::Error::custom("a merge is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Merge<'_> {
    pub(super) fn parts(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Line(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' ')),
        }
    }
}

impl Part<'_> {
    /// Whether it puts one text in the place of another.
    pub(super) fn replaces(&self, text: &str, by: &str) -> bool {
        matches!(&self.pattern, Some(Pattern::String(pattern)) if &**pattern == text)
            && self.content.as_deref() == Some(by)
    }
}

/// The parts of a sequence, or this one.
pub(super) fn flat(part: Option<&RawValue>) -> Result<Vec<&RawValue>, String> {
    let Some(part) = part else { return Ok(Vec::new()) };
    if &*kind(part)? != "Sequence" {
        return Ok(vec![part]);
    }
    let parts = read::<Sequence<'_>>(part)?.parts.0;
    for part in &parts {
        if &*kind(part)? == "Sequence" {
            return Err("a Sequence within a Sequence is not supported".to_owned());
        }
    }
    Ok(parts)
}

/// Which of all kinds a part is.
pub(super) fn kind(part: &RawValue) -> Result<Text<'_>, String> {
    read::<Kind<'_>>(part).map(|part| part.kind)
}

pub(super) fn read<'a, T: Deserialize<'a>>(part: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(part.get()).map_err(|e| told(&e))
}
