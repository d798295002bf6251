//! What an answer must be where it has to be calls, or may be calls instead of the JSON that was asked for:
//! the grammar of calls in `<tool_call>` tags.

use serde_json::{Value, json};

use crate::http::openai::chat::tools::{Choice, Function, Tools};
use crate::http::openai::error::ApiError;
use crate::http::openai::structured::Wanted;
use crate::text::grammar::{Part, Source};

/// What is wanted of the answer, `format` being what the request says of its text.
pub fn wanted(tools: &Tools, format: Option<Wanted>) -> Result<Option<Wanted>, ApiError> {
    let param = if tools.legacy { "functions" } else { "tools" };
    match (&tools.choice, format) {
        // Calls are the whole answer, so there is no text to have a format.
        (Choice::Required(_) | Choice::Named(_), _) => {
            Ok(Some(Wanted { source: Source::Parts(calls(tools)?), param }))
        }
        (Choice::Auto(_), Some(Wanted { source, param })) => {
            let schema = match source {
                Source::JsonSchema(schema) => schema,
                Source::JsonObject => json!({ "type": "object" }),
                _ => {
                    let message =
                        "Together with tools that may be called, only JSON can be asked for";
                    return Err(ApiError::invalid(format!("{message} - '{param}'"), param));
                }
            };
            let either = Part::OneOf(vec![calls(tools)?, vec![Part::Json { schema, of: None }]]);
            Ok(Some(Wanted { source: Source::Parts(vec![either]), param }))
        }
        (_, format) => Ok(format),
    }
}

/// One call, or several.
fn calls(tools: &Tools) -> Result<Vec<Part>, ApiError> {
    let functions = tools.callable().iter().map(|&at| &tools.functions[at]);
    let one = vec![
        Part::Literal("<tool_call>\n".to_owned()),
        Part::OneOf(functions.map(call).collect::<Result<_, _>>()?),
        Part::Literal("\n</tool_call>\n".to_owned()),
    ];
    let is_one = !tools.parallel || matches!(tools.choice, Choice::Named(_));
    Ok(if is_one { one } else { vec![Part::Many(one)] })
}

fn call(function: &Function) -> Result<Vec<Part>, ApiError> {
    let name = Value::from(function.name.as_str());
    Ok(vec![
        Part::Literal(format!(r#"{{"name": {name}, "arguments": "#)),
        Part::Json { schema: arguments(function)?, of: Some(function.place.clone()) },
        Part::Literal("}".to_owned()),
    ])
}

/// Arguments are an object, whether or not their schema says so.
pub(super) fn arguments(function: &Function) -> Result<Value, ApiError> {
    let Some(parameters) = &function.parameters else {
        return Ok(json!({ "type": "object", "properties": {}, "additionalProperties": false }));
    };
    let mut schema = parameters.to_value();
    if let Value::Object(members) = &mut schema {
        match members.get("type") {
            Some(kind) if kind == "object" => {}
            None if members.contains_key("$ref") => {}
            None => {
                members.insert("type".to_owned(), "object".into());
            }
            Some(_) => {
                return Err(function.fault("The parameters of a function are of type 'object'"));
            }
        }
    }
    Ok(schema)
}
