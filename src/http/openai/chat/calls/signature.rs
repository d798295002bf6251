//! The functions whose calls count, and the JSON of a call.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::grammar;
use crate::http::openai::chat::tools::Function;
use crate::http::openai::error::ApiError;
use crate::http::openai::json::Json;
use crate::text::grammar::check_schema;

/// Steps that a pattern of a schema may take before it does not match.
const BACKTRACK_MAX: usize = 100_000;

/// The functions whose calls count.
#[derive(Debug, Default)]
pub struct Signatures {
    functions: Vec<Signature>,
}

#[derive(Debug)]
struct Signature {
    name: String,
    /// Absent: any arguments.
    arguments: Option<jsonschema::Validator>,
    /// They have to fit in a tag, too.
    strict: bool,
}

/// A call of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// A JSON object, as the model wrote it.
    pub arguments: String,
}

/// Whether JSON begins as a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// Too early to say.
    Open,
}

/// A call as models write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl Signatures {
    /// Compiles the schemas: milliseconds of work where they are large. A strict one that a grammar could
    /// not keep to is refused, so that it means the same whether or not the model has to call.
    pub fn compile<'f>(
        functions: impl IntoIterator<Item = &'f Function>,
    ) -> Result<Self, ApiError> {
        let functions = functions.into_iter().map(Signature::compile).collect::<Result<_, _>>()?;
        Ok(Self { functions })
    }

    /// The calls that `values` are, if each of them is one, or a list of some. `is_tagged`: what
    /// surrounds them says that they are meant as calls, whether or not their arguments fit, unless the
    /// function is strict.
    pub(super) fn calls<'v>(
        &self,
        values: impl Iterator<Item = &'v str>,
        is_tagged: bool,
    ) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        for value in values {
            let written: Vec<Written<'_>> = if value.starts_with('[') {
                serde_json::from_str(value).ok()?
            } else {
                vec![serde_json::from_str(value).ok()?]
            };
            for written in &written {
                calls.push(self.call(written, is_tagged)?);
            }
        }
        (!calls.is_empty()).then_some(calls)
    }

    fn call(&self, written: &Written<'_>, is_tagged: bool) -> Option<Call> {
        let function = self.functions.iter().find(|f| f.name == written.name)?;
        let arguments = match written.arguments {
            None => "{}".to_owned(),
            // Some models write the JSON of the arguments as a string, as the API does.
            Some(raw) => serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned()),
        };
        let value: Value = serde_json::from_str(&arguments).ok()?;
        let fits = |schema: &jsonschema::Validator| schema.is_valid(&value);
        let is_meant = is_tagged && !function.strict;
        let is_call =
            value.is_object() && (is_meant || function.arguments.as_ref().is_none_or(fits));
        is_call.then(|| Call { name: function.name.clone(), arguments })
    }

    /// Whether `json`, or what it is the beginning of, begins as a call of one of the functions.
    pub(super) fn begins(&self, json: &str) -> Verdict {
        let Some(json) =
            json.trim_start_matches(|c: char| c == '[' || c.is_whitespace()).strip_prefix('{')
        else {
            let is_open = json.chars().all(|c| c == '[' || c.is_whitespace());
            return if is_open { Verdict::Open } else { Verdict::No };
        };
        let (key, behind) = match string(json.trim_start()) {
            Ok(found) => found,
            Err(begun) => return among(&["name", "arguments", "parameters"], begun),
        };
        match key {
            "name" => {}
            "arguments" | "parameters" => return Verdict::Yes,
            _ => return Verdict::No,
        }
        let behind = behind.trim_start();
        let Some(value) = behind.strip_prefix(':') else {
            return if behind.is_empty() { Verdict::Open } else { Verdict::No };
        };
        match string(value.trim_start()) {
            Ok((name, _)) if self.functions.iter().any(|f| f.name == name) => Verdict::Yes,
            Ok(_) => Verdict::No,
            Err(begun) => {
                among(&self.functions.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), begun)
            }
        }
    }
}

impl Signature {
    fn compile(function: &Function) -> Result<Self, ApiError> {
        let schema = if function.strict {
            let schema = grammar::arguments(function)?;
            check_schema(&schema).map_err(|error| function.fault(error))?;
            Some(schema)
        } else {
            function.parameters.as_ref().map(Json::to_value)
        };
        let validator = |schema: &Value| {
            jsonschema::options()
                .with_pattern_options(
                    jsonschema::PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_MAX),
                )
                .should_validate_formats(function.strict)
                .build(schema)
                .map_err(|error| {
                    let reason = crate::http::openai::error::echo(&error.to_string());
                    function.fault(format!("This is no JSON schema: {reason}"))
                })
        };
        let arguments = schema.as_ref().map(validator).transpose()?;
        Ok(Self { name: function.name.clone(), arguments, strict: function.strict })
    }
}

/// A string without escapes at the start of `json` and what comes behind it, or what has begun of one.
fn string(json: &str) -> Result<(&str, &str), Option<&str>> {
    match json.strip_prefix('"') {
        Some(json) => json.split_once('"').ok_or(Some(json)),
        None if json.is_empty() => Err(Some("")),
        None => Err(None),
    }
}

/// Whether one of `words` begins as `begun` does.
fn among(words: &[&str], begun: Option<&str>) -> Verdict {
    let is_open = begun.is_some_and(|begun| words.iter().any(|word| word.starts_with(begun)));
    if is_open { Verdict::Open } else { Verdict::No }
}

/// The function's name in `{"name": "f", "arguments": `.
pub(super) fn name_in(head: &str) -> Option<String> {
    let head = head.trim_start().strip_prefix('{')?.trim_start();
    let (_, behind) = string(head).ok()?;
    let value = behind.trim_start().strip_prefix(':')?.trim_start();
    string(value).ok().map(|(name, _)| name.to_owned())
}
