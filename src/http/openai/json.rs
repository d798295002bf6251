//! Request bodies: one JSON object, its known fields picked out and typed.
//!
//! serde's derive would do for the happy path, but not for what an API owes to those who get it wrong:
//! a duplicate key is an error, `null` always means absent, an error names path and line, a wrong type
//! is told in OpenAI's words, and nothing grows beyond a bound while it is being read.

mod at;
mod field;
mod input;
#[cfg(test)]
pub mod testing;
mod write;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

pub use self::at::At;
pub use self::field::{Field, Form, Kind, Known, Limit, token_key};
use self::input::InputSeed;
pub use self::input::check_ids;
use super::error::{ApiError, echo};
use crate::config::RequestLimits;
use crate::engine::message::TokenId;

/// Most JSON values that the fields of one request may hold together: a chat of more than 10,000
/// messages. Each takes up to a hundred bytes.
const NODES_MAX: usize = 65_536;

/// Most prompts in one request: the widest fan-out that can be configured, with n = 1.
pub const PROMPTS_MAX: usize = RequestLimits::FAN_OUT_MAX;

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

/// The fields of one request that were there and not `null`.
#[derive(Debug)]
pub struct Fields {
    known: Known,
    values: BTreeMap<&'static str, Json>,
    inputs: BTreeMap<&'static str, Input>,
    /// Names of ignored fields, the first few.
    pub unknown: Vec<String>,
}

/// Reads a body that must be one JSON object, and checks its fields against their declarations.
pub fn parse(body: &[u8], known: Known) -> Result<Fields, ApiError> {
    let text = std::str::from_utf8(body).map_err(|e| not_utf8(body, e.valid_up_to()))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let fields = ObjectSeed(known).deserialize(tracked).map_err(|e| fault(&e, &track.path()))?;
    json.end().map_err(|e| ApiError::InvalidJson(e.to_string()))?;
    for field in known.fields() {
        match (fields.values.get(field.name), fields.inputs.get(field.name)) {
            (Some(value), _) => field.check(value)?,
            (None, Some(input)) => field.check_input(input)?,
            (None, None) if field.required => return Err(missing(field.name)),
            (None, None) => {}
        }
    }
    Ok(fields)
}

/// OpenAI's words.
pub fn missing(name: &'static str) -> ApiError {
    ApiError::invalid(format!("you must provide a {name} parameter"), name)
}

fn not_utf8(body: &[u8], at: usize) -> ApiError {
    let line = body[..at].split(|&b| b == b'\n').count();
    ApiError::InvalidJson(format!("it is not valid UTF-8 at line {line}, byte {at}"))
}

fn fault(error: &serde_json::Error, path: &serde_path_to_error::Path) -> ApiError {
    let place = echo(&path.to_string());
    // `.` is the object itself, `?` a place in it that has no name yet.
    let named = !matches!(place.as_str(), "." | "?");
    let end = if named { format!(" - '{place}'") } else { String::new() };
    // A message may quote the value: bounded like all that is repeated, but the line stays readable.
    let message = format!("{}{end}", clip(&error.to_string()));
    // To serde_json a number beyond f64 is a fault of syntax, but JSON knows no such bound: it is the
    // field's value that is wrong.
    let is_beyond_f64 = message.starts_with("number out of range");
    if (error.is_syntax() && !is_beyond_f64) || error.is_eof() {
        return ApiError::InvalidJson(message);
    }
    match path.iter().next() {
        Some(serde_path_to_error::Segment::Map { .. }) => ApiError::invalid(message, place),
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
        debug_assert!(self.known.find(name).is_some(), "'{name}' is read, but not declared");
        self.values.get(name)
    }

    /// Takes a field of type [`Input`].
    pub fn take_input(&mut self, name: &str) -> Option<Input> {
        debug_assert!(self.known.find(name).is_some(), "'{name}' is read, but not declared");
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

    /// Within its declared bounds, which [`parse`] has seen to.
    pub fn integer(&self, name: &'static str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let integer = match value {
            Json::Number(number) => whole(number).and_then(|whole| i64::try_from(whole).ok()),
            _ => None,
        };
        integer.map(Some).ok_or_else(|| wrong_type(value, "integer", name))
    }

    /// A number of things that only memory bounds.
    pub fn count(&self, name: &'static str) -> Result<Option<usize>, ApiError> {
        match self.get(name) {
            // Above i64: the sentence about the context names it as it came.
            Some(Json::Number(n)) if n.is_u64() => {
                Ok(n.as_u64().map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
            }
            _ => Ok(self.integer(name)?.map(|count| usize::try_from(count).unwrap_or(usize::MAX))),
        }
    }

    /// An integer whose maximum is one of the operator's `limits`.
    pub fn limited(
        &self,
        name: &'static str,
        limits: RequestLimits,
    ) -> Result<Option<u32>, ApiError> {
        let Some(integer) = self.integer(name)? else { return Ok(None) };
        match self.known.find(name).map(|field| field.kind) {
            Some(Kind::Limited { limit, .. }) if integer > limit.of(limits) => {
                let most = limit.of(limits);
                let message = format!("{integer} is greater than the maximum of {most} - '{name}'");
                Err(ApiError::invalid(message, name))
            }
            _ => Ok(Some(integer as u32)),
        }
    }

    /// Within its declared bounds, as [`Self::integer`].
    pub fn number(&self, name: &'static str) -> Result<Option<f32>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Number(number)) => Ok(number.as_f64().map(|x| x as f32)),
            Some(other) => Err(wrong_type(other, "number", name)),
        }
    }
}

/// The integer that a number is, however it is written: `4`, `4.0`, `4e0`.
pub fn whole(number: &serde_json::Number) -> Option<i128> {
    let written = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    // Rounding must not bring what is outside of 64 bits onto a bound.
    let outwards = |x: f64| if x.abs() < 2f64.powi(63) { 0 } else { x.signum() as i128 };
    let rounded = || number.as_f64().filter(|x| x.fract() == 0.0);
    written.or_else(|| rounded().map(|x| (x as i128).saturating_add(outwards(x))))
}

/// OpenAI's words for a wrong type: `'x' is not of type 'integer' - 'max_tokens'`.
pub fn wrong_type(value: &Json, expected: &str, name: &'static str) -> ApiError {
    ApiError::invalid(format!("{value} is not of type '{expected}' - '{name}'"), name)
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
        let (values, inputs) = (BTreeMap::new(), BTreeMap::new());
        let mut fields = Fields { known: self.0, values, inputs, unknown: Vec::new() };
        let mut seen = HashSet::new();
        let nodes = Cell::new(0);
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                map.next_value_seed(Duplicate)?;
            } else if seen.len() == KEYS_MAX {
                return Err(de::Error::custom(format!("more than {KEYS_MAX} fields")));
            } else if let Some(&Field { name, kind, .. }) = self.0.find(&key) {
                if let Kind::Input(_) = kind {
                    let input = map.next_value_seed(InputSeed)?;
                    fields.inputs.extend(input.map(|input| (name, input)));
                } else {
                    let value = map.next_value_seed(JsonSeed(&nodes))?;
                    let value = Some(value).filter(|value| *value != Json::Null);
                    fields.values.extend(value.map(|value| (name, value)));
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

#[cfg(test)]
mod tests;
