//! Request bodies: one JSON object, its known fields picked out and typed.
//!
//! serde's derive would do for the happy path, but not for what an API owes to those who get it wrong:
//! a duplicate key is an error, `null` always means absent, an error names path and line, a wrong type
//! is told in OpenAI's words, and nothing grows beyond a bound while it is being read.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::{ApiError, echo};
use crate::engine::message::TokenId;

/// Most JSON values that the small fields of one request may hold together. `logit_bias` with its
/// 1,024 entries is the largest legal one.
const NODES_MAX: usize = 16_384;

/// Most prompts in one request: the fan-out bound with n = 1.
pub const PROMPTS_MAX: usize = 1_024;

/// Most keys of the request object, known or not: all are kept, to find the one that comes twice.
const KEYS_MAX: usize = 1_024;

/// Unknown field names that are kept for the log.
const UNKNOWN_MAX: usize = 16;

/// A field's value. Objects keep their order and have no key twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What may be long, and is therefore read straight into its own type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<TokenId>),
    IdLists(Vec<Vec<TokenId>>),
}

/// Which fields a route knows. All others are skipped unread.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub fields: &'static [&'static str],
    /// Fields of type [`Input`].
    pub inputs: &'static [&'static str],
}

/// The fields of one request that were there and not `null`.
#[derive(Debug, Default)]
pub struct Fields {
    values: BTreeMap<&'static str, Json>,
    inputs: BTreeMap<&'static str, Input>,
    /// Names of ignored fields, the first few.
    pub unknown: Vec<String>,
}

/// Reads a body that must be one JSON object.
pub fn parse(body: &[u8], known: Known) -> Result<Fields, ApiError> {
    let text = std::str::from_utf8(body).map_err(|e| not_utf8(body, e.valid_up_to()))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let fields = ObjectSeed(known).deserialize(tracked).map_err(|e| fault(&e, &track.path()))?;
    json.end().map_err(|e| ApiError::InvalidJson(e.to_string()))?;
    Ok(fields)
}

fn not_utf8(body: &[u8], at: usize) -> ApiError {
    let line = body[..at].split(|&b| b == b'\n').count();
    ApiError::InvalidJson(format!("it is not valid UTF-8 at line {line}, byte {at}"))
}

fn fault(error: &serde_json::Error, path: &serde_path_to_error::Path) -> ApiError {
    let place = path.to_string();
    // `.` is the object itself, `?` a place in it that has no name yet.
    let place =
        if place == "." || place == "?" { String::new() } else { format!(" - '{}'", echo(&place)) };
    // A message may quote the value: bounded like all that is repeated, but the line stays readable.
    let message = format!("{}{place}", clip(&error.to_string()));
    // To serde_json a number beyond f64 is a fault of syntax, but JSON knows no such bound: it is the
    // field's value that is wrong.
    let is_beyond_f64 = message.starts_with("number out of range");
    if (error.is_syntax() && !is_beyond_f64) || error.is_eof() {
        return ApiError::InvalidJson(message);
    }
    match path.iter().next() {
        Some(serde_path_to_error::Segment::Map { key }) => ApiError::invalid(message, echo(key)),
        _ => ApiError::bad_request(message),
    }
}

/// Keeps both ends of a long message: its beginning says what, its end where.
fn clip(message: &str) -> String {
    let count = message.chars().count();
    if count <= 240 {
        return message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    }
    let head = echo(message);
    let tail: String = message.chars().skip(count - 100).filter(|c| !c.is_control()).collect();
    format!("{head}{tail}")
}

