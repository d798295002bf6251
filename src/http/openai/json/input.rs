//! Prompts, read straight into their own type.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::{ApiError, Input, PROMPTS_MAX};
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
        let mut input = match seq.next_element_seed(ItemSeed(None))? {
            None => return Ok(Some(Input::Ids(Vec::new()))),
            Some(Item::Text(s)) => Input::Texts(vec![s]),
            Some(Item::Id(id)) => Input::Ids(vec![id]),
            Some(Item::Ids(ids)) => Input::IdLists(vec![ids]),
        };
        while let Some(item) = seq.next_element_seed(ItemSeed(Some(&input)))? {
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
                // The seed lets no other one through.
                _ => continue,
            };
            if prompts > PROMPTS_MAX {
                let message = format!("more than {PROMPTS_MAX} prompts");
                return Err(de::Error::custom(message));
            }
        }
        Ok(Some(input))
    }
}

/// All of them are tokens. `place`: where the list stands in the request.
pub fn check_ids(ids: &[TokenId], vocab: usize, place: impl fmt::Display) -> Result<(), ApiError> {
    let Some(at) = ids.iter().position(|&id| id as usize >= vocab) else { return Ok(()) };
    let (id, place) = (ids[at], format!("{place}[{at}]"));
    let message =
        format!("{id} is not a token of the vocabulary: ids are below {vocab} - '{place}'");
    Err(ApiError::invalid(message, place))
}

/// One element of a list [`Input`].
enum Item {
    Text(String),
    Id(TokenId),
    Ids(Vec<TokenId>),
}

/// An element of the same kind as those before it. It fails by itself, so that the fault has its place.
struct ItemSeed<'a>(Option<&'a Input>);

impl<'de> DeserializeSeed<'de> for ItemSeed<'_> {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        let item = deserializer.deserialize_any(ItemVisitor)?;
        match (self.0, &item) {
            (None, _)
            | (Some(Input::Texts(_)), Item::Text(_))
            | (Some(Input::Ids(_)), Item::Id(_))
            | (Some(Input::IdLists(_)), Item::Ids(_)) => Ok(item),
            _ => Err(de::Error::custom(format!("expected {INPUT_FORMS}"))),
        }
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
