//! Grammars that an answer keeps within: JSON, a JSON schema, a regular expression, a list of choices,
//! or Lark. llguidance compiles and follows them; what is ours is to know what it cannot do.
//!
//! A compiled grammar is a promise: whatever is sampled, the answer is within it, or is cut off by
//! `max_tokens` or a stop string. So everything that would be followed in part only is refused.

mod cache;
#[cfg(test)]
mod conformity_tests;
mod follow;
mod lark;
mod names;
mod pattern;
mod schema;
#[cfg(test)]
mod tests;
mod vocab;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{InferenceCapabilities, TokEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use crate::engine::constraint::{Constraint, TokenSet};
use crate::text::Text;
use cache::Cache;
use follow::{Follower, Usable};
use vocab::Env;

/// Longest source of a grammar: a schema as JSON, a regular expression, all choices together.
pub const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Longest regular expression.
pub const REGEX_BYTES_MAX: usize = 16 << 10;
pub const CHOICES_MAX: usize = 1_024;
/// How deep brackets of a grammar or a regular expression are nested.
const NESTING_MAX: usize = 128;

/// Compilers recurse as deep as grammars are nested, and llguidance's as often as an object has
/// properties.
const STACK_BYTES: usize = 64 << 20;

/// For finding out whose schema does not compile: each takes as long as all of them may.
const FAULT_SEARCH_MS: u64 = 500;

/// Work that compiling may take, in llguidance's units.
const COMPILE_FUEL: u64 = 1_000_000;
/// Work that one mask may take; each step of the engine may wait for one.
const MASK_FUEL: u64 = 50_000;
const MASK_ITEMS_MAX: usize = 20_000;
/// States that are remembered: what a grammar in use may grow by.
const LEXER_STATES_MAX: usize = 20_000;

/// Longest reason for a refusal.
const REASON_CHARS_MAX: usize = 400;

/// What an answer is to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Any JSON object.
    JsonObject,
    JsonSchema(Value),
    /// Rust's and Python's dialect, without what looks around. It matches the whole answer.
    Regex(String),
    /// One of these, literally.
    Choice(Vec<String>),
    /// llguidance's variant of Lark.
    Lark(String),
    /// One after the other: never a client's own words.
    Parts(Vec<Part>),
}

/// A piece of an answer whose form the server sets, such as a tool call.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Literal(String),
    /// JSON of a schema, and whose it is where there are several.
    Json {
        schema: Value,
        of: Option<String>,
    },
    /// All of these, once or more.
    Many(Vec<Part>),
    /// One of these sequences.
    OneOf(Vec<Vec<Part>>),
}

/// Why there is no such grammar. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    #[error("{0}")]
    Refused(String),
    /// The same of one schema among several.
    #[error("{reason} - '{of}'")]
    RefusedOf { reason: String, of: String },
    /// Our fault.
    #[error("compiling a grammar failed")]
    Internal,
}

impl GrammarError {
    /// As one line of bounded length, whatever of the client's own words it repeats. The beginning of a
    /// long reason says what is wrong, its end where.
    fn in_a_line(self) -> Self {
        match self {
            Self::Refused(reason) => Self::Refused(in_a_line(&reason)),
            Self::RefusedOf { reason, of } => Self::RefusedOf { reason: in_a_line(&reason), of },
            Self::Internal => Self::Internal,
        }
    }
}

fn in_a_line(reason: &str) -> String {
    let mut line: Vec<char> =
        reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > REASON_CHARS_MAX {
        let half = REASON_CHARS_MAX / 2;
        line.splice(half..line.len() - half, ['…']);
    }
    line.into_iter().collect()
}

/// Whether a grammar of `schema` would keep to each of its keywords, or which one it would not.
pub fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    schema::prepare(schema).map(|_| ()).map_err(GrammarError::in_a_line)
}

/// The compiler of one model's grammars, with what it compiled last. Cheap to clone.
#[derive(Clone)]
pub struct Grammars {
    inner: Arc<Inner>,
}

struct Inner {
    text: Text,
    /// Built for the first grammar, on its thread: most servers never need it.
    compiler: OnceLock<Result<Compiler, GrammarError>>,
    cache: Mutex<Cache>,
}

struct Compiler {
    factory: ParserFactory,
    usable: Arc<Usable>,
}

/// A compiled grammar.
pub struct Grammar {
    /// Never advanced: each answer follows a copy of its own.
    matcher: Mutex<Matcher>,
    usable: Arc<Usable>,
    is_json: bool,
    /// What it takes, roughly.
    bytes: usize,
}

