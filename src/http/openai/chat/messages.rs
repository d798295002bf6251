//! The conversation of a request: checked message by message, kept as what a template needs.

use crate::http::openai::error::ApiError;
use crate::http::openai::json::{At, Json};

/// Most tool calls in one message.
const CALLS_MAX: usize = 128;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    /// The result of a call; `function` is the name it had before.
    Tool,
}

/// One message, within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    /// Text parts joined by line breaks. Empty where an assistant only called.
    pub content: String,
    pub name: Option<String>,
    /// What the model thought before an answer that is now history, as vLLM gives it.
    pub reasoning: Option<String>,
    /// What the assistant called.
    pub calls: Vec<PastCall>,
    /// The call that a tool answers.
    pub call_id: Option<String>,
}

/// A call in a conversation's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastCall {
    pub id: Option<String>,
    pub name: String,
    /// JSON, as the model once wrote it.
    pub arguments: String,
}

/// Checks `messages`.
pub fn check(messages: &Json) -> Result<Vec<Message>, ApiError> {
    let list = At::field("messages", messages);
    let items = list.items()?;
    if items.len() == 0 {
        return Err(list.fault("[] is too short: a conversation has a message at least"));
    }
    items.map(|message| one(&message)).collect()
}

fn one(message: &At<'_>) -> Result<Message, ApiError> {
    let role = role(message)?;
    let is_assistant = role == Role::Assistant;
    let content = content(message, is_assistant)?;
    let calls = if is_assistant { calls(message)? } else { Vec::new() };
    let content = match content {
        Some(content) => content,
        // An assistant that only called says nothing, and says so by leaving it out.
        None if is_assistant => message.text_member("refusal")?.unwrap_or_default().to_owned(),
        None => {
            return Err(message
                .required("content")
                .map_or_else(|e| e, |at| at.wrong_type("string")));
        }
    };
    let text = |name| Ok::<_, ApiError>(message.text_member(name)?.map(str::to_owned));
    let reasoning = match text("reasoning_content")? {
        None if is_assistant => text("reasoning")?,
        given => given.filter(|_| is_assistant),
    };
    Ok(Message {
        role,
        content,
        name: text("name")?,
        reasoning,
        calls,
        call_id: text("tool_call_id")?,
    })
}

fn role(message: &At<'_>) -> Result<Role, ApiError> {
    Ok(match message.required_text("role")? {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        _ => {
            let role = message.required("role")?;
            return Err(role.fault(format!(
                "{} is not one of 'system', 'developer', 'user', 'assistant', 'tool' and 'function'",
                role.value
            )));
        }
    })
}

/// A string, or parts that are texts. Nothing else is in reach of a model that reads text.
fn content(message: &At<'_>, may_refuse: bool) -> Result<Option<String>, ApiError> {
    let Some(content) = message.member("content")? else { return Ok(None) };
    let parts = match content.value {
        Json::Text(text) => return Ok(Some(text.clone())),
        Json::List(_) => content.items()?,
        _ => return Err(content.wrong_type("string' or 'array")),
    };
    let mut text = String::new();
    for (index, part) in parts.enumerate() {
        let piece = match part.required_text("type")? {
            "text" => part.required_text("text")?,
            "refusal" if may_refuse => part.required_text("refusal")?,
            "image_url" | "input_image" | "image" => return Err(beyond(&part, "images")),
            "input_audio" | "audio_url" => return Err(beyond(&part, "audio")),
            "video_url" => return Err(beyond(&part, "videos")),
            "file" | "input_file" => return Err(beyond(&part, "files")),
            _ => {
                let kind = part.required("type")?;
                return Err(kind.fault(format!("{} is not a type of part", kind.value)));
            }
        };
        if index > 0 {
            text.push('\n');
        }
        text.push_str(piece);
    }
    Ok(Some(text))
}

fn beyond(part: &At<'_>, what: &str) -> ApiError {
    part.unsupported(format!("This model reads text only, not {what}"))
}

/// `tool_calls`, or the one `function_call` of older clients.
fn calls(message: &At<'_>) -> Result<Vec<PastCall>, ApiError> {
    let mut calls = Vec::new();
    if let Some(list) = message.member("tool_calls")? {
        let items = list.items()?;
        if items.len() > CALLS_MAX {
            return Err(list.fault(format!("More than {CALLS_MAX} calls")));
        }
        for call in items {
            if let Some(kind) = call.member("type")?
                && kind.text()? != "function"
            {
                return Err(kind.unsupported(format!(
                    "{} is no type of call here, only 'function'",
                    kind.value
                )));
            }
            let id = call.text_member("id")?.map(str::to_owned);
            calls.push(past_call(id, &call.required("function")?)?);
        }
    }
    if let Some(call) = message.member("function_call")? {
        calls.push(past_call(None, &call)?);
    }
    Ok(calls)
}

fn past_call(id: Option<String>, function: &At<'_>) -> Result<PastCall, ApiError> {
    let name = function.required_text("name")?.to_owned();
    let arguments = function.required_text("arguments")?.to_owned();
    Ok(PastCall { id, name, arguments })
}

#[cfg(test)]
mod tests;
