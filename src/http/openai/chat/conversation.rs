//! What a model's chat template makes a text of: messages, tools, and how the text is to end.

use super::messages::{self, Message, Role};
use super::prompt;
use super::tools::Tools;
use crate::engine::message::TokenId;
use crate::http::openai::error::ApiError;
use crate::http::openai::generation::later::{self, Later, empty, never};
use crate::http::openai::json::{At, Fields, Json, missing};
use crate::text::Text;

/// What is not rendered.
const LATER: &[Later] = &[
    ("documents", empty),
    // A template of the client's would run with the server's rights.
    ("chat_template", never),
];

/// Variables of templates that requests may set.
const TEMPLATE_VARIABLES: [&str; 4] =
    ["enable_thinking", "thinking", "reasoning_effort", "date_string"];
/// Longest value of such a variable, as JSON.
const VARIABLE_BYTES_MAX: usize = 1 << 10;

/// Within all bounds but the context's.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Tools,
    pub rendering: Rendering,
}

/// How the messages become a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendering {
    pub end: End,
    /// Further variables of the template.
    pub variables: Vec<(String, Json)>,
    /// Put the model's BOS in front of what the template writes.
    pub add_bos: bool,
}

/// How the text ends that the model goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the beginning of the assistant's answer.
    Answer,
    /// With the last message as if it were not over.
    OpenMessage,
    /// With the last message.
    Message,
}

impl Conversation {
    /// Reads the fields of [`super::types::CONVERSATION`], and `add_special_tokens`.
    pub fn check(fields: &Fields) -> Result<Self, ApiError> {
        later::refuse(fields, LATER)?;
        let messages = messages::check(fields.get("messages").ok_or_else(|| missing("messages"))?)?;
        let rendering = rendering(fields, &messages)?;
        Ok(Self { messages, tools: Tools::check(fields)?, rendering })
    }

    /// The same fields where there are no messages: what they say is not used, but has to be sound.
    pub fn check_unused(fields: &Fields) -> Result<(), ApiError> {
        variables(fields)?;
        Tools::check(fields).map(drop)
    }

    /// About how much there is to render.
    pub fn bytes(&self) -> usize {
        let message = |m: &Message| {
            let calls = m.calls.iter().map(|c| c.name.len() + c.arguments.len()).sum::<usize>();
            m.content.len() + m.reasoning.as_ref().map_or(0, String::len) + calls
        };
        let tools = self.tools.functions.iter().map(|f| f.definition.bytes());
        self.messages.iter().map(message).chain(tools).sum()
    }

    /// As tokens; whether a BOS of ours comes first.
    pub fn encode(&self, text: &Text) -> Result<(Vec<TokenId>, bool), ApiError> {
        let chat = prompt::render(text, &self.messages, &self.tools, &self.rendering)?;
        let add_bos = self.rendering.add_bos && text.adds_bos();
        let ids = text.encode(&chat, true, add_bos);
        if ids.is_empty() {
            let message = "The model's chat template makes nothing of them - 'messages'";
            return Err(ApiError::invalid(message, "messages"));
        }
        Ok((ids, add_bos))
    }
}

fn rendering(fields: &Fields, messages: &[Message]) -> Result<Rendering, ApiError> {
    Ok(Rendering {
        end: end(fields, messages)?,
        variables: variables(fields)?,
        add_bos: fields.boolean("add_special_tokens")?.unwrap_or(false),
    })
}

fn end(fields: &Fields, messages: &[Message]) -> Result<End, ApiError> {
    const NAME: &str = "continue_final_message";
    let begins = fields.boolean("add_generation_prompt")?;
    if fields.boolean(NAME)? != Some(true) {
        return Ok(if begins == Some(false) { End::Message } else { End::Answer });
    }
    let fault = |reason| Err(ApiError::invalid(format!("{reason} - '{NAME}'"), NAME));
    if begins == Some(true) {
        return fault("Not allowed when 'add_generation_prompt' is true");
    }
    let last = messages.last();
    if last.is_none_or(|last| last.role != Role::Assistant || !last.calls.is_empty()) {
        return fault("Only a text of the assistant can be continued");
    }
    Ok(End::OpenMessage)
}

fn variables(fields: &Fields) -> Result<Vec<(String, Json)>, ApiError> {
    let mut variables = Vec::new();
    if let Some(effort) = fields.text("reasoning_effort")? {
        variables.push(("reasoning_effort".to_owned(), Json::Text(effort.to_owned())));
    }
    let Some(given) = fields.get("chat_template_kwargs") else { return Ok(variables) };
    let kwargs = At::field("chat_template_kwargs", given);
    for (name, value) in kwargs.object()? {
        if !TEMPLATE_VARIABLES.contains(&name.as_str()) {
            let name = Json::Text(name.clone());
            let allowed = TEMPLATE_VARIABLES.join("', '");
            return Err(kwargs.fault(format!("{name} is not one of '{allowed}'")));
        }
        if value.bytes() > VARIABLE_BYTES_MAX {
            return Err(kwargs.fault(format!("'{name}' is longer than {VARIABLE_BYTES_MAX} bytes")));
        }
        variables.retain(|(known, _)| known != name);
        variables.push((name.clone(), value.clone()));
    }
    Ok(variables)
}