impl Grammar {
    /// What keeps one answer within it.
    pub fn constraint(&self) -> Box<dyn Constraint> {
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Box::new(Follower::new(matcher, Arc::clone(&self.usable), self.is_json))
    }
}

impl Grammars {
    pub fn new(text: &Text) -> Self {
        let cache = Mutex::new(Cache::default());
        let inner = Inner { text: text.clone(), compiler: OnceLock::new(), cache };
        Self { inner: Arc::new(inner) }
    }

    /// What was compiled for `source` before, if it is still there.
    pub fn find(&self, source: &Source) -> Option<Arc<Grammar>> {
        self.cache().find(&cache::key(source))
    }

    /// Compiles `source`: up to some hundred milliseconds of work, done by a thread with a deep stack
    /// that the caller waits for.
    pub fn compile(&self, source: &Source) -> Result<Arc<Grammar>, GrammarError> {
        if let Some(grammar) = self.find(source) {
            return Ok(grammar);
        }
        let grammar = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("compile".to_owned());
            let compile = || self.compiler()?.compile(source);
            let thread = thread.stack_size(STACK_BYTES).spawn_scoped(scope, compile);
            thread
                .map_err(|_| GrammarError::Internal)?
                .join()
                .map_err(|_| GrammarError::Internal)?
        });
        let grammar = grammar.map_err(GrammarError::in_a_line)?;
        let grammar = Arc::new(grammar);
        self.cache().insert(cache::key(source), &grammar);
        Ok(grammar)
    }

    fn compiler(&self) -> Result<&Compiler, GrammarError> {
        let compiler = self.inner.compiler.get_or_init(|| Compiler::new(&self.inner.text));
        compiler.as_ref().map_err(Clone::clone)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.inner.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Compiler {
    fn new(text: &Text) -> Result<Self, GrammarError> {
        let env: TokEnv = Arc::new(Env::new(text));
        let capabilities = InferenceCapabilities::default();
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, capabilities, &slices).map_err(internal)?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = COMPILE_FUEL;
        limits.step_lexer_fuel = MASK_FUEL;
        limits.step_max_items = MASK_ITEMS_MAX;
        limits.max_lexer_states = LEXER_STATES_MAX;
        limits.verbose_errors = false;
        let usable = Arc::new(Usable::new(env, text.end_tokens().to_vec()));
        Ok(Self { factory, usable })
    }

    /// The first schema among parts that does not compile by itself, if it is found in time: what
    /// stands around it is not the client's.
    fn fault_of(&self, parts: &[Part], until: Instant) -> Option<GrammarError> {
        parts.iter().find_map(|part| match part {
            Part::Literal(_) => None,
            Part::Json { .. } if Instant::now() > until => None,
            Part::Json { schema, of } => {
                let alone = self.compile(&Source::JsonSchema(schema.clone()));
                alone.err().map(|error| of_whom(error, of.as_ref()))
            }
            Part::Many(parts) => self.fault_of(parts, until),
            Part::OneOf(choices) => choices.iter().find_map(|parts| self.fault_of(parts, until)),
        })
    }

    fn compile(&self, source: &Source) -> Result<Grammar, GrammarError> {
        let grammar = top_level(source)?;
        let parser = self.factory.create_parser(grammar).map_err(|error| {
            let until = Instant::now() + Duration::from_millis(FAULT_SEARCH_MS);
            let own = match source {
                Source::Parts(parts) => self.fault_of(parts, until),
                _ => None,
            };
            own.unwrap_or_else(|| refused(source, &error))
        })?;
        if parser.parser.grammar().lexer_spec().check_rollback().is_err() {
            let reason = "'max_tokens' and 'stop' have no place in a grammar";
            return Err(GrammarError::Refused(reason.to_owned()));
        }
        let matcher = Matcher::new(Ok(parser));
        let is_json =
            matches!(source, Source::JsonObject | Source::JsonSchema(_) | Source::Parts(_));
        first_mask(Follower::new(matcher.deep_clone(), Arc::clone(&self.usable), is_json))?;
        let (bytes, usable) = (cache::estimate(source), Arc::clone(&self.usable));
        Ok(Grammar { matcher: Mutex::new(matcher), usable, is_json, bytes })
    }
}

/// With the name of the schema, if it is one of several.
fn of_whom(error: GrammarError, of: Option<&String>) -> GrammarError {
    match (error, of) {
        (GrammarError::Refused(reason), Some(of)) => {
            GrammarError::RefusedOf { reason, of: of.clone() }
        }
        (error, _) => error,
    }
}

