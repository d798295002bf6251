//! The keywords of JSON Schema, and what is done about each.

use serde_json::{Value, json};

use super::numbers;
use crate::text::grammar::pattern;

/// A keyword that is followed, or may be ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keyword {
    pub(super) place: Place,
    rule: Rule,
    /// Drafts before this one do not know it.
    since: u16,
}

/// What stands under a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Nothing,
    Schema,
    SchemaOrList,
    List,
    /// Schemas by name.
    Map,
    Reference,
}

/// What a keyword's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Says nothing about validity, or is checked where its schemas are read.
    Free,
    Types,
    Constants,
    Count,
    /// Or, as draft 4 has it, whether the other bound is exclusive.
    NumberOrFlag,
    Number,
    Positive,
    Pattern,
    Patterns,
    Names,
    Text,
    /// Only of the whole schema.
    Root,
}

pub(super) const NEWEST: u16 = 2020;

/// The draft that `$schema` names.
pub(super) fn draft(uri: &str) -> Option<u16> {
    Some(match uri.trim_end_matches('#') {
        "https://json-schema.org/draft/2020-12/schema" => 2020,
        "https://json-schema.org/draft/2019-09/schema" => 2019,
        "http://json-schema.org/draft-07/schema" => 7,
        "http://json-schema.org/draft-06/schema" => 6,
        "http://json-schema.org/draft-04/schema" => 4,
        _ => return None,
    })
}

pub(super) fn find(key: &str) -> Option<Keyword> {
    const fn all(place: Place, rule: Rule, since: u16) -> Keyword {
        Keyword { place, rule, since }
    }
    Some(match key {
        "type" => all(Place::Nothing, Rule::Types, 0),
        "enum" | "const" => all(Place::Nothing, Rule::Constants, 0),
        "minimum" | "maximum" => all(Place::Nothing, Rule::Number, 0),
        "exclusiveMinimum" | "exclusiveMaximum" => {
            all(Place::Nothing, Rule::NumberOrFlag, 0)
        }
        "multipleOf" => all(Place::Nothing, Rule::Positive, 0),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
            all(Place::Nothing, Rule::Count, 0)
        }
        "pattern" => all(Place::Nothing, Rule::Pattern, 0),
        "format" => all(Place::Nothing, Rule::Text, 0),
        "required" => all(Place::Nothing, Rule::Names, 0),
        "properties" | "definitions" | "$defs" => all(Place::Map, Rule::Free, 0),
        "patternProperties" => all(Place::Map, Rule::Patterns, 0),
        "additionalProperties" | "additionalItems" => all(Place::Schema, Rule::Free, 0),
        "items" => all(Place::SchemaOrList, Rule::Free, 0),
        "prefixItems" => all(Place::List, Rule::Free, 2020),
        "anyOf" | "oneOf" | "allOf" => all(Place::List, Rule::Free, 0),
        "$ref" => all(Place::Reference, Rule::Free, 0),
        "$schema" | "$id" | "id" => all(Place::Nothing, Rule::Root, 0),
        "title" | "description" | "default" | "example" | "examples" | "deprecated"
        | "readOnly" | "writeOnly" | "contentMediaType" | "contentEncoding" | "contentSchema"
        // Says by which property the schemas of a `oneOf` are told apart.
        | "discriminator" | "$comment" | "$anchor" => {
            all(Place::Nothing, Rule::Free, 0)
        }
        _ if key.starts_with("x-") && key != "x-guidance" => {
            all(Place::Nothing, Rule::Free, 0)
        }
        _ => return None,
    })
}

/// A value with which a keyword changes nothing.
pub(super) fn says_nothing(key: &str, value: &Value) -> bool {
    match key {
        "uniqueItems" | "nullable" => *value == Value::Bool(false),
        "unevaluatedProperties" | "unevaluatedItems" => *value == Value::Bool(true),
        // Any string is of these.
        "format" => ["binary", "password", "path"].iter().any(|free| value == free),
        // Names are strings; zod says so of each record.
        "propertyNames" => *value == Value::Bool(true) || *value == json!({"type": "string"}),
        _ => false,
    }
}

pub(super) fn unknown(key: &str) -> String {
    let hint = match key {
        "nullable" => ": use a list of types, such as [\"string\", \"null\"]",
        "unevaluatedProperties" => ": use 'additionalProperties'",
        "dependencies" | "dependentRequired" | "dependentSchemas" | "if" => ": use 'anyOf'",
        _ => "",
    };
    format!("the keyword {} is not supported{hint}", quoted(key))
}

/// Client input in a message: short, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect();
    if text.chars().count() > CHARS_MAX {
        short.push('…');
    }
    format!("'{short}'")
}

impl Keyword {
    /// The value is one that the keyword may have.
    pub(super) fn check(
        self,
        key: &str,
        value: &Value,
        draft: u16,
        is_root: bool,
    ) -> Result<(), String> {
        if draft < self.since {
            return Err(format!("'{key}' is no keyword of the draft that '$schema' names"));
        }
        let wrong = |expected: &str| Err(format!("'{key}' is not {expected}"));
        match (self.rule, value) {
            (Rule::Free, _)
            | (Rule::Types | Rule::Text, Value::String(_))
            | (Rule::NumberOrFlag, Value::Bool(_))
            // Their names were read before.
            | (Rule::Patterns, Value::Object(_)) => Ok(()),
            // Read once more where it is put into the compiler's dialect.
            (Rule::Pattern, Value::String(regex)) => pattern::check(regex),
            (Rule::Types, Value::Array(types)) if types.iter().all(Value::is_string) => Ok(()),
            (Rule::Types, _) => wrong("a type or a list of types"),
            (Rule::Constants, Value::Array(_)) => numbers::check(value),
            (Rule::Constants, _) if key == "enum" => wrong("a list"),
            (Rule::Constants, _) => numbers::check(value),
            (Rule::Count, value) if value.as_u64().is_some() => Ok(()),
            (Rule::Count, _) => wrong("a whole number of at least 0"),
            (Rule::Number | Rule::NumberOrFlag | Rule::Positive, Value::Number(number)) => {
                let positive = number.as_f64().is_some_and(|x| x > 0.0);
                if self.rule == Rule::Positive && !positive {
                    return wrong("above 0");
                }
                numbers::check(value)
            }
            (Rule::Number | Rule::NumberOrFlag | Rule::Positive, _) => wrong("a number"),
            (Rule::Pattern | Rule::Text, _) => wrong("a string"),
            (Rule::Patterns, _) => wrong("an object"),
            (Rule::Names, Value::Array(names)) if names.iter().all(Value::is_string) => Ok(()),
            (Rule::Names, _) => wrong("a list of strings"),
            (Rule::Root, Value::String(_)) if is_root => Ok(()),
            (Rule::Root, _) => Err(format!("'{key}' is only supported at the top, as a string")),
        }
    }
}
