//! Chat templates: the model's own Jinja source, rendered within bounds.

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model brings no chat template.
    #[error("the model has no chat template")]
    Missing,
    /// The template itself is wrong, or ran past a bound.
    #[error("the chat template failed: {0}")]
    Failed(String),
    /// The template refused this conversation (`raise_exception`); the text is the template's own.
    #[error("{0}")]
    Refused(String),
}

/// One message of a conversation: `{"role": …, "content": …}` and whatever else the template reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatMessage(pub serde_json::Value);

impl ChatMessage {
    /// A message with a text.
    pub fn new(role: &str, content: &str) -> Self {
        Self(serde_json::json!({ "role": role, "content": content }))
    }
}

/// How to render.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatOptions {
    /// End with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Function definitions, as the request has them.
    pub tools: Option<Vec<serde_json::Value>>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, tools: None }
    }
}
