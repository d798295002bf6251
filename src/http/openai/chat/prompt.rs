//! From a checked conversation to the text that the model goes on with.
//!
//! A template that knows of tools gets them, and the history of calls, as `transformers` gives them. One that
//! does not gets the same in words: definitions in a system message, calls and results in tags. docs/api.md
//! shows that text; it is the one that Qwen's and Hermes' templates write, which models know best.

use std::fmt::Write as _;

use super::conversation::{End, Rendering};
use super::messages::{Message, PastCall, Role};
use super::tools::{Choice, Tools};
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::rendering;
use crate::http::openai::json::Json;
use crate::text::{ChatMessage, ChatOptions, Json as Value, Text};

/// Put behind the last message where the model is to go on with it, and looked for in what the template
/// made of that: private characters, which no vocabulary has as a token.
const HERE: &str = "\u{f8fe}\u{f8ff}\u{f8fe}";

const TOOLS_HEAD: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const TOOLS_TAIL: &str = "\n</tools>\n\nFor each function call, return a json object with function name and \
    arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n\
    {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

/// Renders a conversation by the model's template.
pub fn render(
    text: &Text,
    messages: &[Message],
    tools: &Tools,
    rendering: &Rendering,
) -> Result<String, ApiError> {
    // Told of tools that it must not call, a small model calls them all the same.
    let shown: &[_] = if tools.choice == Choice::Never { &[] } else { &tools.functions };
    let definitions: Vec<&Json> = shown.iter().map(|f| &f.definition).collect();
    let continues = rendering.end == End::OpenMessage;
    let mut turns = messages.to_vec();
    if continues && let Some(last) = turns.last_mut() {
        last.content.push_str(HERE);
    }
    let knows = text.template_knows();
    if !knows.tools {
        turns = in_words(turns, &definitions);
    }
    let options = ChatOptions {
        add_generation_prompt: rendering.end == End::Answer,
        tools: (knows.tools && !shown.is_empty())
            .then(|| definitions.iter().map(|d| value(d)).collect()),
        variables: rendering.variables.iter().map(|(name, v)| (name.clone(), value(v))).collect(),
    };
    let turns: Vec<ChatMessage> = turns.iter().map(|m| turn(m, knows.developer)).collect();
    let mut chat = text
        .render_chat(&turns, &options)
        .map_err(|error| rendering::refusal(error, "messages"))?;
    if continues {
        let end = chat.rfind(HERE).ok_or_else(|| {
            let message =
                "The model's chat template cannot continue a message - 'continue_final_message'";
            ApiError::invalid(message, "continue_final_message")
        })?;
        chat.truncate(end);
    }
    Ok(chat)
}

/// A message as templates take it.
fn turn(message: &Message, knows_developer: bool) -> ChatMessage {
    let role = match message.role {
        Role::Developer if knows_developer => "developer",
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let text = |text: &str| Value::String(text.to_owned());
    let mut members = vec![("role", text(role)), ("content", text(&message.content))];
    let optional = [
        ("name", &message.name),
        ("reasoning_content", &message.reasoning),
        ("tool_call_id", &message.call_id),
    ];
    members.extend(optional.into_iter().filter_map(|(name, v)| Some((name, text(v.as_ref()?)))));
    if !message.calls.is_empty() {
        members.push(("tool_calls", Value::Array(message.calls.iter().map(past_call).collect())));
    }
    ChatMessage(object(members))
}

fn past_call(call: &PastCall) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let function = [("name", text(&call.name)), ("arguments", text(&call.arguments))];
    let mut members = Vec::new();
    members.extend(call.id.iter().map(|id| ("id", text(id))));
    members.push(("type", text("function")));
    members.push(("function", object(function)));
    object(members)
}

fn object(members: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A request's JSON as templates take it.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => Value::Unsigned(n),
            (None, Some(n)) => Value::Signed(n),
            (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
        },
        Json::Text(text) => Value::String(text.clone()),
        Json::List(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(members) => {
            Value::Object(members.iter().map(|(name, v)| (name.clone(), value(v))).collect())
        }
    }
}

/// The conversation without roles and fields that only templates with tools know.
fn in_words(messages: Vec<Message>, definitions: &[&Json]) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut after_result = false;
    for mut message in messages {
        let is_result = message.role == Role::Tool;
        if is_result {
            let result = format!("<tool_response>\n{}\n</tool_response>", message.content);
            if let (true, Some(last)) = (after_result, turns.last_mut()) {
                // Many templates want the roles to take turns.
                last.content.push('\n');
                last.content.push_str(&result);
                continue;
            }
            message = said(Role::User, result);
        }
        after_result = is_result;
        for call in std::mem::take(&mut message.calls) {
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            let name = Json::Text(call.name).to_json();
            let arguments = call.arguments;
            // Writing to a string cannot fail.
            let _ = write!(
                message.content,
                "<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>"
            );
        }
        turns.push(message);
    }
    if !definitions.is_empty() {
        let mut words = TOOLS_HEAD.to_owned();
        for definition in definitions {
            words.push('\n');
            words.push_str(&definition.to_json());
        }
        words.push_str(TOOLS_TAIL);
        match turns.first_mut() {
            Some(first) if matches!(first.role, Role::System | Role::Developer) => {
                first.content.push_str("\n\n");
                first.content.push_str(&words);
            }
            _ => turns.insert(0, said(Role::System, words)),
        }
    }
    turns
}

fn said(role: Role, content: String) -> Message {
    Message { role, content, name: None, reasoning: None, calls: Vec::new(), call_id: None }
}

#[cfg(test)]
#[cfg(feature = "fake-model")]
mod tests;