impl Fields {
    /// The field as it came; `null` counts as absent.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.values.get(name)
    }

    /// Takes a field of type [`Input`].
    pub fn take_input(&mut self, name: &str) -> Option<Input> {
        self.inputs.remove(name)
    }

    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(wrong_type(other, "boolean", name)),
        }
    }

    pub fn text(&self, name: &'static str) -> Result<Option<&str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Text(s)) => Ok(Some(s)),
            Some(other) => Err(wrong_type(other, "string", name)),
        }
    }

    pub fn integer(
        &self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Json::Number(number) = value else {
            return Err(wrong_type(value, "integer", name));
        };
        // Above i64, yet an integer: above every maximum.
        let integer = match (number.as_i64(), number.as_u64()) {
            (Some(i), _) => i,
            (None, Some(_)) => return Err(too_large(number, range.end(), name)),
            (None, None) => return Err(wrong_type(value, "integer", name)),
        };
        if integer > *range.end() {
            return Err(too_large(number, range.end(), name));
        }
        if integer < *range.start() {
            return Err(too_small(number, range.start(), name));
        }
        Ok(Some(integer))
    }

    pub fn number(
        &self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        self.get(name).map(|value| number(value, &range, name)).transpose()
    }
}

/// A finite number within `range`, as f32.
pub fn number(
    value: &Json,
    range: &RangeInclusive<f64>,
    name: &'static str,
) -> Result<f32, ApiError> {
    let Json::Number(number) = value else {
        return Err(wrong_type(value, "number", name));
    };
    match number.as_f64() {
        Some(x) if x > *range.end() => Err(too_large(number, range.end(), name)),
        Some(x) if x < *range.start() => Err(too_small(number, range.start(), name)),
        Some(x) if x.is_finite() => Ok(x as f32),
        _ => Err(wrong_type(value, "number", name)),
    }
}

/// OpenAI's words for a wrong type: `'x' is not of type 'integer' - 'max_tokens'`.
pub fn wrong_type(value: &Json, expected: &str, name: &'static str) -> ApiError {
    ApiError::invalid(format!("{value} is not of type '{expected}' - '{name}'"), name)
}

fn too_large(value: &serde_json::Number, max: impl fmt::Display, name: &'static str) -> ApiError {
    let message = format!("{value} is greater than the maximum of {max} - '{name}'");
    ApiError::invalid(message, name)
}

fn too_small(value: &serde_json::Number, min: impl fmt::Display, name: &'static str) -> ApiError {
    let message = format!("{value} is less than the minimum of {min} - '{name}'");
    ApiError::invalid(message, name)
}

/// As error messages quote a value: short.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(s) => write!(f, "'{}'", echo(s)),
            Self::List(items) if items.is_empty() => f.write_str("[]"),
            Self::List(_) => f.write_str("[...]"),
            Self::Object(entries) if entries.is_empty() => f.write_str("{}"),
            Self::Object(_) => f.write_str("{...}"),
        }
    }
}

/// The whole request object.
struct ObjectSeed(Known);

impl<'de> DeserializeSeed<'de> for ObjectSeed {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut seen = HashSet::new();
        let nodes = Cell::new(0);
        let find = |list: &'static [&'static str], key: &str| list.iter().find(|k| **k == key);
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                map.next_value_seed(Duplicate)?;
            } else if seen.len() == KEYS_MAX {
                return Err(de::Error::custom(format!("more than {KEYS_MAX} fields")));
            } else if let Some(name) = find(self.0.inputs, &key) {
                if let Some(input) = map.next_value_seed(InputSeed)? {
                    fields.inputs.insert(name, input);
                }
            } else if let Some(name) = find(self.0.fields, &key) {
                match map.next_value_seed(JsonSeed(&nodes))? {
                    Json::Null => {}
                    value => {
                        fields.values.insert(name, value);
                    }
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                if fields.unknown.len() < UNKNOWN_MAX {
                    fields.unknown.push(key.clone());
                }
            }
            seen.insert(key);
        }
        Ok(fields)
    }
}

/// Stands for the value of a key that was there before: fails with the key on the path.
struct Duplicate;

impl<'de> DeserializeSeed<'de> for Duplicate {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Err(de::Error::custom("duplicate key"))
    }
}

/// Any value, with a count of all values of the request.
#[derive(Clone, Copy)]
struct JsonSeed<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for JsonSeed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > NODES_MAX {
            return Err(de::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonSeed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                map.next_value_seed(Duplicate)?;
            }
            entries.push((key, map.next_value_seed(self)?));
        }
        Ok(Json::Object(entries))
    }
}

/// An [`Input`], or `None` for null.
struct InputSeed;

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

#[cfg(test)]
mod tests;
