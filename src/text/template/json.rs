//! JSON that keeps the order of an object's members, as Python's dictionaries do: templates write
//! function definitions into the prompt as the client has sent them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, Value};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    String(String),
    Array(Vec<Json>),
    /// In the order they came; of members with the same name the last one counts.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// About how long this value is, written out.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 4,
            Self::Unsigned(_) | Self::Signed(_) | Self::Float(_) => 8,
            Self::String(text) => text.len() + 2,
            Self::Array(items) => items.iter().map(Self::bytes).sum::<usize>() + 2,
            Self::Object(members) => {
                members.iter().map(|(name, value)| name.len() + value.bytes() + 4).sum::<usize>()
                    + 2
            }
        }
    }

    /// A member of an object, the last one of that name.
    pub(super) fn member_mut(&mut self, name: &str) -> Option<&mut Json> {
        let Self::Object(members) = self else { return None };
        members.iter_mut().rev().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The elements of an array; none of anything else.
    pub(super) fn items_mut(&mut self) -> &mut [Json] {
        match self {
            Self::Array(items) => items,
            _ => &mut [],
        }
    }

    /// As templates see it.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::from(()),
            Self::Bool(b) => Value::from(*b),
            Self::Unsigned(n) => Value::from(*n),
            Self::Signed(n) => Value::from(*n),
            Self::Float(x) => Value::from(*x),
            Self::String(text) => Value::from(text),
            Self::Array(items) => Value::from(items.iter().map(Self::to_value).collect::<Vec<_>>()),
            Self::Object(members) => Value::from_object(Dictionary::new(members)),
        }
    }
}

/// An object as templates see it.
#[derive(Debug)]
struct Dictionary {
    members: Vec<(Value, Value)>,
    places: HashMap<String, usize>,
}

impl Dictionary {
    fn new(members: &[(String, Json)]) -> Self {
        let mut this = Self { members: Vec::new(), places: HashMap::with_capacity(members.len()) };
        for (name, value) in members {
            let next = this.members.len();
            let place = *this.places.entry(name.clone()).or_insert(next);
            if place == next {
                this.members.push((Value::from(name), value.to_value()));
            } else {
                this.members[place].1 = value.to_value();
            }
        }
        this
    }
}

impl Object for Dictionary {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.places.get(key).map(|&place| self.members[place].1.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_key_value_enumerator(|this| Box::new(this.members.iter().cloned()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.members.len())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Json, E> {
        Ok(Json::Bool(b))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Json, E> {
        Ok(Json::Unsigned(n))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Json, E> {
        Ok(Json::Signed(n))
    }

    fn visit_f64<E: Error>(self, x: f64) -> Result<Json, E> {
        Ok(Json::Float(x))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Json::Object(object))
    }
}
