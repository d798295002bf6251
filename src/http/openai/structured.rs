//! Structured output: `response_format` and `structured_outputs`, from their JSON to a compiled grammar.
//! The same on every endpoint.

use std::sync::Arc;

use serde_json::Value;

use super::error::ApiError;
use super::json::{Fields, Json, wrong_type};
use super::large;
use crate::text::grammar::{Grammar, GrammarError, Grammars, Source};

const FORMAT: &str = "response_format";
const OUTPUTS: &str = "structured_outputs";

/// Longest name of a schema, as at OpenAI.
const NAME_CHARS_MAX: usize = 64;

/// What an answer must be, and which parameter says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub source: Source,
    pub param: &'static str,
}

/// What the request wants; `None`: any text.
pub fn read(fields: &Fields) -> Result<Option<Wanted>, ApiError> {
    let format = response_format(fields)?.map(|source| Wanted { source, param: FORMAT });
    let outputs = structured_outputs(fields)?.map(|source| Wanted { source, param: OUTPUTS });
    match (format, outputs) {
        (Some(_), Some(_)) => {
            Err(invalid(OUTPUTS, "It cannot be used together with 'response_format'"))
        }
        (format, outputs) => Ok(format.or(outputs)),
    }
}

/// Compiles what is wanted, off the async threads and one at a time. What was compiled lately is there
/// at once.
pub async fn compile(
    grammars: &Grammars,
    wanted: Option<Wanted>,
) -> Result<Option<Arc<Grammar>>, ApiError> {
    let Some(Wanted { source, param }) = wanted else { return Ok(None) };
    if let Some(grammar) = grammars.find(&source) {
        return Ok(Some(grammar));
    }
    let grammars = grammars.clone();
    let compiled = large::compile(move || grammars.compile(&source)).await?;
    compiled.map(Some).map_err(|error| match &error {
        GrammarError::Refused(reason) => invalid(param, reason),
        GrammarError::RefusedOf { of, .. } => ApiError::invalid(error.to_string(), of.clone()),
        GrammarError::Internal => ApiError::Internal,
    })
}

fn invalid(param: &'static str, reason: &str) -> ApiError {
    ApiError::invalid(format!("{reason} - '{param}'"), param)
}

fn response_format(fields: &Fields) -> Result<Option<Source>, ApiError> {
    let Some(value) = fields.get(FORMAT) else { return Ok(None) };
    let format = object(value, FORMAT)?;
    match get(format, "type") {
        Some(Json::Text(kind)) => match kind.as_str() {
            "text" => Ok(None),
            "json_object" if get(format, "schema").is_some() => {
                Err(invalid(FORMAT, "A schema belongs to type 'json_schema', under 'json_schema'"))
            }
            "json_object" => Ok(Some(Source::JsonObject)),
            "json_schema" => json_schema(get(format, "json_schema")).map(Some),
            _ => {
                let kind = Json::Text(kind.clone());
                let known = "'text', 'json_object' and 'json_schema'";
                Err(invalid(FORMAT, &format!("{kind} is not one of the types {known}")))
            }
        },
        Some(other) => Err(wrong_type(other, "string", FORMAT)),
        None => Err(invalid(FORMAT, "The 'type' is missing")),
    }
}

/// `{name, schema, strict, description}`. Every schema is kept to strictly, whatever `strict` says.
fn json_schema(value: Option<&Json>) -> Result<Source, ApiError> {
    let Some(value) = value else { return Err(invalid(FORMAT, "The 'json_schema' is missing")) };
    let entries = object(value, FORMAT)?;
    match get(entries, "name") {
        Some(Json::Text(name)) if is_name(name) => {}
        Some(Json::Text(_)) => {
            let rule = format!("1 to {NAME_CHARS_MAX} letters, digits, underscores and dashes");
            return Err(invalid(FORMAT, &format!("The schema's 'name' must be {rule}")));
        }
        Some(other) => return Err(wrong_type(other, "string", FORMAT)),
        None => return Err(invalid(FORMAT, "The schema's 'name' is missing")),
    }
    if let Some(strict) = get(entries, "strict")
        && !matches!(strict, Json::Bool(_))
    {
        return Err(wrong_type(strict, "boolean", FORMAT));
    }
    if let Some(text) = get(entries, "description")
        && !matches!(text, Json::Text(_))
    {
        return Err(wrong_type(text, "string", FORMAT));
    }
    match get(entries, "schema") {
        Some(schema @ Json::Object(_)) => Ok(Source::JsonSchema(schema.to_value())),
        Some(other) => Err(wrong_type(other, "object", FORMAT)),
        None => Err(invalid(FORMAT, "The 'schema' is missing")),
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// One of `json`, `regex`, `choice` and `grammar`, as vLLM has them.
fn structured_outputs(fields: &Fields) -> Result<Option<Source>, ApiError> {
    let Some(value) = fields.get(OUTPUTS) else { return Ok(None) };
    let mut found = None;
    for (kind, value) in object(value, OUTPUTS)? {
        // Python clients send all of them, those not meant as null or false.
        if matches!(value, Json::Null | Json::Bool(false)) {
            continue;
        }
        let source = match (kind.as_str(), value) {
            ("json", Json::Text(text)) => Source::JsonSchema(parsed(text)?),
            ("json", schema @ (Json::Object(_) | Json::Bool(_))) => {
                Source::JsonSchema(schema.to_value())
            }
            ("json", other) => return Err(wrong_type(other, "object' or 'string", OUTPUTS)),
            ("json_object", Json::Bool(_)) => Source::JsonObject,
            ("json_object", other) => return Err(wrong_type(other, "boolean", OUTPUTS)),
            ("regex", Json::Text(regex)) => Source::Regex(regex.clone()),
            ("grammar", Json::Text(grammar)) => Source::Lark(grammar.clone()),
            ("regex" | "grammar", other) => return Err(wrong_type(other, "string", OUTPUTS)),
            ("choice", Json::List(items)) => Source::Choice(choices(items)?),
            ("choice", other) => return Err(wrong_type(other, "array", OUTPUTS)),
            (other, _) => {
                let kind = Json::Text(other.to_owned());
                let known = "'json', 'json_object', 'regex', 'choice' and 'grammar'";
                return Err(invalid(OUTPUTS, &format!("{kind} is not one of {known}")));
            }
        };
        if found.replace(source).is_some() {
            return Err(invalid(OUTPUTS, "More than one kind of output"));
        }
    }
    match found {
        Some(source) => Ok(Some(source)),
        None => Err(invalid(OUTPUTS, "It asks for nothing")),
    }
}

fn choices(items: &[Json]) -> Result<Vec<String>, ApiError> {
    let texts = items.iter().map(|item| match item {
        Json::Text(text) => Ok(text.clone()),
        other => Err(wrong_type(other, "string", OUTPUTS)),
    });
    texts.collect()
}

/// A schema that came as text.
fn parsed(text: &str) -> Result<Value, ApiError> {
    serde_json::from_str(text)
        .map_err(|error| invalid(OUTPUTS, &format!("The schema in 'json' is no JSON: {error}")))
}

fn object<'a>(value: &'a Json, name: &'static str) -> Result<&'a [(String, Json)], ApiError> {
    match value {
        Json::Object(entries) => Ok(entries),
        other => Err(wrong_type(other, "object", name)),
    }
}

/// An entry that is there and not `null`.
fn get<'a>(entries: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    let entry = entries.iter().find(|(key, _)| key == name);
    entry.map(|(_, value)| value).filter(|value| **value != Json::Null)
}
