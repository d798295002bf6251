//! Structured output: `response_format` and `structured_outputs`, from their JSON to a compiled grammar.
//! The same on every endpoint.

use std::sync::Arc;

use super::error::ApiError;
use super::json::{At, Fields, Json};
use super::large;
use crate::text::grammar::{Grammar, GrammarError, Grammars, Source};

const FORMAT: &str = "response_format";
const OUTPUTS: &str = "structured_outputs";

/// Longest name of a schema, as at OpenAI.
const NAME_CHARS_MAX: usize = 64;

/// As the description of the API shows them; schemas and grammars have rules of their own.
pub const RESPONSE_FORMAT: &str = r#"{"anyOf": [
    {"type": "object", "required": ["type"],
        "properties": {"type": {"type": "string", "enum": ["text", "json_object"]}}},
    {"type": "object", "required": ["type", "json_schema"], "properties": {
        "type": {"type": "string", "enum": ["json_schema"]},
        "json_schema": {"type": "object", "required": ["name", "schema"], "properties": {
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
            "description": {"type": ["string", "null"]},
            "strict": {"type": ["boolean", "null"], "description": "Every schema is kept to strictly."},
            "schema": {"type": "object", "description": "A JSON schema."}
        }}
    }}
]}"#;
pub const STRUCTURED_OUTPUTS: &str = r#"{"anyOf": [
    {"type": "object", "required": ["json"], "additionalProperties": false, "properties": {
        "json": {"type": ["object", "string"], "description": "A JSON schema, or the text of one."}}},
    {"type": "object", "required": ["regex"], "additionalProperties": false, "properties": {
        "regex": {"type": "string", "format": "regex"}}},
    {"type": "object", "required": ["choice"], "additionalProperties": false, "properties": {
        "choice": {"type": "array", "minItems": 1, "maxItems": 1024, "items": {"type": "string"}}}},
    {"type": "object", "required": ["grammar"], "additionalProperties": false, "properties": {
        "grammar": {"type": "string", "minLength": 1, "description": "Lark."}}}
]}"#;

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
    let format = At::field(FORMAT, value);
    let kind = format.required("type")?;
    match kind.text()? {
        "text" => Ok(None),
        "json_object" => match format.member("schema")? {
            None => Ok(Some(Source::JsonObject)),
            Some(schema) => {
                Err(schema.fault("A schema belongs to type 'json_schema', under 'json_schema'"))
            }
        },
        "json_schema" => json_schema(&format.required("json_schema")?).map(Some),
        _ => {
            let known = "'text', 'json_object' and 'json_schema'";
            Err(kind.fault(format!("{} is not one of the types {known}", kind.value)))
        }
    }
}

/// `{name, schema, strict, description}`. Every schema is kept to strictly, whatever `strict` says.
fn json_schema(at: &At<'_>) -> Result<Source, ApiError> {
    let name = at.required("name")?;
    if !is_name(name.text()?) {
        let rule = format!("1 to {NAME_CHARS_MAX} letters, digits, underscores and dashes");
        return Err(name.fault(format!("The schema's 'name' must be {rule}")));
    }
    if let Some(strict) = at.member("strict")?
        && !matches!(strict.value, Json::Bool(_))
    {
        return Err(strict.wrong_type("boolean"));
    }
    at.text_member("description")?;
    let schema = at.required("schema")?;
    schema.object()?;
    Ok(Source::JsonSchema(schema.value.to_value()))
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// One of `json`, `regex`, `choice` and `grammar`, as vLLM has them.
fn structured_outputs(fields: &Fields) -> Result<Option<Source>, ApiError> {
    const KINDS: [&str; 5] = ["json", "json_object", "regex", "choice", "grammar"];
    let Some(value) = fields.get(OUTPUTS) else { return Ok(None) };
    let outputs = At::field(OUTPUTS, value);
    // Python clients send all of them, those not meant as null or false.
    let is_meant = |value: &Json| !matches!(value, Json::Null | Json::Bool(false));
    let unknown = |(kind, value): &&(String, Json)| is_meant(value) && !KINDS.contains(&&**kind);
    if let Some((kind, _)) = outputs.object()?.iter().find(unknown) {
        let kind = Json::Text(kind.clone());
        return Err(outputs.fault(format!("{kind} is not one of '{}'", KINDS.join("', '"))));
    }
    let mut found = None;
    for kind in KINDS {
        let Some(at) = outputs.member(kind)?.filter(|at| is_meant(at.value)) else { continue };
        if found.replace(source(kind, &at)?).is_some() {
            return Err(outputs.fault("More than one kind of output"));
        }
    }
    found.map(Some).ok_or_else(|| outputs.fault("It asks for nothing"))
}

/// What one of them asks for.
fn source(kind: &str, at: &At<'_>) -> Result<Source, ApiError> {
    match (kind, at.value) {
        ("json", Json::Text(text)) => {
            let no_json = |error| at.fault(format!("The schema is no JSON: {error}"));
            serde_json::from_str(text).map(Source::JsonSchema).map_err(no_json)
        }
        ("json", Json::Object(_) | Json::Bool(_)) => Ok(Source::JsonSchema(at.value.to_value())),
        ("json", _) => Err(at.wrong_type("object' or 'string")),
        ("json_object", Json::Bool(_)) => Ok(Source::JsonObject),
        ("json_object", _) => Err(at.wrong_type("boolean")),
        ("regex", _) => Ok(Source::Regex(at.text()?.to_owned())),
        ("grammar", _) => Ok(Source::Lark(at.text()?.to_owned())),
        _ => {
            let texts = at.items()?.map(|item| item.text().map(str::to_owned));
            texts.collect::<Result<_, _>>().map(Source::Choice)
        }
    }
}
