//! Prompts, read straight into their own type.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::{Input, PROMPTS_MAX};
use crate::engine::message::TokenId;

/// An [`Input`], or `None` for null.
pub(super) struct InputSeed;

const INPUT_FORMS: &str =
    "a string, a list of strings, a list of token ids, or a list of lists of token ids";

impl<'de> DeserializeSeed<'de> for InputSeed {
    type Value = Option<Input>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for InputSeed {
    type Value = Option<Input>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(INPUT_FORMS)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Input::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(Some(Input::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut input = match seq.next_element::<Item>()? {
            None => return Ok(Some(Input::Ids(Vec::new()))),
            Some(Item::Text(s)) => Input::Texts(vec![s]),
            Some(Item::Id(id)) => Input::Ids(vec![id]),
            Some(Item::Ids(ids)) => Input::IdLists(vec![ids]),
        };
        while let Some(item) = seq.next_element::<Item>()? {
            let prompts = match (&mut input, item) {
                (Input::Texts(texts), Item::Text(s)) => {
                    texts.push(s);
                    texts.len()
                }
                (Input::IdLists(lists), Item::Ids(ids)) => {
                    lists.push(ids);
                    lists.len()
                }
                (Input::Ids(ids), Item::Id(id)) => {
                    ids.push(id);
                    1
                }
                _ => return Err(de::Error::custom(format!("expected {INPUT_FORMS}"))),
            };
            if prompts > PROMPTS_MAX {
                let message = format!("more than {PROMPTS_MAX} prompts");
                return Err(de::Error::custom(message));
            }
        }
        Ok(Some(input))
    }
}

/// One element of a list [`Input`].
enum Item {
    Text(String),
    Id(TokenId),
    Ids(Vec<TokenId>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or a list of token ids")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Item, E> {
        TokenId::try_from(value)
            .map(Item::Id)
            .map_err(|_| E::custom(format!("{value} is not a token of the vocabulary")))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Item, E> {
        Err(E::custom(format!("{value} is not a token of the vocabulary")))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Item, E> {
        let id = Some(value).filter(|x| x.fract() == 0.0).map(|x| x as i64);
        match id.and_then(|id| TokenId::try_from(id).ok()) {
            Some(id) => Ok(Item::Id(id)),
            None => Err(E::custom(format!("{value} is not a token of the vocabulary"))),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Item, E> {
        Ok(Item::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Item, E> {
        Ok(Item::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
        let mut ids = Vec::new();
        while let Some(item) = seq.next_element::<Id>()? {
            ids.push(item.0);
        }
        Ok(Item::Ids(ids))
    }
}

/// A token id inside a list of lists.
struct Id(TokenId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ItemVisitor)? {
            Item::Id(id) => Ok(Self(id)),
            _ => Err(de::Error::custom("expected a token id")),
        }
    }
}
