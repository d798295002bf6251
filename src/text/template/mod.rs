//! Chat templates: the model's own Jinja source, rendered within bounds.
//!
//! Set up as `transformers` does it (`utils/chat_template_utils.py`): blocks trimmed, loop controls,
//! Python's methods on strings and maps, `raise_exception`, `strftime_now`, and a `tojson` that writes
//! as Python's `json.dumps` does. What a template may use up is bounded: instructions and memory by
//! fuel, nesting by a recursion limit, output by size. Templates come from model files, but what they
//! loop over comes from requests.

mod json;
mod python;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use crate::telemetry::one_line;
pub use json::Json;

/// Instructions (or 64 bytes of memory each) that a rendering may use: some 15,000 messages, or some
/// 15 MB of text.
const FUEL: u64 = 1_000_000;
/// Of the threads that compile and render. Fuel bounds how deep a template can nest values (about nine
/// units a level), but dropping them recurses; this is several times what all fuel needs. A chain of
/// operators is as deep as it is long, which the length of the source bounds: its compiling takes up to
/// half of a kilobyte a byte. Frames that are not optimised are larger. Only what is used is taken.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 1 << 30 } else { 128 << 20 };
/// Longest template source. The longest of a released model has some 30,000 bytes.
const SOURCE_BYTES: usize = 128 << 10;
/// Nested calls, loops and macros.
const RECURSION: usize = 200;
/// Longest rendered text, whatever the input is.
const OUTPUT_BYTES: usize = 1 << 20;
/// Further output for each byte of input: escaping in JSON makes six bytes of one.
const OUTPUT_PER_BYTE: usize = 8;

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
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(transparent)]
pub struct ChatMessage(pub Json);

impl ChatMessage {
    /// A message with a text.
    pub fn new(role: &str, content: &str) -> Self {
        let member = |name: &str, text: &str| (name.to_owned(), Json::String(text.to_owned()));
        Self(Json::Object(vec![member("role", role), member("content", content)]))
    }

    /// As templates see it. The arguments of an assistant's function calls, which travel as a string
    /// of JSON, are the object in it: templates are written for that, and vLLM does the same.
    fn to_value(&self) -> Value {
        let mut message = self.0.clone();
        for call in message.member_mut("tool_calls").into_iter().flat_map(Json::items_mut) {
            let function = call.member_mut("function");
            if let Some(arguments) = function.and_then(|f| f.member_mut("arguments"))
                && let Json::String(text) = arguments
                && let Ok(object @ Json::Object(_)) = serde_json::from_str(text)
            {
                *arguments = object;
            }
        }
        message.to_value()
    }
}

/// How to render.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatOptions {
    /// End with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Function definitions, as the request has them.
    pub tools: Option<Vec<Json>>,
    /// Further variables, such as `enable_thinking`. Callers allow names one by one.
    pub variables: Vec<(String, Json)>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, tools: None, variables: Vec::new() }
    }
}

/// A model's template, compiled. One that does not compile is an error only when it is used.
#[derive(Debug)]
pub(super) struct Template {
    source: String,
    environment: Result<Environment<'static>, String>,
    /// `bos_token` and the like, by name.
    tokens: Vec<(&'static str, String)>,
    knows: Knows,
}

/// What a template has words for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Knows {
    /// It reads `tools`.
    pub tools: bool,
    /// It has a role of developers beside that of the system.
    pub developer: bool,
}

/// The template's name in error messages.
const NAME: &str = "chat_template";

impl Template {
    /// `tokens`: special tokens that templates know by name.
    pub(super) fn new(source: String, tokens: Vec<(&'static str, String)>) -> Self {
        let compiled = if source.len() > SOURCE_BYTES {
            Err("it is longer than 128 KiB".to_owned())
        } else {
            on_deep_stack(|| {
                let environment = compile(source.clone()).map_err(|e| describe(&e))?;
                let tools = reads_tools(&environment);
                Ok((environment, tools))
            })
            .unwrap_or_else(Err)
        };
        let tools = compiled.as_ref().is_ok_and(|(_, tools)| *tools);
        let knows = Knows { tools, developer: source.contains("developer") };
        Self { source, environment: compiled.map(|(environment, _)| environment), tokens, knows }
    }

    pub(super) fn knows(&self) -> Knows {
        self.knows
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn render(
        &self,
        messages: &[ChatMessage],
        options: &ChatOptions,
    ) -> Result<String, TemplateError> {
        let environment = self.environment.as_ref();
        let environment = environment.map_err(|e| TemplateError::Failed(e.clone()))?;
        on_deep_stack(|| self.render_here(environment, messages, options))
            .unwrap_or_else(|reason| Err(TemplateError::Failed(reason)))
    }

    fn render_here(
        &self,
        environment: &Environment<'static>,
        messages: &[ChatMessage],
        options: &ChatOptions,
    ) -> Result<String, TemplateError> {
        let tools = options.tools.iter().flatten();
        let variables = options.variables.iter().map(|(_, value)| value);
        let input = messages.iter().map(|m| &m.0).chain(tools).chain(variables).map(Json::bytes);
        let mut output = Bounded {
            bytes: Vec::new(),
            left: OUTPUT_PER_BYTE.saturating_mul(input.sum()).saturating_add(OUTPUT_BYTES),
        };
        environment
            .get_template(NAME)
            .and_then(|template| {
                template.render_captured_to(self.context(messages, options), &mut output).map(drop)
            })
            .map_err(|error| refusal(&error))?;
        String::from_utf8(output.bytes).map_err(|e| TemplateError::Failed(e.to_string()))
    }

    /// The variables that `transformers` gives a template.
    fn context(&self, messages: &[ChatMessage], options: &ChatOptions) -> Value {
        let messages = messages.iter().map(ChatMessage::to_value).collect::<Vec<_>>();
        let tools = options.tools.as_ref();
        let tools = tools.map(|tools| tools.iter().map(Json::to_value).collect::<Vec<_>>());
        let mut context = BTreeMap::from([
            ("messages", Value::from(messages)),
            ("tools", Value::from(tools)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(options.add_generation_prompt)),
        ]);
        context.extend(self.tokens.iter().map(|(name, text)| (*name, Value::from(text))));
        let further = options.variables.iter().map(|(name, v)| (name.as_str(), v.to_value()));
        context.extend(further);
        Value::from(context)
    }
}

/// Does what recurses as deep as a template says.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|e| format!("there is no thread for it: {e}"))?
            .join()
            .map_err(|_| "it panicked".to_owned())
    })
}

fn reads_tools(environment: &Environment<'static>) -> bool {
    let template = environment.get_template(NAME);
    template.is_ok_and(|template| template.undeclared_variables(false).contains("tools"))
}

fn compile(source: String) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(RECURSION);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(python::write);
    environment.add_filter("tojson", python::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| {
        python::strftime(time::OffsetDateTime::now_utc(), format)
    });
    environment.add_template_owned(NAME, source)?;
    Ok(environment)
}

/// What a template said when it refused a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: &str) -> Result<Value, Error> {
    // It goes into a log and to clients, and comes from a file.
    let raised = Raised(one_line(message));
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

fn refusal(error: &Error) -> TemplateError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(raised) = cause.downcast_ref::<Raised>() {
            return TemplateError::Refused(raised.0.clone());
        }
        source = cause.source();
    }
    TemplateError::Failed(describe(error))
}

/// One line: what, and where in the template.
fn describe(error: &Error) -> String {
    one_line(&error.to_string())
}

/// Takes only so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len())
            .ok_or_else(|| io::Error::other("the rendered text is too long"))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
