//! The functions that a request lets the model call, and whether it may, must, or must not.

use std::fmt;

use crate::http::openai::error::ApiError;
use crate::http::openai::json::{At, Fields, Json};

/// OpenAI's bound.
const TOOLS_MAX: usize = 128;
/// Most characters of a function's name.
const NAME_MAX: usize = 64;

/// What the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    pub functions: Vec<Function>,
    pub choice: Choice,
    /// Several calls in one answer.
    pub parallel: bool,
    /// The request speaks of `functions`, as clients did before there were tools: the answer has one
    /// `function_call` at most.
    pub legacy: bool,
}

/// A function that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub name: String,
    /// A JSON schema of an object. Absent: without arguments.
    pub parameters: Option<Json>,
    /// What does not fit the schema is no call, however it is marked.
    pub strict: bool,
    /// The definition as templates show it to the model: as the request has it.
    pub definition: Json,
    /// Where the schema stands, for errors.
    pub place: String,
}

/// Whether the model calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Never,
    /// As the model likes. Indices of the functions that count, ascending.
    Auto(Vec<usize>),
    /// At least one of these.
    Required(Vec<usize>),
    /// This one, once.
    Named(usize),
}

impl Function {
    /// Something is wrong with its schema.
    pub fn fault(&self, message: impl fmt::Display) -> ApiError {
        let place = self.place.clone();
        ApiError::invalid(format!("{message} - '{place}'"), place)
    }
}

impl Tools {
    /// Nothing to call.
    pub fn none() -> Self {
        Self { functions: Vec::new(), choice: Choice::Never, parallel: false, legacy: false }
    }

    /// Reads `tools`, `tool_choice`, `parallel_tool_calls` and their forerunners.
    pub fn check(fields: &Fields) -> Result<Self, ApiError> {
        let functions = given_tools(fields)?;
        let older = given_functions(fields)?;
        let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        if let (Some(_), Some(_)) = (&functions, &older) {
            let message = "Only one of 'tools' and 'functions' is allowed - 'functions'";
            return Err(ApiError::invalid(message, "functions"));
        }
        let legacy = older.is_some();
        let functions = functions.or(older).unwrap_or_default();
        let choice = tool_choice(fields, &functions)?;
        let older = function_call(fields, &functions)?;
        if let (Some(_), Some(_)) = (&choice, &older) {
            let message =
                "Only one of 'tool_choice' and 'function_call' is allowed - 'function_call'";
            return Err(ApiError::invalid(message, "function_call"));
        }
        if functions.is_empty() {
            return Ok(Self::none());
        }
        let choice =
            choice.or(older).unwrap_or_else(|| Choice::Auto((0..functions.len()).collect()));
        Ok(Self { functions, choice, parallel: parallel && !legacy, legacy })
    }

    /// Functions whose calls count.
    pub fn callable(&self) -> &[usize] {
        match &self.choice {
            Choice::Never => &[],
            Choice::Auto(of) | Choice::Required(of) => of,
            Choice::Named(one) => std::slice::from_ref(one),
        }
    }

    /// The model has to call.
    pub fn is_forced(&self) -> bool {
        matches!(self.choice, Choice::Required(_) | Choice::Named(_))
    }
}

fn given_tools(fields: &Fields) -> Result<Option<Vec<Function>>, ApiError> {
    let Some(tools) = fields.get("tools") else { return Ok(None) };
    let list = At::field("tools", tools);
    let mut functions = Vec::new();
    for tool in bounded(&list)? {
        let kind = tool.required("type")?;
        if kind.text()? != "function" {
            return Err(kind
                .unsupported(format!("{} is no type of tool here, only 'function'", kind.value)));
        }
        let definition = tool.value.clone();
        push(&mut functions, &tool.required("function")?, definition)?;
    }
    Ok(Some(functions))
}

fn given_functions(fields: &Fields) -> Result<Option<Vec<Function>>, ApiError> {
    let Some(functions) = fields.get("functions") else { return Ok(None) };
    let list = At::field("functions", functions);
    let mut functions = Vec::new();
    for function in bounded(&list)? {
        // As the tool that it would be today: templates know no other form.
        let kind = ("type".to_owned(), Json::Text("function".to_owned()));
        let definition = Json::Object(vec![kind, ("function".to_owned(), function.value.clone())]);
        push(&mut functions, &function, definition)?;
    }
    Ok(Some(functions))
}