/// A grammar that nothing fits is refused before anybody waits for its answer.
fn first_mask(mut follower: Follower) -> Result<TokenSet, GrammarError> {
    follower
        .allowed()
        .map_err(|_| GrammarError::Refused("nothing that this model could say fits it".to_owned()))
}

fn top_level(source: &Source) -> Result<TopLevelGrammar, GrammarError> {
    let long = |bytes: usize, most: usize| {
        let reason = format!("it is longer than {most} bytes");
        if bytes > most { Err(GrammarError::Refused(reason)) } else { Ok(()) }
    };
    match source {
        Source::JsonObject => {
            let any = serde_json::json!({ "type": "object" });
            Ok(TopLevelGrammar::from_json_schema(schema::prepare(&any)?))
        }
        Source::JsonSchema(schema) => {
            long(schema.to_string().len(), SOURCE_BYTES_MAX)?;
            Ok(TopLevelGrammar::from_json_schema(schema::prepare(schema)?))
        }
        Source::Regex(regex) => {
            long(regex.len(), REGEX_BYTES_MAX)?;
            pattern::check(regex).map_err(GrammarError::Refused)?;
            Ok(TopLevelGrammar::from_regex(regex))
        }
        Source::Choice(choices) => {
            if choices.is_empty() || choices.len() > CHOICES_MAX {
                let reason = format!("it has {} choices, not 1 to {CHOICES_MAX}", choices.len());
                return Err(GrammarError::Refused(reason));
            }
            long(choices.iter().map(String::len).sum(), SOURCE_BYTES_MAX)?;
            let literals: Vec<_> = choices.iter().map(|c| regex_syntax::escape(c)).collect();
            Ok(TopLevelGrammar::from_regex(&format!("(?:{})", literals.join("|"))))
        }
        Source::Parts(parts) => {
            let mut lark = String::from("start: ");
            let mut rules = String::new();
            parts_as_lark(parts, &mut lark, &mut rules)?;
            lark.push('\n');
            lark.push_str(&rules);
            long(lark.len(), SOURCE_BYTES_MAX)?;
            Ok(TopLevelGrammar::from_lark(lark))
        }
        Source::Lark(lark) => {
            long(lark.len(), SOURCE_BYTES_MAX)?;
            lark::check(lark).map_err(|reason| GrammarError::Refused(reason.to_owned()))?;
            Ok(TopLevelGrammar::from_lark(lark.clone()))
        }
    }
}

/// Writes `parts` as the rest of a line, and each schema as a rule of its own.
fn parts_as_lark(
    parts: &[Part],
    line: &mut String,
    rules: &mut String,
) -> Result<(), GrammarError> {
    for part in parts {
        match part {
            Part::Literal(text) => line.push_str(&Value::from(text.as_str()).to_string()),
            Part::Json { schema, of } => {
                let name = format!("json{}", rules.lines().count());
                let schema = schema::prepare(schema);
                let schema = schema.map_err(|error| of_whom(error, of.as_ref()))?;
                // Writing to a string cannot fail.
                let _ = writeln!(rules, "{name}: %json {schema}");
                line.push_str(&name);
            }
            Part::Many(parts) => {
                line.push('(');
                parts_as_lark(parts, line, rules)?;
                line.push_str(")+");
            }
            Part::OneOf(choices) => {
                line.push('(');
                for (at, parts) in choices.iter().enumerate() {
                    line.push_str(if at > 0 { "| " } else { "" });
                    parts_as_lark(parts, line, rules)?;
                }
                line.push(')');
            }
        }
        line.push(' ');
    }
    Ok(())
}

/// The compiler's own words, without what only its authors understand.
fn refused(source: &Source, error: &anyhow::Error) -> GrammarError {
    let text = error.to_string();
    tracing::debug!(error = text, "a grammar does not compile");
    // Of parts the client knows nothing, and each of them compiles by itself.
    if text.starts_with("panic:") || matches!(source, Source::Parts(_)) {
        return GrammarError::Refused("it is beyond what this server can compile".to_owned());
    }
    let text = match (source, text.contains("oneOf constraints are not supported")) {
        (Source::JsonSchema(schema), true) => schema::overlapping_one_of(schema),
        _ => text,
    };
    let text = text.split("\n<").next().unwrap_or_default().trim();
    GrammarError::Refused(text.replace('\n', " "))
}

fn internal(error: impl std::fmt::Display) -> GrammarError {
    tracing::error!(%error, "the compiler of grammars cannot be built");
    GrammarError::Internal
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