fn bounded<'a>(list: &'a At<'a>) -> Result<impl ExactSizeIterator<Item = At<'a>>, ApiError> {
    let items = list.items()?;
    if items.len() > TOOLS_MAX {
        return Err(list.fault(format!("More than {TOOLS_MAX}")));
    }
    Ok(items)
}

fn push(
    functions: &mut Vec<Function>,
    function: &At<'_>,
    definition: Json,
) -> Result<(), ApiError> {
    let name = function.required("name")?;
    let text = name.text()?;
    let is_sound = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(is_sound) {
        return Err(name.fault(format!(
            "{} is not 1 to {NAME_MAX} of the characters a-z, A-Z, 0-9, '_' and '-'",
            name.value
        )));
    }
    if functions.iter().any(|f| f.name == text) {
        return Err(name.fault(format!("There are two functions {}", name.value)));
    }
    function.text_member("description")?;
    let strict = match function.member("strict")? {
        None => false,
        Some(At { value: Json::Bool(strict), .. }) => *strict,
        Some(other) => return Err(other.wrong_type("boolean")),
    };
    let (parameters, place) = match function.member("parameters")? {
        None => (None, format!("{function}.parameters")),
        Some(parameters) => {
            parameters.object()?;
            (Some(parameters.value.clone()), parameters.to_string())
        }
    };
    functions.push(Function { name: text.to_owned(), parameters, strict, definition, place });
    Ok(())
}

fn tool_choice(fields: &Fields, functions: &[Function]) -> Result<Option<Choice>, ApiError> {
    let Some(value) = fields.get("tool_choice") else { return Ok(None) };
    let choice = At::field("tool_choice", value);
    let all = || (0..functions.len()).collect();
    let chosen = match value {
        Json::Text(word) => match word.as_str() {
            "none" => Choice::Never,
            "auto" => Choice::Auto(all()),
            "required" => Choice::Required(all()),
            _ => {
                return Err(
                    choice.fault(format!("{value} is not one of 'none', 'auto' and 'required'"))
                );
            }
        },
        Json::Object(_) => match choice.required_text("type")? {
            "function" => Choice::Named(named(&choice.required("function")?, functions)?),
            "allowed_tools" => allowed(&choice, functions)?,
            _ => {
                let kind = choice.required("type")?;
                return Err(kind.unsupported(format!("{} is no type of choice here", kind.value)));
            }
        },
        _ => return Err(choice.wrong_type("string' or 'object")),
    };
    if functions.is_empty() && matches!(chosen, Choice::Required(_)) {
        return Err(choice.fault("There are no tools to call"));
    }
    Ok(Some(chosen))
}

/// A choice among some of the tools.
fn allowed(choice: &At<'_>, functions: &[Function]) -> Result<Choice, ApiError> {
    // OpenAI's own SDKs nest it; its guide once did not.
    let inner = choice.member("allowed_tools")?;
    let choice = inner.as_ref().unwrap_or(choice);
    let tools = choice.required("tools")?;
    let mut of = Vec::new();
    for tool in bounded(&tools)? {
        of.push(named(&tool.required("function")?, functions)?);
    }
    of.sort_unstable();
    of.dedup();
    if of.is_empty() {
        return Err(tools.fault("[] is too short"));
    }
    let mode = choice.required("mode")?;
    match mode.text()? {
        "auto" => Ok(Choice::Auto(of)),
        "required" => Ok(Choice::Required(of)),
        _ => Err(mode.fault(format!("{} is not one of 'auto' and 'required'", mode.value))),
    }
}

fn function_call(fields: &Fields, functions: &[Function]) -> Result<Option<Choice>, ApiError> {
    let Some(value) = fields.get("function_call") else { return Ok(None) };
    let choice = At::field("function_call", value);
    match value {
        Json::Text(word) if word == "none" => Ok(Some(Choice::Never)),
        Json::Text(word) if word == "auto" => {
            Ok(Some(Choice::Auto((0..functions.len()).collect())))
        }
        Json::Text(_) => Err(choice.fault(format!("{value} is not one of 'none' and 'auto'"))),
        Json::Object(_) => Ok(Some(Choice::Named(named(&choice, functions)?))),
        _ => Err(choice.wrong_type("string' or 'object")),
    }
}

/// The function that `at` calls by name.
fn named(at: &At<'_>, functions: &[Function]) -> Result<usize, ApiError> {
    let name = at.required("name")?;
    let text = name.text()?;
    let found = functions.iter().position(|f| f.name == text);
    found.ok_or_else(|| name.fault(format!("There is no function {}", name.value)))
}

#[cfg(test)]
mod tests;
